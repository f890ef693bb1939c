//! Flow 2 for one workload, look by look.

use crate::act::plan::{Action, Done, Failure, ListOutcome};
use crate::testing::look::*;
use crate::testing::{T0_MS, deployment, orders, pod, put, replicaset, report, view, with};
use qscaler_api::Intent;
use qscaler_core::drain::fleet::PARKED_COST;
use qscaler_core::message::{Busy, ControlKind, PodMs, Report, WorkerState};
use qscaler_core::names::{condition, event};
use serde_json::json;

#[test]
fn an_idle_fleet_is_asked_marked_and_only_then_lowered() {
    let both = [deployment(2, &[("min-replicas", "0")]), replicaset("orders-1", 2), pod("a"), pod("b")];
    let (mut w, v) = (workload(), view(&both));
    let (plan, at) = idle_for(&mut w, &v, &["a", "b"], 0, 3_000, WorkerState::Open);
    let Action::SaveIntent(intent) = &plan.actions[0] else { panic!("{plan:?}") };
    assert_eq!((intent.epoch, intent.count), (1, 2));
    let asked = plan
        .actions
        .iter()
        .filter(|a| matches!(a, Action::Publish(m) if m.kind == ControlKind::SigkillQueue && m.workload_uid.as_str() == "dep"))
        .count();
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
        let plan = w.look(&v, &cluster(), ROOM, now);
        all_done(&mut w, &plan, now);
        assert!(plan.actions.iter().all(|a| matches!(a, Action::Status(_) | Action::Checkpoint(_) | Action::Event(_))), "{plan:?}");
        if second == 0 {
            assert_eq!(events(&plan), [event::NOT_INJECTED]);
            assert!(condition_of(&status(&plan), condition::INJECTED).1.contains('b'));
        }
    }
}

#[test]
fn a_fleet_whose_pods_are_not_listed_yet_is_not_cut() {
    use crate::observe::index::{Index, Kind};
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
            let plan = w.look(&index.view(&orders()).unwrap(), &cluster(), ROOM, now);
            all_done(&mut w, &plan, now);
            assert!(scales(&plan).is_empty(), "second {second}: {plan:?}");
        }
        assert!(w.blocked.as_deref().is_some_and(|why| why.contains("Pods of this namespace are not listed yet")), "{:?}", w.blocked);
    }
}

#[test]
fn an_order_to_end_a_hold_reaches_that_pod_and_is_repeated_slowly() {
    let ordered = with(pod("a"), "/metadata/annotations", json!({"qscaler.dev/release": "now"}));
    let (mut w, v) = (workload(), view(&[deployment(2, &[]), replicaset("orders-1", 2), ordered, pod("b")]));
    let mut orders = Vec::new();
    for second in 0..7 {
        let plan = w.look(&v, &cluster(), ROOM, T0_MS + second * 1_000);
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
    let plan = w.look(&v, &cluster(), ROOM, now + 500);
    assert!(scales(&plan).is_empty() && w.wants_reports(), "it would be lowered as a pod that starts: {plan:?}");
    w.reports(&[report("a", 9_999, WorkerState::Parked, Busy::Idle)], &v, &cluster(), now + 700);
    w.fetched(now + 700);
    let plan = w.look(&v, &cluster(), ROOM, now + 750);
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
                w.reports(&[Report { at_ms: PodMs(now), ..report(name, second + 1, WorkerState::Open, Busy::Idle) }], &v, &cluster(), now);
            }
            w.sampled(waiting(0), now);
            let plan = w.look(&v, &cluster(), ROOM, now);
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
            let plan = w.look(&v, &cluster(), ROOM, now);
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
                w.applied(&ListOutcome { failed: Some(Failure::Changed { qworker: true }), left: plan.actions, ..ListOutcome::default() }, now);
                w.unwritten(Some(&Intent { epoch: 7, count: 1, issued_ms: now, expires_ms: now + 60_000 }));
            } else {
                let mut left = plan.actions;
                let done = vec![(left.remove(0), Done::Yes)];
                w.applied(&ListOutcome { done, failed: Some(Failure::Other("no answer".into())), left, ..ListOutcome::default() }, now);
            }
        }
        assert!(again, "not asked again");
    }
}
