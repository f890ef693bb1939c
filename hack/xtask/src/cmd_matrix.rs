//! `cargo xtask matrix`: every framework meets every fault on a real cluster. In: which frameworks and faults. Out: the program's own output
//! (`qscaler-tests`, bin `matrix`), the table in the docs, an exit code. The cluster is its own and is taken down at the end, at Ctrl-C too.

use std::path::PathBuf;

use anyhow::Result;

use crate::{page, stand};

/// Arguments of `cargo xtask matrix`.
#[derive(clap::Args)]
pub struct Args {
    /// Only frameworks whose name contains this (may be repeated)
    #[arg(long)]
    framework: Vec<String>,
    /// Only faults whose name contains this (may be repeated)
    #[arg(long)]
    fault: Vec<String>,
    /// End with one JSON object
    #[arg(long)]
    json: bool,
    /// Where the table goes, and beside it its cells as JSON [default: docs/matrix.md; target/matrix.md where only a part is run]
    #[arg(long)]
    report: Option<PathBuf>,
    /// Put the cells into the table of an earlier run [default: docs/matrix.md], in place of the same ones; the table says which run each is of
    #[arg(long)]
    update: bool,
    /// Leave the cluster up afterwards
    #[arg(long)]
    keep: bool,
    /// Name of the cluster, so that several can run side by side
    #[arg(long, default_value = "matrix")]
    cluster_name: String,
}

/// Runs it.
///
/// # Errors
/// Something cannot be built, or a cell is not as it should be.
pub fn run(args: Args) -> Result<()> {
    let part = !(args.framework.is_empty() && args.fault.is_empty());
    let chosen = [("--framework", args.framework), ("--fault", args.fault)];
    let words = page::words("matrix", &page::Options { report: args.report, part, update: args.update, json: args.json }, chosen)?;
    stand::run_program(&args.cluster_name, args.keep, "matrix", &words)
}
