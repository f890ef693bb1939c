//! `cargo xtask model [--quick] [PART]`: the drain protocol explored state by state. In: a part of a setting's or a mutation's name, or nothing
//! for all. Out: states, invariants and what noticed each planted mistake; failure where an invariant broke or a mistake was not noticed.

use anyhow::{Context, Result, ensure};

use crate::exec;

/// Arguments of `cargo xtask model`.
#[derive(clap::Args)]
pub struct Args {
    /// The small settings only
    #[arg(long)]
    quick: bool,
    /// Only settings and mutations whose name contains this
    part: Option<String>,
}

/// Runs it.
///
/// # Errors
/// It does not build, an invariant broke, or a planted mistake was not noticed.
pub fn run(args: Args) -> Result<()> {
    let mut command = exec::cargo(&["run", "--quiet", "--release", "--package", "qscaler-model", "--bin", "model", "--"]);
    if args.quick {
        command.arg("--quick");
    }
    command.args(args.part);
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "an invariant broke, or a planted mistake was not noticed (see above)");
    Ok(())
}
