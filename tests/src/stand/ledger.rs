//! What became of every task. In: the ledger that the test application writes (sent, start, done, each with its time). Out: counts of tasks
//! done, cut, lost and doubled, and their waits. Left to others: what is right (`tests/e2e`).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One line of the ledger.
#[derive(Clone, Debug, Deserialize)]
pub struct Entry {
    /// `sent`, `start` or `done`.
    pub event: String,
    /// The task's name.
    pub task: String,
    /// One run of it.
    #[serde(default)]
    pub run: String,
    /// The pod it ran in.
    #[serde(default)]
    pub host: String,
    /// Seconds since the Unix epoch.
    pub at: f64,
}

/// The sum of a ledger.
#[derive(Clone, Default, PartialEq, Serialize)]
pub struct Tally {
    /// Tasks sent.
    pub sent: usize,
    /// Tasks that have ended at least once.
    pub done: usize,
    /// Runs that began and never ended.
    pub cut: usize,
    /// Tasks that ended more than once.
    pub doubled: usize,
    /// Tasks that never ended.
    pub lost: usize,
    /// Seconds from sent to first start.
    #[serde(skip)]
    pub waits: Vec<f64>,
}

impl std::fmt::Debug for Tally {
    /// The counts: the waits of hundreds of tasks would hide everything else in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sent, done, cut, doubled, lost, waits: _ } = self;
        write!(f, "{sent} sent, {done} done, {cut} cut, {doubled} doubled, {lost} lost")
    }
}

impl Tally {
    /// Adds up a ledger. Runs still going on count as cut and their tasks as lost: take it when nothing runs any more.
    #[must_use]
    pub fn of(entries: &[Entry]) -> Self {
        #[derive(Default)]
        struct Task {
            sent: Option<f64>,
            first_start: Option<f64>,
            starts: usize,
            dones: usize,
        }
        let mut tasks: BTreeMap<&str, Task> = BTreeMap::new();
        for entry in entries {
            let task = tasks.entry(&entry.task).or_default();
            match entry.event.as_str() {
                "sent" => task.sent = Some(entry.at),
                "start" => {
                    task.starts += 1;
                    task.first_start = Some(task.first_start.map_or(entry.at, |t| t.min(entry.at)));
                }
                "done" => task.dones += 1,
                _ => {}
            }
        }
        let mut tally = Self::default();
        for task in tasks.values().filter(|t| t.sent.is_some()) {
            tally.sent += 1;
            tally.done += usize::from(task.dones > 0);
            tally.lost += usize::from(task.dones == 0);
            tally.doubled += usize::from(task.dones > 1);
            tally.cut += task.starts.saturating_sub(task.dones);
            if let (Some(sent), Some(start)) = (task.sent, task.first_start) {
                tally.waits.push((start - sent).max(0.0));
            }
        }
        tally.waits.sort_by(f64::total_cmp);
        tally
    }

    /// The wait that this share (0 to 1) of the tasks did not exceed, in seconds; 0 when nothing ran.
    #[must_use]
    pub fn wait_quantile(&self, share: f64) -> f64 {
        let last = self.waits.len().saturating_sub(1);
        self.waits.get(((last as f64) * share).round() as usize).copied().unwrap_or(0.0)
    }

    /// Whether every task was done exactly once and none was cut.
    #[must_use]
    pub fn is_exactly_once(&self) -> bool {
        self.sent == self.done && self.cut == 0 && self.doubled == 0 && self.lost == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(event: &str, task: &str, run: &str, at: f64) -> Entry {
        Entry { event: event.into(), task: task.into(), run: run.into(), host: String::new(), at }
    }

    #[test]
    fn a_cut_run_is_seen_even_when_the_task_is_done_later() {
        let tally = Tally::of(&[
            entry("sent", "a", "", 0.0),
            entry("start", "a", "1", 1.0),
            entry("start", "a", "2", 2.0),
            entry("done", "a", "2", 3.0),
            entry("sent", "b", "", 0.0),
            entry("start", "b", "3", 5.0),
            entry("sent", "c", "", 0.0),
            entry("start", "c", "4", 1.0),
            entry("done", "c", "4", 2.0),
            entry("start", "c", "5", 1.0),
            entry("done", "c", "5", 2.0),
        ]);
        assert_eq!((tally.sent, tally.done, tally.cut, tally.doubled, tally.lost), (3, 2, 2, 1, 1));
        assert_eq!(tally.wait_quantile(1.0), 5.0);
        assert!(!tally.is_exactly_once());
    }
}
