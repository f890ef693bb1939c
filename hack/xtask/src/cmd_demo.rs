//! `cargo xtask demo`: the main job, live. In: which broker, and how to show it. Out: the demo program's own output (`qscaler-tests`, bin `demo`).
//! Everything it needs is built or unpacked first; the cluster is its own and is taken down at the end, at Ctrl-C too.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

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
    /// How the cluster is made [default: box, or kind where a box cannot be had]
    #[arg(long = "cluster")]
    flavor: Option<Flavor>,
}

/// Name of the demo's own cluster.
const CLUSTER: &str = "demo";

/// Runs it.
///
/// # Errors
/// Something cannot be built, or the demo did not reach its end.
pub fn run(args: Args) -> Result<()> {
    let flavor = flavor(args.flavor)?;
    let report = if args.report.is_absolute() { args.report } else { source_root().join(args.report) };
    if let Some(folder) = report.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    // In one go with what the images hold, and while the rest is fetched and built.
    let images = Image::PROGRAMS.iter().flat_map(|image| image.programs()).map(|name| (*name, *name));
    let programs: Vec<(&str, &str)> = images.chain([("qscaler-tests", "demo")]).collect();
    let program = stand::beside(&Cache::open()?, flavor, || images::compile(&programs, Profile::Stand))?.join("demo");
    stand::run_on(flavor, CLUSTER, args.keep, &Image::STAND_SMALL, || {
        let mut demo = Command::new(program);
        demo.args(["--broker", &args.broker, "--report"]).arg(report);
        demo.args(args.headless.then_some("--headless")).args(args.json.then_some("--json"));
        Ok(demo)
    })
}

/// The kind of cluster that was asked for, else the best there can be.
fn flavor(asked: Option<Flavor>) -> Result<Flavor> {
    match asked {
        Some(Flavor::Current) => {
            bail!("--cluster current: the demo brings images and brokers of its own into a cluster that it makes; valid: box, kind")
        }
        Some(asked) => Ok(asked),
        None => Flavor::choose(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Demo {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_demo_runs_in_the_kind_of_cluster_that_is_asked_for_and_in_nobody_s_own() {
        let asked =
            |words: &[&str]| Demo::try_parse_from([&["demo"], words].concat()).map(|demo| demo.args.flavor).map_err(|error| error.to_string());
        assert_eq!(flavor(asked(&["--cluster", "kind"]).expect("a kind of cluster")).expect("it can be"), Flavor::Kind);
        assert_eq!(flavor(asked(&["--cluster", "box"]).expect("a kind of cluster")).expect("it can be"), Flavor::Box);
        let current = flavor(asked(&["--cluster", "current"]).expect("a kind of cluster")).expect_err("somebody's").to_string();
        assert!(current.contains("valid: box, kind"), "{current}");
        assert!(asked(&["--cluster", "minikube"]).expect_err("not one of ours").contains("kind"));
    }
}
