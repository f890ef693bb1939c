//! The way of a newcomer, inside the cluster's network. In: `--framework PART` (may be repeated), `--json`; images, chart and crane by the environment. Out: a line per step, and
//! with `--json` a last line. `cargo xtask newcomer` brings up the cluster before, and takes it down after.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, bail, ensure};
use qscaler_tests::newcomer::{faults::Fault, run};
use qscaler_tests::servers::free_port;
use qscaler_tests::wait::wait_for;
use std::env;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// A registry that keeps everything in its memory begins at once.
const REGISTRY_WITHIN: Duration = Duration::from_secs(30);

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set: run `cargo xtask newcomer`"))
}

/// A registry on this node with the images of this tree and its chart; what is at loopback containerd asks without TLS. It ends with the process that is returned.
async fn registry() -> Result<(String, Child)> {
    let (crane, port) = (variable("QSCALER_CRANE")?, free_port(IpAddr::V4(Ipv4Addr::LOCALHOST))?);
    let host = format!("127.0.0.1:{port}");
    let child = Command::new(&crane)
        .args(["registry", "serve", "--address", &host])
        .env("PORT", port.to_string())
        .kill_on_drop(true)
        .spawn()
        .context("crane cannot be started")?;
    wait_for("the registry", REGISTRY_WITHIN, || async { TcpStream::connect(&host).await.map(drop).map_err(|e| e.to_string()) }).await?;
    let registry = format!("{host}/qscaler");
    for image in variable("QSCALER_IMAGES")?.split(',') {
        let (folder, name) = image.split_once('=').context("QSCALER_IMAGES: FOLDER=NAME:TAG, …")?;
        output(Command::new(&crane).args(["push", "--insecure", folder, &format!("{registry}/{name}")])).await?;
    }
    output(Command::new("helm").args(["push", &variable("QSCALER_CHART")?, &format!("oci://{registry}/charts"), "--plain-http"])).await?;
    Ok((registry, child))
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
    let (registry, _server) = registry().await?;
    let sum = run::run(&registry, &parts, |line| println!("{line}")).await?;
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
