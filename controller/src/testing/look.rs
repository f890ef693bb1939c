//! Looks at one workload, for tests: what a look came to, in a few words.

use super::*;
use crate::act::plan::{Action, Done, ListOutcome};
use crate::due::WriteRoom;
use crate::observe::cluster::Cluster;
use crate::workload::{Plan, Workload};
use qscaler_api::{QWorkerCheckpointSpec, QWorkerStatus};
use qscaler_core::message::{Report, WorkerState};
use qscaler_core::scale::QueueSample;
use qscaler_core::size::ClusterVersion;
use serde_json::{Value, json};

/// Whatever is due may be written.
pub(crate) const ROOM: WriteRoom = WriteRoom { room: true, apart: true };
/// Only what cannot wait may be written.
pub(crate) const BUSY: WriteRoom = WriteRoom { room: false, apart: true };

pub(crate) fn workload() -> Workload {
    Workload::restore(orders(), "dep".into(), QWorkerStatus::default(), T0_MS)
}

pub(crate) fn waiting(n: u64) -> Vec<QueueSample> {
    vec![QueueSample { ready: Some(n), unacked: Some(0), ..QueueSample::default() }]
}

pub(crate) fn cluster() -> Cluster {
    Cluster { version: Some(ClusterVersion { major: 1, minor: 36 }), node_memory: Some(4 << 30), node_cpu_m: Some(4000), control_key: None }
}

pub(crate) fn scales(plan: &Plan) -> Vec<(u32, u32)> {
    plan.actions.iter().filter_map(|a| if let Action::Scale { from, to, .. } = a { Some((*from, *to)) } else { None }).collect()
}

pub(crate) fn events(plan: &Plan) -> Vec<&'static str> {
    plan.actions.iter().filter_map(|a| if let Action::Event(n) = a { Some(n.reason) } else { None }).collect()
}

pub(crate) fn status(plan: &Plan) -> Value {
    plan.actions.iter().rev().find_map(|a| if let Action::Status(s) = a { Some(s.clone()) } else { None }).expect("a status write")
}

pub(crate) fn checkpoint(plan: &Plan) -> Option<QWorkerCheckpointSpec> {
    plan.actions.iter().find_map(|a| if let Action::Checkpoint(kept) = a { Some((**kept).clone()) } else { None })
}

/// What the next life reads after this plan.
pub(crate) fn left_by(w: &Workload, plan: &Plan) -> QWorkerStatus {
    let mut left: QWorkerStatus = serde_json::from_value(status(plan)).unwrap();
    left.remember(checkpoint(plan).unwrap_or_else(|| w.to_save()));
    left
}

pub(crate) fn condition_of(status: &Value, kind: &str) -> (String, String) {
    let found =
        status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).unwrap_or_else(|| panic!("no condition {kind}: {status:#}"));
    (found["status"].as_str().unwrap().to_owned(), found["message"].as_str().unwrap().to_owned())
}

pub(crate) fn all_done(workload: &mut Workload, plan: &Plan, now_ms: u64) {
    let done = plan.actions.iter().map(|a| (a.clone(), Done::Yes)).collect();
    workload.applied(&ListOutcome { done, ..ListOutcome::default() }, now_ms);
}

/// Lets `seconds` pass with an empty queue and idle reports; returns the last plan with something in it besides status.
pub(crate) fn idle_for(w: &mut Workload, v: &View, pods: &[&str], from: u64, seconds: u64, state: WorkerState) -> (Plan, u64) {
    for second in 0..seconds {
        let now = T0_MS + (from + second) * 1_000;
        for name in pods {
            w.reports(&[report(name, from + second + 1, state, Busy::Idle)], v, &cluster(), now);
        }
        w.sampled(waiting(0), now);
        let plan = w.look(v, &cluster(), ROOM, now);
        all_done(w, &plan, now);
        if plan.actions.iter().any(|a| !matches!(a, Action::Status(_) | Action::Checkpoint(_))) {
            return (plan, from + second);
        }
    }
    panic!("nothing happened within {seconds} s");
}

pub(crate) fn oom(name: &str) -> Value {
    let ended = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled", "containerID": "c1", "finishedAt": crate::testing::stamp(0)}});
    with(pod(name), "/status/containerStatuses/0/lastState", ended)
}

/// The pod `a` has cut its task.
pub(crate) fn cut(sequence: u64) -> Report {
    Report { cuts: 1, cut: Some("deadline".into()), ..report("a", sequence, WorkerState::Released, Busy::Busy) }
}

/// Epoch and count of every wave that a plan saves.
pub(crate) fn intents(plan: &Plan) -> Vec<(u64, u32)> {
    plan.actions.iter().filter_map(|a| if let Action::SaveIntent(i) = a { Some((i.epoch, i.count)) } else { None }).collect()
}

/// A quota of two pods: raised to five, and a rollout with no surge has found no room for its first pod.
pub(crate) fn full_by_quota() -> View {
    let size = |name: &str, revision: &str, spec: u32, pods: u32| {
        let set = with(replicaset(name, pods), "/spec/replicas", json!(spec));
        with(set, "/metadata/annotations", json!({"deployment.kubernetes.io/revision": revision, "deployment.kubernetes.io/max-replicas": "5"}))
    };
    let refused = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: two"}]);
    let new = with(size("orders-2", "2", 1, 0), "/status/conditions", refused);
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
    let deployment = with(with(deployment(5, &[("max-replicas", "5")]), "/status/replicas", json!(2)), "/spec/strategy", rolling);
    view(&[deployment, size("orders-1", "1", 4, 2), new, pod("a"), pod("b")])
}
