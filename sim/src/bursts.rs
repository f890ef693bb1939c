//! Comes in: a seed. Goes out: bursts that end in silence, under the law, under a law whose controller is started anew in the middle, and under KEDA as
//! people tune it, on the same tasks: waits, pod-seconds, cuts. Leaves to others: printing, and what is promised.

use crate::bench::{START_CV, law_config};
use crate::policy::keda::{Keda, KedaConfig};
use crate::policy::law::Law;
use crate::rng::Rng;
use crate::score::quantile;
use crate::workload::{BURSTS, Workload, bursts};
use crate::world::{Conditions, Policy, Watch, World, run};

/// Mean start latencies, seconds: an image on the node, and what was seen on a small cluster.
const STARTS_S: [f64; 2] = [5.0, 36.0];
/// Draws of each case.
const DRAWS: u64 = 5;
/// Scalers, by name.
pub const SCALERS: [&str; 4] = ["law", "law, fresh", "KEDA", "KEDA unacked"];

/// What one scaler came to in one case: means over the draws, waits over all of their tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Came {
    /// Median wait, seconds.
    pub p50_s: f64,
    /// 99th percentile of the wait, seconds.
    pub p99_s: f64,
    /// Pod-seconds.
    pub pod_seconds: f64,
    /// Tasks cut.
    pub cut: u64,
}

/// One case.
#[derive(Debug, Clone, PartialEq)]
pub struct BurstResult {
    /// Name in [`BURSTS`].
    pub name: &'static str,
    /// Mean start latency, seconds.
    pub start_s: f64,
    /// In the order of [`SCALERS`].
    pub came: [Came; 4],
}

/// A law whose memory is lost at a moment, as of a controller that is installed then.
struct Fresh {
    law: Law,
    next: Option<Law>,
    at_s: f64,
}

impl Policy for Fresh {
    fn first_wake_s(&self) -> f64 {
        self.law.first_wake_s()
    }

    fn wake(&mut self, world: &mut World<'_>) -> f64 {
        if world.now_s() >= self.at_s
            && let Some(next) = self.next.take()
        {
            self.law = next;
        }
        self.law.wake(world)
    }
}

/// KEDA with a poll of 2 s, no stabilization, no limit of the up policy and one message per pod: what people arrive at who tune it for bursts.
fn tuned(unacked: bool) -> KedaConfig {
    KedaConfig { down_window_s: 0.0, poll_s: 2.0, cooldown_s: 30.0, unlimited_up: true, unacked, ..KedaConfig::default_with_value(1.0) }
}

fn policy(scaler: usize, workload: &Workload, seed: u64) -> Box<dyn Policy> {
    let law = || Law::new(law_config(workload), false, seed);
    match scaler {
        0 => Box::new(law()),
        1 => Box::new(Fresh { law: law(), next: Some(law()), at_s: 0.5 * workload.tasks.last().map_or(0.0, |task| task.at_s) + 45.0 }),
        _ => Box::new(Keda::new(tuned(scaler == 3), seed)),
    }
}

/// All cases under all scalers.
#[must_use]
pub fn bursts_bench(seed: u64) -> Vec<BurstResult> {
    let mut results = Vec::new();
    for (name, _, _) in BURSTS {
        for start_s in STARTS_S {
            let mut result = BurstResult { name, start_s, came: [Came::default(); 4] };
            for (scaler, came) in result.came.iter_mut().enumerate() {
                let mut waits = Vec::new();
                for draw in 0..DRAWS {
                    let seed = Rng::new(seed, draw + 1).next_u64();
                    let Some(workload) = bursts(name, seed) else { continue };
                    let conditions = Conditions { start_s, start_cv: START_CV, outage: None, seed };
                    let outcome = run(&workload, conditions, policy(scaler, &workload, seed).as_mut(), Watch { points: None, budget_pod_s: None });
                    came.pod_seconds += outcome.pod_seconds / DRAWS as f64;
                    came.cut += outcome.interrupted;
                    waits.extend(outcome.waits_s);
                }
                (came.p50_s, came.p99_s) = (quantile(&waits, 0.5), quantile(&waits, 0.99));
            }
            results.push(result);
        }
    }
    results
}

/// As text.
#[must_use]
pub fn table(results: &[BurstResult]) -> String {
    let mut out = format!("bursts of 60 tasks, then silence; wait p50/p99 s, pod-seconds, cut\n{:>7} {:>5}", "case", "start");
    SCALERS.iter().for_each(|name| out.push_str(&format!("  {name:>26}")));
    for result in results {
        out.push_str(&format!("\n{:>7} {:>5}", result.name, result.start_s));
        for came in result.came {
            out.push_str(&format!("  {:>6.1} {:>6.1} {:>8.0} {:>3}", came.p50_s, came.p99_s, came.pod_seconds, came.cut));
        }
    }
    out.push('\n');
    out
}

/// Pod-seconds of the law over those of tuned KEDA in the case `three` with slow starts: as three bursts were measured on a cluster.
#[must_use]
pub fn three_bursts_over_keda(results: &[BurstResult]) -> f64 {
    results.iter().rfind(|result| result.name == "three").map_or(f64::INFINITY, |result| result.came[0].pod_seconds / result.came[2].pod_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_law_lets_go_after_the_last_burst_and_cuts_nothing() {
        let Some(workload) = bursts("three", 7) else { panic!("there are three bursts") };
        let conditions = Conditions { start_s: 36.0, start_cv: START_CV, outage: None, seed: 7 };
        let mut points = Vec::new();
        let outcome = run(&workload, conditions, policy(0, &workload, 7).as_mut(), Watch { points: Some((1.0, &mut points)), budget_pod_s: None });
        assert_eq!(outcome.interrupted, 0);
        let last_task_s = points.iter().rfind(|point| point.busy + point.backlog > 0).map_or(0.0, |point| point.at_s);
        let last_pod_s = points.iter().rfind(|point| point.pods > 0).map_or(0.0, |point| point.at_s);
        assert!(last_pod_s - last_task_s < 120.0, "{last_task_s} {last_pod_s}");
    }
}
