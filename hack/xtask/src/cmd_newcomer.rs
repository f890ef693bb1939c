//! `cargo xtask newcomer`: what the documentation says, done on a fresh cluster. In: which frameworks. Out: the program's own output (`qscaler-tests`, bin `newcomer`), an exit code. It
//! makes what a release would have published (images and chart, for this processor), the plugin, and a certificate that is over; the cluster is its own, has no QScaler
//! until the program installs it, and is taken down at the end, at Ctrl-C too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use crate::cache::Cache;
use crate::images::{self, Image, Profile};
use crate::release::{self, publish};
use crate::{exec, helm, interrupt, registry, source_root, stand};

/// Workers of the pages' frameworks.
const WORKERS: [Image; 3] = [Image::WorkerPython, Image::WorkerNode, Image::WorkerRuby];
/// The plugin: package and program.
const PLUGIN: (&str, &str) = ("kubectl-qscaler", "kubectl-qscaler");

/// Arguments of `cargo xtask newcomer`.
#[derive(clap::Args)]
pub struct Args {
    /// Only frameworks whose heading in the getting-started page has this (may be repeated)
    #[arg(long)]
    framework: Vec<String>,
    /// End with one JSON object
    #[arg(long)]
    json: bool,
    /// Leave the cluster up afterwards
    #[arg(long)]
    keep: bool,
    /// Name of the cluster, so that several can run side by side
    #[arg(long, default_value = "newcomer")]
    cluster_name: String,
}

/// Runs it.
///
/// # Errors
/// Something cannot be built, a step fails, a fault is not found, or something is left behind.
pub fn run(args: Args) -> Result<()> {
    interrupt::clean_up_first()?;
    let cache = Cache::open()?;
    let work = tempfile::tempdir().context("cannot make a folder")?;
    let program = stand::program("newcomer")?;
    let plugin = images::compile(&[PLUGIN], Profile::Release)?;
    let published = published(&cache, work.path())?;
    let (certificate, key) = expired(work.path())?;
    let stand = stand::bare(cache.clone(), &args.cluster_name, !args.keep, &WORKERS)?;
    let mut command = Command::new(&program);
    command.args(args.framework.iter().flat_map(|part| ["--framework", part])).args(args.json.then_some("--json"));
    command.env("QSCALER_CRANE", publish::crane(&cache)?).env("QSCALER_REGISTRY", registry::ensure(&cache)?.join("docker-registry"));
    command.env("QSCALER_IMAGES", published.images).env("QSCALER_CHART", published.chart);
    command.env("QSCALER_EXPIRED_CERTIFICATE", certificate).env("QSCALER_EXPIRED_KEY", key);
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    command.env("PATH", std::env::join_paths([plugin].into_iter().chain(std::env::split_paths(&inherited)))?);
    let status = stand.spawn(&mut command).map(|process| process.wait_or_interrupt());
    let good = status.as_ref().is_ok_and(std::process::ExitStatus::success);
    if !good {
        stand.print_state();
    }
    if args.keep {
        eprintln!("the cluster {0:?} is left up: cargo xtask cluster status --name {0}", args.cluster_name);
    } else {
        stand.down()?;
    }
    let status = status?;
    ensure!(good, "{}: {status}", exec::shown(&command));
    Ok(())
}

/// What a registry gets.
struct Published {
    /// `FOLDER=NAME:TAG`, by commas: OCI layouts.
    images: String,
    /// The chart's package.
    chart: PathBuf,
}

fn published(cache: &Cache, work: &Path) -> Result<Published> {
    let version = release::version(None)?;
    let mut layouts = Vec::new();
    for (image, archive) in Image::PROGRAMS.iter().zip(images::build(cache, &Image::PROGRAMS, Profile::Release)?) {
        let folder = work.join(image.name());
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        exec::output(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&folder))?;
        layouts.push(format!("{}={}:{version}", folder.display(), image.name()));
    }
    let mut package = Command::new(helm::three(cache)?);
    package.args(["package", "--version", &version, "--app-version", &version, "--destination"]).arg(work).arg(source_root().join("charts/qscaler"));
    exec::output(&mut package)?;
    Ok(Published { images: layouts.join(","), chart: work.join(release::chart_file(&version)) })
}

/// A certificate for the webhook's name that was over years ago, and its key.
fn expired(work: &Path) -> Result<(PathBuf, PathBuf)> {
    let key = KeyPair::generate().context("cannot make a key")?;
    let mut params = CertificateParams::new(vec!["qscaler-webhook.qscaler-system.svc".to_owned()]).context("a name in a certificate")?;
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 2, 1));
    let certificate = params.self_signed(&key).context("cannot sign it")?;
    let files = (work.join("expired.crt"), work.join("expired.key"));
    fs::write(&files.0, certificate.pem()).context("cannot write it")?;
    fs::write(&files.1, key.serialize_pem()).context("cannot write its key")?;
    Ok(files)
}
