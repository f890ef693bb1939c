//! `cargo xtask soak`: bursts with random faults on a few fleets of a real cluster, for a while. In: a time and a seed. Out: the program's own output
//! (`qscaler-tests`, bin `soak`), an exit code. The cluster is its own and is taken down at the end, at Ctrl-C too.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::stand;

/// Arguments of `cargo xtask soak`.
#[derive(clap::Args)]
pub struct Args {
    /// No round begins later than this
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Draws the same faults again [default: the time; it is printed first]
    #[arg(long)]
    seed: Option<u64>,
    /// Only frameworks whose name contains this (may be repeated) [default: the first three]
    #[arg(long)]
    framework: Vec<String>,
    /// End with one JSON object
    #[arg(long)]
    json: bool,
    /// Leave the cluster up afterwards
    #[arg(long)]
    keep: bool,
    /// Name of the cluster, so that several can run side by side
    #[arg(long, default_value = "soak")]
    cluster_name: String,
}

/// Runs it.
///
/// # Errors
/// Something cannot be built, or a cell is not as it should be.
pub fn run(args: Args) -> Result<()> {
    // Printed before anything can go wrong.
    let seed = args.seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_secs()));
    println!("seed {seed}");
    let mut words: Vec<String> = vec!["--minutes".into(), args.minutes.to_string(), "--seed".into(), seed.to_string()];
    words.extend(args.framework.into_iter().flat_map(|part| ["--framework".to_owned(), part]));
    if args.json {
        words.push("--json".into());
    }
    stand::run_program(&args.cluster_name, args.keep, "soak", &words)
}
