//! `cargo xtask bench burst`, `bursts-cluster`, `creations` and `outage`: what is measured on the real cluster. In: how to show it. Out: twenty bursts, each from the write to
//! the queue to `/scale`, and their median; pods created while the webhook changes; or ten minutes without a broker. They leave the measuring to `qscaler-tests` (bins `bench-*`,
//! test `scaling`).

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::images::Image;
use crate::stand;

/// Arguments of each.
#[derive(clap::Args)]
pub struct Args {
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
    /// Leave the cluster up afterwards
    #[arg(long)]
    keep: bool,
    /// Name of the cluster, so that several can run side by side
    #[arg(long, default_value = "bench")]
    cluster_name: String,
}

/// Length of the broker's outage, seconds: the ten minutes of the promise.
const OUTAGE_S: &str = "600";
/// The test that it is given to.
const OUTAGE_TEST: &str = "an_outage_of_the_broker_under_load_lowers_nothing";

/// Twenty bursts.
///
/// # Errors
/// The cluster cannot be brought up, or the promise is not kept.
pub fn burst(args: Args) -> Result<()> {
    let words: &[&str] = if args.json { &["--json"] } else { &[] };
    run(&args, || stand::program("bench-burst"), words)
}

/// Three bursts of Celery tasks, and then silence.
///
/// # Errors
/// The cluster cannot be brought up, or the promise is not kept.
pub fn bursts_cluster(args: Args) -> Result<()> {
    let words: &[&str] = if args.json { &["--json"] } else { &[] };
    run(&args, || stand::program("bench-bursts"), words)
}

/// Three thousand pods, created while the webhook is rolled out and its authority rotated.
///
/// # Errors
/// The cluster cannot be brought up, a call failed, or a pod came back without a sidecar.
pub fn creations(args: Args) -> Result<()> {
    let words: &[&str] = if args.json { &["--json"] } else { &[] };
    run(&args, || stand::program("bench-creations"), words)
}

/// Ten minutes without a broker.
///
/// # Errors
/// The cluster cannot be brought up, or the promise is not kept.
pub fn outage(args: Args) -> Result<()> {
    run(&args, || stand::test_program("e2e"), &[OUTAGE_TEST, "--show-output"])?;
    if args.json {
        println!("{{\"outage_s\":{OUTAGE_S},\"lowered\":false}}");
    }
    Ok(())
}

fn run(args: &Args, build: impl FnOnce() -> Result<PathBuf>, words: &[&str]) -> Result<()> {
    stand::run(&args.cluster_name, args.keep, &Image::STAND_SMALL, || {
        let mut bench = Command::new(build()?);
        bench.args(words).env("QSCALER_OUTAGE_S", OUTAGE_S);
        Ok(bench)
    })
    .context("the promise is not kept, or could not be measured")
}
