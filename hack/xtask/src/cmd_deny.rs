//! `cargo xtask deny [CHECK]…`: dependencies against `deny.toml`. In: checks. Out: nothing, or an error. It leaves the work to [`crate::supply`].

use anyhow::Result;

use crate::cache::Cache;
use crate::supply;

/// Arguments of `cargo xtask deny`.
#[derive(clap::Args)]
pub struct Args {
    /// Which; advisories need their database, which is fetched [default: bans, licenses and sources]
    #[arg(value_parser = ["advisories", "bans", "licenses", "sources"])]
    checks: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// Something is not allowed.
pub fn run(args: Args) -> Result<()> {
    let checks: Vec<&str> = args.checks.iter().map(String::as_str).collect();
    let checks = if checks.is_empty() { supply::OFFLINE.to_vec() } else { checks };
    supply::deny(&Cache::open()?, &checks)?;
    println!("{}: ok", checks.join(", "));
    Ok(())
}
