//! Comes in: how many pods each workload asks for at one moment, and how many may be asked for by all together. Goes out: how many each gets. Leaves to
//! others: time, and who asks first when not even one each is left.

/// Shares `budget` pods out among `asks`, fairly: nobody gets more than it asks for, and what some do not need is shared among the rest, so that one
/// workload that asks for thousands keeps nobody from his first pod (max-min fairness). Where fewer pods than workloads remain, those at the front
/// get them: the caller turns the order. Time and memory grow with the number of asks.
#[must_use]
pub fn share(asks: &[u32], budget: u32) -> Vec<u32> {
    let mut order: Vec<usize> = (0..asks.len()).collect();
    order.sort_by_key(|at| asks[*at]);
    let (mut given, mut left, mut among) = (vec![0; asks.len()], budget, asks.len() as u32);
    for at in &order {
        let fair = left / among.max(1);
        if asks[*at] > fair {
            break;
        }
        given[*at] = asks[*at];
        left -= asks[*at];
        among -= 1;
    }
    let (fair, mut over) = (left / among.max(1), left % among.max(1));
    for at in 0..asks.len() {
        if asks[at] > given[at] {
            given[at] = fair + u32::from(over > 0);
            over = over.saturating_sub(1);
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_asks_are_met_and_large_ones_share_the_rest() {
        assert_eq!(share(&[1000, 1, 2, 1000], 23), [10, 1, 2, 10]);
        assert_eq!(share(&[5, 5, 5], 100), [5, 5, 5]);
        assert_eq!(share(&[5, 5, 5], 2), [1, 1, 0]);
        assert_eq!(share(&[], 7), Vec::<u32>::new());
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_he_asks_and_nothing_is_left_while_anybody_lacks(asks in proptest::collection::vec(0u32..300, 0..40), budget in 0u32..3000) {
            let given = share(&asks, budget);
            prop_assert!(given.iter().zip(&asks).all(|(given, ask)| given <= ask));
            let (wished, spent) = (asks.iter().sum::<u32>(), given.iter().sum::<u32>());
            prop_assert_eq!(spent, wished.min(budget));
            let least = given.iter().zip(&asks).filter(|(given, ask)| given < ask).map(|(given, _)| *given).min();
            prop_assert!(given.iter().all(|given| least.is_none_or(|least| *given <= least + 1)), "{:?} of {:?}", given, asks);
        }
    }
}
