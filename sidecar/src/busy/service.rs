//! How long tasks keep the worker busy. In: samples of activity with their time. Out: the mean over the tasks that ended, and their number.
//! Left to others: where activity is seen (`busy`), what the controller makes of it (`core::scale`).

use crate::input::Activity;
use qscaler_core::message::{Busy, EndedTasks};

/// A task that came and went between two looks took this long, milliseconds: not nothing. What many of them take shows in the looks that find one.
const UNSEEN_MS: f64 = 1.0;

/// Tasks that ended, and the busy time behind them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceMeter {
    /// The sample before.
    last: Option<(Activity, u64)>,
    /// Idle was seen before the busy time under way began: only then its start is known.
    start_seen: bool,
    /// Busy time that no ended task accounts for yet, milliseconds times tasks.
    busy_ms: f64,
    /// Ended since the last report that arrived.
    tasks: u32,
    /// Their busy time.
    ended_ms: f64,
    /// Ended since the worker's start.
    total: u64,
    /// Something counts tasks.
    counts: bool,
}

impl ServiceMeter {
    /// Takes one sample in. Samples of one worker process only: call [`Self::restart`] between two.
    pub fn observe(&mut self, activity: &Activity, at_ms: u64) {
        let before = self.last.replace((activity.clone(), at_ms));
        if let Some(ended) = activity.ended {
            self.count(u64::from(ended.tasks), f64::from(ended.tasks) * ended.mean_ms);
            return;
        }
        let Some((before, before_ms)) = before else {
            self.start_seen = activity.busy == Busy::Idle;
            return;
        };
        let span_ms = at_ms.saturating_sub(before_ms) as f64;
        if let (Some(processed), Some(processed_before)) = (activity.processed, before.processed) {
            self.busy_ms += span_ms * f64::from(before.active.unwrap_or(u32::from(before.busy == Busy::Busy)));
            let ended = processed.saturating_sub(processed_before);
            if ended > 0 {
                // The time belongs to the tasks that ran at the look before, evenly: those that have ended take theirs with them, the rest goes on.
                let ran = u64::from(before.active.unwrap_or(u32::from(before.busy == Busy::Busy)));
                let share = if ended < ran { self.busy_ms * ended as f64 / ran as f64 } else { self.busy_ms };
                self.busy_ms -= share;
                self.count(ended, share.max(ended.saturating_sub(ran) as f64 * UNSEEN_MS));
            }
            return;
        }
        match (before.busy, activity.busy) {
            (Busy::Idle, Busy::Busy) => (self.start_seen, self.busy_ms) = (true, 0.0),
            (Busy::Busy, Busy::Busy) => self.busy_ms += span_ms,
            (Busy::Busy, Busy::Idle) => {
                let busy_ms = std::mem::take(&mut self.busy_ms) + span_ms;
                if std::mem::replace(&mut self.start_seen, true) {
                    self.count(1, busy_ms);
                }
            }
            (_, Busy::Unknown) => self.start_seen = false,
            _ => {}
        }
    }

    fn count(&mut self, tasks: u64, busy_ms: f64) {
        self.counts = true;
        self.total += tasks;
        self.tasks = self.tasks.saturating_add(u32::try_from(tasks).unwrap_or(u32::MAX));
        self.ended_ms += busy_ms;
    }

    /// Another worker process: its counters start anew.
    pub fn restart(&mut self) {
        *self = Self { tasks: self.tasks, ended_ms: self.ended_ms, ..Self::default() };
    }

    /// The tasks that ended since [`Self::delivered`]. None: there were none.
    #[must_use]
    pub fn service(&self) -> Option<EndedTasks> {
        (self.tasks > 0).then(|| EndedTasks { tasks: self.tasks, mean_ms: self.ended_ms / f64::from(self.tasks) })
    }

    /// Tasks ended since the worker's start; None: nothing counts them.
    #[must_use]
    pub fn tasks_done(&self) -> Option<u64> {
        self.counts.then_some(self.total)
    }

    /// A report that said this has arrived.
    pub fn delivered(&mut self, service: &EndedTasks) {
        self.tasks = self.tasks.saturating_sub(service.tasks);
        self.ended_ms = if self.tasks == 0 { 0.0 } else { (self.ended_ms - service.mean_ms * f64::from(service.tasks)).max(0.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(busy: Busy) -> Activity {
        Activity { busy, ..Activity::unknown() }
    }

    fn counted(active: u32, processed: u64) -> Activity {
        Activity {
            busy: if active > 0 { Busy::Busy } else { Busy::Idle },
            active: Some(active),
            processed: Some(processed),
            ended: None,
            taking: false,
        }
    }

    #[test]
    fn a_task_is_the_time_between_two_idle_samples() {
        let mut meter = ServiceMeter::default();
        for (at_ms, busy) in [(0, Busy::Idle), (1_000, Busy::Busy), (2_000, Busy::Busy), (5_000, Busy::Idle), (6_000, Busy::Idle)] {
            meter.observe(&sample(busy), at_ms);
        }
        assert_eq!(meter.service(), Some(EndedTasks { tasks: 1, mean_ms: 4_000.0 }));
        assert_eq!(meter.tasks_done(), Some(1));
    }

    #[test]
    fn a_task_whose_start_was_not_seen_is_not_counted() {
        let mut meter = ServiceMeter::default();
        for (at_ms, busy) in
            [(0, Busy::Busy), (1_000, Busy::Idle), (2_000, Busy::Busy), (3_000, Busy::Unknown), (4_000, Busy::Busy), (5_000, Busy::Idle)]
        {
            meter.observe(&sample(busy), at_ms);
        }
        assert_eq!(meter.service(), None);
    }

    #[test]
    fn counters_give_the_mean_even_where_no_idle_moment_is_seen() {
        let mut meter = ServiceMeter::default();
        // One worker, back to back tasks of 4 s, seen every 2 s.
        for i in 0..=10u64 {
            meter.observe(&counted(1, i / 2), i * 2_000);
        }
        let service = meter.service().unwrap();
        assert_eq!(service.tasks, 5);
        assert!((2_000.0..=4_100.0).contains(&service.mean_ms), "{service:?}");
    }

    /// Looks every 2 s at a worker of several threads: tasks running, tasks finished.
    fn looks(samples: &[(u32, u64)]) -> Option<EndedTasks> {
        let mut meter = ServiceMeter::default();
        for (at, (active, finished)) in samples.iter().enumerate() {
            meter.observe(&counted(*active, *finished), at as u64 * 2_000);
        }
        meter.service()
    }

    #[test]
    fn tasks_that_end_together_have_the_time_they_took() {
        let together: Vec<(u32, u64)> = std::iter::once((0, 0)).chain([(4, 0); 20]).chain([(0, 4)]).collect();
        assert_eq!(looks(&together), Some(EndedTasks { tasks: 4, mean_ms: 40_000.0 }));
        // The next four begin within the same two seconds.
        let at_once: Vec<(u32, u64)> = std::iter::once((0, 0)).chain([(4, 0); 20]).chain([(4, 4)]).collect();
        assert_eq!(looks(&at_once), Some(EndedTasks { tasks: 4, mean_ms: 40_000.0 }));
    }

    #[test]
    fn no_task_takes_no_time() {
        // They come and go between two looks.
        assert_eq!(looks(&[(0, 0), (0, 500), (0, 1_000)]), Some(EndedTasks { tasks: 1_000, mean_ms: UNSEEN_MS }));
        // One of them was seen.
        let seen = looks(&[(0, 0), (1, 400), (0, 1_000)]).unwrap();
        assert!(seen.tasks == 1_000 && (1.9..3.1).contains(&seen.mean_ms), "{seen:?}");
    }

    #[test]
    fn what_was_delivered_is_not_said_twice_and_what_came_meanwhile_is_not_lost() {
        let mut meter = ServiceMeter::default();
        let ended = |tasks, mean_ms| Activity { ended: Some(EndedTasks { tasks, mean_ms }), ..Activity::unknown() };
        meter.observe(&ended(2, 100.0), 0);
        let said = meter.service().unwrap();
        meter.observe(&ended(1, 400.0), 1);
        meter.delivered(&said);
        assert_eq!(meter.service(), Some(EndedTasks { tasks: 1, mean_ms: 400.0 }));
        meter.restart();
        assert_eq!(meter.service(), Some(EndedTasks { tasks: 1, mean_ms: 400.0 }));
        assert_eq!(meter.tasks_done(), None);
    }
}
