//! `cargo xtask bench law`: the scaling law beside KEDA, Go QScaler and WPA. In: `--seed S`, `--quick`, `--json`, `--no-real`, `--only NAMES`, `--rivals FILE`,
//! `--picture FILE`, or one part alone.
//! Out: a table, and with `--json` one JSON object as the last line. Exit code 1 when a promise is not kept, 64 for wrong arguments.
#![allow(clippy::print_stdout)]

use qscaler_sim::bench::{Effort, bar, bench, law_bench, outage_bench};
use qscaler_sim::recorded::Jobs;
use qscaler_sim::score::geometric_mean;
use qscaler_sim::{bursts, cache, curve, outage, recorded, step, truth, workload};
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: bench-law [--seed S] [--quick] [--json] [--no-real] [--only NAME,NAME] [--outage]
  --seed S    whole number from 0; equal seeds give equal results (default 1)
  --quick     one seed and every 21st KEDA setting: seconds, and no proof
  --json      one JSON object as the last line
  --no-real   leave out the recorded hour (no network needed)
  --only      some workloads only
  --picture   file to which waits against pod-seconds of the bursts are drawn, as SVG
  --rivals    file that keeps what the rivals came to: written where it does not exist, else read, so that a changed law is run alone
  --outage    the outages alone
  --law       the law alone
  --bursts    the bursts that end in silence alone
  --step      the load that trebles for good, alone
  --truth     what is counted as arrived and was not sent, alone";

struct Args {
    seed: u64,
    effort: Effort,
    json: bool,
    real: bool,
    only: Vec<String>,
    rivals: Option<PathBuf>,
    picture: Option<PathBuf>,
    outage: bool,
    law: bool,
    bursts: bool,
    step: bool,
    truth: bool,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut out = Args {
        seed: 1,
        effort: Effort::FULL,
        json: false,
        real: true,
        only: Vec::new(),
        rivals: None,
        picture: None,
        outage: false,
        law: false,
        bursts: false,
        step: false,
        truth: false,
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--seed" => {
                let text = value()?;
                out.seed = text.parse().map_err(|_| format!("--seed {text:?} is not a whole number from 0 to {}", u64::MAX))?;
            }
            "--picture" => out.picture = Some(PathBuf::from(value()?)),
            "--rivals" => out.rivals = Some(PathBuf::from(value()?)),
            "--outage" => out.outage = true,
            "--law" => out.law = true,
            "--bursts" => out.bursts = true,
            "--step" => out.step = true,
            "--truth" => out.truth = true,
            "--quick" => out.effort = Effort::QUICK,
            "--json" => out.json = true,
            "--no-real" => out.real = false,
            "--only" => {
                out.only = value()?.split(',').map(str::to_owned).collect();
                let known = |name: &String| name == "alibaba" || workload::NAMES.contains(&name.as_str());
                if let Some(unknown) = out.only.iter().find(|name| !known(name)) {
                    return Err(format!("--only {unknown:?} is no workload; there are {} and alibaba", workload::NAMES.join(", ")));
                }
            }
            _ => return Err(format!("unknown argument {arg:?}")),
        }
    }
    Ok(out)
}

fn jobs() -> Option<Jobs> {
    let Some(folder) = cache::folder() else {
        eprintln!("the recorded hour is left out: no place for the cache, set QSCALER_CACHE or HOME");
        return None;
    };
    match recorded::load(&folder) {
        Ok(jobs) => Some(jobs),
        Err(error) => {
            eprintln!("the recorded hour is left out: {error}");
            None
        }
    }
}

/// The bursts that end in silence: plays them, prints them, draws them where that is asked for.
fn silences(args: &Args) -> Result<Vec<bursts::BurstResult>, ExitCode> {
    let silent = bursts::bursts_bench(args.seed);
    print!("{}{}", bursts::table(&silent), curve::behind(&silent));
    if let Some(file) = &args.picture {
        std::fs::write(file, curve::svg(&silent, args.seed)).map_err(|error| {
            eprintln!("{}: {error}", file.display());
            ExitCode::FAILURE
        })?;
    }
    Ok(silent)
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    let jobs = if args.real { jobs() } else { None };
    let only: Vec<&str> = args.only.iter().map(String::as_str).collect();
    if args.bursts {
        return match silences(&args) {
            Ok(_) => ExitCode::SUCCESS,
            Err(code) => code,
        };
    }
    if args.step {
        print!("{}", step::table(&step::step_bench(args.seed)));
        return ExitCode::SUCCESS;
    }
    if args.truth {
        print!("{}", truth::table(&truth::truth_bench(args.seed)));
        return ExitCode::SUCCESS;
    }
    if args.law {
        let cases = law_bench(args.seed, args.effort, jobs.as_ref(), &only);
        for (name, start_s, score) in &cases {
            println!("{name:>8} {start_s:>3} J {:.4} late {:.4} pods {:.4} p95 {:.1} s", score.j, score.miss, score.pods, score.wait_p95_s);
        }
        println!("geometric mean of J {:.4}", geometric_mean(cases.iter().map(|(_, _, score)| score.j)));
        return ExitCode::SUCCESS;
    }
    if args.outage {
        print!("{}", outage::table(&outage_bench(args.seed, args.effort, jobs.as_ref(), &only)));
        return ExitCode::SUCCESS;
    }
    let report = match bench(args.seed, args.effort, jobs.as_ref(), &only, args.rivals.as_deref()) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    print!("{}", report.table());
    print!("{}", outage::table(&report.outages));
    let silent = match silences(&args) {
        Ok(silent) => silent,
        Err(code) => return code,
    };
    print!("{}", step::table(&step::step_bench(args.seed)));
    let told = truth::truth_bench(args.seed);
    print!("{}", truth::table(&told));
    let mut promises = report.promises();
    let (over_keda, waits_kept) = bursts::three_bursts_over_keda(&silent);
    promises.push(("three_bursts_pod_seconds_vs_keda", over_keda, over_keda <= bar::THREE_BURSTS && waits_kept));
    let (empty_after_s, uncut) = bursts::empty_after_s(&silent);
    promises.push(("bursts_empty_after_s", empty_after_s, empty_after_s <= bar::EMPTY_AFTER_S && uncut));
    let invented: f64 = told.iter().map(|result| result.invented).sum();
    promises.push(("invented_arrivals", invented, invented <= 0.0));
    for (name, value, kept) in &promises {
        println!("{} {name} {value:.4}", if *kept { "kept  " } else { "MISSED" });
    }
    if args.json {
        let mut line = serde_json::Map::new();
        for (name, value, _) in &promises {
            line.insert((*name).to_owned(), serde_json::json!((value * 1e5).round() / 1e5));
        }
        line.insert("worst_case_name".to_owned(), report.worst().0.into());
        line.insert("cases".to_owned(), report.cases.len().into());
        line.insert("seed".to_owned(), args.seed.into());
        println!("{}", serde_json::Value::Object(line));
    }
    if promises.iter().all(|(_, _, kept)| *kept) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
