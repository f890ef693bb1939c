//! The list. In: nothing. Out: cases, each as it differs from a usual fleet, and the words by which the user must be told. Left to others: running them.

use crate::stand::fleet::PodShape;
use qscaler_core::names::sidecar;
use serde_json::{Value, json};

/// One way to be hostile. Everything is as in a usual fleet but for this.
#[derive(Clone, Debug)]
pub struct Case {
    /// Part of its namespaces' names.
    pub name: &'static str,
    /// `qscaler.dev/` annotations, without the prefix.
    pub annotations: &'static [(&'static str, &'static str)],
    /// Objects of the namespace that are there before the worker is; the namespace is put in.
    pub objects: Vec<Value>,
    /// Objects of the whole cluster, `{namespace}` in them stands for it.
    pub cluster: &'static str,
    /// How the pod differs.
    pub pod: PodShape,
    /// What a condition of the QWorker or an Event of the namespace must name; None: nothing is wrong, or nobody needs to know.
    pub says: Option<&'static str>,
}

const USUAL: PodShape = PodShape { command: &[], container: "", helpers: "", own_user: false };

fn usual(name: &'static str) -> Case {
    Case { name, annotations: &[], objects: Vec::new(), cluster: "", pod: USUAL, says: None }
}

/// A reference that leads nowhere, or to something that is none; the user is told this word.
fn reference(name: &'static str, annotations: &'static [(&'static str, &'static str)], says: &'static str) -> Case {
    Case { annotations, objects: vec![secret()], says: Some(says), ..usual(name) }
}

/// A pod whose text has this in its worker's container.
fn container(name: &'static str, container: &'static str, says: Option<&'static str>) -> Case {
    Case { pod: PodShape { container, ..USUAL }, says, ..usual(name) }
}

/// A pod with a container of somebody else.
fn helper(name: &'static str, helpers: &'static str, says: Option<&'static str>) -> Case {
    Case { pod: PodShape { helpers, ..USUAL }, says, ..usual(name) }
}

fn secret() -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "there"}, "stringData": {
        "empty": "", "words": "not a url", "kafka": "kafka://localhost:9092", "socket": "redis+socket:///run/redis.sock",
        "sentinels": "sentinel://localhost:26379;sentinel://localhost:26380", "closed": "redis://localhost:1/0", "cluster": "redis+cluster://localhost:1"}})
}

fn limit_range(limits: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits"}, "spec": {"limits": [limits]}})
}

/// A policy as clusters have it: no pod shares its processes.
const NO_SHARED_PROCESSES: &str = r#"[
    {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "{namespace}"}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
        "validations": [{"expression": "!has(object.spec.shareProcessNamespace) || !object.spec.shareProcessNamespace",
            "message": "spec.shareProcessNamespace must not be true"}]}},
    {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "{namespace}"}, "spec": {
        "policyName": "{namespace}", "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "{namespace}"}}}}}]"#;

macro_rules! sleeping {
    ($name:literal) => {
        concat!(
            r#"[{"name": ""#,
            $name,
            r#"", "image": "qscaler/worker-python:dev", "imagePullPolicy": "IfNotPresent", "command": ["/bin/sleep", "86400"],
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}, "limits": {"memory": "8Mi"}}}]"#
        )
    };
}

/// All cases.
#[must_use]
pub fn all() -> Vec<Case> {
    let mut all = vec![
        reference("no-secret", &[("broker", "secret:nowhere/url")], "nowhere"),
        reference("no-key", &[("broker", "secret:there/nothing")], "nothing"),
        reference("empty-key", &[("broker", "secret:there/empty")], "broker"),
        reference("no-variable", &[("broker", "env:TYPO")], "TYPO"),
        reference("no-url", &[("broker", "secret:there/words")], "scheme"),
        reference("other-broker", &[("broker", "secret:there/kafka")], "Kafka"),
        reference("unix-socket", &[("broker", "secret:there/socket")], "Unix socket"),
        reference("redis-cluster", &[("broker", "secret:there/cluster")], "Cluster"),
        reference("sentinels-away", &[("broker", "secret:there/sentinels")], "sentinel"),
        reference("broker-away", &[("broker", "secret:there/closed")], "localhost:1"),
        reference("no-control-secret", &[("control-broker", "secret:nowhere/url")], "nowhere"),
        reference("no-tls-secret", &[("broker-tls", "secret:nowhere")], "nowhere"),
        reference("tls-without-keys", &[("broker-tls", "secret:there")], "ca.crt"),
        reference("no-management-secret", &[("management", "secret:nowhere/url")], "nowhere"),
        reference("no-container", &[("container", "typo")], "typo"),
        reference("no-number", &[("max-replicas", "many")], "max-replicas"),
        reference("no-annotation", &[("max-replica", "3")], "max-replica"),
        container("own-pre-stop", r#"{"lifecycle": {"preStop": {"exec": {"command": ["/bin/true"]}}}}"#, Some("preStop")),
        container("probe-of-process-one", r#"{"livenessProbe": {"exec": {"command": ["sh", "-c", "kill -0 1"]}, "periodSeconds": 5}}"#, None),
        container(
            "probes",
            // Of what the workers' images have, and with time enough for a node that is busy: without QScaler they are to pass, too.
            r#"{"readinessProbe": {"exec": {"command": ["sh", "-c", "exit 0"]}, "timeoutSeconds": 20},
                "startupProbe": {"exec": {"command": ["sh", "-c", "exit 0"]}, "timeoutSeconds": 20, "failureThreshold": 30}}"#,
            None,
        ),
        helper("name-taken", sleeping!("qscaler-sidecar"), Some("qscaler-sidecar")),
        helper("istio", sleeping!("istio-proxy"), None),
        helper("linkerd", sleeping!("linkerd-proxy"), None),
        helper("vault-agent", sleeping!("vault-agent"), None),
        Case { pod: PodShape { own_user: true, ..USUAL }, ..usual("image-without-user") },
        Case {
            objects: vec![limit_range(json!({"type": "Pod", "max": {"memory": "260Mi"}}))],
            says: Some("LimitRange"),
            pod: PodShape { container: r#"{"resources": {"requests": {"memory": "250Mi"}, "limits": {"memory": "250Mi"}}}"#, ..USUAL },
            ..usual("no-room-in-the-pod")
        },
        Case { objects: vec![limit_range(json!({"type": "Container", "max": {"memory": "300Mi"}}))], ..usual("limit-range") },
        Case {
            objects: vec![json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota"},
                "spec": {"hard": {"pods": "4", "requests.memory": "2Gi", "limits.memory": "2Gi"}}})],
            ..usual("quota")
        },
        Case {
            objects: vec![json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "shut"},
                "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}})],
            ..usual("no-ingress")
        },
        Case { cluster: NO_SHARED_PROCESSES, says: Some("shareProcessNamespace"), ..usual("no-shared-processes") },
    ];
    let port: &'static str = Box::leak(format!(r#"{{"ports": [{{"containerPort": {}}}]}}"#, sidecar::PORT).into_boxed_str());
    all.push(container("port-taken", port, Some("port")));
    all
}

/// Those whose name has one of these parts; none given: all.
#[must_use]
pub fn chosen(parts: &[String]) -> Vec<Case> {
    all().into_iter().filter(|case| parts.is_empty() || parts.iter().any(|part| case.name.contains(part.as_str()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_case_has_a_name_of_its_own_that_a_namespace_may_have_and_texts_that_are_json() {
        let cases = all();
        let names: BTreeSet<&str> = cases.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), cases.len());
        for case in &cases {
            assert!(case.name.len() <= 40 && case.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", case.name);
            for text in [case.cluster, case.pod.container, case.pod.helpers].into_iter().filter(|text| !text.is_empty()) {
                assert!(serde_json::from_str::<Value>(text).is_ok(), "{}: {text}", case.name);
            }
        }
        assert_eq!(chosen(&["no-secret".to_owned()]).len(), 1);
    }
}
