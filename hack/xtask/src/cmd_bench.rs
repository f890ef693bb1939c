//! `cargo xtask bench NAME`: what the project claims, measured. In: which bench. Out: its table and, on request, its JSON line.
//! One bench is one module `cmd_bench_NAME.rs`, one line in [`Bench`] and one in [`run`].

use anyhow::Result;
use clap::Subcommand;

use crate::{cmd_bench_burst, cmd_bench_law, cmd_bench_sidecar, cmd_bench_sizing, cmd_bench_webhook};

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Twenty bursts on a real cluster: from the write to the queue to `/scale`
    Burst(cmd_bench_burst::Args),
    /// Three bursts of Celery tasks and then silence on a real cluster: waits, pod-seconds, how soon no pod is left
    BurstsCluster(cmd_bench_burst::Args),
    /// Thousands of pods on a real cluster while the webhook is rolled out anew and its authority is rotated: none may be bare
    Creations(cmd_bench_burst::Args),
    /// Ten minutes without a broker on a real cluster: nothing may be lowered
    Outage(cmd_bench_burst::Args),
    /// The scaling law beside KEDA, Go QScaler and WPA on the same arrivals: waits and pods
    Law(cmd_bench_law::Args),
    /// What the sidecar's sampling of a worker's memory costs
    Sidecar(cmd_bench_sidecar::Args),
    /// Sizing policies side by side on the same tasks: OOM kills and slack
    Sizing(cmd_bench_sizing::Args),
    /// The webhook under a thousand calls a second: times and memory, also beside trickling connections and after huge bodies
    Webhook(cmd_bench_webhook::Args),
}

/// Runs the command.
///
/// # Errors
/// The bench cannot be run, or what it claims does not hold.
pub fn run(args: Args) -> Result<()> {
    match args.bench {
        Bench::Burst(args) => cmd_bench_burst::burst(args),
        Bench::BurstsCluster(args) => cmd_bench_burst::bursts_cluster(args),
        Bench::Creations(args) => cmd_bench_burst::creations(args),
        Bench::Outage(args) => cmd_bench_burst::outage(args),
        Bench::Law(args) => cmd_bench_law::run(args),
        Bench::Sidecar(args) => cmd_bench_sidecar::run(args),
        Bench::Sizing(args) => cmd_bench_sizing::run(args),
        Bench::Webhook(args) => cmd_bench_webhook::run(args),
    }
}
