//! Flow 3 for one workload, look by look.

use crate::act::plan::{Action, Done, ListOutcome};
use crate::testing::look::*;
use crate::testing::{T0_MS, deployment, orders, pod, replicaset, report, view, with};
use crate::workload::Workload;
use qscaler_core::message::{Busy, Report, WorkerState};
use qscaler_core::names::{condition, event};
use qscaler_core::size::{Peaks, RefusalCause};
use serde_json::{Value, json};

#[test]
fn an_oom_kill_is_answered_at_once_for_running_and_new_pods_and_counted_once() {
    let objects = [deployment(2, &[("vertical", "in-place")]), replicaset("orders-1", 2), oom("a"), pod("b")];
    let (mut w, v) = (workload(), view(&objects));
    w.sampled(waiting(0), T0_MS);
    let plan = w.look(&v, &cluster(), ROOM, T0_MS + 1_000);
    let limits: Vec<_> = plan.actions.iter().filter_map(|a| if let Action::Resize { to, .. } = a { to.memory_limit } else { None }).collect();
    assert_eq!(limits.len(), 2, "{plan:?}");
    assert!(limits.iter().all(|l| *l >= (96 + 100) << 20), "{limits:?}");
    let saved = plan.actions.iter().position(|a| matches!(a, Action::Status(_)));
    let resized = plan.actions.iter().position(|a| matches!(a, Action::Resize { .. }));
    assert!(saved < resized, "what is known is saved before it is used");
    let status = status(&plan);
    assert!(status["sizes"]["worker"]["recommended"]["memoryBytes"].as_u64().unwrap() >= (96 + 100) << 20, "{status:#}");
    assert_eq!((&status["counters"]["oomKills"], status["sizes"]["worker"]["templateHash"].as_str()), (&json!(1), Some("1")));
    assert!(events(&plan).contains(&event::OOM_KILLED));
    all_done(&mut w, &plan, T0_MS + 1_000);
    let again = w.look(&v, &cluster(), ROOM, T0_MS + 2_000);
    assert!(!events(&again).contains(&event::OOM_KILLED) && !again.actions.iter().any(|a| matches!(a, Action::Resize { .. })), "{again:?}");

    // A new life knows it from the status, and does not count it again.
    let saved = left_by(&w, &plan);
    let mut next = Workload::restore(orders(), "dep".into(), saved, T0_MS + 9_000);
    let plan = next.look(&v, &cluster(), ROOM, T0_MS + 9_000);
    assert!(!events(&plan).contains(&event::OOM_KILLED));
    assert_eq!(next.totals().oom_kills, 1);
}

#[test]
fn a_worker_that_is_killed_again_and_again_is_answered_again_and_again() {
    let mut w = workload();
    for i in 0..5_i64 {
        let ended = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled", "containerID": format!("c{i}"), "finishedAt": crate::testing::stamp(8_000 * i)}});
        let killed = with(pod("a"), "/status/containerStatuses/0/lastState", ended);
        let v = view(&[deployment(1, &[("vertical", "in-place")]), replicaset("orders-1", 1), killed]);
        w.look(&v, &cluster(), ROOM, T0_MS + 8_000 * u64::try_from(i).unwrap() + 1_000);
    }
    // The kubelet tells of each instance once: five are five, however fast they come.
    assert_eq!(w.totals().oom_kills, 5);
}

#[test]
fn a_report_beyond_physics_changes_no_size() {
    let (mut w, v) = (workload(), view(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a")]));
    w.look(&v, &cluster(), ROOM, T0_MS);
    let peak = |bytes: u64, sequence: u64| {
        let peaks = Peaks {
            working_set_max: Some(bytes),
            cgroup_peak: Some(bytes),
            limit: Some(96 << 20),
            tasks_done: Some(5),
            started_s: Some(1.0),
            ..Peaks::default()
        };
        Report { peaks: [("worker".to_owned(), peaks)].into(), ..report("a", sequence, WorkerState::Open, Busy::Idle) }
    };
    w.reports(&[peak(900 << 20, 1)], &v, &cluster(), T0_MS + 1_000);
    assert_eq!(w.sizing.as_ref().unwrap().learned().unwrap()["samples"], json!(0));
    w.reports(&[peak(40 << 20, 2)], &v, &cluster(), T0_MS + 2_000);
    assert_ne!(w.sizing.as_ref().unwrap().learned().unwrap()["samples"], json!(0));
}

#[test]
fn another_sizer_is_a_conflict_that_is_told_once_and_leaves_running_pods_alone() {
    let vpa = json!({"kind": "VerticalPodAutoscaler", "metadata": {"namespace": "shop", "name": "v"}, "spec": {"targetRef": {"kind": "Deployment", "name": "orders"}}});
    let (mut w, v) = (workload(), view(&[deployment(2, &[("vertical", "in-place")]), replicaset("orders-1", 2), oom("a"), pod("b"), vpa]));
    let mut told = Vec::new();
    for second in 0..5 {
        w.sampled(waiting(0), T0_MS + second * 1_000);
        let plan = w.look(&v, &cluster(), ROOM, T0_MS + second * 1_000);
        told.extend(events(&plan));
        assert!(!plan.actions.iter().any(|a| matches!(a, Action::Resize { .. })), "{plan:?}");
        all_done(&mut w, &plan, T0_MS + second * 1_000);
    }
    assert_eq!(told, [event::OOM_KILLED, event::CONFLICT]);
}

#[test]
fn what_was_learned_of_sizes_outlives_a_mistake_in_the_annotations() {
    let objects = |annotation: (&str, &str)| view(&[deployment(1, &[annotation]), replicaset("orders-1", 1), oom("a")]);
    let mut w = workload();
    let plan = w.look(&objects(("vertical", "initial")), &cluster(), ROOM, T0_MS + 1_000);
    let known = status(&plan)["sizes"]["worker"]["estimate"].clone();
    all_done(&mut w, &plan, T0_MS + 1_000);
    let plan = w.look(&objects(("vertical", "sideways")), &cluster(), ROOM, T0_MS + 3_000);
    assert_eq!(status(&plan)["sizes"]["worker"]["estimate"], known);
    let mut next = Workload::restore(orders(), "dep".into(), left_by(&w, &plan), T0_MS + 4_000);
    assert_eq!(status(&next.look(&objects(("vertical", "sideways")), &cluster(), ROOM, T0_MS + 5_000))["sizes"]["worker"]["estimate"], known);
    assert_eq!(status(&next.look(&objects(("vertical", "initial")), &cluster(), ROOM, T0_MS + 7_000))["sizes"]["worker"]["estimate"], known);
}

#[test]
fn one_change_of_eight_pods_is_one_event_and_a_refused_one_is_none() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut objects = vec![deployment(8, &[("vertical", "in-place")]), replicaset("orders-1", 8), oom("a")];
    objects.extend(names[1..].iter().map(|n| pod(n)));
    let (mut w, v) = (workload(), view(&objects));
    w.sampled(waiting(0), T0_MS);
    let plan = w.look(&v, &cluster(), ROOM, T0_MS + 1_000);
    let refused = |a: &Action| matches!(a, Action::Resize { pod, .. } if pod.name == "h");
    let done =
        plan.actions.iter().map(|a| (a.clone(), if refused(a) { Done::Refused(RefusalCause::Quota, "q".into()) } else { Done::Yes })).collect();
    w.applied(&ListOutcome { done, ..ListOutcome::default() }, T0_MS + 1_000);
    let told = w.look(&v, &cluster(), ROOM, T0_MS + 2_000);
    let notes: Vec<&str> = told
        .actions
        .iter()
        .filter_map(|a| if let Action::Event(n) = a { Some(n).filter(|n| n.reason == event::RESIZED) } else { None })
        .map(|n| n.note.as_str())
        .collect();
    assert!(matches!(notes.as_slice(), [note] if note.contains("memory 96Mi -> 196Mi in 7 pods: ")), "{notes:?}");
}

#[test]
fn a_task_that_is_given_back_and_killed_again_seconds_later_is_a_second_kill() {
    let (mut w, v) = (workload(), view(&[deployment(1, &[("vertical", "in-place")]), replicaset("orders-1", 1), oom("a")]));
    // The kubelet and the sidecar tell of one kill; Celery gives the task back 10 s later, and it is killed at the new limit.
    w.look(&v, &cluster(), ROOM, T0_MS + 500);
    let bigger = json!({"limits": {"memory": "196Mi"}, "requests": {"memory": "196Mi", "cpu": "100m"}});
    let raised = with(with(oom("a"), "/spec/containers/0/resources", bigger.clone()), "/status/containerStatuses/0/resources", bigger);
    let v = view(&[deployment(1, &[("vertical", "in-place")]), replicaset("orders-1", 1), raised]);
    for (second, kills, limit, counted) in [(1, 1, 96, 1), (11, 2, 196, 2), (12, 2, 196, 2), (22, 3, 196, 3)] {
        let peaks =
            Peaks { cgroup_peak: Some(limit << 20), oom_kills: kills, oom_limit: Some(limit << 20), started_s: Some(1000.0), ..Peaks::default() };
        let told = Report { peaks: [("worker".to_owned(), peaks)].into(), ..report("a", second, WorkerState::Open, Busy::Idle) };
        w.reports(&[told], &v, &cluster(), T0_MS + second * 1_000);
        assert_eq!(w.totals().oom_kills, counted, "after {second} s");
    }
    let size = status(&w.look(&v, &cluster(), ROOM, T0_MS + 30_000))["sizes"]["worker"]["recommended"]["memoryBytes"].clone();
    assert_eq!(size, json!(296 << 20));
}

#[test]
fn a_kill_that_a_sidecar_has_reported_is_not_counted_again_in_the_next_life() {
    let (mut w, v) = (workload(), view(&[deployment(1, &[("vertical", "in-place")]), replicaset("orders-1", 1), pod("a")]));
    w.look(&v, &cluster(), ROOM, T0_MS);
    let killed = |sequence: u64, kills: u64| {
        let peaks = Peaks {
            cgroup_peak: Some(96 << 20),
            oom_kills: kills,
            oom_limit: Some(96 << 20),
            limit: Some(96 << 20),
            started_s: Some(1000.0),
            ..Peaks::default()
        };
        Report { peaks: [("worker".to_owned(), peaks)].into(), ..report("a", sequence, WorkerState::Open, Busy::Idle) }
    };
    w.reports(&[killed(1, 1)], &v, &cluster(), T0_MS + 1_000);
    let plan = w.look(&v, &cluster(), ROOM, T0_MS + 1_000);
    assert_eq!(status(&plan)["counters"]["oomKills"], json!(1));

    let saved = left_by(&w, &plan);
    let mut next = Workload::restore(orders(), "dep".into(), saved, T0_MS + 30_000);
    next.look(&v, &cluster(), ROOM, T0_MS + 30_000);
    next.reports(&[killed(2, 1)], &v, &cluster(), T0_MS + 31_000);
    assert_eq!(next.totals().oom_kills, 1, "the same kill, said again");
    next.reports(&[killed(3, 2)], &v, &cluster(), T0_MS + 60_000);
    assert_eq!(next.totals().oom_kills, 2, "another one");
}

#[test]
fn a_kill_is_counted_at_the_limit_of_its_time_and_not_at_the_one_that_answered_another() {
    let objects = [deployment(2, &[("vertical", "in-place")]), replicaset("orders-1", 2), oom("a"), pod("b")];
    let (mut w, v) = (workload(), view(&objects));
    w.sampled(waiting(0), T0_MS);
    let plan = w.look(&v, &cluster(), ROOM, T0_MS + 1_000);
    all_done(&mut w, &plan, T0_MS + 1_000);
    // The kill in b, of the same second as that in a, is seen when b has 196 MiB already.
    let bigger = json!({"limits": {"memory": "196Mi"}, "requests": {"memory": "196Mi", "cpu": "100m"}});
    let raised = |o: Value| with(with(o, "/spec/containers/0/resources", bigger.clone()), "/status/containerStatuses/0/resources", bigger.clone());
    let late = with(oom("b"), "/status/containerStatuses/0/lastState/terminated/containerID", json!("c2"));
    let v = view(&[objects[0].clone(), objects[1].clone(), raised(oom("a")), raised(late)]);
    let plan = w.look(&v, &cluster(), ROOM, T0_MS + 3_000);
    let next = status(&w.look(&v, &cluster(), ROOM, T0_MS + 6_000));
    assert_eq!((w.totals().oom_kills, next["sizes"]["worker"]["recommended"]["memoryBytes"].as_u64()), (2, Some(196 << 20)), "{plan:?}");
}

#[test]
fn what_is_no_more_is_taken_out_of_the_saved_estimate() {
    let (mut w, v) = (workload(), view(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a")]));
    w.look(&v, &cluster(), ROOM, T0_MS);
    let learned = w.sizing.as_ref().unwrap().learned().unwrap();
    assert!(learned.as_object().unwrap().get("oom").is_some_and(Value::is_null), "a merge patch would keep the old one: {learned}");
}

#[test]
fn a_pod_that_another_writer_has_resized_is_left_alone_and_the_others_are_not() {
    let by = |manager: &str| json!([{"manager": "kubelet", "operation": "Update", "subresource": "status"}, {"manager": manager, "operation": "Update", "subresource": "resize"}]);
    let theirs = with(oom("a"), "/metadata/managedFields", by("vpa-updater"));
    let ours = with(pod("b"), "/metadata/managedFields", by("qscaler"));
    let (mut w, v) = (workload(), view(&[deployment(2, &[("vertical", "in-place")]), replicaset("orders-1", 2), theirs, ours]));
    w.sampled(waiting(0), T0_MS);
    let plan = w.look(&v, &cluster(), ROOM, T0_MS + 1_000);
    let resized: Vec<&str> =
        plan.actions.iter().filter_map(|a| if let Action::Resize { pod, .. } = a { Some(pod.name.as_str()) } else { None }).collect();
    assert_eq!(resized, ["b"]);
    // The condition follows at the next look.
    let plan = w.look(&v, &cluster(), ROOM, T0_MS + 3_000);
    let (holds, message) = condition_of(&status(&plan), condition::CONFLICT);
    assert!(holds == "True" && message.contains("vpa-updater has set the resources of pod a"), "{message}");
    let marked = with(pod("a"), "/metadata/annotations", json!({"vpaUpdates": "Pod resources updated by v"}));
    assert_eq!(crate::testing::pod_record(&marked).other_sizer.as_deref(), Some("a VerticalPodAutoscaler"));
}

#[test]
fn off_recommends_says_what_it_would_cost_and_changes_nothing() {
    let (mut w, v) = (workload(), view(&[deployment(2, &[]), replicaset("orders-1", 2), oom("a"), pod("b")]));
    w.sampled(waiting(0), T0_MS);
    let plan = w.look(&v, &cluster(), ROOM, T0_MS + 1_000);
    assert!(!plan.actions.iter().any(|a| matches!(a, Action::Resize { .. })), "{plan:?}");
    let size = &status(&plan)["sizes"]["worker"];
    assert_eq!(
        (&size["current"]["memoryBytes"], &size["recommended"]["memoryBytes"], &size["saving"]["memoryBytes"]),
        (&json!(96 << 20), &json!(196 << 20), &json!(-(100 << 20)))
    );
    assert!(
        size["reason"].as_str().unwrap().contains("OOM-killed 1 times at 96 MiB") && size["measured"].as_str().unwrap().contains("no pod"),
        "{size:#}"
    );
}

#[test]
fn at_the_cap_the_condition_names_the_queue_and_how_often() {
    let (mut w, v) = (workload(), view(&[deployment(1, &[("vertical", "in-place"), ("max-memory", "96Mi")]), replicaset("orders-1", 1), oom("a")]));
    w.sampled(waiting(0), T0_MS);
    let plan = w.look(&v, &cluster(), ROOM, T0_MS + 1_000);
    let (holds, message) = condition_of(&status(&plan), condition::MEMORY_CAPPED);
    assert_eq!((holds.as_str(), message.contains("queue orders were OOM-killed 1 times at 96Mi")), ("True", true), "{message}");
    assert!(events(&plan).contains(&event::MEMORY_CAPPED));
}
