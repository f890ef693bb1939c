//! Flow 1 for one workload, look by look.

use crate::act::plan::Action;
use crate::observe::pools::Pools;
use crate::testing::look::*;
use crate::testing::{T0_MS, deployment, hpa, orders, pod, replicaset, report, view, with};
use crate::workload::Workload;
use qscaler_api::QWorkerStatus;
use qscaler_core::message::{Busy, WorkerState};
use qscaler_core::names::{condition, event};
use qscaler_core::workload::WorkloadId;
use serde_json::json;

#[test]
fn a_burst_on_an_empty_fleet_raises_it_in_one_step_and_says_why() {
    let (mut w, v) = (workload(), view(&[deployment(0, &[("min-replicas", "0")]), replicaset("orders-1", 0)]));
    w.sampled(waiting(500), T0_MS);
    let plan = w.look(&v, &cluster(), ROOM, T0_MS);
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
    let plan = w.look(&v, &cluster(), ROOM, T0_MS);
    all_done(&mut w, &plan, T0_MS);
    assert!(scales(&w.look(&v, &cluster(), ROOM, T0_MS + 1_000)).is_empty());
    assert_eq!(scales(&w.look(&v, &cluster(), ROOM, T0_MS + 4_000)), [(0, 20)], "a lost watch does not stop it for ever");
}

#[test]
fn nothing_is_done_before_the_first_figures_and_a_silent_broker_never_lowers() {
    let objects = [deployment(2, &[("min-replicas", "0")]), replicaset("orders-1", 2), pod("a"), pod("b")];
    let (mut w, v) = (workload(), view(&objects));
    assert!(scales(&w.look(&v, &cluster(), ROOM, T0_MS)).is_empty());
    w.unmeasured("redis://r:6379: connection refused".into());
    let plan = w.look(&v, &cluster(), ROOM, T0_MS + 1_000);
    assert_eq!(events(&plan), [event::BROKER_UNREACHABLE]);
    let (holds, message) = condition_of(&status(&plan), condition::BROKER_REACHABLE);
    assert!(holds == "False" && message.contains("connection refused"));
    for second in 2..120 {
        w.unmeasured("redis://r:6379: connection refused".into());
        let plan = w.look(&v, &cluster(), ROOM, T0_MS + second * 1_000);
        assert!(scales(&plan).iter().all(|(from, to)| to >= from) && events(&plan).is_empty(), "second {second}: {plan:?}");
        all_done(&mut w, &plan, T0_MS + second * 1_000);
    }
    w.sampled(waiting(0), T0_MS + 121_000);
    assert_eq!(events(&w.look(&v, &cluster(), ROOM, T0_MS + 121_000)), [event::BROKER_REACHABLE]);
}

#[test]
fn another_scaler_is_a_conflict_that_names_the_way_out_and_only_holds() {
    let objects = [deployment(1, &[]), replicaset("orders-1", 1), pod("a"), hpa()];
    let (mut w, v) = (workload(), view(&objects));
    w.sampled(waiting(500), T0_MS);
    let plan = w.look(&v, &cluster(), ROOM, T0_MS);
    assert!(scales(&plan).is_empty() && events(&plan).contains(&event::CONFLICT));
    let (holds, message) = condition_of(&status(&plan), condition::CONFLICT);
    assert!(holds == "True" && message.contains("scaling: protect") && message.contains("orders-hpa"), "{message}");
    let mut objects = objects;
    objects[0] = deployment(1, &[("scaling", "protect")]);
    w.sampled(waiting(500), T0_MS + 2_000);
    let plan = w.look(&view(&objects), &cluster(), ROOM, T0_MS + 2_000);
    assert!(scales(&plan).is_empty() && condition_of(&status(&plan), condition::CONFLICT).0 == "False");
}

#[test]
fn a_dry_run_and_a_pause_change_nothing_and_say_what_they_would_do() {
    let objects = |annotation: (&str, &str)| view(&[deployment(1, &[annotation]), replicaset("orders-1", 1), pod("a")]);
    let mut w = workload();
    w.sampled(waiting(500), T0_MS);
    let plan = w.look(&objects(("dry-run", "true")), &cluster(), ROOM, T0_MS);
    assert!(scales(&plan).is_empty());
    assert_eq!(status(&plan)["wouldDo"], json!("useful pods 1 -> 20"));
    for pause in ["true", "scale-up"] {
        let mut w = workload();
        w.sampled(waiting(500), T0_MS);
        let plan = w.look(&objects(("paused", pause)), &cluster(), ROOM, T0_MS);
        assert!(scales(&plan).is_empty() && status(&plan)["desired"] == json!(20), "{pause}");
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
            let plan = w.look(&v, &cluster(), ROOM, now);
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
fn a_rollout_without_room_gets_room_and_the_condition_says_why_no_more_is_asked_for() {
    for (backlog, says) in [(0, None), (500, Some("exceeded quota: two"))] {
        let (mut w, v) = (workload(), full_by_quota());
        let mut scaled = Vec::new();
        for second in 0..120 {
            let now = T0_MS + second * 1_000;
            w.reports(&["a", "b"].map(|name| report(name, second + 1, WorkerState::Open, Busy::Busy)), &v, &cluster(), now);
            w.sampled(waiting(backlog), now);
            let plan = w.look(&v, &cluster(), ROOM, now);
            all_done(&mut w, &plan, now);
            scaled.extend(scales(&plan));
            if !scaled.is_empty() {
                break;
            }
        }
        assert_eq!(scaled, [(5, 2)], "two have a worker, and stay");
        let plan = w.look(&v, &cluster(), ROOM, T0_MS + 130_000);
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
    let plan = w.look(&v, &cluster(), ROOM, T0_MS);
    assert_eq!(scales(&plan), [(0, 1)]);
    let note = plan.actions.iter().find_map(|a| if let Action::Event(n) = a { Some(n.note.clone()) } else { None }).unwrap();
    assert!(note.contains("min-replicas 1 raised it") && !note.contains("first message"), "{note}");
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
        let plan = w.look(&applied(version), &cluster(), ROOM, now);
        all_done(&mut w, &plan, now);
        raised += scales(&plan).len();
        // Somebody sets it back at once.
        version += u32::try_from(scales(&plan).len()).unwrap() * 2;
    }
    assert!((1..5).contains(&raised), "{raised} rounds in a minute");
    let plan = w.look(&applied(version + 1), &cluster(), ROOM, T0_MS + 70_000);
    let (holds, message) = w.conditions.list().into_iter().find(|c| c.type_ == condition::CONFLICT).map(|c| (c.status, c.message)).unwrap();
    assert!(holds == "True" && message.contains("argocd-controller") && message.contains("ignoreDifferences"), "{message} {plan:?}");
}

#[test]
fn two_deployments_on_one_queue_ask_together_for_the_pods_of_one_and_each_is_told_of_the_other() {
    let v = view(&[deployment(0, &[("min-replicas", "0")]), replicaset("orders-1", 0)]);
    let mut alone = workload();
    alone.sampled(waiting(30), T0_MS);
    let one = scales(&alone.look(&v, &cluster(), ROOM, T0_MS));
    let green = WorkloadId { namespace: "shop".into(), name: "green".into() };
    let mut pools = Pools::default();
    [&orders(), &green].into_iter().for_each(|id| pools.join(id, vec!["redis r.shop:6379 /0 orders".into()]));
    let mut both = [workload(), Workload::restore(green.clone(), "dep".into(), QWorkerStatus::default(), T0_MS)];
    both[0].share(pools.of(&orders()));
    both[1].share(pools.of(&green));
    let (mut asked, mut told) = (vec![0, 0], Vec::new());
    for second in 0..2 {
        let now = T0_MS + second * 1_000;
        for (at, w) in both.iter_mut().enumerate() {
            w.sampled(waiting(30), now);
            let plan = w.look(&v, &cluster(), ROOM, now);
            all_done(w, &plan, now);
            asked[at] += scales(&plan).iter().map(|(from, to)| to - from).sum::<u32>();
            if second == 0 {
                told.push(condition_of(&status(&plan), condition::QUEUE_SHARED));
                assert!(events(&plan).contains(&event::QUEUE_SHARED));
            }
        }
    }
    assert_eq!(one, [(0, asked.iter().sum())], "{asked:?}");
    assert!(asked.iter().all(|pods| *pods > 0), "{asked:?}");
    assert!(told[0].0 == "True" && told[0].1.contains("shop/green") && told[1].1.contains("shop/orders"), "{told:?}");
    both[0].share(None);
    both[0].sampled(waiting(30), T0_MS + 2_000);
    let plan = both[0].look(&v, &cluster(), ROOM, T0_MS + 2_000);
    assert_eq!(condition_of(&status(&plan), condition::QUEUE_SHARED).0, "False");
}
