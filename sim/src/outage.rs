//! Comes in: cases. Goes out: which messages an outage of the figures makes late. Leaves to others: the bar, and printing.
//!
//! For ten minutes neither the broker's figures nor the workers' reports reach the law, while messages come and are worked on as before. Each run
//! is made twice, with the outage and without it, on the same arrivals, service times and start latencies. A message is **added** when it waits longer than its
//! max-wait with the outage and did not without; messages that the outage happened to save are not set against it. Those count as the outage's that
//! came before two minutes after its end: by then the law sees what it saw before. Later both runs know the same and differ by chance (another pod
//! runs another task), for better and for worse alike: those are counted apart. Beside the law stands what nobody without sight can beat by knowing the past: a fleet that, from the first blind moment to the last,
//! is held at the most pods it ever had, all of them ready at once.

use crate::policy::law::Law;
use crate::world::{Outcome, Policy, World};

/// Length of the outage, seconds.
pub const OUTAGE_S: f64 = 600.0;
/// Outages per round, each in a run of its own, at random within the middle half of the trace.
pub const OUTAGES: usize = 4;

/// Messages that came until so long after the outage count as its own, seconds: its rate windows fill again (60 s), a pod starts (30 s), and the
/// longest promise of the judged cases runs out (15 s).
pub const AFTER_S: f64 = 120.0;

/// One case.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OutageResult {
    /// Workload.
    pub name: String,
    /// Mean start latency, seconds.
    pub start_s: f64,
    /// Messages, in all runs.
    pub tasks: usize,
    /// Late without an outage.
    pub late: usize,
    /// Late with it and not without, come before [`AFTER_S`] after its end.
    pub added: usize,
    /// Late with it and not without, come later.
    pub added_later: usize,
    /// Late without it and not with it, whenever they came.
    pub saved: usize,
    /// As [`Self::added`], where the fleet is held at the most pods of its past.
    pub added_by_past: usize,
    /// Pod-seconds over those without an outage.
    pub pods: f64,
    /// The same, where the fleet is held at the most pods of its past.
    pub pods_by_past: f64,
}

/// The table, a line per case.
pub fn table(results: &[OutageResult]) -> String {
    use std::fmt::Write;
    let mut out = format!(
        "metrics outage of {OUTAGE_S:.0} s, {OUTAGES} per run. added: messages late with it and not without, come until {AFTER_S:.0} s after it; later: the same, come\n\
         after that; saved: late without it only; by past: added if the fleet were held at the most pods of its past; pods: pod-seconds over those without; past's: the same,\n\
         if so held\n\
         case         messages   late  added  later  saved  by past   pods past's\n"
    );
    for case in results {
        let OutageResult { name, start_s, tasks, late, added, added_later, saved, added_by_past, pods, pods_by_past } = case;
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{name:8} {start_s:3.0} {tasks:9} {late:6} {added:6} {added_later:6} {saved:6} {added_by_past:8} {pods:6.3} {pods_by_past:6.3}"
        );
    }
    out
}

/// Adds the comparison of one run to a case; the first `own` messages are the outage's.
pub(crate) fn compare(result: &mut OutageResult, sighted: &Outcome, blind: &Outcome, past: &Outcome, max_wait_s: f64, own: usize) {
    let late = |outcome: &Outcome, at: usize| f64::from(outcome.waits_s[at]) > max_wait_s;
    result.tasks += sighted.tasks;
    for at in 0..sighted.tasks {
        let without = late(sighted, at);
        let with = late(blind, at);
        result.late += usize::from(without);
        *(if at < own { &mut result.added } else { &mut result.added_later }) += usize::from(with && !without);
        result.saved += usize::from(without && !with);
        result.added_by_past += usize::from(late(past, at) && !without && at < own);
    }
    result.pods += blind.pod_seconds / sighted.pod_seconds;
    result.pods_by_past += past.pod_seconds / sighted.pod_seconds;
}

/// The law, but for the outage: then it holds the most pods that there have been.
pub(crate) struct HoldsPast {
    pub(crate) law: Law,
    pub(crate) most: u32,
}

impl Policy for HoldsPast {
    fn first_wake_s(&self) -> f64 {
        self.law.first_wake_s()
    }

    fn wake(&mut self, world: &mut World<'_>) -> f64 {
        if world.broker_answers() {
            self.most = self.most.max(world.replicas());
            return self.law.wake(world);
        }
        let missing = self.most.saturating_sub(world.replicas());
        let called = world.undrain(missing);
        world.start_ready(missing - called);
        world.now_s() + 1.0
    }
}
