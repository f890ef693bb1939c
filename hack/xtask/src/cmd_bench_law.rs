//! `cargo xtask bench law`: the scaling law beside KEDA, Go QScaler and WPA. In: a seed. Out: a table of cases, one JSON line on request, and an
//! error when a promise is not kept. It leaves everything else to `qscaler_sim::bench`.

use anyhow::{Context, Result, bail};

use crate::exec;

/// Arguments of `cargo xtask bench law`.
#[derive(clap::Args)]
pub struct Args {
    /// Equal seeds give equal results
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
    /// Seconds instead of minutes: one seed per case and few of KEDA's settings, so no proof
    #[arg(long)]
    quick: bool,
    /// Leave out the recorded hour, which is fetched once by pip (25 MB)
    #[arg(long)]
    no_real: bool,
}

/// Runs the command.
///
/// # Errors
/// The bench cannot be built or run, or a promise is not kept.
pub fn run(args: Args) -> Result<()> {
    let mut cargo = exec::cargo(&["run", "--quiet", "--release", "-p", "qscaler-sim", "--bin", "bench-law", "--"]);
    cargo.args(["--seed", &args.seed.to_string()]);
    for (wanted, flag) in [(args.json, "--json"), (args.quick, "--quick"), (args.no_real, "--no-real")] {
        if wanted {
            cargo.arg(flag);
        }
    }
    let status = cargo.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the law's bench failed ({status}): see above");
    }
    Ok(())
}
