//! Comes in: what a run came to, and the optimum. Goes out: one number per run, and means of them. Leaves to others: running.

use serde::{Deserialize, Serialize};

use crate::optimum::Optimum;
use crate::world::Outcome;

/// Pods that one share of late messages is worth: one percent late weighs as ten percent more pods.
pub const MISS_WEIGHT: f64 = 10.0;

/// A run, judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Share of late messages.
    pub miss: f64,
    /// Pod-seconds over those of the optimum.
    pub pods: f64,
    /// `pods + 10 (miss - miss of the optimum)+`.
    pub j: f64,
    /// Tasks cut, per 1000.
    pub cut_per_1000: f64,
    /// Pods started, per 1000 tasks.
    pub starts_per_1000: f64,
    /// 95th percentile of the wait, seconds.
    pub wait_p95_s: f64,
}

impl Score {
    /// Judges one run.
    pub fn of(outcome: &Outcome, optimum: &Optimum) -> Self {
        let per_1000 = |count: u64| count as f64 * 1000.0 / outcome.tasks.max(1) as f64;
        let pods = outcome.pod_seconds / optimum.pod_seconds;
        Self {
            miss: outcome.miss(),
            pods,
            j: pods + MISS_WEIGHT * (outcome.miss() - optimum.miss).max(0.0),
            cut_per_1000: per_1000(outcome.interrupted),
            starts_per_1000: per_1000(outcome.starts),
            wait_p95_s: quantile(&outcome.waits_s, 0.95),
        }
    }

    /// With a wait that a file can hold: work that was never done waits for ever.
    #[must_use]
    pub fn finite(self) -> Self {
        Self { wait_p95_s: self.wait_p95_s.min(f64::MAX), ..self }
    }

    /// Mean of several runs, field by field.
    pub fn mean(scores: &[Self]) -> Self {
        let mean = |field: fn(&Self) -> f64| scores.iter().map(field).sum::<f64>() / scores.len().max(1) as f64;
        Self {
            miss: mean(|score| score.miss),
            pods: mean(|score| score.pods),
            j: mean(|score| score.j),
            cut_per_1000: mean(|score| score.cut_per_1000),
            starts_per_1000: mean(|score| score.starts_per_1000),
            wait_p95_s: mean(|score| score.wait_p95_s),
        }
    }
}

/// Geometric mean; 0 of nothing.
pub fn geometric_mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = values.into_iter().fold((0.0, 0.0), |(sum, count), value| (sum + value.ln(), count + 1.0));
    if count > 0.0 { (sum / count).exp() } else { 0.0 }
}

/// Quantile by nearest rank; 0 of nothing. Waits that never ended count as the longest.
pub fn quantile(waits_s: &[f32], q: f64) -> f64 {
    let mut sorted = waits_s.to_vec();
    let at = ((sorted.len().saturating_sub(1)) as f64 * q).round() as usize;
    if sorted.is_empty() {
        return 0.0;
    }
    f64::from(*sorted.select_nth_unstable_by(at, f32::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_quantiles_are_the_usual_ones() {
        assert!((geometric_mean([1.0, 4.0]) - 2.0).abs() < 1e-12);
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn late_messages_weigh_beyond_those_of_the_optimum() {
        let outcome = Outcome { tasks: 100, missed: 5, pod_seconds: 200.0, ..Outcome::default() };
        let score = Score::of(&outcome, &Optimum { pod_seconds: 100.0, miss: 0.02 });
        assert!((score.j - 2.3).abs() < 1e-9);
    }
}
