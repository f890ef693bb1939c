//! Comes in: how long pods took to start, how long starting ones have waited. Goes out: the start latency to expect. Leaves to others: pod watching.

use serde::{Deserialize, Serialize};

use super::numeric::{decay, normal_cdf, sane, within};

/// Half-life in starts: new nodes and new images show within a few dozen.
const HALF_LIFE_STARTS: f64 = 30.0;
/// Least spread as a share of the mean, so that two equal starts don't look like a law of nature.
const SPREAD_MIN: f64 = 0.1;
/// Spread before anything is known, as a share of the hint.
const SPREAD_HINT: f64 = 0.3;
/// Bounds of the mean, seconds: below, no poll sees it; above, a pod is stuck rather than slow.
const BOUNDS_S: (f64, f64) = (0.1, 1800.0);
/// A pod that has been starting for this many times the mean, and for [`BROKEN_S`], is broken rather than slow: it says nothing of the next one.
const BROKEN_MEANS: f64 = 10.0;
/// Seconds; see [`BROKEN_MEANS`].
const BROKEN_S: f64 = 300.0;
/// A pod late already is expected to take at least this share of the mean still.
const LATE_SHARE: f64 = 0.1;

/// The start latency `L`, seconds from asking for a pod to its first task: mean and deviation with exponential forgetting per start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StartLatency {
    weight: f64,
    sum: f64,
    squares: f64,
}

/// What is believed of the start latency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatencyEstimate {
    /// Mean, seconds.
    pub mean_s: f64,
    /// Standard deviation, seconds.
    pub sd_s: f64,
}

impl StartLatency {
    /// One pod took `latency_s` to start.
    pub fn started(&mut self, latency_s: f64) {
        let Some(value) = Some(latency_s).filter(|value| value.is_finite() && *value >= 0.0) else {
            return;
        };
        let (value, keep) = (within(value, BOUNDS_S.0, BOUNDS_S.1), decay(1.0, HALF_LIFE_STARTS));
        self.weight = self.weight * keep + 1.0;
        self.sum = self.sum * keep + value;
        self.squares = self.squares * keep + value * value;
    }

    /// What to believe now; the hint counts as one start, and pods that are late already count with their age.
    pub fn estimate(&self, hint_s: f64, starting_s: &[f64]) -> LatencyEstimate {
        let hint = within(sane(hint_s, 10.0), BOUNDS_S.0, BOUNDS_S.1);
        let (mut weight, mut sum, mut squares) =
            if self.weight > 0.0 { (self.weight, self.sum, self.squares) } else { (1.0, hint, hint * hint * (1.0 + SPREAD_HINT * SPREAD_HINT)) };
        let mean = sum / weight;
        for age in starting_s.iter().filter(|age| **age > mean && **age <= BROKEN_S.max(BROKEN_MEANS * mean)) {
            let age = age.min(BOUNDS_S.1);
            weight += 1.0;
            sum += age;
            squares += age * age;
        }
        let mean = within(sum / weight, BOUNDS_S.0, BOUNDS_S.1);
        let sd = (squares / weight - mean * mean).max(0.0).sqrt().max(SPREAD_MIN * mean);
        LatencyEstimate { mean_s: mean, sd_s: sd }
    }
}

impl LatencyEstimate {
    /// Probability that a pod asked for now takes longer than `limit_s`.
    pub fn exceeds(&self, limit_s: f64) -> f64 {
        1.0 - normal_cdf((limit_s - self.mean_s) / self.sd_s)
    }

    /// Seconds a pod that has been starting for `age_s` still needs.
    pub fn remaining_s(&self, age_s: f64) -> f64 {
        (self.mean_s - sane(age_s, 0.0)).max(LATE_SHARE * self.mean_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_holds_until_a_pod_has_started() {
        let mut latency = StartLatency::default();
        assert_eq!(latency.estimate(10.0, &[]).mean_s, 10.0);
        latency.started(4.0);
        assert_eq!(latency.estimate(10.0, &[]).mean_s, 4.0);
    }

    #[test]
    fn late_pods_raise_the_expectation() {
        let mut latency = StartLatency::default();
        latency.started(4.0);
        assert!(latency.estimate(10.0, &[60.0, 60.0]).mean_s > 30.0);
    }

    #[test]
    fn a_late_pod_is_never_due_at_once() {
        let estimate = LatencyEstimate { mean_s: 10.0, sd_s: 1.0 };
        assert_eq!(estimate.remaining_s(4.0), 6.0);
        assert_eq!(estimate.remaining_s(400.0), 1.0);
        assert!(estimate.exceeds(30.0) < 1e-6 && estimate.exceeds(10.0) > 0.49 && estimate.exceeds(1.0) > 0.99);
    }
}
