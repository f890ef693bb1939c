//! `qscaler-webhook`: arguments, logs, and the library's `run`.

use clap::Parser;
use qscaler_webhook::args::Args;

/// More threads answer no more calls than an API server makes, and each keeps memory of its own: a node may have a hundred processors.
const THREADS_MAX: usize = 4;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    qscaler_runtime::log::init(args.log_format, &args.log_filter)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(qscaler_webhook::run::run(args))
}
