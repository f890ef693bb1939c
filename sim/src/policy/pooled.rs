//! Comes in: broker and workers, once per tick. Goes out: the decisions of two Deployments that take from this one queue, as a pool. Leaves to others: all that they
//! decide. Which of the world's pods are whose is kept here: the first `own` are the one's, the rest the other's.

use qscaler_core::scale::pool::{Member, Pool, Takes};
use qscaler_core::scale::{Completion, FleetSample, Learned, QueueSample, ScaleConfig};

use crate::world::{Policy, World};

/// Two Deployments, each with half of what one alone could have.
pub struct Pooled {
    cfgs: [ScaleConfig; 2],
    learned: [Learned; 2],
    pool: Pool<usize>,
    /// Pods of the first.
    own: u32,
}

impl Pooled {
    /// A pool in place of one fleet with `cfg`.
    #[must_use]
    pub fn new(cfg: &ScaleConfig) -> Self {
        let half = |max: u32, min: u32| ScaleConfig { max_replicas: max, min_replicas: min, ..cfg.clone() };
        let (max, min) = (cfg.max_replicas, cfg.min_replicas);
        let mut pool = Pool::default();
        pool.set_members((0..2).map(|member| (member, vec!["queue".to_owned()])).collect());
        Self { cfgs: [half(max - max / 2, min - min / 2), half(max / 2, min / 2)], learned: Default::default(), pool, own: 0 }
    }

    /// Messages that it has counted as arrived.
    #[must_use]
    pub fn counted(&self) -> f64 {
        self.pool.counted()
    }

    /// What each is seen to have. Of pods in each state the first ones are the first's.
    fn halves(&self, world: &mut World<'_>) -> [FleetSample; 2] {
        let (ready, busy, parked) = (world.ready_pods(), world.busy_pods(), world.drained_pods());
        let (starting, ages) = (world.starting_ages_s(), world.busy_ages_s());
        let completions: Vec<Completion> = world.take_completions().into_iter().map(|service_s| Completion { service_s }).collect();
        let latencies = world.take_latencies();
        let first_ready = self.own.min(ready);
        let first_starting = (self.own - first_ready).min(starting.len() as u32);
        // Work is spread over both, as a broker does.
        let least = busy.saturating_sub(ready - first_ready);
        let first_busy = (busy / 2).max(least).min(first_ready);
        let first = FleetSample {
            spec_replicas: first_ready + first_starting,
            ready: first_ready,
            starting: starting[..first_starting as usize].to_vec(),
            busy: Some(first_busy),
            busy_ages_s: ages[..(first_busy as usize).min(ages.len())].to_vec(),
            begun: Some(world.take_begun()),
            started_latencies_s: latencies,
            ..FleetSample::default()
        };
        let second = FleetSample {
            spec_replicas: world.replicas() + parked - first.spec_replicas,
            ready: ready - first_ready,
            starting: starting[first_starting as usize..].to_vec(),
            parked,
            busy: Some(busy - first_busy),
            busy_ages_s: ages[(first_busy as usize).min(ages.len())..].to_vec(),
            begun: Some(0),
            completions,
            ..FleetSample::default()
        };
        [first, second]
    }
}

impl Policy for Pooled {
    fn first_wake_s(&self) -> f64 {
        0.5 * self.cfgs[0].law.tick_s
    }

    fn wake(&mut self, world: &mut World<'_>) -> f64 {
        let now_s = world.now_s();
        let queue = QueueSample {
            ready: Some(u64::from(world.ready_messages())),
            unacked: Some(u64::from(world.unacked_messages())),
            ..QueueSample::default()
        };
        let useful = world.replicas();
        let (mut targets, mut keep_parked) = ([None; 2], false);
        // The first word of a pool is only heard; the last one decides.
        for (member, fleet) in self.halves(world).into_iter().enumerate() {
            let told = Member { cfg: self.cfgs[member].clone(), takes: Takes::All, fleet };
            let decision = self.pool.decide(&member, told, std::slice::from_ref(&queue), &mut self.learned[member], now_s);
            keep_parked |= decision.as_ref().is_some_and(|decision| decision.keep_parked);
            targets[member] = decision.map(|decision| decision.target);
        }
        if let [Some(first), Some(second)] = targets {
            self.own = first;
            world.keep_parked(keep_parked);
            let target = first + second;
            if target > useful {
                let called = world.undrain(target - useful);
                world.start(target - useful - called);
            } else {
                world.drain(useful - target);
            }
        }
        now_s + self.cfgs[0].law.tick_s
    }
}
