//! `kubectl qscaler`: what QScaler knows and does, for people. In: arguments and the current kubeconfig. Out: text. It changes nothing in the cluster but for
//! `release`, which ends a pod's hold, and `adopt`, which sets a label and annotations.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod absent;
mod adopt;
mod cluster;
mod doctor;
mod release;
mod show;
mod simulate;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use cluster::Where;
use doctor::Seen;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::ListParams;
use qscaler_api::QWorker;
use serde_json::json;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "kubectl qscaler", version, about = "What QScaler knows of your queue workers, and what it does about it")]
struct Cli {
    #[command(flatten)]
    cluster: Where,
    /// As a table, a wider one, or JSON
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Wide,
    Json,
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
    /// Check the installation and the workloads of all namespaces, or of one (-n): each fault comes with its mend, and makes the exit code 1
    Doctor {
        /// Every namespace: the default without -n
        #[arg(long, short = 'A')]
        all_namespaces: bool,
    },
    /// Put a running Deployment into QScaler's hands without cutting a task: label, annotate, and watch its pods being replaced as they fall idle
    Adopt(adopt::Args),
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
        Ok(code) => code,
        Err(error) => {
            // One line for a user: a backtrace says nothing about a mistake in a file or a missing cluster.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode> {
    match &cli.command {
        Command::Simulate(args) => simulate::run(args)?,
        Command::Release { pod } => {
            let client = cli.cluster.client().await?;
            print!("{}", release::run(&cli.cluster.namespaced(&client), pod).await?);
        }
        Command::Adopt(args) => {
            let client = cli.cluster.client().await?;
            let (deployments, workers) = (cli.cluster.namespaced(&client), cli.cluster.namespaced(&client));
            let done = adopt::run(&client, &deployments, &workers, args, &mut std::io::stdout()).await?;
            return Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Status { all_namespaces } => status(&cli, *all_namespaces).await?,
        Command::Explain { name } => explain(&cli, name).await?,
        Command::Doctor { all_namespaces } => {
            let client = cli.cluster.client().await?;
            let namespace = cli.cluster.namespace.as_deref().filter(|_| !all_namespaces);
            let checks = doctor::checks(&cluster::facts(&client, namespace).await);
            let (text, well) = doctor::text(&checks);
            if cli.output == Output::Json {
                println!("{}", serde_json::to_string_pretty(&json!({ "checks": checks, "ok": well }))?)
            } else {
                print!("{text}")
            }
            return Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(cli: &Cli, all_namespaces: bool) -> Result<()> {
    let client = cli.cluster.client().await?;
    let api: Api<QWorker> = if all_namespaces { Api::all(client.clone()) } else { cli.cluster.namespaced(&client) };
    let workers = match api.list(&ListParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => bail!("{}", absent::why("", Some(false), None)),
        other => other.context("cannot list QWorkers")?,
    };
    match cli.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&workers)?),
        output => print!("{}", show::status(&workers.items, output == Output::Wide)),
    }
    Ok(())
}

async fn explain(cli: &Cli, name: &str) -> Result<()> {
    let client = cli.cluster.client().await?;
    let worker = cli.cluster.namespaced::<QWorker>(&client).get_opt(name).await.context("cannot read QWorkers")?;
    let Some(worker) = worker else {
        let deployments: Api<Deployment> = cli.cluster.namespaced(&client);
        let installed = cluster::is_installed(&client).await;
        match cluster::workload(&client, &deployments, name).await {
            Seen::Yes(found) => bail!("{}", absent::why(name, installed, found.as_ref())),
            Seen::NotAllowed => bail!("there is no QWorker {name}, and you may not read Deployments to see why"),
            Seen::No(why) => bail!("there is no QWorker {name}, and Deployments cannot be read to see why: {why}"),
        }
    };
    match cli.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&worker)?),
        Output::Table | Output::Wide => print!("{}", show::explain(&worker)),
    }
    Ok(())
}
