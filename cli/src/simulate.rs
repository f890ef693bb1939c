//! `kubectl qscaler simulate`: what each scaler would have made of the user's own tasks. In: a CSV file and a promise. Out: a table or JSON, and
//! one HTML page with curves. It needs no cluster and leaves the simulating to `qscaler_sim`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use qscaler_core::config::OptimizeFor;
use qscaler_core::units::parse_duration_ms;
use qscaler_sim::csv;
use qscaler_sim::simulate::{Options, simulate};

/// Shortest promise and start time, seconds; below a tick nothing can be decided in time.
const LEAST_S: f64 = 0.1;
/// Most pods: beyond it a run takes hours.
const PODS_MAX: u32 = 100_000;

/// Arguments of `kubectl qscaler simulate`.
#[derive(clap::Args)]
pub(crate) struct SimulateArgs {
    /// CSV, one task per line: `arrival_s,duration_s`, for example `12.5,0.8`; `-` for standard input
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// The promise: no message should wait longer
    #[arg(long, default_value = "60s", value_parser = seconds)]
    max_wait: f64,
    /// Fewest pods
    #[arg(long, default_value_t = 0)]
    min_replicas: u32,
    /// Most pods
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(PODS_MAX)))]
    max_replicas: u32,
    /// How long a pod takes from being asked for to its first task
    #[arg(long, default_value = "10s", value_parser = seconds)]
    start_latency: f64,
    /// As the annotation optimize-for: what the law would rather have
    #[arg(long, default_value = "balanced", value_parser = ["latency", "balanced", "cost"])]
    optimize_for: String,
    /// Equal seeds give equal results
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the page with the curves is written
    #[arg(long, value_name = "FILE", default_value = "qscaler-simulation.html")]
    html: PathBuf,
    /// JSON in place of the table
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = parse_duration_ms(text).map_err(|error| error.to_string())? as f64 / 1000.0;
    if seconds < LEAST_S { Err(format!("{text} is too short; at least {LEAST_S}s")) } else { Ok(seconds) }
}

/// Runs the command.
///
/// # Errors
/// The trace cannot be read or has a bad line, the bounds contradict each other, or the page cannot be written.
pub(crate) fn run(args: &SimulateArgs) -> Result<()> {
    if args.min_replicas > args.max_replicas {
        bail!("--min-replicas {} is above --max-replicas {}", args.min_replicas, args.max_replicas);
    }
    let name = args.trace.display();
    let reader: Box<dyn BufRead> = if args.trace == Path::new("-") {
        Box::new(stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(&args.trace).with_context(|| format!("cannot open {name}"))?))
    };
    let tasks = csv::parse(reader).with_context(|| format!("{name} is no trace"))?;
    let options = Options {
        max_wait_s: args.max_wait,
        min_replicas: args.min_replicas,
        max_replicas: args.max_replicas,
        start_s: args.start_latency,
        optimize_for: OptimizeFor::ALL.into_iter().find(|choice| choice.name() == args.optimize_for).unwrap_or_default(),
        seed: args.seed,
    };
    let report = simulate(tasks, &options);
    std::fs::write(&args.html, qscaler_sim::page::html(&report)).with_context(|| format!("cannot write {}", args.html.display()))?;
    let text = if args.json { format!("{}\n", report.json()) } else { format!("{}\ncurves: {}\n", report.table(), args.html.display()) };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write the result")
}
