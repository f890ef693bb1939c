//! Comes in: a seed. Goes out: for how long messages are late after the load has trebled for good, under the law, under KEDA as people tune it, and under a scaler
//! that is told of the step and asks for all pods at that moment. Leaves to others: printing, and what is promised.

use crate::bench::{START_CV, law_config};
use crate::bursts::tuned;
use crate::policy::keda::Keda;
use crate::policy::law::Law;
use crate::rng::Rng;
use crate::score::quantile;
use crate::workload::{Task, Workload};
use crate::world::{Conditions, Policy, Watch, World, run};

/// What trebles: the messages, or what each of them takes. The one is seen from the first second on, the other when fewer have ended than usual.
pub const STEPS: [&str; 2] = ["messages", "work"];
/// Mean start latencies, seconds.
const STARTS_S: [f64; 2] = [5.0, 30.0];
/// Draws of each case.
const DRAWS: u64 = 7;
/// Messages per second and seconds of work before the step, and by how much one of them grows.
const RATE_PER_S: f64 = 8.0;
const SERVICE_S: f64 = 1.5;
const TIMES: f64 = 3.0;
/// When, and when the trace ends, seconds.
const AT_S: f64 = 1800.0;
const END_S: f64 = 2700.0;
/// The promise, seconds.
const MAX_WAIT_S: f64 = 15.0;
/// Messages are on time again when none that came within so many seconds is late.
const ON_TIME_S: f64 = 20.0;

/// Who is compared.
const SCALERS: [&str; 3] = ["QScaler", "KEDA", "told of it"];

/// One case.
#[derive(Debug, Clone, PartialEq)]
pub struct StepResult {
    /// One of [`STEPS`].
    pub step: &'static str,
    /// Mean start latency of a pod, seconds.
    pub start_s: f64,
    /// Seconds after the step until messages that come are on time again: median and longest of the draws, in the order QScaler, KEDA, told of it.
    pub late_for_s: [(f64, f64); 3],
}

/// The law until the step, and then as many pods as there may be.
struct Told(Law);

impl Policy for Told {
    fn first_wake_s(&self) -> f64 {
        self.0.first_wake_s()
    }

    fn wake(&mut self, world: &mut World<'_>) -> f64 {
        if world.now_s() < AT_S {
            return self.0.wake(world).min(AT_S);
        }
        world.start(world.max_replicas - world.replicas());
        f64::INFINITY
    }
}

/// Eight messages a second, of 1.5 s each, and from the half hour on three times as many, or three times as long ones.
fn workload(step: &str, seed: u64) -> Workload {
    let (mut arrivals, mut services) = (Rng::new(seed, 0x57), Rng::new(seed, 0x58));
    let (mut tasks, mut at_s) = (Vec::new(), 0.0);
    while at_s < END_S {
        let (rate, service_s) = match (at_s < AT_S, step) {
            (true, _) => (RATE_PER_S, SERVICE_S),
            (false, "messages") => (TIMES * RATE_PER_S, SERVICE_S),
            (false, _) => (RATE_PER_S, TIMES * SERVICE_S),
        };
        tasks.push(Task { at_s, service_s: services.lognormal(service_s, 1.0) });
        at_s += arrivals.exponential(1.0 / rate);
    }
    Workload { name: step.to_owned(), tasks, max_wait_s: MAX_WAIT_S, min_replicas: 0, max_replicas: 100, horizon_s: END_S, shared_capacity: None }
}

/// Seconds from the step to the last message that is late before none is for a while.
fn late_for_s(workload: &Workload, waits_s: &[f32]) -> f64 {
    let mut last_s = AT_S;
    for (task, wait_s) in workload.tasks.iter().zip(waits_s).filter(|(task, _)| task.at_s >= AT_S) {
        if f64::from(*wait_s) > workload.max_wait_s {
            last_s = task.at_s;
        } else if task.at_s - last_s > ON_TIME_S {
            break;
        }
    }
    last_s - AT_S
}

/// All steps under all scalers.
#[must_use]
pub fn step_bench(seed: u64) -> Vec<StepResult> {
    let mut results = Vec::new();
    for step in STEPS {
        for start_s in STARTS_S {
            let mut of = [Vec::new(), Vec::new(), Vec::new()];
            for draw in 0..DRAWS {
                let seed = Rng::new(seed, draw + 1).next_u64();
                let workload = workload(step, seed);
                let conditions = Conditions { start_s, start_cv: START_CV, start_at_full_speed: f64::INFINITY, outage: None, seed };
                let law = || Law::new(law_config(&workload), false, seed);
                let policies: [Box<dyn Policy>; 3] = [Box::new(law()), Box::new(Keda::new(tuned(true), seed)), Box::new(Told(law()))];
                for (mut policy, times) in policies.into_iter().zip(&mut of) {
                    let outcome = run(&workload, conditions, policy.as_mut(), Watch::default());
                    times.push(late_for_s(&workload, &outcome.waits_s) as f32);
                }
            }
            let late_for_s = of.map(|times| (quantile(&times, 0.5), quantile(&times, 1.0)));
            results.push(StepResult { step, start_s, late_for_s });
        }
    }
    results
}

/// As a table in Markdown.
#[must_use]
pub fn table(results: &[StepResult]) -> String {
    let mut out = format!(
        "the load trebles for good; seconds until messages that come are on time again, median / longest of {DRAWS} draws\n| What trebles, start | {} |\n|---|---|---|---|",
        SCALERS.join(" | ")
    );
    for result in results {
        let cells = result.late_for_s.map(|(median, longest)| format!("{median:.0} / {longest:.0}"));
        out.push_str(&format!("\n| {}, {:.0} s | {} |", result.step, result.start_s, cells.join(" | ")));
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_times_the_load_is_met_after_one_start_latency() {
        for result in step_bench(5) {
            let [(median_s, _), _, (told_s, _)] = result.late_for_s;
            // Heavier work shows only when fewer tasks than usual have ended for some ten seconds.
            let seen_after_s = if result.step == "work" { 10.0 } else { 0.0 };
            assert!(median_s <= result.start_s + seen_after_s, "{result:?}");
            assert!(told_s <= median_s + 1.0, "nobody is quicker than who is told: {result:?}");
        }
    }
}
