//! The highest need of the last 1000 tasks or 8 days, whichever is more, in a few dozen numbers.
//! In: need, number of tasks, time. Out: the maximum. Left to others: margins and kills (`estimate`).
//!
//! A list of cells, each the maximum over a stretch of tasks and of time. A cell is closed once it holds both [`CELL_TASKS`] tasks and
//! [`CELL_S`] seconds, and leaves once it is outside both the last [`WINDOW_TASKS`] tasks and the last [`WINDOW_S`] seconds: so the window
//! is never shorter than promised, longer by one cell at most, and at most about 26 cells long whatever the rate.

use super::{WINDOW_S, WINDOW_TASKS};
use serde::{Deserialize, Serialize};

/// Tasks that a cell holds at least before the next one is opened: 1000 tasks are 20 cells.
const CELL_TASKS: u64 = 50;
/// Seconds that a cell spans at least: 8 days are 24 cells.
const CELL_S: f64 = 8.0 * 3600.0;
/// Most cells kept. 26 are reached with a clock that runs forward; beyond that the two oldest are merged, which only keeps a maximum longer.
const CELLS_MAX: usize = 28;

/// The maximum over a stretch of tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Cell {
    /// Highest need, bytes.
    max: u64,
    /// Tasks in it; a report with an unknown number counts one.
    n: u64,
    /// Time of the first report, seconds since the epoch.
    from: f64,
    /// Time of the last report, seconds since the epoch.
    to: f64,
}

/// A sliding maximum, see the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Window {
    cells: Vec<Cell>,
}

impl Window {
    /// The highest need inside, bytes; None before the first one known.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        self.cells.iter().map(|c| c.max).max().filter(|&max| max > 0)
    }

    /// Tasks inside.
    #[must_use]
    pub fn tasks(&self) -> u64 {
        self.cells.iter().fold(0, |sum, c| sum.saturating_add(c.n))
    }

    /// Adds a need of `bytes` (0 is unknown) seen over `tasks` tasks, and lets go of what has left the window at `now_s`.
    /// A report that comes late, or under a clock that was set back, is counted as of the newest one.
    pub fn add(&mut self, bytes: u64, tasks: u64, now_s: f64) {
        let tasks = tasks.max(1);
        // Whole seconds: nothing here is finer, and the JSON stays short.
        let now_s = self.cells.last().map_or(now_s, |c| now_s.max(c.to)).floor();
        match self.cells.last_mut() {
            Some(cell) if cell.n < CELL_TASKS || cell.to - cell.from < CELL_S => {
                cell.max = cell.max.max(bytes);
                cell.n = cell.n.saturating_add(tasks);
                cell.to = now_s;
            }
            _ => self.cells.push(Cell { max: bytes, n: tasks, from: now_s, to: now_s }),
        }
        self.expire(now_s);
    }

    fn expire(&mut self, now_s: f64) {
        let mut after: u64 = self.tasks();
        let mut gone = 0;
        for cell in &self.cells {
            after = after.saturating_sub(cell.n);
            if after < WINDOW_TASKS || cell.to >= now_s - WINDOW_S {
                break;
            }
            gone += 1;
        }
        self.cells.drain(..gone);
        while self.cells.len() > CELLS_MAX {
            let old = self.cells.remove(0);
            let next = &mut self.cells[0];
            next.max = next.max.max(old.max);
            next.n = next.n.saturating_add(old.n);
            next.from = old.from;
        }
    }
}
