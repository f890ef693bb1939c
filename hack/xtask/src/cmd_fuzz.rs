//! `cargo xtask fuzz [--inputs N] [TARGET]`: what strangers can send (admission reviews, annotations, broker URLs, wire messages), made at random from a corpus.
//! In: a number, a seed, a part of a target's name. Out: a line per target; failure, and the input in `target/fuzz`, where something panicked or broke a
//! promise. Left to others: inputs and promises (`fuzz`).

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::exec;
use crate::images::{self, Profile};

/// Crates in which a number that overflows, or an assertion that is off in releases, is a fault like any other.
const CHECKED: [&str; 5] = ["qscaler-core", "qscaler-broker-url", "qscaler-inject", "qscaler-webhook", "qscaler-fuzz"];

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
    // Optimised, as the images have it, but for what only a build for development checks.
    let (mut build, folder) = images::cargo_static(Profile::Release);
    for package in CHECKED {
        for check in ["overflow-checks", "debug-assertions"] {
            build.args(["--config", &format!("profile.release.package.{package}.{check}=true")]);
        }
    }
    exec::output(build.args(images::selection(&[("qscaler-fuzz", "fuzz")]))).context("it does not build")?;
    let mut command = Command::new(folder.join("fuzz"));
    command.args(["--inputs", &args.inputs.to_string(), "--seed", &args.seed.to_string()]).args(args.target);
    let status = command.status().context("it does not start")?;
    ensure!(status.success(), "an input broke something (see above)");
    Ok(())
}
