//! The hostile cases, inside the cluster's network. In: `--case PART` (may be repeated), `--json`. Out: a line per case, and with `--json` a last line.
//! `cargo xtask hostile` brings up the cluster and QScaler before, and takes them down after.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, bail, ensure};
use qscaler_tests::hostile::{case, run, verdict};

#[tokio::main]
async fn main() -> Result<()> {
    let (mut parts, mut json) = (Vec::new(), false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--case" => parts.push(args.next().context("--case needs a part of a name")?),
            "--json" => json = true,
            other => bail!("unknown argument {other}; valid: --case PART, --json"),
        }
    }
    let cases = case::chosen(&parts);
    let names: Vec<&str> = case::all().iter().map(|case| case.name).collect();
    ensure!(!cases.is_empty(), "no case has that in its name; they are: {}", names.join(", "));
    let seen = run::run(&cases, |line| println!("{line}")).await?;
    let bad = seen.iter().filter(|seen| !seen.is_good()).count();
    if json {
        println!("{}", verdict::sum(&seen));
    }
    ensure!(bad == 0, "{bad} of {} cases are not as they should be", seen.len());
    Ok(())
}
