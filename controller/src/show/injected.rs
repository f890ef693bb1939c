//! Whether every pod has the sidecar, and whether it can start there (condition `Injected`). In: pods and ReplicaSets as the API server shows them. Out: the
//! verdict with the mend. Left to others: who is injected (`webhook`), whether the hold works (`hold_effective`), setting the condition (`summary`).

use crate::observe::index::View;
use crate::observe::record::{ContainerRecord, CreateFailure, Ended, PodRecord};
use crate::show::conditions::Holds;
use qscaler_core::names::condition::{REASON_FAILED_CREATE, REASON_WORKER_CRASHES};
use qscaler_core::names::{annotation, condition, sidecar};
use qscaler_core::replace::Cause;
use std::borrow::Cow;
use std::sync::Arc;

/// What the kubelet says of a container that is on its way as it should.
const ON_ITS_WAY: &[&str] = &["", "PodInitializing", "ContainerCreating"];
/// An instance that ended sooner than this has not worked: the kubelet's default of a failing liveness probe takes 30 s; milliseconds.
const SHORT_LIFE_MS: u64 = 90_000;
/// Starts again from which on a worker crashes: one may be chance.
const CRASHES: u32 = 2;
/// A pod that is Ready for so long stays up; milliseconds.
const STAYS_UP_MS: u64 = 60_000;
/// A worker that crashed and has run for so long since, and for twice as long as its last life, has recovered: what its container shares has not changed;
/// milliseconds.
const RECOVERED_MS: u64 = 120_000;
/// What an OOM kill is called by the kubelet: it has words of its own.
const OOM_KILLED: &str = "OOMKilled";

/// What the condition says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) holds: Holds,
    pub(crate) reason: &'static str,
    pub(crate) message: Cow<'static, str>,
}

impl Verdict {
    fn bad(reason: &'static str, message: String) -> Self {
        Self { holds: Holds::False, reason, message: message.into() }
    }
}

/// Judges the pods that are not being deleted. What keeps pods from being made goes first, then what keeps them from starting.
pub(crate) fn judge(view: &View, now_ms: u64) -> Verdict {
    let active: Vec<&Arc<PodRecord>> = view.pods.iter().filter(|p| !p.terminating).collect();
    let failed = view.failure.as_deref().filter(|f| ours(f));
    let refused = view.refusal().map(|why| Verdict::bad("Refused", refused(&why)));
    refused
        .or_else(|| failed.map(|failure| Verdict::bad(REASON_FAILED_CREATE, not_created(failure))))
        .or_else(|| sidecar_waits(&active))
        .or_else(|| worker_crashes(&active, worker_of(view), now_ms))
        .or_else(|| bare(&active, now_ms))
        .unwrap_or_else(|| match (active.len(), view.failure.is_some()) {
            (0, false) => Verdict { holds: Holds::Unknown, reason: "NoPods", message: "there is no pod; new ones get the sidecar".into() },
            (0, true) => Verdict {
                holds: Holds::Unknown,
                reason: "NoPods",
                message: "there is no pod, and none can be created: condition Scaling says why".into(),
            },
            _ => Verdict { holds: Holds::True, reason: "Injected", message: "every pod has the sidecar".into() },
        })
}

/// Why nothing is scaled, where pods of the Deployment cannot have the sidecar: what was raised could never be lowered again.
pub(crate) fn refused(why: &str) -> String {
    format!("pods of this Deployment cannot have the sidecar, so its replicas are left alone: {why}")
}

/// What follows the words of a trouble that pods without a shared process namespace do not have.
const WITHOUT: &str = ". Pods are made without it since";

/// The verdict, with what was said of pods that share their processes kept in mind: on its strength the webhook makes the next pods without, which have no such
/// trouble, and forgetting it would make the ones after them with it again. The annotation ends it, whichever value it has.
pub(crate) fn remember(verdict: Verdict, told: Option<(&str, &str)>, decided: bool, view: &View, now_ms: u64) -> Verdict {
    let Some((reason, message)) = told.filter(|_| !decided && verdict.holds != Holds::False) else { return verdict };
    let worker = worker_of(view);
    let innocent = || view.pods.iter().filter(|p| !p.terminating).any(|p| acquits(p, worker, now_ms) || (p.shares_processes && is_up(p, now_ms)));
    let reason = match reason {
        word if word == REASON_WORKER_CRASHES && !innocent() => REASON_WORKER_CRASHES,
        word if word == REASON_FAILED_CREATE && about_sharing(message) => REASON_FAILED_CREATE,
        _ => return verdict,
    };
    Verdict::bad(reason, format!("{}{WITHOUT}", message.trim_end_matches(WITHOUT)))
}

fn is_up(pod: &PodRecord, now_ms: u64) -> bool {
    pod.ready && now_ms >= pod.ready_since_ms.saturating_add(STAYS_UP_MS)
}

fn about_sharing(message: &str) -> bool {
    message.contains("shareProcessNamespace") || message.to_lowercase().contains("process namespace")
}

// === pods that are not created ===

/// Whether it is what we add to pods that keeps them from being created.
fn ours(failure: &CreateFailure) -> bool {
    let says = |word: &str| failure.message.contains(word);
    says(sidecar::CONTAINER) || about_sharing(&failure.message) || says("usage per Pod")
}

/// Why pods are not created, in the API server's own words, and the mend.
pub(crate) fn not_created(failure: &CreateFailure) -> String {
    let says = |word: &str| failure.message.contains(word);
    let mend = if about_sharing(&failure.message) {
        format!(
            "a policy forbids the shared process namespace: set {}: \"false\"; the hold then is the kubelet's own SIGTERM",
            annotation::SHARE_PROCESSES
        )
    } else if says("usage per Pod") {
        format!(
            "a LimitRange of type Pod counts the sidecar ({}) too: allow for its limits there, or give the worker as much less, or make the sidecar smaller (chart value sidecar.resources)",
            sidecar::CONTAINER
        )
    } else if says("exceeded quota") {
        "raise the ResourceQuota or lower max-replicas; the sidecar's own requests and limits count there as well".to_owned()
    } else if says("failed quota") {
        "the ResourceQuota asks every container for requests or limits: give the worker some, and the sidecar gets some too".to_owned()
    } else if says("violates PodSecurity") && says(sidecar::CONTAINER) {
        "the sidecar runs as the worker's user: let the worker run as a user that the namespace allows".to_owned()
    } else if says("denied the request") {
        "ask whoever runs that policy".to_owned()
    } else {
        "the mend is in these words".to_owned()
    };
    format!("the API server refuses new pods ({}): {}; {mend}", failure.reason, failure.message)
}

// === sidecars that do not start ===

fn sidecar_waits(active: &[&Arc<PodRecord>]) -> Option<Verdict> {
    let waits = |p: &&&Arc<PodRecord>| {
        let waiting = p.sidecar.as_ref().and_then(|life| life.waiting.as_ref());
        p.injected && waiting.is_some_and(|(reason, _)| !ON_ITS_WAY.contains(&&**reason))
    };
    let pods: Vec<_> = active.iter().filter(waits).collect();
    let first = pods.first()?;
    let life = first.sidecar.as_deref()?;
    let (reason, message) = life.waiting.as_ref()?;
    let log = format!("kubectl -n {} logs {} -c {} --previous", first.namespace, first.name, sidecar::CONTAINER);
    let mend = match &**reason {
        r if r.contains("Image") || r == "RegistryUnavailable" => {
            "the node cannot have the sidecar's image: a registry that it reaches (chart value sidecar.image), and where that wants a login a pull secret".to_owned()
        }
        "CreateContainerConfigError" => {
            format!("see that the Secret or ConfigMap that {} names is there, with that key", annotation::BROKER)
        }
        _ => match &life.ended {
            Some(ended) => format!("its last exit code was {}{}: {log}", ended.exit_code, in_brackets(&ended.reason)),
            None => log,
        },
    };
    let text = if message.is_empty() { String::new() } else { format!(": {message}") };
    Some(Verdict::bad(
        "SidecarNotStarting",
        format!("the sidecar of {} cannot start, and the worker waits for it ({reason}{text}); {mend}", of_pods(&pods)),
    ))
}

fn in_brackets(word: &str) -> String {
    if word.is_empty() { String::new() } else { format!(" ({word})") }
}

fn of_pods(pods: &[&&Arc<PodRecord>]) -> String {
    match pods {
        [] => String::new(),
        [one] => format!("pod {}", one.name),
        [first, ..] => format!("{} pods, {} is one,", pods.len(), first.name),
    }
}

// === workers that crash ===

/// The working container's name; while the annotations are wrong none is known.
fn worker_of(view: &View) -> Option<&str> {
    view.deployment.worker.as_ref().map(|worker| worker.container.as_str())
}

/// The worker's container ends again and again soon after its start, in pods that share their processes alone as far as can be seen. Other containers do
/// not count: a helper that flaps does so without QScaler too, and the hold would be given up for nothing.
fn worker_crashes(active: &[&Arc<PodRecord>], worker: Option<&str>, now_ms: u64) -> Option<Verdict> {
    let worker = worker?;
    if active.iter().any(|p| acquits(p, Some(worker), now_ms)) {
        return None;
    }
    let shared: Vec<_> = active.iter().filter(|p| p.injected && p.shares_processes).collect();
    let (pod, (restarts, ended)) = shared.iter().find_map(|p| Some((p, crash(p.container(worker)?)?)))?;
    let stays_up = |p: &&&&Arc<PodRecord>| {
        let up = p.container(worker).and_then(|c| c.life.as_ref()).is_some_and(|life| life.restarts == 0);
        up && p.template_hash == pod.template_hash && is_up(p, now_ms)
    };
    if shared.iter().any(|p| stays_up(&p)) {
        return None;
    }
    Some(Verdict::bad(
        REASON_WORKER_CRASHES,
        format!(
            "container {worker} of pod {} was started again {restarts} times, the last time {} s after its start with exit code {}, and no pod of this template stays up; where it does without QScaler, the shared process namespace is the likely cause (an init that must be PID 1, such as s6-overlay or systemd; a probe that looks at PID 1): set {}: \"false\" on the Deployment, and the next pods are without it (the hold then is the kubelet's own SIGTERM)",
            pod.name,
            ended.at_ms.saturating_sub(ended.started_ms) / 1000,
            ended.exit_code,
            annotation::SHARE_PROCESSES
        ),
    ))
}

/// Whether this pod shows that shared processes are not what ends the worker: it crashes in a pod that does not share them (a broken version, a broker that
/// is away), or has crashed in one that does and runs well since.
fn acquits(pod: &PodRecord, worker: Option<&str>, now_ms: u64) -> bool {
    let Some(container) = worker.and_then(|name| pod.container(name)) else { return false };
    let Some((_, ended)) = crash(container) else { return false };
    let lived_ms = ended.at_ms.saturating_sub(ended.started_ms);
    let runs_since_ms = container.life.as_deref().and_then(|life| life.running_since_ms);
    let recovered =
        runs_since_ms.is_some_and(|since_ms| since_ms >= ended.at_ms && now_ms.saturating_sub(since_ms) >= RECOVERED_MS.max(2 * lived_ms));
    !(pod.injected && pod.shares_processes) || recovered
}

fn crash(container: &ContainerRecord) -> Option<(u32, &Ended)> {
    let life = container.life.as_deref().filter(|life| life.restarts >= CRASHES)?;
    let ended = life.ended.as_ref()?;
    let short = ended.at_ms.saturating_sub(ended.started_ms) < SHORT_LIFE_MS;
    (short && ended.exit_code != 0 && *ended.reason != *OOM_KILLED).then_some((life.restarts, ended))
}

// === pods without ===

fn bare(active: &[&Arc<PodRecord>], now_ms: u64) -> Option<Verdict> {
    let bare: Vec<_> = active.iter().filter(|p| !p.injected && Cause::of_bare(p.created_ms, now_ms).is_some()).collect();
    let first = bare.first()?;
    let pods = match bare.len() {
        1 => format!("pod {} has no sidecar", first.name),
        n => format!("{n} of {} pods have no sidecar, {} is one", active.len(), first.name),
    };
    Some(Verdict::bad(
        "NotInjected",
        format!(
            "{pods}: made before the annotations, or while the webhook was away. New pods have one. These have no hold yet, so that whatever deletes them, kubectl rollout restart too, cuts the task that runs in them. They are replaced one by one as each falls idle: condition {} says how far, and what stands in the way",
            condition::UP_TO_DATE
        ),
    ))
}

#[cfg(test)]
#[path = "injected_tests.rs"]
mod tests;
