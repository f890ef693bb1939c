//! Whether a deletion of any injected pod lets its running task finish (condition `HoldEffective`). In: pods as the API server shows them, what they
//! reported. Out: the verdict in words, and how many pods are not held whole. Left to others: finding a gap in the pod (`sidecar`), saying it only when
//! it lasts (`lasting`), setting the condition (`summary`).

use crate::observe::cluster::KeyName;
use crate::observe::index::View;
use crate::observe::record::PodRecord;
use crate::observe::reports::{Heard, Intake};
use crate::show::conditions::Holds;
use qscaler_api::UnheldPod;
use qscaler_core::message::{AccessLevel, GapReason, WorkerState};
use qscaler_core::names::{annotation, sidecar};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A sidecar reports every 5 s. One that was not heard for so long is silent: nine reports in a row are lost, and with the time that a condition must
/// last it is still said within a minute; milliseconds.
const SILENT_MS: u64 = 45_000;
/// A pod that is Ready for less than this may show its worker's processes in a moment; milliseconds.
const SEEN_MS: u64 = 10_000;
/// Clocks further apart than this cost drain messages, which live for 60 s, a good part of their life; milliseconds.
const SKEW_MS: u64 = 20_000;
/// A sidecar that was started again this short a time ago is worth a word; milliseconds.
const RESTARTED_MS: u64 = 600_000;
/// Most reasons whose words are in one message: the rest is named.
const REASONS_MAX: usize = 3;
/// Most pods that a status names: it is for people.
const PODS_MAX: usize = 10;
/// UID of the sidecar's image, for pods whose spec names none.
const IMAGE_UID: i64 = 65_532;

/// What else is known of the workload.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KnownOfHolds {
    /// Since when a sidecar that reports would have been heard, milliseconds since the epoch; None: it would not be.
    pub(crate) listening_ms: Option<u64>,
    /// The annotations let the sidecar see the worker's processes.
    pub(crate) share_processes: bool,
    /// By which key control messages are signed; None: they are not.
    pub(crate) control_key: Option<KeyName>,
}

/// What the condition says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HoldVerdict {
    pub(crate) holds: Holds,
    pub(crate) reason: &'static str,
    pub(crate) message: Cow<'static, str>,
    /// Pods whose hold is less than whole.
    pub(crate) unheld: u32,
    /// Some of those, each with its reasons.
    pub(crate) pods: Vec<UnheldPod>,
    /// Pods that have reported and believe unsigned control messages.
    pub(crate) unsigned: u32,
}

/// One reason with its pods.
struct Found<'a> {
    pods: u32,
    first: &'a str,
    detail: Cow<'a, str>,
}

/// Judges the pods that are not being deleted.
pub(crate) fn judge(view: &View, intake: &Intake, known: KnownOfHolds, now_ms: u64) -> HoldVerdict {
    let mut found: BTreeMap<GapReason, Found<'_>> = BTreeMap::new();
    let mut pods = Vec::new();
    let (mut judged, mut silent_yet, mut unheld, mut unsigned) = (0_u32, 0_u32, 0_u32, 0_u32);
    let injected = || view.pods.iter().filter(|p| p.injected && !p.terminating);
    for pod in injected().filter(|p| p.sidecar_started) {
        let Some(gaps) = gaps(pod, intake, known, now_ms) else {
            silent_yet += 1;
            continue;
        };
        judged += 1;
        unsigned += u32::from(intake.heard(&pod.uid).is_some_and(|heard| heard.control_keys.is_empty()));
        unheld += u32::from(!gaps.is_empty());
        if !gaps.is_empty() && pods.len() < PODS_MAX {
            let mut reasons: Vec<GapReason> = gaps.iter().map(|(reason, _)| *reason).collect();
            reasons.sort_by_key(|reason| reason.severity());
            let reasons = reasons.into_iter().map(|reason| reason.name().to_owned()).collect();
            pods.push(UnheldPod { name: pod.name.to_string(), reasons });
        }
        for (reason, detail) in gaps {
            found.entry(reason).or_insert(Found { pods: 0, first: &pod.name, detail }).pods += 1;
        }
    }
    let say = |holds, reason, message| HoldVerdict { holds, reason, message, unheld, pods: pods.clone(), unsigned };
    let mut reasons: Vec<(GapReason, &Found<'_>)> = found.iter().map(|(reason, found)| (*reason, found)).collect();
    reasons.sort_by_key(|(reason, _)| reason.severity());
    let Some(((worst, first), others)) = reasons.split_first() else {
        return match (injected().count(), judged, silent_yet) {
            (0, ..) => say(Holds::Unknown, "NoPods", "there is no injected pod to say it of".into()),
            (_, 0, _) => say(Holds::Unknown, "NotReported", "no sidecar has reported yet".into()),
            (_, _, 0) => say(Holds::True, "Whole", "a running task of any pod is held until it is done".into()),
            (.., waiting) => say(
                Holds::True,
                "Whole",
                format!("a running task is held until it is done in each of the {judged} pods that have reported; {waiting} have not yet").into(),
            ),
        };
    };
    let mut message = format!("{unheld} of {} pods are not held whole: {}", judged + silent_yet, words(*worst, first));
    for (reason, found) in others.iter().take(REASONS_MAX - 1) {
        message = format!("{message}; {}", words(*reason, found));
    }
    if let Some(rest) = others.get(REASONS_MAX - 1..).filter(|rest| !rest.is_empty()) {
        let names: Vec<&str> = rest.iter().map(|(reason, _)| reason.name()).collect();
        message = format!("{message}; also {}", names.join(", "));
    }
    say(Holds::False, worst.name(), message.into())
}

fn words(reason: GapReason, found: &Found<'_>) -> String {
    let pods = match found.pods {
        1 => format!("pod {}", found.first),
        n => format!("{n} pods, {} is one", found.first),
    };
    format!("{} ({pods}): {}", reason.name(), found.detail)
}

/// In what the hold of one pod is less than whole, each reason once; None: it has not said anything yet that could be judged.
fn gaps<'a>(pod: &'a PodRecord, intake: &'a Intake, known: KnownOfHolds, now_ms: u64) -> Option<Vec<(GapReason, Cow<'a, str>)>> {
    let heard = intake.heard(&pod.uid);
    let mut gaps: Vec<(GapReason, Cow<'_, str>)> = Vec::new();
    let mut add = |reason: GapReason, detail: Cow<'a, str>| {
        if !gaps.iter().any(|(known, _)| *known == reason) {
            gaps.push((reason, detail));
        }
    };
    if let Some(skew_ms) = intake.from_the_future(&pod.uid).or(heard.map(|h| h.skew_ms)).filter(|ms| ms.unsigned_abs() >= SKEW_MS) {
        add(GapReason::ClockSkew, clocks(skew_ms));
    }
    let started_ms = pod.sidecar.as_ref().and_then(|life| life.running_since_ms).unwrap_or(pod.created_ms);
    let since = known.listening_ms.map(|since| since.max(started_ms).max(heard.map_or(0, |h| h.at_ms)));
    if since.is_some_and(|since| now_ms >= since.saturating_add(SILENT_MS)) {
        add(GapReason::SidecarSilent, silent(pod));
    }
    if let Some(restarted) = restarted(pod, now_ms) {
        add(GapReason::SidecarRestarted, restarted);
    }
    let fresh = heard.filter(|h| now_ms < h.at_ms.saturating_add(SILENT_MS));
    if let Some(heard) = fresh {
        access(pod, heard, known, now_ms).into_iter().for_each(|(reason, detail)| add(reason, detail));
        if heard.refuses(known.control_key) {
            add(GapReason::MessagesRefused, refuses(known.control_key).into());
        }
        heard.gaps.iter().for_each(|gap| add(gap.reason, detail(&gap.detail)));
    }
    (fresh.is_some() || !gaps.is_empty()).then_some(gaps)
}

fn detail(told: &str) -> Cow<'_, str> {
    if told.is_empty() { "the sidecar says no more; see its log".into() } else { told.into() }
}

/// What the sidecar may see and do, as it tried.
fn access<'a>(pod: &'a PodRecord, heard: &Heard, known: KnownOfHolds, now_ms: u64) -> Option<(GapReason, Cow<'a, str>)> {
    match heard.access {
        AccessLevel::Full | AccessLevel::SignalOnly => None,
        AccessLevel::ReadOnly => Some((GapReason::NotPermitted, not_permitted(pod, heard).into())),
        AccessLevel::None if !known.share_processes || !pod.shares_processes => Some((
            GapReason::NotVisible,
            format!(
                "the sidecar may not see the worker's processes ({}: \"false\", or the template sets shareProcessNamespace: false, or something in the pod must be process 1), so the kubelet's own SIGTERM ends the worker: whole only where it finishes its task on that",
                annotation::SHARE_PROCESSES
            )
            .into(),
        )),
        // Between two lives of a worker there is nothing to be seen.
        AccessLevel::None if heard.state == WorkerState::Boot || !pod.ready || now_ms < pod.ready_since_ms.saturating_add(SEEN_MS) => None,
        AccessLevel::None => Some((
            GapReason::NotVisible,
            format!("the pod is Ready and its sidecar sees no process of the worker; is {} the container that works?", annotation::CONTAINER).into(),
        )),
    }
}

/// The kernel lets a process signal those of its own UID only.
fn not_permitted(pod: &PodRecord, heard: &Heard) -> String {
    let own = pod.sidecar_uid.unwrap_or(IMAGE_UID);
    let cut = "on a deletion the kubelet's own SIGTERM ends the worker, also in a task";
    match heard.worker_ids {
        None => format!(
            "the worker runs as another user than the sidecar (UID {own}), which may not signal it: {cut}; add `runAsUser` with the worker's UID to its securityContext"
        ),
        Some((uid, _)) if pod.sidecar_uid.is_none() => format!(
            "the worker runs as UID {uid} and the sidecar, which did not know it, as UID {own}: {cut}. Pods made from now on have the right UID; those made before keep theirs, and are replaced one by one as they fall idle (condition UpToDate says how far; a rollout now cuts their tasks). `runAsUser: {uid}` in the container's securityContext makes it known from the first pod on"
        ),
        Some((uid, _)) => format!(
            "the worker runs as UID {uid} and its spec says {own}, which the sidecar got: {cut}; set `runAsUser: {uid}` in the container's securityContext, or let the worker stay what it is started as"
        ),
    }
}

fn silent(pod: &PodRecord) -> Cow<'static, str> {
    format!(
        "nothing was heard of a sidecar that runs: a wrong or changed broker password, a NetworkPolicy between pod and broker, or the node's clock; a deletion is still held, but the pod is never chosen to leave while it is idle, and what happens in it is not counted: kubectl -n {} logs {} -c {}",
        pod.namespace, pod.name, sidecar::CONTAINER
    )
    .into()
}

fn refuses(key: Option<KeyName>) -> &'static str {
    match key {
        Some(_) => {
            "the pod was given another key than control messages are signed by now (the Secret qscaler-control-key was deleted or changed since), so it believes none of them: it works and is held, but is not asked to leave while it is idle. Pods made from now on have the key; those made before are replaced one by one as they fall idle (condition UpToDate says how far). Where the old Secret is still to be had, put it back"
        }
        None => {
            "the pod asks for signed control messages, and the controller has no key to sign them: it works and is held, but is not asked to leave while it is idle. The controller's log says what is wrong with the Secret qscaler-control-key of its namespace"
        }
    }
}

fn clocks(skew_ms: i64) -> Cow<'static, str> {
    let (seconds, way) = (skew_ms.unsigned_abs() / 1000, if skew_ms > 0 { "ahead of" } else { "behind" });
    // To tens of seconds: a clock that drifts shall not write a status a second.
    format!(
        "the pod's clock is about {} s {way} the controller's, and messages that ask a pod to leave live for 60 s: set the time of its node",
        seconds / 10 * 10
    )
    .into()
}

fn restarted(pod: &PodRecord, now_ms: u64) -> Option<Cow<'static, str>> {
    let life = pod.sidecar.as_deref().filter(|life| life.restarts > 0)?;
    let ended = life.ended.as_ref().filter(|e| now_ms < e.at_ms.saturating_add(RESTARTED_MS))?;
    let reason = if ended.reason.is_empty() { String::new() } else { format!(", {}", ended.reason) };
    Some(
        format!(
            "the sidecar was started again {} times, the last time after exit code {}{reason}: while it is away nothing holds the pod; kubectl -n {} logs {} -c {} --previous",
            life.restarts,
            ended.exit_code,
            pod.namespace,
            pod.name,
            sidecar::CONTAINER
        )
        .into(),
    )
}

#[cfg(test)]
#[path = "hold_effective_tests.rs"]
mod tests;
