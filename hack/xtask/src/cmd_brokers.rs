//! `cargo xtask brokers path`: the folder of broker programs, as JSON or as a path. It leaves everything else to [`crate::brokers`].

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;

use crate::brokers::Brokers;
use crate::cache::Cache;

/// Arguments of `cargo xtask brokers`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Print where the programs are, unpacking them first if they are missing
    Path {
        /// Print one JSON object in place of the folder alone
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// The brokers cannot be had.
pub fn run(args: Args) -> Result<()> {
    let Action::Path { json } = args.action;
    let brokers = Brokers::ensure(&Cache::open()?)?;
    let bin = brokers.bin();
    if json {
        let program = |name: &str| bin.join(name).display().to_string();
        println!(
            "{}",
            json!({"bin": bin, "redis_server": program("redis-server"), "redis_cli": program("redis-cli"),
                "rabbitmq_server": program("rabbitmq-server"), "rabbitmqctl": program("rabbitmqctl")})
        );
    } else {
        println!("{}", bin.display());
    }
    Ok(())
}
