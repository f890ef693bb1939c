//! CPU use as a decaying histogram. In: mean millicores of a task or an interval, and its weight. Out: a percentile.
//! Left to others: bounds and hysteresis (`recommend`). CPU can be squeezed, memory cannot: so a percentile here and a maximum there.

use super::DAY_S;
use crate::scale::numeric::within;
use serde::{Deserialize, Serialize};

/// Upper edge of the first bucket, millicores.
const FIRST_EDGE_M: f64 = 10.0;
/// Each bucket's upper edge over the one before: an answer is at most 10 % above the truth.
const EDGE_RATIO: f64 = 1.1;
/// Buckets: the last edge is about 10 m x 1.1^95 = 85 cores, larger uses count in it.
const BUCKETS: usize = 96;
/// A sample counts half after this many seconds: two days keep a working week's rhythm without clinging to last week.
const HALF_LIFE_S: f64 = 2.0 * DAY_S;
/// Weights are faded in steps of this many seconds or more, to spare work on busy queues; in a minute they lose 0.02 %.
const FADE_STEP_S: f64 = 60.0;
/// Buckets below this share of the whole are forgotten: they move no percentile that is asked for.
const FORGET_SHARE: f64 = 1e-4;

/// Weights of exponentially growing buckets, fading with time. Serialized as the non-empty buckets only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CpuHistogram {
    /// Bucket index and weight, in order of index.
    weights: Vec<(u8, f32)>,
    /// When the weights were last faded.
    faded_s: f64,
}

impl CpuHistogram {
    /// Adds `weight` samples of `millicores`.
    pub fn add(&mut self, millicores: u64, weight: u32, now_s: f64) {
        self.fade(now_s);
        let bucket = bucket(millicores);
        let weight = weight.max(1) as f32;
        match self.weights.binary_search_by_key(&bucket, |w| w.0) {
            Ok(at) => self.weights[at].1 += weight,
            Err(at) => self.weights.insert(at, (bucket, weight)),
        }
    }

    /// The upper edge in millicores of the bucket that holds the given quantile (0 to 1); None when empty.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let target = self.total() * within(q, 0.0, 1.0);
        let mut sum = 0.0;
        let mut last = None;
        for &(index, weight) in &self.weights {
            sum += f64::from(weight);
            last = Some(edge(index));
            if sum >= target {
                break;
            }
        }
        last
    }

    fn total(&self) -> f64 {
        self.weights.iter().map(|w| f64::from(w.1)).sum()
    }

    fn fade(&mut self, now_s: f64) {
        if self.weights.is_empty() {
            self.faded_s = now_s.floor();
            return;
        }
        let age_s = now_s - self.faded_s;
        if age_s < FADE_STEP_S {
            return;
        }
        let factor = 0.5f64.powf(age_s / HALF_LIFE_S) as f32;
        self.faded_s = now_s.floor();
        for w in &mut self.weights {
            w.1 = short(w.1 * factor);
        }
        let least = self.total() * FORGET_SHARE;
        self.weights.retain(|w| f64::from(w.1) > least);
    }
}

/// Four significant digits: enough for a weight, and short in JSON.
fn short(value: f32) -> f32 {
    if value <= 0.0 || !value.is_finite() {
        return 0.0;
    }
    let scale = 10f64.powi(3 - f64::from(value).log10().floor() as i32);
    ((f64::from(value) * scale).round() / scale) as f32
}

fn bucket(millicores: u64) -> u8 {
    let position = ((millicores.max(1) as f64 / FIRST_EDGE_M).ln() / EDGE_RATIO.ln() - 1e-9).ceil();
    within(position, 0.0, (BUCKETS - 1) as f64) as u8
}

fn edge(index: u8) -> u64 {
    (FIRST_EDGE_M * EDGE_RATIO.powi(i32::from(index))).ceil() as u64
}
