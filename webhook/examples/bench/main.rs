//! How fast a webhook answers, and what it costs in memory: a process of its own, called over TLS and kept connections at a fixed rate. In: the program of
//! ours to start, or the URL of any other; rate and seconds. Out: a table, and one JSON line on request; times are milliseconds from when a call was due.
//! Left to others: building (`cargo xtask bench webhook`), which processor this process is on, the API server's own time.
//!
//! Parts: `bodies` makes reviews, `calls` sends them and takes the time, `stage` starts our program beside an API server that knows one Deployment.

#![allow(clippy::print_stdout, reason = "the result")]

mod bodies;
mod calls;
mod stage;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use calls::{Target, Times, Trickle};
use clap::Parser;
use serde_json::json;
use stage::Stage;
use std::path::PathBuf;
use std::time::Duration;

/// Calls before the first that counts.
const WARM_UP: Duration = Duration::from_secs(2);
/// Connections that send a byte a second beside the second half of the calls.
const TRICKLING: usize = 1000;
/// Variables of the pod that stands for the largest that people have, and how often it is sent, one after the other.
const VARIABLES: usize = 1500;
const VARIABLES_CALLS: usize = 200;
/// Bodies that are too large or have too many parts, and how many of them at once.
const BOMBS: usize = 64;
const BOMBS_AT_ONCE: usize = 8;
/// Between the last bomb and the look at the memory.
const AFTER_BOMBS: Duration = Duration::from_secs(2);

#[derive(Parser)]
#[command(name = "bench")]
struct Args {
    /// Our program, which is started on a processor of its own
    #[arg(long, conflicts_with = "url", required_unless_present = "url")]
    webhook: Option<PathBuf>,
    /// The processor that it is bound to
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Another webhook that runs already: https://HOST:PORT/PATH; its certificate is not checked
    #[arg(long)]
    url: Option<String>,
    /// Its process on this machine, for its memory
    #[arg(long, requires = "url")]
    pid: Option<u32>,
    /// Calls per second
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// How long, seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..=3600))]
    seconds: u32,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let (stage, target) = match (&args.webhook, &args.url) {
        (Some(program), _) => {
            let stage = Stage::start(program, args.server_core).await?;
            let target = stage.target()?;
            (Some(stage), target)
        }
        (None, Some(url)) => (None, Target::of(url)?),
        (None, None) => anyhow::bail!("--webhook or --url"),
    };
    let pid = stage.as_ref().and_then(Stage::pid).or(args.pid);
    let measured = measure(&args, &target, pid).await;
    if let Some(stage) = stage {
        stage.end().await?;
    }
    measured
}

async fn measure(args: &Args, target: &Target, pid: Option<u32>) -> Result<()> {
    let bodies: Vec<Bytes> = bodies::sizes().map(bodies::of_size).collect();
    let half = Duration::from_secs(u64::from(args.seconds)) / 2;
    calls::at_rate(target, &bodies, args.rate, WARM_UP).await.context("the first calls")?;
    let alone = calls::at_rate(target, &bodies, args.rate, half).await?;
    let rss = pid.map(rss_mib).transpose()?;
    let trickle = Trickle::begin(target, TRICKLING).await.context("the connections that trickle")?;
    let beside = calls::at_rate(target, &bodies, args.rate, half).await?;
    trickle.end();
    let many = calls::one_by_one(target, &bodies::of_variables(VARIABLES), VARIABLES_CALLS).await?;
    let beside_rss = pid.map(rss_mib).transpose()?;
    calls::bombs(target, &[bodies::bomb(bodies::BOMB_LARGE), bodies::bomb(bodies::BOMB_WITHIN)], BOMBS, BOMBS_AT_ONCE).await;
    tokio::time::sleep(AFTER_BOMBS).await;
    let after = pid.map(rss_mib).transpose()?;
    calls::one_by_one(target, &bodies[0], 1).await.context("a call after the bombs")?;

    println!("{:<44} {:>8} {:>9} {:>9} {:>9}", "", "calls", "p50 ms", "p99 ms", "max ms");
    let line = |name: &str, times: &Times| {
        println!("{name:<44} {:>8} {:>9.3} {:>9.3} {:>9.3}", times.count(), times.at(0.5), times.at(0.99), times.at(1.0));
    };
    line(&format!("{} calls per second, 3 to 280 kB", args.rate), &alone);
    line(&format!("the same beside {TRICKLING} trickling connections"), &beside);
    line(&format!("a pod of {VARIABLES} variables, one by one"), &many);
    let mib = |rss: Option<f64>| rss.map_or("not known".to_owned(), |rss| format!("{rss:.1} MiB"));
    println!(
        "resident memory: {} under the calls, {} after {TRICKLING} trickling connections, {} after {BOMBS} bodies of 3 and 8 MiB",
        mib(rss),
        mib(beside_rss),
        mib(after)
    );
    let all = alone.and(beside);
    if args.json {
        let round = |x: f64| (x * 1000.0).round() / 1000.0;
        let line = json!({"p50_ms": round(all.at(0.5)), "p99_ms": round(all.at(0.99)), "max_ms": round(all.at(1.0)), "rss_mib": rss.map(round),
            "rss_after_bombs_mib": after.map(round), "env1500_p99_ms": round(many.at(0.99))});
        println!("{line}");
    }
    ensure!(all.failed() == 0, "{} calls failed, the first: {}", all.failed(), all.first_failure());
    Ok(())
}

/// Resident memory of a process.
fn rss_mib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
