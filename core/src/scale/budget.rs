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

/// Pods per second in the long run that workloads without figures may ask for together: a thousand are there within four minutes.
const DARK_PER_S: f64 = 5.0;
/// The same at once: one or two workloads are not held back.
const DARK_BURST: f64 = 50.0;

/// What workloads whose broker is silent may ask for, over the whole cluster. Each of them allows for a rise of its load; one broker that is down for
/// a thousand is no thousand rises, and their pods could not work either.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DarkBudget {
    left: f64,
    at_ms: u64,
}

impl DarkBudget {
    /// All of it.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self { left: DARK_BURST, at_ms: now_ms }
    }

    /// How many pods each gets now of what it asks for.
    pub fn share(&mut self, asks: &[u32], now_ms: u64) -> Vec<u32> {
        let elapsed_s = now_ms.saturating_sub(self.at_ms) as f64 / 1000.0;
        self.at_ms = self.at_ms.max(now_ms);
        self.left = (self.left + elapsed_s * DARK_PER_S).min(DARK_BURST);
        let given = share(asks, self.left as u32);
        self.left -= given.iter().map(|n| f64::from(*n)).sum::<f64>();
        given
    }
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

    #[test]
    fn a_broker_that_is_down_for_a_thousand_workloads_starts_no_thousand_fleets_at_once() {
        let mut budget = DarkBudget::new(0);
        let asked: Vec<u32> = (0..10).map(|second| budget.share(&[3; 1_000], second * 1_000).iter().sum()).collect();
        assert_eq!(asked, [50, 5, 5, 5, 5, 5, 5, 5, 5, 5]);
        assert_eq!(DarkBudget::new(0).share(&[12, 1], 0), [12, 1], "two are not held back");
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
