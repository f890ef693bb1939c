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
    /// Keep what the rivals came to in this file: written where it does not exist, else read, so that a changed law is run alone
    #[arg(long, value_name = "FILE")]
    rivals: Option<std::path::PathBuf>,
    /// The bursts that end in silence alone: minutes less
    #[arg(long)]
    bursts: bool,
    /// Draw waits against pod-seconds in docs/bench-law.svg
    #[arg(long)]
    update: bool,
}

/// Where the page on the law finds its picture.
const PICTURE: &str = "docs/bench-law.svg";

/// Runs the command.
///
/// # Errors
/// The bench cannot be built or run, or a promise is not kept.
pub fn run(args: Args) -> Result<()> {
    let mut cargo = exec::cargo(&["run", "--quiet", "--release", "-p", "qscaler-sim", "--bin", "bench-law", "--"]);
    cargo.args(["--seed", &args.seed.to_string()]);
    for (wanted, flag) in [(args.json, "--json"), (args.quick, "--quick"), (args.no_real, "--no-real"), (args.bursts, "--bursts")] {
        if wanted {
            cargo.arg(flag);
        }
    }
    if let Some(file) = &args.rivals {
        cargo.arg("--rivals").arg(file);
    }
    if args.update {
        cargo.arg("--picture").arg(crate::source_root().join(PICTURE));
    }
    let status = cargo.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the law's bench failed ({status}): see above");
    }
    Ok(())
}
