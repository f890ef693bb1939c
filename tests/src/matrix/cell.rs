//! One cell: what became of the tasks of one framework in one fault. In: runs from the ledger, the pods that are left, and the proof that the fault met a
//! running task. Out: counts and a verdict. Left to others: the exceptions' list, showing it (`table`).

use super::exceptions;
use super::fault::Fault;
use super::lab::Run;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The proof that a fault met running tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    /// Tasks that ran when and where it struck.
    pub tasks: usize,
    /// What shows that it happened.
    pub proof: String,
}

/// What became of tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Sent.
    pub sent: usize,
    /// Ended at least once.
    pub done: usize,
    /// Never ended.
    pub lost: usize,
    /// Ended more than once.
    pub doubled: usize,
    /// Runs that began and will not end.
    pub cut: usize,
}

impl Counts {
    /// Of the runs of one round. A run without an end is cut unless its pod is among those that live: then it still goes on.
    #[must_use]
    pub fn of(sent: usize, runs: &[Run], live: &[String]) -> Self {
        let mut dones: BTreeMap<&str, usize> = BTreeMap::new();
        for run in runs.iter().filter(|run| run.done.is_some()) {
            *dones.entry(&run.task).or_default() += 1;
        }
        let cut = runs.iter().filter(|run| run.done.is_none() && !live.contains(&run.host)).count();
        let doubled = dones.values().filter(|n| **n > 1).count();
        Self { sent, done: dones.len(), lost: sent.saturating_sub(dones.len()), doubled, cut }
    }

    /// Of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            done: self.done + other.done,
            lost: self.lost + other.lost,
            doubled: self.doubled + other.doubled,
            cut: self.cut + other.cut,
        }
    }

    /// Nothing is sent yet, or a task has not ended, or a run.
    #[must_use]
    pub fn is_unsettled(self) -> bool {
        self.sent == 0 || self.lost > 0 || self.cut > 0
    }

    fn is_zero(self) -> bool {
        (self.lost, self.doubled, self.cut) == (0, 0, 0)
    }
}

/// A cell.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The row.
    pub row: &'static str,
    /// The column.
    pub fault: Fault,
    /// Its tasks begin with one of these: one for each round that it took until the fault met a running task.
    pub prefixes: Vec<String>,
    /// What became of them.
    pub counts: Counts,
    /// The proof; or why there is none.
    pub hit: Result<Hit, String>,
    /// Cuts that the controller counted meanwhile; none: not compared (the control arm has no controller).
    pub counted: Option<u64>,
    /// What went wrong beside tasks: a wait that did not end, a call that was refused.
    pub trouble: Option<String>,
    /// How long the round took, in seconds.
    pub seconds: f64,
}

impl Cell {
    /// `row/fault`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.row, self.fault.name())
    }

    /// Why the cell is not as it should be; None: it is.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        if let Some(trouble) = &self.trouble {
            return Some(trouble.clone());
        }
        if let Err(why) = &self.hit {
            return Some(format!("not hit: {why}"));
        }
        let c = self.counts;
        if self.fault == Fault::Control {
            return (c.cut == 0).then(|| "the control arm cut nothing: its waves measure nothing".to_owned());
        }
        let exception = exceptions::of(self.row, self.fault);
        let allowed = |allowed: fn(&exceptions::Exception) -> bool, n: usize| n == 0 || exception.is_some_and(allowed);
        let fine = allowed(|e| e.lost, c.lost) && allowed(|e| e.doubled, c.doubled) && allowed(|e| e.cut, c.cut);
        if !fine {
            return Some(format!("{} lost, {} doubled, {} cut of {}", c.lost, c.doubled, c.cut, c.sent));
        }
        // What was cut is told, here as everywhere.
        self.counted.filter(|counted| *counted != c.cut as u64).map(|counted| format!("{} cut, and {counted} counted", c.cut))
    }

    /// With a further round in which the fault came again: what that one met, and the tasks of both.
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        self.prefixes.extend(next.prefixes);
        self.counts = self.counts.and(next.counts);
        self.counted = self.counted.zip(next.counted).map(|(a, b)| a + b);
        Self { hit: next.hit, trouble: next.trouble, seconds: self.seconds + next.seconds, ..self }
    }

    /// Zero in every count.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.counts.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(task: &str, host: &str, done: Option<f64>) -> Run {
        Run { task: task.into(), host: host.into(), start: 1.0, done }
    }

    fn cell(row: &'static str, fault: Fault, counts: Counts) -> Cell {
        let hit = Ok(Hit { tasks: 1, proof: String::new() });
        Cell { row, fault, prefixes: Vec::new(), counts, hit, counted: Some(0), trouble: None, seconds: 0.0 }
    }

    #[test]
    fn a_run_without_an_end_is_cut_only_when_its_pod_is_gone() {
        let runs =
            [run("a", "gone", None), run("a", "live", Some(2.0)), run("b", "live", None), run("c", "live", Some(1.0)), run("c", "gone", Some(2.0))];
        let counts = Counts::of(4, &runs, &["live".to_owned()]);
        assert_eq!(counts, Counts { sent: 4, done: 2, lost: 2, doubled: 1, cut: 1 });
    }

    #[test]
    fn a_cell_that_was_not_hit_or_is_not_zero_is_complained_about() {
        let zero = Counts { sent: 3, done: 3, ..Counts::default() };
        let doubled = Counts { doubled: 1, ..zero };
        assert_eq!(cell("celery", Fault::Wave, zero).complaint(), None);
        assert!(cell("celery", Fault::Wave, doubled).complaint().is_some());
        let unhit = Cell { hit: Err("no pod left".into()), ..cell("celery", Fault::Wave, zero) };
        assert!(unhit.complaint().is_some_and(|c| c.contains("no pod left")));
        let troubled = Cell { trouble: Some("slow".into()), ..cell("celery", Fault::Wave, zero) };
        assert_eq!(troubled.complaint().as_deref(), Some("slow"));
    }

    #[test]
    fn a_round_that_met_nothing_is_repeated_and_its_tasks_count_too() {
        let zero = Counts { sent: 3, done: 3, ..Counts::default() };
        let missed =
            Cell { hit: Err("no task ran".into()), ..cell("celery", Fault::Wave, Counts { sent: 3, done: 2, lost: 1, ..Counts::default() }) };
        let both = missed.then(cell("celery", Fault::Wave, zero));
        assert_eq!((both.counts.sent, both.counts.done, both.counts.lost, both.hit.is_ok()), (6, 5, 1, true));
        assert!(both.complaint().is_some_and(|c| c.contains("1 lost")));
    }

    #[test]
    fn an_exception_allows_what_it_names_and_no_more() {
        let zero = Counts { sent: 3, done: 3, ..Counts::default() };
        let allowed = Counts { doubled: 1, ..zero };
        let not_allowed = Counts { cut: 1, ..zero };
        assert_eq!(cell("celery-late", Fault::BrokerRestarted, allowed).complaint(), None);
        assert!(cell("celery-late", Fault::BrokerRestarted, not_allowed).complaint().is_some());
        assert!(cell("celery", Fault::BrokerRestarted, allowed).complaint().is_some());
    }

    #[test]
    fn what_is_cut_is_counted_and_nothing_else_is() {
        let cut = Counts { sent: 3, done: 2, lost: 1, cut: 1, ..Counts::default() };
        let counted = |counted: u64| Cell { counted: Some(counted), ..cell("rq", Fault::SidecarKilledHeld, cut) };
        assert_eq!(counted(1).complaint(), None);
        assert!(counted(0).complaint().is_some_and(|c| c.contains("1 cut, and 0 counted")));
        let zero = Counts { sent: 3, done: 3, ..Counts::default() };
        let too_many = Cell { counted: Some(2), ..cell("celery", Fault::Wave, zero) };
        assert!(too_many.complaint().is_some_and(|c| c.contains("0 cut, and 2 counted")));
        assert_eq!(Cell { counted: None, ..too_many }.complaint(), None);
    }

    #[test]
    fn a_control_arm_that_cuts_nothing_measures_nothing() {
        let zero = Counts { sent: 3, done: 3, ..Counts::default() };
        assert!(cell("celery", Fault::Control, zero).complaint().is_some());
        assert_eq!(cell("celery", Fault::Control, Counts { cut: 2, lost: 2, ..zero }).complaint(), None);
    }
}
