//! `qscaler-certs`: arguments, logs, and the library's `run`.

use clap::Parser;
use qscaler_certs::args::Args;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    qscaler_runtime::log::init(args.log_format, &args.log_filter)?;
    qscaler_certs::run::run(args).await
}
