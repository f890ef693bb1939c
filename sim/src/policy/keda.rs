//! Comes in: broker figures, as stale as RabbitMQ's management API. Goes out: what KEDA's operator and the HorizontalPodAutoscaler would do.
//! Leaves to others: which pods a ReplicaSet picks ([`World::kill`]). Numbers: KEDA 2.21 and Kubernetes documentation.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::rng::Rng;
use crate::world::{Policy, World};

/// HPA controller period.
const SYNC_S: f64 = 15.0;
/// HPA tolerance.
const TOLERANCE: f64 = 0.1;
/// Statistics of the management API are sampled this often.
const STATS_S: f64 = 5.0;
/// HPA default up policy: the larger of so many pods and a doubling, per period.
const UP_PODS: u32 = 4;

/// One ScaledObject.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct KedaConfig {
    /// `value` of the queue length trigger (AverageValue).
    pub value: f64,
    /// `stabilizationWindowSeconds` of scale-down.
    pub down_window_s: f64,
    /// `pollingInterval`.
    pub poll_s: f64,
    /// `cooldownPeriod`.
    pub cooldown_s: f64,
    /// Second trigger by rate: messages per second and pod; `None` for no second trigger.
    pub rate_value: Option<f64>,
    /// `terminationGracePeriodSeconds` of the pods.
    pub grace_s: f64,
    /// Scale-up without the default limit of +100 % or +4 pods per period.
    pub unlimited_up: bool,
    /// HPA sync period.
    pub sync_s: f64,
    /// Unacknowledged messages count, as with RabbitMQ; a Redis list shows the waiting ones alone.
    pub unacked: bool,
}

impl KedaConfig {
    /// What a user gets by setting the queue length alone.
    pub fn default_with_value(value: f64) -> Self {
        Self {
            value,
            down_window_s: 300.0,
            poll_s: 30.0,
            cooldown_s: 300.0,
            rate_value: None,
            grace_s: 30.0,
            unlimited_up: false,
            sync_s: SYNC_S,
            unacked: true,
        }
    }

    /// Short text for tables.
    pub fn describe(&self) -> String {
        let rate = self.rate_value.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.3}"));
        format!(
            "value {} window {} poll {} cooldown {} rate {rate} grace {} up {}",
            self.value,
            self.down_window_s,
            self.poll_s,
            self.cooldown_s,
            self.grace_s,
            if self.unlimited_up { "unlimited" } else { "default" }
        )
    }
}

/// The grid of 1008 settings; `service_s` is the true mean service time, which the rate trigger is told.
pub fn grid(service_s: f64) -> Vec<KedaConfig> {
    let mut all = Vec::with_capacity(1008);
    for value in [1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0] {
        for down_window_s in [0.0, 60.0, 300.0] {
            for poll_s in [5.0, 30.0] {
                for use_of_pod in [None, Some(0.7), Some(0.9)] {
                    for grace_s in [30.0, 7200.0] {
                        for cooldown_s in [30.0, 300.0] {
                            for unlimited_up in [false, true] {
                                let rate_value = use_of_pod.map(|share| share / service_s);
                                all.push(KedaConfig {
                                    value,
                                    down_window_s,
                                    poll_s,
                                    cooldown_s,
                                    rate_value,
                                    grace_s,
                                    unlimited_up,
                                    sync_s: SYNC_S,
                                    unacked: true,
                                });
                            }
                        }
                    }
                }
            }
        }
    }
    all
}

/// KEDA and HPA on one Deployment.
pub struct Keda {
    cfg: KedaConfig,
    next_stats_s: f64,
    next_poll_s: f64,
    next_sync_s: f64,
    /// Messages ready and unacknowledged, and publish rate, at the last sample.
    seen: Option<(f64, f64)>,
    published: u64,
    sampled_s: f64,
    last_active_s: f64,
    recommendations: VecDeque<(f64, u32)>,
}

impl Keda {
    /// All loops start at random phases.
    pub fn new(cfg: KedaConfig, seed: u64) -> Self {
        let mut rng = Rng::new(seed, 0x2b);
        Self {
            cfg,
            next_stats_s: rng.between(0.0, STATS_S),
            next_poll_s: rng.between(0.0, cfg.poll_s),
            next_sync_s: rng.between(0.0, cfg.sync_s),
            seen: Some((0.0, 0.0)),
            published: 0,
            sampled_s: 0.0,
            last_active_s: 0.0,
            recommendations: VecDeque::new(),
        }
    }

    fn sample(&mut self, world: &World<'_>) {
        let now = world.now_s();
        if !world.broker_answers() {
            self.seen = None;
            return;
        }
        let unacked = if self.cfg.unacked { world.unacked_messages() } else { 0 };
        let messages = f64::from(world.ready_messages() + unacked);
        let rate = (world.published_total() - self.published) as f64 / (now - self.sampled_s).max(1.0);
        (self.published, self.sampled_s) = (world.published_total(), now);
        self.seen = Some((messages, rate));
    }

    /// The operator: 0 to 1, and 1 to 0 after the cooldown.
    fn poll(&mut self, world: &mut World<'_>) {
        let Some((messages, rate)) = self.seen else { return };
        let active = messages > 0.0 || (self.cfg.rate_value.is_some() && rate > 0.0);
        if active {
            self.last_active_s = world.now_s();
            if world.replicas() == 0 {
                world.start(world.min_replicas.max(1));
                self.recommendations.clear();
            }
        } else if world.min_replicas == 0 && world.replicas() > 0 && world.now_s() - self.last_active_s > self.cfg.cooldown_s {
            world.kill(world.replicas(), self.cfg.grace_s);
        }
    }

    /// The HPA, from 1 replica on.
    fn sync(&mut self, world: &mut World<'_>) {
        let replicas = world.replicas();
        let Some((messages, rate)) = self.seen.filter(|_| replicas > 0) else { return };
        let by_length = proposal(messages, self.cfg.value, replicas);
        let by_rate = self.cfg.rate_value.map_or(0, |value| proposal(rate, value, replicas));
        let wished = by_length.max(by_rate).min(world.max_replicas).max(world.min_replicas.max(1));
        let now = world.now_s();
        self.recommendations.push_back((now, wished));
        while self.recommendations.front().is_some_and(|(at, _)| now - at > self.cfg.down_window_s) {
            self.recommendations.pop_front();
        }
        if wished > replicas {
            let most = if self.cfg.unlimited_up { world.max_replicas } else { (2 * replicas).max(replicas + UP_PODS) };
            world.start(wished.min(most) - replicas);
        } else {
            let highest = self.recommendations.iter().map(|(_, wished)| *wished).max().unwrap_or(wished);
            world.kill(replicas.saturating_sub(highest), self.cfg.grace_s);
        }
    }
}

/// `ceil(metric / target)`, or the present number within the tolerance (AverageValue).
fn proposal(metric: f64, target: f64, replicas: u32) -> u32 {
    let ratio = metric / (target * f64::from(replicas));
    if (1.0 - ratio).abs() <= TOLERANCE { replicas } else { (metric / target).ceil().min(1e6) as u32 }
}

impl Policy for Keda {
    fn first_wake_s(&self) -> f64 {
        self.next_stats_s.min(self.next_poll_s).min(self.next_sync_s)
    }

    fn wake(&mut self, world: &mut World<'_>) -> f64 {
        let now = world.now_s();
        if now >= self.next_stats_s {
            self.sample(world);
            self.next_stats_s += STATS_S;
        }
        if now >= self.next_poll_s {
            self.poll(world);
            self.next_poll_s += self.cfg.poll_s;
        }
        if now >= self.next_sync_s {
            self.sync(world);
            self.next_sync_s += self.cfg.sync_s;
        }
        self.first_wake_s()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_has_1008_different_settings() {
        let grid = grid(2.0);
        assert_eq!(grid.len(), 1008);
        assert!(grid.iter().enumerate().all(|(at, one)| grid[at + 1..].iter().all(|other| other != one)));
    }

    #[test]
    fn proposals_follow_the_formula_and_its_dead_band() {
        for (metric, target, replicas, expected) in
            [(10.0, 1.0, 1, 10), (10.5, 1.0, 10, 10), (11.5, 1.0, 10, 12), (0.0, 5.0, 3, 0), (41.0, 20.0, 1, 3)]
        {
            assert_eq!(proposal(metric, target, replicas), expected, "{metric} {target} {replicas}");
        }
    }
}
