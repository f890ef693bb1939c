//! The engine from hand-made facts.

use super::*;
use crate::drain::fleet::{Amount, ReportFacts, SetFacts};
use crate::message::Epoch;

fn pod(name: &str, injected: bool) -> PodFacts {
    PodFacts {
        uid: format!("uid-{name}"),
        name: name.into(),
        resource_version: "1".into(),
        created_ms: 0,
        ready: true,
        scheduled: true,
        unschedulable: false,
        pending: false,
        started: true,
        terminating: false,
        injected,
        sidecar_started: injected,
        sidecar_ready: injected,
        deletion_cost: 0,
        cost_ours: false,
        report: injected.then_some(ReportFacts { state: WorkerState::Open, epoch: Epoch(0), busy: Busy::Idle, at_ms: 0 }),
        gapped: false,
        node_cordoned: false,
        set_uid: "set".into(),
    }
}

fn fleet(pods: Vec<PodFacts>) -> FleetFacts {
    let n = u32::try_from(pods.iter().filter(|p| !p.terminating).count()).unwrap();
    FleetFacts {
        resource_version: "7".into(),
        generation_observed: true,
        spec_replicas: n,
        status_replicas: n,
        rs_ready_replicas: n,
        sets: vec![SetFacts { uid: "set".into(), revision: 1, spec_replicas: n, ..SetFacts::default() }],
        max_surge: Some(Amount::Percent(25)),
        max_unavailable: 1,
        pods,
        conflict: None,
        data_stale: false,
        out_of_sync: None,
        leader: true,
    }
}

fn bare(name: &str) -> Candidate {
    Candidate { uid: format!("uid-{name}"), cause: Cause::Bare, net: Net::Grace(Some(3660)) }
}

fn old(name: &str) -> Candidate {
    Candidate { uid: format!("uid-{name}"), cause: Cause::OldSidecar, net: Net::Held }
}

fn asked(step: &Step) -> Option<&str> {
    step.ask.as_ref().map(|ask| ask.pod_name.as_str())
}

#[test]
fn bare_pods_leave_one_by_one_and_the_next_waits_for_the_new_pod() {
    let mut engine = Replacer::default();
    let before = fleet(vec![pod("a", false), pod("b", false)]);
    let candidates = [bare("a"), bare("b")];
    let step = engine.step(&before, &candidates, None, true, 0);
    let expected = Ask { pod_uid: "uid-a".into(), pod_name: "a".into(), cause: Cause::Bare, prove: true, grace_s: Some(3660) };
    assert_eq!((step.ask, step.stands), (Some(expected), Stands::Replacing));
    assert_eq!(engine.step(&before, &candidates, None, true, 1_000).ask, None, "one at a time");
    engine.tried("uid-a", Tried::Evicted, &before, 2_000);
    assert_eq!(engine.step(&before, &candidates, None, true, 10_000).ask, None, "the watch has not shown the eviction yet");
    let mut ending = fleet(vec![PodFacts { terminating: true, ..pod("a", false) }, pod("b", false), PodFacts { ready: false, ..pod("c", true) }]);
    assert_eq!(engine.step(&ending, &candidates, None, true, 11_000).ask, None);
    ending.pods.remove(0);
    let step = engine.step(&ending, &candidates, None, true, 12_000);
    assert!(step.ask.is_none() && step.words.contains("pod c is Ready"), "{}", step.words);
    ending.pods[1].ready = true;
    assert_eq!(asked(&engine.step(&ending, &candidates, None, true, 13_000)), Some("b"));
    engine.tried("uid-b", Tried::Evicted, &ending, 14_000);
    let after = fleet(vec![pod("c", true), pod("d", true)]);
    assert_eq!(engine.step(&after, &[], None, true, 20_000).stands, Stands::UpToDate);
}

#[test]
fn a_busy_pod_is_never_asked_and_the_others_are_asked_in_turn() {
    let mut engine = Replacer::default();
    let facts = fleet(vec![pod("a", false), pod("b", false)]);
    let candidates = [bare("a"), bare("b")];
    let mut turns = Vec::new();
    for second in 0..12_u64 {
        let now = second * 1_000;
        if let Some(ask) = engine.step(&facts, &candidates, None, true, now).ask {
            turns.push(ask.pod_name);
            engine.tried(&ask.pod_uid, Tried::Busy, &facts, now);
        }
    }
    assert!(turns.len() >= 6 && turns.windows(2).all(|two| two[0] != two[1]), "{turns:?}");
    let busy = |at_ms| Some(ReportFacts { state: WorkerState::Open, epoch: Epoch(0), busy: Busy::Busy, at_ms });
    let mut reports = fleet(vec![PodFacts { report: busy(0), ..pod("a", true) }]);
    let mut engine = Replacer::default();
    assert_eq!(engine.step(&reports, &[old("a")], None, true, 0).ask, None, "it says that it is busy");
    reports.pods[0] = pod("a", true);
    assert_eq!(engine.step(&reports, &[old("a")], None, true, IDLE_AGE_MS).ask, None, "its word is old");
    assert_eq!(asked(&engine.step(&reports, &[old("a")], None, true, IDLE_AGE_MS - 1)), Some("a"));
}

#[test]
fn nothing_is_replaced_while_something_else_is_under_way() {
    let one = || fleet(vec![pod("a", true), pod("b", true)]);
    let ask = |facts: FleetFacts| Replacer::default().step(&facts, &[old("a")], None, true, 0).ask;
    assert!(ask(one()).is_some());
    let other = SetFacts { uid: "new".into(), revision: 2, ..SetFacts::default() };
    for facts in [
        FleetFacts { spec_replicas: 1, ..one() },
        FleetFacts { spec_replicas: 3, ..one() },
        FleetFacts { status_replicas: 1, ..one() },
        FleetFacts { generation_observed: false, ..one() },
        FleetFacts { out_of_sync: Some("a watch fails".into()), ..one() },
        FleetFacts { sets: vec![one().sets[0].clone(), other], ..one() },
        FleetFacts { sets: vec![SetFacts { create_failure: Some("exceeded quota".into()), ..one().sets[0].clone() }], ..one() },
        FleetFacts { pods: vec![pod("a", true), pod("b", true), PodFacts { terminating: true, ..pod("c", true) }], ..one() },
        FleetFacts { pods: vec![pod("a", true), PodFacts { ready: false, ..pod("b", true) }], ..one() },
    ] {
        assert_eq!(ask(facts.clone()), None, "{facts:?}");
    }
    let paused = Some((Stands::Paused, "paused".to_owned()));
    assert_eq!(Replacer::default().step(&one(), &[old("a")], paused, true, 0).ask, None);
    assert_eq!(Replacer::default().step(&one(), &[old("a")], None, false, 0).ask, None, "no room in the cluster");
}

#[test]
fn what_no_net_lies_under_is_left_alone_and_said() {
    let facts = fleet(vec![pod("a", false)]);
    let candidate = Candidate { net: Net::None("its worker dies on SIGTERM".into()), ..bare("a") };
    let step = Replacer::default().step(&facts, &[candidate], None, true, 0);
    assert_eq!((step.ask, step.stands), (None, Stands::LeftAlone));
    assert!(step.words.contains("pod a is left alone: its worker dies on SIGTERM"), "{}", step.words);
}

#[test]
fn a_pod_that_the_broker_does_not_tell_of_is_said_to_be_left_alone_when_that_lasts_and_asked_about_again() {
    let facts = fleet(vec![pod("a", false)]);
    let mut engine = Replacer::default();
    let (mut asks, mut said) = (0, None);
    for second in 0..90_u64 {
        let step = engine.step(&facts, &[bare("a")], None, true, second * 1_000);
        if step.stands == Stands::LeftAlone {
            said.get_or_insert(second);
        }
        if let Some(ask) = step.ask {
            asks += 1;
            engine.tried(&ask.pod_uid, Tried::Unknown("no node answers".into()), &facts, second * 1_000);
        }
    }
    assert!(said.is_some_and(|second| (40..60).contains(&second)) && asks >= 8, "{said:?} {asks}");
}

#[test]
fn a_budget_that_allows_none_is_said_and_tried_more_and_more_seldom() {
    let facts = fleet(vec![pod("a", true)]);
    let mut engine = Replacer::default();
    let mut tries = Vec::new();
    for second in 0..200_u64 {
        let step = engine.step(&facts, &[old("a")].map(|c| c), None, true, second * 1_000);
        if second > 0 {
            assert_eq!(step.stands, Stands::Budget);
            assert!(step.words.contains("PodDisruptionBudget") && step.words.contains("needs 1"), "{}", step.words);
        }
        let mut fresh = facts.clone();
        fresh.pods[0].report.as_mut().unwrap().at_ms = second * 1_000;
        if let Some(ask) = step.ask.or_else(|| engine.step(&fresh, &[old("a")], None, true, second * 1_000).ask) {
            tries.push(second);
            engine.tried(&ask.pod_uid, Tried::Budget("needs 1 healthy pod".into()), &fresh, second * 1_000);
        }
    }
    assert_eq!(tries, [0, 10, 30, 70, 130, 190]);
}

#[test]
fn a_new_pod_with_the_same_fault_stops_it() {
    let mut engine = Replacer::default();
    let before = fleet(vec![pod("a", false), pod("b", false)]);
    let ask = engine.step(&before, &[bare("a"), bare("b")], None, true, 0).ask.unwrap();
    engine.tried(&ask.pod_uid, Tried::Evicted, &before, 0);
    let after = fleet(vec![pod("b", false), pod("c", false)]);
    let candidates = [bare("b"), bare("c")];
    for second in 1..600_u64 {
        let step = engine.step(&after, &candidates, None, true, second * 1_000);
        assert_eq!((step.ask, step.stands), (None, Stands::Fruitless), "{second}");
    }
    assert!(engine.step(&after, &candidates, None, true, FRUITLESS_MS).ask.is_some(), "tried again now and then");
}

#[test]
fn after_an_upgrade_of_everything_the_cluster_replaces_no_more_than_it_may() {
    let mut budget = Budget::new(0);
    let mut taken = 0;
    for second in 0..60 {
        for _ in 0..1_000 {
            if budget.has_room(second * 1_000) {
                budget.take();
                taken += 1;
            }
        }
    }
    assert!((30..=35).contains(&taken), "{taken}");
    budget.give_back();
    assert!(budget.has_room(59_000));
}
