//! What is known of one workload -> the facts that `core` decides from. In: the index's view and what was heard. Out: a `FleetSample` for the
//! scaling law and `FleetFacts` for the drain. Left to others: every decision.

use crate::index::View;
use crate::intake::Intake;
use crate::record::{ContainerRecord, PodRecord, ReplicaSetRecord, Word};
use qscaler_core::drain::fleet::{FleetFacts, PodFacts, REPORT_STALE_MS, ReportFacts, SetFacts, is_fresh};
use qscaler_core::message::{Busy, WorkerState};
use qscaler_core::names::annotation;
use qscaler_core::scale::FleetSample;
use qscaler_core::size::PodPhase;
use std::collections::HashSet;

/// A pod that became Ready this short a time ago and has not reported yet has taken no task that matters, milliseconds.
const FIRST_REPORT_MS: u64 = 15_000;

/// The pod said that it is parked, and said so lately.
pub(crate) fn is_parked(pod: &PodRecord, heard: &Intake, now_ms: u64) -> bool {
    heard.fresh(&pod.uid, now_ms).is_some_and(|h| h.state == WorkerState::Parked)
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

/// What the facts cannot be read from a view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Why the replicas are somebody else's or nobody's to change: another scaler, pods that cannot have the sidecar; as a sentence.
    pub conflict: Option<String>,
    /// What the wish is made from is too old to lower by.
    pub data_stale: bool,
}

/// Everything one step of the drain looks at. Only a leader asks.
#[must_use]
pub fn fleet_facts(view: &View, heard: &Intake, circumstances: Circumstances) -> FleetFacts {
    let deployment = &view.deployment;
    FleetFacts {
        resource_version: deployment.resource_version.clone(),
        generation_observed: deployment.observed_generation >= deployment.generation,
        spec_replicas: deployment.spec_replicas,
        status_replicas: deployment.status_replicas,
        rs_ready_replicas: view.ready_replicas,
        sets: view.sets.iter().map(set_facts).collect(),
        max_surge: deployment.max_surge,
        max_unavailable: deployment.max_unavailable,
        pods: view.pods.iter().map(|pod| pod_facts(pod, view, heard)).collect(),
        conflict: circumstances.conflict,
        data_stale: circumstances.data_stale,
        out_of_sync: view.out_of_sync.clone(),
        leader: true,
    }
}

fn pod_facts(pod: &PodRecord, view: &View, heard: &Intake) -> PodFacts {
    PodFacts {
        uid: pod.uid.to_string(),
        name: pod.name.to_string(),
        resource_version: pod.resource_version.to_string(),
        created_ms: pod.created_ms,
        ready: pod.ready,
        scheduled: pod.node.is_some(),
        unschedulable: pod.unschedulable,
        pending: pod.phase == PodPhase::Pending,
        started: worker_has_run(pod, view),
        terminating: pod.terminating,
        injected: pod.injected,
        sidecar_started: pod.sidecar_started,
        sidecar_ready: pod.sidecar_ready,
        deletion_cost: pod.deletion_cost,
        cost_ours: pod.marks.as_ref().is_some_and(|marks| marks.is_ours(annotation::POD_DELETION_COST)),
        report: heard.heard(&pod.uid).map(|h| ReportFacts { state: h.state, epoch: h.epoch, busy: h.busy, at_ms: h.at_ms }),
        node_cordoned: pod.node.as_ref().is_some_and(|n| view.cordoned.contains(n)),
        gapped: heard.heard(&pod.uid).is_some_and(|h| !h.gaps.is_empty()),
        set_uid: pod.replicaset_uid.to_string(),
    }
}

/// While the annotations are wrong no container is known to be the worker's: then any counts.
fn worker_has_run(pod: &PodRecord, view: &View) -> bool {
    match view.deployment.worker.as_ref().and_then(|w| pod.container(&w.container)) {
        Some(container) => container.has_run(),
        None => pod.containers.iter().any(ContainerRecord::has_run),
    }
}

fn set_facts(set: &ReplicaSetRecord) -> SetFacts {
    SetFacts {
        uid: set.uid.clone(),
        created_ms: set.created_ms,
        revision: set.revision,
        spec_replicas: set.spec_replicas,
        max_replicas: set.max_replicas,
        create_failure: set.failure.as_ref().map(|f| f.message.clone()),
    }
}

/// The sentence about other writers of the replica count.
#[must_use]
pub fn conflict(scalers: &[String]) -> Option<String> {
    let (first, rest) = scalers.split_first()?;
    let others = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    Some(format!(
        "{first}{others} also scales this Deployment, so replicas are left alone; remove it, or set the annotation {} to protect (scaling: protect)",
        qscaler_core::names::annotation::SCALING
    ))
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
