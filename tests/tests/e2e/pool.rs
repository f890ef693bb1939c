//! Two Deployments on one queue: together they ask for what one would, and a blue/green move cuts nothing and starts no second fleet.

use crate::tasks;
use anyhow::{Context, Result, ensure};
use qscaler_tests::stand::fleet::{DEPLOYMENT, Fleet, FleetOptions, STEP};
use qscaler_tests::stand::kubectl::kubectl;
use qscaler_tests::stand::{BrokerKind, Stand};
use qscaler_tests::wait::wait_for;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The Deployment that is to take over.
const GREEN: &str = "green";
/// Tasks sent at once, and pods that each may have: alone it would ask for a pod for each of them.
const TASKS: usize = 6;

/// The fleet's Deployment once more under another name.
fn second(fleet: &Fleet) -> Value {
    let mut green = fleet.deployment_manifest();
    let labels = json!({"app": GREEN});
    green["metadata"]["name"] = json!(GREEN);
    green["spec"]["selector"]["matchLabels"] = labels.clone();
    green["spec"]["template"]["metadata"]["labels"] = labels;
    green
}

async fn object(fleet: &Fleet, kind: &str, name: &str) -> Result<Value> {
    Ok(serde_json::from_str(&kubectl(&["-n", &fleet.name, "get", kind, name, "-o", "json"], None).await?)?)
}

/// `spec.replicas` of both.
async fn replicas(fleet: &Fleet) -> Result<(u64, u64)> {
    let of = async |name| anyhow::Ok(object(fleet, "deployment", name).await?["spec"]["replicas"].as_u64().unwrap_or_default());
    Ok((of(DEPLOYMENT).await?, of(GREEN).await?))
}

/// Waits until `done` tasks are done; gives the most pods that each was asked for, and both together at one look.
async fn watch(fleet: &Fleet, done: usize) -> Result<(u64, u64, u64)> {
    let (mut most, begun) = ((0, 0, 0), Instant::now());
    loop {
        let (blue, green) = replicas(fleet).await?;
        most = (most.0.max(blue), most.1.max(green), most.2.max(blue + green));
        let tally = fleet.tally().await?;
        if tally.done >= done {
            return Ok(most);
        }
        ensure!(begun.elapsed() < STEP * 2, "{tally:?} of {done}, {blue} and {green} replicas");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn two_deployments_on_one_queue_ask_for_the_pods_of_one_and_a_blue_green_move_cuts_nothing() -> Result<()> {
    let stand = Stand::get().await?;
    let most = u32::try_from(TASKS)?;
    let fleet = Fleet::create(stand, FleetOptions::managed("e2e-pool", BrokerKind::Redis, 0, most).acks_late()).await?;
    kubectl(&["apply", "-f", "-"], Some(&second(&fleet).to_string())).await?;
    let said = fleet.wait_condition("QueueShared", "True", STEP).await?;
    println!("{DEPLOYMENT}: {said}");
    ensure!(said.contains(&format!("{}/{GREEN}", fleet.name)), "{said}");
    let said = wait_for("the second Deployment's condition", STEP, || async {
        let worker = object(&fleet, "qworker", GREEN).await.map_err(|e| e.to_string())?;
        let all = worker["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|c| c["type"] == "QueueShared" && c["status"] == "True" && c["reason"] == "Divided");
        found.map(|c| c["message"].to_string()).ok_or_else(|| format!("{all:?}"))
    })
    .await?;
    println!("{GREEN}: {said}");

    fleet.send(&tasks(TASKS, 15.0)).await?;
    let (blue, green, both) = watch(&fleet, TASKS).await?;
    println!("{TASKS} tasks: at most {blue} and {green} replicas, {both} at once");
    // Apart, each asks for as many as there are tasks. What the law asks for one backlog may be some more: tasks that come at once may be the first of more.
    ensure!(both < 2 * TASKS as u64, "{both} pods were asked for, for {TASKS} tasks");
    ensure!(blue > 0 && green > 0, "{blue} and {green}: both have a share");

    // The move: the old one is paused, then scaled away by its owner.
    fleet.annotate("paused", "true").await?;
    let asked = object(&fleet, "deployment", DEPLOYMENT).await?["metadata"]["generation"].as_i64().context("a generation")?;
    wait_for("the pause to be seen", STEP, || async {
        let worker = object(&fleet, "qworker", DEPLOYMENT).await.map_err(|e| e.to_string())?;
        let seen = worker["status"]["observedGeneration"].as_i64().unwrap_or_default();
        if seen >= asked { Ok(()) } else { Err(format!("generation {seen} of {asked}")) }
    })
    .await?;
    fleet.scale(0).await?;
    let more: Vec<_> = (0..TASKS - 2).map(|n| qscaler_tests::stand::fleet::Task { task: format!("m{n}"), at: 0.0, seconds: 5.0, mib: 0 }).collect();
    fleet.send(&more).await?;
    let (blue, green, _) = watch(&fleet, TASKS + more.len()).await?;
    println!("after the move: at most {blue} and {green} replicas");
    ensure!(blue == 0 && green > 0, "{blue} and {green}");
    let tally = fleet.tally().await?;
    ensure!(tally.cut == 0 && tally.lost == 0, "{tally:?}");
    fleet.remove().await
}
