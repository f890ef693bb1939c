//! With the variables that a configuration asks for alone, the answer about a pod is the same as with all.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test helper is a failed test with a line number")]

use proptest::prelude::*;
use qscaler_core::config::{Parsed, WorkerConfig, parse};
use qscaler_core::workload::WorkloadId;
use qscaler_inject::variables::{Variable, needed};
use qscaler_inject::{Allowed, Injection, Settings, inject};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;

const NAMES: &[&str] = &["URL", "HOST", "PASS", "API", "S6_KEEP_ENV", "REMAP_SIGTERM", "QSCALER_CONFIG", "V1", "V2", "V3"];

fn value() -> impl Strategy<Value = Value> {
    let piece = prop_oneof![
        prop::sample::select(NAMES).prop_map(|name| format!("$({name})")),
        prop::sample::select(&["redis://", "x", "$$", "$(", "@", "SIGQUIT", "/0", ""][..]).prop_map(str::to_owned)
    ];
    let text = prop::collection::vec(piece, 0..4).prop_map(|pieces| json!({"value": pieces.concat()}));
    let from = (prop::sample::select(&["secretKeyRef", "configMapKeyRef", "fileKeyRef", "fieldRef"][..]), prop::sample::select(&["mq", "other"][..]))
        .prop_map(|(kind, name)| json!({"valueFrom": {kind: {"name": name, "key": "url"}}}));
    prop_oneof![4 => text, 1 => from, 1 => Just(json!({}))]
}

fn env() -> impl Strategy<Value = Vec<Value>> {
    let entry = (prop::sample::select(NAMES), value()).prop_map(|(name, mut entry)| {
        entry["name"] = json!(name);
        entry
    });
    prop::collection::vec(entry, 0..8)
}

fn config(broker: &str, management: bool) -> WorkerConfig {
    let mut annotations: BTreeMap<String, String> =
        [("worker", "celery"), ("max-replicas", "5"), ("queue", "q"), ("broker", broker), ("container", "w")]
            .map(|(k, v)| (format!("qscaler.dev/{k}"), v.to_owned()))
            .into();
    if management {
        annotations.insert("qscaler.dev/management".to_owned(), "env:API".to_owned());
    }
    let Parsed::Valid(config) = parse(&annotations, &BTreeMap::new()) else { panic!("{broker}") };
    *config
}

/// As the webhook reads them.
fn only_needed(env: &[Value], config: &WorkerConfig) -> Vec<Value> {
    fn text<'e>(entry: &'e Value, key: &str) -> Cow<'e, str> {
        entry.get(key).and_then(Value::as_str).unwrap_or_default().into()
    }
    let variables: Vec<Variable<'_>> =
        env.iter().map(|entry| Variable { name: text(entry, "name"), from: entry.get("valueFrom").is_some() }).collect();
    let needed = needed(&variables, |at| text(&env[at], "value"), config);
    env.iter().zip(needed).filter(|(_, needed)| *needed).map(|(entry, _)| entry.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    #[test]
    fn the_answer_is_the_same_with_the_needed_variables_alone(
        worker in env(), helper in env(), init in env(), broker in prop::sample::select(&["env:URL", "env:V1", "secret:mq/url"][..]), management in any::<bool>()
    ) {
        let config = config(broker, management);
        let settings = Settings::default();
        let workload = WorkloadId { namespace: "shop".into(), name: "orders".into() };
        let injection = Injection { hook_token: "0123".into(), ..Injection::preview(&settings, workload, Allowed { root: true, ..Allowed::default() }) };
        let pod = |read: &dyn Fn(&[Value]) -> Vec<Value>| {
            json!({"spec": {"initContainers": [{"name": "init", "env": read(&init)}],
                "containers": [{"name": "w", "env": read(&worker)}, {"name": "helper", "env": read(&helper)}]}})
        };
        let (all, few) = (pod(&<[Value]>::to_vec), pod(&|env| only_needed(env, &config)));
        prop_assert_eq!(inject(&all, &config, &injection), inject(&few, &config, &injection));
    }
}
