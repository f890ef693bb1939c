//! Comes in: a seed. Goes out: how many messages the law counts as arrived that nobody sent, while what it is shown is late, incomplete or another's. Leaves
//! to others: what an invented message does (`core/tests/scale_truth.rs`).

use std::collections::VecDeque;

use qscaler_core::scale::{FleetSample, QueueSample, ScaleConfig};

use crate::bench::{START_CV, law_config};
use crate::policy::law::{Blur, Law};
use crate::policy::pooled::Pooled;
use crate::rng::Rng;
use crate::workload::{Workload, bursts, generate};
use crate::world::{Conditions, Policy, Watch, run};

/// What is wrong with the figures, by name.
pub const BLURS: [&str; 11] =
    ["true", "lag 1 s", "lag 5 s", "lag 10 s", "early acks", "taken for early", "no unacked", "silent workers", "two fleets", "given back", POOL];
/// Nothing is wrong with the figures, but two Deployments take from the queue.
const POOL: &str = "one pool";
/// Workloads that it is tried on, first [`bursts`], then [`generate`].
const WORKLOADS: [&str; 5] = ["three", "slow", "trickle", "flash", "mmpp"];
/// Mean start latency, seconds.
const START_S: f64 = 30.0;
/// Another fleet's messages: seconds between them, and how long each waits and runs.
const FOREIGN_S: (f64, f64, f64) = (10.0, 3.0, 5.0);
/// Messages that consumers keep until they are due, and how often, seconds, they are given back for a moment of so many seconds.
const KEPT: (u64, f64, f64) = (5, 300.0, 2.0);
/// Of each so many seconds the workers are silent for so many.
const SILENT_S: (f64, f64) = (120.0, 20.0);

/// One blur over all workloads.
#[derive(Debug, Clone, PartialEq)]
pub struct TruthResult {
    /// One of [`BLURS`].
    pub blur: &'static str,
    /// Messages sent, the other fleet's included.
    pub sent: f64,
    /// Messages counted beyond those that were sent, workload by workload.
    pub invented: f64,
}

/// Messages of the other fleet by `now_s`: sent, waiting, running.
fn foreign(now_s: f64) -> (f64, u64, u64) {
    let (apart_s, waits_s, runs_s) = FOREIGN_S;
    let by = |at_s: f64| if at_s < 0.0 { 0.0 } else { (at_s / apart_s).floor() + 1.0 };
    let (sent, begun, ended) = (by(now_s), by(now_s - waits_s), by(now_s - waits_s - runs_s));
    (sent, (sent - begun) as u64, (begun - ended) as u64)
}

fn blur(name: &str) -> Option<Blur> {
    let lag = |seconds: f64| -> Option<Blur> {
        let mut past: VecDeque<(f64, QueueSample)> = VecDeque::new();
        Some(Box::new(move |now_s, queue: &mut QueueSample, _: &mut FleetSample| {
            past.push_back((now_s, queue.clone()));
            while past.get(1).is_some_and(|(at_s, _)| *at_s <= now_s - seconds) {
                past.pop_front();
            }
            if let Some((_, then)) = past.front() {
                *queue = QueueSample { age_s: seconds, ..then.clone() };
            }
        }))
    };
    let more = |figure: Option<u64>, by: u64| figure.map(|figure| figure + by);
    match name {
        "lag 1 s" => lag(1.0),
        "lag 5 s" => lag(5.0),
        "lag 10 s" => lag(10.0),
        "early acks" => Some(Box::new(|_, queue, _| queue.unacked = Some(0))),
        "no unacked" => Some(Box::new(|_, queue, _| queue.unacked = None)),
        "silent workers" => {
            let mut silent = false;
            Some(Box::new(move |now_s, _, fleet| {
                let before = std::mem::replace(&mut silent, now_s % SILENT_S.0 < SILENT_S.1);
                if silent {
                    (fleet.untold, fleet.busy, fleet.begun) = (fleet.ready, None, None);
                    (fleet.busy_ages_s, fleet.completions) = (Vec::new(), Vec::new());
                } else if before {
                    // What began meanwhile is found running.
                    (fleet.begun, fleet.found) = (Some(0), fleet.busy.unwrap_or(0));
                }
            }))
        }
        "two fleets" => Some(Box::new(move |now_s, queue, _| {
            let (_, waiting, running) = foreign(now_s);
            (queue.ready, queue.unacked) = (more(queue.ready, waiting), more(queue.unacked, running));
        })),
        "given back" => Some(Box::new(move |now_s, queue, fleet| {
            let (kept, every_s, back_s) = KEPT;
            let holds = fleet.ready > 0 && now_s % every_s >= back_s;
            let (ready, unacked) = if holds { (0, kept) } else { (kept, 0) };
            (queue.ready, queue.unacked) = (more(queue.ready, ready), more(queue.unacked, unacked));
        })),
        _ => None,
    }
}

/// Sent and counted of one workload.
fn play(name: &'static str, workload: &Workload, seed: u64) -> (f64, f64) {
    let mut cfg = law_config(workload);
    if ["early acks", "taken for early"].contains(&name) {
        cfg = ScaleConfig { acknowledges_early: true, ..cfg };
    }
    let conditions = Conditions { start_s: START_S, start_cv: START_CV, start_at_full_speed: f64::INFINITY, outage: None, seed };
    if name == POOL {
        let mut pooled = Pooled::new(&cfg);
        run(workload, conditions, &mut pooled, Watch::default());
        return (workload.tasks.len() as f64, pooled.counted());
    }
    let mut law = Law::new(cfg, false, seed);
    law.blur = blur(name);
    run(workload, conditions, &mut law as &mut dyn Policy, Watch::default());
    let more = match name {
        "two fleets" => foreign(workload.horizon_s).0,
        "given back" => KEPT.0 as f64,
        _ => 0.0,
    };
    (workload.tasks.len() as f64 + more, law.counted())
}

/// All blurs.
#[must_use]
pub fn truth_bench(seed: u64) -> Vec<TruthResult> {
    let workloads: Vec<Workload> = WORKLOADS.iter().filter_map(|name| bursts(name, seed).or_else(|| generate(name, seed))).collect();
    let results = BLURS.iter().map(|blur| {
        let mut result = TruthResult { blur, sent: 0.0, invented: 0.0 };
        for workload in &workloads {
            let (sent, counted) = play(blur, workload, Rng::new(seed, 0x7e).next_u64());
            result.sent += sent;
            result.invented += (counted - sent).max(0.0);
        }
        result
    });
    results.collect()
}

/// As text.
#[must_use]
pub fn table(results: &[TruthResult]) -> String {
    let mut out = format!("messages counted as arrived that nobody sent, without a broker's counter, over {}\n", WORKLOADS.join(", "));
    for TruthResult { blur, sent, invented } in results {
        out.push_str(&format!("{blur:>15} {sent:>9.0} sent {invented:>7.0} invented\n"));
    }
    out
}
