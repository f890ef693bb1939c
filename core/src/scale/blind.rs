//! What the law is asked with while the queues cannot be measured. In: when figures last came, when the law was last asked. Out: samples of which nothing is
//! known but their age, or that it is not asked now. Left to others: what follows from unknown figures (`stale`), measuring (`controller`).

use super::QueueSample;

/// The law is asked at least this often while there are no figures, milliseconds.
pub const PERIOD_MS: u64 = 1_000;
/// A broker that has failed for less than this only stops lowering; after it the law is told that the figures are unknown, milliseconds.
const BLIND_AFTER_MS: u64 = 5_000;

/// Where the figures of a workload's queues stand. Times by the controller's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// The last try to measure has failed.
    pub failing: bool,
    /// When the last one came.
    pub good_ms: u64,
    /// When the law was last asked.
    pub asked_ms: u64,
}

impl Figures {
    /// The samples of so many queues that stand in for what does not come; None: the law is not asked now.
    #[must_use]
    pub fn instead(&self, queues: usize, now_ms: u64) -> Option<Vec<QueueSample>> {
        let blind = self.failing && now_ms >= self.good_ms.saturating_add(BLIND_AFTER_MS);
        let due = now_ms >= self.asked_ms.saturating_add(PERIOD_MS);
        let age_s = now_ms.saturating_sub(self.good_ms) as f64 / 1000.0;
        (blind && due).then(|| vec![QueueSample { age_s, ..QueueSample::default() }; queues])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_fails_for_a_moment_is_no_reason_to_ask_and_one_that_goes_on_failing_is_once_a_second() {
        let figures = Figures { failing: true, good_ms: 10_000, asked_ms: 10_000 };
        assert_eq!(figures.instead(2, 14_999), None);
        let samples = figures.instead(2, 15_000).unwrap();
        assert_eq!((samples.len(), samples[0].age_s, samples[0].ready), (2, 5.0, None));
        assert_eq!(Figures { asked_ms: 15_000, ..figures }.instead(2, 15_999), None);
        assert!(Figures { asked_ms: 15_000, ..figures }.instead(2, 16_000).is_some());
        assert_eq!(Figures { failing: false, ..figures }.instead(2, 60_000), None, "figures are on their way");
    }
}
