//! What the drain is asked for, and when it waits or keeps who has parked.

use super::*;

#[test]
fn a_decision_that_only_holds_starts_no_pod_in_place_of_one_that_left_and_one_that_raises_does() {
    // The law said no more than the five that were there; one has parked since.
    assert_eq!(desired(true, Some(5), 5, 5, 1), 4);
    assert_eq!(desired(true, Some(7), 5, 5, 1), 7);
    assert_eq!(desired(true, Some(2), 5, 5, 0), 2);
    assert_eq!(desired(true, None, 5, 3, 0), 3, "nothing was decided: no more than are asked for");
    assert_eq!(desired(false, Some(7), 5, 5, 0), 5, "raising is paused");
}

#[test]
fn a_pod_that_was_asked_and_is_not_ready_any_more_is_waited_for_until_reports_came_in() {
    let facts = fleet(vec![PodFacts { ready: false, ..pod("a") }, pod("b")]);
    let mut silent = Silent::default();
    assert!(!silent.wait(&facts, false, 0, 10_000), "nobody was asked");
    assert!(silent.wait(&facts, true, 9_000, 10_000));
    assert!(silent.wait(&facts, true, 10_000, 11_000), "those reports may be older than its word");
    assert!(!silent.wait(&facts, true, 10_500, 11_000), "fetched since");
    assert!(!silent.wait(&facts, true, 9_000, 15_000), "not for ever");
}

#[test]
fn in_a_trial_of_fewer_pods_those_who_park_stay_and_the_drain_knows_it() {
    let mut machine = Later(FleetMachine::new(settings()));
    machine.keep_parked(true);
    let facts = fleet(vec![marked("a"), pod("b")]);
    for at_ms in [0, 100, 20_000] {
        let step = machine.step(&facts, 1, at_ms);
        assert_eq!((scaled_to(&step), step.phase), (None, Phase::Settling), "at {at_ms}");
    }
    assert_eq!(machine.step(&facts, 2, 20_100).phase, Phase::Resuming, "called back");
    machine.keep_parked(false);
    assert_eq!(scaled_to(&machine.step(&facts, 1, 20_200)), Some(1));
}

#[test]
fn what_waits_for_a_word_is_looked_at_soon_and_the_rest_when_it_wants_to_be() {
    for phase in [Phase::Asking, Phase::Marking, Phase::Echo, Phase::Resuming] {
        assert_eq!(look_again(&phase, Some(90_000), 1_000), Some(1_250), "{phase:?}");
    }
    assert_eq!((look_again(&Phase::Idle, Some(90_000), 1_000), look_again(&Phase::Settling, None, 1_000)), (Some(90_000), None));
}
