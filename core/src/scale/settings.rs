//! What the law is given of one workload. In: the user's configuration; pods that are there to take over from others. Out: the law's configuration; the fleet
//! that it may count on. Left to others: the law (`decide`), watching pods (`controller`).

use super::{FleetSample, LawParams, Rule, ScaleConfig, ScaleDecision};
use crate::config::WorkerConfig;

impl ScaleConfig {
    /// By the user's words.
    #[must_use]
    pub fn of(config: &WorkerConfig) -> Self {
        Self {
            messages_per_worker: config.messages_per_worker,
            concurrency: config.concurrency,
            acknowledges_early: config.framework().acknowledges_early,
            law: LawParams::optimized_for(config.optimize_for),
            ..Self::new(config.min_replicas, config.max_replicas, config.max_wait_ms as f64 / 1000.0)
        }
    }
}

impl ScaleDecision {
    /// Whether the law may have learned something since this decision and the one before: an empty queue beside a fleet at rest teaches nothing.
    #[must_use]
    pub fn teaches(&self, before: Option<&Self>) -> bool {
        self.rule != Rule::Idle || before.is_some_and(|before| before.rule != Rule::Idle)
    }
}

impl FleetSample {
    /// Without `n` pods that are there only to take over from pods on cordoned nodes: they are no capacity to be kept. Those that are least far go first.
    #[must_use]
    pub fn without_replacements(mut self, mut n: u32) -> Self {
        self.spec_replicas = self.spec_replicas.saturating_sub(n);
        let mut take = |from: &mut u32| {
            let taken = n.min(*from);
            *from -= taken;
            n -= taken;
        };
        take(&mut self.pending_unschedulable);
        let mut starting = u32::try_from(self.starting.len()).unwrap_or(u32::MAX);
        take(&mut starting);
        // The youngest are the replacements.
        self.starting.sort_by(|a, b| b.total_cmp(a));
        self.starting.truncate(starting as usize);
        take(&mut self.restarting);
        take(&mut self.ready);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_for_a_pod_on_a_cordoned_node_is_no_capacity_to_the_law() {
        let fleet = FleetSample { spec_replicas: 5, ready: 3, starting: vec![60.0, 1.0], ..FleetSample::default() };
        let seen = fleet.clone().without_replacements(1);
        assert_eq!((seen.spec_replicas, seen.ready, seen.starting), (4, 3, vec![60.0]), "the youngest");
        let seen = fleet.clone().without_replacements(3);
        assert_eq!((seen.spec_replicas, seen.ready, seen.starting.len()), (2, 2, 0));
        assert_eq!(fleet.clone().without_replacements(0), fleet);
    }
}
