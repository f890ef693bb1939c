//! `kubectl qscaler`: what QScaler knows and does, for people. In: arguments and the current kubeconfig. Out: text. It changes nothing in the cluster but for
//! `release`, which ends a pod's hold.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod release;
mod show;
mod simulate;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use kube::Api;
use kube::api::ListParams;
use qscaler_api::QWorker;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "kubectl qscaler", version, about = "What QScaler knows of your queue workers, and what it does about it")]
struct Cli {
    /// Namespace; default: the one of the current context
    #[arg(long, short, global = true)]
    namespace: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One line per managed workload
    Status {
        /// Every namespace
        #[arg(long, short = 'A')]
        all_namespaces: bool,
    },
    /// Why a workload has the replicas and the size that it has, and what stands in the way
    Explain {
        /// The Deployment's name
        name: String,
    },
    /// End a pod's hold now: a task that still runs in it is cut, and counted
    Release {
        /// The pod's name
        pod: String,
    },
    /// What QScaler, KEDA and others would have made of your own tasks: needs a CSV and no cluster
    Simulate(simulate::Args),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line for a user: a backtrace says nothing about a mistake in a file or a missing cluster.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    if let Command::Simulate(args) = &cli.command {
        return simulate::run(args);
    }
    let client = kube::Client::try_default().await.context("no cluster: is there a kubeconfig?")?;
    if let Command::Release { pod } = &cli.command {
        let pods = match &cli.namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::default_namespaced(client.clone()),
        };
        print!("{}", release::run(&pods, pod).await?);
        return Ok(());
    }
    let namespaced = || match &cli.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::default_namespaced(client.clone()),
    };
    match &cli.command {
        Command::Simulate(_) | Command::Release { .. } => {}
        Command::Status { all_namespaces } => {
            let api: Api<QWorker> = if *all_namespaces { Api::all(client.clone()) } else { namespaced() };
            let workers = api.list(&ListParams::default()).await.context("cannot list QWorkers: is QScaler installed?")?;
            print!("{}", show::status(&workers.items));
        }
        Command::Explain { name } => {
            let worker = namespaced().get_opt(name).await.context("cannot read QWorkers: is QScaler installed?")?;
            let worker = worker.with_context(|| {
                format!(
                    "no QWorker {name}: the Deployment of that name needs the label {}=enabled on its namespace and qscaler.dev/ annotations",
                    qscaler_core::names::LABEL_INJECTION
                )
            })?;
            print!("{}", show::explain(&worker));
        }
    }
    Ok(())
}
