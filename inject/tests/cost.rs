//! What a pod may cost the webhook, which answers for a whole cluster: each of these inputs is within what an API server takes, and took minutes to hours, or
//! hundreds of megabytes, by work that grows faster than the input.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test helper is a failed test with a line number")]

use qscaler_core::config::{Parsed, WorkerConfig, parse};
use qscaler_core::workload::WorkloadId;
use qscaler_inject::{Allowed, Injection, Outcome, Refusal, Settings, inject};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::time::Duration;

/// Each takes less than a second, also without optimisation; only work that grows too fast meets this.
const DEADLINE: Duration = Duration::from_secs(60);

fn config() -> WorkerConfig {
    let annotations = [("queue", "q"), ("broker", "env:URL"), ("max-replicas", "5")].map(|(k, v)| (format!("qscaler.dev/{k}"), v.to_owned())).into();
    let Parsed::Valid(config) = parse(&annotations, &BTreeMap::new()) else { panic!() };
    *config
}

/// The outcome for a pod with these containers, in time.
fn outcome(containers: Value) -> Outcome {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let settings = Settings::default();
        let injection = Injection::preview(&settings, WorkloadId { namespace: "n".into(), name: "w".into() }, Allowed::default());
        let _ = tell.send(inject(&json!({"metadata": {}, "spec": {"containers": containers}}), &config(), &injection));
    });
    told.recv_timeout(DEADLINE).expect("it takes too long")
}

fn of_env(env: Vec<Value>) -> Outcome {
    outcome(json!([{"name": "w", "image": "w", "env": env}]))
}

fn variable(name: impl ToString, value: impl ToString) -> Value {
    json!({"name": name.to_string(), "value": value.to_string()})
}

#[test]
fn references_that_meet_again_and_again_are_followed_once() {
    let mut env = vec![variable("V0", "")];
    env.extend((1..8).map(|i| variable(format!("V{i}"), format!("$(V{})", i - 1).repeat(100))));
    env.push(variable("URL", "$(V7)"));
    assert!(matches!(of_env(env), Outcome::Patch { .. }));
}

#[test]
fn many_references_among_many_variables_are_found_without_looking_through_all_of_them() {
    let mut env: Vec<Value> = (0..30_000).map(|i| variable(i, "")).collect();
    env.push(variable("URL", "$(0)$(x)".repeat(100_000)));
    assert!(matches!(of_env(env), Outcome::Patch { .. }));
}

#[test]
fn references_that_never_close_are_looked_for_once() {
    assert!(matches!(of_env(vec![variable("URL", "$(".repeat(1_500_000))]), Outcome::Patch { .. }));
}

#[test]
fn a_pod_of_more_containers_than_any_has_is_left_as_it_is() {
    for list in ["containers", "initContainers"] {
        let mut spec = json!({"containers": [{"name": "w", "image": "w"}]});
        spec[list] = json!(vec![json!({"name": "w", "livenessProbe": {}}); 30_000]);
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let settings = Settings::default();
            let injection = Injection::preview(&settings, WorkloadId { namespace: "n".into(), name: "w".into() }, Allowed::default());
            let _ = tell.send(inject(&json!({"metadata": {}, "spec": spec}), &config(), &injection));
        });
        let outcome = told.recv_timeout(DEADLINE).expect("it takes too long");
        assert!(matches!(outcome, Outcome::Refuse(Refusal::TooManyContainers { .. })), "{list}");
    }
    let many: Vec<Value> = (0..100).map(|i| json!({"name": format!("c{i}"), "image": "w"})).collect();
    assert!(matches!(outcome(json!(many)), Outcome::Patch { .. }));
}
