//! Tasks x policy -> outcome. In: a [`Case`] and a [`Sizer`]. Out: kills, slack, changes, time to settle. Left to others: comparing.
//!
//! Pods take tasks in order of arrival. A task's memory rises evenly over its run; when it passes the limit that was in
//! force at its start the pod is killed, a fresh one begins the task again, and so on up to [`DELIVERIES`] times, as a broker with a dead
//! letter rule does. The policy hears of each end in order of time. Limits change between tasks only.

use super::MIB;
use super::case::Case;
use super::sizer::{Fixed, Seen, Sizer};
use crate::rng::Rng;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Deliveries of one task before it is set aside: the default delivery limit of RabbitMQ's quorum queues.
pub const DELIVERIES: u32 = 20;
/// Share of the run time over which memory rises.
/// From kill to the next start, seconds.
const RESTART_S: f64 = 1.0;
/// A limit has settled when it is within this share of the best fixed one.
const SETTLED: f64 = 0.2;

/// What became of a case under a policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplayOutcome {
    /// Tasks.
    pub tasks: u64,
    /// OOM kills.
    pub kills: u64,
    /// Tasks killed at least once.
    pub killed_tasks: u64,
    /// Tasks set aside after [`DELIVERIES`].
    pub dropped: u64,
    /// Kills of tasks that no allowed limit could have saved: every policy has them, once for each delivery.
    pub unavoidable: u64,
    /// Memory reserved, byte seconds, kills included.
    pub reserved: f64,
    /// Memory needed by the tasks that succeeded, byte seconds.
    pub needed: f64,
    /// Changes of the limit.
    pub changes: u64,
    /// Tasks until the limit stayed within a fifth of the best fixed one for the first time.
    pub settled_after: Option<u64>,
    /// Largest need of a task that succeeded, leaks included, bytes.
    pub largest: u64,
}

impl ReplayOutcome {
    /// Share of the reserved memory that no successful task needed, percent.
    #[must_use]
    pub fn slack_pct(&self) -> f64 {
        if self.reserved > 0.0 { 100.0 * (1.0 - self.needed / self.reserved) } else { 0.0 }
    }
}

#[derive(Clone, Copy, Debug)]
struct Pod {
    id: u64,
    started_s: f64,
    tasks: u64,
    life: u64,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// A pod begins a delivery.
    Start { task: usize, delivery: u32 },
    /// It ends; killed or not.
    End { task: usize, delivery: u32, limit: u64, need: u64, began_s: f64 },
}

#[derive(Clone, Copy, Debug)]
struct Event {
    at_s: f64,
    order: u64,
    worker: usize,
    what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at_s.total_cmp(&other.at_s).then(self.order.cmp(&other.order))
    }
}

/// The best fixed limit in hindsight, bytes: the largest need that fits under the cap.
#[must_use]
pub fn best_fixed(case: &Case) -> u64 {
    let roomy = replay(case, &mut Fixed(case.cap), None);
    roomy.largest.div_ceil(MIB).max(16) * MIB
}

/// Runs one case under one policy. `best` is the best fixed limit, where settling is of interest.
#[must_use]
pub fn replay(case: &Case, sizer: &mut dyn Sizer, best: Option<u64>) -> ReplayOutcome {
    let mut run = Run {
        case,
        rng: Rng::new(case.seed, 7),
        out: ReplayOutcome::default(),
        events: BinaryHeap::new(),
        order: 0,
        pods: Vec::new(),
        next_pod: 0,
        last: None,
    };
    for worker in 0..case.workers {
        let pod = run.new_pod(0.0);
        run.pods.push(pod);
        run.next_task(worker, 0.0);
    }
    while let Some(Reverse(event)) = run.events.pop() {
        run.step(event, sizer, best);
    }
    run.out
}

struct Run<'a> {
    case: &'a Case,
    rng: Rng,
    out: ReplayOutcome,
    events: BinaryHeap<Reverse<Event>>,
    order: u64,
    pods: Vec<Pod>,
    next_pod: u64,
    last: Option<u64>,
}

impl Run<'_> {
    fn new_pod(&mut self, now_s: f64) -> Pod {
        self.next_pod += 1;
        Pod {
            id: self.next_pod,
            started_s: now_s,
            tasks: 0,
            life: self.rng.between(0.5 * self.case.pod_life, 1.5 * self.case.pod_life).ceil() as u64,
        }
    }

    fn push(&mut self, at_s: f64, worker: usize, what: What) {
        self.order += 1;
        self.events.push(Reverse(Event { at_s, order: self.order, worker, what }));
    }

    fn next_task(&mut self, worker: usize, now_s: f64) {
        let index = self.out.tasks as usize;
        if let Some(task) = self.case.tasks.get(index) {
            self.out.tasks += 1;
            self.push(task.arrive_s.max(now_s), worker, What::Start { task: index, delivery: 1 });
        }
    }

    fn step(&mut self, event: Event, sizer: &mut dyn Sizer, best: Option<u64>) {
        let Event { at_s: now_s, worker, .. } = event;
        match event.what {
            What::Start { task, delivery } => {
                let limit = sizer.limit(now_s);
                self.watch(limit, best);
                let need = self.case.tasks[task].need.saturating_add(self.case.leak.saturating_mul(self.pods[worker].tasks));
                let run_s = self.case.tasks[task].run_s;
                let end_s = now_s + if need <= limit { run_s } else { run_s * limit as f64 / need as f64 };
                self.push(end_s, worker, What::End { task, delivery, limit, need, began_s: now_s });
            }
            What::End { task, delivery, limit, need, began_s } => {
                let oom = need > limit;
                let Pod { id: pod, started_s: pod_started_s, .. } = self.pods[worker];
                sizer.see(Seen { pod, pod_started_s, peak: need.min(limit), limit, oom, now_s });
                self.out.reserved += limit as f64 * (now_s - began_s);
                self.pods[worker].tasks += 1;
                if oom {
                    self.killed(worker, task, delivery, now_s);
                } else {
                    self.out.needed += need as f64 * (now_s - began_s);
                    self.out.largest = self.out.largest.max(need);
                    if self.pods[worker].tasks >= self.pods[worker].life {
                        self.pods[worker] = self.new_pod(now_s);
                    }
                    self.next_task(worker, now_s);
                }
            }
        }
    }

    fn killed(&mut self, worker: usize, task: usize, delivery: u32, now_s: f64) {
        self.out.kills += 1;
        self.out.killed_tasks += u64::from(delivery == 1);
        self.out.unavoidable += u64::from(self.case.tasks[task].need > self.case.cap);
        self.pods[worker] = self.new_pod(now_s + RESTART_S);
        if delivery < DELIVERIES {
            self.push(now_s + RESTART_S, worker, What::Start { task, delivery: delivery + 1 });
        } else {
            self.out.dropped += 1;
            self.next_task(worker, now_s + RESTART_S);
        }
    }

    fn watch(&mut self, limit: u64, best: Option<u64>) {
        if self.last.replace(limit).is_some_and(|l| l != limit) {
            self.out.changes += 1;
        }
        if best.is_some_and(|best| limit.abs_diff(best) as f64 <= SETTLED * best as f64) && self.out.settled_after.is_none() {
            self.out.settled_after = Some(self.out.tasks);
        }
    }
}
