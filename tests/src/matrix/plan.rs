//! Tasks to send. In: a prefix, how many fleets there are side by side. Out: tasks, all at once. The more fleets, the longer some tasks are: a round waits
//! until every fleet works before its fault comes, and the machine is small.

use crate::stand::fleet::Task;

/// Longer by this for each fleet beside, in seconds: what one more client and its workers cost to get going on two cores.
const PER_FLEET: f64 = 1.0;

/// Keeps three workers busy; `beside` is the number of fleets in the round.
#[must_use]
pub fn full(prefix: &str, beside: usize) -> Vec<Task> {
    let long = 14.0 + PER_FLEET * beside as f64;
    [long, long + 2.0, long + 4.0, 9.0, 6.0, 7.0, 4.0].iter().enumerate().map(|(i, seconds)| task(prefix, i, *seconds)).collect()
}

/// A load that falls: short tasks first, then fewer and longer ones, so that workers become idle one by one while others still work. `outlasting`: the long
/// ones go on for at least so many seconds.
#[must_use]
pub fn falling(prefix: &str, beside: usize, outlasting: f64) -> Vec<Task> {
    let long = outlasting.max(24.0) + PER_FLEET * beside as f64;
    [4.0, 4.0, 5.0, long, long + 4.0].iter().enumerate().map(|(i, seconds)| task(prefix, i, *seconds)).collect()
}

/// One more long task, for a fleet that was done before the others had begun.
#[must_use]
pub fn more(prefix: &str, number: usize, beside: usize) -> Vec<Task> {
    (0..2).map(|i| task(prefix, 100 * number + i, 14.0 + PER_FLEET * beside as f64)).collect()
}

fn task(prefix: &str, number: usize, seconds: f64) -> Task {
    Task { task: format!("{}/{number}", prefix.trim_end_matches('/')), at: 0.0, seconds, mib: 0 }
}
