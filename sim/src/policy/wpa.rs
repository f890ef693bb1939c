//! Comes in: the queue every twenty seconds. Goes out: what Practo's worker-pod-autoscaler would do. Leaves to others: which pods are deleted.

use crate::rng::Rng;
use crate::world::{Policy, World};

/// Its poll.
const PERIOD_S: f64 = 20.0;
/// No change within this share.
const TOLERANCE: f64 = 0.1;
/// Scale-down only so long after the last change.
const CALM_S: f64 = 600.0;
/// Rate is counted over a minute.
const RATE_S: f64 = 60.0;
/// Grace of its pods: it has no drain, so it is given one that cuts nothing.
const GRACE_S: f64 = 7200.0;

/// `ceil((ready + running) / target)` with a floor of `ceil(seconds per job x sent per minute / 60)`.
pub struct Wpa {
    /// Messages per worker.
    target: f64,
    /// `secondsToProcessOneJob`, set by hand; here the true mean.
    service_s: f64,
    first_s: f64,
    changed_s: f64,
    sent: Vec<(f64, u64)>,
}

impl Wpa {
    /// `target` by the rule AWS gives: promised wait over service time.
    pub fn new(max_wait_s: f64, service_s: f64, seed: u64) -> Self {
        let first_s = Rng::new(seed, 0x4d).between(0.0, PERIOD_S);
        Self { target: (max_wait_s / service_s).max(1.0), service_s, first_s, changed_s: f64::NEG_INFINITY, sent: vec![(0.0, 0)] }
    }
}

impl Policy for Wpa {
    fn first_wake_s(&self) -> f64 {
        self.first_s
    }

    fn wake(&mut self, world: &mut World<'_>) -> f64 {
        let now = world.now_s();
        let next = now + PERIOD_S;
        if !world.broker_answers() {
            return next;
        }
        self.sent.push((now, world.published_total()));
        self.sent.retain(|(at, _)| now - at <= RATE_S);
        let rate = match (self.sent.first(), self.sent.last()) {
            (Some((from, before)), Some((to, after))) if to > from => (after - before) as f64 / (to - from),
            _ => 0.0,
        };
        let floor = (self.service_s * rate).ceil() as u32;
        let replicas = world.replicas();
        let backlog = f64::from(world.ready_messages());
        let running = f64::from(world.unacked_messages());
        let by_length = ((backlog + running) / self.target).ceil() as u32;
        let close = replicas > 0 && (1.0 - (backlog + running) / (self.target * f64::from(replicas))).abs() <= TOLERANCE;
        let wished = match (backlog > 0.0, rate > 0.0, running > 0.0) {
            (true, ..) if close => replicas,
            (false, true, _) => floor,
            (false, false, false) => 0,
            _ => by_length,
        };
        let wished = wished.max(floor).min(world.max_replicas).max(world.min_replicas);
        if wished > replicas {
            world.start(wished - replicas);
            self.changed_s = now;
        } else if wished < replicas && now - self.changed_s > CALM_S {
            world.kill(replicas - wished, GRACE_S);
            self.changed_s = now;
        }
        next
    }
}
