//! `cargo xtask fuzz [--inputs N] [TARGET]`: what strangers can send (admission reviews, annotations, broker URLs, wire messages), made at random from a corpus.
//! In: a number, a seed, a part of a target's name. Out: a line per target; failure, and the input in `target/fuzz`, where something panicked or broke a
//! promise. Left to others: inputs and promises (`fuzz`).

use anyhow::{Context, Result, ensure};

use crate::exec;

/// Arguments of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub struct Args {
    /// Inputs of all targets together
    #[arg(long, default_value_t = 1_000_000)]
    inputs: u64,
    /// Equal seeds give equal inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only targets whose name contains this
    target: Option<String>,
}

/// Runs it.
///
/// # Errors
/// It does not build, or an input broke something.
pub fn run(args: Args) -> Result<()> {
    let mut command = exec::cargo(&["run", "--quiet", "--release", "--package", "qscaler-fuzz", "--bin", "fuzz", "--"]);
    command.args(["--inputs", &args.inputs.to_string(), "--seed", &args.seed.to_string()]).args(args.target);
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "an input broke something (see above)");
    Ok(())
}
