//! `kubectl qscaler`: what QScaler knows and does, for people. In: arguments, the current kubeconfig, manifests. Out: text. It changes nothing in the cluster but by
//! `release`, which ends a pod's hold, `adopt`, which sets a label and annotations, and `pause` and `resume`, which set one annotation.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod absent;
mod adopt;
mod clock;
mod cluster;
#[cfg(test)]
mod docs_tests;
mod doctor;
mod history;
mod manifest;
mod manual;
mod pause;
mod reading;
mod release;
mod show;
mod simulate;
mod survey;

use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use cluster::Where;
use doctor::ClusterSeen;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use qscaler_api::QWorker;
use serde::Serialize;
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// How often `status --watch` looks.
const WATCH: Duration = Duration::from_secs(2);

#[derive(Parser)]
#[command(name = "kubectl qscaler", version, about = "What QScaler knows of your queue workers, and what it does about it")]
struct Cli {
    #[command(flatten)]
    cluster: Where,
    /// As a table, a wider one, JSON or YAML
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
    Yaml,
}

#[derive(Subcommand)]
enum Command {
    /// One line per managed workload
    Status {
        /// Every namespace
        #[arg(long, short = 'A')]
        all_namespaces: bool,
        /// Look again every two seconds, until interrupted
        #[arg(long, short)]
        watch: bool,
    },
    /// Why a workload has the replicas and the size that it has, its last decisions, and what stands in the way
    Explain {
        /// The Deployment's name
        name: String,
    },
    /// Check the installation and the workloads of all namespaces, or of one (-n): each fault comes with its mend. Exit code 1: a check failed; 0: none did (warnings
    /// and what you may not read are no failures); 2: the command line is wrong
    Doctor {
        /// Every namespace: the default without -n
        #[arg(long, short = 'A')]
        all_namespaces: bool,
    },
    /// Write a manifest with the sidecar in it, as the webhook would make its pods: kubectl qscaler inject -f x.yaml | kubectl apply -f -. Needs no cluster
    Inject(manifest::InjectArgs),
    /// Give back what inject was given, byte for byte where the manifest was not edited since. Needs no cluster
    Uninject(manifest::UninjectArgs),
    /// Put a running Deployment into QScaler's hands without cutting a task: label, annotate, and watch its pods being replaced as they fall idle
    Adopt(adopt::AdoptArgs),
    /// End a pod's hold now: a task that still runs in it is cut, and counted
    Release {
        /// The pod's name
        pod: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Leave a workload's replicas as they are (tasks are held as before), until resume
    Pause {
        /// The Deployment's name
        name: String,
        /// What pauses
        #[arg(long, value_enum, default_value_t)]
        only: pause::What,
    },
    /// Let a paused workload follow its queue again
    Resume {
        /// The Deployment's name
        name: String,
    },
    /// Write a shell's completions to standard output
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual page (roff) to standard output: kubectl qscaler man | man -l -
    Man,
    /// What QScaler, KEDA and others would have made of your own tasks: needs a CSV and no cluster
    Simulate(simulate::SimulateArgs),
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
        Command::Inject(args) => told(&manifest::inject(args, cli.cluster.namespace.as_deref())?)?,
        Command::Uninject(args) => told(&manifest::uninject(args)?)?,
        Command::Release { pod, yes } => {
            let client = cli.cluster.client().await?;
            print!("{}", release::run(&cli.cluster.namespaced(&client), pod, *yes).await?);
        }
        Command::Adopt(args) => {
            let client = cli.cluster.client().await?;
            let (deployments, workers) = (cli.cluster.namespaced(&client), cli.cluster.namespaced(&client));
            let done = adopt::run(&client, &deployments, &workers, args, &mut std::io::stdout()).await?;
            return Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Pause { name, only } => {
            let client = cli.cluster.client().await?;
            print!("{}", pause::run(&cli.cluster.namespaced(&client), name, Some(*only)).await?);
        }
        Command::Resume { name } => {
            let client = cli.cluster.client().await?;
            print!("{}", pause::run(&cli.cluster.namespaced(&client), name, None).await?);
        }
        Command::Completions { shell } => written(&manual::completions(Cli::command(), *shell))?,
        Command::Man => written(&manual::page(&Cli::command())?)?,
        Command::Status { all_namespaces, watch } => status(&cli, *all_namespaces, *watch).await?,
        Command::Explain { name } => explain(&cli, name).await?,
        Command::Doctor { all_namespaces } => {
            let client = cli.cluster.client().await?;
            let namespace = cli.cluster.namespace.as_deref().filter(|_| !all_namespaces);
            let checks = doctor::checks(&cluster::facts(&client, namespace).await);
            let (text, well) = doctor::text(&checks);
            if !cli.output.structured(&json!({ "checks": checks, "ok": well }))? {
                print!("{text}")
            }
            return Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn written(bytes: &[u8]) -> Result<()> {
    std::io::stdout().write_all(bytes).context("cannot write")
}

fn told(made: &manifest::Written) -> Result<()> {
    for line in &made.said {
        eprintln!("{line}");
    }
    written(made.text.as_bytes())
}

impl Output {
    /// Writes the value where programs are to read it; false: people are.
    fn structured(self, value: &impl Serialize) -> Result<bool> {
        match self {
            Self::Json => println!("{}", serde_json::to_string_pretty(value)?),
            Self::Yaml => print!("{}", serde_yaml::to_string(value)?),
            Self::Table | Self::Wide => return Ok(false),
        }
        Ok(true)
    }
}

async fn status(cli: &Cli, all_namespaces: bool, watch: bool) -> Result<()> {
    let client = cli.cluster.client().await?;
    let api: Api<QWorker> = if all_namespaces { Api::all(client.clone()) } else { cli.cluster.namespaced(&client) };
    loop {
        let workers = match api.list(&ListParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => bail!("{}", absent::why("", Some(false), None)),
            other => other.context("cannot list QWorkers")?,
        };
        if watch && std::io::stdout().is_terminal() {
            // From the top of an empty screen.
            print!("\x1b[H\x1b[2J");
        }
        if !cli.output.structured(&workers)? {
            print!("{}", show::status(&workers.items, cli.output == Output::Wide));
        }
        if !watch {
            return Ok(());
        }
        std::io::stdout().flush().context("cannot write")?;
        tokio::time::sleep(WATCH).await;
    }
}

async fn explain(cli: &Cli, name: &str) -> Result<()> {
    let client = cli.cluster.client().await?;
    let worker = cli.cluster.namespaced::<QWorker>(&client).get_opt(name).await.context("cannot read QWorkers")?;
    let Some(worker) = worker else {
        let deployments: Api<Deployment> = cli.cluster.namespaced(&client);
        let installed = cluster::is_installed(&client).await;
        match cluster::workload(&client, &deployments, name).await {
            ClusterSeen::Yes(found) => bail!("{}", absent::why(name, installed, found.as_ref())),
            ClusterSeen::NotAllowed => bail!("there is no QWorker {name}, and you may not read Deployments to see why"),
            ClusterSeen::No(why) => bail!("there is no QWorker {name}, and Deployments cannot be read to see why: {why}"),
        }
    };
    let deployment = worker.metadata.owner_references.iter().flatten().find(|o| o.kind == "Deployment").map(|o| o.uid.clone());
    let events: Api<Event> = cli.cluster.namespaced(&client);
    let told = events.list(&ListParams::default()).await.map(|events| history::last_of(&events.items, deployment.as_deref().unwrap_or_default()));
    // For programs: the object as it is, and its history beside it.
    let mut whole = serde_json::to_value(&worker)?;
    whole["history"] = told.as_ref().map_or_else(|_| json!(null), |told| json!(told));
    if cli.output.structured(&whole)? {
        return Ok(());
    }
    print!("{}", show::explain(&worker));
    match told {
        Ok(told) => print!("{}", history::text(&told)),
        Err(error) => println!("\nLast decisions: Events cannot be read: {error}"),
    }
    Ok(())
}
