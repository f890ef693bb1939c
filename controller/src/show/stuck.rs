//! What a wished scale-down hangs in (condition `ScaleDownBlocked`). In: where the drain stands, since when fewer pods are wished for, what pods report. Out:
//! the verdict in words. Left to others: the drain (`core::drain::fleet`), since when (`lasting`), setting the condition (`summary`).

use crate::observe::index::View;
use crate::observe::record::PodRecord;
use crate::observe::reports::{Heard, Intake};
use qscaler_core::drain::fleet::{Phase, REPORT_STALE_MS};
use qscaler_core::message::{Busy, GapReason, WorkerState};
use qscaler_core::names::{annotation, condition, sidecar};
use std::sync::Arc;

/// A wave asks, gathers, marks, waits for an echo and lowers within this where nothing is in the way; milliseconds.
const HANGS_MS: u64 = 120_000;
/// A worker that is busy for so long though the broker knows of no message is worth a look, milliseconds.
const UNPROVED_MS: u64 = 300_000;

/// What is wished for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// For how long fewer pods have been wished for, or would be were they not busy, with none removed; milliseconds.
    pub(crate) for_ms: u64,
    /// No message waits.
    pub(crate) empty: bool,
    /// The broker knows of no message that waits or is in flight.
    pub(crate) no_message: bool,
    /// How long one task may run, milliseconds.
    pub(crate) max_task_ms: u64,
}

/// Why no pod leaves: the condition's reason, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stuck {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// The pods that could leave, by what they report.
#[derive(Default)]
struct Seen<'a> {
    busy: Vec<(&'a PodRecord, &'a Heard)>,
    unknown: Vec<(&'a PodRecord, Option<&'a Heard>)>,
    idle: Vec<(&'a PodRecord, &'a Heard)>,
    parked: u32,
}

impl<'a> Seen<'a> {
    fn new(view: &'a View, intake: &'a Intake, now_ms: u64) -> Self {
        let mut seen = Self::default();
        for pod in view.pods.iter().map(Arc::as_ref).filter(|p| p.injected && !p.terminating) {
            let fresh = intake.heard(&pod.uid).filter(|h| now_ms < h.at_ms.saturating_add(REPORT_STALE_MS));
            match fresh {
                Some(h) if h.state == WorkerState::Parked => seen.parked += 1,
                Some(h) if h.busy == Busy::Busy => seen.busy.push((pod, h)),
                Some(h) if h.busy == Busy::Idle => seen.idle.push((pod, h)),
                other => seen.unknown.push((pod, other)),
            }
        }
        seen
    }
}

/// What a scale-down that is wished for since long hangs in; None: it does not hang, or is not wished for.
pub(crate) fn hangs(view: &View, intake: &Intake, phase: &Phase, wish: Wish, now_ms: u64) -> Option<Stuck> {
    if wish.for_ms < HANGS_MS {
        return None;
    }
    let seen = Seen::new(view, intake, now_ms);
    let minutes = wish.for_ms / 60_000;
    let found = if seen.parked > 0 {
        Some(after_parking(phase, seen.parked))
    } else if let Some((pod, heard)) = seen.idle.iter().find(|(_, h)| h.state == WorkerState::Closing).or(seen.idle.first()) {
        Some(nobody_parks(pod, heard, seen.idle.len()))
    } else if let Some((pod, heard)) = seen.unknown.first() {
        Some(unknown(pod, *heard, seen.unknown.len()))
    } else {
        let oldest = seen.busy.iter().filter(|(_, h)| h.busy_since_ms.is_some()).min_by_key(|(_, h)| h.busy_since_ms);
        oldest.or(seen.busy.first()).map(|(pod, heard)| busy(pod, heard, seen.busy.len(), wish, now_ms))
    };
    found.map(|(reason, words)| Stuck { reason, message: format!("fewer pods are wanted since {minutes} min: {words}") })
}

fn after_parking(phase: &Phase, parked: u32) -> (&'static str, String) {
    let waits = match phase {
        Phase::Marking => "their mark is being written, or a pod that starts is waited for",
        Phase::Echo => "the ReplicaSet does not show yet that they are not Ready",
        Phase::Settling => "the ReplicaSet has not followed the last change of its count",
        _ => "more of them are waited for, or the count is about to be lowered",
    };
    ("Parked", format!("{parked} pods are parked, and {waits}"))
}

fn nobody_parks(pod: &PodRecord, heard: &Heard, idle: usize) -> (&'static str, String) {
    let gap = heard.gaps.iter().find(|g| {
        matches!(g.reason, GapReason::GateCannotClose | GapReason::BrokerRefuses | GapReason::BrokerUnreachable | GapReason::MessagesRefused)
    });
    let why = match (gap, heard.state) {
        (Some(gap), _) if !gap.detail.is_empty() => gap.detail.clone(),
        (Some(gap), _) => gap.reason.name().to_owned(),
        (None, WorkerState::Closing) => "it was asked, and its gate is not closed: the proof that it takes no more never comes".to_owned(),
        (None, _) => format!("it is asked and does not answer; see kubectl -n {} logs {} -c {}", pod.namespace, pod.name, sidecar::CONTAINER),
    };
    ("NobodyParks", format!("{idle} pods are idle and none parks; pod {}: {why}", pod.name))
}

fn unknown(pod: &PodRecord, heard: Option<&Heard>, pods: usize) -> (&'static str, String) {
    let told = heard.and_then(|h| h.gaps.iter().find(|g| g.reason == GapReason::IdleUnknown)).map(|g| g.detail.as_str()).filter(|d| !d.is_empty());
    let why = match (told, heard) {
        (Some(detail), _) => detail.to_owned(),
        (None, Some(_)) => format!("see that {} and {} are what really runs there", annotation::WORKER, annotation::BUSY),
        (None, None) => "its sidecar is not heard: condition HoldEffective says why".to_owned(),
    };
    ("IdleUnknown", format!("nothing tells busy from idle in {pods} pods, so they are left alone; pod {}: {why}", pod.name))
}

fn busy(pod: &PodRecord, heard: &Heard, pods: usize, wish: Wish, now_ms: u64) -> (&'static str, String) {
    let for_ms = heard.busy_since_ms.map_or(0, |since| now_ms.saturating_sub(since));
    let queue = if wish.empty { ", with an empty queue" } else { "" };
    let has = format!("all {pods} that could go have a task, pod {} for {} min{queue}", pod.name, for_ms / 60_000);
    if for_ms > wish.max_task_ms {
        return ("BusyUnproved", format!("{has}, which is longer than {}: is it a task?", annotation::MAX_TASK_DURATION));
    }
    if wish.no_message && for_ms >= UNPROVED_MS {
        return (
            "BusyUnproved",
            format!(
                "{has}, and the broker knows of nothing in flight; if that is no task, {} or {} does not fit what runs there",
                annotation::BUSY,
                annotation::WORKER
            ),
        );
    }
    (condition::REASON_BUSY, has)
}

#[cfg(test)]
#[path = "stuck_tests.rs"]
mod tests;
