//! `cargo xtask shapes`: pods as people write them, on a real cluster, each beside the same pod without QScaler. In: which shapes and trials. Out: the program's own
//! output (`qscaler-tests`, bin `shapes`), the table in the docs, an exit code. The cluster is its own and is taken down at the end, at Ctrl-C too.

use std::path::PathBuf;

use anyhow::Result;

use crate::{page, stand};

/// Arguments of `cargo xtask shapes`.
#[derive(clap::Args)]
pub struct Args {
    /// Only shapes whose name contains this (may be repeated)
    #[arg(long)]
    shape: Vec<String>,
    /// Only trials whose name contains this (may be repeated)
    #[arg(long)]
    trial: Vec<String>,
    /// End with one JSON object
    #[arg(long)]
    json: bool,
    /// Where the table goes, and beside it its cells as JSON [default: docs/shapes.md; target/shapes.md where only a part is run]
    #[arg(long)]
    report: Option<PathBuf>,
    /// Put the cells into the table of an earlier run [default: docs/shapes.md], in place of the same ones; the table says which run each is of
    #[arg(long)]
    update: bool,
    /// With --update: the arm without QScaler is not measured again where the table has it, since QScaler's code does not change it
    #[arg(long, requires = "update")]
    keep_bare: bool,
    /// Leave the cluster up afterwards
    #[arg(long)]
    keep: bool,
    /// Name of the cluster, so that several can run side by side
    #[arg(long, default_value = "shapes")]
    cluster_name: String,
}

/// Runs it.
///
/// # Errors
/// Something cannot be built, or a cell is not as it should be.
pub fn run(args: Args) -> Result<()> {
    let part = !(args.shape.is_empty() && args.trial.is_empty());
    let chosen = [("--shape", args.shape), ("--trial", args.trial)];
    let mut words = page::words("shapes", &page::Options { report: args.report, part, update: args.update, json: args.json }, chosen)?;
    words.extend(args.keep_bare.then(|| "--keep-bare".to_owned()));
    stand::run_program(&args.cluster_name, args.keep, "shapes", &words)
}
