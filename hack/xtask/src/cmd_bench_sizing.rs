//! `cargo xtask bench sizing`: sizing policies side by side. In: a seed. Out: a table, a picture, one JSON line on request, and an error
//! when the bar is missed. It leaves everything else to `qscaler_sim::sizing`.

use anyhow::{Context, Result, bail};

use crate::exec;

/// Arguments of `cargo xtask bench sizing`.
#[derive(clap::Args)]
pub struct Args {
    /// Equal seeds give equal results
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
    /// Leave out the recorded hour, which is fetched once by pip (25 MB)
    #[arg(long)]
    no_real: bool,
}

/// Runs the command.
///
/// # Errors
/// The bench cannot be built or run, or the bar is missed.
pub fn run(args: Args) -> Result<()> {
    let mut cargo = exec::cargo(&["run", "--quiet", "--release", "-p", "qscaler-sim", "--bin", "bench-sizing", "--"]);
    cargo.args(["--seed", &args.seed.to_string()]);
    if args.json {
        cargo.arg("--json");
    }
    if args.no_real {
        cargo.arg("--no-real");
    }
    let status = cargo.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the sizing bench failed ({status}): see above");
    }
    Ok(())
}
