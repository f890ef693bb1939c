//! Pods as they are seen -> the fleet as the law counts it. In: what the API server shows of each pod, what was heard of it, the time. Out: a
//! [`FleetSample`] without what ended since the one before. Left to others: watching and hearing (`controller`), the law (`decide`).

use super::FleetSample;
use crate::drain::fleet::REPORT_STALE_MS;
use crate::message::Busy;
use std::collections::BTreeSet;

/// A pod that became Ready this short a time ago and has not reported yet has taken no task that matters, milliseconds.
const FIRST_REPORT_MS: u64 = 15_000;
/// A Ready pod of which nothing is heard for this long, milliseconds, will not tell: its start ended when it became Ready, as far as anybody knows.
const SETTLES_MAX_MS: u64 = 300_000;

/// What is heard of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Voice {
    /// Nothing yet.
    #[default]
    None,
    /// Nothing that still says something about now.
    Old,
    /// What its sidecar told.
    Told {
        /// It is parked.
        parked: bool,
        /// Whether its worker has a task.
        busy: Busy,
        /// How many, where they are counted.
        active_tasks: Option<u32>,
        /// Since when it is busy or idle, by our clock; None: not known.
        since_ms: Option<u64>,
    },
}

/// A pod of the workload. Times in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // independent facts
pub struct SeenPod<'a> {
    /// UID.
    pub uid: &'a str,
    /// When it was created.
    pub created_ms: u64,
    /// Condition Ready.
    pub ready: bool,
    /// When Ready last changed.
    pub ready_since_ms: u64,
    /// Has a deletion timestamp.
    pub terminating: bool,
    /// The scheduler finds no node for it.
    pub unschedulable: bool,
    /// Has our sidecar.
    pub injected: bool,
    /// One of its containers was started again.
    pub restarted: bool,
    /// What is heard of it.
    pub voice: Voice,
}

impl SeenPod<'_> {
    fn is_parked(&self) -> bool {
        matches!(self.voice, Voice::Told { parked: true, .. })
    }

    fn tells(&self) -> bool {
        matches!(self.voice, Voice::Told { busy: Busy::Busy | Busy::Idle, .. })
    }

    /// Tasks that run in it; None when nothing says.
    fn tasks(&self, now_ms: u64) -> Option<u32> {
        match self.voice {
            Voice::Told { busy: Busy::Busy, active_tasks, .. } => Some(active_tasks.unwrap_or(1).max(1)),
            Voice::Told { busy: Busy::Idle, .. } => Some(0),
            Voice::Told { busy: Busy::Unknown, .. } | Voice::Old => None,
            Voice::None => (self.injected && now_ms < self.ready_since_ms.saturating_add(FIRST_REPORT_MS)).then_some(0),
        }
    }
}

/// Whose start has been seen, by UID. Ready comes first, where a worker has no readiness probe long before it can take a task: a start is over when the
/// worker has told what it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Starts {
    ready: BTreeSet<String>,
    settling: BTreeSet<String>,
}

impl Starts {
    /// A Ready pod; `tell`: workers such as its own tell what they do. Gives the moment at which its start was over, if that is now known.
    fn over_ms(&mut self, pod: &SeenPod<'_>, tell: bool, now_ms: u64) -> Option<u64> {
        if pod.restarted {
            self.ready.insert(pod.uid.to_owned());
            self.settling.remove(pod.uid);
            return None;
        }
        let (ready_ms, told) = (now_ms.saturating_sub(pod.ready_since_ms), pod.tells());
        if !self.ready.contains(pod.uid) {
            self.ready.insert(pod.uid.to_owned());
            if ready_ms >= REPORT_STALE_MS {
                return None;
            }
            if told || !tell || !pod.injected {
                return Some(pod.ready_since_ms);
            }
            self.settling.insert(pod.uid.to_owned());
        } else if self.settling.contains(pod.uid) && (told || ready_ms >= SETTLES_MAX_MS) {
            self.settling.remove(pod.uid);
            return Some(if told { now_ms } else { pod.ready_since_ms });
        }
        None
    }

    /// Forgets pods that are gone, once there are more in here than there are.
    fn forget(&mut self, pods: &[SeenPod<'_>]) {
        if self.ready.len() > pods.len() {
            let there: BTreeSet<&str> = pods.iter().map(|pod| pod.uid).collect();
            self.ready.retain(|uid| there.contains(uid.as_str()));
            self.settling.retain(|uid| there.contains(uid.as_str()));
        }
    }
}

impl FleetSample {
    /// The pods as the law counts them. `tell`: workers of this kind tell what they do.
    #[must_use]
    pub fn of(spec_replicas: u32, pods: &[SeenPod<'_>], starts: &mut Starts, tell: bool, now_ms: u64) -> Self {
        let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1000.0;
        let mut out = Self { spec_replicas, ..Self::default() };
        let mut running = 0u32;
        for pod in pods {
            if pod.terminating {
                out.terminating += 1;
                continue;
            }
            if pod.is_parked() {
                out.parked += 1;
                continue;
            }
            if !pod.ready {
                if pod.unschedulable {
                    out.pending_unschedulable += 1;
                } else if pod.restarted || starts.ready.contains(pod.uid) {
                    // Its age says nothing of how long a pod takes to start.
                    out.restarting += 1;
                } else {
                    out.starting.push(seconds(pod.created_ms, now_ms));
                }
                continue;
            }
            out.ready += 1;
            if let Some(over_ms) = starts.over_ms(pod, tell, now_ms) {
                out.started_latencies_s.push(seconds(pod.created_ms, over_ms));
            }
            if starts.settling.contains(pod.uid) {
                out.settling.push(seconds(pod.created_ms, now_ms));
            }
            let tasks = pod.tasks(now_ms);
            match tasks {
                Some(n) => running = running.saturating_add(n),
                None => out.untold += 1,
            }
            if let (Some(1..), Voice::Told { since_ms: Some(since_ms), .. }) = (tasks, pod.voice) {
                out.busy_ages_s.push(seconds(since_ms, now_ms));
            }
        }
        starts.forget(pods);
        // Where nobody tells, nothing is known; where some do, the law is told how many are silent.
        out.busy = (out.untold == 0 || out.untold < out.ready).then_some(running);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Voice = Voice::Told { parked: false, busy: Busy::Idle, active_tasks: None, since_ms: Some(0) };

    fn pod(uid: &str) -> SeenPod<'_> {
        SeenPod { uid, ready: true, ready_since_ms: 10_000, injected: true, ..SeenPod::default() }
    }

    fn count(pods: &[SeenPod<'_>], now_ms: u64) -> FleetSample {
        FleetSample::of(9, pods, &mut Starts::default(), true, now_ms)
    }

    #[test]
    fn a_pod_that_has_just_become_ready_has_no_task_and_one_that_stays_silent_is_unknown() {
        let (young, old) = (count(&[pod("a")], 24_999), count(&[pod("a")], 25_000));
        assert_eq!((young.busy, young.untold), (Some(0), 0));
        assert_eq!((old.busy, old.untold), (None, 1));
        let silent = SeenPod { voice: Voice::Old, ..pod("a") };
        assert_eq!(count(&[silent], 11_000).busy, None, "it had told before");
        assert_eq!(count(&[SeenPod { injected: false, ..pod("a") }], 11_000).busy, None, "nobody tells of it");
        let busy = SeenPod { voice: Voice::Told { parked: false, busy: Busy::Busy, active_tasks: Some(3), since_ms: Some(4_000) }, ..pod("b") };
        let some = count(&[silent, busy], 11_000);
        assert_eq!((some.busy, some.untold, some.busy_ages_s), (Some(3), 1, vec![7.0]));
    }

    #[test]
    fn every_pod_is_counted_once_as_what_it_is() {
        let waits = SeenPod { ready: false, ..pod("c") };
        let pods = [
            SeenPod { voice: IDLE, ..pod("a") },
            SeenPod { voice: Voice::Told { parked: true, busy: Busy::Idle, active_tasks: None, since_ms: None }, ready: false, ..pod("b") },
            waits,
            SeenPod { unschedulable: true, uid: "d", ..waits },
            SeenPod { restarted: true, uid: "e", ..waits },
            SeenPod { terminating: true, ..pod("f") },
        ];
        let seen = count(&pods, 20_000);
        assert_eq!((seen.ready, seen.parked, seen.starting.len(), seen.pending_unschedulable, seen.restarting, seen.terminating), (1, 1, 1, 1, 1, 1));
        assert_eq!(seen.starting, [20.0]);
    }

    #[test]
    fn whose_start_was_seen_is_forgotten_with_the_pod() {
        let mut starts = Starts::default();
        for n in 0..1_000 {
            let uid = format!("{n}");
            let first = FleetSample::of(1, &[SeenPod { voice: IDLE, ..pod(&uid) }], &mut starts, true, 12_000);
            assert_eq!(first.started_latencies_s, [10.0]);
        }
        assert!(starts.ready.len() <= 2, "{}", starts.ready.len());
    }
}
