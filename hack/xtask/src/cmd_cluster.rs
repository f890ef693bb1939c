//! `cargo xtask cluster`: a real Kubernetes from the command line. In: arguments. Out: a running cluster, or its end, or a program run
//! against it. It leaves the work to [`crate::cluster`].

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};
use clap::Subcommand;
use serde_json::json;

use crate::cache::Cache;
use crate::cluster::{Cluster, Flavor, Place, UpOptions};

/// Arguments of `cargo xtask cluster`.
#[derive(clap::Args)]
pub struct Args {
    /// Which cluster: several run side by side
    #[arg(long, global = true, default_value = "dev")]
    name: String,
    /// How it is made [default: box, or kind where a box cannot be had]
    #[arg(long = "cluster", global = true)]
    flavor: Option<Flavor>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start it; everything that is missing is built or fetched first
    Up {
        /// An image archive to bring in (may be repeated)
        #[arg(long)]
        image: Vec<PathBuf>,
    },
    /// End it; nothing is left behind
    Down,
    /// Show it, and where its kubeconfig and logs are
    Status {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// List this machine's boxes
    List,
    /// Bring image archives in
    Load {
        /// OCI archives, as made by `cargo xtask images`
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Run kubectl against it
    Kubectl {
        /// kubectl's arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a program in its network: it reaches pods and services, and pods reach it
    Enter {
        /// Enter its mounts and processes too, as for `ctr` and `ps` (boxes only)
        #[arg(long)]
        all: bool,
        /// The program and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
}

/// Runs the command.
///
/// # Errors
/// The cluster cannot be had, or the program that was to run fails.
pub fn run(args: Args) -> Result<()> {
    let cache = Cache::open()?;
    let flavor = args.flavor.map_or_else(Flavor::choose, Ok)?;
    let attach = || Cluster::attach(&cache, &args.name, flavor);
    match args.action {
        Action::Up { image } => {
            let cluster = Cluster::up(&cache, &args.name, flavor, &UpOptions { images: image, tied: false })?;
            println!("{} is up: export KUBECONFIG={}", cluster.name(), cluster.kubeconfig().display());
            Ok(())
        }
        Action::Down => {
            Cluster::down(&cache, &args.name, flavor)?;
            println!("{} is down", args.name);
            Ok(())
        }
        Action::Status { json } => status(&attach()?, json),
        Action::List => {
            for (name, up) in Cluster::boxes(&cache) {
                println!("{name} {}", if up { "up" } else { "ended; its logs are left" });
            }
            Ok(())
        }
        Action::Load { archives } => {
            let cluster = attach()?;
            archives.iter().try_for_each(|archive| cluster.import_image(archive))
        }
        Action::Kubectl { arguments } => pass(attach()?.kubectl(arguments).status()?),
        Action::Enter { all, command } => {
            let cluster = attach()?;
            let [program, arguments @ ..] = command.as_slice() else { bail!("a program is wanted") };
            let mut inner = Command::new(program);
            if all {
                let Some(first) = cluster.first_process() else { bail!("--all: only a box has mounts and processes of its own") };
                inner = Command::new("nsenter");
                inner.args(["--target", &first.to_string(), "--mount", "--net", "--pid", "--uts", "--ipc", program]);
            }
            inner.args(arguments).env("KUBECONFIG", cluster.kubeconfig());
            pass(cluster.spawn_inside(&mut inner, Place::Network)?.wait())
        }
    }
}

/// Ends as another program ended.
fn pass(status: std::process::ExitStatus) -> Result<()> {
    if !status.success() {
        std::process::exit(status.code().unwrap_or(1));
    }
    Ok(())
}

fn status(cluster: &Cluster, as_json: bool) -> Result<()> {
    let ready = crate::exec::output(&mut cluster.kubectl(["get", "--raw", "/readyz"])).is_ok_and(|text| text == "ok");
    let host_ip = cluster.host_ip().map(|ip| ip.to_string()).unwrap_or_default();
    if as_json {
        let value = json!({"name": cluster.name(), "ready": ready, "kubeconfig": cluster.kubeconfig(), "logs": cluster.logs(), "host_ip": host_ip,
            "first_process": cluster.first_process()});
        println!("{value}");
        return Ok(());
    }
    println!("{}: {}", cluster.name(), if ready { "ready" } else { "the API does not answer" });
    println!("kubeconfig  {}", cluster.kubeconfig().display());
    println!("host        {host_ip} (how pods reach this machine's programs started by `enter`)");
    println!("logs        {}", cluster.logs().display());
    pass(cluster.kubectl(["get", "nodes,pods", "--all-namespaces", "--output=wide"]).status()?)
}
