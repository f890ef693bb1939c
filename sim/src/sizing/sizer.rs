//! A sizing policy, as the replay sees it, and two of them: the one under test, and a fixed limit. In: peaks and kills as they happen.
//! Out: the limit for the task that starts now. Left to others: `vpa`, `krr`.

use qscaler_core::size::{ContainerResources, Estimate, Observation, SizeBounds};

/// Something that a pod did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Which pod: a new number for each one that starts.
    pub pod: u64,
    /// When it started, seconds from the start.
    pub pod_started_s: f64,
    /// The peak of the task, bytes; the limit itself when it was killed.
    pub peak: u64,
    /// The limit in force, bytes.
    pub limit: u64,
    /// It was OOM-killed.
    pub oom: bool,
    /// Now, seconds from the start.
    pub now_s: f64,
}

/// A sizing policy. Its limit is in force at once, for every task that starts: no policy is charged for what it would have to restart.
pub trait Sizer {
    /// The limit for a task that starts now, bytes.
    fn limit(&mut self, now_s: f64) -> u64;
    /// A task has ended.
    fn see(&mut self, seen: Seen);
}

/// One limit for ever.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fixed(pub u64);

impl Sizer for Fixed {
    fn limit(&mut self, _now_s: f64) -> u64 {
        self.0
    }

    fn see(&mut self, _seen: Seen) {}
}

/// `qscaler_core::size`, with the wall clock of a day in 2026 as its zero.
#[derive(Clone, Debug)]
pub struct Ours {
    estimate: Estimate,
    bounds: SizeBounds,
    current: u64,
    /// Multiplies each limit, for the curve; 1 is the policy itself.
    factor: f64,
}

/// Seconds since the epoch at the start of a replay.
const EPOCH_S: f64 = 1_790_000_000.0;

impl Ours {
    /// The policy from the template's limit `start`, at most `cap`, bytes.
    #[must_use]
    pub fn new(start: u64, cap: u64, factor: f64) -> Self {
        Self { estimate: Estimate::default(), bounds: SizeBounds { max_memory: Some(cap), ..SizeBounds::default() }, current: start, factor }
    }
}

impl Sizer for Ours {
    fn limit(&mut self, now_s: f64) -> u64 {
        let current = ContainerResources { memory_request: Some(self.current), memory_limit: Some(self.current), ..ContainerResources::default() };
        if let Some(memory) = self.estimate.recommend(&self.bounds, &current, EPOCH_S + now_s).memory_bytes {
            self.current = memory;
        }
        ((self.current as f64 * self.factor) as u64).min(self.bounds.clamp_memory(u64::MAX))
    }

    fn see(&mut self, seen: Seen) {
        let now_s = EPOCH_S + seen.now_s;
        if seen.oom {
            self.estimate.observe(&Observation::Oom { limit_bytes: seen.limit, child: false, at_s: now_s }, &self.bounds, now_s);
            return;
        }
        let peak = Observation::Peak {
            memory_bytes: seen.peak,
            cpu_millicores: None,
            tasks: 1,
            limit_bytes: Some(seen.limit),
            pod_started_s: EPOCH_S + seen.pod_started_s,
        };
        self.estimate.observe(&peak, &self.bounds, now_s);
    }
}
