//! What an installation leaves behind. In: the cluster before and after. Out: objects of QScaler's that only the latter has, and what it has written on others' objects. Left to
//! others: when to look (`run`).

use crate::stand::kubectl::kubectl;
use anyhow::Result;
use serde_json::Value;
use std::collections::BTreeSet;

/// Kinds that tell of others, or come and go by themselves.
const IGNORED: &[&str] = &["events", "events.events.k8s.io", "endpoints", "endpointslices.discovery.k8s.io", "componentstatuses"];
/// What every object that is ours, or was written by us, has somewhere.
const OURS: &str = "qscaler";
/// Marks that QScaler sets for others on pods.
const MARKS: &[&str] =
    &["controller.kubernetes.io/pod-deletion-cost", "karpenter.sh/do-not-disrupt", "cluster-autoscaler.kubernetes.io/safe-to-evict"];

/// Every object as `KIND NAMESPACE/NAME`.
///
/// # Errors
/// The API server does not answer.
pub async fn objects() -> Result<BTreeSet<String>> {
    let kinds = kubectl(&["api-resources", "--verbs=list", "-o", "name"], None).await?;
    let kinds: Vec<&str> = kinds.lines().map(str::trim).filter(|kind| !kind.is_empty() && !IGNORED.contains(kind)).collect();
    let columns = "custom-columns=K:.kind,S:.metadata.namespace,N:.metadata.name";
    let text = kubectl(&["get", &kinds.join(","), "-A", "--ignore-not-found", "--no-headers", "-o", columns], None).await?;
    Ok(listed(&text))
}

/// Lines of three columns.
fn listed(text: &str) -> BTreeSet<String> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (kind, namespace, name) = (words.next()?, words.next()?, words.next()?);
        Some(if namespace == "<none>" { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") })
    };
    text.lines().filter_map(line).collect()
}

/// Objects of ours that are there after and were not before.
#[must_use]
pub fn behind(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    after.difference(before).filter(|object| object.contains(OURS)).cloned().collect()
}

/// What is still written on a namespace's pods: a sidecar, or an annotation of ours.
///
/// # Errors
/// The API server does not answer.
pub async fn on_pods(namespace: &str) -> Result<Vec<String>> {
    let text = kubectl(&["-n", namespace, "get", "pods", "-o", "json"], None).await?;
    Ok(marks(&serde_json::from_str(&text)?))
}

fn marks(pods: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for pod in pods["items"].as_array().into_iter().flatten().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()) {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let containers = ["initContainers", "containers"].into_iter().flat_map(|list| pod["spec"][list].as_array().into_iter().flatten());
        out.extend(containers.filter_map(|c| c["name"].as_str()).filter(|c| c.contains(OURS)).map(|c| format!("container {c} in pod {name}")));
        let annotations = pod["metadata"]["annotations"].as_object().into_iter().flat_map(serde_json::Map::keys);
        out.extend(
            annotations.filter(|key| key.contains(OURS) || MARKS.contains(&key.as_str())).map(|key| format!("annotation {key} on pod {name}")),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_there_before_and_what_is_not_ours_is_not_left_behind() {
        let before = listed("Node <none> box\nPod shop orders-1\nNamespace <none> qscaler-old\n");
        let after = listed(
            "Node <none> box\nPod shop orders-2\nNamespace <none> qscaler-old\nLease qscaler-system qscaler-controller\nCustomResourceDefinition <none> qworkers.qscaler.dev\n\nodd\n",
        );
        assert_eq!(behind(&before, &after), ["CustomResourceDefinition qworkers.qscaler.dev", "Lease qscaler-system/qscaler-controller"]);
    }

    #[test]
    fn sidecars_and_marks_on_pods_that_stay_are_found() {
        let pod = |name: &str, annotations: Value, containers: Value, deleted: Value| json!({"metadata": {"name": name, "annotations": annotations, "deletionTimestamp": deleted}, "spec": {"initContainers": containers, "containers": [{"name": "worker"}]}});
        let pods = json!({"items": [
            pod("clean", json!({"team": "queues"}), json!([]), Value::Null),
            pod("held", json!({"qscaler.dev/injected": "x", "controller.kubernetes.io/pod-deletion-cost": "-1"}), json!([{"name": "qscaler-sidecar"}]), Value::Null),
            pod("leaves", json!({"qscaler.dev/injected": "x"}), json!([]), json!("2026-01-01T00:00:00Z")),
        ]});
        let mut found = marks(&pods);
        found.sort();
        assert_eq!(
            found,
            [
                "annotation controller.kubernetes.io/pod-deletion-cost on pod held",
                "annotation qscaler.dev/injected on pod held",
                "container qscaler-sidecar in pod held"
            ]
        );
    }
}
