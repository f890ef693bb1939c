//! What happens in a workload between two looks, for counters. In: reports that were believed, decisions, counts that were lowered. Out: numbers to add.
//! Left to others: exporting them (`metrics`), the counters that survive a restart (`workload`).

use crate::observe::reports::{Rejected, Taken};
use qscaler_core::cut::CutCause;
use qscaler_core::scale::{FleetSample, Inputs};

/// Pods that go within this after the count was lowered go for it, milliseconds: a ReplicaSet picks them within seconds.
const LOWERED_MS: u64 = 60_000;

/// Totals of one workload since the controller started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Replicas added.
    pub added: u64,
    /// Replicas removed.
    pub removed: u64,
    /// Tasks cut, by cause in the order of [`CutCause::ALL`].
    pub cuts: [u64; CutCause::ALL.len()],
    /// OOM kills.
    pub oom_kills: u64,
    /// Messages that did not parse.
    pub malformed: u64,
}

/// The working container's size, for metrics; None: not set, or not known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SizeFigures {
    /// Of the template, bytes.
    pub(crate) memory: Option<u64>,
    /// Recommended, bytes.
    pub(crate) memory_recommended: Option<u64>,
    /// Of the template, millicores.
    pub(crate) cpu_m: Option<u64>,
    /// Recommended, millicores.
    pub(crate) cpu_recommended_m: Option<u64>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainEnd {
    /// The pod had parked, and was removed.
    Removed,
    /// The pod had parked, and went back to work.
    Resumed,
    /// Another pod than a parked one went for a count that was lowered; its hold let its task end.
    WrongVictim,
}

impl DrainEnd {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Removed, Self::Resumed, Self::WrongVictim];

    /// As the metric has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Resumed => "resumed",
            Self::WrongVictim => "wrong-victim",
        }
    }
}

/// The numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Messages that came.
    pub arrived: f64,
    /// Messages that became late.
    pub late: f64,
    /// Tasks that ended, seconds.
    pub tasks_s: Vec<f64>,
    /// Pods that became Ready, seconds from their creation.
    pub starts_s: Vec<f64>,
    /// Holds that ended, seconds.
    pub holds_s: Vec<f64>,
    /// Pods that parked.
    pub parked: u64,
    /// Drains that ended, in the order of [`DrainEnd::ALL`].
    pub drains: [u64; DrainEnd::ALL.len()],
    /// Reports that were not believed, in the order of [`Rejected::ALL`].
    pub rejected: [u64; Rejected::ALL.len()],
    /// Pods still to go for counts that were lowered, and when the last of those was.
    pub(crate) lowered: (u32, u64),
}

impl Tally {
    /// The law was asked.
    pub fn decided(&mut self, inputs: &Inputs, fleet: &FleetSample) {
        self.arrived += inputs.arrived;
        self.late += inputs.late;
        self.tasks_s.extend(fleet.completions.iter().map(|c| c.service_s));
        self.starts_s.extend(&fleet.started_latencies_s);
    }

    /// The count was lowered by so many.
    pub fn lowered(&mut self, by: u32, now_ms: u64) {
        self.lowered = (self.left(now_ms).saturating_add(by), now_ms);
    }

    fn left(&self, now_ms: u64) -> u32 {
        let (left, at_ms) = self.lowered;
        if now_ms < at_ms.saturating_add(LOWERED_MS) { left } else { 0 }
    }

    /// A report was believed.
    pub fn took(&mut self, taken: &Taken, now_ms: u64) {
        self.parked += u64::from(taken.parked);
        self.holds_s.extend(taken.held_ms.map(|ms| ms as f64 / 1_000.0));
        let left = self.left(now_ms);
        let end = match (taken.resumed, taken.drained, taken.held) {
            (true, ..) => DrainEnd::Resumed,
            (_, true, _) => DrainEnd::Removed,
            (_, _, true) if left > 0 => DrainEnd::WrongVictim,
            _ => return,
        };
        if end != DrainEnd::Resumed {
            self.lowered.0 = left.saturating_sub(1);
        }
        self.drains[end as usize] += 1;
    }

    /// A report was not believed.
    pub fn rejected(&mut self, why: Rejected) {
        self.rejected[why as usize] += 1;
    }

    /// What there is to add since the last call.
    pub fn take(&mut self) -> Self {
        std::mem::replace(self, Self { lowered: self.lowered, ..Self::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_goes_for_a_lowered_count_without_having_parked_is_the_wrong_victim_and_any_other_is_none() {
        let (parked, removed) = (Taken { parked: true, ..Taken::default() }, Taken { drained: true, held: true, ..Taken::default() });
        let (held, resumed) = (Taken { held: true, ..Taken::default() }, Taken { resumed: true, ..Taken::default() });
        let mut tally = Tally::default();
        // A rollout: no count was lowered.
        tally.took(&held, 500);
        assert_eq!((tally.parked, tally.drains), (0, [0, 0, 0]));
        for taken in [&parked, &parked, &parked] {
            tally.took(taken, 1_000);
        }
        tally.lowered(2, 1_500);
        for taken in [&removed, &held, &resumed, &resumed] {
            tally.took(taken, 2_000);
        }
        // Both pods that the count was lowered by are gone: this one goes for another reason.
        tally.took(&held, 2_500);
        let counts = tally.take();
        assert_eq!((counts.parked, counts.drains), (3, [1, 2, 1]));
        tally.lowered(1, 3_000);
        tally.took(&held, 3_000 + LOWERED_MS);
        assert_eq!(tally.take().drains, [0, 0, 0], "long after");
    }

    #[test]
    fn a_report_that_is_not_believed_is_counted_by_its_reason() {
        let mut tally = Tally::default();
        [Rejected::Future, Rejected::Old, Rejected::Future].into_iter().for_each(|why| tally.rejected(why));
        let counted: Vec<(&str, u64)> = Rejected::ALL.iter().map(|why| why.name()).zip(tally.take().rejected).filter(|(_, n)| *n > 0).collect();
        assert_eq!(counted, [("old", 1), ("future", 2)]);
    }

    #[test]
    fn what_was_taken_is_not_counted_again_and_what_is_still_to_go_is_remembered() {
        let mut tally = Tally::default();
        tally.lowered(1, 1_000);
        tally.took(&Taken { held_ms: Some(2_500), ..Taken::default() }, 1_000);
        assert_eq!(tally.take().holds_s, [2.5]);
        tally.took(&Taken { held: true, ..Taken::default() }, 2_000);
        assert_eq!((tally.holds_s.len(), tally.drains), (0, [0, 0, 1]));
    }
}
