//! Comes in: queue and fleet samples, with holes. Goes out: one view in tasks and workers, and how many messages arrived since the last.
//! Leaves to others: every conclusion.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::numeric::{decay, sane, within};
use super::types::{FleetSample, HoldReason, QueueSample, ScaleConfig};

/// Figures of one workload at the last look; differences of them are arrivals and completions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastFigures {
    published: Option<u64>,
    completed: Option<u64>,
    /// Messages at the broker, and by which account.
    #[serde(skip)]
    held: Option<(Account, f64)>,
    /// When messages left the broker that no worker has told of yet, and how many: what is told of them later is no arrival.
    #[serde(skip)]
    owed: VecDeque<(f64, f64)>,
    /// What workers have told since the moment of which the broker's figures are: when, taken, found.
    #[serde(skip)]
    ahead: VecDeque<(f64, f64, f64)>,
    /// Messages counted as arrived since this process began.
    #[serde(skip)]
    counted: f64,
}

/// How messages that have left the broker's figures are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Account {
    /// Consumers hold them until their task is done: they leave with a completion.
    Done,
    /// Nobody counts what consumers hold, or they hold it only until its task begins.
    Begun,
}

/// What workers tell of their tasks in one tick.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Told {
    /// Tasks ended; `None` where no worker tells.
    pub ended: Option<f64>,
    /// Tasks seen to begin; `None` where no worker tells.
    pub begun: Option<f64>,
    /// Tasks found running.
    pub found: f64,
}

/// Workers tell of a task up to this long after its message has left the broker's figures, seconds: reports come every five, and some are late.
const OWED_S: f64 = 30.0;
/// Looks that a figure may be behind what workers tell: older ones are stale.
const AHEAD_MAX: usize = 300;
/// Most messages believed of one figure: more than any broker holds, and few enough that sums and squares of it stay numbers.
const FIGURE_MAX: f64 = 1e12;
/// Seconds of evidence after which half of what was believed of acknowledgements is replaced.
const ACKS_HALF_LIFE_S: f64 = 120.0;
/// Older figures are of another moment than what workers tell, seconds: among more and more tasks they would show early acknowledgement.
const ACKS_AGE_MAX_S: f64 = 6.0;
/// Seconds of evidence that the configuration's word counts for.
const ACKS_PRIOR_S: f64 = 30.0;

/// Seconds of evidence by which early acknowledgement counts as seen.
const ACKS_SEEN_S: f64 = 5.0;

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
        if backlog.age_s > ACKS_AGE_MAX_S || backlog.ready > 0.0 || busy == 0 || (fleet.untold | fleet.parked | fleet.terminating) > 0 {
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

    /// Early acknowledgement has been seen, whatever the configuration says. Until then a message counts as one of the broker's until its task is done: taken for
    /// early, what consumers hold while it runs would count as another that waits; taken for late, one that is gone from the broker is only counted later.
    pub fn seen_early(&self) -> bool {
        self.early_s >= self.late_s + ACKS_SEEN_S
    }
}

/// Figures of all queues of a workload added up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Backlog {
    /// Messages no consumer holds.
    pub ready: f64,
    /// Messages consumers hold, where known for every queue.
    pub unacked: Option<f64>,
    /// Seconds until the next message that was put aside is due, of the queue where that is soonest.
    pub next_due_s: Option<f64>,
    pub(super) published: Option<u64>,
    pub(super) completed: Option<u64>,
    /// Age of the oldest of these figures, seconds.
    pub(super) age_s: f64,
}

/// What is known now, in tasks and workers (a worker is one slot of a pod).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FleetView {
    /// Messages that wait, and that one more worker could take.
    pub backlog: f64,
    /// Messages that busy workers have prefetched and work on before what waits; 0 while a worker is idle, for it would work on its own.
    pub ahead: f64,
    /// Messages that consumers hold and that none of this fleet's workers runs: prefetched, not due yet, or another fleet's.
    pub resting: f64,
    /// Messages that wait, all prefetched ones included: for people.
    pub waiting: f64,
    /// Tasks running.
    pub busy: f64,
    /// Ready workers.
    pub workers: f64,
    /// Ready workers without a task.
    pub idle: f64,
    /// Tasks known to run: `busy` without what is only assumed of silent workers. Load is made of these alone.
    pub told: f64,
    /// Of what is only assumed of silent workers, as much as has been assumed for a while: it calls for pods like a task that is told. What flickers keeps
    /// pods and calls for none.
    pub assumed: f64,
    /// Whether `busy` was told by anyone.
    pub busy_known: bool,
}

/// How long the message that has waited longest in any of the queues has waited, seconds. Unknown where one of them has messages and does not say.
pub(super) fn oldest(queues: &[QueueSample]) -> Option<f64> {
    let silent = |queue: &QueueSample| queue.oldest_s.is_none() && queue.ready != Some(0);
    if queues.iter().any(silent) {
        return None;
    }
    queues.iter().filter_map(|queue| queue.oldest_s).filter(|age| age.is_finite()).reduce(f64::max)
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
        sum.age_s = sum.age_s.max(sane(queue.age_s, 0.0));
        let due_s = queue.next_due_s.map(|due_s| (sane(due_s, f64::MAX) - sane(queue.age_s, 0.0)).max(0.0));
        sum.next_due_s = sum.next_due_s.into_iter().chain(due_s).reduce(f64::min);
        sum.unacked = sum.unacked.zip(queue.unacked).map(|(all, one)| all + figure(one));
        sum.published = sum.published.zip(queue.published_total).map(|(all, one)| all.saturating_add(one));
        sum.completed = sum.completed.zip(queue.completed_total).map(|(all, one)| all.saturating_add(one));
    }
    (sum, hold)
}

/// Joins backlog and fleet. Who runs is told by the workers, and a pod that tells nothing yet counts as at work, since it may have taken a message; else by unacknowledged messages (a pod runs `concurrency` at most, the rest is
/// prefetched and waits, but for what parked and terminating pods may still run); where neither is known, workers count as busy until the queue has been empty for `blind_idle_s`.
/// What a consumer holds stays with it: no other worker gets it.
pub fn join(cfg: &ScaleConfig, backlog: &Backlog, fleet: &FleetSample, queue_empty_s: f64, expected_busy: f64) -> FleetView {
    let workers = f64::from(fleet.ready) * f64::from(cfg.concurrency.max(1));
    let by_unacked = backlog.unacked.filter(|unacked| *unacked > 0.0 && !cfg.acknowledges_early).map(|unacked| unacked.min(workers));
    let (busy, told, busy_known) = match (fleet.busy, by_unacked) {
        (Some(busy), _) => {
            let (told, most) = (f64::from(busy), f64::from(fleet.untold) * f64::from(cfg.concurrency.max(1)));
            // What consumers hold beyond the tasks that are told of runs in the silent pods, or is prefetched.
            let silent = backlog.unacked.filter(|_| !cfg.acknowledges_early).map_or(most, |held| within(held - told, 0.0, most));
            ((told + silent).min(workers.max(told)), told, fleet.untold == 0)
        }
        (None, Some(busy)) => (busy, busy, true),
        (None, None) if backlog.ready > 0.0 => (workers, workers, false),
        (None, None) if queue_empty_s < cfg.law.blind_idle_s => (workers, 0.0, false),
        (None, None) => (expected_busy.min(workers), expected_busy.min(workers), false),
    };
    let leaving = f64::from(fleet.parked.saturating_add(fleet.terminating)) * f64::from(cfg.concurrency.max(1));
    let held = backlog.unacked.unwrap_or(0.0);
    let prefetched = if cfg.acknowledges_early { held } else { (held - busy - leaving).max(0.0) };
    let idle = (workers - busy).max(0.0);
    let ahead = if backlog.ready > 0.0 && busy >= 1.0 && idle < 1.0 { prefetched } else { 0.0 };
    FleetView {
        backlog: backlog.ready,
        ahead,
        resting: prefetched,
        waiting: backlog.ready + prefetched,
        busy,
        workers,
        idle,
        told,
        assumed: 0.0,
        busy_known,
    }
}

/// Workers in pods that have only become Ready and of which nothing is told yet. What consumers hold beyond the tasks that are told of shows, where it is
/// held until its task is done, that so many of them have begun.
pub fn settling(cfg: &ScaleConfig, backlog: &Backlog, fleet: &FleetSample) -> f64 {
    let workers = f64::from((fleet.settling.len() as u32).min(fleet.ready)) * f64::from(cfg.concurrency.max(1));
    let held = backlog.unacked.filter(|_| !cfg.acknowledges_early).unwrap_or(0.0);
    within(workers - (held - f64::from(fleet.busy.unwrap_or(0))).max(0.0), 0.0, workers)
}

/// Messages as a number that can be reckoned with: a broker's figure beyond this is an error of its own.
fn figure(count: u64) -> f64 {
    (count as f64).min(FIGURE_MAX)
}

impl LastFigures {
    /// Arrivals since the last look, and completions where anything tells of them. By the broker's counter where there is one; else by conservation:
    /// what the broker holds more now, plus what workers were seen to take from it. `None` at the first look, after a gap, or when a counter started
    /// anew. Only what is told counts: a worker of which nothing is known has taken nothing, and what it is found at later was there before.
    pub fn arrivals(&mut self, now_s: f64, backlog: &Backlog, told: &Told, early: bool) -> (Option<f64>, Option<f64>) {
        let difference = |now: Option<u64>, last: Option<u64>| now.zip(last).and_then(|(now, last)| now.checked_sub(last)).map(figure);
        let published = difference(backlog.published, self.published);
        let completed = difference(backlog.completed, self.completed).or(told.ended);
        let account = if backlog.unacked.is_some() && !early { Account::Done } else { Account::Begun };
        let held = backlog.ready + backlog.unacked.unwrap_or(0.0);
        let taken = if account == Account::Done { completed } else { told.begun }.unwrap_or(0.0);
        let last = self.held.replace((account, held)).filter(|(by, _)| *by == account);
        let (taken, found) = self.told_by(now_s - backlog.age_s, (now_s, taken, told.found));
        let conserved = last.map(|(_, last)| self.settle(now_s, held - last + taken, found));
        (self.published, self.completed) = (backlog.published, backlog.completed);
        let arrived = published.or(conserved);
        self.counted += arrived.unwrap_or(0.0);
        (arrived, completed)
    }

    /// Messages counted as arrived since this process began: never more than were sent, or some were invented.
    pub fn counted(&self) -> f64 {
        self.counted
    }

    /// What workers had told by the moment of which the broker's figures are: what has been told since is not in them yet. Keeps the rest.
    fn told_by(&mut self, at_s: f64, told: (f64, f64, f64)) -> (f64, f64) {
        self.ahead.push_back(told);
        let (mut taken, mut found) = (0.0, 0.0);
        while let Some((_, more, seen)) = self.ahead.front().copied().filter(|(since_s, ..)| *since_s <= at_s || self.ahead.len() > AHEAD_MAX) {
            (taken, found) = (taken + more, found + seen);
            self.ahead.pop_front();
        }
        (taken, found)
    }

    /// What remains of `count` when it has paid for what left the broker before it was told of. `found` pays too, and is nothing beyond.
    fn settle(&mut self, now_s: f64, count: f64, found: f64) -> f64 {
        self.owed.retain(|(since_s, _)| (0.0..OWED_S).contains(&(now_s - since_s)));
        if count < 0.0 {
            self.owed.push_back((now_s, -count));
        }
        let mut left = [found, count.max(0.0)];
        for part in &mut left {
            while let Some((_, owed)) = self.owed.front_mut().filter(|_| *part > 0.0) {
                let paid = part.min(*owed);
                *part -= paid;
                *owed -= paid;
                if *owed <= 0.0 {
                    self.owed.pop_front();
                }
            }
        }
        left[1]
    }

    /// Starts anew after a gap: what came in between says nothing about a rate.
    pub fn forget(&mut self) {
        *self = Self { counted: self.counted, ..Self::default() };
    }
}
