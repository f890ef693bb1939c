//! The soak, inside the cluster's network. In: `--minutes N`, `--seed S`, `--framework PART` (may be repeated), `--json`. Out: the seed, a line per cell, and
//! with `--json` a last line. `cargo xtask soak` brings up the cluster and QScaler before, and takes them down after.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, bail, ensure};
use qscaler_tests::matrix::{rows, soak, table};
use std::time::{SystemTime, UNIX_EPOCH};

/// Without a choice the soak has this many fleets: the machine is small, and a round with few is short.
const FLEETS: usize = 3;

#[tokio::main]
async fn main() -> Result<()> {
    let (mut minutes, mut seed, mut parts, mut json) = (30.0_f64, None::<u64>, Vec::new(), false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--minutes" => minutes = value()?.parse().context("--minutes: a number is wanted")?,
            "--seed" => seed = Some(value()?.parse().context("--seed: a whole number is wanted")?),
            "--framework" => parts.push(value()?),
            "--json" => json = true,
            other => bail!("unknown argument {other}; valid: --minutes, --seed, --framework, --json"),
        }
    }
    let seed = seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_secs()));
    println!("seed {seed}");
    let mut rows = rows::chosen(&parts);
    ensure!(!rows.is_empty(), "no framework's name contains one of {parts:?}");
    if parts.is_empty() {
        rows.truncate(FLEETS);
    }
    let cells = soak::run(&rows, seed, minutes, |line| println!("{line}")).await?;
    let failed = cells.iter().filter(|cell| cell.complaint().is_some()).count();
    if json {
        println!("{}", table::summary(&cells));
    }
    ensure!(failed == 0, "{failed} of {} cells are not as they should be; again with --seed {seed}", cells.len());
    Ok(())
}
