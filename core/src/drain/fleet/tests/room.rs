//! The fleet where pods find no room: cordoned nodes, quotas, full clusters, rollouts.

use super::*;

#[test]
fn idle_pods_on_a_cordoned_node_are_named() {
    let mut pods = open_pods(3);
    pods[2].node_cordoned = true;
    let step = step(&fleet(pods), 2);
    assert!(matches!(&step.effects[1], F::Publish(m) if m.target.as_deref() == Some("uid-p2")), "{:?}", step.effects);
}

fn on_a_cordoned_node(pod: PodFacts) -> PodFacts {
    PodFacts { node_cordoned: true, ..pod }
}

#[test]
fn a_pod_on_a_cordoned_node_is_replaced_first_and_drained_by_name_then() {
    let mut machine = Later(FleetMachine::new(settings()));
    let old = || on_a_cordoned_node(pod("old"));
    assert_eq!(scaled_to(&machine.step(&fleet(vec![pod("a"), old()]), 2, 0)), Some(3));
    assert_eq!(machine.step(&fleet(vec![pod("a"), old(), starting("new")]), 2, 100).effects, []);
    let asking = machine.step(&fleet(vec![pod("a"), old(), pod("new")]), 2, 200);
    assert!(matches!(&asking.effects[1], F::Publish(m) if m.target.as_deref() == Some("uid-old")), "{:?}", asking.effects);
    assert_eq!(tokens(&asking), 1);
    let gone = machine.step(&fleet(vec![pod("a"), on_a_cordoned_node(marked("old")), pod("new")]), 2, 300);
    assert_eq!(scaled_to(&gone), Some(2));
    assert_eq!(machine.step(&fleet(vec![pod("a"), pod("new")]), 2, 400).effects, []);
}

#[test]
fn a_busy_pod_on_a_cordoned_node_is_waited_for_and_no_other_goes_for_it() {
    let mut machine = Later(FleetMachine::new(settings()));
    let old = || on_a_cordoned_node(PodFacts { report: Some(report(WorkerState::Open, Busy::Busy)), ..pod("old") });
    machine.step(&fleet(vec![pod("a"), old()]), 2, 0);
    let waiting = machine.step(&fleet(vec![pod("a"), old(), pod("new")]), 2, 100);
    assert_eq!((waiting.effects, waiting.phase), (vec![], Phase::Settling));
    assert_eq!(tokens(&machine.step(&fleet(vec![pod("a"), old(), pod("new")]), 1, 200)), 1, "one is not needed in any case");
}

#[test]
fn where_no_replacement_can_start_nothing_goes_and_the_end_of_the_cordon_takes_it_back() {
    let mut machine = Later(FleetMachine::new(settings()));
    machine.step(&fleet(vec![on_a_cordoned_node(pod("a"))]), 1, 0);
    let pending = fleet(vec![on_a_cordoned_node(pod("a")), starting("new")]);
    for now_ms in [1_000, 60_000, 600_000] {
        assert_eq!(
            machine
                .step(
                    &fleet(vec![
                        on_a_cordoned_node(PodFacts {
                            report: Some(ReportFacts { at_ms: now_ms, ..report(WorkerState::Open, Busy::Idle) }),
                            ..pod("a")
                        }),
                        starting("new")
                    ]),
                    1,
                    now_ms
                )
                .effects,
            [],
            "{pending:?}"
        );
    }
    let back = machine.step(
        &fleet(vec![PodFacts { report: Some(ReportFacts { at_ms: 600_000, ..report(WorkerState::Open, Busy::Idle) }), ..pod("a") }, starting("new")]),
        1,
        600_100,
    );
    assert_eq!(scaled_to(&back), Some(1));
}

fn of(set_uid: &str, pod: PodFacts) -> PodFacts {
    PodFacts { set_uid: set_uid.into(), ..pod }
}

fn unschedulable(name: &str) -> PodFacts {
    PodFacts { scheduled: false, unschedulable: true, ..starting(name) }
}

/// A quota of two pods and no surge: raised to five in a rollout, the old version has two of its four pods and the new one can never be created.
fn full_by_quota() -> FleetFacts {
    let refused = Some("pods \"orders-2-x\" is forbidden: exceeded quota: two".to_owned());
    FleetFacts {
        spec_replicas: 5,
        status_replicas: 2,
        max_surge: Some(Amount::Pods(0)),
        sets: vec![
            SetFacts { max_replicas: Some(5), ..set("old", 4) },
            SetFacts { revision: 2, max_replicas: Some(5), create_failure: refused, ..set("new", 1) },
        ],
        ..fleet(vec![of("old", pod("a")), of("old", pod("b"))])
    }
}

#[test]
fn what_a_rollout_cannot_create_is_let_go_and_no_pod_with_a_worker_with_it() {
    let mut machine = Later(FleetMachine::new(settings()));
    let let_go = machine.step(&full_by_quota(), 1, 0);
    assert_eq!((scaled_to(&let_go), let_go.phase), (Some(2), Phase::Lowering), "the lowest count under which both old pods stay");
    // In the proportions of that count the busy ones of another spread would be hit: nothing goes.
    let mut facts = full_by_quota();
    facts.sets[0].spec_replicas = 1;
    facts.sets[1].spec_replicas = 4;
    assert_eq!(scaled_to(&machine.step(&facts, 1, 100)), None, "the old version has more pods than its part already");
}

#[test]
fn a_rollout_that_finds_no_room_is_not_given_more_pods_and_says_why() {
    let mut machine = Later(FleetMachine::new(settings()));
    let full = machine.step(&full_by_quota(), 5, 0);
    assert_eq!(scaled_to(&full), Some(2), "what waits in vain keeps the rollout from its own pods");
    assert!(full.not_raised.as_deref().is_some_and(|why| why.contains("exceeded quota") && why.contains("rollout")), "{:?}", full.not_raised);
    // The rollout goes on: one old pod ends, and nothing is refused at this moment. Raised again, it would be where it was.
    let mut going = FleetFacts {
        spec_replicas: 2,
        max_surge: Some(Amount::Pods(0)),
        sets: vec![set("old", 1), SetFacts { revision: 2, ..set("new", 1) }],
        ..fleet(vec![])
    };
    going.pods = vec![of("old", pod("a")), of("old", PodFacts { terminating: true, ..pod("b") })];
    let step = machine.step(&going, 5, 60_000);
    assert!(scaled_to(&step).is_none() && step.not_raised.is_some(), "{step:?}");
    let over = fleet(vec![of("new", pod("c")), of("new", pod("d"))]);
    let step = machine.step(&over, 5, 90_000);
    assert_eq!((scaled_to(&step), step.not_raised), (Some(5), None), "the rollout is over");
}

#[test]
fn a_pod_that_found_no_node_for_minutes_is_let_go_in_a_rollout_in_place_of_a_raise() {
    for (age_ms, raised) in [(0, Some(9)), (LATER_MS, Some(2))] {
        let waits = PodFacts { created_ms: LATER_MS - age_ms, ..of("new", unschedulable("n")) };
        let facts = FleetFacts { sets: rollout(), ..fleet(vec![of("set", pod("a")), of("set", pod("b")), waits]) };
        assert_eq!(scaled_to(&step(&facts, 9)), raised, "{age_ms}");
    }
}

#[test]
fn pods_that_found_no_node_go_in_a_rollout_and_beside_a_pod_without_sidecar() {
    let pods = vec![of("old", pod("a")), of("old", unschedulable("b")), of("old", unschedulable("c")), of("new", unschedulable("n"))];
    let sets = vec![SetFacts { max_replicas: Some(4), ..set("old", 3) }, SetFacts { revision: 2, max_replicas: Some(4), ..set("new", 1) }];
    let facts = FleetFacts { spec_replicas: 3, status_replicas: 4, sets, ..fleet(pods) };
    assert_eq!(scaled_to(&step(&facts, 1)), Some(1));
    let bare = PodFacts { injected: false, report: None, ..pod("a") };
    assert_eq!(scaled_to(&step(&fleet(vec![bare, unschedulable("b")]), 1)), Some(1));
    // One that starts, and one that has run and is not ready, would be taken before or with it.
    let slow = PodFacts { created_ms: LATER_MS, scheduled: false, ..starting("s") };
    let bare = PodFacts { injected: false, report: None, ..pod("a") };
    assert_eq!(scaled_to(&step(&fleet(vec![bare, unschedulable("b"), slow]), 1)), None);
}

#[test]
fn a_pod_that_is_counted_and_not_listed_yet_may_be_at_work_and_is_not_let_go_beside_a_pod_without_sidecar() {
    // One pod has just gone, and what replaces it is in the count before it is in the list: it may be Ready by the time that the count falls, and then the
    // ReplicaSet takes whichever it likes, the one without a hold too.
    let bare = PodFacts { injected: false, report: None, ..pod("a") };
    let listed = vec![bare, pod("b"), pod("c")];
    let facts = FleetFacts { spec_replicas: 4, status_replicas: 4, sets: vec![set("set", 4)], ..fleet(listed.clone()) };
    assert_eq!(scaled_to(&step(&facts, 1)), None);
    let facts = FleetFacts { spec_replicas: 4, status_replicas: 3, sets: vec![set("set", 4)], ..fleet(listed) };
    assert_eq!(scaled_to(&step(&facts, 1)), Some(3), "what was never created may go");
}

#[test]
fn what_the_user_asked_for_stays_until_its_pods_had_a_chance() {
    let new = |pods: Vec<PodFacts>| {
        let mut facts = fleet(pods);
        facts.sets = vec![SetFacts { created_ms: LATER_MS, ..set("set", 3) }];
        (facts.spec_replicas, facts.status_replicas) = (3, u32::try_from(facts.pods.len()).unwrap());
        facts
    };
    let young = |name: &str| PodFacts { created_ms: LATER_MS, ..starting(name) };
    let mut machine = Later(FleetMachine::new(settings()));
    for (pods, now_ms) in [(vec![], 100), (vec![young("a"), young("b"), young("c")], 5_000), (vec![pod("a"), pod("b"), young("c")], 30_000)] {
        assert_eq!(machine.step(&new(pods), 1, now_ms).effects, [], "at {now_ms}");
    }
    // All have been Ready and heard of: those that are idle may be asked.
    assert_eq!(tokens(&machine.step(&new(open_pods(3)), 1, 40_000)), 1);
    // One that never becomes Ready is not waited for without end.
    assert_eq!(scaled_to(&machine.step(&new(vec![pod("a"), pod("b"), young("c")]), 2, 130_000)), Some(2));
}

#[test]
fn never_above_the_maximum_for_a_replacement_neither() {
    let most = |max_replicas| Later(FleetMachine::new(FleetSettings { max_replicas, ..settings() }));
    assert_eq!(scaled_to(&most(4).step(&fleet(open_pods(2)), 9, 0)), Some(4));
    let cordoned = || fleet(vec![pod("a"), on_a_cordoned_node(pod("b")), pod("c"), pod("d")]);
    assert_eq!(scaled_to(&most(4).step(&cordoned(), 4, 0)), None, "4 -> 5 would be above it");
    assert_eq!(scaled_to(&most(5).step(&cordoned(), 4, 0)), Some(5));
}
