//! What the tasks need: made-up cases, each with one difficulty. In: a seed. Out: [`Case`]s. Left to others: running them (`replay`).

use super::{DAY_S, MIB};
use crate::rng::Rng;

/// One task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SizedTask {
    /// When it arrives, seconds from the start.
    pub arrive_s: f64,
    /// How long it runs when it is not killed, seconds.
    pub run_s: f64,
    /// The memory that it needs, in a pod that has not leaked yet, bytes.
    pub need: u64,
}

/// One queue with its tasks, in order of arrival.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Its difficulty, in a word or two.
    pub name: &'static str,
    /// The tasks.
    pub tasks: Vec<SizedTask>,
    /// Pods that work on them.
    pub workers: usize,
    /// Largest limit allowed, bytes.
    pub cap: u64,
    /// The limit in the user's template, as a multiple of the best fixed limit.
    pub start_factor: f64,
    /// What a pod keeps of each task's memory, bytes.
    pub leak: u64,
    /// Mean number of tasks in the life of a pod (rollouts, scale-downs).
    pub pod_life: f64,
    /// For pod lives.
    pub seed: u64,
}

/// Names of the made-up cases, in the order in which they are reported.
pub const SYNTHETIC: [&str; 8] = ["stationary", "step up", "step down", "weekly burst", "leak", "bimodal", "poison task", "cap below peak"];

/// Simulated days of each case: six weeks, five windows of eight days.
pub const DAYS: f64 = 42.0;
/// Mean run time of a task, seconds; coefficient of variation 1.
const RUN_S: f64 = 60.0;
/// SizeCap where the case is not about the cap, bytes.
const ROOMY: u64 = 8192 * MIB;

/// One made-up case of `count` tasks; equal seeds give equal cases.
///
/// Needs are lognormal around a median that the seed draws between 100 and 1000 MiB; the template's limit is between half and twice the best
/// fixed one, as users' guesses are.
#[must_use]
pub fn synthetic(name: &'static str, seed: u64, count: usize) -> Case {
    let stream = SYNTHETIC.iter().position(|&n| n == name).unwrap_or(SYNTHETIC.len()) as u64;
    let mut rng = Rng::new(seed, 100 + stream);
    let median = rng.between(100f64.ln(), 1000f64.ln()).exp() * MIB as f64;
    let start_factor = rng.between(0.5f64.ln(), 2f64.ln()).exp();
    let spread = rng.between(0.03, 0.12);
    let special = rng.between(0.5, 1.0);
    let times = if name == "weekly burst" { weekly(&mut rng, count) } else { spread_out(&mut rng, count) };
    let mut tasks: Vec<SizedTask> = Vec::with_capacity(count);
    for (i, (arrive_s, burst)) in times.into_iter().enumerate() {
        let late = i >= count / 2;
        let scale = match name {
            "step up" if late => 1.5 + special,
            "step down" if !late => 1.5 + special,
            "weekly burst" if burst => 3.0 + 2.0 * special,
            // One task in 20 to 40 is of another kind.
            "bimodal" if rng.uniform() < 0.025 + 0.025 * special => 4.0 + 3.0 * special,
            // One in a thousand or two needs what no pod has.
            "poison task" if rng.uniform() < 0.001 * special => 1e4,
            // One in 200 to 400 needs more than the user allows.
            "cap below peak" if rng.uniform() < 0.005 * special => 6.0,
            _ => 1.0,
        };
        let need = (median * scale * (spread * rng.normal()).exp()) as u64;
        tasks.push(SizedTask { arrive_s, run_s: rng.lognormal(RUN_S, 1.0), need });
    }
    let cap = if name == "cap below peak" { (median * 3.5) as u64 / MIB * MIB } else { ROOMY };
    // A pod leaks a fiftieth of a task's memory, and lives for a hundred tasks: it ends at about three times its need.
    let (leak, pod_life) = if name == "leak" { ((median / 50.0) as u64, 100.0) } else { (0, 50.0) };
    Case { name, tasks, workers: 4, cap, start_factor, leak, pod_life, seed }
}

/// Poisson arrivals over all days.
fn spread_out(rng: &mut Rng, count: usize) -> Vec<(f64, bool)> {
    let mean = DAYS * DAY_S / count as f64;
    let mut now_s = 0.0;
    (0..count)
        .map(|_| {
            now_s += rng.exponential(mean);
            (now_s, false)
        })
        .collect()
}

/// Four days of small tasks, two idle days, and a day that begins with a burst of large ones; each week.
fn weekly(rng: &mut Rng, count: usize) -> Vec<(f64, bool)> {
    let weeks = (DAYS / 7.0) as usize;
    let per_week = count / weeks;
    let burst = per_week / 20;
    let mut out = Vec::with_capacity(count);
    for week in 0..weeks {
        let from = week as f64 * 7.0 * DAY_S;
        let small = if week + 1 == weeks { count - out.len() - burst } else { per_week - burst };
        out.extend((0..small).map(|_| (from + rng.between(0.0, 4.0 * DAY_S), false)));
        out.extend((0..burst).map(|_| (from + rng.between(6.0 * DAY_S, 6.05 * DAY_S), true)));
    }
    out.sort_by(|a, b| a.0.total_cmp(&b.0));
    out
}
