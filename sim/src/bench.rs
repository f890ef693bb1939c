//! Comes in: a seed, the recorded hour if there is one, how thorough to be. Goes out: every case under every scaler, and whether the law keeps its
//! promises. Leaves to others: printing ([`crate::page`] for one trace, the binary for this).
//!
//! A case is a workload and a start latency, run for several seeds; its cost is the mean of the runs' costs, and cases are joined by the geometric
//! mean. KEDA is given every advantage of hindsight: the best of 1008 settings for each case, and the best single setting over all of them, both
//! told the true service time. All 1008 are run for the first seed; those that may win go on to the others.

mod rivals;

use std::path::Path;
use std::time::Instant;

pub use rivals::{FileError, Rival};

use qscaler_core::scale::{Completion, FleetSample, Learned, QueueSample, ScaleConfig, decide};

use crate::optimum::{Optimum, optimum};
use crate::outage::{self, AFTER_S, HoldsPast, OUTAGE_S, OUTAGES, OutageResult};
use crate::policy::keda::{Keda, KedaConfig, grid};
use crate::policy::law::Law;
use crate::recorded::{self, Jobs};
use crate::rng::Rng;
use crate::score::{Score, geometric_mean};
use crate::workload::{NAMES, Workload, generate};
use crate::world::{Conditions, Outcome, Policy, Watch, run};

/// Mean start latencies of the cases, seconds: an image on the node, and one that has to be pulled.
pub const STARTS_S: [f64; 2] = [5.0, 30.0];
/// Spread of start latencies, as a share of the mean.
pub const START_CV: f64 = 0.25;
/// Workloads the outage is tried on.
const OUTAGE_CASES: [&str; 2] = ["steady", "diurnal"];

/// What the law must reach.
pub mod bar {
    /// Geometric cost, at most.
    pub const GEO_J: f64 = 1.15;
    /// Against KEDA with value 1, at least.
    pub const VS_KEDA_V1: f64 = 2.3;
    /// Against the best single KEDA setting, at least.
    pub const VS_KEDA_SINGLE: f64 = 1.35;
    /// Against the best KEDA setting of each case in hindsight, at least.
    pub const VS_KEDA_HINDSIGHT: f64 = 1.05;
    /// Cost of any case over that of the hindsight setting, at most.
    pub const WORST_CASE: f64 = 1.35;
    /// Cost of `shift` with slow starts over that of the hindsight setting, at most.
    pub const SHIFT: f64 = 1.1;
    /// Pod-seconds of three bursts over those of tuned KEDA, at most, with waits that are no worse.
    pub const THREE_BURSTS: f64 = 1.2;
    /// Seconds from the last task of one to three bursts to the moment at which no pod is left, at most.
    pub const EMPTY_AFTER_S: f64 = 60.0;
    /// Messages that an outage of the figures may make late.
    pub const ADDED_MISSES: f64 = 0.0;
    /// One decision, microseconds.
    pub const DECIDE_US: f64 = 20.0;
    /// One tick of ten thousand workloads on one core, milliseconds: they are due each second.
    pub const TICK_MS: f64 = 1000.0;
}

/// How thorough to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Seeds per case.
    pub seeds: u32,
    /// Every so many-th KEDA setting is tried; 1 for all.
    pub grid_step: usize,
}

impl Effort {
    /// All of it: minutes.
    pub const FULL: Self = Self { seeds: 3, grid_step: 1 };
    /// A look: seconds. KEDA's hindsight is poorer, so that the ratios to it are no proof.
    pub const QUICK: Self = Self { seeds: 1, grid_step: 21 };
}

/// One run's givens.
struct Round {
    workload: Workload,
    optimum: Optimum,
    conditions: Conditions,
}

/// A workload and a start latency.
struct Case {
    name: String,
    start_s: f64,
    rounds: Vec<Round>,
}

/// One case under all scalers.
#[derive(Debug, Clone)]
pub struct CaseResult {
    /// Share of messages that are late even for the optimum.
    pub optimum_miss: f64,
    /// The law.
    pub law: Score,
    /// All others, and which case it is.
    pub rival: Rival,
}

/// All cases, and what follows from them.
#[derive(Debug, Clone)]
pub struct LawReport {
    /// Every case.
    pub cases: Vec<CaseResult>,
    /// The best single KEDA setting, as for a service time of 1 s.
    pub single_setting: KedaConfig,
    /// Tasks the law cut, in all runs.
    pub interruptions: u64,
    /// Every case with outages of the figures.
    pub outages: Vec<OutageResult>,
    /// One decision for a fleet of a hundred pods, microseconds.
    pub decide_us: f64,
    /// One tick of ten thousand workloads on one core, milliseconds.
    pub tick_ms: f64,
}

/// The law's configuration for a workload: what a user states, and nothing else.
pub fn law_config(workload: &Workload) -> ScaleConfig {
    ScaleConfig::new(workload.min_replicas, workload.max_replicas, workload.max_wait_s)
}

fn cases(seed: u64, seeds: u32, jobs: Option<&Jobs>, only: &[&str]) -> Vec<Case> {
    let mut names: Vec<&str> = NAMES.iter().copied().filter(|name| only.is_empty() || only.contains(name)).collect();
    if jobs.is_some() && (only.is_empty() || only.contains(&"alibaba")) {
        names.push("alibaba");
    }
    let mut all = Vec::new();
    for name in names {
        for start_s in STARTS_S {
            let rounds = (0..seeds).filter_map(|round| {
                let seed = Rng::new(seed, u64::from(round) + 1).next_u64();
                let workload = generate(name, seed).or_else(|| jobs.map(|jobs| recorded::draw(jobs, seed)))?;
                let optimum = optimum(&workload, start_s);
                Some(Round {
                    workload,
                    optimum,
                    conditions: Conditions { start_s, start_cv: START_CV, start_at_full_speed: f64::INFINITY, outage: None, seed },
                })
            });
            all.push(Case { name: name.to_owned(), start_s, rounds: rounds.collect() });
        }
    }
    all
}

impl Case {
    /// Cost of one policy over all rounds from `from` on.
    fn scores(&self, from: usize, budget: Option<f64>, policy: impl Fn(&Round) -> Box<dyn Policy>) -> Vec<Score> {
        self.rounds.iter().skip(from).map(|round| Score::of(&round.play(budget, &policy), &round.optimum)).collect()
    }

    fn mean(&self, policy: impl Fn(&Round) -> Box<dyn Policy>) -> Score {
        Score::mean(&self.scores(0, None, policy))
    }
}

impl Round {
    fn play(&self, budget: Option<f64>, policy: &impl Fn(&Self) -> Box<dyn Policy>) -> Outcome {
        let watch = Watch { points: None, budget_pod_s: budget.map(|times| times * self.optimum.pod_seconds) };
        run(&self.workload, self.conditions, policy(self).as_mut(), watch)
    }

    fn law(&self) -> Box<dyn Policy> {
        Box::new(Law::new(law_config(&self.workload), false, self.conditions.seed))
    }

    fn keda(&self, setting: usize) -> Box<dyn Policy> {
        Box::new(Keda::new(grid(self.workload.mean_service_s())[setting], self.conditions.seed))
    }

    fn keda_with_value(&self, value: f64) -> Box<dyn Policy> {
        Box::new(Keda::new(KedaConfig::default_with_value(value), self.conditions.seed))
    }
}

/// The outages alone. `only` restricts the workloads; empty for all.
pub fn outage_bench(seed: u64, effort: Effort, jobs: Option<&Jobs>, only: &[&str]) -> Vec<OutageResult> {
    outages(&cases(seed, effort.seeds, jobs, only), seed)
}

/// The law alone: each case's name, start latency and mean score. Seconds, for who tunes it.
pub fn law_bench(seed: u64, effort: Effort, jobs: Option<&Jobs>, only: &[&str]) -> Vec<(String, f64, Score)> {
    cases(seed, effort.seeds, jobs, only).into_iter().map(|case| (case.name.clone(), case.start_s, case.mean(Round::law))).collect()
}

/// Runs everything. `only` restricts the workloads; empty for all. `kept`: the file in which the rivals' results are kept.
///
/// # Errors
/// That file cannot be read or written, or is of other cases.
pub fn bench(seed: u64, effort: Effort, jobs: Option<&Jobs>, only: &[&str], kept: Option<&Path>) -> Result<LawReport, FileError> {
    let cases = cases(seed, effort.seeds, jobs, only);
    let played = rivals::rivals(&cases, seed, effort, kept)?;
    let mut interruptions = 0;
    let results = cases.iter().zip(played.cases).map(|(case, rival)| {
        let law: Vec<Outcome> = case.rounds.iter().map(|round| round.play(None, &Round::law)).collect();
        interruptions += law.iter().map(|outcome| outcome.interrupted).sum::<u64>();
        let law: Vec<Score> = law.iter().zip(&case.rounds).map(|(outcome, round)| Score::of(outcome, &round.optimum)).collect();
        let optimum_miss = case.rounds.iter().map(|round| round.optimum.miss).sum::<f64>() / case.rounds.len() as f64;
        CaseResult { optimum_miss, law: Score::mean(&law), rival }
    });
    let results: Vec<CaseResult> = results.collect();
    Ok(LawReport {
        cases: results,
        single_setting: played.single_setting,
        interruptions,
        outages: outages(&cases, seed),
        decide_us: decide_us(),
        tick_ms: tick_ms(),
    })
}

/// Every case with outages of the figures: see [`crate::outage`].
fn outages(cases: &[Case], seed: u64) -> Vec<OutageResult> {
    let mut rng = Rng::new(seed, 0x0a);
    let mut results = Vec::new();
    for case in cases {
        let mut result = OutageResult { name: case.name.clone(), start_s: case.start_s, ..OutageResult::default() };
        for round in &case.rounds {
            let sighted = round.play(None, &Round::law);
            for _ in 0..OUTAGES {
                let from = round.workload.horizon_s * rng.between(0.25, 0.75);
                let to = from + OUTAGE_S;
                let blind = Round {
                    workload: round.workload.clone(),
                    optimum: round.optimum,
                    conditions: Conditions { outage: Some((from, to)), ..round.conditions },
                };
                let past = blind.play(None, &|round: &Round| -> Box<dyn Policy> {
                    Box::new(HoldsPast { law: Law::new(law_config(&round.workload), false, round.conditions.seed), most: 0 })
                });
                let own = round.workload.tasks.partition_point(|task| task.at_s < to + AFTER_S);
                let blind = blind.play(None, &Round::law);
                outage::compare(&mut result, &sighted, &blind, &past, round.workload.max_wait_s, own);
            }
        }
        let runs = (case.rounds.len() * OUTAGES) as f64;
        (result.pods, result.pods_by_past) = (result.pods / runs, result.pods_by_past / runs);
        results.push(result);
    }
    results
}

/// Mean time of one decision for a hundred busy pods, microseconds, by this machine's clock.
fn decide_us() -> f64 {
    const ROUNDS: u32 = 20_000;
    let cfg = ScaleConfig::new(0, 200, 30.0);
    let mut learned = Learned::default();
    let mut fleet = FleetSample {
        spec_replicas: 100,
        ready: 100,
        busy: Some(100),
        busy_ages_s: (0..100).map(|n| f64::from(n) * 0.1).collect(),
        ..FleetSample::default()
    };
    let started = Instant::now();
    let mut sum = 0u64;
    for round in 0..ROUNDS {
        let queue = QueueSample {
            ready: Some(u64::from(200 + round % 50)),
            unacked: Some(100),
            published_total: Some(u64::from(round) * 10),
            ..QueueSample::default()
        };
        fleet.completions = (0..10).map(|n| Completion { service_s: 8.0 + f64::from(n) * 0.4 }).collect();
        sum += u64::from(decide(&cfg, &mut learned, &[queue], &fleet, f64::from(round)).target);
    }
    let us = started.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS);
    if sum == 0 { f64::INFINITY } else { us }
}

/// One tick of ten thousand workloads, each with its own memory, on one core, milliseconds by this machine's clock: the mean of a few ticks.
fn tick_ms() -> f64 {
    const WORKLOADS: usize = 10_000;
    const TICKS: u32 = 20;
    let cfg = ScaleConfig::new(0, 50, 30.0);
    let mut learned = vec![Learned::default(); WORKLOADS];
    let fleet = FleetSample { spec_replicas: 10, ready: 10, busy: Some(10), busy_ages_s: vec![1.0; 10], ..FleetSample::default() };
    let mut spent = 0.0;
    let mut sum = 0u64;
    for tick in 0..TICKS {
        let queue = [QueueSample {
            ready: Some(u64::from(tick % 7)),
            unacked: Some(10),
            published_total: Some(u64::from(tick) * 5),
            ..QueueSample::default()
        }];
        let started = Instant::now();
        for learned in &mut learned {
            sum += u64::from(decide(&cfg, learned, &queue, &fleet, f64::from(tick)).target);
        }
        spent += started.elapsed().as_secs_f64();
    }
    if sum == 0 { f64::INFINITY } else { spent * 1000.0 / f64::from(TICKS) }
}

impl LawReport {
    /// Geometric cost of one scaler over the cases.
    pub fn geo(&self, scaler: impl Fn(&CaseResult) -> &Score) -> f64 {
        geometric_mean(self.cases.iter().map(|case| scaler(case).j))
    }

    /// The case where the law does worst against the hindsight setting, and how many times that costs.
    pub fn worst(&self) -> (String, f64) {
        self.cases
            .iter()
            .map(|case| (format!("{} {:.0}", case.rival.name, case.rival.start_s), case.law.j / case.rival.hindsight.j))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap_or_default()
    }

    /// Messages that outages made late, in the cases of [`OUTAGE_CASES`].
    pub fn added_misses_in_outage(&self) -> usize {
        self.outages.iter().filter(|case| OUTAGE_CASES.contains(&case.name.as_str())).map(|case| case.added).sum()
    }

    /// Every promise: its name, what was reached, whether it holds.
    pub fn promises(&self) -> Vec<(&'static str, f64, bool)> {
        let law = self.geo(|case| &case.law);
        let least = |name, value: f64, bar: f64| (name, value, value >= bar);
        let most = |name, value: f64, bar: f64| (name, value, value <= bar);
        let mut promises = vec![
            most("geo_j", law, bar::GEO_J),
            least("vs_keda_v1", self.geo(|case| &case.rival.keda_v1) / law, bar::VS_KEDA_V1),
            least("vs_keda_best_single", self.geo(|case| &case.rival.single) / law, bar::VS_KEDA_SINGLE),
            least("vs_keda_hindsight", self.geo(|case| &case.rival.hindsight) / law, bar::VS_KEDA_HINDSIGHT),
            least("vs_go_qscaler", self.geo(|case| &case.rival.go) / law, 1.0),
            most("worst_case", self.worst().1, bar::WORST_CASE),
            most("interruptions", self.interruptions as f64, 0.0),
            most("added_misses_in_outage", self.added_misses_in_outage() as f64, bar::ADDED_MISSES),
            most("decide_us", self.decide_us, bar::DECIDE_US),
            most("tick_ms_10000", self.tick_ms, bar::TICK_MS),
        ];
        let shift = self.cases.iter().find(|case| case.rival.name == "shift" && case.rival.start_s > STARTS_S[0]);
        promises.extend(shift.map(|case| most("shift30_vs_hindsight", case.law.j / case.rival.hindsight.j, bar::SHIFT)));
        promises
    }

    /// The table, a line per case: late % / 95th percentile of the wait, s / pod-seconds over the optimum, and the cost J.
    pub fn table(&self) -> String {
        use std::fmt::Write;
        let mut out =
            String::from("case         QScaler                  KEDA value 1             KEDA best in hindsight   Go QScaler               WPA\n");
        let cell = |score: &Score| format!("{:5.1}/{:5.0}/{:5.2} J {:5.2}", score.miss * 100.0, score.wait_p95_s.min(99_999.0), score.pods, score.j);
        for case in &self.cases {
            let mark = if case.law.j > case.rival.hindsight.j { "<" } else { " " };
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "{:8} {:3.0} {}{mark} {}  {}  {}  {}",
                case.rival.name,
                case.rival.start_s,
                cell(&case.law),
                cell(&case.rival.keda_v1),
                cell(&case.rival.hindsight),
                cell(&case.rival.go),
                cell(&case.rival.wpa)
            );
        }
        let _ = writeln!(
            out,
            "geometric J  QScaler {:.3}  KEDA value 1 {:.3}  KEDA default {:.3}  KEDA best single {:.3}  KEDA hindsight {:.3}  Go {:.3}  Go hindsight {:.3}  WPA {:.3}",
            self.geo(|case| &case.law),
            self.geo(|case| &case.rival.keda_v1),
            self.geo(|case| &case.rival.keda_default),
            self.geo(|case| &case.rival.single),
            self.geo(|case| &case.rival.hindsight),
            self.geo(|case| &case.rival.go),
            self.geo(|case| &case.rival.go_hindsight),
            self.geo(|case| &case.rival.wpa)
        );
        let _ = writeln!(out, "best single KEDA setting: {}", self.single_setting.describe());
        let _ = writeln!(out, "worst case against hindsight: {} ({:.2}x)", self.worst().0, self.worst().1);
        out
    }
}
