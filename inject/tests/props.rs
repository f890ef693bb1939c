//! Whatever a pod looks like: no panic, the patch applies, and the second injection changes nothing.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test helper is a failed test with a line number")]

use proptest::prelude::*;
use qscaler_core::config::{BrokerRef, Parsed, Vertical, WorkerConfig, parse};
use qscaler_core::workload::WorkloadId;
use qscaler_inject::{Allowed, Injection, Limits, Meshes, Outcome, Refusal, Settings, Skip, WorkloadFacts, inject, owner, warnings};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Keys that the code looks for, so that arbitrary JSON meets it often.
const KEYS: &[&str] = &[
    "metadata",
    "annotations",
    "labels",
    "ownerReferences",
    "controller",
    "kind",
    "apiVersion",
    "name",
    "spec",
    "containers",
    "initContainers",
    "env",
    "envFrom",
    "value",
    "valueFrom",
    "secretKeyRef",
    "lifecycle",
    "preStop",
    "httpGet",
    "path",
    "securityContext",
    "runAsUser",
    "runAsNonRoot",
    "resources",
    "limits",
    "requests",
    "cpu",
    "memory",
    "livenessProbe",
    "terminationGracePeriodSeconds",
    "shareProcessNamespace",
    "hostPID",
    "os",
    "ports",
    "containerPort",
    "template",
    "qscaler.dev/injected",
    "qscaler.dev/queue",
    "args",
    "command",
    "exec",
    "imagePullSecrets",
    "traffic.sidecar.istio.io/excludeInboundPorts",
    "~",
    "/",
    "a/b~c",
];
const WORDS: &[&str] = &[
    "worker",
    "qscaler-sidecar",
    "URL",
    "QSCALER_CONFIG",
    "$(URL)",
    "$(",
    "$$(A)",
    "{}",
    "windows",
    "ReplicaSet",
    "istio-proxy",
    "istio-init",
    "-d",
    "kuma-init",
    "--exclude-inbound-ports",
    "--exclude-inbound-ports=1",
    "/init",
    "kill 1",
    "1Gi",
    "100m",
    "é",
    "",
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(WORDS).prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(7, 96, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(KEYS), inner), 0..6)
                .prop_map(|pairs| { Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>()) }),
        ]
    })
}

/// A pod with containers of arbitrary insides.
fn any_pod() -> impl Strategy<Value = Value> {
    let container = (prop::sample::select(&["worker", "istio-proxy", "second", "b"][..]), any_json(), any_json(), any_json()).prop_map(
        |(name, env, rest, lifecycle)| {
            let mut container = rest.as_object().cloned().unwrap_or_default();
            container.insert("name".into(), json!(name));
            container.insert("env".into(), json!([{"name": "A", "value": "x"}, env, {"name": "URL", "value": "redis://$(A)"}]));
            container.insert("lifecycle".into(), lifecycle);
            Value::Object(container)
        },
    );
    (any_json(), any_json(), prop::collection::vec(container, 1..4), any_json()).prop_map(|(metadata, spec, containers, init)| {
        let mut spec = spec.as_object().cloned().unwrap_or_default();
        spec.insert("containers".into(), json!(containers));
        spec.insert("initContainers".into(), init);
        json!({"metadata": metadata, "spec": spec})
    })
}

fn config(replace_pre_stop: bool) -> WorkerConfig {
    let annotations = [("queue", "q"), ("broker", "env:URL"), ("max-replicas", "5")].map(|(k, v)| (format!("qscaler.dev/{k}"), v.to_owned())).into();
    let Parsed::Valid(config) = parse(&annotations, &BTreeMap::new()) else { panic!() };
    WorkerConfig {
        replace_pre_stop,
        vertical: Vertical::Initial,
        control_broker: Some(BrokerRef::Secret { name: "s".into(), key: "k".into() }),
        broker_tls: None,
        management: None,
        ..*config
    }
}

fn injected(pod: &Value, config: &WorkerConfig, token: &str) -> Outcome {
    injected_with(pod, config, token, &["A".repeat(43)])
}

fn injected_with(pod: &Value, config: &WorkerConfig, token: &str, keys: &[String]) -> Outcome {
    let settings = Settings { pull_secrets: vec!["pull".into()], ..Settings::default() };
    let size = qscaler_api::Resources { memory_bytes: Some(1 << 28), cpu_request_millicores: Some(50) };
    let injection = Injection {
        settings: &settings,
        workload: WorkloadId { namespace: "n".into(), name: "w".into() },
        workload_uid: "u".into(),
        template_hash: "h".into(),
        recommended: [("worker".to_owned(), size)].into(),
        worker_ids: None,
        allowed: Allowed {
            root: true,
            meshes: Meshes { istio: true, linkerd: true, kuma: true },
            limits: Limits { pod_memory_max: Some(1 << 30), ..Limits::default() },
        },
        not_shared: None,
        hook_token: token.into(),
        control_keys: keys.to_vec(),
    };
    inject(pod, config, &injection)
}

fn check(pod: &Value, replace: bool) -> Result<bool, TestCaseError> {
    let config = config(replace);
    let Outcome::Patch { patch, .. } = injected(pod, &config, "0123") else { return Ok(false) };
    let mut after = pod.clone();
    json_patch::patch(&mut after, &patch).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(injected(&after, &config, "4567"), Outcome::Skip(Skip::AlreadyInjected));
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_json_never_panics(value in any_json()) {
        let _ = owner(&value);
        let _ = warnings("Deployment", &WorkloadId { namespace: "n".into(), name: "w".into() }, &value, &value, &WorkloadFacts::default(), &Settings::default());
        check(&value, true)?;
    }

    #[test]
    fn the_patch_applies_and_the_second_injection_is_a_no_op(pod in any_pod(), replace in any::<bool>()) {
        check(&pod, replace)?;
    }
}

#[test]
fn keys_of_control_messages_are_a_variable_of_the_sidecar_and_make_no_pod_out_of_date() {
    let pod = json!({"metadata": {}, "spec": {"containers": [{"name": "worker", "env": [{"name": "URL", "value": "redis://r"}]}]}});
    let made = |keys: &[String]| {
        let Outcome::Patch { patch, .. } = injected_with(&pod, &config(false), "0123", keys) else { panic!("not injected") };
        let mut after = pod.clone();
        json_patch::patch(&mut after, &patch).unwrap();
        after
    };
    let (none, mut two) = (made(&[]), made(&["A".repeat(43), "B".repeat(43)]));
    // The mark has the hash by which pods are out of date: it is the same, and the variable is all that differs.
    let env = two["spec"]["initContainers"][0]["env"].as_array_mut().unwrap();
    let at = env.iter().position(|e| e["name"] == "QSCALER_CONTROL_KEYS").unwrap();
    assert_eq!(env.remove(at)["value"], format!("{},{}", "A".repeat(43), "B".repeat(43)));
    assert_eq!(none, two);
}

#[test]
fn a_pod_of_1500_variables_gets_a_patch_that_does_not_grow_with_it() {
    let env: Vec<Value> = (0..1500).map(|i| json!({"name": format!("V{i}"), "value": "x".repeat(100)})).collect();
    let mut pod = json!({"metadata": {}, "spec": {"containers": [{"name": "worker", "env": [{"name": "URL", "value": "redis://r"}]}]}});
    let small = injected(&pod, &config(false), "t");
    pod["spec"]["containers"][0]["env"].as_array_mut().unwrap().extend(env);
    assert_eq!(injected(&pod, &config(false), "t"), small);
}

#[test]
fn a_pod_for_windows_is_known_however_it_says_so_and_no_other_is_taken_for_one() {
    let affinity =
        |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
    let on = |operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": "kubernetes.io/os", "operator": operator, "values": values}]});
    let refused = |spec: &Value| {
        let mut pod = json!({"metadata": {}, "spec": spec});
        pod["spec"]["containers"] = json!([{"name": "worker", "securityContext": spec.get("of_container")}]);
        matches!(injected(&pod, &config(false), "t"), Outcome::Refuse(Refusal::Windows))
    };
    for spec in [
        json!({"os": {"name": "windows"}}),
        json!({"nodeSelector": {"kubernetes.io/os": "windows"}}),
        json!({"nodeSelector": {"beta.kubernetes.io/os": "windows"}}),
        affinity(json!([on("In", &["windows"])])),
        json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
        json!({"of_container": {"windowsOptions": {"runAsUserName": "ContainerUser"}}}),
    ] {
        assert!(refused(&spec), "{spec}");
    }
    for spec in [
        json!({"os": {"name": "linux"}}),
        affinity(json!([on("In", &["windows"]), on("In", &["linux"])])),
        affinity(json!([on("In", &["windows", "linux"])])),
        affinity(json!([on("NotIn", &["windows"])])),
        affinity(json!([])),
        json!({"securityContext": {"windowsOptions": null}}),
    ] {
        assert!(!refused(&spec), "{spec}");
    }
}
