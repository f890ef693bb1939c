//! A cell: one shape in one trial, with QScaler and without. In: what became of the tasks of both. Out: what the summary counts, and a verdict. Left to
//! others: the exceptions' list, showing it (`table`).

use super::exceptions;
use super::trial::Trial;
use crate::matrix::book::Measured;
use crate::matrix::cell::{Counts, Hit};
use serde::{Deserialize, Serialize};

/// What became of one fleet in one trial.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// Its pods came up.
    pub up: bool,
    /// Its tasks.
    pub counts: Counts,
    /// What the trial met; none: no running task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hit: Option<Hit>,
    /// What went wrong beside tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// A cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The shape.
    pub shape: String,
    /// The column.
    pub trial: Trial,
    /// With QScaler.
    pub ours: Arm,
    /// Without.
    pub bare: Arm,
    /// Cuts that the controller counted meanwhile.
    pub counted: u64,
    /// In a wave, from the lower minimum until an idle pod was asked to leave, in seconds; none: none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked_s: Option<f64>,
    /// Most replicas that were asked for meanwhile, where no more than at first were right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rose_to: Option<i32>,
    /// What a condition or an Event said within a minute, where something had to be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl Measured for Cell {
    fn name(&self) -> String {
        name(&self.shape, self.trial)
    }
}

/// `shape/trial`.
#[must_use]
pub fn name(shape: &str, trial: Trial) -> String {
    format!("{shape}/{}", trial.name())
}

impl Cell {
    /// Cuts that the ledger has and the controller did not count.
    #[must_use]
    pub fn uncounted(&self) -> usize {
        self.ours.counts.cut.saturating_sub(usize::try_from(self.counted).unwrap_or(usize::MAX))
    }

    /// A task was cut or never done, or the worker did not come up, and without QScaler it was not so.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        let (ours, bare) = (&self.ours, &self.bare);
        let only_ours = |count: fn(&Counts) -> usize| count(&ours.counts) > 0 && bare.up && count(&bare.counts) == 0;
        (!ours.up && bare.up) || only_ours(|c| c.cut) || only_ours(|c| c.lost)
    }

    /// Something is as it should not be of which the user must be told.
    #[must_use]
    pub fn needs_a_word(&self) -> bool {
        let never_left = self.trial == Trial::Wave && self.ours.up && self.parked_s.is_none();
        never_left
            || (!self.ours.up && self.bare.up)
            || self.ours.counts.cut > 0
            || (self.trial == Trial::Zero && (self.ours.counts.lost > 0 || self.ours.trouble.is_some()))
    }

    /// The user was to be told, and was not.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.needs_a_word() && self.said.is_none()
    }

    /// Why the cell is not as it should be; None: it is.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let mut wrong = Vec::new();
        let Counts { sent, lost, doubled, cut, .. } = self.ours.counts;
        let exception = exceptions::of(&self.shape, self.trial);
        let fine = |n: usize, allowed: fn(&exceptions::Exception) -> bool| n == 0 || exception.is_some_and(allowed);
        if !(fine(lost, |e| e.lost) && fine(doubled, |e| e.doubled) && fine(cut, |e| e.cut)) {
            wrong.push(format!("{lost} lost, {doubled} doubled, {cut} cut of {sent}"));
        }
        if self.uncounted() > 0 {
            wrong.push(format!("{} cut and {} counted", cut, self.counted));
        }
        if usize::try_from(self.counted).is_ok_and(|counted| counted > cut) {
            wrong.push(format!("{} cuts were counted and {cut} happened", self.counted));
        }
        if self.is_worse() && exception.is_none() {
            wrong.push("worse than without QScaler".to_owned());
        }
        if self.is_silent() {
            wrong.push("nothing said why".to_owned());
        }
        if let Some(most) = self.rose_to {
            wrong.push(format!("rose to {most} for tasks that no other pod can get"));
        }
        if self.ours.up && self.ours.hit.is_none() && matches!(self.trial, Trial::Delete | Trial::Rollout) {
            wrong.push("no running task was met".to_owned());
        }
        // Without QScaler things may go as they go.
        wrong.extend(self.ours.trouble.clone());
        (!wrong.is_empty()).then(|| wrong.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(cut: usize, lost: usize) -> Arm {
        let hit = Some(Hit { tasks: 1, proof: String::new() });
        Arm { up: true, counts: Counts { sent: 4, done: 4 - lost, lost, doubled: 0, cut }, hit, trouble: None }
    }

    fn cell(ours: Arm, bare: Arm, counted: u64, said: Option<&str>) -> Cell {
        let said = said.map(str::to_owned);
        Cell { shape: "tee".into(), trial: Trial::Delete, ours, bare, counted, parked_s: None, rose_to: None, said, seconds: 1.0 }
    }

    #[test]
    fn a_cut_that_is_counted_and_said_and_happens_without_us_too_is_still_a_cut() {
        let same = cell(arm(1, 0), arm(1, 0), 1, Some("why"));
        assert_eq!((same.uncounted(), same.is_worse(), same.is_silent()), (0, false, false));
        assert!(same.complaint().is_some_and(|why| why.contains("1 cut of 4")));
        assert_eq!(cell(arm(0, 0), arm(1, 0), 0, None).complaint(), None);
    }

    #[test]
    fn a_cut_that_nobody_counts_or_tells_is_worse_than_one() {
        let quiet = cell(arm(2, 1), arm(0, 0), 0, None);
        assert_eq!((quiet.uncounted(), quiet.is_worse(), quiet.is_silent()), (2, true, true));
        assert!(cell(arm(0, 0), arm(0, 0), 1, None).complaint().is_some_and(|why| why.contains("1 cuts were counted and 0 happened")));
    }

    #[test]
    fn a_worker_that_does_not_come_up_is_worse_only_where_it_does_without_us() {
        let down = Arm::default();
        assert!(cell(down.clone(), arm(0, 0), 0, None).is_worse());
        assert!(!cell(down.clone(), down, 0, None).is_worse());
    }

    #[test]
    fn a_pod_that_never_leaves_must_be_explained() {
        let wave = |parked_s, said| Cell { trial: Trial::Wave, parked_s, ..cell(arm(0, 0), arm(0, 0), 0, said) };
        assert!(wave(None, None).is_silent());
        assert_eq!(wave(None, Some("no heartbeats")).complaint(), None);
        assert_eq!(wave(Some(4.0), None).complaint(), None);
    }
}
