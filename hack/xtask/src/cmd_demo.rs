//! `cargo xtask demo`: the main job, live. In: which broker, and how to show it. Out: the demo program's own output (`qscaler-tests`, bin `demo`).
//! Everything it needs is built or unpacked first; the cluster is its own and is taken down at the end, at Ctrl-C too.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::cluster::Flavor;
use crate::images::{self, Image, Profile};
use crate::{source_root, stand};

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
    let report = if args.report.is_absolute() { args.report } else { source_root().join(args.report) };
    if let Some(folder) = report.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    // In one go with what the images hold, and while the rest is fetched and built.
    let images = Image::PROGRAMS.iter().flat_map(|image| image.programs()).map(|name| (*name, *name));
    let programs: Vec<(&str, &str)> = images.chain([("qscaler-tests", "demo")]).collect();
    let program = stand::beside(&Cache::open()?, Flavor::choose()?, || images::compile(&programs, Profile::Stand))?.join("demo");
    stand::run(CLUSTER, args.keep, &Image::STAND_SMALL, || {
        let mut demo = Command::new(program);
        demo.args(["--broker", &args.broker, "--report"]).arg(report);
        demo.args(args.headless.then_some("--headless")).args(args.json.then_some("--json"));
        Ok(demo)
    })
}
