//! Comes in: what waits, who works, who starts. Goes out: how many more workers would still be of use. Leaves to others: bounds.
//! Backlog is counted in starts within a horizon, not in work: one formula for tasks of a tenth of a second and of three hours, and no pod that
//! arrives after the party.

use super::numeric::within;

/// Whoever leaves while messages wait must leave enough workers to start them within this share of the horizon. The horizon grows and shrinks with the start latency, which is
/// learned anew from each pod that starts: without a margin a pod that left at the edge was called back at once, and left again after half a minute.
const LEAVE_HORIZON_SHARE: f64 = 0.9;

/// What the count is made from; all counts in tasks or workers, times in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deficit<'a> {
    /// Messages waiting that any worker may take.
    pub backlog: f64,
    /// Messages that busy workers have taken already and work on first,
    pub ahead: f64,
    /// and how many that would be without an idle worker.
    pub ahead_unless_idle: f64,
    /// Workers that are ready and have no task.
    pub idle: f64,
    /// Tasks running.
    pub busy: f64,
    /// Workers that are ready.
    pub workers: f64,
    /// Arrivals per second.
    pub rate_per_s: f64,
    /// Mean service time.
    pub service_s: f64,
    /// Completions per second of one busy worker.
    pub hazard_per_s: f64,
    /// Mean start latency.
    pub latency_s: f64,
    /// Seconds each starting pod still needs.
    pub starting_s: &'a [f64],
    /// Pods that are on their way and not seen yet: each needs a whole start latency.
    pub unseen: f64,
    /// Workers in one pod.
    pub per_pod: f64,
    /// The aimed-at wait.
    pub wait_s: f64,
    /// Weight of a late message in pod-seconds per second.
    pub miss_weight: f64,
}

impl Deficit<'_> {
    /// Seconds within which waiting messages should have started: the aimed-at wait, or what a new pod needs to start and pay for its start.
    pub fn horizon_s(&self) -> f64 {
        let pays_after = (self.latency_s / (self.miss_weight * self.service_s)).max(1.0);
        self.wait_s.max(self.latency_s + (pays_after - 1.0) * self.service_s)
    }

    /// Messages that the present and starting workers won't have started within the horizon; negative when there is room.
    /// What will have come by then counts in whole messages: a fraction of one is no reason for a pod.
    pub fn starts_missing(&self) -> f64 {
        self.missing_within(self.horizon_s())
    }

    fn missing_within(&self, horizon: f64) -> f64 {
        let brings = |remaining_s: f64| self.per_pod * (1.0 + (horizon - remaining_s).max(0.0) / self.service_s);
        let coming: f64 = self.starting_s.iter().map(|remaining| brings(*remaining)).sum();
        let coming = coming + self.unseen * brings(self.latency_s);
        self.backlog + self.ahead + self.growth(horizon) - self.idle - self.workers * horizon * self.hazard_per_s - coming
    }

    /// Messages that will have come within the horizon beyond what the workers start.
    fn growth(&self, horizon_s: f64) -> f64 {
        let gain_per_s = (self.rate_per_s - self.workers / self.service_s).max(0.0);
        (gain_per_s * self.latency_s.min(horizon_s)).floor()
    }

    /// Workers that may leave, and what waits still starts in time; infinite where nothing waits.
    pub fn spare_workers(&self) -> f64 {
        if self.backlog <= 0.0 {
            return f64::INFINITY;
        }
        let horizon = LEAVE_HORIZON_SHARE * self.horizon_s();
        let missing = self.missing_within(horizon) - self.ahead + self.ahead_unless_idle;
        (-missing / (1.0 + horizon * self.hazard_per_s)).floor().max(0.0)
    }

    /// New workers that make up for it, each good for `1 + (H - L) / s` starts; never more than there are tasks without a worker, nor than messages that
    /// they could take.
    pub fn new_workers(&self) -> f64 {
        if self.backlog <= 0.0 {
            return 0.0;
        }
        let each = 1.0 + (self.horizon_s() - self.latency_s).max(0.0) / self.service_s;
        // Those on their way take a message each.
        let coming = self.per_pod * (self.starting_s.len() as f64 + self.unseen);
        let most = (self.busy + self.backlog).min(self.backlog + self.growth(self.horizon_s()) - coming);
        within((self.starts_missing() / each).ceil(), 0.0, most.ceil().max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Deficit<'static> = Deficit {
        backlog: 0.0,
        ahead: 0.0,
        ahead_unless_idle: 0.0,
        idle: 0.0,
        busy: 0.0,
        workers: 0.0,
        rate_per_s: 0.0,
        service_s: 10.0,
        hazard_per_s: 0.1,
        latency_s: 5.0,
        starting_s: &[],
        unseen: 0.0,
        per_pod: 1.0,
        wait_s: 15.0,
        miss_weight: 10.0,
    };

    #[test]
    fn an_empty_queue_asks_for_nobody() {
        assert_eq!(BASE.new_workers(), 0.0);
        assert_eq!(Deficit { rate_per_s: 5.0, ..BASE }.new_workers(), 0.0);
    }

    #[test]
    fn one_message_and_nobody_asks_for_one() {
        assert_eq!(Deficit { backlog: 1.0, ..BASE }.new_workers(), 1.0);
    }

    #[test]
    fn a_new_worker_counts_for_what_it_starts_in_time() {
        assert_eq!(Deficit { backlog: 100.0, ..BASE }.new_workers(), 50.0);
        assert_eq!(Deficit { backlog: 100.0, service_s: 0.1, hazard_per_s: 10.0, ..BASE }.new_workers(), 1.0);
        assert_eq!(Deficit { backlog: 100.0, service_s: 10_000.0, hazard_per_s: 1e-4, ..BASE }.new_workers(), 100.0);
    }

    #[test]
    fn workers_on_their_way_are_not_asked_for_twice() {
        assert_eq!(Deficit { backlog: 100.0, starting_s: &[5.0; 50], ..BASE }.new_workers(), 0.0);
        assert_eq!(Deficit { backlog: 100.0, starting_s: &[5.0; 30], ..BASE }.new_workers(), 20.0);
    }
}
