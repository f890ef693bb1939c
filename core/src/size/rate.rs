//! How many running pods are resized in a stretch of time. In: time, demand. Out: yes or no. Left to others: which pods ask first.

/// Running pods of one workload that are resized per second in the long run: bounds the load on the API server and the kubelets.
const RESIZES_PER_S: f64 = 1.0;
/// The same, at once.
const RESIZES_BURST: f64 = 5.0;

/// A token bucket over resizes of one workload or one cluster. Up-sizes that answer an OOM kill are not asked to wait for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateCap {
    per_s: f64,
    burst: f64,
    tokens: f64,
    at_s: f64,
}

impl RateCap {
    /// For the running pods of one workload.
    #[must_use]
    pub fn of_resizes(now_s: f64) -> Self {
        Self::new(RESIZES_PER_S, RESIZES_BURST, now_s)
    }

    /// `per_s` resizes a second in the long run, `burst` at once. Values that are not positive numbers mean none.
    #[must_use]
    pub fn new(per_s: f64, burst: f64, now_s: f64) -> Self {
        let sane = |v: f64| if v.is_finite() && v > 0.0 { v } else { 0.0 };
        Self { per_s: sane(per_s), burst: sane(burst), tokens: sane(burst), at_s: now_s }
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now_s: f64) -> bool {
        self.tokens = (self.tokens + (now_s - self.at_s).max(0.0) * self.per_s).min(self.burst);
        self.at_s = self.at_s.max(now_s);
        let granted = self.tokens >= 1.0;
        if granted {
            self.tokens -= 1.0;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_pods_are_resized_at_once_and_then_one_a_second() {
        let mut rate = RateCap::of_resizes(100.0);
        let granted = |rate: &mut RateCap, now_s| (0..20).filter(|_| rate.take(now_s)).count();
        assert_eq!([100.0, 100.5, 101.0, 103.0, 900.0, 50.0].map(|now_s| granted(&mut rate, now_s)), [5, 0, 1, 2, 5, 0]);
    }
}
