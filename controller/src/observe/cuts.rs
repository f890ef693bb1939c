//! Running tasks that were cut, each counted once: those that sidecars tell, and those that nobody is left to tell. In: reports, and the ends of containers
//! as the kubelet shows them. Out: cuts with their cause. Left to others: what an end means (`core::cut`), counting and telling (`learn`).
//!
//! A sidecar counts what it does or sees; it cannot tell of a kill that took it along, of a signal that it did not send, of a process killed for want of memory.
//! So the end of a working container counts as a cut where a report says that the worker had a task at that time. The sidecar may tell the same cut a moment
//! earlier or later: what one of them has counted, the other does not count again.

use crate::observe::record::{Ended, PodRecord, Word};
use qscaler_core::cut::{ContainerEnd, CutCause};
use qscaler_core::message::{AccessLevel, Busy, GapReason, Report, WorkerState};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A sidecar tells its cuts at once; reports are fetched every second. What it has not told by then it does not tell; milliseconds.
const SETTLE_MS: u64 = 10_000;
/// What both tell within this is one cut: the kubelet notes an end within seconds, a report may wait for the broker; milliseconds.
const SAME_MS: u64 = 60_000;
/// A report older than this says nothing of what ran at the end, milliseconds: as everywhere.
const FRESH_MS: u64 = 60_000;
/// The kubelet's times are cut to whole seconds.
const CUT_MS: u64 = 999;
/// A worker that is gone takes its container along within this, milliseconds.
const GONE_MS: u64 = 5_000;
/// Two kills for want of memory within this, one told by a sidecar's counter and one by the kubelet, are one; milliseconds.
const SAME_KILL_MS: u64 = 15_000;
/// Most cuts of one look at one pod: a counter may leap.
const KILLS_MAX: u64 = 100;
/// Ends that are remembered of a pod: the kubelet shows one.
const ENDS_MAX: usize = 4;
/// With these a worker's end is not by the hold's own signal.
const UNSEEN: [GapReason; 2] = [GapReason::NotPermitted, GapReason::NotVisible];
/// With these the hold's own signal reaches some of the container's processes only, or it cuts.
const UNHANDLED: [GapReason; 2] = [GapReason::NoHandler, GapReason::SignalCuts];

/// A cut that nobody else has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) pod: String,
    pub(crate) cause: CutCause,
}

/// Everything known of the workload's cuts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cuts {
    pods: HashMap<Word, OfPod>,
}

#[derive(Clone, Debug, Default)]
struct OfPod {
    /// The time before last, and the last time that the worker had a task.
    spans: [Option<Span>; 2],
    /// When it was heard of last, by our clock.
    heard_ms: u64,
    /// The sidecar could not see or signal the worker when that had its last task: what ends it then is not the sidecar's to account for.
    unseen: bool,
    /// Not every process of the container could be told to finish, in its last task.
    unhandled: bool,
    /// The working container's instance, and its kills for want of memory, as told last.
    kills: Option<(Option<String>, u64)>,
    /// Ends that were judged.
    ends: Vec<Box<str>>,
    pending: Vec<Pending>,
    /// When sidecars told cuts that no end has been matched with.
    told: Vec<u64>,
    /// When ends were counted that no sidecar has told.
    own: Vec<u64>,
    /// When the kills were, that were counted or wait for it.
    killed: Vec<u64>,
}

/// Times by the clock of the pod's node, which is the kubelet's.
#[derive(Clone, Copy, Debug)]
struct Span {
    from_ms: u64,
    last_ms: u64,
    end: Option<(u64, Stopped)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    /// The worker was seen without a task, or nothing said that it has one.
    Free,
    /// The worker was gone.
    Gone,
    /// It left while the sidecar held it, which the kubelet's own signal cannot have caused: that comes after the hold.
    Left,
}

#[derive(Clone, Debug)]
struct Pending {
    cause: CutCause,
    seen_ms: u64,
}

impl Span {
    /// Whether the worker had a task when its container ended, in this second.
    fn covers(&self, at_ms: u64) -> bool {
        let end_ms = at_ms.saturating_add(CUT_MS);
        let until = match self.end {
            None => true,
            Some((ms, Stopped::Free)) => ms > end_ms,
            Some((ms, Stopped::Gone | Stopped::Left)) => ms.saturating_add(GONE_MS) >= at_ms,
        };
        self.from_ms <= end_ms && at_ms < self.last_ms.saturating_add(FRESH_MS) && until
    }
}

impl OfPod {
    fn busy(&mut self, report: &Report) {
        if report.busy == Busy::Busy {
            let gap = |of: &[GapReason]| report.gaps.iter().any(|gap| of.contains(&gap.reason));
            self.unseen = gap(&UNSEEN) || matches!(report.access, AccessLevel::ReadOnly | AccessLevel::None);
            self.unhandled = gap(&UNHANDLED);
        }
        // The end of a container is by the same clock.
        let at_ms = report.at_ms.0;
        let [_, last] = &mut self.spans;
        match (report.busy, last.as_mut()) {
            (Busy::Busy, Some(span)) if span.end.is_none() => span.last_ms = at_ms,
            (Busy::Busy, _) => self.spans = [*last, Some(Span { from_ms: at_ms, last_ms: at_ms, end: None })],
            (_, Some(span)) if span.end.is_none() => {
                let stopped = match report.state {
                    WorkerState::Boot => Stopped::Gone,
                    WorkerState::Released => Stopped::Left,
                    _ => Stopped::Free,
                };
                span.end = Some((at_ms, stopped));
            }
            _ => {}
        }
    }

    fn was_busy(&self, at_ms: u64) -> bool {
        self.spans.iter().flatten().any(|span| span.covers(at_ms))
    }

    /// The sidecar could see and signal the worker, and that took its signal or left before the hold was over: what of that was a cut the sidecar tells.
    fn held(&self) -> bool {
        !self.unseen && (!self.unhandled || self.left())
    }

    fn left(&self) -> bool {
        matches!(self.spans[1], Some(Span { end: Some((_, Stopped::Left)), .. }))
    }

    fn wait(&mut self, cause: CutCause, now_ms: u64) {
        self.pending.push(Pending { cause, seen_ms: now_ms });
    }
}

impl Cuts {
    /// A believed report of a pod, of which `told` cuts are new. Returns how many of those are to be counted.
    pub(crate) fn reported(&mut self, report: &Report, container: Option<&str>, told: u32, now_ms: u64) -> u32 {
        let pod = self.pods.entry(report.pod_uid.as_str().into()).or_default();
        if let Some(peaks) = container.and_then(|name| report.peaks.get(name)) {
            let before = pod.kills.as_ref().filter(|(instance, _)| *instance == peaks.instance).map_or(0, |(_, kills)| *kills);
            let first = pod.kills.is_none();
            // Of kills that were before the first report nothing is known.
            let new = if first { 0 } else { peaks.oom_kills.saturating_sub(before).min(KILLS_MAX) };
            pod.kills = Some((peaks.instance.clone(), peaks.oom_kills));
            if new > 0 && pod.was_busy(report.at_ms.0) {
                let known = pod.killed.iter().filter(|at| now_ms < at.saturating_add(SAME_KILL_MS)).count() as u64;
                for _ in 0..new.saturating_sub(known) {
                    pod.killed.push(now_ms);
                    pod.wait(CutCause::OutOfMemory, now_ms);
                }
            }
        }
        pod.busy(report);
        pod.heard_ms = now_ms;
        let mut count = 0;
        for _ in 0..told {
            match pod.own.iter().position(|at| now_ms < at.saturating_add(SAME_MS)) {
                Some(counted) => drop(pod.own.remove(counted)),
                None => {
                    pod.told.push(now_ms);
                    count += 1;
                }
            }
        }
        count
    }

    /// Looks at how working containers ended. Returns what is settled: nobody else has told it.
    pub(crate) fn look<'a>(&mut self, pods: impl Iterator<Item = &'a Arc<PodRecord>>, container: Option<&str>, now_ms: u64) -> Vec<Cut> {
        let mut cuts = Vec::new();
        for record in pods.filter(|p| p.injected) {
            // Of a pod that was never heard of nothing is known.
            let Some(pod) = self.pods.get_mut(&record.uid) else { continue };
            let life = container.and_then(|name| record.container(name)).and_then(|c| c.life.as_deref());
            if let Some(life) = life {
                if let Some(ended) = &life.ended {
                    pod.ended(record, ended, now_ms);
                }
                if record.forced && life.running_since_ms.is_some() {
                    pod.forced(now_ms);
                }
            }
            for cause in pod.settle(now_ms) {
                cuts.push(Cut { pod: record.name.to_string(), cause });
            }
        }
        cuts
    }

    /// Forgets pods that are gone.
    pub(crate) fn retain(&mut self, pods: &HashSet<&str>) {
        self.pods.retain(|uid, _| pods.contains(&**uid));
    }
}

impl OfPod {
    fn is_new(&mut self, instance: &str) -> bool {
        if self.ends.iter().any(|known| **known == *instance) {
            return false;
        }
        if self.ends.len() >= ENDS_MAX {
            self.ends.remove(0);
        }
        self.ends.push(instance.into());
        true
    }

    fn ended(&mut self, record: &PodRecord, ended: &Ended, now_ms: u64) {
        if !self.is_new(&ended.instance) || !self.was_busy(ended.at_ms) {
            return;
        }
        let oom = *ended.reason == *"OOMKilled";
        let end = ContainerEnd { exit_code: ended.exit_code, oom, at_ms: ended.at_ms, deadline_ms: record.deadline_ms, held: self.held() };
        let Some(cause) = CutCause::of_end(&end) else { return };
        if oom {
            // The sidecar's counter may have told this one.
            if self.killed.iter().any(|at| now_ms < at.saturating_add(SAME_KILL_MS)) {
                return;
            }
            self.killed.push(now_ms);
        }
        self.wait(cause, now_ms);
    }

    /// Its container ran on in the last that was seen of it.
    fn forced(&mut self, now_ms: u64) {
        let busy = self.spans[1].is_some_and(|span| span.end.is_none()) && now_ms < self.heard_ms.saturating_add(FRESH_MS);
        if self.is_new("forced") && busy {
            self.wait(CutCause::Forced, now_ms);
        }
    }

    /// What has waited for long enough; what a sidecar has told meanwhile, or shortly before, is not in it.
    fn settle(&mut self, now_ms: u64) -> Vec<CutCause> {
        self.told.retain(|at| now_ms < at.saturating_add(SAME_MS));
        self.own.retain(|at| now_ms < at.saturating_add(SAME_MS));
        self.killed.retain(|at| now_ms < at.saturating_add(SAME_MS));
        let (ripe, rest): (Vec<_>, Vec<_>) = self.pending.drain(..).partition(|p| now_ms >= p.seen_ms.saturating_add(SETTLE_MS));
        self.pending = rest;
        let mut counted = Vec::new();
        for pending in ripe {
            if self.told.is_empty() {
                self.own.push(now_ms);
                counted.push(pending.cause);
            } else {
                self.told.remove(0);
            }
        }
        counted
    }
}

#[cfg(test)]
#[path = "cuts_tests.rs"]
mod tests;
