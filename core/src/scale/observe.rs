//! Comes in: queue and fleet samples, with holes. Goes out: one view in tasks and workers, and how many messages arrived since the last.
//! Leaves to others: every conclusion.

use serde::{Deserialize, Serialize};

use super::numeric::{decay, within};
use super::types::{FleetSample, HoldReason, QueueSample, ScaleConfig};

/// Counters of one workload at the last look; differences of them are arrivals and completions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    published: Option<u64>,
    completed: Option<u64>,
    #[serde(skip)]
    in_system: Option<f64>,
    /// Arrivals counted too many so far (samples of queue and workers are never of one instant); paid back before new ones count.
    #[serde(skip)]
    debt: f64,
}

/// Most messages believed of one figure: more than any broker holds, and few enough that sums and squares of it stay numbers.
const FIGURE_MAX: f64 = 1e12;
/// Seconds of evidence after which half of what was believed of acknowledgements is replaced.
const ACKS_HALF_LIFE_S: f64 = 120.0;
/// Seconds of evidence that the configuration's word counts for.
const ACKS_PRIOR_S: f64 = 30.0;

/// Whether messages are acknowledged before their task runs or after it, seen from the figures themselves: while nothing waits and tasks run,
/// consumers hold fewer messages than there are tasks if they acknowledge early, and no fewer if late. A preset can only say what its framework does
/// by default, and each mistake costs: running tasks counted as waiting, or waiting ones hidden behind running ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Acks {
    early_s: f64,
    late_s: f64,
}

impl Acks {
    /// One tick of `dt_s` seconds. Evidence is taken only where every pod tells and none is leaving.
    pub fn observe(&mut self, dt_s: f64, backlog: &Backlog, fleet: &FleetSample) {
        let (Some(held), Some(busy)) = (backlog.unacked, fleet.busy) else { return };
        if backlog.ready > 0.0 || busy == 0 || (fleet.untold | fleet.parked | fleet.terminating) > 0 {
            return;
        }
        let keep = decay(dt_s, ACKS_HALF_LIFE_S);
        self.early_s *= keep;
        self.late_s *= keep;
        *(if held < f64::from(busy) { &mut self.early_s } else { &mut self.late_s }) += dt_s;
    }

    /// What to believe, given what the configuration says.
    pub fn early(&self, configured: bool) -> bool {
        let prior = |said: bool| if said { ACKS_PRIOR_S } else { 0.0 };
        self.early_s + prior(configured) > self.late_s + prior(!configured)
    }
}

/// Figures of all queues of a workload added up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Backlog {
    /// Messages no consumer holds.
    pub ready: f64,
    /// Messages consumers hold, where known for every queue.
    pub unacked: Option<f64>,
    published: Option<u64>,
    completed: Option<u64>,
}

/// What is known now, in tasks and workers (a worker is one slot of a pod).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// Messages that wait, and that one more worker would bring forward: prefetched ones are counted while others wait at the broker besides.
    pub backlog: f64,
    /// Messages that wait, all prefetched ones included: for people.
    pub waiting: f64,
    /// Tasks running.
    pub busy: f64,
    /// Ready workers.
    pub workers: f64,
    /// Ready workers without a task.
    pub idle: f64,
    /// Messages waiting and tasks running, those of leaving pods included where the broker tells.
    pub in_system: f64,
    /// Whether `busy` was told by anyone.
    pub busy_known: bool,
}

/// Adds the queues up. A missing or old length makes the sum unknown; what is known of the others is still a lower bound, given beside the reason.
pub fn add_up(cfg: &ScaleConfig, queues: &[QueueSample]) -> (Backlog, Option<HoldReason>) {
    let (mut sum, mut hold) = (Backlog { unacked: Some(0.0), published: Some(0), completed: Some(0), ..Backlog::default() }, None);
    if queues.is_empty() {
        hold = Some(HoldReason::BacklogUnknown);
    }
    for queue in queues {
        match queue.ready {
            None => hold = Some(HoldReason::BacklogUnknown),
            Some(_) if queue.age_s.is_nan() || queue.age_s > cfg.law.stale_after_s => hold = hold.or(Some(HoldReason::BacklogStale)),
            Some(ready) => sum.ready += figure(ready),
        }
        sum.unacked = sum.unacked.zip(queue.unacked).map(|(all, one)| all + figure(one));
        sum.published = sum.published.zip(queue.published_total).map(|(all, one)| all.saturating_add(one));
        sum.completed = sum.completed.zip(queue.completed_total).map(|(all, one)| all.saturating_add(one));
    }
    (sum, hold)
}

/// Joins backlog and fleet. Who runs is told by the workers, and a pod that tells nothing yet counts as at work, since it may have taken a message; else by unacknowledged messages (a pod runs `concurrency` at most, the rest is
/// prefetched and waits, but for what parked and terminating pods may still run); where neither is known, workers count as busy until the queue has been empty for `blind_idle_s`.
/// A prefetched message stays with its consumer: no other worker gets it. With nothing left at the broker it waits for the task before it, and for nothing
/// that more pods could give.
pub fn join(cfg: &ScaleConfig, backlog: &Backlog, fleet: &FleetSample, queue_empty_s: f64, expected_busy: f64) -> View {
    let workers = f64::from(fleet.ready) * f64::from(cfg.concurrency.max(1));
    let by_unacked = backlog.unacked.filter(|unacked| *unacked > 0.0 && !cfg.acknowledges_early).map(|unacked| unacked.min(workers));
    let (busy, busy_known) = match (fleet.busy, by_unacked) {
        (Some(busy), _) => {
            let (told, most) = (f64::from(busy), f64::from(fleet.untold) * f64::from(cfg.concurrency.max(1)));
            // What consumers hold beyond the tasks that are told of runs in the silent pods, or is prefetched.
            let silent = backlog.unacked.filter(|_| !cfg.acknowledges_early).map_or(most, |held| within(held - told, 0.0, most));
            ((told + silent).min(workers.max(told)), fleet.untold == 0)
        }
        (None, Some(busy)) => (busy, true),
        (None, None) if backlog.ready > 0.0 || queue_empty_s < cfg.law.blind_idle_s => (workers, false),
        (None, None) => (expected_busy.min(workers), false),
    };
    let leaving = f64::from(fleet.parked.saturating_add(fleet.terminating)) * f64::from(cfg.concurrency.max(1));
    let held = backlog.unacked.unwrap_or(0.0);
    let (prefetched, in_system) =
        if cfg.acknowledges_early { (held, backlog.ready + held + busy) } else { ((held - busy - leaving).max(0.0), backlog.ready + held.max(busy)) };
    let behind = if backlog.ready > 0.0 || busy == 0.0 { prefetched } else { 0.0 };
    View {
        backlog: backlog.ready + behind,
        waiting: backlog.ready + prefetched,
        busy,
        workers,
        idle: (workers - busy).max(0.0),
        in_system,
        busy_known,
    }
}

/// Messages as a number that can be reckoned with: a broker's figure beyond this is an error of its own.
fn figure(count: u64) -> f64 {
    (count as f64).min(FIGURE_MAX)
}

impl Counters {
    /// Arrivals since the last look, and completions. By the broker's counter where there is one; else by conservation: what the system holds
    /// more now, plus what left it. `None` at the first look, after a gap, or when a counter started anew.
    pub fn arrivals(&mut self, backlog: &Backlog, view: &View, reported: Option<f64>, expected_completions: f64) -> (Option<f64>, f64) {
        let difference = |now: Option<u64>, last: Option<u64>| now.zip(last).and_then(|(now, last)| now.checked_sub(last)).map(figure);
        let published = difference(backlog.published, self.published);
        let completed = difference(backlog.completed, self.completed).or(reported).unwrap_or(expected_completions);
        let in_system = view.in_system;
        let conserved = self.in_system.map(|last| in_system - last + completed);
        let arrived = published.or_else(|| {
            conserved.map(|count| {
                let due = count + self.debt;
                self.debt = due.min(0.0).max(-in_system - completed);
                due.max(0.0)
            })
        });
        *self = Self { published: backlog.published, completed: backlog.completed, in_system: Some(in_system), debt: self.debt };
        (arrived, completed)
    }

    /// Starts anew after a gap: what came in between says nothing about a rate.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}
