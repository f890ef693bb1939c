//! How many running pods are resized in a stretch of time. In: time, demand. Out: yes or no. Left to others: which pods ask first.

/// A token bucket over resizes of one workload or one cluster. Up-sizes that answer an OOM kill are not asked to wait for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateCap {
    per_s: f64,
    burst: f64,
    tokens: f64,
    at_s: f64,
}

impl RateCap {
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
