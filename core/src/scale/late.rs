//! Comes in: arrivals and backlog per tick. Goes out: how many messages have waited longer than promised, and how many of those a missing worker
//! costs. Leaves to others: what to do about it. First in, first out is assumed, as brokers deliver.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::numeric::{decay, within};

/// Entries of the arrival window at most; longer promises are counted in coarser steps.
const ENTRIES_MAX: usize = 600;
/// Weight of the first guess, one late message per missing worker, in missing workers.
const PRIOR_WORKERS: f64 = 5.0;

/// Late messages, by count: what has come within the last `max_wait_s` can't be late, and whatever waits beyond that number is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lateness {
    /// Weighted late messages.
    late: f64,
    /// Weighted workers that were missing when load rose, in units of the messages one start latency of a worker serves.
    missing: f64,
    #[serde(skip)]
    window: VecDeque<(f64, f64)>,
    #[serde(skip)]
    recent: f64,
}

/// One tick.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LateTick {
    /// Now, seconds.
    pub now_s: f64,
    /// Seconds since the last.
    pub dt_s: f64,
    /// Messages that have come since the last.
    pub arrived: f64,
    /// Messages waiting now.
    pub backlog: f64,
    /// Workers found lacking by a rise of the load, in units of `max(L / s, 1)` messages.
    pub missing: f64,
}

impl Lateness {
    /// Takes one tick in; returns how many messages have just become late.
    pub fn observe(&mut self, tick: LateTick, max_wait_s: f64, half_life_s: f64) -> f64 {
        let LateTick { now_s, dt_s, arrived, backlog, missing } = tick;
        match self.window.back_mut().filter(|(at, _)| now_s - *at < max_wait_s / ENTRIES_MAX as f64) {
            Some((_, count)) => *count += arrived,
            None => self.window.push_back((now_s, arrived)),
        }
        self.recent += arrived;
        let mut aged = 0.0;
        while let Some((_, count)) = self.window.front().filter(|(at, _)| now_s - *at > max_wait_s) {
            aged += count;
            self.window.pop_front();
        }
        self.recent = (self.recent - aged).max(0.0);
        let late = within(backlog - self.recent, 0.0, aged);
        let keep = decay(dt_s, half_life_s);
        self.late = self.late * keep + late;
        self.missing = self.missing * keep + missing;
        late
    }

    /// Starts per second that the waiting messages need so that none of them waits longer than `limit_s` in all: the largest, over the messages in
    /// order, of place in the queue by time left. What is late already, or will be within `soonest_s`, can't be helped and counts as due then.
    pub fn starts_needed_per_s(&self, now_s: f64, backlog: f64, limit_s: f64, soonest_s: f64) -> f64 {
        let (mut ahead, mut needed) = (backlog, 0.0f64);
        for (at, count) in self.window.iter().rev() {
            if ahead <= 0.0 {
                break;
            }
            if *count > 0.0 {
                needed = needed.max(ahead / (limit_s - (now_s - at)).max(soonest_s));
                ahead -= count;
            }
        }
        if ahead > 0.0 { needed.max(ahead / soonest_s) } else { needed }
    }

    /// How long the first of the messages that wait has waited, seconds, by the order in which they came. What came before the window is as old as the
    /// window at least: `max_wait_s`.
    pub fn waited_s(&self, now_s: f64, backlog: f64, max_wait_s: f64) -> f64 {
        if backlog <= 0.0 {
            return 0.0;
        }
        let mut after = 0.0;
        for (at, count) in self.window.iter().rev() {
            after += count;
            if after >= backlog {
                return within(now_s - at, 0.0, max_wait_s);
            }
        }
        max_wait_s
    }

    /// Late messages per missing worker, in units of the messages one start latency of a worker serves; 1 until learned.
    pub fn per_missing_worker(&self) -> f64 {
        (self.late + PRIOR_WORKERS) / (self.missing + PRIOR_WORKERS)
    }

    /// Forgets the window, after a gap in the figures.
    pub fn forget_window(&mut self) {
        self.window.clear();
        self.recent = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arrivals: &[f64], backlogs: &[f64], max_wait_s: f64) -> f64 {
        let mut lateness = Lateness::default();
        arrivals
            .iter()
            .zip(backlogs)
            .enumerate()
            .map(|(tick, (arrived, backlog))| {
                lateness.observe(LateTick { now_s: tick as f64, dt_s: 1.0, arrived: *arrived, backlog: *backlog, missing: 0.0 }, max_wait_s, 3600.0)
            })
            .sum()
    }

    #[test]
    fn messages_older_than_the_promise_are_late_once() {
        let arrivals = [10.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(run(&arrivals, &[10.0, 10.0, 9.0, 8.0, 4.0, 4.0, 3.0, 0.0], 3.0), 4.0);
    }

    #[test]
    fn a_queue_that_moves_in_time_has_no_late_messages() {
        assert_eq!(run(&[5.0; 50], &[14.0; 50], 3.0), 0.0);
        assert!(run(&[5.0; 50], &[40.0; 50], 3.0) > 200.0);
    }

    #[test]
    fn the_first_of_the_messages_that_wait_is_as_old_as_its_place_in_the_order_says() {
        let mut lateness = Lateness::default();
        for tick in 0..5 {
            lateness.observe(LateTick { now_s: f64::from(tick), dt_s: 1.0, arrived: 10.0, backlog: 0.0, missing: 0.0 }, 10.0, 3600.0);
        }
        let waited = |backlog: f64| lateness.waited_s(4.0, backlog, 10.0);
        assert_eq!([0.0, 1.0, 10.0, 11.0, 50.0].map(waited), [0.0, 0.0, 0.0, 1.0, 4.0]);
        assert_eq!(waited(51.0), 10.0, "older than what was seen to come");
    }

    #[test]
    fn one_late_message_per_missing_worker_is_the_first_guess() {
        let mut lateness = Lateness::default();
        assert_eq!(lateness.per_missing_worker(), 1.0);
        lateness.observe(LateTick { dt_s: 1.0, missing: 45.0, ..LateTick::default() }, 10.0, 3600.0);
        assert!((lateness.per_missing_worker() - 0.1).abs() < 1e-9);
    }
}
