//! Comes in: service times of ended tasks, ages of running ones, busy time. Goes out: mean service time, its spread, and how fast busy workers
//! get free. Leaves to others: where the reports come from.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::numeric::{decay, sane, within};
use super::types::{TIME_MAX_S, TIME_MIN_S};

/// Half-life of the mean in completions, for tasks that vary as much as their mean (cv = 1); times cv² above that.
const HALF_LIFE_COMPLETIONS: f64 = 100.0;
/// Bound of cv² in the half-life, so that one enormous task can't freeze the estimate.
const CV2_MAX: f64 = 16.0;
/// Half-life of the recent mean in completions: an effective sample of about forty.
const RECENT_HALF_LIFE: f64 = 28.0;
/// The mean is held within this many standard errors of the recent one.
const RECENT_BAND: f64 = 2.5;
/// A mean that the band moves by this share is a new kind of work: what was learned before is dropped.
const RESTART_SHARE: f64 = 0.3;
/// Weight of the recent mean below which it holds nothing: a handful of tasks is no evidence.
const RECENT_MIN: f64 = 8.0;
/// Least half-life of the rate at which busy workers get free, seconds.
const HAZARD_HALF_LIFE_S: f64 = 60.0;
/// What busy workers got done lately bounds the mean from below: over so many means,
const LATELY_SERVICES: f64 = 3.0;
/// but no less and no more than this, seconds,
const LATELY_S: (f64, f64) = (10.0, 60.0);
/// by so many standard errors of a Poisson count (times the spread where tasks vary more than that),
const LATELY_ERRORS: f64 = 4.0;
/// and so many entries at most.
const LATELY_MAX: usize = 300;
/// Work counts as heavier when over the same window so many standard errors fewer tasks ended than the mean lets expect.
const HEAVIER_ERRORS: f64 = 4.0;
/// Half-life in completions of the largest cv² seen: the mean starts anew now and then, and with it what is known of its spread.
const SPREAD_HALF_LIFE: f64 = 1000.0;
/// Completions from which on the spread counts as known.
const SPREAD_SEEN: u64 = 500;
/// What it takes now is read off the latter part of that window: a change that has just shown is younger than the window.
const HEAVIER_SHARE: f64 = 0.5;
/// By so much a mean grows at most at once: where nothing ends at all, work has stopped rather than grown.
const HEAVIER_TIMES: f64 = 4.0;
/// Least mean service time, seconds, so that nothing is divided by zero.
pub const SERVICE_MIN_S: f64 = TIME_MIN_S;
/// Of tasks at work a little over a third is older than the mean (exponential service). Beyond this share the work itself has changed;
const OLD_SHARE: f64 = 0.7;
/// below it, an old task counts as at most the mean and this many deviations, so that one outlier does not set the estimate.
const OLD_DEVIATIONS: f64 = 4.0;
/// Most ages of running tasks that are looked at in one tick.
const AGES_MAX: usize = 4096;

/// A service time as a number that can be reckoned with, seconds: what a report says comes from outside.
pub(super) fn believed_s(service_s: f64) -> f64 {
    within(sane(service_s, 0.0), SERVICE_MIN_S, TIME_MAX_S)
}

/// Mean and spread with exponential forgetting per sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Moments {
    pub(super) weight: f64,
    sum: f64,
    squares: f64,
}

impl Moments {
    pub(super) fn add(&mut self, value: f64, keep: f64) {
        self.weight = self.weight * keep + 1.0;
        self.sum = self.sum * keep + value;
        self.squares = self.squares * keep + value * value;
    }

    /// As if all values had been so many times what they were.
    fn scale(&mut self, times: f64) {
        (self.sum, self.squares) = (self.sum * times, self.squares * times * times);
    }

    pub(super) fn mean(&self) -> f64 {
        if self.weight > 0.0 { self.sum / self.weight } else { 0.0 }
    }

    pub(super) fn variance(&self) -> f64 {
        if self.weight > 0.0 { (self.squares / self.weight - self.mean().powi(2)).max(0.0) } else { 0.0 }
    }
}

/// The service time `s` of one task, seconds, measured while busy (waiting excluded).
///
/// The mean forgets per completion (half-life `100 max(1, cv²)`), is held within 2.5 standard errors of the mean of the last forty or so, and
/// starts anew when that moves it by 30 %. It grows at once where busy workers end far fewer tasks than it lets expect. Tasks still running beyond the mean join as samples of at least their age, so that long tasks count
/// before the first of them ends. Until anything is known the hint counts as one sample.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceTime {
    all: Moments,
    recent: Moments,
    /// The largest cv² lately: work that varied so much may do so again.
    spread: f64,
    /// Weighted completions and busy-seconds: their ratio is the hazard.
    ended: f64,
    busy_s: f64,
    /// Seconds, busy-seconds and completions of the last ticks.
    #[serde(skip)]
    lately: VecDeque<(f64, f64, f64)>,
    /// Completions ever seen; tells "none ended" from "nobody tells".
    seen: u64,
}

/// What is believed of the service time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ServiceEstimate {
    /// Mean seconds per task, at least [`SERVICE_MIN_S`].
    pub mean_s: f64,
    /// Squared coefficient of variation.
    pub cv2: f64,
    /// Standard deviation, seconds.
    pub sd_s: f64,
    /// Completions per second of one busy worker, at most `1 / mean_s`.
    pub hazard_per_s: f64,
}

impl ServiceTime {
    /// One task ended after `service_s`.
    pub fn ended(&mut self, service_s: f64) {
        let value = believed_s(service_s);
        self.seen = self.seen.saturating_add(1);
        let cv2 = if self.all.weight > 1.0 { within(self.all.variance() / self.all.mean().powi(2), 1.0, CV2_MAX) } else { 1.0 };
        self.all.add(value, decay(1.0, HALF_LIFE_COMPLETIONS * cv2));
        self.recent.add(value, decay(1.0, RECENT_HALF_LIFE));
        if self.recent.weight < RECENT_MIN {
            return;
        }
        self.spread = cv2.max(self.spread * decay(1.0, SPREAD_HALF_LIFE));
        let mean = self.all.mean();
        let held = self.near_recent(mean);
        if (held - mean).abs() > RESTART_SHARE * mean {
            self.all = self.recent;
        }
    }

    /// `mean` held within [`RECENT_BAND`] standard errors of the recent mean.
    fn near_recent(&self, mean: f64) -> f64 {
        let error = RECENT_BAND * (self.recent.variance() / self.recent.weight).sqrt();
        within(mean, self.recent.mean() - error, self.recent.mean() + error).max(SERVICE_MIN_S)
    }

    /// `ended` tasks in `dt_s` seconds with `busy` running.
    pub fn busy_time(&mut self, dt_s: f64, busy: f64, ended: f64, start_latency_s: f64) {
        let keep = decay(dt_s, HAZARD_HALF_LIFE_S.max(2.0 * start_latency_s));
        self.ended = self.ended * keep + ended;
        self.busy_s = self.busy_s * keep + busy * dt_s;
        self.lately.push_back((dt_s, busy * dt_s, ended));
        if self.lately.len() > LATELY_MAX {
            self.lately.pop_front();
        }
        self.grow(busy);
    }

    /// Scales what was learned to work that has become heavier, where what `busy` workers got done shows that before its tasks have ended.
    ///
    /// In `B` busy-seconds `B / s` tasks are expected to end, with the variance `cv² B / s` (renewal theory; taken as Poisson's where tasks vary less, and cv² as
    /// the largest lately). Workers that began regular tasks together have ended none before the first is due: each owes `1 - cv²` of a task. The new mean is
    /// time on test over failures, the likeliest where running tasks are lower bounds of exponential times (Epstein and Sobel 1953), with one more failure,
    /// so that it is known where none has ended.
    fn grow(&mut self, busy: f64) {
        if self.seen < SPREAD_SEEN {
            return;
        }
        let mean = self.near_recent(self.all.mean());
        let cv2 = self.all.variance() / mean.powi(2);
        let Some((busy_s, ended)) = self.done_lately(mean, 1.0) else { return };
        let expected = busy_s / mean;
        let owed = busy * (1.0 - cv2).max(0.0);
        if expected - ended - owed <= HEAVIER_ERRORS * (expected * cv2.max(self.spread).max(1.0)).sqrt() {
            return;
        }
        let Some((busy_s, ended)) = self.done_lately(mean, HEAVIER_SHARE) else { return };
        let times = (busy_s / (ended + 1.0) / mean).min(HEAVIER_TIMES);
        if times > 1.0 {
            self.recent.scale(times);
            self.all = self.recent;
        }
    }

    /// Busy-seconds and completions of the latest `share` of the window in which what busy workers got done is judged; `None` where not enough
    /// has been watched.
    fn done_lately(&self, mean_s: f64, share: f64) -> Option<(f64, f64)> {
        let span_s = within(LATELY_SERVICES * mean_s, LATELY_S.0, LATELY_S.1);
        if self.seen == 0 || LATELY_SERVICES * mean_s > span_s {
            return None;
        }
        let span_s = share * span_s;
        let (mut seconds, mut busy_s, mut ended) = (0.0, 0.0, 0.0);
        for (dt_s, busy, done) in self.lately.iter().rev() {
            if seconds >= span_s {
                break;
            }
            (seconds, busy_s, ended) = (seconds + dt_s, busy_s + busy, ended + done);
        }
        (seconds >= span_s).then_some((busy_s, ended))
    }

    /// After a gap what workers got done before it does not join what they do now.
    pub fn forget_window(&mut self) {
        self.lately.clear();
    }

    /// The shortest mean that what busy workers got done lately leaves room for. A load that has become heavier shows here long before its long tasks have
    /// ended: those that end first are the short ones. 0 where not enough has been watched.
    fn least_s(&self, mean_s: f64, cv2: f64) -> f64 {
        let lately = self.done_lately(mean_s, 1.0);
        lately.map_or(0.0, |(busy_s, ended)| busy_s / (ended + LATELY_ERRORS * ((ended + 1.0) * cv2.max(1.0)).sqrt()))
    }

    /// How much is known: ended tasks, the older the less.
    pub(super) fn evidence(&self) -> f64 {
        self.all.weight
    }

    /// A completion has been reported at least once, so "none reported" means none ended.
    pub fn reported(&self) -> bool {
        self.seen > 0
    }

    /// What to believe now, given the hint and the ages of running tasks.
    pub fn estimate(&self, hint_s: f64, ages_s: &[f64]) -> ServiceEstimate {
        let hint = believed_s(sane(hint_s, 10.0));
        let (weight, sum) = if self.all.weight > 0.0 { (self.all.weight, self.all.sum) } else { (1.0, hint) };
        let mut mean = sum / weight;
        if self.recent.weight >= RECENT_MIN {
            mean = self.near_recent(mean);
        }
        let (mut older, mut capped, mut count) = (0.0, 0.0, 0.0);
        let usual = mean + OLD_DEVIATIONS * self.all.variance().sqrt();
        for age in ages_s.iter().take(AGES_MAX).filter(|age| age.is_finite() && **age > mean) {
            let age = age.min(TIME_MAX_S);
            older += age;
            capped += age.min(usual);
            count += 1.0;
        }
        let surprising = self.all.weight < RECENT_MIN || count >= OLD_SHARE * ages_s.len() as f64;
        mean = ((mean * weight + if surprising { older } else { capped }) / (weight + count)).max(SERVICE_MIN_S);
        let sd = if self.all.weight > 1.0 { self.all.variance().sqrt() } else { mean };
        mean = mean.max(self.least_s(mean, (sd / mean).powi(2)));
        let hazard = if self.busy_s > mean { (self.ended / self.busy_s).min(1.0 / mean) } else { 1.0 / mean };
        ServiceEstimate { mean_s: mean, cv2: (sd / mean).powi(2), sd_s: sd, hazard_per_s: hazard }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_has_become_heavier_shows_before_its_long_tasks_have_ended() {
        let mut service = ServiceTime::default();
        let mut tick = |ended: u32, seconds: u32| {
            for _ in 0..seconds {
                (0..ended).for_each(|_| service.ended(1.5));
                service.busy_time(1.0, 15.0, f64::from(ended), 30.0);
            }
            service.estimate(10.0, &[]).mean_s
        };
        assert!((tick(10, 120) - 1.5).abs() < 0.01, "what fifteen workers get done agrees");
        // Only the short ones end: ten seconds later fifteen workers have ended a fifth of what they used to.
        assert!(tick(2, 10) > 2.5, "the mean follows what is done, not only what has ended");
        service.forget_window();
        assert_eq!(service.least_s(1.5, 1.0), 0.0, "after a gap nothing is known of what is done");
    }

    /// So many busy workers, of whom `ended` end a task of `service_s` in each of so many seconds.
    fn work(service: &mut ServiceTime, seconds: u32, busy: f64, ended: u32, service_s: f64) -> f64 {
        for _ in 0..seconds {
            (0..ended).for_each(|n| service.ended(service_s * if n % 2 == 0 { 0.1 } else { 1.9 }));
            service.busy_time(1.0, busy, f64::from(ended), 30.0);
        }
        service.estimate(10.0, &[]).mean_s
    }

    #[test]
    fn work_that_has_trebled_is_believed_before_a_start_would_have_ended() {
        let mut service = ServiceTime::default();
        assert!((work(&mut service, 120, 15.0, 10, 1.5) - 1.5).abs() < 0.01);
        // Fifteen workers end three a second where they ended ten: what has ended says nothing yet, being the short ones.
        let mean_s = work(&mut service, 8, 15.0, 3, 1.5);
        assert!((3.0..=5.0).contains(&mean_s), "{mean_s}");
    }

    #[test]
    fn one_that_only_seemed_to_is_forgotten_with_the_next_tasks() {
        let mut service = ServiceTime::default();
        work(&mut service, 120, 15.0, 10, 1.5);
        work(&mut service, 8, 15.0, 3, 1.5);
        let mean_s = work(&mut service, 30, 15.0, 10, 1.5);
        assert!((mean_s - 1.5).abs() < 0.2, "{mean_s}");
    }

    #[test]
    fn regular_tasks_that_began_together_have_not_become_heavier() {
        let mut service = ServiceTime::default();
        for _ in 0..40 {
            // Twenty of ten seconds each begin at once, run, and end together; then nothing for a minute.
            for second in 1..=70 {
                if second == 11 {
                    (0..20).for_each(|n| service.ended(9.5 + 0.05 * f64::from(n)));
                }
                service.busy_time(1.0, if second < 11 { 20.0 } else { 0.0 }, if second == 11 { 20.0 } else { 0.0 }, 30.0);
                assert!(service.evidence() < 1.0 || service.all.mean() < 10.5, "{}", service.all.mean());
            }
        }
    }

    #[test]
    fn nothing_seen_gives_the_hint() {
        let estimate = ServiceTime::default().estimate(10.0, &[]);
        assert_eq!(estimate.mean_s, 10.0);
        assert_eq!(estimate.hazard_per_s, 0.1);
    }

    #[test]
    fn the_first_task_replaces_the_hint() {
        let mut service = ServiceTime::default();
        service.ended(2.0);
        assert!((service.estimate(10.0, &[]).mean_s - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_change_of_work_is_learned_within_a_hundred_tasks() {
        let mut service = ServiceTime::default();
        (0..2000).for_each(|n| service.ended(if n % 2 == 0 { 1.0 } else { 2.0 }));
        assert!((service.estimate(10.0, &[]).mean_s - 1.5).abs() < 0.1);
        (0..100).for_each(|n| service.ended(if n % 2 == 0 { 4.0 } else { 5.0 }));
        assert!((service.estimate(10.0, &[]).mean_s - 4.5).abs() < 0.5);
    }

    #[test]
    fn long_tasks_count_before_the_first_of_them_ends() {
        let ages = [600.0; 30];
        assert!(ServiceTime::default().estimate(10.0, &ages).mean_s > 500.0);
        assert_eq!(ServiceTime::default().estimate(10.0, &[3.0; 30]).mean_s, 10.0);
    }

    #[test]
    fn busy_workers_never_get_free_faster_than_the_mean_says() {
        let mut service = ServiceTime::default();
        (0..100).for_each(|_| service.ended(2.0));
        service.busy_time(1.0, 10.0, 50.0, 5.0);
        assert!(service.estimate(10.0, &[]).hazard_per_s <= 0.5);
        (0..600).for_each(|_| service.busy_time(1.0, 10.0, 1.0, 5.0));
        assert!((service.estimate(10.0, &[]).hazard_per_s - 0.1).abs() < 0.01);
    }

    #[test]
    fn nonsense_is_survived() {
        let mut service = ServiceTime::default();
        service.ended(f64::NAN);
        service.ended(-5.0);
        let estimate = service.estimate(f64::INFINITY, &[f64::NAN, f64::INFINITY]);
        assert!(estimate.mean_s.is_finite() && estimate.mean_s > 0.0);
    }

    #[test]
    fn tasks_that_took_no_time_are_survived() {
        // What the sidecar of a quick Celery queue reported: each of thousands of tasks took 0.0 ms.
        let mut service = ServiceTime::default();
        for _ in 0..5000 {
            service.ended(0.0);
            let estimate = service.estimate(10.0, &[]);
            assert!(estimate.mean_s >= SERVICE_MIN_S && estimate.mean_s.is_finite(), "{estimate:?}");
        }
    }
}
