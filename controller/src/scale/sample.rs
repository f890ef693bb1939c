//! What is known of one workload -> the pods as the scaling law counts them. In: the index's view and what was heard. Out: a `FleetSample`. Left to
//! others: every decision.

use crate::observe::index::View;
use crate::observe::record::{PodRecord, Word};
use crate::observe::reports::{Intake, is_parked};
use qscaler_core::drain::fleet::{REPORT_STALE_MS, is_fresh};
use qscaler_core::message::Busy;
use qscaler_core::scale::FleetSample;
use std::collections::HashSet;

/// A pod that became Ready this short a time ago and has not reported yet has taken no task that matters, milliseconds.
const FIRST_REPORT_MS: u64 = 15_000;

/// A Ready pod of which nothing is heard for this long, milliseconds, will not tell: its start ended when it became Ready, as far as anybody knows.
const SETTLES_MAX_MS: u64 = 300_000;

/// Whose start has been seen. Ready comes first, where a worker has no readiness probe long before it can take a task: a start is over when the worker has
/// told what it does.
#[derive(Debug, Default)]
pub struct Starts {
    ready: HashSet<Word>,
    settling: HashSet<Word>,
}

impl Starts {
    /// Forgets pods that are gone.
    pub fn retain(&mut self, uids: &HashSet<&str>) {
        self.ready.retain(|uid| uids.contains(&**uid));
        self.settling.retain(|uid| uids.contains(&**uid));
    }

    /// A Ready pod, `told` by its worker or not; `tells`: its worker is going to. Gives the moment at which its start was over, if that is now known.
    fn over_ms(&mut self, pod: &PodRecord, told: bool, tells: bool, now_ms: u64) -> Option<u64> {
        if has_restarted(pod) {
            self.ready.insert(pod.uid.clone());
            self.settling.remove(&pod.uid);
            return None;
        }
        let ready_ms = now_ms.saturating_sub(pod.ready_since_ms);
        if !self.ready.contains(&pod.uid) {
            self.ready.insert(pod.uid.clone());
            if ready_ms >= REPORT_STALE_MS {
                return None;
            }
            if told || !tells || !pod.injected {
                return Some(pod.ready_since_ms);
            }
            self.settling.insert(pod.uid.clone());
        } else if self.settling.contains(&pod.uid) && (told || ready_ms >= SETTLES_MAX_MS) {
            self.settling.remove(&pod.uid);
            return Some(if told { now_ms } else { pod.ready_since_ms });
        }
        None
    }
}

/// Tasks that run in a pod; None when nothing says.
fn tasks(pod: &PodRecord, heard: &Intake, now_ms: u64) -> Option<u32> {
    match heard.heard(&pod.uid) {
        Some(h) if is_fresh(h.at_ms, now_ms) => match h.busy {
            Busy::Busy => Some(h.active_tasks.unwrap_or(1).max(1)),
            Busy::Idle => Some(0),
            Busy::Unknown => None,
        },
        Some(_) => None,
        None => (pod.injected && now_ms < pod.ready_since_ms.saturating_add(FIRST_REPORT_MS)).then_some(0),
    }
}

/// One of its containers was started again.
fn has_restarted(pod: &PodRecord) -> bool {
    pod.containers.iter().any(|c| c.life.as_ref().is_some_and(|life| life.restarts > 0))
}

/// The pods as the scaling law counts them. `starts` remembers whose start was counted; `tells`: these workers tell what they do.
pub fn fleet_sample(view: &View, heard: &mut Intake, starts: &mut Starts, tells: bool, now_ms: u64) -> FleetSample {
    let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1000.0;
    let (completions, taken_up) = (heard.take_completions(), heard.take_taken_up());
    let heard = &*heard;
    let mut out = FleetSample {
        spec_replicas: view.deployment.spec_replicas,
        completions,
        begun: taken_up.begun,
        found: taken_up.found,
        ..FleetSample::default()
    };
    let mut told = 0u32;
    for pod in &view.pods {
        if pod.terminating {
            out.terminating += 1;
            continue;
        }
        if is_parked(pod, heard, now_ms) {
            out.parked += 1;
            continue;
        }
        if !pod.ready {
            if pod.unschedulable {
                out.pending_unschedulable += 1;
            } else if has_restarted(pod) || starts.ready.contains(&pod.uid) {
                // Its age says nothing of how long a pod takes to start.
                out.restarting += 1;
            } else {
                out.starting.push(seconds(pod.created_ms, now_ms));
            }
            continue;
        }
        out.ready += 1;
        let has_told = heard.heard(&pod.uid).is_some_and(|h| is_fresh(h.at_ms, now_ms) && h.busy != Busy::Unknown);
        if let Some(over_ms) = starts.over_ms(pod, has_told, tells, now_ms) {
            out.started_latencies_s.push(seconds(pod.created_ms, over_ms));
        }
        out.settling += u32::from(starts.settling.contains(&pod.uid));
        let running = tasks(pod, heard, now_ms);
        match running {
            Some(n) => told = told.saturating_add(n),
            None => out.untold += 1,
        }
        if let (Some(1..), Some(since_ms)) = (running, heard.heard(&pod.uid).and_then(|h| h.busy_since_ms)) {
            out.busy_ages_s.push(seconds(since_ms, now_ms));
        }
    }
    // Where nobody tells, nothing is known; where some do, the law is told how many are silent.
    out.busy = (out.untold == 0 || out.untold < out.ready).then_some(told);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::report;
    use crate::testing::{T0_MS, deployment, pod, replicaset, view, with};
    use qscaler_core::message::{PodMs, Report, WorkerState};
    use serde_json::json;

    #[test]
    fn a_pod_whose_worker_crashed_is_no_start_to_learn_from() {
        let restarts = |count: i32| json!([{"name": "worker", "image": "w", "imageID": "", "ready": true, "restartCount": count}]);
        let crashed = |name: &str, ready: &str| {
            let pod = with(pod(name), "/status/containerStatuses", restarts(3));
            with(pod, "/status/conditions", json!([{"type": "Ready", "status": ready, "lastTransitionTime": crate::testing::stamp(-2_000)}]))
        };
        let view = view(&[deployment(3, &[]), replicaset("orders-1", 3), crashed("a", "True"), crashed("b", "False"), pod("c")]);
        let mut starts = Starts::default();
        let sample = fleet_sample(&view, &mut Intake::default(), &mut starts, true, T0_MS);
        assert_eq!((sample.ready, sample.restarting, sample.starting.len()), (2, 1, 0));
        assert_eq!(sample.useful(), 3);
        assert!(sample.started_latencies_s.iter().all(|latency| *latency < 58.0), "the age of a pod that crashed: {:?}", sample.started_latencies_s);
    }

    #[test]
    fn how_long_a_task_runs_is_known_whatever_the_pod_s_clock_shows() {
        let view = view(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a")]);
        for skew_ms in [-3_600_000_i64, 0, 200_000] {
            let at = |ms: u64| PodMs(ms.saturating_add_signed(skew_ms));
            let (mut intake, mut starts) = (Intake::default(), Starts::default());
            let told = Report {
                started_ms: at(T0_MS - 60_000),
                at_ms: at(T0_MS),
                busy_since_ms: at(T0_MS - 7_000),
                ..report("a", 1, WorkerState::Open, Busy::Busy)
            };
            intake.take(&told, "dep", view.pods.first().map(AsRef::as_ref), T0_MS).unwrap();
            let sample = fleet_sample(&view, &mut intake, &mut starts, true, T0_MS + 5_000);
            assert_eq!(sample.busy_ages_s, [12.0], "{skew_ms} ms ahead");
        }
    }

    #[test]
    fn a_start_is_over_when_the_worker_has_told_what_it_does() {
        let mut view = view(&[deployment(2, &[]), replicaset("orders-1", 2), pod("a"), pod("b")]);
        let (mut intake, mut starts) = (Intake::default(), Starts::default());
        let mut sample = |view: &View, intake: &mut Intake, after_ms| fleet_sample(view, intake, &mut starts, true, T0_MS + after_ms);
        // Created a minute ago, Ready for fifty seconds.
        let silent = sample(&view, &mut intake, 0);
        assert_eq!((silent.started_latencies_s.len(), silent.settling), (0, 2), "Ready, and nothing is heard of their workers");
        let told = Report { at_ms: PodMs(T0_MS + 30_000), ..report("a", 1, WorkerState::Open, Busy::Idle) };
        intake.take(&told, "dep", view.pods.iter().find(|pod| &*pod.uid == "uid-a").map(AsRef::as_ref), T0_MS + 30_000).unwrap();
        let first = sample(&view, &mut intake, 30_000);
        assert_eq!((first.started_latencies_s, first.settling), (vec![90.0], 1));
        assert_eq!(sample(&view, &mut intake, 31_000).started_latencies_s, Vec::<f64>::new(), "once");
        let given_up = sample(&view, &mut intake, 251_000);
        assert_eq!((given_up.started_latencies_s, given_up.settling), (vec![10.0], 0), "a worker that never tells has started when it was Ready");
        view.pods.truncate(1);
        let blind = fleet_sample(&view, &mut Intake::default(), &mut Starts::default(), false, T0_MS);
        assert_eq!((blind.started_latencies_s, blind.settling), (vec![10.0], 0), "workers that tell nothing");
    }
}
