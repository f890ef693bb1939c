//! `cargo xtask bench sidecar`: what the sidecar's sampling costs at one look a second. In: nothing. Out: a table by number of processes, one JSON
//! line on request, and an error when the promise is not kept. Left to others: the looks themselves (`sidecar/examples/sampling_cost.rs`).

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::exec::output;
use crate::source_root;

/// Numbers of processes: a worker, a prefork worker, a crowd.
const PROCESSES: [u32; 4] = [2, 10, 25, 60];
/// The promise is made for this many processes ...
const PROMISED_PROCESSES: u32 = 10;
/// ... and is this share of one core at one look a second, percent.
const PROMISED_PERCENT: f64 = 0.1;

/// Arguments of `cargo xtask bench sidecar`.
#[derive(clap::Args)]
pub struct Args {
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// It cannot be built or run, or the promise is not kept.
pub fn run(args: Args) -> Result<()> {
    println!("{:>9}  {:>12}  {:>16}", "processes", "us per look", "% of a core, 1 Hz");
    let mut promised = None;
    for count in PROCESSES {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(source_root()).args(["run", "--quiet", "--release", "-p", "qscaler-sidecar", "--example", "sampling_cost", "--"]);
        let line = output(cargo.arg(count.to_string()))?;
        let measured: Value = serde_json::from_str(line.trim()).with_context(|| line.clone())?;
        let percent = measured["percent_of_a_core_at_1_hz"].as_f64().context("no share")?;
        println!("{count:>9}  {:>12.1}  {percent:>16.4}", measured["us_per_look"].as_f64().context("no time")?);
        if count == PROMISED_PROCESSES {
            promised = Some((percent, measured));
        }
    }
    let (percent, measured) = promised.context("the promised number was not measured")?;
    if args.json {
        println!("{measured}");
    }
    ensure!(percent <= PROMISED_PERCENT, "{PROMISED_PROCESSES} processes cost {percent:.4} % of a core, promised are {PROMISED_PERCENT} %");
    Ok(())
}
