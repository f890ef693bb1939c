//! Comes in: nothing. Goes out: what a run is given, and what it came to. Leaves to others: the run.

/// How the fleet and the broker behave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// Mean start latency of a pod, seconds.
    pub start_s: f64,
    /// Its coefficient of variation.
    pub start_cv: f64,
    /// Pods that nodes start at full speed side by side; more share it ([`crate::crowd`]). Infinite: as many as there are.
    pub start_at_full_speed: f64,
    /// From, to: the broker tells nobody its figures, and goes on delivering.
    pub outage: Option<(f64, f64)>,
    /// Seed of start latencies and victims.
    pub seed: u64,
}

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Tasks.
    pub tasks: usize,
    /// Tasks that waited longer than promised (to their final start), or never started.
    pub missed: usize,
    /// Created to gone, all pods, seconds.
    pub pod_seconds: f64,
    /// Running tasks cut.
    pub interrupted: u64,
    /// Pod-seconds of work lost by that.
    pub lost_seconds: f64,
    /// Pods created.
    pub starts: u64,
    /// Wait of each task to its final start, in order of arrival, seconds; infinite when never started.
    pub waits_s: Vec<f32>,
    /// When the last task ended, seconds.
    pub last_task_s: f64,
    /// When the last pod was gone, seconds; infinite where one is left at the end.
    pub last_pod_s: f64,
    /// Given up because costs exceeded the budget; the figures are then lower bounds.
    pub cut_short: bool,
}

impl Outcome {
    /// Share of tasks that missed the promise.
    pub fn miss(&self) -> f64 {
        self.missed as f64 / self.tasks.max(1) as f64
    }
}

/// One point of a run over time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// When, seconds.
    pub at_s: f64,
    /// Messages waiting.
    pub backlog: u32,
    /// Pods alive, leaving ones included.
    pub pods: u32,
    /// Tasks running.
    pub busy: u32,
}
