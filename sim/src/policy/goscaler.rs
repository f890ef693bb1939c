//! Comes in: the queue's length every five seconds. Goes out: what the Go QScaler would do: length times a factor, nothing else.
//! Leaves to others: draining, which that project does between tasks, as we do.

use crate::rng::Rng;
use crate::world::{Policy, World};

/// Its loop over all workers.
const PERIOD_S: f64 = 5.0;

/// `clamp(length x factor, 0, max)`; a broker error counts as length -1, hence as the minimum.
pub struct GoScaler {
    factor: f64,
    first_s: f64,
}

impl GoScaler {
    /// As released the factor is a whole number, at least 1; smaller ones are given the benefit of hindsight.
    pub fn new(factor: f64, seed: u64) -> Self {
        Self { factor, first_s: Rng::new(seed, 0x3c).between(0.0, PERIOD_S) }
    }
}

impl Policy for GoScaler {
    fn first_wake_s(&self) -> f64 {
        self.first_s
    }

    fn wake(&mut self, world: &mut World<'_>) -> f64 {
        let length = if world.broker_answers() { f64::from(world.ready_messages()) } else { 0.0 };
        let wished = ((length * self.factor).ceil() as u32).min(world.max_replicas).max(world.min_replicas);
        let replicas = world.replicas();
        if wished > replicas {
            world.start(wished - replicas);
        } else {
            world.drain(replicas - wished);
        }
        world.now_s() + PERIOD_S
    }
}
