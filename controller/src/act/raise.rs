//! How far a list of actions raises a fleet. In: a list; how many pods were given. Out: their number; the list with no more than that. Left to others: how
//! many are given (`core::scale::budget`).

use crate::act::apply::tells_of_scaling;
use crate::act::plan::Action;

/// Bounds a raise to what was given; nothing given: it is asked for again at the next look, and not told before.
pub(crate) fn bound_raise(plan: &mut Vec<Action>, given: u32) {
    for action in plan.iter_mut() {
        if let Action::Scale { from, to, .. } = action {
            *to = (*to).min(from.saturating_add(given));
        }
    }
    let raised = |action: &Action| matches!(action, Action::Scale { from, to, .. } if to > from);
    if !plan.iter().any(raised) {
        plan.retain(|action| !matches!(action, Action::Scale { .. }) && !tells_of_scaling(action));
    }
}

/// By how many pods a list raises a fleet.
pub(crate) fn raise(plan: &[Action]) -> u32 {
    plan.iter().find_map(|a| if let Action::Scale { from, to, .. } = a { to.checked_sub(*from) } else { None }).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::act::plan::Notice;
    use qscaler_core::names::event;
    use serde_json::json;

    #[test]
    fn a_raise_without_figures_is_bounded_by_what_is_given_and_not_told_when_nothing_is() {
        let list = || {
            let raise = Action::Scale { resource_version: "1".into(), from: 48, to: 60 };
            vec![raise, Action::Event(Notice::normal(event::SCALED_UP, "48 -> 60")), Action::Status(json!({}))]
        };
        for (given, raised, left) in [(20, 12, 3), (5, 5, 3), (0, 0, 1)] {
            let mut plan = list();
            bound_raise(&mut plan, given);
            assert_eq!((raise(&plan), plan.len()), (raised, left), "{given}");
        }
    }
}
