//! `kubectl qscaler doctor`: a list of checks, each with its mend. In: what could be read of the cluster. Out: checks; one that fails makes the exit code 1. Left to
//! others: reading (`cluster`). What may not be read is said to be unknown, and is no failure.

use crate::absent::{Workload, why};
use crate::show::needs_someone;
use qscaler_api::QWorker;
use qscaler_core::names::WEBHOOK_CONFIGURATION;
use serde::Serialize;
use std::fmt::Write;

/// What was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen<T> {
    Yes(T),
    /// The user may not.
    NotAllowed,
    /// It is not there, or could not be had, and why.
    No(String),
}

impl<T> Seen<T> {
    pub(crate) fn map<U>(self, then: impl FnOnce(T) -> U) -> Seen<U> {
        match self {
            Self::Yes(found) => Seen::Yes(then(found)),
            Self::NotAllowed => Seen::NotAllowed,
            Self::No(why) => Seen::No(why),
        }
    }
}

/// A Deployment of QScaler's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) ready: i32,
    pub(crate) wanted: i32,
}

/// Everything that is looked at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Facts {
    pub(crate) version: Seen<String>,
    /// The API server knows QWorkers; None: it did not say.
    pub(crate) installed: Option<bool>,
    /// Its webhooks, each with whether it has a CA bundle.
    pub(crate) webhooks: Seen<Vec<(String, bool)>>,
    pub(crate) parts: Seen<Vec<Part>>,
    /// Deployments with annotations of ours.
    pub(crate) workloads: Seen<Vec<Workload>>,
    pub(crate) workers: Seen<Vec<QWorker>>,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Ok,
    Failed,
    Unknown,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) check: String,
    pub(crate) state: State,
    /// What is wrong and what mends it; empty: nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) fix: String,
}

fn check(check: impl Into<String>, state: State, fix: impl Into<String>) -> Check {
    Check { check: check.into(), state, fix: fix.into() }
}

const NOT_ALLOWED: &str = "you may not read this; ask someone who may";

/// All checks, in the order in which one thing needs the other.
pub(crate) fn checks(facts: &Facts) -> Vec<Check> {
    let mut out = vec![match &facts.version {
        Seen::Yes(version) => check(format!("the API server answers ({version})"), State::Ok, ""),
        Seen::NotAllowed => check("the API server answers", State::Ok, ""),
        Seen::No(why) => check("the API server answers", State::Failed, why),
    }];
    out.push(match facts.installed {
        Some(true) => check("the API server knows QWorkers", State::Ok, ""),
        Some(false) => {
            check("the API server knows QWorkers", State::Failed, "helm install charts/qscaler; helm upgrade never changes CRDs, kubectl apply does")
        }
        None => check("the API server knows QWorkers", State::Unknown, "it did not say"),
    });
    out.extend(parts(&facts.parts));
    out.extend(webhooks(&facts.webhooks));
    out.extend(workloads(facts));
    out
}

fn parts(parts: &Seen<Vec<Part>>) -> Vec<Check> {
    let found = match parts {
        Seen::Yes(found) => found,
        Seen::NotAllowed => return vec![check("QScaler's own Deployments are ready", State::Unknown, NOT_ALLOWED)],
        Seen::No(why) => return vec![check("QScaler's own Deployments are ready", State::Failed, why)],
    };
    let missing = ["controller", "webhook"].into_iter().filter(|part| !found.iter().any(|p| p.name.ends_with(part)));
    let mut out: Vec<Check> = missing
        .map(|part| check(format!("the {part} is there"), State::Failed, "no Deployment of the chart has this name: helm install it"))
        .collect();
    out.extend(found.iter().map(|part| {
        let name = format!("{}/{} is ready ({} of {})", part.namespace, part.name, part.ready, part.wanted);
        match part.ready {
            0 if part.wanted > 0 => check(
                name,
                State::Failed,
                format!("kubectl -n {0} describe deployment {1}; kubectl -n {0} logs deployment/{1}", part.namespace, part.name),
            ),
            _ => check(name, State::Ok, ""),
        }
    }));
    out
}

fn webhooks(webhooks: &Seen<Vec<(String, bool)>>) -> Vec<Check> {
    let name = format!("MutatingWebhookConfiguration {WEBHOOK_CONFIGURATION} is there");
    let found = match webhooks {
        Seen::Yes(found) => found,
        Seen::NotAllowed => return vec![check(name, State::Unknown, NOT_ALLOWED)],
        Seen::No(why) => return vec![check(name, State::Failed, format!("{why}: pods are made without the sidecar; helm install or upgrade"))],
    };
    let mut out = vec![check(name, State::Ok, "")];
    out.extend(found.iter().map(|(hook, ca)| {
        let name = format!("{hook} has a CA bundle");
        if *ca {
            check(name, State::Ok, "")
        } else {
            check(name, State::Failed, "the API server trusts no certificate of the webhook, so pods are made without the sidecar: see the log of qscaler-certs, or cert-manager's")
        }
    }));
    out
}

/// Annotated Deployments without a QWorker, and every condition that needs someone.
fn workloads(facts: &Facts) -> Vec<Check> {
    let (Seen::Yes(workers), Seen::Yes(deployments)) = (&facts.workers, &facts.workloads) else {
        let state = if facts.workers == Seen::NotAllowed || facts.workloads == Seen::NotAllowed { State::Unknown } else { State::Failed };
        let fix = if state == State::Unknown { NOT_ALLOWED } else { "they could not be read" };
        return vec![check("workloads", state, fix)];
    };
    let same = |w: &QWorker, d: &Workload| w.metadata.namespace.as_deref() == Some(&*d.namespace) && w.metadata.name.as_deref() == Some(&*d.name);
    let mut out = Vec::new();
    for deployment in deployments.iter().filter(|d| !workers.iter().any(|w| same(w, d))) {
        let fix = why(&deployment.name, facts.installed, Some(deployment));
        out.push(check(format!("{}/{} is managed", deployment.namespace, deployment.name), State::Failed, fix));
    }
    for worker in workers {
        let name = format!("{}/{}", worker.metadata.namespace.as_deref().unwrap_or_default(), worker.metadata.name.as_deref().unwrap_or_default());
        let conditions = worker.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        let bad: Vec<_> = conditions.iter().filter(|c| needs_someone(c)).collect();
        if bad.is_empty() {
            out.push(check(format!("{name}: every condition is as it should be"), State::Ok, ""));
        }
        out.extend(bad.iter().map(|c| check(format!("{name}: {} is {} ({})", c.type_, c.status, c.reason), State::Failed, c.message.clone())));
    }
    if workers.is_empty() && deployments.is_empty() {
        out.push(check("no Deployment here is annotated, so nothing is managed", State::Ok, ""));
    }
    out
}

/// The list for people, and whether all is well.
pub(crate) fn text(checks: &[Check]) -> (String, bool) {
    let mut out = String::new();
    for one in checks {
        let mark = match one.state {
            State::Ok => "ok     ",
            State::Failed => "FAILED ",
            State::Unknown => "?      ",
        };
        let _ = writeln!(out, "{mark} {}", one.check);
        for line in one.fix.lines() {
            let _ = writeln!(out, "          {line}");
        }
    }
    let failed = checks.iter().filter(|c| c.state == State::Failed).count();
    let unknown = checks.iter().filter(|c| c.state == State::Unknown).count();
    let _ = writeln!(out, "\n{} checks, {failed} failed, {unknown} unknown", checks.len());
    (out, failed == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use qscaler_api::{QWorkerSpec, QWorkerStatus};
    use serde_json::json;

    fn part(name: &str, ready: i32) -> Part {
        Part { namespace: "qscaler-system".into(), name: name.into(), ready, wanted: 2 }
    }

    fn workload(name: &str) -> Workload {
        Workload { namespace: "shop".into(), name: name.into(), labelled: Some(true), annotated: true, mistakes: Vec::new() }
    }

    fn worker(name: &str, kind: &str, status: &str, message: &str) -> QWorker {
        let mut worker = QWorker::new(name, QWorkerSpec { target_kind: "Deployment".into(), target_name: name.into() });
        worker.metadata.namespace = Some("shop".into());
        let condition = json!({"type": kind, "status": status, "reason": "R", "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"});
        worker.status = Some(QWorkerStatus { conditions: vec![serde_json::from_value(condition).unwrap()], ..QWorkerStatus::default() });
        worker
    }

    fn good() -> Facts {
        Facts {
            version: Seen::Yes("v1.36.3".into()),
            installed: Some(true),
            webhooks: Seen::Yes(vec![("pods.qscaler.dev".into(), true)]),
            parts: Seen::Yes(vec![part("qscaler-controller", 1), part("qscaler-webhook", 2)]),
            workloads: Seen::Yes(vec![workload("orders")]),
            workers: Seen::Yes(vec![worker("orders", "HoldEffective", "True", "whole")]),
        }
    }

    fn failed(facts: &Facts) -> Vec<String> {
        checks(facts).into_iter().filter(|c| c.state == State::Failed).map(|c| format!("{}: {}", c.check, c.fix)).collect()
    }

    #[test]
    fn a_cluster_where_all_is_well_has_no_failure() {
        assert_eq!(failed(&good()), Vec::<String>::new());
        assert!(text(&checks(&good())).1);
    }

    #[test]
    fn each_fault_fails_with_the_mend() {
        let none = || Seen::No("there is none".to_owned());
        for (facts, part_of) in [
            (Facts { installed: Some(false), ..good() }, "helm install"),
            (Facts { webhooks: none(), ..good() }, "pods are made without the sidecar"),
            (Facts { webhooks: Seen::Yes(vec![("pods.qscaler.dev".into(), false)]), ..good() }, "pods.qscaler.dev has a CA bundle"),
            (Facts { parts: Seen::Yes(vec![part("qscaler-webhook", 2)]), ..good() }, "the controller is there"),
            (
                Facts { parts: Seen::Yes(vec![part("qscaler-webhook", 0), part("qscaler-controller", 1)]), ..good() },
                "logs deployment/qscaler-webhook",
            ),
            (
                Facts { workloads: Seen::Yes(vec![workload("orders"), Workload { labelled: Some(false), ..workload("mails") }]), ..good() },
                "kubectl label namespace shop",
            ),
            (Facts { workers: Seen::Yes(vec![worker("orders", "HoldEffective", "False", "set `runAsUser: 0`")]), ..good() }, "runAsUser: 0"),
            (Facts { workers: Seen::Yes(vec![worker("orders", "ScaleDownBlocked", "True", "a rollout")]), ..good() }, "a rollout"),
        ] {
            let found = failed(&facts);
            assert!(found.len() == 1 && found[0].contains(part_of), "{part_of}: {found:?}");
            let (text, well) = text(&checks(&facts));
            assert!(!well && text.contains("1 failed"), "{text}");
        }
    }

    #[test]
    fn what_may_not_be_read_is_unknown_and_no_failure() {
        let blind = Facts { webhooks: Seen::NotAllowed, parts: Seen::NotAllowed, workloads: Seen::NotAllowed, ..good() };
        let (text, well) = text(&checks(&blind));
        assert!(well && text.contains("3 unknown"), "{text}");
    }
}
