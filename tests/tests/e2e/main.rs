//! The whole path on a real Kubernetes with real brokers and unchanged Celery workers. Run by `cargo xtask test e2e [NAME]`, which brings up the
//! cluster, installs the chart and starts this inside the cluster's network. Each test has its own namespace, queue and ledger; the limits are
//! generous because two cores run everything, and no timing decides a test. In: the cluster's and brokers' places, by environment. Out: tests. A
//! module for each part of the promise.

// What was measured is shown with the result.
#![allow(clippy::print_stdout)]

mod alone;
mod cgroups;
mod controllers;
mod frameworks;
mod input;
mod job;
mod matrix;
mod page;
mod pictures;
mod pool;
mod protocol;
mod reality;
mod replace;
mod scaling;
mod signing;
mod sizes;
mod uninstall;

use qscaler_tests::stand::fleet::Task;

/// So many equal tasks, sent at once.
fn tasks(count: usize, seconds: f64) -> Vec<Task> {
    (0..count).map(|i| Task { task: format!("t{i}"), at: 0.0, seconds, mib: 0 }).collect()
}
