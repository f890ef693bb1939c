//! The small settings, and every planted mistake. The large ones: `cargo xtask model`.

use qscaler_model::container::{RULES, Shape, Slip, explore};
use qscaler_model::{INVARIANTS, Mutation, Setting, check};

#[test]
fn every_state_of_the_small_settings_keeps_every_invariant() {
    for setting in Setting::quick() {
        let answer = check(setting);
        assert!(answer.broken.is_empty(), "{}: {:#?}", answer.name, answer.broken);
        assert!(answer.states > 1_000, "{}: {} states: nothing happened", answer.name, answer.states);
    }
}

#[test]
fn every_planted_mistake_is_noticed_by_its_invariant() {
    for mutation in Mutation::ALL {
        assert!(INVARIANTS.iter().any(|(name, _)| *name == mutation.caught_by()), "{mutation:?}");
        let answer = check(mutation.setting());
        assert!(answer.broken.iter().any(|(name, _)| *name == mutation.caught_by()), "{mutation:?}: {:#?}", answer.broken);
    }
}

#[test]
fn in_every_shape_of_container_no_task_is_cut_and_every_hold_ends() {
    for shape in Shape::ALL {
        let found = explore(*shape, None);
        assert!(found.broken.is_none(), "{shape:?}: {:#?}", found.broken);
        assert!(found.states > 20, "{shape:?}: {} states: nothing happened", found.states);
    }
}

#[test]
fn every_mistake_of_a_hold_is_noticed_by_its_rule() {
    for (slip, shape, rule) in Slip::ALL {
        assert!(RULES.iter().any(|(name, _)| name == rule));
        let found = explore(*shape, Some(*slip));
        assert_eq!(found.broken.as_ref().map(|(name, _)| *name), Some(*rule), "{slip:?}: {:#?}", found.broken);
    }
}
