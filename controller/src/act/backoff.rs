//! Actions that fail again and again are tried more and more seldom, each by itself. In: what failed and what was done. Out: which actions of a
//! list wait. Left to others: performing (`apply`), what hangs on what (`apply`).

use crate::act::plan::{Action, ActionKey, Failure, ListOutcome};
use std::collections::BTreeMap;

/// The wait after the first failure, milliseconds; it doubles with each.
const FIRST_MS: u64 = 1_000;
/// The longest wait, milliseconds: a mend is noticed within a minute.
const MOST_MS: u64 = 60_000;
/// Keys remembered: beyond it those that wait for the shortest time are forgotten.
const KEYS_MAX: usize = 1_000;

/// What waits, and until when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionBackoff(BTreeMap<ActionKey, (u32, u64)>);

impl ActionBackoff {
    /// A list has ended. A change of the object since it was read is no failure: new facts come.
    pub fn heard(&mut self, outcome: &ListOutcome, now_ms: u64) {
        for (action, _) in &outcome.done {
            self.0.remove(&action.key());
        }
        for (key, failure) in &outcome.failures {
            if !matches!(failure, Failure::Other(_)) {
                continue;
            }
            let times = self.0.get(key).map_or(0, |(times, _)| *times).saturating_add(1);
            let wait = FIRST_MS.saturating_mul(1 << times.saturating_sub(1).min(16)).min(MOST_MS);
            self.0.insert(key.clone(), (times, now_ms.saturating_add(wait)));
        }
        while self.0.len() > KEYS_MAX {
            let Some(first) = self.0.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| key.clone()) else { return };
            self.0.remove(&first);
        }
    }

    /// Takes the actions out that wait, and returns them.
    pub fn hold(&self, actions: &mut Vec<Action>, now_ms: u64) -> Vec<Action> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let waits = |action: &Action| self.0.get(&action.key()).is_some_and(|(_, until)| now_ms < *until);
        let (held, free) = std::mem::take(actions).into_iter().partition(waits);
        *actions = free;
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::act::plan::{Done, PodRef};

    fn mark(uid: &str) -> Action {
        let pod = PodRef { uid: uid.into(), name: uid.into(), resource_version: "1".into() };
        Action::Mark { pod, patch: Default::default() }
    }

    fn failed(uid: &str, failure: Failure) -> ListOutcome {
        let mut outcome = ListOutcome::default();
        outcome.fail(mark(uid), failure);
        outcome
    }

    #[test]
    fn what_is_refused_for_good_waits_longer_each_time_and_nothing_else_waits_for_it() {
        let mut backoff = ActionBackoff::default();
        let (mut now, mut tries) = (0, Vec::new());
        while now < 600_000 {
            let mut list = vec![mark("a"), mark("b")];
            let held = backoff.hold(&mut list, now);
            assert!(list.contains(&mark("b")) && held.len() < 2);
            if list.contains(&mark("a")) {
                tries.push(now / 1_000);
                backoff.heard(&failed("a", Failure::Other("forbidden".into())), now);
            }
            now += 1_000;
        }
        assert_eq!(tries[..8], [0, 1, 3, 7, 15, 31, 63, 123]);
        assert!(tries.windows(2).skip(6).all(|w| w[1] - w[0] == 60));
        backoff.heard(&ListOutcome { done: vec![(mark("a"), Done::Yes)], ..ListOutcome::default() }, now);
        assert!(backoff.hold(&mut vec![mark("a")], now).is_empty());
    }

    #[test]
    fn an_object_that_changed_is_tried_again_at_once() {
        let mut backoff = ActionBackoff::default();
        backoff.heard(&failed("a", Failure::Changed { qworker: false }), 0);
        assert!(backoff.hold(&mut vec![mark("a")], 1).is_empty());
    }
}
