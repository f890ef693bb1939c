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

/// The pods as the scaling law counts them. `seen_ready` remembers whose start was counted.
pub fn fleet_sample(view: &View, heard: &mut Intake, seen_ready: &mut HashSet<Word>, now_ms: u64) -> FleetSample {
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
            } else if has_restarted(pod) || seen_ready.contains(&pod.uid) {
                // Its age says nothing of how long a pod takes to start.
                out.restarting += 1;
            } else {
                out.starting.push(seconds(pod.created_ms, now_ms));
            }
            continue;
        }
        out.ready += 1;
        if !seen_ready.contains(&pod.uid)
            && seen_ready.insert(pod.uid.clone())
            && !has_restarted(pod)
            && seconds(pod.ready_since_ms, now_ms) * 1000.0 < REPORT_STALE_MS as f64
        {
            out.started_latencies_s.push(seconds(pod.created_ms, pod.ready_since_ms));
        }
        let running = tasks(pod, heard, now_ms);
        match running {
            Some(n) => told = told.saturating_add(n),
            None => out.untold += 1,
        }
        if let (Some(1..), Some(h)) = (running, heard.heard(&pod.uid))
            && h.busy_since_ms > 0
        {
            out.busy_ages_s.push(seconds(h.busy_since_ms, now_ms));
        }
    }
    // Where nobody tells, nothing is known; where some do, the law is told how many are silent.
    out.busy = (out.untold == 0 || out.untold < out.ready).then_some(told);
    out
}

/// The fleet as the law shall see it: a pod that is there only to take over from one on a cordoned node is no capacity to be kept.
pub(crate) fn without_replacements(mut fleet: FleetSample, mut n: u32) -> FleetSample {
    fleet.spec_replicas = fleet.spec_replicas.saturating_sub(n);
    let mut take = |from: &mut u32| {
        let taken = n.min(*from);
        *from -= taken;
        n -= taken;
    };
    take(&mut fleet.pending_unschedulable);
    let mut starting = u32::try_from(fleet.starting.len()).unwrap_or(u32::MAX);
    take(&mut starting);
    // The youngest are the replacements.
    fleet.starting.sort_by(|a, b| b.total_cmp(a));
    fleet.starting.truncate(starting as usize);
    take(&mut fleet.restarting);
    take(&mut fleet.ready);
    fleet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{T0_MS, deployment, pod, replicaset, view, with};
    use serde_json::json;

    #[test]
    fn a_pod_whose_worker_crashed_is_no_start_to_learn_from() {
        let restarts = |count: i32| json!([{"name": "worker", "image": "w", "imageID": "", "ready": true, "restartCount": count}]);
        let crashed = |name: &str, ready: &str| {
            let pod = with(pod(name), "/status/containerStatuses", restarts(3));
            with(pod, "/status/conditions", json!([{"type": "Ready", "status": ready, "lastTransitionTime": crate::testing::stamp(-2_000)}]))
        };
        let view = view(&[deployment(3, &[]), replicaset("orders-1", 3), crashed("a", "True"), crashed("b", "False"), pod("c")]);
        let mut seen_ready = HashSet::new();
        let sample = fleet_sample(&view, &mut Intake::default(), &mut seen_ready, T0_MS);
        assert_eq!((sample.ready, sample.restarting, sample.starting.len()), (2, 1, 0));
        assert_eq!(sample.useful(), 3);
        assert!(sample.started_latencies_s.iter().all(|latency| *latency < 58.0), "the age of a pod that crashed: {:?}", sample.started_latencies_s);
    }
}
