//! The small settings, and every planted mistake. The large ones: `cargo xtask model`.

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
