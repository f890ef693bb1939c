//! What is known of one workload -> the pods as the scaling law is shown them. In: the index's view and what was heard. Out: a `FleetSample`. Left to
//! others: what each pod counts as (`core::scale::seen`).

use crate::observe::index::View;
use crate::observe::record::PodRecord;
use crate::observe::reports::Intake;
use qscaler_core::drain::fleet::is_fresh;
use qscaler_core::message::WorkerState;
use qscaler_core::scale::FleetSample;
use qscaler_core::scale::seen::{SeenPod, Starts, Voice};

/// One of its containers was started again.
fn has_restarted(pod: &PodRecord) -> bool {
    pod.containers.iter().any(|c| c.life.as_ref().is_some_and(|life| life.restarts > 0))
}

fn voice(pod: &PodRecord, heard: &Intake, now_ms: u64) -> Voice {
    match heard.heard(&pod.uid) {
        None => Voice::None,
        Some(h) if !is_fresh(h.at_ms, now_ms) => Voice::Old,
        Some(h) => Voice::Told { parked: h.state == WorkerState::Parked, busy: h.busy, active_tasks: h.active_tasks, since_ms: h.busy_since_ms },
    }
}

/// The pods as the scaling law counts them. `starts` remembers whose start was counted; `tell`: these workers tell what they do.
pub fn fleet_sample(view: &View, heard: &mut Intake, starts: &mut Starts, tell: bool, now_ms: u64) -> FleetSample {
    let (completions, taken_up) = (heard.take_completions(), heard.take_taken_up());
    let pods: Vec<SeenPod<'_>> = view
        .pods
        .iter()
        .map(|pod| SeenPod {
            uid: &pod.uid,
            created_ms: pod.created_ms,
            ready: pod.ready,
            ready_since_ms: pod.ready_since_ms,
            terminating: pod.terminating,
            unschedulable: pod.unschedulable,
            injected: pod.injected,
            restarted: has_restarted(pod),
            voice: voice(pod, heard, now_ms),
        })
        .collect();
    let fleet = FleetSample::of(view.deployment.spec_replicas, &pods, starts, tell, now_ms);
    FleetSample { completions, begun: taken_up.begun, found: taken_up.found, ..fleet }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::report;
    use crate::testing::{T0_MS, deployment, pod, replicaset, view, with};
    use qscaler_core::message::{Busy, PodMs, Report};
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
            intake.take(&told, &"dep".into(), view.pods.first().map(AsRef::as_ref), T0_MS).unwrap();
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
        assert_eq!((silent.started_latencies_s.len(), silent.settling.len()), (0, 2), "Ready, and nothing is heard of their workers");
        let told = Report { at_ms: PodMs(T0_MS + 30_000), ..report("a", 1, WorkerState::Open, Busy::Idle) };
        intake.take(&told, &"dep".into(), view.pods.iter().find(|pod| &*pod.uid == "uid-a").map(AsRef::as_ref), T0_MS + 30_000).unwrap();
        let first = sample(&view, &mut intake, 30_000);
        assert_eq!((first.started_latencies_s, first.settling), (vec![90.0], vec![90.0]));
        assert_eq!(sample(&view, &mut intake, 31_000).started_latencies_s, Vec::<f64>::new(), "once");
        let given_up = sample(&view, &mut intake, 251_000);
        assert_eq!(
            (given_up.started_latencies_s, given_up.settling),
            (vec![10.0], vec![]),
            "a worker that never tells has started when it was Ready"
        );
        view.pods.truncate(1);
        let blind = fleet_sample(&view, &mut Intake::default(), &mut Starts::default(), false, T0_MS);
        assert_eq!((blind.started_latencies_s, blind.settling), (vec![10.0], vec![]), "workers that tell nothing");
    }
}
