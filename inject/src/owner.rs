//! Which Deployment a pod belongs to, from the pod alone. In: a raw pod at its creation. Out: the Deployment's name, or what owns it instead. Left
//! to others: whether that Deployment exists (`world`).

use serde_json::Value;

/// What controls a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// By the naming rule: a ReplicaSet is named after its Deployment and the hash of the pod template.
    Deployment {
        /// Its name.
        name: String,
        /// The pod's `pod-template-hash`.
        template_hash: String,
    },
    /// Anything else, in words.
    Other(String),
}

/// Reads the controlling owner reference.
#[must_use]
pub fn owner(pod: &Value) -> Owner {
    let references = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let Some(controller) = references.iter().find(|r| r.get("controller").and_then(Value::as_bool) == Some(true)) else {
        return Owner::Other("no controller".to_owned());
    };
    let text = |key: &str| controller.get(key).and_then(Value::as_str).unwrap_or_default();
    let other = || Owner::Other(format!("{} {}", text("kind"), text("name")));
    if text("kind") != "ReplicaSet" || !text("apiVersion").starts_with("apps/") {
        return other();
    }
    let hash = pod.pointer("/metadata/labels/pod-template-hash").and_then(Value::as_str).unwrap_or_default();
    match text("name").strip_suffix(hash).and_then(|rest| rest.strip_suffix('-')) {
        Some(name) if !hash.is_empty() && !name.is_empty() => Owner::Deployment { name: name.to_owned(), template_hash: hash.to_owned() },
        _ => other(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(api: &str, kind: &str, name: &str, hash: Option<&str>) -> Value {
        json!({"metadata": {"labels": {"pod-template-hash": hash}, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": "n"},
            {"apiVersion": api, "kind": kind, "name": name, "controller": true}]}})
    }

    #[test]
    fn a_deployment_is_found_by_the_replica_sets_name() {
        let got = owner(&pod("apps/v1", "ReplicaSet", "my-orders-5d4f", Some("5d4f")));
        assert_eq!(got, Owner::Deployment { name: "my-orders".into(), template_hash: "5d4f".into() });
    }

    #[test]
    fn everything_else_is_named() {
        for (value, words) in [
            (pod("apps/v1", "StatefulSet", "db", None), "StatefulSet db"),
            (pod("apps/v1", "ReplicaSet", "alone", None), "ReplicaSet alone"),
            (pod("apps/v1", "ReplicaSet", "x-1", Some("2")), "ReplicaSet x-1"),
            (pod("apps/v1", "ReplicaSet", "-1", Some("1")), "ReplicaSet -1"),
            (pod("apps/v1", "ReplicaSet", "alone", Some("")), "ReplicaSet alone"),
            (pod("example.com/v1", "ReplicaSet", "a-1", Some("1")), "ReplicaSet a-1"),
            (json!({}), "no controller"),
            (json!({"metadata": {"ownerReferences": 7}}), "no controller"),
        ] {
            assert_eq!(owner(&value), Owner::Other(words.into()));
        }
    }
}
