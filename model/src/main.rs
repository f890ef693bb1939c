//! `model [--quick] [PART-OF-A-NAME]`: explores every setting, every shape of container and every mutation, or those so named. In: nothing. Out: a table, and failure where an invariant broke or a mutation
//! was not noticed.

use qscaler_model::container::{RULES, Shape, Slip, explore};
use qscaler_model::{Answer, INVARIANTS, Mutation, Setting, check, walk};
use std::time::Duration;

/// States to see on a walk: seconds on a free core.
const WALK_STATES: usize = 500_000;
/// At most, on a busy machine; a walk that ends earlier has found nothing less true.
const WALK_TIME: Duration = Duration::from_secs(20);

#[allow(clippy::print_stdout)]
fn main() -> std::process::ExitCode {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let part = std::env::args().skip(1).find(|arg| !arg.starts_with("--")).unwrap_or_default();
    let mut failed = false;
    println!("invariants:");
    for (name, words) in INVARIANTS {
        println!("  {name:9} {words}");
    }
    for setting in if quick { Setting::quick() } else { Setting::full() } {
        if !setting.name.contains(&part) {
            continue;
        }
        let answer = check(setting);
        failed |= !answer.broken.is_empty();
        print(&answer);
    }
    if !quick {
        for (seed, setting) in Setting::large().into_iter().enumerate().filter(|(_, setting)| setting.name.contains(&part)) {
            let answer = walk(setting, seed as u64, WALK_STATES, WALK_TIME);
            failed |= !answer.broken.is_empty();
            print(&answer);
        }
    }
    failed |= !containers(&part);
    println!("mutations:");
    for mutation in Mutation::ALL.iter().filter(|mutation| format!("{mutation:?}").contains(&part)) {
        let answer = check(mutation.setting());
        let by: Vec<&str> = answer.broken.iter().map(|(name, _)| *name).collect();
        let caught = by.contains(&mutation.caught_by());
        failed |= !caught;
        let verdict = if caught { "caught by" } else { "NOT CAUGHT by" };
        println!(
            "  {mutation:?}: {}: {verdict} {} ({by:?}, {} states, {:?})",
            mutation.words().trim(),
            mutation.caught_by(),
            answer.states,
            answer.took
        );
    }
    if failed { std::process::ExitCode::FAILURE } else { std::process::ExitCode::SUCCESS }
}

/// Every shape of container, and every mistake in its own. False: a rule broke, or a mistake went unnoticed.
#[allow(clippy::print_stdout)]
fn containers(part: &str) -> bool {
    let mut good = true;
    println!("containers:");
    for (name, words) in RULES {
        println!("  {name:9} {words}");
    }
    for shape in Shape::ALL.iter().filter(|shape| format!("{shape:?}").contains(part)) {
        let found = explore(*shape, None);
        println!("  {shape:?}: {} states", found.states);
        if let Some((rule, path)) = found.broken {
            good = false;
            println!("  BROKEN {rule}: {}", path.join(", "));
        }
    }
    for (slip, shape, rule) in Slip::ALL.iter().filter(|(slip, ..)| format!("{slip:?}").contains(part)) {
        let by = explore(*shape, Some(*slip)).broken.map(|(rule, _)| rule);
        good &= by == Some(*rule);
        println!("  {slip:?} in {shape:?}: {} {rule} ({by:?})", if by == Some(*rule) { "caught by" } else { "NOT CAUGHT by" });
    }
    good
}

#[allow(clippy::print_stdout)]
fn print(answer: &Answer) {
    println!("{}: {} states, {} steps, depth {}, {:.1?}", answer.name, answer.states, answer.steps, answer.depth, answer.took);
    for (name, path) in &answer.broken {
        println!("  BROKEN {name}:");
        path.iter().for_each(|action| println!("    {action}"));
    }
}
