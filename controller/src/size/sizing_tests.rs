//! What a next life of the controller takes from the one before, and what becomes of a kill that could not be saved.

use super::*;
use crate::act::plan::{Done, Failure, ListOutcome};
use crate::testing::look::{BUSY, ROOM, checkpoint, left_by};
use crate::testing::{T0_MS, deployment, orders, pod, replicaset, report, view, with};
use crate::workload::{Plan, Workload};
use qscaler_api::QWorkerStatus;
use qscaler_core::size::ClusterVersion;
use serde_json::{Value, json};

fn cluster() -> Cluster {
    Cluster { version: Some(ClusterVersion { major: 1, minor: 36 }), node_memory: Some(4 << 30), node_cpu_m: Some(4000), control_key: None }
}

fn one_pod() -> View {
    view(&[deployment(1, &[("vertical", "in-place")]), replicaset("orders-1", 1), pod("a")])
}

/// A report of pod a: so many tasks ended and processes killed in its container's life.
fn told(sequence: u64, tasks: u64, kills: u64) -> Report {
    let peaks = Peaks {
        cgroup_peak: Some(60 << 20),
        working_set_max: Some(60 << 20),
        limit: Some(96 << 20),
        oom_kills: kills,
        oom_limit: (kills > 0).then_some(96 << 20),
        tasks_done: Some(tasks),
        started_s: Some(T0_MS as f64 / 1000.0 - 50.0),
        ..Peaks::default()
    };
    Report { peaks: [("worker".to_owned(), peaks)].into(), ..report("a", sequence, WorkerState::Open, Busy::Idle) }
}

fn saved(plan: &Plan) -> Option<Value> {
    plan.actions.iter().find_map(|a| if let Action::Status(status) = a { Some(status.clone()) } else { None })
}

#[test]
fn a_new_life_does_not_take_the_tasks_of_the_one_before_for_new_experience() {
    let (v, mut w) = (one_pod(), Workload::restore(orders(), "dep".into(), QWorkerStatus::default(), T0_MS));
    let samples = |w: &Workload| w.sizing.as_ref().unwrap().learned().unwrap()["samples"].as_u64().unwrap();
    w.look(&v, &cluster(), ROOM, T0_MS);
    w.reports(&[told(1, 20, 0)], &v, &cluster(), T0_MS + 1_000);
    assert_eq!(samples(&w), 20, "what the first life of all hears of is news");
    for life in 1..=3_u64 {
        let now_ms = T0_MS + 60_000 * life;
        let plan = w.look(&v, &cluster(), ROOM, now_ms);
        assert!(checkpoint(&plan).is_some(), "sizes are news");
        w = Workload::restore(orders(), "dep".into(), left_by(&w, &plan), now_ms);
        w.look(&v, &cluster(), ROOM, now_ms);
        w.reports(&[told(10 * life, 20 + life - 1, 0), told(10 * life + 1, 20 + life, 0)], &v, &cluster(), now_ms + 1_000);
        assert!(samples(&w) <= 20 + 2 * life, "{} samples in life {life}: a task each, and one of a number that is not known", samples(&w));
    }
    assert!(samples(&w) >= 23);
}

#[test]
fn a_kill_that_could_not_be_saved_is_saved_before_anything_is_done_about_it() {
    let (v, mut w) = (one_pod(), Workload::restore(orders(), "dep".into(), QWorkerStatus::default(), T0_MS));
    let first = w.look(&v, &cluster(), ROOM, T0_MS);
    w.applied(&ListOutcome { done: first.actions.into_iter().map(|a| (a, Done::Yes)).collect(), ..ListOutcome::default() }, T0_MS);
    w.reports(&[told(1, 0, 1)], &v, &cluster(), T0_MS + 100);
    assert!(w.sizing.as_ref().unwrap().expects_kills(T0_MS + 200));
    // The API server does not answer, three times; each look comes too soon for an ordinary write.
    for i in 2..5 {
        let plan = w.look(&v, &cluster(), BUSY, T0_MS + 100 * i);
        let saves = plan.actions.iter().position(|a| matches!(a, Action::Checkpoint(_)));
        let resizes = plan.actions.iter().position(|a| matches!(a, Action::Resize { .. }));
        assert!(saves.is_some() && saves < resizes, "{plan:?}");
        assert_eq!(saved(&plan).unwrap()["counters"]["oomKills"], json!(1));
        w.applied(&ListOutcome { failed: Some(Failure::Other("no answer".into())), left: plan.actions, ..ListOutcome::default() }, T0_MS + 100 * i);
    }
    let plan = w.look(&v, &cluster(), BUSY, T0_MS + 500);
    w.applied(&ListOutcome { done: plan.actions.into_iter().map(|a| (a, Done::Yes)).collect(), ..ListOutcome::default() }, T0_MS + 500);
    let quiet = w.look(&v, &cluster(), BUSY, T0_MS + 600);
    assert_eq!((saved(&quiet), checkpoint(&quiet)), (None, None));
    assert!(!w.sizing.as_ref().unwrap().expects_kills(T0_MS + 30_100));
}

#[test]
fn after_a_shrink_in_place_the_peak_from_before_it_is_believed_and_a_kill_is_answered() {
    let limit = |mib: &str| {
        let resources = json!({"limits": {"memory": mib}, "requests": {"memory": mib, "cpu": "100m"}});
        let pod = with(pod("a"), "/spec/containers/0/resources", resources.clone());
        let pod = with(pod, "/status/containerStatuses/0/resources", resources);
        view(&[deployment(1, &[("vertical", "in-place")]), replicaset("orders-1", 1), pod])
    };
    let mut w = Workload::restore(orders(), "dep".into(), QWorkerStatus::default(), T0_MS);
    w.look(&limit("96Mi"), &cluster(), ROOM, T0_MS);
    w.reports(&[told(1, 20, 0)], &limit("96Mi"), &cluster(), T0_MS + 1_000);
    let shrunk = limit("40Mi");
    w.look(&shrunk, &cluster(), ROOM, T0_MS + 2_000);
    let mut killed = told(2, 21, 1);
    killed.peaks.values_mut().for_each(|p| (p.limit, p.oom_limit) = (Some(40 << 20), Some(40 << 20)));
    w.reports(&[killed], &shrunk, &cluster(), T0_MS + 3_000);
    assert_eq!(w.sizing.as_ref().map(Sizing::oom_kills), Some(1), "its cgroup's peak is above the limit of now");
}

#[test]
fn one_idle_report_and_then_silence_is_no_idle_pod_to_make_smaller() {
    let (v, mut w) = (one_pod(), Workload::restore(orders(), "dep".into(), QWorkerStatus::default(), T0_MS));
    w.look(&v, &cluster(), ROOM, T0_MS);
    w.reports(&[told(1, 20, 0)], &v, &cluster(), T0_MS);
    let pod = &v.pods[0];
    let container = pod.containers.iter().find(|c| &*c.name == "worker").unwrap();
    let is_idle = |now_ms: u64| w.sizing.as_ref().unwrap().pod_facts(pod, container, &v, &w.intake, now_ms).idle;
    assert!(is_idle(T0_MS + 1_000));
    for minute in 1..=60 {
        assert!(!is_idle(T0_MS + minute * 60_000), "idle {minute} minutes after the last word");
    }
    let blind = View { out_of_sync: Some("the watch of Pods is not in sync".into()), ..one_pod() };
    assert!(!w.sizing.as_ref().unwrap().pod_facts(pod, container, &blind, &w.intake, T0_MS + 1_000).idle, "nor beside a watch that is behind");
}
