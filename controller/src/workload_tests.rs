//! One workload, look by look: what is done, in what order, and what is said about it.

use crate::act::plan::{Action, Failure, ListOutcome};
use crate::act::plan::{Notice, is_token};
use crate::testing::look::*;
use crate::testing::{T0_MS, deployment, orders, pod, put, replicaset, report, view, with};
use crate::workload::Workload;
use qscaler_core::message::{AccessLevel, Busy, PodMs, Report, WorkerState};
use qscaler_core::names::{condition, event};
use serde_json::json;

#[test]
fn what_the_broker_cannot_tell_is_in_the_status_with_the_cause() {
    let (mut w, v) = (workload(), view(&[deployment(0, &[]), replicaset("orders-1", 0)]));
    let mut told = |gap: Option<&str>, now_ms| {
        w.sampled(waiting(0), now_ms);
        w.partly(gap.map(Into::into));
        let plan = w.look(&v, &cluster(), ROOM, now_ms);
        let told = condition_of(&status(&plan), condition::BROKER_REACHABLE);
        all_done(&mut w, &plan, now_ms);
        told
    };
    let (holds, message) = told(Some("no figures (HTTP 401)"), T0_MS);
    assert!(holds == "True" && message.contains("HTTP 401"), "{message}");
    assert_eq!(told(None, T0_MS + 60_000).1, "the broker answers");
}

#[test]
fn mistakes_are_told_all_at_once_and_nothing_is_touched() {
    let (mut w, v) = (workload(), view(&[deployment(3, &[("max-replicas", "many"), ("worker", "celeri")]), replicaset("orders-1", 3), pod("a")]));
    w.sampled(waiting(500), T0_MS);
    let plan = w.look(&v, &cluster(), ROOM, T0_MS);
    let (holds, message) = condition_of(&status(&plan), condition::READY);
    assert!(holds == "False" && message.contains("many") && message.contains("celeri"), "{message}");
    assert!(plan.actions.iter().all(|a| matches!(a, Action::Status(_) | Action::Checkpoint(_) | Action::Event(_))), "{plan:?}");
    all_done(&mut w, &plan, T0_MS);
    assert!(events(&w.look(&v, &cluster(), ROOM, T0_MS + 5_000)).is_empty(), "told once");
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
        let plan = w.look(&v, &cluster(), ROOM, now);
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
        let idle = |name| Report { at_ms: PodMs(now), ..report(name, second + 1, WorkerState::Open, Busy::Idle) };
        w.reports(&[idle("a"), idle("b")], &v, &cluster(), now);
        w.sampled(waiting(0), now);
        let plan = w.look(&v, &cluster(), ROOM, now);
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

#[test]
fn a_hold_that_is_not_whole_is_a_condition_an_event_and_a_number_once_it_lasts() {
    let (mut w, v) = (workload(), view(&[deployment(2, &[]), replicaset("orders-1", 2), pod("a"), pod("b")]));
    let mut told = Vec::new();
    for second in 0..30 {
        let now = T0_MS + second * 1_000;
        let access = if second < 20 { AccessLevel::ReadOnly } else { AccessLevel::Full };
        let of_root = Report { at_ms: PodMs(now), access, worker_ids: Some((0, 0)), ..report("a", second + 1, WorkerState::Open, Busy::Idle) };
        w.reports(&[of_root, Report { at_ms: PodMs(now), ..report("b", second + 1, WorkerState::Open, Busy::Idle) }], &v, &cluster(), now);
        let plan = w.look(&v, &cluster(), ROOM, now);
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
            events(&w.look(&v, &cluster(), ROOM, now)).contains(&event::HOLD_NOT_EFFECTIVE)
        })
    };
    assert_eq!(said(&mut w, 0, false), None, "nobody could have heard it");
    assert!((121..180).contains(&said(&mut w, 120, true).unwrap()));
}

#[test]
fn a_cut_task_is_counted_and_told_with_its_cause_even_if_the_first_try_fails() {
    let (mut w, v) = (workload(), view(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a")]));
    w.reports(&[cut(1)], &v, &cluster(), T0_MS);
    let plan = w.look(&v, &cluster(), ROOM, T0_MS);
    assert!(events(&plan).contains(&event::TASK_CUT));
    w.applied(&ListOutcome { failed: Some(Failure::Other("away".into())), left: plan.actions, ..ListOutcome::default() }, T0_MS);
    assert!(events(&w.look(&v, &cluster(), ROOM, T0_MS + 1_000)).contains(&event::TASK_CUT));
    assert_eq!(w.counters.cut, 1);
}

#[test]
fn a_busy_worker_that_is_killed_is_a_cut_in_counter_status_and_event_though_no_sidecar_tells_it() {
    let (mut w, v) = (workload(), view(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a")]));
    w.reports(&[report("a", 1, WorkerState::Open, Busy::Busy)], &v, &cluster(), T0_MS);
    w.look(&v, &cluster(), ROOM, T0_MS);
    let end = json!({"terminated": {"exitCode": 137, "reason": "Error", "containerID": "c1", "startedAt": crate::testing::stamp(-60_000), "finishedAt": crate::testing::stamp(2_000)}});
    let v = view(&[deployment(1, &[]), replicaset("orders-1", 1), with(pod("a"), "/status/containerStatuses/0/state", end)]);
    let mut told = Vec::new();
    for second in 3..40 {
        let plan = w.look(&v, &cluster(), ROOM, T0_MS + second * 1_000);
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
    let plan = w.look(&v, &cluster(), ROOM, T0_MS);
    assert_eq!(w.counters.cut, 3);
    let notes: Vec<_> = plan.actions.iter().filter_map(|a| if let Action::Event(n) = a { Some(n.note.clone()) } else { None }).collect();
    assert!(notes.iter().any(|n| n.contains("3 running tasks in pod a were cut; the last: deadline")), "{notes:?}");
}

#[test]
fn a_cut_is_counted_though_its_pod_is_gone_before_the_report_comes() {
    let mut index = crate::observe::index::Index::default();
    [deployment(1, &[]), replicaset("orders-1", 1), pod("a")].iter().for_each(|object| drop(put(&mut index, object)));
    let mut w = workload();
    w.look(&index.view(&orders()).unwrap(), &cluster(), ROOM, T0_MS);
    index.delete(crate::observe::index::Kind::Pod, &("shop".into(), "a".into()));
    for (second, sequence) in [(1, 1), (20, 2)] {
        let (view, now_ms) = (index.view(&orders()).unwrap(), T0_MS + second * 1_000);
        w.reports(&[cut(sequence)], &view, &cluster(), now_ms);
        w.look(&view, &cluster(), ROOM, now_ms);
        assert_eq!((w.counters.cut, w.intake.busy(&view.pods)), (1, 0));
    }
}

#[test]
fn a_cut_is_counted_once_though_last_words_overtake_the_report_and_a_new_leader_reads_them_again() {
    let message = String::from_utf8(cut(9).encode()).unwrap();
    let ended = json!({"terminated": {"exitCode": 0, "containerID": "s1", "message": message}});
    let v = view(&[deployment(1, &[]), replicaset("orders-1", 1), with(pod("a"), "/status/initContainerStatuses/0/state", ended)]);
    let mut w = workload();
    let plan = w.look(&v, &cluster(), ROOM, T0_MS);
    w.reports(&[cut(8)], &v, &cluster(), T0_MS + 500);
    let kept = checkpoint(&plan).expect("a cut is saved at once, with the book that it is counted by");
    assert_eq!((w.counters.cut, kept.cut, kept.counted_cuts[0].pod_uid.as_str()), (1, 1, "uid-a"));
    let saved = left_by(&w, &plan);
    let mut next = Workload::restore(orders(), "dep".into(), saved, T0_MS + 1_000);
    next.look(&v, &cluster(), ROOM, T0_MS + 1_000);
    assert_eq!(next.counters.cut, 1);
}

#[test]
fn a_url_that_cannot_be_had_is_a_mistake_that_is_told_and_holds() {
    let (mut w, v) = (workload(), view(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a")]));
    w.sampled(waiting(500), T0_MS);
    w.mistaken("qscaler.dev/broker: Secret mq does not exist in namespace shop".into());
    let plan = w.look(&v, &cluster(), ROOM, T0_MS + 1_000);
    assert!(scales(&plan).is_empty());
    assert_eq!(events(&plan), [event::INVALID_CONFIG]);
    assert!(condition_of(&status(&plan), condition::READY).1.contains("Secret mq"));
    w.sampled(waiting(500), T0_MS + 3_000);
    let plan = w.look(&v, &cluster(), ROOM, T0_MS + 3_000);
    assert_eq!((scales(&plan), condition_of(&status(&plan), condition::READY).0.as_str()), (vec![(1, 20)], "True"));
}

#[test]
fn a_status_that_was_lost_is_written_again_as_a_whole() {
    let (mut w, v) = (workload(), view(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a")]));
    let plan = w.look(&v, &cluster(), ROOM, T0_MS);
    all_done(&mut w, &plan, T0_MS);
    // What is known of sizes is saved once it is old enough.
    let plan = w.look(&v, &cluster(), ROOM, T0_MS + 5_000);
    assert!(matches!(plan.actions.as_slice(), [Action::Checkpoint(_)]), "{plan:?}");
    all_done(&mut w, &plan, T0_MS + 5_000);
    assert!(w.look(&v, &cluster(), ROOM, T0_MS + 5_500).actions.is_empty());
    w.unwritten(None);
    assert_eq!(status(&w.look(&v, &cluster(), ROOM, T0_MS + 6_000))["queue"], json!("orders"));
}

#[test]
fn events_that_cannot_be_told_do_not_pile_up() {
    let mut w = workload();
    for n in 0..40 {
        let left = (0..10).map(|i| Action::Event(Notice::warning(event::TASK_CUT, format!("{n}/{i}")))).collect();
        w.applied(&ListOutcome { left, ..ListOutcome::default() }, T0_MS);
    }
    assert_eq!((w.notices.len(), w.notices.last().map(|n| n.note.as_str())), (50, Some("39/9")));
}
