//! Comes in: the load of every tick. Goes out: up to which level idle workers are worth keeping. Leaves to others: who is idle.
//! It takes the place of fixed cooldowns: what is kept, and how long, follows from how often the load really comes back.

use serde::{Deserialize, Serialize};

use super::latency::LatencyEstimate;
use super::numeric::decay;
use super::types::LawParams;

/// Levels kept at most; larger fleets share a level among several workers, so that status stays below a few kilobytes.
pub const LEVELS_MAX: usize = 200;
/// A level must have been crossed upwards this often (after forgetting) before it says anything: once is no rhythm.
const CROSSINGS_MIN: f64 = 1.5;
/// Least time below a level, seconds, that a rate is taken from.
const BELOW_MIN_S: f64 = 1.0;
/// Forgetting is done by letting new weight grow; when it has grown this much everything is scaled back.
const GROWTH_MAX: f64 = 1024.0;
/// Crossings per second that need no further proof.
const EPSILON: f64 = 1e-12;

/// How long the load stays at each level and how often it rises through it, half-life one hour.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadLevels {
    /// Workers per level.
    width: u32,
    /// Weighted seconds at each level.
    at: Vec<f32>,
    /// Differences of weighted upward crossings: the prefix sum up to `c` is the crossings of `c`.
    crossed: Vec<f32>,
    /// Present weight of one second.
    growth: f64,
    #[serde(skip)]
    last: Option<usize>,
}

impl LoadLevels {
    /// One tick with `load` workers needed. `limit` is the most there may ever be; a new limit with another level width starts anew.
    /// Returns from and to which number of workers the load rose, equal when it did not.
    pub fn observe(&mut self, law: &LawParams, dt_s: f64, load: f64, limit: u32) -> (u32, u32) {
        let width = limit.div_ceil(LEVELS_MAX as u32).max(1);
        if width != self.width {
            *self = Self { width, growth: 1.0, ..Self::default() };
        }
        self.growth = if self.growth.is_finite() && self.growth >= 1.0 { self.growth / decay(dt_s, law.hold_half_life_s) } else { 1.0 };
        let level = ((load.max(0.0).ceil() as u32).min(limit)).div_ceil(width) as usize;
        let size = level + 2;
        if self.at.len() < size {
            self.at.resize(size, 0.0);
            self.crossed.resize(size, 0.0);
        }
        self.at[level] += (dt_s * self.growth) as f32;
        if let Some(last) = self.last.filter(|last| *last < level) {
            self.crossed[last + 1] += self.growth as f32;
            self.crossed[level + 1] -= self.growth as f32;
        }
        let from = self.last.map_or(level, |last| last.min(level));
        self.last = Some(level);
        if self.growth > GROWTH_MAX {
            let scale = (1.0 / self.growth) as f32;
            self.at.iter_mut().chain(self.crossed.iter_mut()).for_each(|value| *value *= scale);
            self.growth = 1.0;
        }
        ((from as u32).saturating_mul(width), (level as u32).saturating_mul(width))
    }

    /// The next tick starts no crossing: there was a gap in the figures.
    pub fn forget_last(&mut self) {
        self.last = None;
    }

    /// The highest level at most `workers` up to which every level returns often enough: `r_c x worth_s >= 1`, where `r_c` is upward crossings of
    /// `c` per second below `c`, and `worth_s` the pod-seconds that having a worker there already is worth at one crossing.
    pub fn keep(&self, workers: u32, worth_s: f64) -> u32 {
        let (mut below, mut crossed, mut kept) = (0.0f64, 0.0f64, 0);
        if self.width == 0 || self.growth < 1.0 {
            return 0;
        }
        for level in 1..self.at.len().min(self.crossed.len()) {
            below += f64::from(self.at[level - 1]);
            crossed += f64::from(self.crossed[level]);
            let from = (level as u32 - 1).saturating_mul(self.width).saturating_add(1);
            if from > workers {
                break;
            }
            let proven = crossed / self.growth >= CROSSINGS_MIN;
            if proven && (crossed + EPSILON) / below.max(BELOW_MIN_S * self.growth) * worth_s >= 1.0 {
                kept = (level as u32).saturating_mul(self.width).min(workers);
            }
        }
        kept
    }
}

/// What a worker that stands ready when load returns is worth, in pod-seconds: the start it saves, and the late messages it prevents,
/// `L + M κ P(L > W - tick) max(L, s)` where κ is late messages per missing worker and
/// `max(L / s, 1)`, as learned by [`super::late`].
pub fn worth_s(law: &LawParams, service_s: f64, latency: &LatencyEstimate, max_wait_s: f64, late_per_missing: f64) -> f64 {
    latency.mean_s + law.miss_weight * late_per_missing * latency.exceeds(max_wait_s - law.tick_s) * latency.mean_s.max(service_s)
}

/// Whether the last worker of a small load stays: `λ (L + M (s + L) P(L > W - tick)) > 1`.
pub fn last_worker_stays(law: &LawParams, rate_per_s: f64, service_s: f64, latency: &LatencyEstimate, max_wait_s: f64) -> bool {
    rate_per_s * (latency.mean_s + law.miss_weight * (service_s + latency.mean_s) * latency.exceeds(max_wait_s - law.tick_s)) > 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(loads: impl IntoIterator<Item = f64>) -> LoadLevels {
        let mut levels = LoadLevels::default();
        for load in loads {
            levels.observe(&LawParams::default(), 1.0, load, 100);
        }
        levels
    }

    #[test]
    fn load_that_returns_each_minute_is_waited_for() {
        let wave = levels((0..3600).map(|tick| if tick % 60 < 20 { 10.0 } else { 2.0 }));
        assert_eq!(wave.keep(10, 100.0), 10);
        assert_eq!(wave.keep(6, 100.0), 6);
        assert_eq!(wave.keep(10, 5.0), 0);
    }

    #[test]
    fn load_seen_once_is_not_waited_for() {
        let once = levels((0..600).map(|tick| if tick < 300 { 2.0 } else { 10.0 }));
        assert_eq!(once.keep(10, 10_000.0), 0);
    }

    #[test]
    fn a_rhythm_is_forgotten_when_it_stops() {
        let stopped = levels((0..40_000).map(|tick| if tick < 3600 && tick % 60 < 20 { 10.0 } else { 2.0 }));
        assert_eq!(stopped.keep(10, 100.0), 0);
    }

    #[test]
    fn a_huge_fleet_keeps_few_levels() {
        let mut levels = LoadLevels::default();
        for tick in 0..600 {
            levels.observe(&LawParams::default(), 1.0, if tick % 60 < 20 { 9000.0 } else { 10.0 }, 10_000);
        }
        assert!(levels.at.len() <= LEVELS_MAX + 2);
        assert!(levels.keep(9500, 1000.0) >= 9000);
    }
}
