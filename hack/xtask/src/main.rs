//! `cargo xtask COMMAND`: every command of the README and of CI. In: arguments. Out: an exit code, and what the command prints.
//!
//! One command is one module `src/cmd_NAME.rs` in the library, with an `Args` (clap) and `pub fn run(args: Args) -> anyhow::Result<()>`.
//! To add one: write that module, add `pub mod cmd_NAME;` in `lib.rs`, one line in [`Command`] and one in `run`. Commands hold no
//! logic that another command or a test could want: that goes in the library's other modules.

use clap::{Parser, Subcommand};
use xtask::{
    cmd_bench, cmd_book, cmd_brokers, cmd_cluster, cmd_demo, cmd_deny, cmd_fuzz, cmd_hostile, cmd_images, cmd_matrix, cmd_model, cmd_newcomer,
    cmd_publish, cmd_release, cmd_shapes, cmd_soak, cmd_test,
};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Builds, runs and tests QScaler on this machine")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A real Kubernetes on this machine: up, down, status, kubectl, enter
    Cluster(cmd_cluster::Args),
    /// OCI archives of QScaler and of the test workers, without Docker
    Images(cmd_images::Args),
    /// Redis and RabbitMQ servers to start by hand or from tests, unpacked and not installed
    Brokers(cmd_brokers::Args),
    /// Dependencies against deny.toml
    Deny(cmd_deny::Args),
    /// Every test, or one kind of them
    Test(cmd_test::Args),
    /// The main job, live: an unchanged Celery worker goes 0 -> N -> 0, then an OOM kill is answered
    Demo(cmd_demo::Args),
    /// What the project claims, measured: sizing
    Bench(cmd_bench::Args),
    /// The documentation as HTML
    Book(cmd_book::Args),
    /// What strangers can send, made at random from a corpus: nothing may panic or break a promise
    Fuzz(cmd_fuzz::Args),
    /// What clusters and users do to an injector, on a real cluster, each beside the same without QScaler: workers run, faults are named
    Hostile(cmd_hostile::Args),
    /// The drain protocol, explored state by state, and mistakes planted in it
    Model(cmd_model::Args),
    /// Every framework meets every fault on a real cluster: tasks lost, doubled, cut
    Matrix(cmd_matrix::Args),
    /// Pods as people write them on a real cluster, each beside the same without QScaler: tasks cut, told, counted
    Shapes(cmd_shapes::Args),
    /// What the documentation says, done on a fresh cluster: install, getting started, six faults found, upgrade, uninstall
    Newcomer(cmd_newcomer::Args),
    /// Everything that people install: images for all processors, chart, kubectl plugin, bills of materials, checksums
    Release(cmd_release::Args),
    /// A release's images and chart into a registry
    Publish(cmd_publish::Args),
    /// Bursts with random faults on a real cluster, for a while
    Soak(cmd_soak::Args),
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Cluster(args) => cmd_cluster::run(args),
        Command::Images(args) => cmd_images::run(args),
        Command::Brokers(args) => cmd_brokers::run(args),
        Command::Deny(args) => cmd_deny::run(args),
        Command::Test(args) => cmd_test::run(args),
        Command::Demo(args) => cmd_demo::run(args),
        Command::Bench(args) => cmd_bench::run(args),
        Command::Book(args) => cmd_book::run(args),
        Command::Fuzz(args) => cmd_fuzz::run(args),
        Command::Hostile(args) => cmd_hostile::run(args),
        Command::Model(args) => cmd_model::run(args),
        Command::Matrix(args) => cmd_matrix::run(args),
        Command::Shapes(args) => cmd_shapes::run(args),
        Command::Newcomer(args) => cmd_newcomer::run(args),
        Command::Release(args) => cmd_release::run(args),
        Command::Publish(args) => cmd_publish::run(args),
        Command::Soak(args) => cmd_soak::run(args),
    }
}

fn main() -> std::process::ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
