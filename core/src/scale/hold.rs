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
/// A load that stays away for this many times the longest pause after which it has come back has missed its rhythm, and is waited for no more;
const MISSED_PAUSES: f64 = 1.3;
/// and so has one that comes by the clock and has not risen again within so many times the longest time from one rise to the next,
const MISSED_PERIODS: f64 = 1.1;
/// by the clock being where that time is no longer than so many mean ones.
const REGULAR: f64 = 1.5;
/// A load that comes at random, and so often that waiting for it pays, stays away for more than so many times what a worker is worth in one case of seven.
const MISSED_WORTHS: f64 = 2.0;
/// Pauses shorter than this are none, seconds: it is the time that a look, a decision and a task take. What came once is waited for so long.
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

/// Since when the load has been below a level.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Away {
    /// Infinite while the load is there.
    since_s: f64,
    /// It had been there before; else the first time it comes ends no pause.
    seen: bool,
    /// When it last rose to the level; infinite where nobody has seen that.
    rose_s: f64,
    /// The longest time between two rises, as it was then, seconds: what is forgotten meanwhile would make the next one overdue before its time.
    period_s: f64,
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
    /// Weighted longest time between two rises to each level, seconds.
    period: Vec<f32>,
    /// Present weight of one second.
    growth: f64,
    /// Seconds watched, and since when the load has been below each level.
    #[serde(skip)]
    clock_s: f64,
    #[serde(skip)]
    away: Vec<Away>,
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
            let all = [&mut self.at, &mut self.crossed, &mut self.longest, &mut self.period];
            all.into_iter().flatten().for_each(|value| *value *= scale);
            self.growth = 1.0;
        }
        ((from as u32).saturating_mul(width), (level as u32).saturating_mul(width))
    }

    /// Notes how long the load has been below each level, and how long ago it last rose to it.
    fn pause(&mut self, dt_s: f64, level: usize) {
        self.clock_s += dt_s;
        // Below whatever is not known of, the load is taken for gone just now. For a level that it had come to before, that is a pause at least so long.
        for at in self.away.len()..self.at.len() {
            self.away.push(Away { since_s: self.clock_s, seen: at + 1 < self.longest.len(), rose_s: f64::INFINITY, period_s: 0.0 });
        }
        self.longest.resize(self.at.len(), 0.0);
        self.period.resize(self.at.len(), 0.0);
        let (clock_s, growth) = (self.clock_s, self.growth);
        let longer = |longest: &mut f32, from_s: f64| *longest = longest.max(((clock_s - from_s).max(0.0) * growth) as f32);
        let levels = self.longest.iter_mut().zip(&mut self.period).zip(&mut self.away).enumerate().skip(1);
        for (at, ((longest, period), away)) in levels {
            if at <= level && away.since_s.is_finite() {
                if away.seen {
                    longer(longest, away.since_s);
                    longer(period, away.rose_s);
                }
                *away = Away { since_s: f64::INFINITY, seen: true, rose_s: clock_s, period_s: f64::from(*period) / growth };
            } else if at > level && away.since_s.is_infinite() {
                away.since_s = clock_s;
            }
        }
    }

    /// The load has risen to this level more than once.
    fn has_returned(&self, crossed: f64) -> bool {
        crossed / self.growth.max(1.0) >= RETURNS_MIN
    }

    /// Seconds that the load may still stay away from this level before it is waited for no more: until it has missed its rhythm, and where it has no clock
    /// until it has stayed away for so long that it no longer seems to come often enough for what a worker is worth. Negative when it has stayed away for too
    /// long. `crossed` is the weight of its returns, within `watched` seconds.
    fn left_s(&self, level: usize, (crossed, watched): (f64, f64), worth_s: f64) -> f64 {
        let Some(away) = self.away.get(level) else { return PAUSE_MIN_S };
        // While the load is there, silence begins now.
        let silence_s = if away.since_s.is_finite() { self.clock_s - away.since_s } else { 0.0 };
        // Who was found away has risen nobody knows when.
        let busy_s = if away.rose_s.is_finite() { self.clock_s - away.rose_s - silence_s } else { f64::INFINITY };
        if !self.has_returned(crossed) {
            return PAUSE_MIN_S - silence_s;
        }
        let longest_s = self.longest.get(level).map_or(0.0, |longest| f64::from(*longest) / self.growth.max(1.0));
        let (pause_s, period_s) = (MISSED_PAUSES * longest_s.max(PAUSE_MIN_S), away.period_s.max(PAUSE_MIN_S));
        if busy_s < REGULAR * period_s && period_s * crossed <= REGULAR * watched {
            return pause_s.min(MISSED_PERIODS * period_s - busy_s).max(PAUSE_MIN_S) - silence_s;
        }
        pause_s.min((MISSED_WORTHS * worth_s).max(PAUSE_MIN_S)) - silence_s
    }

    /// Weighted seconds watched.
    fn watched(&self) -> f64 {
        self.at.iter().map(|seconds| f64::from(*seconds)).sum()
    }

    /// No load at all has been there for longer than its rhythm allows, or than the last worker, who would wait for it, is worth. What has come once has none.
    pub fn ended(&self, worth_s: f64) -> bool {
        self.left_s(1, (self.crossed.get(1).copied().map_or(0.0, f64::from), self.watched()), worth_s) < 0.0
    }

    /// The next tick starts no crossing: there was a gap in the figures.
    pub fn forget_last(&mut self) {
        self.last = None;
        self.away.clear();
    }

    /// The highest level at most `workers` up to which every level returns often enough: `r_c x worth_s >= 1`, where `r_c` is returns to
    /// `c` per second below `c`, and `worth_s` the pod-seconds that having a worker there already is worth at one crossing.
    /// A load that has missed its rhythm is waited for no more.
    pub fn keep(&self, workers: u32, worth_s: f64) -> Kept {
        let (mut below, mut crossed, mut kept) = (0.0f64, 0.0f64, Kept::default());
        if self.width == 0 || self.growth < 1.0 {
            return kept;
        }
        let watched = self.watched();
        for level in 1..self.at.len().min(self.crossed.len()) {
            below += f64::from(self.at[level - 1]);
            crossed += f64::from(self.crossed[level]);
            let from = (level as u32 - 1).saturating_mul(self.width).saturating_add(1);
            if from > workers {
                break;
            }
            let proven = self.has_returned(crossed);
            let returned = crossed + EPSILON;
            let left_s = self.left_s(level, (crossed, watched), worth_s);
            if proven && left_s >= 0.0 && returned / below.max(BELOW_MIN_S * self.growth) * worth_s >= 1.0 {
                kept = Kept {
                    workers: (level as u32).saturating_mul(self.width).min(workers),
                    every_s: below.max(BELOW_MIN_S * self.growth) / returned,
                    left_s,
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

/// What the last worker of a small load is worth to the next message, in pod-seconds: `L + M (s + L) P(L > W - tick)`. It stays where that times `λ` is
/// above 1.
pub fn last_worth_s(law: &LawParams, service_s: f64, latency: &LatencyEstimate, max_wait_s: f64) -> f64 {
    latency.mean_s + law.miss_weight * (service_s + latency.mean_s) * latency.exceeds(max_wait_s - law.tick_s)
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
        assert_eq!((kept[270], kept[300], kept[304]), (10, 10, 10));
        assert!(kept[308..].iter().all(|kept| *kept == 0), "the sixth was due after 300 s: {:?}", &kept[300..]);
        assert!(levels.ended(500.0));
    }

    /// Silence, bursts of `busy_s` seconds of three tasks each at these seconds, and silence; whether the load has ended after each second.
    fn ended(bursts_s: &[u32], busy_s: impl Fn(usize) -> u32, until_s: u32, worth_s: f64) -> Vec<bool> {
        let mut levels = LoadLevels::default();
        let busy = |second: u32| bursts_s.iter().enumerate().any(|(at, from_s)| (*from_s..from_s + busy_s(at)).contains(&second));
        let tick = |second| {
            levels.observe(&LawParams::default(), 1.0, if busy(second) { 3.0 } else { 0.0 }, 100);
            levels.ended(worth_s)
        };
        (0..until_s).map(tick).collect()
    }

    #[test]
    fn what_came_once_is_no_rhythm() {
        let once = ended(&[300], |_| 40, 600, 700.0);
        assert!(!once[340] && !once[365] && once[375..].iter().all(|ended| *ended), "{once:?}");
    }

    #[test]
    fn the_time_before_the_first_load_is_no_pause() {
        let twice = ended(&[500, 560], |_| 40, 800, 700.0);
        assert!(!twice[625] && twice[645..].iter().all(|ended| *ended), "a pause of 20 s, not one of 500: {twice:?}");
    }

    #[test]
    fn bursts_by_the_clock_are_waited_for_until_the_next_is_overdue() {
        // The first finds nobody, and is at work for as long as a start takes longer: the pause after it is the shorter.
        let three = ended(&[60, 150, 240], |at| if at == 0 { 76 } else { 40 }, 500, 700.0);
        assert!(!three[226] && !three[330] && three[342..].iter().all(|ended| *ended), "{three:?}");
    }

    #[test]
    fn a_clock_of_ten_minutes_is_not_forgotten_between_two_strokes() {
        let four = ended(&[60, 660, 1260, 1860], |at| if at == 0 { 90 } else { 40 }, 3000, 700.0);
        assert!(!four[1859] && !four[2459] && four[2530..].iter().all(|ended| *ended), "{:?}", four.iter().rposition(|ended| !ended));
    }

    #[test]
    fn load_without_a_clock_is_waited_for_as_long_as_it_may_still_be_worth_it() {
        let after = |worth_s: f64| ended(&[60, 110, 160, 210, 260, 560, 610, 660, 710], |_| 40, 1200, worth_s)[750..].iter().position(|ended| *ended);
        let (dear, cheap) = (after(700.0), after(40.0));
        assert!(dear.is_some_and(|after_s| after_s > 300) && cheap.is_some_and(|after_s| after_s < 140), "{dear:?} {cheap:?}");
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
