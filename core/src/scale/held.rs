//! Comes in: what lies at the broker and what consumers hold of it, tick by tick. Goes out: what consumers have just given back, and whether somebody has to
//! be there for what is held. Leaves to others: what waits for more pods.
//!
//! A message that a consumer holds is no other worker's to take: one that is not due yet (ETA, countdown, retry), prefetched, another fleet's, or left
//! behind by a worker that was killed. None of them calls for pods. One pod stays where something is held, and one comes where nobody is.

use serde::{Deserialize, Serialize};

use super::observe::Backlog;

/// What was given back is not counted as waiting for this long, seconds, while pods are there that can take it again: who takes it holds it until it
/// is due. What still waits after that is theirs who come.
const GIVEN_BACK_S: f64 = 20.0;
/// With nobody there a pod comes when something has been held for this long, seconds; twice as long each time, since it may be another fleet's work.
const FIRST_WAIT_S: f64 = 60.0;
/// Longest such time, seconds: Redis gives back what a dead Celery worker held after an hour.
const WAIT_MAX_S: f64 = 3600.0;

/// Memory of what consumers hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Held {
    /// Since when something has been held without a pause, with nobody there.
    #[serde(skip)]
    since_s: Option<f64>,
    /// How long it must have been before a pod comes; 0 for the first time.
    wait_s: f64,
    /// Messages waiting, held, and held without running, at the last look.
    #[serde(skip)]
    last: Option<(f64, f64, f64)>,
    /// Messages given back that wait still, and when the last of them came.
    #[serde(skip)]
    back: (f64, f64),
}

impl Held {
    /// Takes one tick in; returns how many of the waiting messages were given back so lately that the pods there take them again. `resting` is what
    /// was held and did not run.
    pub fn given_back(&mut self, now_s: f64, backlog: &Backlog, resting: f64, pods: u32) -> f64 {
        let held = backlog.unacked.unwrap_or(0.0);
        if let Some((ready, held_before, resting_before)) = self.last.replace((backlog.ready, held, resting)) {
            let came = (held_before - held).min(backlog.ready - ready).min(resting_before);
            if came > 0.0 {
                self.back = (self.back.0 + came, now_s);
            }
        }
        let lately = (0.0..GIVEN_BACK_S).contains(&(now_s - self.back.1));
        self.back.0 = if lately && pods > 0 { self.back.0.min(backlog.ready) } else { 0.0 };
        self.back.0
    }

    /// Whether a pod has to come for what is held while nobody is there.
    pub fn calls(&mut self, now_s: f64, resting: f64, pods: u32) -> bool {
        if resting <= 0.0 || pods > 0 {
            self.since_s = None;
            return false;
        }
        let since_s = *self.since_s.get_or_insert(now_s);
        let wait_s = if self.wait_s > 0.0 { self.wait_s } else { FIRST_WAIT_S };
        if now_s - since_s < wait_s {
            return false;
        }
        self.since_s = None;
        self.wait_s = (2.0 * wait_s).min(WAIT_MAX_S);
        true
    }

    /// After a gap what was seen before does not join what is seen now.
    pub fn forget(&mut self) {
        *self = Self { wait_s: self.wait_s, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(ready: f64, unacked: f64) -> Backlog {
        Backlog { ready, unacked: Some(unacked), ..Backlog::default() }
    }

    #[test]
    fn what_moves_back_from_resting_is_given_back_and_what_ran_is_not() {
        let mut held = Held::default();
        assert_eq!(held.given_back(0.0, &backlog(0.0, 12.0), 10.0, 2), 0.0);
        assert_eq!(held.given_back(1.0, &backlog(12.0, 0.0), 0.0, 2), 10.0, "two of them ran: theirs is another's now");
        assert_eq!(held.given_back(2.0, &backlog(4.0, 8.0), 8.0, 2), 4.0);
        assert_eq!(held.given_back(30.0, &backlog(4.0, 8.0), 8.0, 2), 0.0, "nobody took them");
        assert_eq!(held.given_back(31.0, &backlog(12.0, 0.0), 0.0, 0), 0.0, "nobody is there to take them");
    }

    #[test]
    fn with_nobody_there_a_pod_comes_later_each_time() {
        let mut held = Held::default();
        let calls: Vec<u32> = (0..1000).filter(|second| held.calls(f64::from(*second), 3.0, 0)).collect();
        assert_eq!(calls, [60, 181, 422, 903]);
        assert!(!held.calls(2000.0, 0.0, 0) && !held.calls(2001.0, 3.0, 1));
    }
}
