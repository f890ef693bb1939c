//! Comes in: how much of a long run is done. Goes out: one line on a terminal's stderr, rewritten; nothing where it is none.
//! Leaves to others: results.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Time between two drawings: quick enough to look alive, rare enough to cost nothing.
const REDRAW: Duration = Duration::from_millis(200);
/// Width of the bar, characters.
const WIDTH: usize = 30;

/// A progress bar.
pub struct Progress {
    label: String,
    total: usize,
    done: usize,
    drawn: Option<Instant>,
    started: Instant,
    visible: bool,
}

impl Progress {
    /// `total` steps ahead.
    pub fn new(label: impl Into<String>, total: usize) -> Self {
        Self { label: label.into(), total: total.max(1), done: 0, drawn: None, started: Instant::now(), visible: std::io::stderr().is_terminal() }
    }

    /// One more step is done.
    pub fn step(&mut self) {
        self.done += 1;
        if self.visible && self.drawn.is_none_or(|at| at.elapsed() >= REDRAW) {
            self.drawn = Some(Instant::now());
            self.draw();
        }
    }

    fn draw(&self) {
        let share = (self.done as f64 / self.total as f64).min(1.0);
        let full = (share * WIDTH as f64) as usize;
        let left = self.started.elapsed().as_secs_f64() * (1.0 / share.max(1e-6) - 1.0);
        // A terminal that can't be written to costs no run.
        let _ = write!(
            std::io::stderr(),
            "\r{} [{}{}] {:3.0} %, {left:.0} s left \x1b[K",
            self.label,
            "#".repeat(full),
            " ".repeat(WIDTH - full),
            share * 100.0
        );
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.visible && self.drawn.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
