//! What concerns the whole node or the whole installation: these tests run after the others, one at a time.

use crate::tasks;
use anyhow::{Result, ensure};
use qscaler_tests::stand::fleet::{Fleet, FleetOptions, STEP, describe, is_ready, name_of};
use qscaler_tests::stand::kubectl::kubectl;
use qscaler_tests::stand::{BrokerKind, Stand};
use qscaler_tests::wait::wait_for;
use std::time::Duration;

/// The only node of the cluster.
async fn node() -> Result<String> {
    kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"], None).await
}

/// Undone however the test ends: other tests need the node.
struct Cordon(String);

impl Cordon {
    async fn begin() -> Result<Self> {
        let node = node().await?;
        kubectl(&["cordon", &node], None).await?;
        Ok(Self(node))
    }
}

impl Drop for Cordon {
    fn drop(&mut self) {
        let _ = std::process::Command::new("kubectl").args(["uncordon", &self.0]).status();
    }
}

#[tokio::test]
async fn a_task_outlives_a_drain_of_its_node() -> Result<()> {
    let stand = Stand::get().await?;
    let fleet = Fleet::create(stand, FleetOptions::managed("e2e-drain", BrokerKind::Redis, 1, 2)).await?;
    let pod = name_of(&fleet.wait_ready(1).await?[0]);
    fleet.send(&tasks(1, 15.0)).await?;
    let busy = fleet.wait_busy(1).await?;
    ensure!(busy == [pod.clone()], "{busy:?} is busy, {pod} is the pod");
    let cordon = Cordon::begin().await?;
    // Only this test's pods: a drain knows no namespace.
    let selector = format!("--pod-selector=fleet={}", fleet.name);
    kubectl(&["drain", &cordon.0, &selector, "--timeout=180s"], None).await?;
    drop(cordon);
    let tally = fleet.wait_done(1, Duration::from_secs(120)).await?;
    ensure!(tally.is_exactly_once(), "{tally:?}");
    fleet.remove().await
}

/// With one node no replacement can start, so nothing may go; after the cordon the fleet is as it was.
#[tokio::test]
async fn workers_on_a_cordoned_node_stay_until_their_replacements_are_there() -> Result<()> {
    let stand = Stand::get().await?;
    // With room for one more: a replacement counts, and the maximum is never exceeded.
    let fleet = Fleet::create(stand, FleetOptions::managed("e2e-cordon", BrokerKind::Redis, 2, 3)).await?;
    let mut before: Vec<String> = fleet.wait_ready(2).await?.iter().map(name_of).collect();
    before.sort();
    let cordon = Cordon::begin().await?;
    wait_for("a replacement that waits for a node", STEP, || async {
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        if pods.len() == 3 { Ok(()) } else { Err(describe(&pods)) }
    })
    .await?;
    fleet.send(&tasks(4, 2.0)).await?;
    let tally = fleet.wait_done(4, STEP).await?;
    ensure!(tally.is_exactly_once(), "{tally:?}");
    let ready = fleet.pods().await?.iter().filter(|p| is_ready(p)).count();
    ensure!(ready == 2, "{ready} pods Ready: nothing may go before its replacement is there");
    drop(cordon);
    let mut after: Vec<String> = fleet.wait_ready(2).await?.iter().map(name_of).collect();
    after.sort();
    // The replacement may have become Ready first; then one of the old pods has left for it, drained.
    ensure!(after.iter().any(|name| before.contains(name)), "{before:?} -> {after:?}");
    let tally = fleet.tally().await?;
    ensure!(tally.is_exactly_once(), "{tally:?}");
    fleet.remove().await
}
