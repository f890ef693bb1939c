//! Comes in: the user's tasks and what the user would promise. Goes out: a [`SimulationReport`]: what each scaler would have made of them.
//! Leaves to others: reading the trace ([`crate::csv`]), drawing ([`crate::page`]).

use qscaler_core::config::OptimizeFor;
use qscaler_core::scale::{LawParams, ScaleConfig};
use serde::Serialize;

use crate::bench::{START_CV, law_config};
use crate::optimum::{Optimum, optimum};
use crate::policy::goscaler::GoScaler;
use crate::policy::keda::{Keda, KedaConfig, grid};
use crate::policy::law::Law;
use crate::policy::wpa::Wpa;
use crate::progress::Progress;
use crate::score::{Score, quantile};
use crate::workload::{Task, Workload};
use crate::world::{Conditions, Outcome, Point, Policy, Watch, run};

/// Points of each curve: as many as a page has pixels to show them.
const POINTS: f64 = 600.0;
/// KEDA settings are thinned so that no more tasks than this are simulated for them: about a quarter of a minute.
const GRID_TASKS_MAX: usize = 60_000_000;
/// After the last arrival the scalers are watched for so long, seconds: a cooldown of 300 s and what follows it shows.
const TAIL_S: f64 = 600.0;

/// What the user would write into the annotations, and what the cluster is like.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// No message should wait longer, seconds.
    pub max_wait_s: f64,
    /// Fewest pods.
    pub min_replicas: u32,
    /// Most pods.
    pub max_replicas: u32,
    /// Mean time a pod takes to start, seconds.
    pub start_s: f64,
    /// What the user would rather have, waits or cost.
    pub optimize_for: OptimizeFor,
    /// Seed of start times and phases.
    pub seed: u64,
}

/// What the law would come to with one of the user's choices.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// Value of the annotation.
    pub optimize_for: &'static str,
    /// 95th percentile of the wait, seconds; `null` where the work was never done.
    pub wait_p95_s: Option<f64>,
    /// 99th percentile of it.
    pub wait_p99_s: Option<f64>,
    /// Pods times hours.
    pub pod_hours: f64,
}

/// One scaler's result.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Who.
    pub scaler: String,
    /// Its settings.
    pub settings: String,
    /// Messages that waited longer than promised.
    pub late: usize,
    /// The same as a share.
    pub late_share: f64,
    /// Waits, seconds; `null` where the work was never done.
    pub wait_p50_s: Option<f64>,
    /// See `wait_p50_s`.
    pub wait_p95_s: Option<f64>,
    /// See `wait_p50_s`.
    pub wait_p99_s: Option<f64>,
    /// See `wait_p50_s`.
    pub wait_max_s: Option<f64>,
    /// Pods times hours.
    pub pod_hours: f64,
    /// Pod-hours over those of perfect knowledge.
    pub pods_over_optimum: f64,
    /// Late messages and pods in one number: pods over the optimum, and 0.1 for each percent that is late beyond it.
    pub cost: f64,
    /// Running tasks cut by scale-down.
    pub cut: u64,
    /// Pods started.
    pub starts: u64,
    /// Most pods at once.
    pub peak_pods: u32,
    /// The run over time.
    #[serde(skip)]
    pub points: Vec<Point>,
    /// Longest wait of the messages that arrived between two points, seconds; NaN where none came.
    #[serde(skip)]
    pub waits: Vec<(f64, f64)>,
}

/// All scalers on one trace.
#[derive(Debug, Clone, Serialize)]
pub struct SimulationReport {
    /// Tasks in the trace.
    pub tasks: usize,
    /// From the first arrival to the last, seconds.
    pub span_s: f64,
    /// Mean duration, seconds.
    pub mean_service_s: f64,
    /// The promise, seconds.
    pub max_wait_s: f64,
    /// Mean start time of a pod, seconds.
    pub start_s: f64,
    /// Bounds of the number of pods.
    pub min_replicas: u32,
    /// See `min_replicas`.
    pub max_replicas: u32,
    /// Seed.
    pub seed: u64,
    /// Pod-hours with perfect knowledge of the future, every task started at once.
    pub optimum_pod_hours: f64,
    /// Share of messages that would be late even so.
    pub optimum_late_share: f64,
    /// KEDA settings that hindsight chose from.
    pub keda_settings_tried: usize,
    /// What `optimize-for` chooses between, from short waits to few pods.
    pub choices: Vec<Choice>,
    /// One row for each scaler, QScaler first.
    pub rows: Vec<Row>,
}

/// Plays the tasks under every scaler.
pub fn simulate(tasks: Vec<Task>, options: &Options) -> SimulationReport {
    let span_s = tasks.last().map_or(0.0, |task| task.at_s);
    let workload = Workload {
        name: "trace".to_owned(),
        tasks,
        max_wait_s: options.max_wait_s,
        min_replicas: options.min_replicas.min(options.max_replicas),
        max_replicas: options.max_replicas,
        horizon_s: span_s + TAIL_S,
        shared_capacity: None,
    };
    let service_s = workload.mean_service_s().max(1e-3);
    let stage = Stage {
        optimum: optimum(&workload, options.start_s),
        conditions: Conditions { start_s: options.start_s, start_cv: START_CV, start_at_full_speed: f64::INFINITY, outage: None, seed: options.seed },
        workload,
    };
    let (best, tried) = stage.best_keda(service_s);
    let law = |choice| ScaleConfig { law: LawParams::optimized_for(choice), ..law_config(&stage.workload) };
    let choices = OptimizeFor::ALL.iter().map(|choice| stage.choice(*choice, law(*choice))).collect();
    let keda = |config: KedaConfig| Box::new(Keda::new(config, options.seed));
    let scalers: Vec<(&str, String, Box<dyn Policy>)> = vec![
        (
            "QScaler",
            format!("max-wait {} s, optimize-for {}, all else learned", options.max_wait_s, options.optimize_for.name()),
            Box::new(Law::new(law(options.optimize_for), false, options.seed)),
        ),
        ("KEDA, value 1", KedaConfig::default_with_value(1.0).describe(), keda(KedaConfig::default_with_value(1.0))),
        ("KEDA, default", KedaConfig::default_with_value(20.0).describe(), keda(KedaConfig::default_with_value(20.0))),
        ("KEDA, hindsight", best.describe(), keda(best)),
        ("Go QScaler", "one pod for each waiting message".to_owned(), Box::new(GoScaler::new(1.0, options.seed))),
        (
            "WPA",
            format!("target {:.1}, {service_s:.2} s per job", (options.max_wait_s / service_s).max(1.0)),
            Box::new(Wpa::new(options.max_wait_s, service_s, options.seed)),
        ),
    ];
    let mut progress = Progress::new("simulating", scalers.len());
    let rows = scalers
        .into_iter()
        .map(|(scaler, settings, policy)| {
            progress.step();
            stage.row(scaler, settings, policy)
        })
        .collect();
    SimulationReport {
        tasks: stage.workload.tasks.len(),
        span_s,
        mean_service_s: service_s,
        max_wait_s: options.max_wait_s,
        start_s: options.start_s,
        min_replicas: options.min_replicas,
        max_replicas: options.max_replicas,
        seed: options.seed,
        optimum_pod_hours: stage.optimum.pod_seconds / 3600.0,
        optimum_late_share: stage.optimum.miss,
        keda_settings_tried: tried,
        choices,
        rows,
    }
}

struct Stage {
    workload: Workload,
    optimum: Optimum,
    conditions: Conditions,
}

impl Stage {
    /// The KEDA setting with the lowest cost, and how many were tried.
    fn best_keda(&self, service_s: f64) -> (KedaConfig, usize) {
        let all = grid(service_s);
        let affordable = (GRID_TASKS_MAX / self.workload.tasks.len().max(1)).clamp(1, all.len());
        // An odd step visits both values of every switch.
        let step = all.len().div_ceil(affordable) | 1;
        let some: Vec<KedaConfig> = all.into_iter().step_by(step).collect();
        let mut progress = Progress::new("searching KEDA's settings", some.len());
        let cost = |config: &KedaConfig| {
            let outcome = run(&self.workload, self.conditions, &mut Keda::new(*config, self.conditions.seed), Watch::default());
            Score::of(&outcome, &self.optimum).j
        };
        let costs: Vec<f64> = some
            .iter()
            .map(|config| {
                progress.step();
                cost(config)
            })
            .collect();
        let best = (0..some.len()).min_by(|a, b| costs[*a].total_cmp(&costs[*b])).unwrap_or(0);
        (some[best], some.len())
    }

    /// What the law makes of it with one choice.
    fn choice(&self, choice: OptimizeFor, cfg: ScaleConfig) -> Choice {
        let outcome = run(&self.workload, self.conditions, &mut Law::new(cfg, false, self.conditions.seed), Watch::default());
        let wait = |q: f64| Some(quantile(&outcome.waits_s, q)).filter(|wait| wait.is_finite());
        Choice { optimize_for: choice.name(), wait_p95_s: wait(0.95), wait_p99_s: wait(0.99), pod_hours: outcome.pod_seconds / 3600.0 }
    }

    fn row(&self, scaler: &str, settings: String, mut policy: Box<dyn Policy>) -> Row {
        let every_s = (self.workload.horizon_s / POINTS).max(1.0);
        let mut points = Vec::new();
        let outcome = run(&self.workload, self.conditions, policy.as_mut(), Watch { points: Some((every_s, &mut points)), budget_pod_s: None });
        let score = Score::of(&outcome, &self.optimum);
        let wait = |q: f64| Some(quantile(&outcome.waits_s, q)).filter(|wait| wait.is_finite());
        Row {
            scaler: scaler.to_owned(),
            settings,
            late: outcome.missed,
            late_share: outcome.miss(),
            wait_p50_s: wait(0.5),
            wait_p95_s: wait(0.95),
            wait_p99_s: wait(0.99),
            wait_max_s: wait(1.0),
            pod_hours: outcome.pod_seconds / 3600.0,
            pods_over_optimum: score.pods,
            cost: score.j,
            cut: outcome.interrupted,
            starts: outcome.starts,
            peak_pods: points.iter().map(|point| point.pods).max().unwrap_or(0),
            waits: self.waits(&outcome, every_s),
            points,
        }
    }

    /// The longest wait by time of arrival.
    fn waits(&self, outcome: &Outcome, every_s: f64) -> Vec<(f64, f64)> {
        let mut longest: Vec<(f64, f64)> =
            (0..(self.workload.horizon_s / every_s).ceil() as usize).map(|slot| (slot as f64 * every_s, f64::NAN)).collect();
        for (task, wait) in self.workload.tasks.iter().zip(&outcome.waits_s) {
            if let Some((_, slot)) = longest.get_mut((task.at_s / every_s) as usize) {
                *slot = slot.max(f64::from(*wait).min(self.workload.horizon_s));
            }
        }
        longest
    }
}

impl SimulationReport {
    /// The comparison as text, one line per scaler.
    pub fn table(&self) -> String {
        use std::fmt::Write;
        let mut out = format!(
            "{} tasks within {}, {} each on average; promise {}; a pod starts in {}; {} to {} pods\n\n{:16} {:>8} {:>9} {:>9} {:>9} {:>10} {:>8} {:>6} {:>7} {:>6} {:>6}\n",
            self.tasks,
            span(self.span_s),
            span(self.mean_service_s),
            span(self.max_wait_s),
            span(self.start_s),
            self.min_replicas,
            self.max_replicas,
            "scaler",
            "late",
            "wait p50",
            "p95",
            "p99",
            "pod-hours",
            "x ideal",
            "cut",
            "starts",
            "peak",
            "cost"
        );
        let wait = |wait: Option<f64>| wait.map_or_else(|| "never".to_owned(), span);
        for row in &self.rows {
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "{:16} {:>7.2}% {:>9} {:>9} {:>9} {:>10.2} {:>8.2} {:>6} {:>7} {:>6} {:>6.2}",
                row.scaler,
                row.late_share * 100.0,
                wait(row.wait_p50_s),
                wait(row.wait_p95_s),
                wait(row.wait_p99_s),
                row.pod_hours,
                row.pods_over_optimum,
                row.cut,
                row.starts,
                row.peak_pods,
                row.cost
            );
        }
        out.push('\n');
        for Choice { optimize_for, wait_p95_s, wait_p99_s, pod_hours } in &self.choices {
            let _ = writeln!(
                out,
                "optimize-for {optimize_for:8} wait p95 {:>9}, p99 {:>9}, {pod_hours:.2} pod-hours",
                wait(*wait_p95_s),
                wait(*wait_p99_s)
            );
        }
        let _ = write!(out, "\n{}\n", self.verdict());
        out
    }

    /// What the comparison comes to, in a few sentences.
    pub fn verdict(&self) -> String {
        let mut text = format!(
            "x ideal: pod-hours over the {:.2} of perfect knowledge. cost: x ideal, plus 0.1 for each percent of messages that is late. \
             KEDA, hindsight: the best of {} settings for this very trace, told the mean duration.",
            self.optimum_pod_hours, self.keda_settings_tried
        );
        if let [law, others @ ..] = self.rows.as_slice() {
            let best = others.iter().min_by(|a, b| a.cost.total_cmp(&b.cost));
            if let Some(best) = best {
                let ratio = best.cost / law.cost;
                text += &if ratio >= 1.0 {
                    format!(" QScaler is ahead of all of them; the next, {}, costs {ratio:.2} times as much.", best.scaler)
                } else {
                    format!(" {} is ahead of QScaler here: its cost is {ratio:.2} times QScaler's.", best.scaler)
                };
            }
            text += &behind(law, others);
        }
        text
    }

    /// The table as JSON, without the curves.
    pub fn json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Whom the law does not beat on both waits and pods, and by how much not.
fn behind(law: &Row, others: &[Row]) -> String {
    let worst = |row: &Row| row.wait_p99_s.unwrap_or(f64::INFINITY);
    let mut text = String::new();
    for other in others {
        let (slower_s, dearer) = (worst(law) - worst(other), law.pod_hours / other.pod_hours.max(1e-9) - 1.0);
        if slower_s > 0.05 {
            text += &format!(
                " {} has a 99th percentile of the wait that is {} shorter, for {:.2} times the pod-hours.",
                other.scaler,
                span(slower_s),
                1.0 / (1.0 + dearer)
            );
        } else if dearer > 0.005 {
            text += &format!(
                " {} takes {:.0} % fewer pod-hours, with a 99th percentile of the wait that is {} longer.",
                other.scaler,
                100.0 * dearer / (1.0 + dearer),
                span(-slower_s)
            );
        }
    }
    if text.is_empty() { " QScaler is ahead of each on both waits (99th percentile) and pod-hours.".to_owned() } else { text }
}

/// A time for people.
pub fn span(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} d", s / 86_400.0),
    }
}
