//! Comes in: how many messages arrived in each tick. Goes out: the rate to expect. Leaves to others: how arrivals were counted, what a rate is worth.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::numeric::{decay, within};
use super::types::LawParams;

/// A window with at least this many arrivals can be called a batch; fewer are chance.
const BATCH_MIN: f64 = 10.0;
/// A window is a batch when this share of it came within [`BATCH_SPAN`] ticks.
const BATCH_SHARE: f64 = 0.8;
/// Ticks a batch may be spread over: one broker write plus the jitter of two samples.
const BATCH_SPAN: usize = 3;
/// The smoothed rate forgets no faster than this many arrivals: a rate of one in four minutes is not lost in one minute.
const HALF_LIFE_ARRIVALS: f64 = 20.0;
/// The smoothed rate forgets no faster than this many service times: pods run that long, so they average that long.
const HALF_LIFE_SERVICES: f64 = 3.0;
/// Bound of the half-life, seconds: a day.
const HALF_LIFE_MAX_S: f64 = 86_400.0;
/// Of gaps of a Poisson process one in fifty is longer than so many mean ones.
const SILENT_GAPS: f64 = 4.0;
/// A silence shorter than this is none, seconds.
const SILENT_MIN_S: f64 = 45.0;
/// Messages that came within so many seconds have come once; after as much silence that is over, and says nothing of a rate.
const ONCE_S: f64 = 30.0;
/// Fewer moments than this (after forgetting) are one.
const MOMENTS_MIN: f64 = 1.5;
/// Entries kept at most: the long window at five ticks a second.
const WINDOW_MAX: usize = 300;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    at_s: f64,
    dt_s: f64,
    count: f64,
    batch: bool,
}

/// The arrival rate λ, messages per second.
///
/// A mean with exponential forgetting (half-life `max(60 s, 3 service times, 20 arrivals)`), held inside the bands that a Poisson process
/// would keep to over the last 60 s and the last 10 s: `[k - z sqrt(k), k + z sqrt(k + 1)] / T`. Chance can't move it, a change of rate moves it
/// within one short window. Arrivals enter the mean when they leave the short window, after it is known whether they were a batch.
/// It starts from one half-life of silence, so that the first message is no flood.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArrivalRate {
    /// Weighted arrivals.
    arrivals: f64,
    /// Weighted seconds.
    seconds: f64,
    /// Weighted moments at which messages came, [`ONCE_S`] apart at least.
    moments: f64,
    /// When the last of them was.
    #[serde(skip)]
    moment_s: Option<f64>,
    #[serde(skip)]
    window: VecDeque<Entry>,
    #[serde(skip)]
    in_mean: usize,
    /// Seconds watched since a message came.
    #[serde(skip)]
    silent_s: f64,
}

/// A rate and how it came about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateEstimate {
    /// Messages per second, finite, not negative.
    pub per_s: f64,
    /// The short window is one batch.
    pub batch: bool,
}

impl ArrivalRate {
    /// Adds one tick: `count` arrivals within the `dt_s` seconds before `now_s`.
    pub fn observe(&mut self, law: &LawParams, now_s: f64, dt_s: f64, count: f64, service_s: f64) {
        if dt_s <= 0.0 {
            return;
        }
        if self.seconds <= 0.0 {
            self.seconds = law.rate_half_life_s;
        }
        self.silent_s = if count > 0.0 { 0.0 } else { self.silent_s + dt_s };
        if count > 0.0 && self.moment_s.is_none_or(|last_s| !(0.0..ONCE_S).contains(&(now_s - last_s))) {
            (self.moments, self.moment_s) = (self.moments + 1.0, Some(now_s));
        }
        self.window.push_back(Entry { at_s: now_s, dt_s, count: count.max(0.0), batch: false });
        self.mark_batch(law, now_s);
        while let Some(entry) = self.window.get(self.in_mean).copied() {
            if now_s - entry.at_s < law.rate_window_s {
                break;
            }
            self.in_mean += 1;
            self.fold(law, entry, service_s);
        }
        while self.window.len() > WINDOW_MAX || self.window.front().is_some_and(|entry| now_s - entry.at_s >= law.rate_long_window_s) {
            self.window.pop_front();
            self.in_mean = self.in_mean.saturating_sub(1);
        }
    }

    /// The smoothed rate alone, messages per second: what remains known when the windows are gone.
    pub fn mean(&self) -> f64 {
        if self.seconds > 0.0 { self.arrivals / self.seconds } else { 0.0 }
    }

    /// Nothing has come for so long that what came before has ended: four mean gaps, and 45 s; or 30 s where it came once only, and so showed no rate.
    pub fn has_ended(&self) -> bool {
        let once = self.silent_s >= ONCE_S && self.moments < MOMENTS_MIN;
        once || self.silent_s >= SILENT_MIN_S && self.silent_s * self.mean() >= SILENT_GAPS
    }

    /// Forgets the windows and keeps the mean: after a gap the ticks before it no longer join those after it.
    pub fn forget_windows(&mut self) {
        self.window.clear();
        (self.in_mean, self.silent_s) = (0, 0.0);
    }

    /// The rate to expect now.
    pub fn estimate(&self, law: &LawParams, now_s: f64) -> RateEstimate {
        let (mut long, mut short, mut batch) = ((0.0, 0.0), (0.0, 0.0), false);
        for entry in &self.window {
            let recent = now_s - entry.at_s < law.rate_window_s;
            batch |= recent && entry.batch;
            let count = if entry.batch { 0.0 } else { entry.count };
            long = (long.0 + count, long.1 + entry.dt_s);
            if recent {
                short = (short.0 + count, short.1 + entry.dt_s);
            }
        }
        let mean = if self.seconds > 0.0 {
            self.arrivals / self.seconds
        } else if long.1 > 0.0 {
            long.0 / long.1
        } else {
            0.0
        };
        let per_s = within_band(within_band(mean, long, law.rate_z), short, law.rate_z);
        RateEstimate { per_s: per_s.max(0.0), batch }
    }

    fn fold(&mut self, law: &LawParams, entry: Entry, service_s: f64) {
        let rate = if self.seconds > 0.0 { self.arrivals / self.seconds } else { 0.0 };
        let by_arrivals = if rate > 0.0 { HALF_LIFE_ARRIVALS / rate } else { 0.0 };
        let half_life = law.rate_half_life_s.max(HALF_LIFE_SERVICES * service_s).max(by_arrivals).min(HALF_LIFE_MAX_S);
        let keep = decay(entry.dt_s, half_life);
        self.arrivals = self.arrivals * keep + if entry.batch { 0.0 } else { entry.count };
        self.seconds = self.seconds * keep + entry.dt_s;
        self.moments *= keep;
    }

    /// Marks the ticks of the short window that make it a batch, and unmarks them when what follows shows a flow.
    fn mark_batch(&mut self, law: &LawParams, now_s: f64) {
        let first = self.window.iter().rposition(|entry| now_s - entry.at_s >= law.rate_window_s).map_or(0, |at| at + 1);
        let entries = self.window.make_contiguous();
        let recent = &mut entries[first..];
        let total: f64 = recent.iter().map(|entry| entry.count).sum();
        let densest = (0..recent.len())
            .map(|at| (at, recent[at..recent.len().min(at + BATCH_SPAN)].iter().map(|entry| entry.count).sum::<f64>()))
            .fold((0, 0.0), |best, next| if next.1 > best.1 { next } else { best });
        let is_batch = recent.len() > BATCH_SPAN && total >= BATCH_MIN && densest.1 >= BATCH_SHARE * total;
        for (at, entry) in recent.iter_mut().enumerate() {
            entry.batch = is_batch && at >= densest.0 && at < densest.0 + BATCH_SPAN;
        }
    }
}

/// Holds a rate inside the Poisson band of `(count, seconds)`.
fn within_band(rate: f64, (count, seconds): (f64, f64), z: f64) -> f64 {
    if seconds <= 0.0 {
        return rate;
    }
    let low = (count - z * count.sqrt()).max(0.0) / seconds;
    let high = (count + z * (count + 1.0).sqrt()) / seconds;
    within(rate, low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(counts: impl IntoIterator<Item = u32>) -> RateEstimate {
        let law = LawParams::default();
        let mut rate = ArrivalRate::default();
        let mut now = 0.0;
        for count in counts {
            now += 1.0;
            rate.observe(&law, now, 1.0, f64::from(count), 1.0);
        }
        rate.estimate(&law, now)
    }

    #[test]
    fn a_silence_of_several_mean_gaps_is_the_end() {
        let law = LawParams::default();
        let mut rate = ArrivalRate::default();
        (0..1200).for_each(|tick| rate.observe(&law, f64::from(tick), 1.0, f64::from(u8::from(tick % 30 == 0)), 10.0));
        assert!(!rate.has_ended(), "one every half minute");
        (1200..1260).for_each(|tick| rate.observe(&law, f64::from(tick), 1.0, 0.0, 10.0));
        assert!(!rate.has_ended(), "three gaps may be chance");
        (1260..1340).for_each(|tick| rate.observe(&law, f64::from(tick), 1.0, 0.0, 10.0));
        assert!(rate.has_ended());
        rate.observe(&law, 1340.0, 1.0, 1.0, 10.0);
        assert!(!rate.has_ended());
    }

    #[test]
    fn what_came_once_shows_no_rate_and_what_came_again_does() {
        let law = LawParams::default();
        let ended = |moments: &[u32], until: u32| {
            let mut rate = ArrivalRate::default();
            let count = |tick: &u32| f64::from(u8::from(moments.iter().any(|from| (*from..*from + 5).contains(tick)))) * 2.0;
            (0..until).for_each(|tick| rate.observe(&law, f64::from(tick), 1.0, count(&tick), 90.0));
            rate.has_ended()
        };
        assert!(!ended(&[100], 130) && ended(&[100], 140), "ten messages within five seconds, once");
        assert!(!ended(&[100, 160], 195) && ended(&[100, 160], 260), "twice: by the mean gap");
    }

    #[test]
    fn a_steady_flow_is_its_own_rate() {
        assert!((run([5; 900]).per_s - 5.0).abs() < 0.01);
    }

    #[test]
    fn a_new_rate_is_believed_within_the_short_window() {
        let before = [1; 300].into_iter().chain([20; 6]);
        let estimate = run(before);
        assert!(estimate.per_s > 8.0 && !estimate.batch, "{estimate:?}");
    }

    #[test]
    fn a_batch_is_no_rate() {
        let estimate = run([0; 100].into_iter().chain([400, 0, 0, 0]));
        assert!(estimate.batch && estimate.per_s < 0.5, "{estimate:?}");
        let later = run([0; 100].into_iter().chain([400]).chain([0; 300]));
        assert!(later.per_s < 1e-9, "{later:?}");
    }

    #[test]
    fn silence_lowers_the_rate_within_the_windows() {
        let estimate = run([10; 300].into_iter().chain([0; 12]));
        assert!(estimate.per_s <= 0.25, "{estimate:?}");
    }

    #[test]
    fn a_rare_arrival_is_not_forgotten_in_a_minute() {
        let law = LawParams::default();
        let mut rate = ArrivalRate::default();
        let mut now = 0.0;
        for tick in 0..7200 {
            now += 1.0;
            rate.observe(&law, now, 1.0, f64::from(u8::from(tick % 240 == 0)), 10.0);
        }
        let estimate = rate.estimate(&law, now).per_s;
        assert!((0.5 / 240.0..2.0 / 240.0).contains(&estimate), "{estimate}");
    }

    #[test]
    fn nothing_seen_is_no_rate() {
        assert_eq!(run([]).per_s, 0.0);
    }
}
