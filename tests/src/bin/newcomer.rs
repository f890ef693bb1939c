//! The way of a newcomer, inside the cluster's network. In: `--framework PART` (may be repeated), `--json`; images, chart and crane by the environment. Out: a line per step, and
//! with `--json` a last line. `cargo xtask newcomer` brings up the cluster before, and takes it down after.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, bail, ensure};
use qscaler_tests::newcomer::{faults::Fault, run};
use qscaler_tests::registry::{PASSWORD, Registry, USER};
use std::env;
use std::path::Path;
use tokio::process::Command;

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set: run `cargo xtask newcomer`"))
}

/// A registry with a login on this node, with the images of this tree and its chart; what is at loopback containerd asks without TLS. It ends when it is dropped.
async fn registry() -> Result<Registry> {
    let registry = Registry::start(Path::new(&variable("QSCALER_REGISTRY")?))?;
    let (crane, login, target) = (variable("QSCALER_CRANE")?, registry.docker_login(true)?, format!("{}/qscaler", registry.host()));
    for image in variable("QSCALER_IMAGES")?.split(',') {
        let (folder, name) = image.split_once('=').context("QSCALER_IMAGES: FOLDER=NAME:TAG, …")?;
        output(Command::new(&crane).args(["push", "--insecure", folder, &format!("{target}/{name}")]).env("DOCKER_CONFIG", &login)).await?;
    }
    let mut push = Command::new("helm");
    push.args(["push", &variable("QSCALER_CHART")?, &format!("oci://{target}/charts"), "--plain-http"]).env("DOCKER_CONFIG", &login);
    output(&mut push).await?;
    Ok(registry)
}

async fn output(command: &mut Command) -> Result<()> {
    let output = command.output().await?;
    ensure!(output.status.success(), "{command:?}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let (mut parts, mut json) = (Vec::new(), false);
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--framework" => parts.push(args.next().context("--framework needs a part of a heading")?),
            "--json" => json = true,
            other => bail!("unknown argument {other}; valid: --framework PART, --json"),
        }
    }
    let registry = registry().await?;
    // Where a reader writes the files of a page.
    let work = tempfile::tempdir()?;
    env::set_current_dir(work.path())?;
    let login = run::Login { host: registry.host(), user: USER, password: PASSWORD };
    let sum = run::run(&login, &parts, |line| println!("{line}")).await?;
    for fault in &sum.faults {
        println!("{}: {}", fault.fault, fault.said.as_deref().unwrap_or("NOT FOUND"));
    }
    for object in &sum.left_behind {
        println!("left behind: {object}");
    }
    if json {
        println!("{}", serde_json::to_string(&sum)?);
    }
    let faults = Fault::ALL.len();
    ensure!(
        sum.is_good(faults),
        "{} steps failed, {} of {faults} faults were found, {} objects are left",
        sum.failed.len(),
        sum.faults_found,
        sum.left_behind.len()
    );
    Ok(())
}
