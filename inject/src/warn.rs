//! Warnings when a workload is applied: the user sees them in `kubectl`, where those about a pod reach nobody but a controller. In: a workload object,
//! what is known of its namespace. Out: sentences. Left to others: the workload is always allowed.

use crate::{Allowed, Injection, Outcome, Settings, annotations, preview};
use qscaler_api::WorkerIds;
use qscaler_core::config::{Parsed, WorkerConfig, parse};
use qscaler_core::framework::{GateKind, Promise, Scheduler};
use qscaler_core::names::{DOMAIN, INJECTION_ENABLED, LABEL_INJECTION, annotation};
use qscaler_core::workload::WorkloadId;
use serde_json::Value;
use std::collections::BTreeSet;

/// Where each kind keeps its pod template.
const TEMPLATES: &[(&str, &str)] = &[
    ("Deployment", "/spec/template"),
    ("StatefulSet", "/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("ReplicaSet", "/spec/template"),
    ("Job", "/spec/template"),
    ("CronJob", "/spec/jobTemplate/spec/template"),
    // Argo's.
    ("Rollout", "/spec/template"),
];
/// Keys that are named one by one where nothing reads them.
const STRAY_SHOWN: usize = 4;

/// What is known of a workload beside its own text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WorkloadFacts {
    /// Whether its namespace has opted in; None: not known.
    pub enabled: Option<bool>,
    /// What its namespace allows.
    pub allowed: Allowed,
    /// The worker's owner, as learned from earlier pods.
    pub worker_ids: Option<WorkerIds>,
}

/// What is said of a workload.
#[derive(Default)]
struct Words {
    /// What keeps it, or its pods, from being managed: each time.
    always: Vec<String>,
    /// What a user should know of how they will be: once.
    once: Vec<String>,
}

/// Everything that a user should know about a workload before its pods come; empty when it is not ours. What was as true of `old`, the object that is replaced
/// (null: there is none), was said then: of that only what is in the way is said again.
#[must_use]
pub fn warnings(kind: &str, id: &WorkloadId, object: &Value, old: &Value, facts: &WorkloadFacts, settings: &Settings) -> Vec<String> {
    let Words { mut always, once } = words(kind, id, object, facts, settings);
    let before = words(kind, id, old, facts, settings).once;
    always.extend(once.into_iter().filter(|said| !before.contains(said)));
    always
}

fn words(kind: &str, id: &WorkloadId, object: &Value, facts: &WorkloadFacts, settings: &Settings) -> Words {
    let always = |always| Words { always, ..Words::default() };
    let Some((_, path)) = TEMPLATES.iter().find(|(known, _)| *known == kind) else { return Words::default() };
    let template = object.pointer(path).unwrap_or(&Value::Null);
    let strays = strays(&[object.get("metadata"), template.get("metadata")]);
    let config = match parse(&annotations(object.get("metadata")), &annotations(template.get("metadata"))) {
        Parsed::NotOurs => return always(strays),
        _ if kind != "Deployment" => return always(vec![format!("{DOMAIN} annotations work on Deployments only; this {kind} is left as it is")]),
        Parsed::Invalid(errors) => return always(errors.iter().map(ToString::to_string).chain(strays).collect()),
        Parsed::Valid(config) => config,
    };
    let mut words = of_template(template, &config, id, facts, settings);
    words.always.extend(strays);
    words.once.extend(notes(template, &config));
    if facts.enabled == Some(false) {
        // How its pods would be is of no use to someone whose pods will not be so.
        words.once.clear();
        words
            .always
            .insert(0, format!("namespace {} has no label {LABEL_INJECTION}={INJECTION_ENABLED}: nothing happens before it has", id.namespace));
    }
    words
}

/// What in these `metadata` was meant for us, and nothing reads: annotations of ours among the labels, or under a name that is almost ours.
#[must_use]
pub fn strays(places: &[Option<&Value>]) -> Vec<String> {
    let keys = |kind: &'static str| {
        let maps = places.iter().filter_map(move |place| place.as_ref()?.get(kind)?.as_object());
        maps.flat_map(|map| map.keys().map(String::as_str)).collect::<BTreeSet<_>>()
    };
    let labels = keys("labels").into_iter().filter(|key| annotation::ALL.contains(key));
    let mut said: Vec<String> =
        labels.map(|key| format!("the label {key} is read by nobody: it belongs among the annotations (metadata.annotations)")).collect();
    for key in keys("annotations") {
        // The longest that ends it: `max-replicas` is none of `replicas`.
        let lower = key.to_ascii_lowercase();
        let named = |known: &&&str| known.strip_prefix(DOMAIN).is_some_and(|name| lower.ends_with(&name[1..]));
        let is_ours = key.strip_prefix(DOMAIN).is_some_and(|rest| rest.starts_with('/'));
        let meant = annotation::ALL.iter().filter(named).max_by_key(|known| known.len());
        if let (Some(meant), true, false) = (meant, lower.contains("qscaler"), is_ours) {
            said.push(format!("the annotation {key} is read by nobody; did you mean {meant}?"));
        }
    }
    said.truncate(STRAY_SHOWN);
    said
}

/// What injection into a pod of this template would say.
fn of_template(template: &Value, config: &WorkerConfig, id: &WorkloadId, facts: &WorkloadFacts, settings: &Settings) -> Words {
    let injection = Injection { worker_ids: facts.worker_ids, ..Injection::preview(settings, id.clone(), facts.allowed) };
    match preview(template, config, &injection) {
        Outcome::Patch { warnings, .. } | Outcome::Complete { warnings, .. } => Words { once: warnings, ..Words::default() },
        Outcome::Skip(skip) => Words { once: skip.warns().then(|| skip.to_string()).into_iter().collect(), ..Words::default() },
        Outcome::Refuse(refusal) => {
            let always = refusal.sentences().into_iter().map(|sentence| format!("pods will not be injected: {sentence}")).collect();
            Words { always, ..Words::default() }
        }
    }
}

/// What a user should know of a workload beside what injection into its pods says: what its framework cannot do, a scheduler that is scaled along.
#[must_use]
pub fn notes(template: &Value, config: &WorkerConfig) -> Vec<String> {
    of_framework(config).into_iter().chain(of_scheduler(template, config)).collect()
}

/// What the framework cannot do by itself. Where it can, its note is for the reference page, and for workers that the sidecar cannot signal.
fn of_framework(config: &WorkerConfig) -> Option<String> {
    let framework = config.framework();
    let words = match framework.promise {
        Promise::FinishThenExit if config.share_processes != Some(false) || framework.note.is_empty() => return None,
        Promise::FinishThenExit | Promise::NeedsHandler => format!("{}: {}", framework.name, framework.note),
        Promise::RestartOnTerm if framework.gate == GateKind::Freeze && config.signals.is_empty() => {
            format!(
                "{}: the worker finishes nothing on any signal, so it is frozen while it is idle, and then killed. {}",
                framework.name, framework.note
            )
        }
        Promise::RestartOnTerm => {
            format!("{}: a running task is not finished on SIGTERM, but starts again elsewhere. {}", framework.name, framework.note)
        }
    };
    Some(words.trim().to_owned())
}

/// A scheduler that is scaled along.
fn of_scheduler(template: &Value, config: &WorkerConfig) -> Option<String> {
    let (scheduler, container) = scheduler(template)?;
    let scaled = scheduler.scaled(config.min_replicas, config.max_replicas)?;
    Some(scheduler.words(scaled, &format!("container {container}")))
}

/// The scheduler that a container of this pod template starts by its command, and the container's name. What an image starts by itself is known to the sidecar alone.
#[must_use]
pub fn scheduler(template: &Value) -> Option<(Scheduler, &str)> {
    let containers = template.pointer("/spec/containers").and_then(Value::as_array);
    containers.into_iter().flatten().find_map(|container| {
        let words = ["command", "args"].into_iter().filter_map(|key| container.get(key)?.as_array()).flatten().filter_map(Value::as_str);
        Some((Scheduler::of_command(words)?, container.get("name")?.as_str()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(metadata: &Value, template: &Value) -> Vec<String> {
        let object =
            json!({"metadata": metadata, "spec": {"template": {"metadata": template, "spec": {"containers": [{"name": "w", "image": "w"}]}}}});
        let id = WorkloadId { namespace: "shop".into(), name: "orders".into() };
        warnings("Deployment", &id, &object, &Value::Null, &WorkloadFacts::default(), &Settings::default())
    }

    #[test]
    fn a_scheduler_that_is_scaled_along_is_said_of_any_container_and_only_where_replicas_can_be_several_or_none() {
        let said = |min: &str, max: &str, beside: Value| {
            let annotations = json!({"qscaler.dev/queue": "q", "qscaler.dev/broker": "env:URL", "qscaler.dev/worker": "celery",
                "qscaler.dev/min-replicas": min, "qscaler.dev/max-replicas": max});
            let containers =
                json!([{"name": "w", "image": "w", "args": ["celery", "worker"], "env": [{"name": "URL", "value": "redis://r"}]}, beside]);
            let object = json!({"metadata": {"annotations": annotations}, "spec": {"template": {"spec": {"containers": containers}}}});
            let id = WorkloadId { namespace: "shop".into(), name: "orders".into() };
            warnings("Deployment", &id, &object, &Value::Null, &WorkloadFacts::default(), &Settings::default())
        };
        let beat = || json!({"name": "clock", "image": "w", "command": ["celery"], "args": ["-A", "app", "beat"]});
        let (with, without) = (said("1", "5", beat()), said("1", "1", beat()));
        assert!(with.iter().any(|one| one.contains("container clock runs Celery's beat")), "{with:?}");
        assert!(!without.iter().any(|one| one.contains("beat")), "{without:?}");
        let other = said("0", "5", json!({"name": "log", "image": "w", "command": ["tail", "-f", "/log"]}));
        assert!(!other.iter().any(|one| one.contains("scheduler")), "{other:?}");
    }

    #[test]
    fn what_was_meant_for_us_and_nobody_reads_is_said() {
        let none = json!({});
        for (metadata, template, says) in [
            (json!({"labels": {"qscaler.dev/queue": "orders"}}), none.clone(), "the label qscaler.dev/queue"),
            (none.clone(), json!({"labels": {"qscaler.dev/max-replicas": "5"}}), "the label qscaler.dev/max-replicas"),
            (json!({"annotations": {"qscaler.io/max-replicas": "5"}}), none.clone(), "did you mean qscaler.dev/max-replicas?"),
            (json!({"annotations": {"qscaler/queue": "orders"}}), none.clone(), "did you mean qscaler.dev/queue?"),
            (json!({"annotations": {"QScaler.dev/queue": "orders"}}), none.clone(), "did you mean qscaler.dev/queue?"),
            (none.clone(), json!({"annotations": {"qscaler.dev.queue": "orders"}}), "did you mean qscaler.dev/queue?"),
            (json!({"annotations": {"www.qscaler.dev/control-broker": "env:X"}}), none.clone(), "did you mean qscaler.dev/control-broker?"),
        ] {
            let said = said(&metadata, &template);
            assert!(said.len() == 1 && said[0].contains(says), "{metadata} {template}: {said:?}");
        }
        for (metadata, template) in [
            (json!({"labels": {"app": "qscaler", "qscaler.dev/workload": "orders", "team/queue": "x"}}), none.clone()),
            (
                json!({"annotations": {"example.com/queue": "x", "qscaler.example/notes": "x"}}),
                json!({"annotations": {"qscaler.dev/injected": "{}"}}),
            ),
        ] {
            assert_eq!(said(&metadata, &template), Vec::<String>::new());
        }
        // Beside a configuration that is whole, and in no flood.
        let whole = json!({"qscaler.dev/queue": "q", "qscaler.dev/broker": "env:URL", "qscaler.dev/max-replicas": "5", "qscaler.io/max-wait": "5s"});
        assert!(said(&json!({"annotations": whole}), &none).iter().any(|one| one.contains("did you mean qscaler.dev/max-wait?")));
        let many: serde_json::Map<String, Value> = (0..1000).map(|i| (format!("qscaler.{i}/queue"), json!("x"))).collect();
        assert_eq!(said(&json!({"annotations": many}), &none).len(), STRAY_SHOWN);
    }
}
