//! `cargo xtask test [e2e [NAME]]`: every test there is, or the cluster's alone. In: nothing, or a filter. Out: the output of each step and a closing line
//! `N passed, N failed`. What needs a cluster gets one of its own, taken down at the end.

use std::process::Command;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::cache::Cache;
use crate::chosen::Chosen;
use crate::exec::{cargo, output};
use crate::images::Image;
use crate::runner::Runner;
use crate::stand::FEATURES;
use crate::{interrupt, monitoring, rights, source_root, stand, supply, tidy, v2};

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// Formatting, lints, rules about the tree, and each crate built alone
    Lint,
    /// What needs neither network nor root
    Unit,
    /// Real brokers and the rendered chart
    Integration,
    /// The real cluster
    E2e {
        /// Only tests whose name contains this
        name: Option<String>,
        /// Leave the cluster up afterwards
        #[arg(long)]
        keep: bool,
        /// Name of the cluster, so that several can run side by side
        #[arg(long, default_value = CLUSTER)]
        cluster_name: String,
    },
    /// Control groups version 2: some of the cluster's tests, under a kernel of its own that is a plain process
    V2 {
        /// Only tests whose name contains this
        name: Option<String>,
    },
    /// What runs in the guest of v2
    #[command(hide = true)]
    V2Inside(v2::inside::Plan),
}

/// Cluster tests at once: the machine has two cores, most tests wait most of the time.
const E2E_THREADS: &str = "3";
/// Name of the tests' own cluster.
const CLUSTER: &str = "test";

/// Runs it.
///
/// # Errors
/// Something failed.
pub fn run(args: Args) -> Result<()> {
    interrupt::clean_up_first()?;
    let mut runner = Runner::default();
    match args.what {
        None => {
            lint(&mut runner);
            unit(&mut runner);
            integration(&mut runner);
            e2e(&mut runner, CLUSTER, None, false);
        }
        Some(What::Lint) => {
            lint(&mut runner);
            alone(&mut runner);
        }
        Some(What::Unit) => unit(&mut runner),
        Some(What::Integration) => integration(&mut runner),
        Some(What::E2e { name, keep, cluster_name }) => e2e(&mut runner, &cluster_name, name.as_deref(), keep),
        Some(What::V2 { name }) => v2::run(&mut runner, CLUSTER, name.as_deref(), || stand::test_program("e2e")),
        Some(What::V2Inside(plan)) => return v2::inside::run(&plan),
    }
    runner.finish()
}

fn lint(runner: &mut Runner) {
    runner.command("formatting", &mut cargo(&["fmt", "--all", "--check"]));
    runner.command(
        "clippy, warnings denied",
        &mut cargo(&["clippy", "--workspace", "--all-targets", "--features", FEATURES, "--quiet", "--", "-D", "warnings"]),
    );
    // Links to private items are for those who read the code.
    let flags = "-D warnings -A rustdoc::private_intra_doc_links";
    runner.command("documentation, warnings denied", cargo(&["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", flags));
    runner.step("rules about the tree", || {
        let broken = tidy::broken_rules(&source_root())?;
        for rule in &broken {
            println!("{rule}");
        }
        Ok((u64::from(broken.is_empty()), broken.len() as u64))
    });
    runner.step("licences, bans and sources of dependencies", || supply::deny(&Cache::open()?, &supply::OFFLINE).map(|()| (1, 0)));
    runner.step("workflows", || supply::workflows(&Cache::open()?).map(|()| (1, 0)));
}

/// What takes long, so that a command of its own asks for it: each crate alone, which shows that its manifest is complete and borrows nothing from what
/// another crate turns on.
fn alone(runner: &mut Runner) {
    runner.step("each crate builds alone", || {
        let metadata: serde_json::Value = serde_json::from_str(&output(&mut cargo(&["metadata", "--format-version=1", "--no-deps"]))?)?;
        let names = metadata["packages"].as_array().into_iter().flatten().filter_map(|p| p["name"].as_str());
        for name in names {
            output(&mut cargo(&["check", "--quiet", "-p", name])).with_context(|| format!("{name} does not build alone"))?;
        }
        Ok((1, 0))
    });
}

fn unit(runner: &mut Runner) {
    runner.command("unit, property and golden tests", &mut cargo(&["test", "--workspace", "--no-fail-fast", "--quiet"]));
}

fn integration(runner: &mut Runner) {
    runner.step("brokers, Helm, Prometheus, a browser and an API server for the integration tests", || {
        stand::tools()?;
        Ok((1, 0))
    });
    let mut command = cargo(&["test", "--workspace", "--features", FEATURES, "--no-fail-fast", "--quiet"]);
    for name in integration_tests() {
        command.args(["--test", &name]);
    }
    runner.command("contract with real brokers, rendered chart", &mut command);
}

/// Every file in `tests/tests`; the cluster's tests are a folder.
fn integration_tests() -> Vec<String> {
    let files = std::fs::read_dir(source_root().join("tests/tests")).into_iter().flatten().flatten();
    let names = files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".rs")?.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn e2e(runner: &mut Runner, cluster: &str, filter: Option<&str>, keep: bool) {
    let mut ready = None;
    runner.step("the cluster tests, and a cluster with QScaler in it", || {
        let binary = stand::test_program("e2e")?;
        let chosen = Chosen::of(&binary, filter)?;
        let prometheus = monitoring::ensure(&Cache::open()?)?;
        ready = Some((binary, chosen, prometheus, stand::up(cluster, !keep, &Image::STAND)?));
        Ok((1, 0))
    });
    let Some((binary, chosen, prometheus, stand)) = ready else { return };
    let mut ok = true;
    for (title, threads, names) in
        [("end to end on the real cluster", E2E_THREADS, &chosen.side_by_side), ("what needs the cluster alone", "1", &chosen.alone)]
    {
        if !names.is_empty() {
            let mut command = Command::new(&binary);
            command.env("QSCALER_PROMETHEUS_BIN", &prometheus);
            command.args(["--show-output", "--test-threads", threads, "--exact"]).args(names);
            ok &= runner.command_in(title, &mut command, |command| stand.spawn(command));
        }
    }
    if !ok {
        stand.print_state();
    }
    // What failed, or was not asked for, may have kept a right from being used.
    let whole = ok && filter.is_none();
    let title = if whole { "no call of QScaler was refused, and no right is of no use" } else { "no call of QScaler was refused" };
    runner.step(title, || {
        let rights::Compared { wrong, unshown } = stand.rights(whole)?.unwrap_or_default();
        for sentence in unshown.iter().chain(&wrong) {
            println!("{sentence}");
        }
        Ok((u64::from(wrong.is_empty()), wrong.len() as u64))
    });
    if keep {
        println!("the cluster {cluster:?} is left up: cargo xtask cluster status --name {cluster}");
    } else {
        let down = stand.down();
        runner.step("nothing is left of the cluster", || down.map(|()| (1, 0)));
    }
}
