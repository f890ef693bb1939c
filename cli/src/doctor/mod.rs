//! `kubectl qscaler doctor`: a list of checks, each with its mend. In: what could be read of the cluster. Out: checks; one that fails makes the exit code 1. Left to
//! others: reading (`cluster`, `survey`). What may not be read is said to be unknown, and is no failure; nor is a warning.

mod certificates;
mod rights;
mod signing;
mod versions;

pub(crate) use certificates::Bundle;
pub(crate) use rights::{COMMANDS, NEEDED, Right, Role};
pub(crate) use signing::Keys;

use crate::absent::{DeploymentFacts, why};
use crate::show::needs_someone;
use qscaler_api::QWorker;
use qscaler_core::names::condition;
use serde::Serialize;
use std::fmt::Write;

/// The controller's Lease is renewed every few seconds; one that is older has no holder.
const LEASE_OLD_S: i64 = 60;
/// Names in one sentence.
const NAMED_MAX: usize = 5;

/// What was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ClusterSeen<T> {
    Yes(T),
    /// The user may not.
    NotAllowed,
    /// It is not there, or could not be had, and why.
    No(String),
}

impl<T> ClusterSeen<T> {
    pub(crate) fn map<U>(self, then: impl FnOnce(T) -> U) -> ClusterSeen<U> {
        match self {
            Self::Yes(found) => ClusterSeen::Yes(then(found)),
            Self::NotAllowed => ClusterSeen::NotAllowed,
            Self::No(why) => ClusterSeen::No(why),
        }
    }
}

/// A Deployment of QScaler's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Component {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) ready: i32,
    pub(crate) wanted: i32,
    /// By its label.
    pub(crate) version: Option<String>,
}

/// A pod of an annotated Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AnnotatedPod {
    pub(crate) name: String,
    /// `NAMESPACE/NAME` of its Deployment.
    pub(crate) workload: String,
    pub(crate) has_sidecar: bool,
    /// The sidecar's version, by the pod's annotation.
    pub(crate) sidecar: Option<String>,
    /// Public keys of control messages that its sidecar was given.
    pub(crate) keys: Vec<String>,
}

/// Everything that is looked at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Facts {
    pub(crate) version: ClusterSeen<String>,
    /// The API server knows QWorkers; None: it did not say.
    pub(crate) installed: Option<bool>,
    pub(crate) webhooks: ClusterSeen<Vec<Bundle>>,
    /// `tls.crt` of what the webhook serves.
    pub(crate) served: ClusterSeen<Option<Vec<u8>>>,
    pub(crate) parts: ClusterSeen<Vec<Component>>,
    /// The keys of control messages.
    pub(crate) keys: Keys,
    /// Seconds since the Lease was renewed; None: there is none.
    pub(crate) renewed_s: ClusterSeen<Option<i64>>,
    pub(crate) roles: ClusterSeen<Vec<Role>>,
    /// What the user may do of [`COMMANDS`], in their order.
    pub(crate) may: Vec<Option<bool>>,
    /// CustomResourceDefinitions and their versions.
    pub(crate) definitions: ClusterSeen<Vec<(String, Option<String>)>>,
    /// Of annotated Deployments in namespaces that have opted in.
    pub(crate) pods: ClusterSeen<Vec<AnnotatedPod>>,
    /// Seconds since the epoch.
    pub(crate) now_s: i64,
    /// Deployments with annotations of ours.
    pub(crate) workloads: ClusterSeen<Vec<DeploymentFacts>>,
    pub(crate) workers: ClusterSeen<Vec<QWorker>>,
    /// Namespaces that are being deleted, as far as they may be read.
    pub(crate) ending: Vec<String>,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Ok,
    Failed,
    /// It works, and somebody should know.
    Warning,
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
        ClusterSeen::Yes(version) => check(format!("the API server answers ({version})"), State::Ok, ""),
        ClusterSeen::NotAllowed => check("the API server answers", State::Ok, ""),
        ClusterSeen::No(why) => check("the API server answers", State::Failed, why),
    }];
    out.push(match facts.installed {
        Some(true) => check("the API server knows QWorkers", State::Ok, ""),
        Some(false) => check(
            "the API server knows QWorkers",
            State::Failed,
            "QScaler is not installed here: helm install it; with its definitions alone missing, helm upgrade writes them",
        ),
        None => check("the API server knows QWorkers", State::Unknown, "it did not say"),
    });
    let none = Vec::new();
    let known = if let ClusterSeen::Yes(parts) = &facts.parts { parts } else { &none };
    let namespace = known.iter().find(|p| p.name.ends_with("controller")).map(|p| p.namespace.as_str());
    out.extend(parts(&facts.parts));
    out.extend(leads(&facts.renewed_s, namespace));
    out.extend(certificates::checks(&facts.webhooks, &facts.served, namespace, facts.now_s));
    let certs = known.iter().any(|p| p.name.ends_with("certs"));
    out.extend(signing::checks(&facts.keys, &facts.pods, &facts.workers, namespace, certs));
    if namespace.is_some() {
        out.extend(rights::installed(&facts.roles, certs));
    }
    out.push(rights::of_user(&facts.may));
    out.extend(versions::checks(env!("CARGO_PKG_VERSION"), known, &facts.definitions, &facts.pods));
    out.extend(workloads(facts));
    out
}

/// Somebody scales. None: no controller is known, which is a failure of its own.
fn leads(renewed_s: &ClusterSeen<Option<i64>>, namespace: Option<&str>) -> Option<Check> {
    let namespace = namespace?;
    let fix =
        |what: &str| format!("{what}: nothing is scaled, tasks are held all the same: kubectl -n {namespace} logs deployment/qscaler-controller");
    Some(match renewed_s {
        ClusterSeen::Yes(Some(age)) if *age <= LEASE_OLD_S => check("a controller leads", State::Ok, ""),
        ClusterSeen::Yes(Some(age)) => check("a controller leads", State::Failed, fix(&format!("its Lease was renewed {age} s ago"))),
        ClusterSeen::Yes(None) => check("a controller leads", State::Failed, fix("there is no Lease of its")),
        ClusterSeen::NotAllowed => check("a controller leads", State::Unknown, NOT_ALLOWED),
        ClusterSeen::No(why) => check("a controller leads", State::Unknown, why),
    })
}

fn parts(parts: &ClusterSeen<Vec<Component>>) -> Vec<Check> {
    let found = match parts {
        ClusterSeen::Yes(found) => found,
        ClusterSeen::NotAllowed => return vec![check("QScaler's own Deployments are ready", State::Unknown, NOT_ALLOWED)],
        ClusterSeen::No(why) => return vec![check("QScaler's own Deployments are ready", State::Failed, why)],
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
            0 => check(
                name,
                State::Failed,
                format!("it was scaled to nothing: kubectl -n {0} scale deployment {1} --replicas=1, or helm upgrade", part.namespace, part.name),
            ),
            _ => check(name, State::Ok, ""),
        }
    }));
    out
}

/// Annotated Deployments without a QWorker, and every condition that needs someone.
fn workloads(facts: &Facts) -> Vec<Check> {
    let (ClusterSeen::Yes(workers), ClusterSeen::Yes(deployments)) = (&facts.workers, &facts.workloads) else {
        let state =
            if facts.workers == ClusterSeen::NotAllowed || facts.workloads == ClusterSeen::NotAllowed { State::Unknown } else { State::Failed };
        let fix = if state == State::Unknown { NOT_ALLOWED } else { "they could not be read" };
        return vec![check("workloads", state, fix)];
    };
    let same =
        |w: &QWorker, d: &DeploymentFacts| w.metadata.namespace.as_deref() == Some(&*d.namespace) && w.metadata.name.as_deref() == Some(&*d.name);
    let is_ending = |namespace: Option<&str>| facts.ending.iter().any(|ending| Some(ending.as_str()) == namespace);
    let ends = |w: &&QWorker| is_ending(w.metadata.namespace.as_deref());
    let mut out: Vec<Check> = facts.ending.iter().filter_map(|namespace| leaving(namespace, workers)).collect();
    for deployment in deployments.iter().filter(|d| !is_ending(Some(&d.namespace))).filter(|d| !workers.iter().any(|w| same(w, d))) {
        let fix = why(&deployment.name, facts.installed, Some(deployment));
        out.push(check(format!("{}/{} is managed", deployment.namespace, deployment.name), State::Failed, fix));
    }
    for worker in workers.iter().filter(|w| !ends(w)) {
        let name = format!("{}/{}", worker.metadata.namespace.as_deref().unwrap_or_default(), worker.metadata.name.as_deref().unwrap_or_default());
        let conditions = worker.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        let bad: Vec<_> = conditions.iter().filter(|c| needs_someone(c)).collect();
        if bad.is_empty() {
            out.push(check(format!("{name}: every condition is as it should be"), State::Ok, ""));
        }
        if !bad.iter().any(|c| c.type_ == condition::INJECTED) {
            out.extend(bare(&name, &facts.pods));
        }
        out.extend(bad.iter().map(|c| check(format!("{name}: {} is {} ({})", c.type_, c.status, c.reason), State::Failed, c.message.clone())));
    }
    if workers.is_empty() && deployments.is_empty() {
        out.push(check("no Deployment here is annotated, so nothing is managed", State::Ok, ""));
    }
    out
}

/// A namespace that is being deleted and still has workloads: Kubernetes deletes its pods first, and all else once the last of them has left.
fn leaving(namespace: &str, workers: &[QWorker]) -> Option<Check> {
    let count = workers.iter().filter(|w| w.metadata.namespace.as_deref() == Some(namespace)).count();
    let fix = format!("pods that are held keep it until their tasks are done; to cut them: kubectl qscaler release POD -n {namespace}");
    (count > 0).then(|| check(format!("namespace {namespace} is being deleted ({count} workloads)"), State::Warning, fix))
}

/// Pods of this workload that have no sidecar, where its QWorker does not say so by itself.
fn bare(workload: &str, pods: &ClusterSeen<Vec<AnnotatedPod>>) -> Option<Check> {
    let ClusterSeen::Yes(pods) = pods else { return None };
    let all: Vec<&AnnotatedPod> = pods.iter().filter(|pod| pod.workload == workload).collect();
    let names: Vec<&str> = all.iter().filter(|pod| !pod.has_sidecar).map(|pod| pod.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    let more = if names.len() > NAMED_MAX { ", …" } else { "" };
    let fix = format!(
        "{}{more}: their tasks are not held; the controller replaces them one by one as they fall idle, and kubectl qscaler explain says what keeps it from that",
        names[..names.len().min(NAMED_MAX)].join(", ")
    );
    Some(check(format!("{workload}: every pod has the sidecar ({} of {} have none)", names.len(), all.len()), State::Failed, fix))
}

/// The list for people, and whether all is well.
pub(crate) fn text(checks: &[Check]) -> (String, bool) {
    let mut out = String::new();
    for one in checks {
        let mark = match one.state {
            State::Ok => "ok     ",
            State::Failed => "FAILED ",
            State::Warning => "warning",
            State::Unknown => "?      ",
        };
        let _ = writeln!(out, "{mark} {}", one.check);
        for line in one.fix.lines() {
            let _ = writeln!(out, "          {line}");
        }
    }
    let count = |state| checks.iter().filter(|c| c.state == state).count();
    let (failed, warnings, unknown) = (count(State::Failed), count(State::Warning), count(State::Unknown));
    let _ = writeln!(out, "\n{} checks, {failed} failed, {warnings} warnings, {unknown} unknown", checks.len());
    (out, failed == 0)
}

#[cfg(test)]
mod tests;
