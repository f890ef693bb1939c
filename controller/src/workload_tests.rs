//! One workload, look by look: what is done, in what order, and what is said about it.

use super::*;
use crate::testing::{T0_MS, deployment, hpa, orders, pod, put, replicaset, report, view, with};
use qscaler_core::drain::fleet::PARKED_COST;
use qscaler_core::message::{AccessLevel, Busy, ControlKind, Report, WorkerState};
use qscaler_core::names::{condition, event};
use qscaler_core::size::{ClusterVersion, Peaks, RefusalCause};
use serde_json::{Value, json};

fn workload() -> Workload {
    Workload::restore(orders(), "dep".into(), QWorkerStatus::default(), T0_MS)
}

fn waiting(n: u64) -> Vec<QueueSample> {
    vec![QueueSample { ready: Some(n), unacked: Some(0), ..QueueSample::default() }]
}

fn cluster() -> Cluster {
    Cluster { version: Some(ClusterVersion { major: 1, minor: 36 }), node_memory: Some(4 << 30), node_cpu_m: Some(4000) }
}

fn scales(plan: &Plan) -> Vec<(u32, u32)> {
    plan.actions.iter().filter_map(|a| if let Action::Scale { from, to, .. } = a { Some((*from, *to)) } else { None }).collect()
}

fn events(plan: &Plan) -> Vec<&'static str> {
    plan.actions.iter().filter_map(|a| if let Action::Event(n) = a { Some(n.reason) } else { None }).collect()
}

fn status(plan: &Plan) -> Value {
    plan.actions.iter().rev().find_map(|a| if let Action::Status(s) = a { Some(s.clone()) } else { None }).expect("a status write")
}

fn condition_of(status: &Value, kind: &str) -> (String, String) {
    let found =
        status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).unwrap_or_else(|| panic!("no condition {kind}: {status:#}"));
    (found["status"].as_str().unwrap().to_owned(), found["message"].as_str().unwrap().to_owned())
}

fn all_done(workload: &mut Workload, plan: &Plan, now_ms: u64) {
    let done = plan.actions.iter().map(|a| (a.clone(), Done::Yes)).collect();
    workload.applied(&Outcome { done, ..Outcome::default() }, now_ms);
}

#[test]
fn what_the_broker_cannot_tell_is_in_the_status_with_the_cause() {
    let (mut w, v) = (workload(), view(&[deployment(0, &[]), replicaset("orders-1", 0)]));
    let mut told = |gap: Option<&str>, now_ms| {
        w.sampled(waiting(0), now_ms);
        w.partly(gap.map(Into::into));
        let plan = w.look(&v, &cluster(), true, now_ms);
        let told = condition_of(&status(&plan), condition::BROKER_REACHABLE);
        all_done(&mut w, &plan, now_ms);
        told
    };
    let (holds, message) = told(Some("no figures (HTTP 401)"), T0_MS);
    assert!(holds == "True" && message.contains("HTTP 401"), "{message}");
    assert_eq!(told(None, T0_MS + 60_000).1, "the broker answers");
}

#[test]
fn a_burst_on_an_empty_fleet_raises_it_in_one_step_and_says_why() {
    let (mut w, v) = (workload(), view(&[deployment(0, &[("min-replicas", "0")]), replicaset("orders-1", 0)]));
    w.sampled(waiting(500), T0_MS);
    let plan = w.look(&v, &cluster(), true, T0_MS);
    assert_eq!(scales(&plan), [(0, 20)]);
    assert!(matches!(&plan.actions[0], Action::Scale { resource_version, .. } if resource_version == "100"), "first of all: work waits");
    assert_eq!(events(&plan), [event::SCALED_UP]);
    let status = status(&plan);
    assert_eq!((&status["desired"], &status["backlog"], &status["queue"]), (&json!(20), &json!(500), &json!("orders")));
    assert!(status["reason"].as_str().unwrap().contains("500 waiting"));
    assert_eq!(condition_of(&status, condition::READY).0, "True");
}

#[test]
fn what_was_written_is_not_written_again_before_the_watch_shows_it() {
    let (mut w, v) = (workload(), view(&[deployment(0, &[("min-replicas", "0")]), replicaset("orders-1", 0)]));
    w.sampled(waiting(500), T0_MS);
    let plan = w.look(&v, &cluster(), true, T0_MS);
    all_done(&mut w, &plan, T0_MS);
    assert!(scales(&w.look(&v, &cluster(), true, T0_MS + 1_000)).is_empty());
    assert_eq!(scales(&w.look(&v, &cluster(), true, T0_MS + 4_000)), [(0, 20)], "a lost watch does not stop it for ever");
}

#[test]
fn nothing_is_done_before_the_first_figures_and_a_silent_broker_never_lowers() {
    let objects = [deployment(2, &[("min-replicas", "0")]), replicaset("orders-1", 2), pod("a"), pod("b")];
    let (mut w, v) = (workload(), view(&objects));
    assert!(scales(&w.look(&v, &cluster(), true, T0_MS)).is_empty());
    w.unmeasured("redis://r:6379: connection refused".into());
    let plan = w.look(&v, &cluster(), true, T0_MS + 1_000);
    assert_eq!(events(&plan), [event::BROKER_UNREACHABLE]);
    let (holds, message) = condition_of(&status(&plan), condition::BROKER_REACHABLE);
    assert!(holds == "False" && message.contains("connection refused"));
    for second in 2..120 {
        w.unmeasured("redis://r:6379: connection refused".into());
        let plan = w.look(&v, &cluster(), true, T0_MS + second * 1_000);
        assert!(scales(&plan).iter().all(|(from, to)| to >= from) && events(&plan).is_empty(), "second {second}: {plan:?}");
        all_done(&mut w, &plan, T0_MS + second * 1_000);
    }
    w.sampled(waiting(0), T0_MS + 121_000);
    assert_eq!(events(&w.look(&v, &cluster(), true, T0_MS + 121_000)), [event::BROKER_REACHABLE]);
}

#[test]
fn mistakes_are_told_all_at_once_and_nothing_is_touched() {
    let (mut w, v) = (workload(), view(&[deployment(3, &[("max-replicas", "many"), ("worker", "celeri")]), replicaset("orders-1", 3), pod("a")]));
    w.sampled(waiting(500), T0_MS);
    let plan = w.look(&v, &cluster(), true, T0_MS);
    let (holds, message) = condition_of(&status(&plan), condition::READY);
    assert!(holds == "False" && message.contains("many") && message.contains("celeri"), "{message}");
    assert!(plan.actions.iter().all(|a| matches!(a, Action::Status(_) | Action::Event(_))), "{plan:?}");
    all_done(&mut w, &plan, T0_MS);
    assert!(events(&w.look(&v, &cluster(), true, T0_MS + 5_000)).is_empty(), "told once");
}

#[test]
fn another_scaler_is_a_conflict_that_names_the_way_out_and_only_holds() {
    let objects = [deployment(1, &[]), replicaset("orders-1", 1), pod("a"), hpa()];
    let (mut w, v) = (workload(), view(&objects));
    w.sampled(waiting(500), T0_MS);
    let plan = w.look(&v, &cluster(), true, T0_MS);
    assert!(scales(&plan).is_empty() && events(&plan).contains(&event::CONFLICT));
    let (holds, message) = condition_of(&status(&plan), condition::CONFLICT);
    assert!(holds == "True" && message.contains("scaling: protect") && message.contains("orders-hpa"), "{message}");
    let mut objects = objects;
    objects[0] = deployment(1, &[("scaling", "protect")]);
    w.sampled(waiting(500), T0_MS + 2_000);
    let plan = w.look(&view(&objects), &cluster(), true, T0_MS + 2_000);
    assert!(scales(&plan).is_empty() && condition_of(&status(&plan), condition::CONFLICT).0 == "False");
}

#[test]
fn a_dry_run_and_a_pause_change_nothing_and_say_what_they_would_do() {
    let objects = |annotation: (&str, &str)| view(&[deployment(1, &[annotation]), replicaset("orders-1", 1), pod("a")]);
    let mut w = workload();
    w.sampled(waiting(500), T0_MS);
    let plan = w.look(&objects(("dry-run", "true")), &cluster(), true, T0_MS);
    assert!(scales(&plan).is_empty());
    assert_eq!(status(&plan)["wouldDo"], json!("useful pods 1 -> 20"));
    for pause in ["true", "scale-up"] {
        let mut w = workload();
        w.sampled(waiting(500), T0_MS);
        let plan = w.look(&objects(("paused", pause)), &cluster(), true, T0_MS);
        assert!(scales(&plan).is_empty() && status(&plan)["desired"] == json!(20), "{pause}");
    }
}

/// Lets `seconds` pass with an empty queue and idle reports; returns the last plan with something in it besides status.
fn idle_for(w: &mut Workload, v: &View, pods: &[&str], from: u64, seconds: u64, state: WorkerState) -> (Plan, u64) {
    for second in 0..seconds {
        let now = T0_MS + (from + second) * 1_000;
        for name in pods {
            w.reports(&[report(name, from + second + 1, state, Busy::Idle)], v, &cluster(), now);
        }
        w.sampled(waiting(0), now);
        let plan = w.look(v, &cluster(), true, now);
        all_done(w, &plan, now);
        if plan.actions.iter().any(|a| !matches!(a, Action::Status(_))) {
            return (plan, from + second);
        }
    }
    panic!("nothing happened within {seconds} s");
}

#[test]
fn an_idle_fleet_is_asked_marked_and_only_then_lowered() {
    let both = [deployment(2, &[("min-replicas", "0")]), replicaset("orders-1", 2), pod("a"), pod("b")];
    let (mut w, v) = (workload(), view(&both));
    let (plan, at) = idle_for(&mut w, &v, &["a", "b"], 0, 3_000, WorkerState::Open);
    let Action::SaveIntent(intent) = &plan.actions[0] else { panic!("{plan:?}") };
    assert_eq!((intent.epoch, intent.count), (1, 2));
    let asked =
        plan.actions.iter().filter(|a| matches!(a, Action::Publish(m) if m.kind == ControlKind::SigkillQueue && m.workload_uid == "dep")).count();
    assert!(asked == 2 && scales(&plan).is_empty());

    // Both park and turn NotReady.
    let quiet =
        |name: &str| with(with(pod(name), "/status/conditions/0/status", json!("False")), "/status/initContainerStatuses/0/ready", json!(false));
    let none_ready = with(replicaset("orders-1", 2), "/status/readyReplicas", json!(0));
    let v = view(&[both[0].clone(), none_ready.clone(), quiet("a"), quiet("b")]);
    let (plan, at) = idle_for(&mut w, &v, &["a", "b"], at + 1, 5, WorkerState::Parked);
    let costs: Vec<_> = plan.actions.iter().filter_map(|a| if let Action::SetCost { cost, .. } = a { *cost } else { None }).collect();
    assert!(costs == [PARKED_COST, PARKED_COST] && scales(&plan).is_empty(), "{plan:?}");

    let marked = |name: &str| {
        let pod = with(quiet(name), "/metadata/annotations", json!({"controller.kubernetes.io/pod-deletion-cost": PARKED_COST.to_string()}));
        with(pod, "/metadata/resourceVersion", json!("8"))
    };
    let v = view(&[both[0].clone(), none_ready, marked("a"), marked("b")]);
    let (plan, _) = idle_for(&mut w, &v, &["a", "b"], at + 1, 20, WorkerState::Parked);
    assert_eq!((scales(&plan), events(&plan)), (vec![(2, 0)], vec![event::SCALED_DOWN]));
}

#[test]
fn a_pod_without_sidecar_blocks_lowering_and_is_named() {
    let bare = with(pod("b"), "/spec/initContainers", json!([]));
    let (mut w, v) = (workload(), view(&[deployment(2, &[("min-replicas", "0")]), replicaset("orders-1", 2), pod("a"), bare]));
    for second in 0..600 {
        let now = T0_MS + second * 1_000;
        w.reports(&[report("a", second + 1, WorkerState::Open, Busy::Idle)], &v, &cluster(), now);
        w.sampled(waiting(0), now);
        let plan = w.look(&v, &cluster(), true, now);
        all_done(&mut w, &plan, now);
        assert!(plan.actions.iter().all(|a| matches!(a, Action::Status(_) | Action::Event(_))), "{plan:?}");
        if second == 0 {
            assert_eq!(events(&plan), [event::NOT_INJECTED]);
            assert!(condition_of(&status(&plan), condition::INJECTED).1.contains('b'));
        }
    }
}

#[test]
fn a_fleet_whose_pods_are_not_listed_yet_is_not_cut() {
    use crate::index::{Index, Kind};
    // The Deployment's own count may be as late as the pods: only the watches know that the picture is not whole.
    for status_replicas in [10, 0] {
        let mut index = Index::default();
        crate::testing::in_sync(&mut index);
        index.listing(Kind::Pod);
        let late = with(deployment(10, &[]), "/status/replicas", json!(status_replicas));
        [late, replicaset("orders-1", 10)].iter().for_each(|object| drop(put(&mut index, object)));
        let mut w = workload();
        for second in 0..10 {
            let now = T0_MS + second * 1_000;
            w.sampled(waiting(0), now);
            let plan = w.look(&index.view(&orders()).unwrap(), &cluster(), true, now);
            all_done(&mut w, &plan, now);
            assert!(scales(&plan).is_empty(), "second {second}: {plan:?}");
        }
        assert!(w.blocked.as_deref().is_some_and(|why| why.contains("Pods of this namespace are not listed yet")), "{:?}", w.blocked);
    }
}

#[test]
fn what_cannot_be_injected_is_not_raised_and_the_webhooks_reason_is_said() {
    for (pointer, value, reason) in [
        (
            "/spec/template/spec/containers/0/lifecycle",
            json!({"preStop": {"exec": {"command": ["x"]}}}),
            "container worker has a preStop hook of its own",
        ),
        ("/spec/template/spec/hostNetwork", json!(true), "hostNetwork"),
    ] {
        let bare = |name| with(pod(name), "/spec/initContainers", json!([]));
        let v = view(&[with(deployment(1, &[]), pointer, value), replicaset("orders-1", 1), bare("a")]);
        let (mut w, mut last) = (workload(), None);
        for second in 0..60 {
            let now = T0_MS + second * 1_000;
            w.sampled(waiting(500), now);
            let plan = w.look(&v, &cluster(), true, now);
            all_done(&mut w, &plan, now);
            assert!(scales(&plan).is_empty(), "{plan:?}");
            last = plan.actions.iter().find_map(|a| if let Action::Status(s) = a { Some(s.clone()) } else { None }).or(last);
        }
        let last = last.unwrap();
        let (holds, message) = condition_of(&last, condition::INJECTED);
        assert!(holds == "False" && message.contains(reason) && !message.contains("restart"), "{message}");
        assert_eq!(condition_of(&last, condition::SCALING).0, "False");
    }
}

#[test]
fn pods_that_the_api_server_refuses_are_told_with_its_words_and_the_mend_and_once() {
    let quota = "pods \"orders-1-\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2";
    let failed = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": quota}]);
    let (mut w, v) = (workload(), view(&[deployment(3, &[]), with(replicaset("orders-1", 3), "/status/conditions", failed), pod("a"), pod("b")]));
    let (mut told, mut last) = (Vec::new(), None);
    for second in 0..60 {
        let now = T0_MS + second * 1_000;
        w.sampled(waiting(500), now);
        let plan = w.look(&v, &cluster(), true, now);
        all_done(&mut w, &plan, now);
        told.extend(events(&plan).into_iter().filter(|e| *e == event::FAILED_CREATE).map(|_| second));
        last = plan.actions.iter().find_map(|a| if let Action::Status(s) = a { Some(s.clone()) } else { None }).or(last);
    }
    let (holds, message) = condition_of(&last.unwrap(), condition::SCALING);
    assert!(holds == "False" && message.contains(quota) && message.contains("raise the ResourceQuota"), "{message}");
    assert_eq!(told, [10]);
}

#[test]
fn a_scale_down_that_nobody_answers_is_said_within_minutes_and_never_that_nothing_is_in_the_way() {
    let objects = [deployment(2, &[("min-replicas", "0")]), replicaset("orders-1", 2), pod("a"), pod("b")];
    let (mut w, v) = (workload(), view(&objects));
    let (mut asked, mut said, mut blocked) = (None, Vec::new(), Vec::new());
    for second in 0..3_000 {
        let now = T0_MS + second * 1_000;
        let idle = |name| Report { at_ms: now, ..report(name, second + 1, WorkerState::Open, Busy::Idle) };
        w.reports(&[idle("a"), idle("b")], &v, &cluster(), now);
        w.sampled(waiting(0), now);
        let plan = w.look(&v, &cluster(), true, now);
        all_done(&mut w, &plan, now);
        if plan.actions.iter().any(is_token) {
            asked.get_or_insert(second);
        }
        if asked.is_some_and(|at| second == at + 30 || second == at + 200) {
            let found = w.conditions.list().into_iter().find(|c| c.type_ == condition::SCALE_DOWN_BLOCKED).unwrap();
            said.push((found.reason, found.message));
        }
        blocked.extend(events(&plan).into_iter().filter(|e| *e == event::SCALE_DOWN_BLOCKED));
        if said.len() == 2 {
            break;
        }
    }
    let reasons: Vec<&str> = said.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!((reasons, blocked.len()), (vec!["UnderWay", "NobodyParks"], 1), "{said:?}");
}

fn oom(name: &str) -> Value {
    let ended = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled", "containerID": "c1", "finishedAt": crate::testing::stamp(0)}});
    with(pod(name), "/status/containerStatuses/0/lastState", ended)
}

#[test]
fn an_oom_kill_is_answered_at_once_for_running_and_new_pods_and_counted_once() {
    let objects = [deployment(2, &[("vertical", "in-place")]), replicaset("orders-1", 2), oom("a"), pod("b")];
    let (mut w, v) = (workload(), view(&objects));
    w.sampled(waiting(0), T0_MS);
    let plan = w.look(&v, &cluster(), true, T0_MS + 1_000);
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
    let again = w.look(&v, &cluster(), true, T0_MS + 2_000);
    assert!(!events(&again).contains(&event::OOM_KILLED) && !again.actions.iter().any(|a| matches!(a, Action::Resize { .. })), "{again:?}");

    // A new life knows it from the status, and does not count it again.
    let saved: QWorkerStatus = serde_json::from_value(status).unwrap();
    let mut next = Workload::restore(orders(), "dep".into(), saved, T0_MS + 9_000);
    let plan = next.look(&v, &cluster(), true, T0_MS + 9_000);
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
        w.look(&v, &cluster(), true, T0_MS + 8_000 * u64::try_from(i).unwrap() + 1_000);
    }
    // The kubelet tells of each instance once: five are five, however fast they come.
    assert_eq!(w.totals().oom_kills, 5);
}

#[test]
fn a_report_beyond_physics_changes_no_size() {
    let (mut w, v) = (workload(), view(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a")]));
    w.look(&v, &cluster(), true, T0_MS);
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
fn a_hold_that_is_not_whole_is_a_condition_an_event_and_a_number_once_it_lasts() {
    let (mut w, v) = (workload(), view(&[deployment(2, &[]), replicaset("orders-1", 2), pod("a"), pod("b")]));
    let mut told = Vec::new();
    for second in 0..30 {
        let now = T0_MS + second * 1_000;
        let access = if second < 20 { AccessLevel::ReadOnly } else { AccessLevel::Full };
        let of_root = Report { at_ms: now, access, worker_ids: Some((0, 0)), ..report("a", second + 1, WorkerState::Open, Busy::Idle) };
        w.reports(&[of_root, Report { at_ms: now, ..report("b", second + 1, WorkerState::Open, Busy::Idle) }], &v, &cluster(), now);
        let plan = w.look(&v, &cluster(), true, now);
        all_done(&mut w, &plan, now);
        told.extend(events(&plan).into_iter().map(|reason| (second, reason)));
        if let Some(status) = plan.actions.iter().find_map(|a| if let Action::Status(s) = a { Some(s) } else { None }) {
            let holds = status["conditions"].as_array().unwrap().iter().any(|c| c["type"] == condition::HOLD_EFFECTIVE && c["status"] == "True");
            match second {
                11..20 => assert!(!holds && status["unheld"] == json!(1), "{second}: {status:#}"),
                22.. => assert!(holds && status["unheld"] == json!(0), "{second}: {status:#}"),
                _ => {}
            }
        }
    }
    assert_eq!(told, [(10, event::HOLD_NOT_EFFECTIVE)]);
    assert!(w.conditions.holds(condition::HOLD_EFFECTIVE));
}

#[test]
fn a_sidecar_that_is_never_heard_is_said_within_a_minute_of_listening() {
    let (mut w, v) = (workload(), view(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a")]));
    let said = |w: &mut Workload, from: u64, works: bool| {
        (from..from + 120).find(|second| {
            let now = T0_MS + second * 1_000;
            if works {
                w.fetched(now)
            } else {
                w.unfetched("no route".into())
            }
            events(&w.look(&v, &cluster(), true, now)).contains(&event::HOLD_NOT_EFFECTIVE)
        })
    };
    assert_eq!(said(&mut w, 0, false), None, "nobody could have heard it");
    assert!((121..180).contains(&said(&mut w, 120, true).unwrap()));
}

/// The pod `a` has cut its task.
fn cut(sequence: u64) -> Report {
    Report { cuts: 1, cut: Some("deadline".into()), ..report("a", sequence, WorkerState::Released, Busy::Busy) }
}

#[test]
fn a_cut_task_is_counted_and_told_with_its_cause_even_if_the_first_try_fails() {
    let (mut w, v) = (workload(), view(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a")]));
    w.reports(&[cut(1)], &v, &cluster(), T0_MS);
    let plan = w.look(&v, &cluster(), true, T0_MS);
    assert!(events(&plan).contains(&event::TASK_CUT));
    w.applied(&Outcome { failed: Some(Failure::Other("away".into())), left: plan.actions, ..Outcome::default() }, T0_MS);
    assert!(events(&w.look(&v, &cluster(), true, T0_MS + 1_000)).contains(&event::TASK_CUT));
    assert_eq!(w.counters.cut, 1);
}

#[test]
fn a_busy_worker_that_is_killed_is_a_cut_in_counter_status_and_event_though_no_sidecar_tells_it() {
    let (mut w, v) = (workload(), view(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a")]));
    w.reports(&[report("a", 1, WorkerState::Open, Busy::Busy)], &v, &cluster(), T0_MS);
    w.look(&v, &cluster(), true, T0_MS);
    let end = json!({"terminated": {"exitCode": 137, "reason": "Error", "containerID": "c1", "startedAt": crate::testing::stamp(-60_000), "finishedAt": crate::testing::stamp(2_000)}});
    let v = view(&[deployment(1, &[]), replicaset("orders-1", 1), with(pod("a"), "/status/containerStatuses/0/state", end)]);
    let mut told = Vec::new();
    for second in 3..40 {
        let plan = w.look(&v, &cluster(), true, T0_MS + second * 1_000);
        told.extend(
            plan.actions.iter().filter_map(|a| if let Action::Event(n) = a { Some(n.clone()) } else { None }).filter(|n| n.reason == event::TASK_CUT),
        );
        if let Some(Action::Status(status)) = plan.actions.iter().find(|a| matches!(a, Action::Status(_)))
            && second > 13
        {
            assert_eq!((&status["counters"]["cut"], &status["counters"]["cutBy"]), (&json!(1), &json!({"killed": 1})));
        }
        all_done(&mut w, &plan, T0_MS + second * 1_000);
    }
    assert!(told.len() == 1 && told[0].note.starts_with("a running task in pod a was cut: its container was killed"), "{told:?}");
    assert_eq!(w.totals().cuts.iter().sum::<u64>(), 1);
}

#[test]
fn several_cuts_that_one_report_tells_are_told_as_several() {
    let (mut w, v) = (workload(), view(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a")]));
    w.reports(&[Report { cuts: 3, ..cut(1) }], &v, &cluster(), T0_MS);
    let plan = w.look(&v, &cluster(), true, T0_MS);
    assert_eq!(w.counters.cut, 3);
    let notes: Vec<_> = plan.actions.iter().filter_map(|a| if let Action::Event(n) = a { Some(n.note.clone()) } else { None }).collect();
    assert!(notes.iter().any(|n| n.contains("3 running tasks in pod a were cut; the last: deadline")), "{notes:?}");
}

#[test]
fn a_cut_is_counted_though_its_pod_is_gone_before_the_report_comes() {
    let mut index = crate::index::Index::default();
    [deployment(1, &[]), replicaset("orders-1", 1), pod("a")].iter().for_each(|object| drop(put(&mut index, object)));
    let mut w = workload();
    w.look(&index.view(&orders()).unwrap(), &cluster(), true, T0_MS);
    index.delete(crate::index::Kind::Pod, &("shop".into(), "a".into()));
    for (second, sequence) in [(1, 1), (20, 2)] {
        let (view, now_ms) = (index.view(&orders()).unwrap(), T0_MS + second * 1_000);
        w.reports(&[cut(sequence)], &view, &cluster(), now_ms);
        w.look(&view, &cluster(), true, now_ms);
        assert_eq!((w.counters.cut, w.intake.busy(&view.pods)), (1, 0));
    }
}

#[test]
fn a_cut_is_counted_once_though_last_words_overtake_the_report_and_a_new_leader_reads_them_again() {
    let message = String::from_utf8(cut(9).encode()).unwrap();
    let ended = json!({"terminated": {"exitCode": 0, "containerID": "s1", "message": message}});
    let v = view(&[deployment(1, &[]), replicaset("orders-1", 1), with(pod("a"), "/status/initContainerStatuses/0/state", ended)]);
    let mut w = workload();
    let plan = w.look(&v, &cluster(), true, T0_MS);
    w.reports(&[cut(8)], &v, &cluster(), T0_MS + 500);
    assert_eq!((w.counters.cut, &status(&plan)["countedCuts"][0]["podUid"]), (1, &json!("uid-a")));
    let saved = serde_json::from_value(status(&plan)).unwrap();
    let mut next = Workload::restore(orders(), "dep".into(), saved, T0_MS + 1_000);
    next.look(&v, &cluster(), true, T0_MS + 1_000);
    assert_eq!(next.counters.cut, 1);
}

#[test]
fn a_url_that_cannot_be_had_is_a_mistake_that_is_told_and_holds() {
    let (mut w, v) = (workload(), view(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a")]));
    w.sampled(waiting(500), T0_MS);
    w.mistaken("qscaler.dev/broker: Secret mq does not exist in namespace shop".into());
    let plan = w.look(&v, &cluster(), true, T0_MS + 1_000);
    assert!(scales(&plan).is_empty());
    assert_eq!(events(&plan), [event::INVALID_CONFIG]);
    assert!(condition_of(&status(&plan), condition::READY).1.contains("Secret mq"));
    w.sampled(waiting(500), T0_MS + 3_000);
    let plan = w.look(&v, &cluster(), true, T0_MS + 3_000);
    assert_eq!((scales(&plan), condition_of(&status(&plan), condition::READY).0.as_str()), (vec![(1, 20)], "True"));
}

#[test]
fn an_order_to_end_a_hold_reaches_that_pod_and_is_repeated_slowly() {
    let ordered = with(pod("a"), "/metadata/annotations", json!({"qscaler.dev/release": "now"}));
    let (mut w, v) = (workload(), view(&[deployment(2, &[]), replicaset("orders-1", 2), ordered, pod("b")]));
    let mut orders = Vec::new();
    for second in 0..7 {
        let plan = w.look(&v, &cluster(), true, T0_MS + second * 1_000);
        orders.extend(plan.actions.into_iter().filter_map(|a| if let Action::Publish(m) = a { Some((second, m.kind, m.target)) } else { None }));
    }
    let order = |second| (second, ControlKind::Release, Some("uid-a".to_owned()));
    assert_eq!(orders, [order(0), order(5)]);
}

#[test]
fn a_pod_that_was_asked_and_turned_not_ready_is_waited_for_until_its_word_is_fetched() {
    let objects = [deployment(3, &[("min-replicas", "1")]), replicaset("orders-1", 3), pod("a"), pod("b"), pod("c")];
    let (mut w, v) = (workload(), view(&objects));
    let (_, at) = idle_for(&mut w, &v, &["a", "b", "c"], 0, 3_000, WorkerState::Open);
    let quiet = with(with(pod("a"), "/status/conditions/0/status", json!("False")), "/status/initContainerStatuses/0/ready", json!(false));
    let v = view(&[objects[0].clone(), with(objects[1].clone(), "/status/readyReplicas", json!(2)), quiet, pod("b"), pod("c")]);
    let now = T0_MS + at * 1_000;
    w.fetched(now);
    let plan = w.look(&v, &cluster(), true, now + 500);
    assert!(scales(&plan).is_empty() && w.wants_reports(), "it would be lowered as a pod that starts: {plan:?}");
    w.reports(&[report("a", 9_999, WorkerState::Parked, Busy::Idle)], &v, &cluster(), now + 700);
    w.fetched(now + 700);
    let plan = w.look(&v, &cluster(), true, now + 750);
    assert!(matches!(plan.actions[0], Action::SetCost { .. }), "{plan:?}");
}

#[test]
fn a_block_is_told_only_when_it_lasts() {
    let unobserved = |seconds: u64| {
        let objects =
            [with(deployment(2, &[("min-replicas", "0")]), "/status/observedGeneration", json!(2)), replicaset("orders-1", 2), pod("a"), pod("b")];
        let (mut w, v) = (workload(), view(&objects));
        let mut told = Vec::new();
        for second in 0..seconds {
            let now = T0_MS + second * 1_000;
            for name in ["a", "b"] {
                w.reports(&[Report { at_ms: now, ..report(name, second + 1, WorkerState::Open, Busy::Idle) }], &v, &cluster(), now);
            }
            w.sampled(waiting(0), now);
            let plan = w.look(&v, &cluster(), true, now);
            all_done(&mut w, &plan, now);
            told.extend(events(&plan).into_iter().map(|e| (second, e)));
        }
        told
    };
    let told = unobserved(600);
    let (second, event) = told[0];
    assert!(told.len() == 1 && event == event::SCALE_DOWN_BLOCKED, "{told:?}");
    assert!(unobserved(second).is_empty() && second >= 10);
}

#[test]
fn another_sizer_is_a_conflict_that_is_told_once_and_leaves_running_pods_alone() {
    let vpa = json!({"kind": "VerticalPodAutoscaler", "metadata": {"namespace": "shop", "name": "v"}, "spec": {"targetRef": {"kind": "Deployment", "name": "orders"}}});
    let (mut w, v) = (workload(), view(&[deployment(2, &[("vertical", "in-place")]), replicaset("orders-1", 2), oom("a"), pod("b"), vpa]));
    let mut told = Vec::new();
    for second in 0..5 {
        w.sampled(waiting(0), T0_MS + second * 1_000);
        let plan = w.look(&v, &cluster(), true, T0_MS + second * 1_000);
        told.extend(events(&plan));
        assert!(!plan.actions.iter().any(|a| matches!(a, Action::Resize { .. })), "{plan:?}");
        all_done(&mut w, &plan, T0_MS + second * 1_000);
    }
    assert_eq!(told, [event::OOM_KILLED, event::CONFLICT]);
}

#[test]
fn a_status_that_was_lost_is_written_again_as_a_whole() {
    let (mut w, v) = (workload(), view(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a")]));
    let plan = w.look(&v, &cluster(), true, T0_MS);
    all_done(&mut w, &plan, T0_MS);
    assert!(w.look(&v, &cluster(), true, T0_MS + 5_000).actions.is_empty());
    w.unwritten(None);
    assert_eq!(status(&w.look(&v, &cluster(), true, T0_MS + 6_000))["queue"], json!("orders"));
}

/// Epoch and count of every wave that a plan saves.
fn intents(plan: &Plan) -> Vec<(u64, u32)> {
    plan.actions.iter().filter_map(|a| if let Action::SaveIntent(i) = a { Some((i.epoch, i.count)) } else { None }).collect()
}

#[test]
fn a_wave_that_could_not_be_saved_or_sent_is_closed_and_asked_anew_with_a_higher_number() {
    let objects = [deployment(2, &[("min-replicas", "0")]), replicaset("orders-1", 2), pod("a"), pod("b")];
    for refused in [true, false] {
        let (mut w, v) = (workload(), view(&objects));
        // Ask, but nothing of it is done.
        let (mut asked, mut again) = (None, false);
        for second in 0..3_000 {
            let now = T0_MS + second * 1_000;
            for name in ["a", "b"] {
                w.reports(&[report(name, second + 1, WorkerState::Open, Busy::Idle)], &v, &cluster(), now);
            }
            w.sampled(waiting(0), now);
            let plan = w.look(&v, &cluster(), true, now);
            if intents(&plan).is_empty() {
                all_done(&mut w, &plan, now);
                continue;
            }
            if let Some(first) = asked {
                assert_eq!((first, intents(&plan)), ((1, 2), if refused { vec![(8, 0), (9, 2)] } else { vec![(2, 0), (3, 2)] }));
                assert!(plan.actions.contains(&Action::Purge));
                again = true;
                break;
            }
            asked = intents(&plan).first().copied();
            if refused {
                w.applied(&Outcome { failed: Some(Failure::Changed { qworker: true }), left: plan.actions, ..Outcome::default() }, now);
                w.unwritten(Some(&Intent { epoch: 7, count: 1, issued_ms: now, expires_ms: now + 60_000 }));
            } else {
                let mut left = plan.actions;
                let done = vec![(left.remove(0), Done::Yes)];
                w.applied(&Outcome { done, failed: Some(Failure::Other("no answer".into())), left, ..Outcome::default() }, now);
            }
        }
        assert!(again, "not asked again");
    }
}

#[test]
fn a_replacement_for_a_pod_on_a_cordoned_node_is_no_capacity_to_the_law() {
    let fleet = FleetSample { spec_replicas: 5, ready: 3, starting: vec![60.0, 1.0], ..FleetSample::default() };
    let seen = without_replacements(fleet.clone(), 1);
    assert_eq!((seen.spec_replicas, seen.ready, seen.starting), (4, 3, vec![60.0]), "the youngest");
    let seen = without_replacements(fleet.clone(), 3);
    assert_eq!((seen.spec_replicas, seen.ready, seen.starting.len()), (2, 2, 0));
    assert_eq!(without_replacements(fleet.clone(), 0), fleet);
}

#[test]
fn what_was_learned_of_sizes_outlives_a_mistake_in_the_annotations() {
    let objects = |annotation: (&str, &str)| view(&[deployment(1, &[annotation]), replicaset("orders-1", 1), oom("a")]);
    let mut w = workload();
    let plan = w.look(&objects(("vertical", "initial")), &cluster(), true, T0_MS + 1_000);
    let known = status(&plan)["sizes"]["worker"]["estimate"].clone();
    all_done(&mut w, &plan, T0_MS + 1_000);
    let plan = w.look(&objects(("vertical", "sideways")), &cluster(), true, T0_MS + 3_000);
    assert_eq!(status(&plan)["sizes"]["worker"]["estimate"], known);
    let mut next = Workload::restore(orders(), "dep".into(), serde_json::from_value(status(&plan)).unwrap(), T0_MS + 4_000);
    assert_eq!(status(&next.look(&objects(("vertical", "sideways")), &cluster(), true, T0_MS + 5_000))["sizes"]["worker"]["estimate"], known);
    assert_eq!(status(&next.look(&objects(("vertical", "initial")), &cluster(), true, T0_MS + 7_000))["sizes"]["worker"]["estimate"], known);
}

#[test]
fn one_change_of_eight_pods_is_one_event_and_a_refused_one_is_none() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut objects = vec![deployment(8, &[("vertical", "in-place")]), replicaset("orders-1", 8), oom("a")];
    objects.extend(names[1..].iter().map(|n| pod(n)));
    let (mut w, v) = (workload(), view(&objects));
    w.sampled(waiting(0), T0_MS);
    let plan = w.look(&v, &cluster(), true, T0_MS + 1_000);
    let refused = |a: &Action| matches!(a, Action::Resize { pod, .. } if pod.name == "h");
    let done =
        plan.actions.iter().map(|a| (a.clone(), if refused(a) { Done::Refused(RefusalCause::Quota, "q".into()) } else { Done::Yes })).collect();
    w.applied(&Outcome { done, ..Outcome::default() }, T0_MS + 1_000);
    let told = w.look(&v, &cluster(), true, T0_MS + 2_000);
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
    w.look(&v, &cluster(), true, T0_MS + 500);
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
    let size = status(&w.look(&v, &cluster(), true, T0_MS + 30_000))["sizes"]["worker"]["recommended"]["memoryBytes"].clone();
    assert_eq!(size, json!(296 << 20));
}

#[test]
fn a_kill_that_a_sidecar_has_reported_is_not_counted_again_in_the_next_life() {
    let (mut w, v) = (workload(), view(&[deployment(1, &[("vertical", "in-place")]), replicaset("orders-1", 1), pod("a")]));
    w.look(&v, &cluster(), true, T0_MS);
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
    let plan = w.look(&v, &cluster(), true, T0_MS + 1_000);
    assert_eq!(status(&plan)["counters"]["oomKills"], json!(1));

    let saved: QWorkerStatus = serde_json::from_value(status(&plan)).unwrap();
    let mut next = Workload::restore(orders(), "dep".into(), saved, T0_MS + 30_000);
    next.look(&v, &cluster(), true, T0_MS + 30_000);
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
    let plan = w.look(&v, &cluster(), true, T0_MS + 1_000);
    all_done(&mut w, &plan, T0_MS + 1_000);
    // The kill in b, of the same second as that in a, is seen when b has 196 MiB already.
    let bigger = json!({"limits": {"memory": "196Mi"}, "requests": {"memory": "196Mi", "cpu": "100m"}});
    let raised = |o: Value| with(with(o, "/spec/containers/0/resources", bigger.clone()), "/status/containerStatuses/0/resources", bigger.clone());
    let late = with(oom("b"), "/status/containerStatuses/0/lastState/terminated/containerID", json!("c2"));
    let v = view(&[objects[0].clone(), objects[1].clone(), raised(oom("a")), raised(late)]);
    let plan = w.look(&v, &cluster(), true, T0_MS + 3_000);
    let next = status(&w.look(&v, &cluster(), true, T0_MS + 6_000));
    assert_eq!((w.totals().oom_kills, next["sizes"]["worker"]["recommended"]["memoryBytes"].as_u64()), (2, Some(196 << 20)), "{plan:?}");
}

#[test]
fn what_is_no_more_is_taken_out_of_the_saved_estimate() {
    let (mut w, v) = (workload(), view(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a")]));
    w.look(&v, &cluster(), true, T0_MS);
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
    let plan = w.look(&v, &cluster(), true, T0_MS + 1_000);
    let resized: Vec<&str> =
        plan.actions.iter().filter_map(|a| if let Action::Resize { pod, .. } = a { Some(pod.name.as_str()) } else { None }).collect();
    assert_eq!(resized, ["b"]);
    // The condition follows at the next look.
    let plan = w.look(&v, &cluster(), true, T0_MS + 3_000);
    let (holds, message) = condition_of(&status(&plan), condition::CONFLICT);
    assert!(holds == "True" && message.contains("vpa-updater has set the resources of pod a"), "{message}");
    let marked = with(pod("a"), "/metadata/annotations", json!({"vpaUpdates": "Pod resources updated by v"}));
    assert_eq!(crate::testing::pod_record(&marked).other_sizer.as_deref(), Some("a VerticalPodAutoscaler"));
}

#[test]
fn off_recommends_says_what_it_would_cost_and_changes_nothing() {
    let (mut w, v) = (workload(), view(&[deployment(2, &[]), replicaset("orders-1", 2), oom("a"), pod("b")]));
    w.sampled(waiting(0), T0_MS);
    let plan = w.look(&v, &cluster(), true, T0_MS + 1_000);
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
    let plan = w.look(&v, &cluster(), true, T0_MS + 1_000);
    let (holds, message) = condition_of(&status(&plan), condition::MEMORY_CAPPED);
    assert_eq!((holds.as_str(), message.contains("queue orders were OOM-killed 1 times at 96Mi")), ("True", true), "{message}");
    assert!(events(&plan).contains(&event::MEMORY_CAPPED));
}

/// A quota of two pods: raised to five, and a rollout with no surge has found no room for its first pod.
fn full_by_quota() -> View {
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

#[test]
fn a_rollout_without_room_gets_room_and_the_condition_says_why_no_more_is_asked_for() {
    for (backlog, says) in [(0, None), (500, Some("exceeded quota: two"))] {
        let (mut w, v) = (workload(), full_by_quota());
        let mut scaled = Vec::new();
        for second in 0..120 {
            let now = T0_MS + second * 1_000;
            w.reports(&["a", "b"].map(|name| report(name, second + 1, WorkerState::Open, Busy::Busy)), &v, &cluster(), now);
            w.sampled(waiting(backlog), now);
            let plan = w.look(&v, &cluster(), true, now);
            all_done(&mut w, &plan, now);
            scaled.extend(scales(&plan));
            if !scaled.is_empty() {
                break;
            }
        }
        assert_eq!(scaled, [(5, 2)], "two have a worker, and stay");
        let plan = w.look(&v, &cluster(), true, T0_MS + 130_000);
        if let Some(says) = says {
            let (holds, message) = condition_of(&status(&plan), condition::SCALING);
            assert!(holds == "False" && message.contains(says) && message.contains("a rollout is under way"), "{message}");
        }
    }
}

#[test]
fn a_raise_to_the_minimum_is_told_as_such() {
    let (mut w, v) = (workload(), view(&[deployment(0, &[("min-replicas", "1")]), replicaset("orders-1", 0)]));
    w.sampled(waiting(0), T0_MS);
    let plan = w.look(&v, &cluster(), true, T0_MS);
    assert_eq!(scales(&plan), [(0, 1)]);
    let note = plan.actions.iter().find_map(|a| if let Action::Event(n) = a { Some(n.note.clone()) } else { None }).unwrap();
    assert!(note.contains("min-replicas 1 raised it") && !note.contains("first message"), "{note}");
}

#[test]
fn one_idle_report_and_then_silence_for_an_hour_takes_no_mark_off() {
    let marks = json!({"karpenter.sh/do-not-disrupt": {"set": "true"}, "cluster-autoscaler.kubernetes.io/safe-to-evict": {"set": "false"}});
    let all = json!({"karpenter.sh/do-not-disrupt": "true", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "qscaler.dev/marks": marks.to_string()});
    let kept = with(pod("a"), "/metadata/annotations", all);
    let (mut w, v) = (workload(), view(&[deployment(1, &[("vertical", "in-place")]), replicaset("orders-1", 1), kept]));
    w.reports(&[report("a", 1, WorkerState::Open, Busy::Idle)], &v, &cluster(), T0_MS);
    for second in (0..3_600).step_by(5) {
        let now = T0_MS + second * 1_000;
        w.sampled(waiting(0), now);
        let plan = w.look(&v, &cluster(), true, now);
        all_done(&mut w, &plan, now);
        // What was idle for a minute while it was heard may go; after that nothing is known.
        let changes = plan.actions.iter().filter(|a| matches!(a, Action::Mark { .. } | Action::Resize { .. })).count();
        assert!(changes == 0 || second < 60, "second {second}: {plan:?}");
    }
}

#[test]
fn a_pause_and_a_dry_run_take_our_marks_back_and_restore_the_users() {
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    let memory = json!({cost: {"set": "-2147483648", "before": "5"}});
    let marked = with(pod("a"), "/metadata/annotations", json!({cost: "-2147483648", "qscaler.dev/marks": memory.to_string()}));
    for annotation in [("paused", "true"), ("dry-run", "true"), ("max-replicas", "many")] {
        let (mut w, v) = (workload(), view(&[deployment(1, &[annotation]), replicaset("orders-1", 1), marked.clone()]));
        w.sampled(waiting(0), T0_MS);
        let plan = w.look(&v, &cluster(), true, T0_MS);
        let patch = plan.actions.iter().find_map(|a| if let Action::Mark { patch, .. } = a { Some(patch.clone()) } else { None });
        let expected = [(cost.to_owned(), Some("5".to_owned())), ("qscaler.dev/marks".to_owned(), None)].into();
        assert_eq!(patch, Some(expected), "{annotation:?}: {plan:?}");
    }
}

#[test]
fn events_that_cannot_be_told_do_not_pile_up() {
    let mut w = workload();
    for n in 0..40 {
        let left = (0..10).map(|i| Action::Event(Notice::warning(event::TASK_CUT, format!("{n}/{i}")))).collect();
        w.applied(&Outcome { left, ..Outcome::default() }, T0_MS);
    }
    assert_eq!((w.notices.len(), w.notices.last().map(|n| n.note.as_str())), (50, Some("39/9")));
}

#[test]
fn another_writer_of_replicas_is_left_alone_after_a_few_rounds_and_named() {
    let mut w = workload();
    let (mut version, mut raised) = (100, 0);
    let applied = |version: u32| {
        let fields = json!([
            {"manager": "argocd-controller", "operation": "Update", "apiVersion": "apps/v1", "time": crate::testing::stamp(0), "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            {"manager": "qscaler", "operation": "Update", "apiVersion": "apps/v1", "subresource": "scale", "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {}}}
        ]);
        let object = with(with(deployment(1, &[]), "/metadata/managedFields", fields), "/metadata/resourceVersion", json!(version.to_string()));
        view(&[object, replicaset("orders-1", 1), pod("a")])
    };
    for second in 0..60 {
        let now = T0_MS + second * 1_000;
        w.sampled(waiting(500), now);
        let plan = w.look(&applied(version), &cluster(), true, now);
        all_done(&mut w, &plan, now);
        raised += scales(&plan).len();
        // Somebody sets it back at once.
        version += u32::try_from(scales(&plan).len()).unwrap() * 2;
    }
    assert!((1..5).contains(&raised), "{raised} rounds in a minute");
    let plan = w.look(&applied(version + 1), &cluster(), true, T0_MS + 70_000);
    let (holds, message) = w.conditions.list().into_iter().find(|c| c.type_ == condition::CONFLICT).map(|c| (c.status, c.message)).unwrap();
    assert!(holds == "True" && message.contains("argocd-controller") && message.contains("ignoreDifferences"), "{message} {plan:?}");
}
