//! Warnings when a workload is applied: the user sees them in `kubectl`, where those about a pod reach nobody but a controller. In: a workload object,
//! what is known of its namespace. Out: sentences. Left to others: the workload is always allowed.

use crate::{Allowed, Injection, Outcome, Settings, annotations, preview};
use qscaler_api::WorkerIds;
use qscaler_core::config::{Parsed, WorkerConfig, parse};
use qscaler_core::framework::{GateKind, Promise};
use qscaler_core::names::{DOMAIN, INJECTION_ENABLED, LABEL_INJECTION};
use qscaler_core::workload::WorkloadId;
use serde_json::Value;

/// Where each kind keeps its pod template.
const TEMPLATES: &[(&str, &str)] = &[
    ("Deployment", "/spec/template"),
    ("StatefulSet", "/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("ReplicaSet", "/spec/template"),
    ("Job", "/spec/template"),
    ("CronJob", "/spec/jobTemplate/spec/template"),
];

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
    let config = match parse(&annotations(object.get("metadata")), &annotations(template.get("metadata"))) {
        Parsed::NotOurs => return Words::default(),
        _ if kind != "Deployment" => return always(vec![format!("{DOMAIN} annotations work on Deployments only; this {kind} is left as it is")]),
        Parsed::Invalid(errors) => return always(errors.iter().map(ToString::to_string).collect()),
        Parsed::Valid(config) => config,
    };
    let mut words = of_template(template, &config, id, facts, settings);
    words.once.extend(of_framework(&config));
    if facts.enabled == Some(false) {
        // How its pods would be is of no use to someone whose pods will not be so.
        words.once.clear();
        words
            .always
            .insert(0, format!("namespace {} has no label {LABEL_INJECTION}={INJECTION_ENABLED}: nothing happens before it has", id.namespace));
    }
    words
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
