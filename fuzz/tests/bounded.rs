//! A bounded fuzz run, the same on every machine: the corpus, and some thousands of inputs made of it by a fixed seed. `cargo xtask fuzz` tries millions.

use qscaler_fuzz::run::run;
use qscaler_fuzz::targets::TARGETS;
use std::path::Path;

/// Inputs of all targets together: seconds in a build without optimisation.
const INPUTS: u64 = 4_000;
/// Any.
const SEED: u64 = 20_261_130;

#[test]
fn no_input_from_strangers_panics_or_breaks_a_promise() {
    let found = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
    for target in TARGETS {
        let tried = run(target, SEED, INPUTS * target.share / 100, &found);
        let tried = tried.unwrap_or_else(|error| panic!("{error:#}"));
        assert!(tried.answers > 3, "{} gives few answers: its corpus does not reach far", target.name);
    }
}
