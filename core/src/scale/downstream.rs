//! Comes in: service times, running tasks, backlog. Goes out: a limit where more workers only make every task slower (a database, an API with a
//! fixed throughput). Leaves to others: parking workers down to it and calling them back.
//!
//! Slower tasks among more workers look the same whether the tasks got heavier or the workers crowd each other. Only a trial tells: fewer workers
//! for a few service times. If tasks begun since are fast again and throughput has held, the limit stays; if they are as slow, it is dropped.

use serde::{Deserialize, Serialize};

use super::numeric::{decay, within};
use super::service::{Moments, SERVICE_MIN_S};

/// Suspicion: tasks take this many times what they took among [`CROWD`] times fewer workers,
const SLOWER: f64 = 2.0;
/// by this many standard errors.
const ERRORS: f64 = 4.0;
/// See [`SLOWER`].
const CROWD: f64 = 1.5;
/// The trial leaves this many times the workers that carry the present throughput at the former speed,
const MARGIN: f64 = 1.25;
/// and at most this share of the present ones: the two explanations must differ in what they predict.
const TRIAL_SHARE: f64 = 0.6;
/// but at least this share, since a trial of tasks that are heavier costs what these would have done.
const TRIAL_SHARE_MIN: f64 = 0.4;
/// Fewest workers a trial may leave.
const LIMIT_MIN: f64 = 2.0;
/// A raised limit is reached with this share of its workers at work.
const REACHED_SHARE: f64 = 0.9;
/// A trial is measured for so many service times at least, so that pods that began together don't end together.
const TRIAL_SERVICES: f64 = 3.0;
/// and for so many at most: what is not plain by then costs more waits than it is worth.
const TRIAL_SERVICES_MAX: f64 = 6.0;
/// A trial ends without a verdict after this many service times.
const TRIAL_MAX_SERVICES: f64 = 25.0;
/// A verdict needs this many completions at least,
const TRIAL_ENDED_MIN: f64 = 40.0;
/// and a difference of this many standard errors from the middle of what the two explanations predict.
const VERDICT_ERRORS: f64 = 2.5;
/// First pause between trials, seconds; doubles with each one that changed nothing, up to [`PAUSE_MAX_S`].
const PAUSE_S: f64 = 150.0;
/// Longest pause between trials, seconds.
const PAUSE_MAX_S: f64 = 4800.0;
/// A retest allows this much more than the limit.
const RETEST: f64 = 1.5;
/// Half-life of what is known of service times at each number of workers, in completions.
const HALF_LIFE: f64 = 100.0;
/// Weight of completions before that counts.
const WEIGHT_MIN: f64 = 20.0;
/// The number of workers must have stood for this many service times: after a rise short tasks end first, and make all look fast.
const SETTLED_SERVICES: f64 = 3.0;
/// and this share of them must be at work. Sorting by workers rather than by running tasks matters: many tasks run at once when they are long.
const BUSY_SHARE: f64 = 0.6;
/// Largest cv² (of a lognormal with the spread seen) at which the cause can be told within a few dozen tasks.
const CV2_MAX: f64 = 1.8;
/// and at least this is reckoned with: a sample may look more even than it is.
const CV2_MIN: f64 = 0.1;
/// A trial counts from this many service times after the limit is reached.
const TRIAL_SETTLES_SERVICES: f64 = 1.5;
/// Numbers of workers that differ by less than this factor are taken together.
const BUCKET: f64 = 1.25;
/// Buckets at most: up to some seven thousand workers.
const BUCKETS_MAX: usize = 40;
/// Half-life of the rate of each worker, in completions.
const METER_HALF_LIFE: f64 = 100.0;

/// What the law has learned of a shared bottleneck.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Downstream {
    /// Logarithms of service times by number of workers, in steps of [`BUCKET`]: crowding moves them all alike, and one enormous task does not
    /// move their mean.
    by_workers: Vec<Moments>,
    /// Workers allowed; 0 for no limit.
    limit: f64,
    /// Completions per second that one worker must reach under the limit: the middle of what crowding and heavier tasks predict. The limit is on
    /// trial for as long as it stands.
    #[serde(alias = "crowded_rate")]
    relieved_rate: f64,
    /// Trials that changed nothing, in a row.
    fruitless: u32,
    /// No trial of fewer workers, and none of more, before these times.
    lower_at_s: f64,
    raise_at_s: f64,
    /// Logarithms of the last few dozen service times.
    #[serde(skip)]
    recent: Moments,
    #[serde(skip)]
    meter: Meter,
    /// Bucket of the present number of workers, and since when it is that.
    #[serde(skip)]
    level: (usize, f64),
    #[serde(skip)]
    trial: Option<Trial>,
}

/// Completions and the time worked for them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Meter {
    ended: f64,
    busy_s: f64,
    since_s: f64,
}

impl Meter {
    fn add(&mut self, tick: &Tick<'_>) {
        let ended = tick.ended_s.len() as f64;
        let keep = decay(ended, METER_HALF_LIFE);
        self.ended = self.ended * keep + ended;
        self.busy_s = self.busy_s * keep + tick.busy * tick.dt_s;
    }

    /// Completions per second of one worker.
    fn rate(&self) -> f64 {
        if self.busy_s > 0.0 { self.ended / self.busy_s } else { 0.0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Trial {
    since_s: f64,
    /// Workers and the rate of each before.
    busy: f64,
    rate: f64,
    /// Completions that the rate was taken from, and the squared spread of service times.
    ended: f64,
    cv2: f64,
    /// The limit before; 0 for none.
    former: f64,
    /// Since when there are as many workers as the trial asks for.
    reached_s: Option<f64>,
}

/// One tick.
#[derive(Debug, Clone, Copy)]
pub struct Tick<'a> {
    /// Now, seconds.
    pub now_s: f64,
    /// Seconds since the last.
    pub dt_s: f64,
    /// Service times of tasks ended since the last.
    pub ended_s: &'a [f64],
    /// Tasks running.
    pub busy: f64,
    /// Ready workers.
    pub workers: f64,
    /// No worker is idle and messages wait.
    pub saturated: bool,
    /// Mean service time.
    pub service_s: f64,
    /// Workers the other rules wish for.
    pub wished: f64,
}

impl Downstream {
    /// Takes one tick in; returns the most workers that are of use, and whether this is a trial (parked workers should stay at hand).
    pub fn limit(&mut self, tick: &Tick<'_>) -> Option<(f64, bool)> {
        let level = bucket(tick.workers);
        if level.abs_diff(self.level.0) > 1 || self.level.1 > tick.now_s {
            self.unsettle(level, tick.now_s);
        }
        if let Some(trial) = self.trial {
            self.judge(trial, tick);
        } else if tick.now_s - self.level.1 >= SETTLED_SERVICES * tick.service_s {
            self.note(level, tick);
            self.consider(tick);
        }
        (self.limit > 0.0).then_some((self.limit, self.trial.is_some()))
    }

    /// A limit stands, found by a trial.
    pub fn limited(&self) -> bool {
        self.limit > 0.0 && self.trial.is_none()
    }

    /// Ends a trial without a verdict, after a gap in the figures.
    pub fn forget_trial(&mut self) {
        if let Some(trial) = self.trial.take() {
            self.limit = trial.former;
        }
        self.level.1 = f64::INFINITY;
    }

    /// The number of workers has changed: what is measured of the present starts anew.
    fn unsettle(&mut self, level: usize, now_s: f64) {
        self.level = (level, now_s);
        self.meter = Meter::default();
        self.recent = Moments::default();
    }

    /// Notes how long tasks take among so many workers.
    fn note(&mut self, level: usize, tick: &Tick<'_>) {
        if tick.busy < BUSY_SHARE * tick.workers {
            return;
        }
        if self.by_workers.len() <= level {
            self.by_workers.resize(level + 1, Moments::default());
        }
        for service in tick.ended_s.iter().map(|service| service.max(SERVICE_MIN_S).ln()) {
            self.by_workers[level].add(service, decay(1.0, HALF_LIFE));
            self.recent.add(service, decay(1.0, HALF_LIFE));
        }
        self.meter.add(tick);
    }

    /// The shortest mean logarithm of service times among at most `workers`, and its standard error.
    fn health(&self, workers: f64) -> Option<(f64, f64)> {
        let known = self.by_workers.iter().take(bucket(workers) + 1).filter(|moments| moments.weight >= WEIGHT_MIN);
        known.map(mean_and_error).min_by(|a, b| (a.0 + a.1).total_cmp(&(b.0 + b.1)))
    }

    fn consider(&mut self, tick: &Tick<'_>) {
        if !tick.saturated || self.meter.ended < TRIAL_ENDED_MIN {
            return;
        }
        if self.limit > 0.0 && self.meter.rate() < self.relieved_rate {
            // Under the limit tasks run no faster than before it: it is of no use.
            self.by_workers.clear();
            self.lower_at_s = tick.now_s + self.pause(false);
            self.limit = 0.0;
            return;
        }
        if self.limit > 0.0 && tick.now_s >= self.raise_at_s && tick.wished > self.limit {
            return self.begin(tick, RETEST * self.limit);
        }
        let Some((health, health_error)) = self.health(tick.busy / CROWD).filter(|_| self.recent.weight >= WEIGHT_MIN) else {
            return;
        };
        let (recent, error) = mean_and_error(&self.recent);
        let slower = recent - health;
        let alike = self.recent.variance().exp() - 1.0 <= CV2_MAX;
        if tick.now_s >= self.lower_at_s && alike && slower >= SLOWER.ln() && slower >= ERRORS * error.hypot(health_error) {
            let carries = tick.busy * (-slower).exp() * MARGIN;
            self.begin(tick, within(carries, TRIAL_SHARE_MIN * tick.busy, TRIAL_SHARE * tick.busy).ceil().max(LIMIT_MIN));
        }
    }

    fn begin(&mut self, tick: &Tick<'_>, limit: f64) {
        let raising = self.limit > 0.0 && limit > self.limit;
        if raising || limit < tick.busy {
            self.trial = Some(Trial {
                since_s: tick.now_s,
                busy: tick.busy,
                rate: self.meter.rate(),
                ended: self.meter.ended.max(1.0),
                cv2: within(self.recent.variance().exp() - 1.0, CV2_MIN, CV2_MAX),
                former: self.limit,
                reached_s: None,
            });
            self.limit = limit;
        }
    }

    /// Crowding predicts that each worker's rate changes inversely to their number; heavier tasks predict that it stays. The middle decides.
    fn judge(&mut self, mut trial: Trial, tick: &Tick<'_>) {
        let raising = trial.former > 0.0 && self.limit > trial.former;
        let reached = if raising { tick.busy >= REACHED_SHARE * self.limit.min(tick.wished) } else { tick.busy <= self.limit };
        let patience = TRIAL_MAX_SERVICES * tick.service_s;
        let (mut undecided, mut likelier) = (false, 0.0);
        match trial.reached_s {
            None if reached => {
                trial.reached_s = Some(tick.now_s);
                self.meter = Meter { since_s: tick.now_s + TRIAL_SETTLES_SERVICES * tick.service_s, ..Meter::default() };
            }
            Some(_) if tick.now_s > self.meter.since_s => {
                self.meter.add(tick);
                let measured_s = tick.now_s - self.meter.since_s;
                if self.meter.ended >= TRIAL_ENDED_MIN && measured_s >= TRIAL_SERVICES * tick.service_s {
                    // How far each worker's rate is from the middle of both predictions, in logarithms and in standard errors.
                    let beyond = (self.meter.rate() / trial.rate).ln() - 0.5 * (trial.busy / tick.busy).ln();
                    let error = (trial.cv2 * (1.0 / trial.ended + 1.0 / self.meter.ended)).sqrt();
                    if beyond.abs() >= VERDICT_ERRORS * error {
                        return self.conclude(trial, raising, (beyond > 0.0) != raising, tick);
                    }
                    undecided = measured_s >= TRIAL_SERVICES_MAX * tick.service_s;
                    likelier = beyond;
                }
            }
            _ => {}
        }
        self.trial = Some(trial);
        if undecided && !raising && likelier < 0.0 {
            // Where it is not plain that fewer do as much, they don't.
            return self.conclude(trial, raising, false, tick);
        }
        if undecided || (trial.reached_s.is_some() && !tick.saturated) || tick.now_s - trial.since_s > patience {
            // Nothing can be told: the limit before, and another trial later. But a raise so small that it tells nothing, up to all that is wished,
            // does no harm either.
            (self.lower_at_s, self.raise_at_s) = (tick.now_s + PAUSE_S, tick.now_s + PAUSE_S);
            let harmless = raising && undecided && tick.wished <= self.limit;
            self.end(if harmless { 0.0 } else { trial.former }, tick);
        }
    }

    fn conclude(&mut self, trial: Trial, raising: bool, crowded: bool, tick: &Tick<'_>) {
        let pause = self.pause(crowded != raising);
        let limit = match (raising, crowded) {
            // As much from fewer.
            (false, true) => {
                self.relieved_rate = trial.rate * (trial.busy / self.limit).sqrt();
                self.raise_at_s = tick.now_s + pause;
                self.limit
            }
            // Fewer did less: tasks are heavier now, or the limit before was low enough; then perhaps too low.
            (false, false) => {
                (self.lower_at_s, self.raise_at_s) = (tick.now_s + pause, tick.now_s);
                trial.former
            }
            // More did no more.
            (true, true) => {
                self.raise_at_s = tick.now_s + pause;
                trial.former
            }
            // More did more: go on, until nothing asks for more.
            (true, false) => {
                (self.lower_at_s, self.raise_at_s) = (tick.now_s + pause, tick.now_s);
                self.relieved_rate = 0.0;
                if self.limit < tick.wished { self.limit } else { 0.0 }
            }
        };
        if limit <= 0.0 {
            self.by_workers.clear();
        }
        self.end(limit, tick);
    }

    fn end(&mut self, limit: f64, tick: &Tick<'_>) {
        self.trial = None;
        self.limit = limit;
        self.unsettle(bucket(tick.workers), tick.now_s);
    }

    /// How long to leave it at that; longer each time in vain.
    fn pause(&mut self, fruitful: bool) -> f64 {
        self.fruitless = if fruitful { 0 } else { self.fruitless.saturating_add(1) };
        (PAUSE_S * f64::from(self.fruitless.min(8)).exp2()).min(PAUSE_MAX_S)
    }
}

fn mean_and_error(moments: &Moments) -> (f64, f64) {
    (moments.mean(), (moments.variance() / moments.weight).sqrt())
}

fn bucket(workers: f64) -> usize {
    (workers.max(1.0).ln() / BUCKET.ln()).floor().min(BUCKETS_MAX as f64 - 1.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fleet that gets `wished` workers unless limited, with tasks of `service(busy)` seconds; returns the limit at the end.
    fn play(seconds: u32, wished: impl Fn(u32) -> f64, service: impl Fn(u32, f64) -> f64) -> Downstream {
        let mut downstream = Downstream::default();
        let (mut busy, mut due) = (0.0f64, 0.0f64);
        for tick in 0..seconds {
            let wish = wished(tick);
            let each = service(tick, busy);
            due += busy / each;
            let ended = vec![each; due.floor() as usize];
            due -= ended.len() as f64;
            let limit = downstream.limit(&Tick {
                now_s: f64::from(tick),
                dt_s: 1.0,
                ended_s: &ended,
                workers: busy,
                busy,
                saturated: true,
                service_s: each,
                wished: wish,
            });
            busy = limit.map_or(wish, |(limit, _)| wish.min(limit));
        }
        downstream
    }

    #[test]
    fn crowding_is_found_and_limited() {
        let found = play(600, |tick| if tick < 100 { 8.0 } else { 40.0 }, |_, busy| 2.0 * (busy / 12.0).max(1.0));
        assert!(found.limited() && (10.0..20.0).contains(&found.limit), "{found:?}");
    }

    #[test]
    fn heavier_tasks_are_not_taken_for_crowding() {
        let heavier = play(600, |tick| if tick < 100 { 8.0 } else { 24.0 }, |tick, _| if tick < 100 { 2.0 } else { 6.0 });
        assert!(!heavier.limited() && heavier.trial.is_none(), "{heavier:?}");
    }

    #[test]
    fn a_bottleneck_that_goes_away_is_found_out() {
        let gone = play(
            3000,
            |tick| if tick < 100 { 8.0 } else { 40.0 },
            |tick, busy| {
                if tick < 400 { 2.0 * (busy / 12.0).max(1.0) } else { 2.0 }
            },
        );
        assert!(!gone.limited(), "{gone:?}");
    }

    #[test]
    fn steady_work_is_never_suspected() {
        let steady = play(2000, |tick| 10.0 + f64::from(tick % 7), |_, _| 2.0);
        assert!(!steady.limited() && steady.fruitless == 0, "{steady:?}");
    }
}
