//! Comes in: a seed. Goes out: bursts and trickles that end in silence, under the law with each of the user's choices, under a law whose controller is started
//! anew in the middle, and under KEDA as people tune it, on the same tasks: waits, pod-seconds, cuts. Leaves to others: printing, and what is promised.

use qscaler_core::config::OptimizeFor;
use qscaler_core::scale::LawParams;

use crate::bench::{START_CV, law_config};
use crate::policy::keda::{Keda, KedaConfig};
use crate::policy::law::Law;
use crate::rng::Rng;
use crate::score::quantile;
use crate::workload::{BURSTS, Workload, bursts};
use crate::world::{Conditions, Policy, Watch, World, run};

/// Mean start latencies, seconds, and how many pods start at full speed side by side: an image on the node, what was seen on a small cluster, and that cluster
/// as it is: few nodes, a start of 6 s alone, and 40 s where twenty start at once.
const STARTS: [(f64, f64); 3] = [(5.0, f64::INFINITY), (36.0, f64::INFINITY), (6.0, 3.0)];
/// Draws of each case.
const DRAWS: u64 = 5;

/// Who is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scaler {
    /// The law, as the user chooses.
    Law(OptimizeFor),
    /// The law, its controller and memory new in the middle.
    Fresh,
    /// The law, asking for all pods at once whatever it has learned of starts.
    AtOnce,
    /// KEDA with the waiting messages of a Redis list.
    Keda,
    /// KEDA with unacknowledged ones too.
    KedaUnacked,
}

impl Scaler {
    /// All, the default first.
    pub const ALL: [Self; 7] = [
        Self::Law(OptimizeFor::Balanced),
        Self::Law(OptimizeFor::Latency),
        Self::Law(OptimizeFor::Cost),
        Self::Fresh,
        Self::AtOnce,
        Self::Keda,
        Self::KedaUnacked,
    ];

    /// For tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Law(choice) => choice.name(),
            Self::Fresh => "fresh",
            Self::AtOnce => "no ramp",
            Self::Keda => "KEDA",
            Self::KedaUnacked => "KEDA unacked",
        }
    }

    fn policy(self, workload: &Workload, seed: u64) -> Box<dyn Policy> {
        let law = |choice| {
            let mut cfg = law_config(workload);
            cfg.law = LawParams::optimized_for(choice);
            Law::new(cfg, false, seed)
        };
        let balanced = || law(OptimizeFor::Balanced);
        match self {
            Self::Law(choice) => Box::new(law(choice)),
            Self::Fresh => {
                let at_s = 0.5 * workload.tasks.last().map_or(0.0, |task| task.at_s) + 45.0;
                Box::new(Renewed { law: balanced(), next: Some(balanced()), at_s })
            }
            Self::AtOnce => {
                let mut law = balanced();
                law.at_once = true;
                Box::new(law)
            }
            Self::Keda => Box::new(Keda::new(tuned(false), seed)),
            Self::KedaUnacked => Box::new(Keda::new(tuned(true), seed)),
        }
    }
}

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
    /// From the end of the last task to the moment at which no pod is left, the longest of the draws, seconds.
    pub left_s: f64,
}

/// One case.
#[derive(Debug, Clone, PartialEq)]
pub struct BurstResult {
    /// Name in [`BURSTS`].
    pub name: &'static str,
    /// Mean start latency of a pod alone, seconds.
    pub start_s: f64,
    /// Nodes are so few that more than so many starts slow each other down; infinite: they do not.
    pub start_at_full_speed: f64,
    /// In the order of [`Scaler::ALL`].
    pub came: [Came; 7],
}

/// A law whose memory is lost at a moment, as of a controller that is installed then.
struct Renewed {
    law: Law,
    next: Option<Law>,
    at_s: f64,
}

impl Policy for Renewed {
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
pub(crate) fn tuned(unacked: bool) -> KedaConfig {
    KedaConfig { down_window_s: 0.0, poll_s: 2.0, cooldown_s: 30.0, unlimited_up: true, unacked, ..KedaConfig::default_with_value(1.0) }
}

/// All cases under all scalers.
#[must_use]
pub fn bursts_bench(seed: u64) -> Vec<BurstResult> {
    let mut results = Vec::new();
    for (name, ..) in BURSTS {
        for (start_s, start_at_full_speed) in STARTS {
            let mut result = BurstResult { name, start_s, start_at_full_speed, came: [Came::default(); 7] };
            for (scaler, came) in Scaler::ALL.iter().zip(&mut result.came) {
                let mut waits = Vec::new();
                for draw in 0..DRAWS {
                    let seed = Rng::new(seed, draw + 1).next_u64();
                    let Some(workload) = bursts(name, seed) else { continue };
                    let conditions = Conditions { start_s, start_cv: START_CV, start_at_full_speed, outage: None, seed };
                    let outcome = run(&workload, conditions, scaler.policy(&workload, seed).as_mut(), Watch::default());
                    came.pod_seconds += outcome.pod_seconds / DRAWS as f64;
                    came.cut += outcome.interrupted;
                    came.left_s = came.left_s.max(outcome.last_pod_s - outcome.last_task_s);
                    waits.extend(outcome.waits_s);
                }
                (came.p50_s, came.p99_s) = (quantile(&waits, 0.5), quantile(&waits, 0.99));
            }
            results.push(result);
        }
    }
    results
}

/// As a table in Markdown: wait p50 / p99 in s, pod-seconds, tasks cut, seconds from the last task to no pod.
#[must_use]
pub fn table(results: &[BurstResult]) -> String {
    let mut out =
        "bursts, or single tasks (trickle), then an hour of silence; wait p50 / p99 s, pod-seconds, tasks cut, seconds to no pod\n| Case, start |"
            .to_owned();
    Scaler::ALL.iter().for_each(|scaler| out.push_str(&format!(" {} |", scaler.name())));
    out.push_str(&format!("\n|{}", "---|".repeat(Scaler::ALL.len() + 1)));
    for result in results {
        let nodes = if result.start_at_full_speed.is_finite() { ", few nodes" } else { "" };
        out.push_str(&format!("\n| {}, {} s{nodes} |", result.name, result.start_s));
        for came in result.came {
            out.push_str(&format!(" {:.1} / {:.1}, {:.0}, {}, {:.0} |", came.p50_s, came.p99_s, came.pod_seconds, came.cut, came.left_s));
        }
    }
    out.push('\n');
    out
}

/// The law and tuned KEDA in the case `three` with starts of 36 s, as three bursts were measured on a cluster: pod-seconds of the one over those of the other,
/// and whether the waits are no worse, neither p50 nor p99.
#[must_use]
pub fn three_bursts_over_keda(results: &[BurstResult]) -> (f64, bool) {
    let of = |scaler: Scaler, result: &BurstResult| Scaler::ALL.iter().position(|one| *one == scaler).map(|at| result.came[at]).unwrap_or_default();
    results.iter().find(|result| result.name == "three" && result.start_s > 30.0).map_or((f64::INFINITY, false), |result| {
        let (law, keda) = (of(Scaler::Law(OptimizeFor::Balanced), result), of(Scaler::Keda, result));
        (law.pod_seconds / keda.pod_seconds, law.p50_s <= keda.p50_s && law.p99_s <= keda.p99_s)
    })
}

/// The longest that pods of the law have stayed after the last task, seconds, where 60 tasks, three heavy ones or a pair came once and where 60 came three times, and
/// whether no task was cut there.
#[must_use]
pub fn empty_after_s(results: &[BurstResult]) -> (f64, bool) {
    let cases = results.iter().filter(|result| ["once", "three", "few once", "pair"].contains(&result.name));
    cases.fold((0.0, true), |(longest_s, uncut), result| (result.came[0].left_s.max(longest_s), uncut && result.came[0].cut == 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::bar::EMPTY_AFTER_S;
    use crate::world::Outcome;

    fn play(name: &str, scaler: Scaler, (start_s, start_at_full_speed): (f64, f64), seed: u64) -> Outcome {
        let workload = bursts(name, seed).expect("one of the cases");
        let conditions = Conditions { start_s, start_cv: START_CV, start_at_full_speed, outage: None, seed };
        run(&workload, conditions, scaler.policy(&workload, seed).as_mut(), Watch::default())
    }

    #[test]
    fn the_law_lets_go_after_the_last_burst_and_cuts_nothing() {
        // What came once is no rhythm, and bursts by the clock are waited for until the next is overdue; of a trickle, some seven mean gaps.
        // Where three heavy tasks are still at work when the next come, that is no rise, and the longest pause is all that is known.
        let most_s = |name: &str| match name {
            "trickle" => 480.0,
            "few" => 75.0,
            _ => EMPTY_AFTER_S,
        };
        for name in ["once", "three", "few once", "few", "pair", "trickle"] {
            for start in STARTS {
                for seed in 1..7 {
                    let outcome = play(name, Scaler::Law(OptimizeFor::Balanced), start, seed);
                    let left_s = outcome.last_pod_s - outcome.last_task_s;
                    assert!(outcome.interrupted == 0 && left_s <= most_s(name), "{name} {start:?} {seed}: {left_s}");
                }
            }
        }
    }

    #[test]
    fn two_long_tasks_get_two_pods_and_no_more() {
        // While they run they are seen to take longer and longer, and what came once shows no rate.
        for start in STARTS {
            for seed in 1..7 {
                let outcome = play("pair", Scaler::Law(OptimizeFor::Balanced), start, seed);
                assert_eq!(outcome.starts, 2, "{start:?} {seed}: {} pod-seconds", outcome.pod_seconds);
            }
        }
    }

    #[test]
    fn where_nodes_are_few_later_bursts_start_in_a_ramp_and_cost_less() {
        let total = |scaler, start| {
            let outcomes = (1..7).map(|seed| play("slow", scaler, start, seed));
            outcomes.fold((0.0, Vec::new()), |(pod_seconds, mut waits), outcome| {
                waits.extend(outcome.waits_s);
                (pod_seconds + outcome.pod_seconds, waits)
            })
        };
        let ((ramp, ramp_waits), (at_once, at_once_waits)) = (total(Scaler::ALL[0], STARTS[2]), total(Scaler::AtOnce, STARTS[2]));
        assert!(ramp < 0.9 * at_once, "{ramp} {at_once}");
        for q in [0.5, 0.99] {
            assert!(quantile(&ramp_waits, q) <= quantile(&at_once_waits, q), "{q}");
        }
        assert_eq!(total(Scaler::ALL[0], STARTS[0]), total(Scaler::AtOnce, STARTS[0]), "where nodes are plenty nothing is held back");
    }
}
