//! A policy like that of the Vertical Pod Autoscaler's recommender. In: peaks and kills. Out: a limit. Left to others: how the real one
//! actuates (it is given more than it has: true peaks instead of polls, and its limit in force at once).
//!
//! Source of the numbers: the documented defaults of kubernetes/autoscaler vertical-pod-autoscaler (flags.md; aggregations_config.go,
//! container.go): histogram with exponential buckets, half-life 24 h, 90th percentile, +15 %; an OOM kill is a sample of
//! `max(1.2 x, + 100 MiB)` of the request or the peak, whichever is larger. The floor of 250 MB per pod is left out.

use super::sizer::{Seen, Sizer};
use super::{DAY_S, MIB};
use std::collections::BTreeMap;

/// Size of the first bucket, bytes.
const FIRST_BUCKET: f64 = 1e7;
/// Each bucket is larger than the one before by this ratio.
const RATIO: f64 = 1.05;
/// Buckets up to 1 TB.
const BUCKETS: usize = 176;
/// Half-life of a sample, seconds.
const HALF_LIFE_S: f64 = DAY_S;
/// Safety margin.
const MARGIN: f64 = 1.15;

/// What makes a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// Each task: the recommender with the knowledge of ours.
    SizedTask,
    /// The peak of each pod in each 24 h, as the real one aggregates.
    PodDay,
}

/// The policy.
#[derive(Clone, Debug)]
pub struct VpaLike {
    weights: Vec<f64>,
    sampling: Sampling,
    /// Peak of the current interval of each pod: end of the interval, peak.
    intervals: BTreeMap<u64, (f64, u64)>,
    percentile: f64,
    start: u64,
    cap: u64,
}

impl VpaLike {
    /// The policy from the template's limit `start`, at most `cap`, bytes. The real one's percentile is 0.9.
    #[must_use]
    pub fn new(start: u64, cap: u64, sampling: Sampling, percentile: f64) -> Self {
        Self { weights: vec![0.0; BUCKETS], sampling, intervals: BTreeMap::new(), percentile, start, cap }
    }

    fn add(&mut self, bytes: u64, at_s: f64, sign: f64) {
        let weight = sign * (at_s / HALF_LIFE_S).exp2();
        let w = &mut self.weights[bucket(bytes)];
        *w = (*w + weight).max(0.0);
    }

    fn sample(&mut self, pod: u64, bytes: u64, now_s: f64) {
        if self.sampling == Sampling::SizedTask {
            self.add(bytes, now_s, 1.0);
            return;
        }
        match self.intervals.get(&pod).copied() {
            Some((end_s, peak)) if now_s < end_s => {
                if bytes > peak {
                    self.add(peak, end_s, -1.0);
                    self.add(bytes, end_s, 1.0);
                    self.intervals.insert(pod, (end_s, bytes));
                }
            }
            _ => {
                let end_s = now_s + DAY_S;
                self.add(bytes, end_s, 1.0);
                self.intervals.insert(pod, (end_s, bytes));
                self.intervals.retain(|_, i| i.0 > now_s);
            }
        }
    }
}

impl Sizer for VpaLike {
    fn limit(&mut self, _now_s: f64) -> u64 {
        let total: f64 = self.weights.iter().sum();
        if total <= 0.0 {
            return self.start.min(self.cap);
        }
        let mut sum = 0.0;
        let index = self.weights.iter().position(|w| {
            sum += w;
            sum >= self.percentile * total * (1.0 - 1e-12)
        });
        let bytes = bucket_start(index.unwrap_or(BUCKETS - 1) + 1) * MARGIN;
        (bytes as u64).min(self.cap)
    }

    fn see(&mut self, seen: Seen) {
        self.sample(seen.pod, seen.peak, seen.now_s);
        if seen.oom {
            let bumped = (seen.peak.max(seen.limit) as f64 * 1.2).max((seen.peak.max(seen.limit) + 100 * MIB) as f64);
            self.sample(seen.pod, bumped as u64, seen.now_s);
        }
    }
}

fn bucket_start(index: usize) -> f64 {
    FIRST_BUCKET * (RATIO.powi(index as i32) - 1.0) / (RATIO - 1.0)
}

fn bucket(bytes: u64) -> usize {
    let index = ((bytes as f64 * (RATIO - 1.0) / FIRST_BUCKET + 1.0).ln() / RATIO.ln()).floor();
    (index.max(0.0) as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ninetieth_percentile_and_a_margin() {
        let mut vpa = VpaLike::new(MIB, u64::MAX, Sampling::SizedTask, 0.9);
        for i in 1..=100u64 {
            vpa.see(Seen { pod: i, pod_started_s: 0.0, peak: i * 10 * MIB, limit: 2000 * MIB, oom: false, now_s: 10.0 });
        }
        let limit = vpa.limit(10.0) as f64 / MIB as f64;
        assert!((900.0 * 1.15..900.0 * 1.15 * 1.06).contains(&limit), "{limit}");
    }

    #[test]
    fn a_pod_counts_once_a_day_with_its_peak() {
        let mut vpa = VpaLike::new(MIB, u64::MAX, Sampling::PodDay, 0.9);
        for peak in [100, 300, 200] {
            vpa.see(Seen { pod: 1, pod_started_s: 0.0, peak: peak * MIB, limit: 2000 * MIB, oom: false, now_s: 10.0 });
        }
        assert_eq!(vpa.weights.iter().filter(|&&w| w > 1e-9).count(), 1);
        assert!(vpa.limit(10.0) > 300 * MIB);
    }

    #[test]
    fn a_kill_bumps_by_a_fifth_or_100_mib() {
        let mut vpa = VpaLike::new(MIB, u64::MAX, Sampling::PodDay, 0.9);
        vpa.see(Seen { pod: 1, pod_started_s: 0.0, peak: 1000 * MIB, limit: 1000 * MIB, oom: true, now_s: 10.0 });
        let limit = vpa.limit(10.0) as f64 / MIB as f64;
        assert!((1200.0 * 1.15..1200.0 * 1.15 * 1.06).contains(&limit), "{limit}");
    }
}
