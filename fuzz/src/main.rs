//! The fuzz run as a program. In: number of inputs, seed, part of a target's name. Out: a line per target; exit code 1 and a file where something broke.

#![allow(clippy::print_stdout, reason = "the result")]

use anyhow::Result;
use clap::Parser;
use qscaler_fuzz::run::{chosen, run, save_panics};
use std::path::PathBuf;
use std::time::Instant;

#[derive(Parser)]
#[command(name = "fuzz")]
struct Args {
    /// Inputs of all targets together
    #[arg(long, default_value_t = 1_000_000)]
    inputs: u64,
    /// Equal seeds give equal inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where inputs go on which something broke
    #[arg(long, default_value = "target/fuzz")]
    found: PathBuf,
    /// Only targets whose name contains this
    #[arg(default_value = "")]
    target: String,
}

fn main() -> Result<()> {
    let args = Args::parse();
    save_panics(args.found.clone());
    let targets = chosen(&args.target);
    let shares: u64 = targets.iter().map(|target| target.share).sum();
    let (mut all, begin) = (0, Instant::now());
    for target in targets {
        let since = Instant::now();
        let tried = run(target, args.seed, args.inputs * target.share / shares, &args.found)?;
        all += tried.inputs;
        let (name, seconds, slowest) = (target.name, since.elapsed().as_secs(), tried.slowest.as_millis());
        println!(
            "{name:<12} {:>10} inputs, {:>10} of them read, {:>6} distinct answers, {seconds} s, the slowest {slowest} ms",
            tried.inputs, tried.read, tried.answers
        );
    }
    println!("{all} inputs in {} s, nothing broke", begin.elapsed().as_secs());
    Ok(())
}
