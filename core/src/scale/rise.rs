//! Comes in: the load of every tick. Goes out: by how much it has been seen to rise within so many seconds. Leaves to others: what to do with it.
//! It is what the past allows the load to do while nobody can see it: a morning's slope, a storm's first minute.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::numeric::decay;

/// Seconds of one block.
const BLOCK_S: f64 = 60.0;
/// Spans that rises are kept for, in blocks; between them it goes in straight lines.
const SPANS: [usize; 6] = [1, 2, 5, 10, 20, 30];
/// A rise is half forgotten after a week: mornings come daily, and Monday's is the steepest.
const HALF_LIFE_S: f64 = 7.0 * 86_400.0;

/// Mean and highest load of one minute, in pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Block {
    mean: f32,
    high: f32,
}

/// The largest rises of the load, in pods, by the time they took: from the mean of one minute to the highest value of a later one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rises {
    blocks: VecDeque<Block>,
    /// Load times seconds, seconds and highest load of the minute under way.
    sum: f64,
    open_s: f64,
    high: f64,
    /// Largest rise of each of [`SPANS`].
    largest: Vec<f32>,
    /// Highest load, forgotten like the rises.
    peak: f32,
}

impl Rises {
    /// `dt_s` seconds with a load of `pods`.
    pub fn observe(&mut self, dt_s: f64, pods: f64) {
        self.sum += pods * dt_s;
        self.open_s += dt_s;
        self.high = self.high.max(pods);
        if self.open_s < BLOCK_S {
            return;
        }
        let block = Block { mean: (self.sum / self.open_s) as f32, high: self.high as f32 };
        let keep = decay(self.open_s, HALF_LIFE_S) as f32;
        (self.sum, self.open_s, self.high) = (0.0, 0.0, 0.0);
        self.largest.resize(SPANS.len(), 0.0);
        self.peak = (self.peak * keep).max(block.high);
        for (largest, span) in self.largest.iter_mut().zip(SPANS) {
            let before = self.blocks.len().checked_sub(span).map(|at| self.blocks[at].mean);
            *largest = (*largest * keep).max(before.map_or(0.0, |before| block.high - before));
        }
        self.blocks.push_back(block);
        if self.blocks.len() > SPANS[SPANS.len() - 1] {
            self.blocks.pop_front();
        }
    }

    /// After a gap the minutes before it can't be compared with those after it. What was learned stays.
    pub fn forget_blocks(&mut self) {
        self.blocks.clear();
        (self.sum, self.open_s, self.high) = (0.0, 0.0, 0.0);
    }

    /// The load that `load` may have become within `seconds`, in pods: `load` and the largest rise seen in such a time. Beyond half an hour the
    /// rise goes on at its pace, up to the highest load seen.
    pub fn reach(&self, load: f64, seconds: f64) -> f64 {
        let at = (seconds / BLOCK_S).max(0.0);
        let (mut from, mut rise) = ((0.0, 0.0f64), 0.0);
        for (span, largest) in SPANS.iter().map(|span| *span as f64).zip(&self.largest) {
            // A longer time allows no less than a shorter one.
            let to = (span, from.1.max(f64::from(*largest)));
            if at <= span {
                return load + from.1 + (to.1 - from.1) * (at - from.0) / (to.0 - from.0);
            }
            rise = to.1;
            from = to;
        }
        let carried = if from.0 > 0.0 { rise * at / from.0 } else { 0.0 };
        load + carried.min((f64::from(self.peak) - load).max(rise))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(loads: impl IntoIterator<Item = f64>) -> Rises {
        let mut rises = Rises::default();
        loads.into_iter().for_each(|load| rises.observe(1.0, load));
        rises
    }

    #[test]
    fn nothing_seen_allows_no_rise() {
        assert_eq!(Rises::default().reach(5.0, 600.0), 5.0);
        assert_eq!(seen([3.0; 3600]).reach(5.0, 6000.0), 5.0);
    }

    #[test]
    fn a_slope_is_carried_on_from_wherever_the_load_stands() {
        let hour = seen((0..3600).map(|second| 0.01 * f64::from(second)));
        for (seconds, least, most) in [(60.0, 0.6, 1.6), (300.0, 3.0, 3.9), (600.0, 6.0, 6.9), (1200.0, 12.0, 12.9)] {
            let rise = hour.reach(2.0, seconds) - 2.0;
            assert!((least..=most).contains(&rise), "{seconds}: {rise}");
        }
        assert!(hour.reach(2.0, 7200.0) <= 36.0, "no further than the highest load");
    }

    #[test]
    fn a_storm_is_reckoned_with_minute_by_minute() {
        let storms = seen((0..7200).map(|second| if second % 1800 < 300 { 40.0 } else { 2.0 }));
        assert!(storms.reach(2.0, 60.0) >= 39.0 && storms.reach(2.0, 15.0) < 13.0);
    }

    #[test]
    fn a_gap_is_no_rise() {
        let mut rises = seen([1.0; 600]);
        rises.forget_blocks();
        (0..600).for_each(|_| rises.observe(1.0, 50.0));
        assert_eq!(rises.reach(1.0, 600.0), 1.0);
    }
}
