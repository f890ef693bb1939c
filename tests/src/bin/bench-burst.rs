//! `cargo xtask bench burst`, inside the cluster's network: twenty bursts on the real cluster. In: `--json`. Out: seconds of each from the write to the queue to
//! `/scale`, and their median; with `--json` one JSON object as the last line. Exit code 1 when the promise is not kept.
#![allow(clippy::print_stdout)]

use anyhow::{Result, ensure};
use qscaler_tests::stand::Stand;
use qscaler_tests::stand::burst::{MOST, Target};
use std::process::ExitCode;

/// Bursts measured.
const BURSTS: usize = 20;
/// The promise for their median, seconds.
const MEDIAN_MAX_S: f64 = 2.0;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let json = std::env::args().skip(1).any(|word| word == "--json");
    let target = Target::create(Stand::get().await?, "bench-burst").await?;
    let mut bursts = Vec::new();
    for number in 1..=BURSTS {
        let burst = target.burst().await?;
        println!("burst {number:2}: {MOST} replicas asked for after {:.3} s, in {} write(s)", burst.seconds, burst.writes);
        bursts.push(burst);
        target.calm().await?;
    }
    target.remove().await?;
    let mut seconds: Vec<f64> = bursts.iter().map(|burst| burst.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    ensure!(seconds.len() == BURSTS, "{} bursts", seconds.len());
    let median = 0.5 * (seconds[BURSTS / 2 - 1] + seconds[BURSTS / 2]);
    let one_step = bursts.iter().all(|burst| burst.writes == 1);
    println!("median {median:.3} s, slowest {:.3} s; each 0 to {MOST} in one write: {one_step}", seconds[BURSTS - 1]);
    if json {
        println!("{}", serde_json::json!({"bursts": BURSTS, "median_s": median, "slowest_s": seconds[BURSTS - 1], "one_step": one_step}));
    }
    Ok(if median < MEDIAN_MAX_S && one_step { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
