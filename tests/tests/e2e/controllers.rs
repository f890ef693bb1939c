//! The parts themselves: leaders, what a user sees, what logs keep to themselves.

use crate::tasks;
use anyhow::{Context, Result, ensure};
use qscaler_tests::stand::fleet::{Fleet, FleetOptions, STEP, name_of};
use qscaler_tests::stand::kubectl::kubectl;
use qscaler_tests::stand::{BrokerKind, SYSTEM_NAMESPACE, Stand};
use qscaler_tests::wait::wait_for;

#[tokio::test]
async fn of_two_controllers_one_works_and_the_other_takes_over() -> Result<()> {
    let stand = Stand::get().await?;
    let holder =
        async || kubectl(&["-n", SYSTEM_NAMESPACE, "get", "lease", "qscaler-controller", "-o", "jsonpath={.spec.holderIdentity}"], None).await;
    let pods = kubectl(
        &["-n", SYSTEM_NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/component=controller", "-o", "jsonpath={.items[*].metadata.name}"],
        None,
    )
    .await?;
    ensure!(pods.split_whitespace().count() == 2, "two controllers are installed for this test: {pods}");
    let first = holder().await?;
    let pod = pods.split_whitespace().find(|p| first.contains(*p)).with_context(|| format!("{first} is none of {pods}"))?;
    kubectl(&["-n", SYSTEM_NAMESPACE, "delete", "pod", pod, "--wait=false", "--grace-period=0", "--force"], None).await?;
    wait_for("another leader", STEP, || async {
        let now = holder().await.map_err(|e| e.to_string())?;
        if !now.is_empty() && now != first { Ok(()) } else { Err(now) }
    })
    .await?;
    // The new one works.
    let fleet = Fleet::create(stand, FleetOptions::managed("e2e-leader", BrokerKind::Redis, 0, 2)).await?;
    fleet.send(&tasks(2, 1.0)).await?;
    let tally = fleet.wait_done(2, STEP).await?;
    ensure!(tally.is_exactly_once(), "{tally:?}");
    fleet.remove().await
}

#[tokio::test]
async fn a_user_sees_the_fleet_and_no_secret_is_in_any_log() -> Result<()> {
    let stand = Stand::get().await?;
    let fleet = Fleet::create(stand, FleetOptions::managed("e2e-secrets", BrokerKind::Redis, 1, 2)).await?;
    let pod = name_of(&fleet.wait_ready(1).await?[0]);
    fleet.wait_condition("BrokerReachable", "True", STEP).await?;
    let (few, more) = (
        ["QUEUE", "BACKLOG", "REPLICAS", "DESIRED", "RULE", "HOLD", "AGE"],
        ["IN-FLIGHT", "RATE-IN", "RATE-OUT", "PARKED", "UNHELD", "MEMORY", "REASON"],
    );
    let table = kubectl(&["-n", &fleet.name, "get", "qworkers"], None).await?;
    let wide = kubectl(&["-n", &fleet.name, "get", "qworkers", "-o", "wide"], None).await?;
    println!("{table}{wide}");
    for column in few {
        ensure!(table.contains(column), "no column {column}: {table}");
    }
    for column in few.iter().chain(&more) {
        ensure!(wide.contains(column), "no column {column}: {wide}");
    }
    let longest = table.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    ensure!(longest <= 120, "a line of {longest} characters: {table}");
    let mut logs = kubectl(&["-n", &fleet.name, "logs", &pod, "-c", "qscaler-sidecar"], None).await?;
    for component in ["controller", "webhook", "certs"] {
        logs += &kubectl(&["-n", SYSTEM_NAMESPACE, "logs", "-l", &format!("app.kubernetes.io/component={component}"), "--tail=-1"], None).await?;
    }
    ensure!(logs.contains("e2e-secrets"), "these are not the logs of this run: {logs}");
    for secret in stand.secrets() {
        ensure!(!logs.contains(&secret), "a secret is in a log");
    }
    let status = fleet.qworker().await?.context("QWorker")?.to_string() + &format!("{:?}", fleet.events().await?);
    for secret in stand.secrets() {
        ensure!(!status.contains(&secret), "a secret is in a status or event");
    }
    let told = endpoints().await?;
    ensure!(told.contains("e2e-secrets"), "these decisions know nothing of this fleet: {told}");
    let arguments = own_arguments()?;
    ensure!(
        ["qscaler-controller", "qscaler-webhook", "qscaler-sidecar"].iter().all(|name| arguments.contains(name)),
        "not all parts run here: {arguments}"
    );
    for secret in stand.secrets() {
        ensure!(!told.contains(&secret), "a secret is in /metrics or /debug/decisions");
        ensure!(!arguments.contains(&secret), "a secret is in the arguments of a process, which every user of the node may read");
    }
    fleet.remove().await
}

/// What every part's admin endpoints tell whoever reaches them.
async fn endpoints() -> Result<String> {
    let names = kubectl(&["-n", SYSTEM_NAMESPACE, "get", "pods", "-o", "jsonpath={.items[*].metadata.name}"], None).await?;
    let mut all = String::new();
    for pod in names.split_whitespace() {
        let of = |path: &str| format!("/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods/{pod}:8080/proxy{path}");
        all += &kubectl(&["get", "--raw", &of("/metrics")], None).await?;
        if pod.starts_with("qscaler-controller") {
            all += &kubectl(&["get", "--raw", &of("/debug/decisions")], None).await?;
        }
    }
    Ok(all)
}

/// The arguments of all processes of ours on this node.
fn own_arguments() -> Result<String> {
    let files = std::fs::read_dir("/proc")?.flatten().filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = files.map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " ")).filter(|line| line.starts_with("/usr/local/bin/qscaler-"));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}
