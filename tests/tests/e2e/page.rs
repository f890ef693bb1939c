//! The controller's page as a person reaches it, and as nobody else does. What it looks like is in `tests/page.rs`.

use anyhow::{Context, Result, ensure};
use qscaler_tests::stand::fleet::{Fleet, FleetOptions, STEP};
use qscaler_tests::stand::kubectl::kubectl;
use qscaler_tests::stand::{BrokerKind, SYSTEM_NAMESPACE, Stand};
use qscaler_tests::wait::wait_for;
use serde_json::Value;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// The chart's default.
const PORT: &str = "8090";

#[tokio::test]
async fn the_page_shows_the_fleet_by_a_port_forward_and_in_no_other_way() -> Result<()> {
    let stand = Stand::get().await?;
    let fleet = Fleet::create(stand, FleetOptions::managed("e2e-page", BrokerKind::Redis, 1, 2)).await?;
    fleet.wait_condition("BrokerReachable", "True", STEP).await?;
    let row = wait_for("the fleet on the leader's page", STEP, || async { seen("e2e-page").await.map_err(|e| format!("{e:#}")) }).await?;
    ensure!(row["limits"]["maxReplicas"] == 2 && row["status"]["replicas"] == 1, "{row:#}");
    ensure!(row["decision"]["decision"]["reason"] == row["status"]["reason"], "{row:#}");
    for secret in stand.secrets() {
        ensure!(!row.to_string().contains(&secret), "a secret is on the page");
    }
    let proxied = kubectl(&["get", "--raw", &format!("/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods/{}:{PORT}/proxy/", leader().await?)], None).await;
    ensure!(proxied.is_err(), "the page is reached at the pod's own address: {proxied:?}");
    fleet.remove().await
}

/// The pod that holds the Lease.
async fn leader() -> Result<String> {
    kubectl(&["-n", SYSTEM_NAMESPACE, "get", "lease", "qscaler-controller", "-o", "jsonpath={.spec.holderIdentity}"], None).await
}

/// This namespace's workload as the leader's page has it.
async fn seen(namespace: &str) -> Result<Value> {
    let (port, _forward) = forward(&leader().await?).await?;
    let told: Value = serde_json::from_str(&get(port, &format!("/fleet.json?find={namespace}/")).await?)?;
    ensure!(get(port, "/").await?.contains("<table"), "no page");
    told["shown"].as_array().and_then(|rows| rows.first()).cloned().with_context(|| format!("no workload of {namespace}: {told}"))
}

/// A forwarded port of this machine; it ends with what is returned.
async fn forward(pod: &str) -> Result<(u16, (Child, impl Sized + use<>))> {
    let mut child = Command::new("kubectl")
        .args(["-n", SYSTEM_NAMESPACE, "port-forward", pod, &format!(":{PORT}")])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("kubectl cannot be started")?;
    let mut line = String::new();
    // Kept open: kubectl says each connection there, and ends where nobody reads it.
    let mut output = BufReader::new(child.stdout.take().context("its output")?);
    output.read_line(&mut line).await?;
    let port = line.split_once("127.0.0.1:").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    Ok((port.with_context(|| format!("kubectl port-forward said {line:?}"))?, (child, output)))
}

async fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost:{port}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a body")?;
    ensure!(head.contains(" 200 "), "{head}");
    Ok(body.to_owned())
}
