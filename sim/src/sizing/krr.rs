//! A policy like KRR's simple strategy. In: peaks. Out: a limit. Left to others: how it is applied (here: at once, though it is a report).
//!
//! Source of the numbers: robusta-dev/krr strategies/simple.py: memory is the maximum of 14 days and 15 %, request = limit, at least 100
//! points; its answer to OOM kills is off by default, so a kill is seen only as use at the limit.

use super::DAY_S;
use super::sizer::{Seen, Sizer};
use std::collections::VecDeque;

/// History that it reads, seconds.
const HISTORY_S: f64 = 14.0 * DAY_S;
/// Points before it recommends.
const POINTS_MIN: usize = 100;

/// The policy.
#[derive(Clone, Debug)]
pub struct KrrLike {
    /// Times and peaks, peaks falling: the front is the maximum.
    peaks: VecDeque<(f64, u64)>,
    points: usize,
    margin: f64,
    start: u64,
    cap: u64,
}

impl KrrLike {
    /// The policy from the template's limit `start`, at most `cap`, bytes. The real one's margin is 1.15.
    #[must_use]
    pub fn new(start: u64, cap: u64, margin: f64) -> Self {
        Self { peaks: VecDeque::new(), points: 0, margin, start, cap }
    }
}

impl Sizer for KrrLike {
    fn limit(&mut self, now_s: f64) -> u64 {
        while self.peaks.len() > 1 && self.peaks.front().is_some_and(|p| p.0 < now_s - HISTORY_S) {
            self.peaks.pop_front();
        }
        match self.peaks.front() {
            Some(&(_, max)) if self.points >= POINTS_MIN => ((max as f64 * self.margin) as u64).min(self.cap),
            _ => self.start.min(self.cap),
        }
    }

    fn see(&mut self, seen: Seen) {
        self.points += 1;
        while self.peaks.back().is_some_and(|p| p.1 <= seen.peak) {
            self.peaks.pop_back();
        }
        self.peaks.push_back((seen.now_s, seen.peak));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maximum_of_two_weeks_and_a_margin() {
        let mut krr = KrrLike::new(50, u64::MAX, 1.15);
        let see = |krr: &mut KrrLike, peak, now_s| krr.see(Seen { pod: 1, pod_started_s: 0.0, peak, limit: 5000, oom: false, now_s });
        see(&mut krr, 1000, 0.0);
        assert_eq!(krr.limit(1.0), 50, "too few points");
        for i in 0..100 {
            see(&mut krr, 100, f64::from(i));
        }
        assert_eq!(krr.limit(1.0 * DAY_S), 1150);
        see(&mut krr, 100, 15.0 * DAY_S);
        assert_eq!(krr.limit(15.0 * DAY_S), (100.0 * 1.15) as u64);
    }
}
