//! How far a list of actions raises a fleet. In: a list; how many pods were given. Out: their number; the list with no more than that. Left to others: how
//! many are given (`core::scale::budget`).

use crate::act::apply::tells_of_scaling;
use crate::act::plan::Action;
use crate::words::replicas;

/// Bounds a raise to what was given; nothing given: it is asked for again at the next look, and not told before. What is told is what is done.
pub(crate) fn bound_raise(plan: &mut Vec<Action>, given: u32) {
    let wanted = plan.iter_mut().find_map(|action| {
        let Action::Scale { from, to, .. } = action else { return None };
        let (from, wanted) = (*from, *to);
        (wanted > from).then(|| {
            *to = wanted.min(from.saturating_add(given));
            (from, wanted, *to)
        })
    });
    let Some((from, wanted, to)) = wanted.filter(|(from, _, to)| to > from) else {
        plan.retain(|action| !matches!(action, Action::Scale { .. }) && !tells_of_scaling(action));
        return;
    };
    if to == wanted {
        return;
    }
    for action in plan.iter_mut().filter(|action| tells_of_scaling(action)) {
        if let Action::Event(notice) = action
            && let Some(why) = notice.note.strip_prefix(&replicas(from, wanted))
        {
            notice.note =
                format!("{}, of {wanted} wanted (while figures are missing, raises of all workloads share a budget){why}", replicas(from, to));
        }
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
            vec![raise, Action::Event(Notice::normal(event::SCALED_UP, format!("{}: why", replicas(48, 60)))), Action::Status(json!({}))]
        };
        for (given, raised, left) in [(20, 12, 3), (5, 5, 3), (0, 0, 1)] {
            let mut plan = list();
            bound_raise(&mut plan, given);
            assert_eq!((raise(&plan), plan.len()), (raised, left), "{given}");
            let told = plan.iter().find_map(|action| if let Action::Event(notice) = action { Some(notice.note.as_str()) } else { None });
            let begins = told.map(|note| note.starts_with(&format!("replicas 48 -> {}", 48 + raised)) && note.ends_with(": why"));
            assert_eq!(begins, (given > 0).then_some(true), "an Event tells of another raise than is made: {told:?}");
        }
    }
}
