//! `cargo xtask demo`: the main job, live. In: which broker, and how to show it. Out: the demo program's own output (`qscaler-tests`, bin `demo`).
//! Everything it needs is built or unpacked first; the cluster is its own and is taken down at the end, at Ctrl-C too.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{interrupt, source_root, stand};

/// Arguments of `cargo xtask demo`.
#[derive(clap::Args)]
pub struct Args {
    /// Where the tasks wait: redis or rabbitmq
    #[arg(long, default_value = "redis", value_parser = ["redis", "rabbitmq"])]
    broker: String,
    /// Plain lines instead of a live table
    #[arg(long)]
    headless: bool,
    /// End with one JSON object
    #[arg(long)]
    json: bool,
    /// Where the page with the plots goes
    #[arg(long, default_value = "target/qscaler-demo.html")]
    report: PathBuf,
    /// Leave the cluster up afterwards
    #[arg(long)]
    keep: bool,
}

/// Name of the demo's own cluster.
const CLUSTER: &str = "demo";

/// Runs it.
///
/// # Errors
/// Something cannot be built, or the demo did not reach its end.
pub fn run(args: Args) -> Result<()> {
    interrupt::clean_up_first()?;
    let root = source_root();
    let stand = stand::up(CLUSTER, !args.keep)?;
    let result = (|| {
        let binary = stand::program("demo")?;
        let report = if args.report.is_absolute() { args.report.clone() } else { root.join(&args.report) };
        if let Some(folder) = report.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let report = report.to_string_lossy().into_owned();
        let mut words = vec!["--broker", &args.broker, "--report", &report];
        if args.headless {
            words.push("--headless");
        }
        if args.json {
            words.push("--json");
        }
        let status = stand.spawn(Command::new(&binary).args(&words))?.wait_or_interrupt();
        ensure!(status.success(), "the demo did not reach its end: {status}");
        Ok(())
    })();
    if result.is_err() {
        stand.print_state();
    }
    if args.keep {
        eprintln!("the cluster {CLUSTER:?} is left up: cargo xtask cluster status --name {CLUSTER}");
    } else {
        stand.down()?;
    }
    result
}
