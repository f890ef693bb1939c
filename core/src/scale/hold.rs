//! Comes in: the load of every tick. Goes out: up to which level idle workers are worth keeping. Leaves to others: who is idle.
//! It takes the place of fixed cooldowns: what is kept, and how long, follows from how often the load really comes back.

use serde::{Deserialize, Serialize};

use super::latency::LatencyEstimate;
use super::numeric::decay;
use super::types::LawParams;

/// Levels kept at most; larger fleets share a level among several workers, so that status stays below a few kilobytes.
pub const LEVELS_MAX: usize = 200;
/// A load must have returned to a level this often (after forgetting) before that says anything: what came once is no rhythm.
const RETURNS_MIN: f64 = 0.75;
/// Least time below a level, seconds, that a rate is taken from.
const BELOW_MIN_S: f64 = 1.0;
/// Forgetting is done by letting new weight grow; when it has grown this much everything is scaled back.
const GROWTH_MAX: f64 = 1024.0;
/// Crossings per second that need no further proof.
const EPSILON: f64 = 1e-12;
/// A load that stays away for this many times the longest pause after which it has come back has missed its rhythm, and is waited for no more.
const MISSED: f64 = 1.3;
/// Pauses shorter than this are none, seconds: it is the time that a look, a decision and a task take.
const PAUSE_MIN_S: f64 = 30.0;

/// Workers that wait for load to return, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Kept {
    /// How many.
    pub workers: u32,
    /// Seconds in which the load of the last of them comes back, in the mean: what it costs to wait, in pod-seconds.
    pub every_s: f64,
    /// Seconds that it may still stay away before nobody waits for it.
    pub left_s: f64,
}

/// How long the load stays at each level and how often it rises through it, half-life one hour.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadLevels {
    /// Workers per level.
    width: u32,
    /// Weighted seconds at each level.
    at: Vec<f32>,
    /// Differences of weighted returns: the prefix sum up to `c` is how often the load rose to `c` when it had been there before.
    crossed: Vec<f32>,
    /// Weighted longest pause of each level, seconds: from falling below it to rising through it again.
    longest: Vec<f32>,
    /// Present weight of one second.
    growth: f64,
    /// Seconds watched, and when the load fell below each level; infinite while it is there.
    #[serde(skip)]
    clock_s: f64,
    #[serde(skip)]
    fell_s: Vec<f64>,
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
        let (size, reached) = (level + 2, self.at.len().saturating_sub(2));
        if self.at.len() < size {
            self.at.resize(size, 0.0);
            self.crossed.resize(size, 0.0);
        }
        self.pause(dt_s, level);
        self.at[level] += (dt_s * self.growth) as f32;
        // Only a level that was reached before is returned to.
        let returned = level.min(reached);
        if let Some(last) = self.last.filter(|last| *last < returned) {
            self.crossed[last + 1] += self.growth as f32;
            self.crossed[returned + 1] -= self.growth as f32;
        }
        let from = self.last.map_or(level, |last| last.min(level));
        self.last = Some(level);
        if self.growth > GROWTH_MAX {
            let scale = (1.0 / self.growth) as f32;
            self.at.iter_mut().chain(self.crossed.iter_mut()).chain(self.longest.iter_mut()).for_each(|value| *value *= scale);
            self.growth = 1.0;
        }
        ((from as u32).saturating_mul(width), (level as u32).saturating_mul(width))
    }

    /// Notes how long the load has been below each level.
    fn pause(&mut self, dt_s: f64, level: usize) {
        self.clock_s += dt_s;
        self.longest.resize(self.at.len(), 0.0);
        // Levels never watched before are taken for left just now.
        self.fell_s.resize(self.at.len(), self.clock_s);
        let longest = self.longest.iter_mut().zip(&mut self.fell_s).enumerate().skip(1);
        for (at, (longest, fell_s)) in longest {
            if at <= level && fell_s.is_finite() {
                if self.last.is_some() {
                    *longest = longest.max(((self.clock_s - *fell_s) * self.growth) as f32);
                }
                *fell_s = f64::INFINITY;
            } else if at > level && fell_s.is_infinite() {
                *fell_s = self.clock_s;
            }
        }
    }

    /// Whether the load has been below this level for longer than its rhythm allows, seconds of silence and of what is allowed.
    fn silence_s(&self, level: usize) -> (f64, f64) {
        let longest = self.longest.get(level).map_or(0.0, |longest| f64::from(*longest) / self.growth.max(1.0));
        let fell_s = self.fell_s.get(level).copied().filter(|fell_s| fell_s.is_finite());
        (fell_s.map_or(0.0, |fell_s| self.clock_s - fell_s), MISSED * longest.max(PAUSE_MIN_S))
    }

    /// Any load at all has come back more than once, and now stays away for longer than it ever did.
    pub fn missed(&self) -> bool {
        let (silence_s, allowed_s) = self.silence_s(1);
        self.crossed.get(1).is_some_and(|crossed| f64::from(*crossed) / self.growth.max(1.0) >= RETURNS_MIN) && silence_s > allowed_s
    }

    /// The next tick starts no crossing: there was a gap in the figures.
    pub fn forget_last(&mut self) {
        self.last = None;
        self.fell_s.clear();
    }

    /// The highest level at most `workers` up to which every level returns often enough: `r_c x worth_s >= 1`, where `r_c` is returns to
    /// `c` per second below `c`, and `worth_s` the pod-seconds that having a worker there already is worth at one crossing.
    /// A load that stays away for 1.3 times as long as it ever did before it came back is waited for no more.
    pub fn keep(&self, workers: u32, worth_s: f64) -> Kept {
        let (mut below, mut crossed, mut kept) = (0.0f64, 0.0f64, Kept::default());
        if self.width == 0 || self.growth < 1.0 {
            return kept;
        }
        for level in 1..self.at.len().min(self.crossed.len()) {
            below += f64::from(self.at[level - 1]);
            crossed += f64::from(self.crossed[level]);
            let from = (level as u32 - 1).saturating_mul(self.width).saturating_add(1);
            if from > workers {
                break;
            }
            let proven = crossed / self.growth >= RETURNS_MIN;
            let returned = crossed + EPSILON;
            let (silence_s, allowed_s) = self.silence_s(level);
            if proven && silence_s <= allowed_s && returned / below.max(BELOW_MIN_S * self.growth) * worth_s >= 1.0 {
                kept = Kept {
                    workers: (level as u32).saturating_mul(self.width).min(workers),
                    every_s: below.max(BELOW_MIN_S * self.growth) / returned,
                    left_s: allowed_s - silence_s,
                };
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
        assert_eq!(wave.keep(10, 100.0).workers, 10);
        assert_eq!(wave.keep(6, 100.0).workers, 6);
        assert_eq!(wave.keep(10, 5.0).workers, 0);
    }

    #[test]
    fn load_seen_once_is_not_waited_for() {
        let once = levels((0..600).map(|tick| if tick < 300 { 2.0 } else { 10.0 }));
        assert_eq!(once.keep(10, 10_000.0).workers, 0);
    }

    #[test]
    fn a_rhythm_is_forgotten_when_it_stops() {
        let stopped = levels((0..40_000).map(|tick| if tick < 3600 && tick % 60 < 20 { 10.0 } else { 2.0 }));
        assert_eq!(stopped.keep(10, 100.0).workers, 0);
    }

    #[test]
    fn load_that_has_missed_its_rhythm_is_waited_for_no_more() {
        // Twenty seconds of load every minute, five times, and then silence.
        let mut levels = LoadLevels::default();
        let mut kept = Vec::new();
        for tick in 0..600 {
            levels.observe(&LawParams::default(), 1.0, if tick < 300 && tick % 60 < 20 { 10.0 } else { 0.0 }, 100);
            kept.push(levels.keep(10, 500.0).workers);
        }
        assert_eq!((kept[270], kept[300], kept[310]), (10, 10, 10));
        assert!(kept[314..].iter().all(|kept| *kept == 0), "a third as long again as the pauses of 40 s: {:?}", &kept[300..]);
        assert!(levels.missed());
    }

    #[test]
    fn pauses_that_cost_more_than_they_save_are_not_waited_through() {
        let slow = levels((0..2000).map(|tick| if tick % 600 < 60 { 10.0 } else { 0.0 }));
        assert_eq!(slow.keep(10, 400.0).workers, 0, "540 s of waiting for what is worth 400");
        assert_eq!(slow.keep(10, 800.0).workers, 10);
    }

    #[test]
    fn a_huge_fleet_keeps_few_levels() {
        let mut levels = LoadLevels::default();
        for tick in 0..600 {
            levels.observe(&LawParams::default(), 1.0, if tick % 60 < 20 { 9000.0 } else { 10.0 }, 10_000);
        }
        assert!(levels.at.len() <= LEVELS_MAX + 2);
        assert!(levels.keep(9500, 1000.0).workers >= 9000);
    }
}
