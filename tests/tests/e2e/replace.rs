//! Pods that are not as a new one would be: a running fleet is adopted without a rollout, and old pods are replaced while they are idle.

use anyhow::{Result, ensure};
use qscaler_tests::stand::fleet::{DEPLOYMENT, Fleet, FleetOptions, STEP, Task, describe, is_ready, name_of};
use qscaler_tests::stand::kubectl::kubectl;
use qscaler_tests::stand::{BrokerKind, Stand};
use qscaler_tests::wait::wait_for;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// Replacing a fleet of this size, one pod after the other.
const FLEET: Duration = Duration::from_secs(600);

fn is_injected(pod: &k8s_openapi::api::core::v1::Pod) -> bool {
    pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()).any(|container| container.name == "qscaler-sidecar")
}

/// The condition with this reason and a word in its message.
async fn wait_says(fleet: &Fleet, reason: &str, words: &str) -> Result<String> {
    wait_for(&format!("UpToDate says {reason}: {words}"), STEP, || async {
        let worker = fleet.qworker().await.map_err(|e| e.to_string())?.unwrap_or_default();
        let conditions = worker["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|c| c["type"] == "UpToDate").map(Value::to_string).unwrap_or_default();
        if found.contains(reason) && found.contains(words) { Ok(found) } else { Err(found) }
    })
    .await
}

/// All pods are Ready, injected, and none of these.
async fn wait_replaced(fleet: &Fleet, count: usize, old: &BTreeSet<String>) -> Result<()> {
    wait_for(&format!("{count} new pods with a sidecar"), FLEET, || async {
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        let new = pods.iter().filter(|pod| is_ready(pod) && is_injected(pod) && !old.contains(&name_of(pod))).count();
        let status = fleet.qworker().await.ok().flatten().unwrap_or_default()["status"]["conditions"].to_string();
        if new == count && pods.len() == count { Ok(()) } else { Err(format!("{}; {status}", describe(&pods))) }
    })
    .await
}

async fn names(fleet: &Fleet) -> Result<BTreeSet<String>> {
    Ok(fleet.pods().await?.iter().map(name_of).collect())
}

#[tokio::test]
async fn a_running_fleet_is_adopted_without_a_rollout_and_without_a_cut() -> Result<()> {
    let stand = Stand::get().await?;
    let mut options = FleetOptions::managed("e2e-adopt", BrokerKind::Redis, 3, 4);
    let annotations = std::mem::take(&mut options.annotations);
    // A grace that no task outlives: whatever ends a busy pod is seen as a cut.
    (options.labelled, options.grace_seconds) = (false, 2);
    let fleet = Fleet::create(stand, options).await?;
    let old: BTreeSet<String> = fleet.wait_ready(3).await?.iter().map(name_of).collect();
    let task = |i: usize, at: f64, seconds: f64| Task { task: format!("t{i}"), at, seconds, mib: 0 };
    // Two pods work from the start, and others get work while pods are replaced.
    let plan: Vec<Task> = [task(0, 0.0, 40.0), task(1, 0.0, 30.0)].into_iter().chain((2..10).map(|i| task(i, 8.0 * i as f64, 20.0))).collect();
    let sending = fleet.send(&plan);
    let adopting = async {
        fleet.wait_busy(2).await?;
        let mut annotate = vec!["-n".to_owned(), fleet.name.clone(), "annotate".to_owned(), "deployment".to_owned(), DEPLOYMENT.to_owned()];
        annotate.extend(annotations.iter().map(|(key, value)| format!("qscaler.dev/{key}={value}")));
        kubectl(&["label", "namespace", &fleet.name, "qscaler.dev/injection=enabled"], None).await?;
        kubectl(&annotate.iter().map(String::as_str).collect::<Vec<_>>(), None).await?;
        println!("{}", wait_says(&fleet, "Replacing", "no sidecar").await?);
        Ok(())
    };
    tokio::try_join!(sending, adopting)?;
    wait_replaced(&fleet, 3, &old).await?;
    let tally = fleet.wait_done(plan.len(), STEP).await?;
    println!("adopted: {tally:?}");
    ensure!(tally.is_exactly_once(), "{tally:?}");
    fleet.wait_condition("UpToDate", "True", STEP).await?;
    fleet.wait_condition("Injected", "True", STEP).await?;
    let replaced = fleet.events().await?.into_iter().filter(|(reason, _)| reason == "Replaced").count();
    ensure!(replaced > 0, "no Event tells of a replaced pod: {:?}", fleet.events().await?);
    let restarted = fleet.deployment().await?.spec.template.metadata.and_then(|m| m.annotations).unwrap_or_default();
    ensure!(!restarted.contains_key("kubectl.kubernetes.io/restartedAt"), "no rollout was needed: {restarted:?}");
    fleet.remove().await
}

/// The second net under a pod without a hold: what comes in the last moment is finished, whatever the pod's own grace is.
#[tokio::test]
async fn a_task_in_a_pod_without_a_hold_outlives_an_eviction_with_a_longer_grace() -> Result<()> {
    let stand = Stand::get().await?;
    let mut options = FleetOptions::managed("e2e-evict", BrokerKind::Redis, 1, 1);
    options.annotations.clear();
    (options.labelled, options.grace_seconds) = (false, 2);
    let fleet = Fleet::create(stand, options).await?;
    let pod = name_of(&fleet.wait_ready(1).await?[0]);
    fleet.send(&crate::tasks(1, 25.0)).await?;
    fleet.wait_busy(1).await?;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": fleet.name},
        "deleteOptions": {"gracePeriodSeconds": 360}});
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", fleet.name);
    kubectl(&["create", "--raw", &path, "-f", "-"], Some(&eviction.to_string())).await?;
    let tally = fleet.wait_done(1, STEP).await?;
    ensure!(tally.is_exactly_once(), "{tally:?}");
    fleet.remove().await
}

#[tokio::test]
async fn old_pods_are_replaced_while_idle_unless_a_disruption_budget_forbids_it() -> Result<()> {
    let stand = Stand::get().await?;
    let fleet = Fleet::create(stand, FleetOptions::managed("e2e-replace", BrokerKind::Redis, 2, 2)).await?;
    let first: BTreeSet<String> = fleet.wait_ready(2).await?.iter().map(name_of).collect();
    // What the webhook has made just now is not old.
    fleet.wait_condition("UpToDate", "True", STEP).await?;

    // Other words, and a budget that allows no eviction.
    kubectl(&["-n", &fleet.name, "create", "pdb", "all", &format!("--selector=app={DEPLOYMENT}"), "--min-available=2"], None).await?;
    fleet.annotate("max-task-duration", "6m").await?;
    let said = wait_says(&fleet, "DisruptionBudget", "The disruption budget all needs 2 healthy pods").await?;
    println!("{said}");
    ensure!(names(&fleet).await? == first, "a pod has gone though the budget allows none");
    fleet.send(&crate::tasks(1, 30.0)).await?;
    fleet.wait_busy(1).await?;
    kubectl(&["-n", &fleet.name, "delete", "pdb", "all"], None).await?;
    wait_replaced(&fleet, 2, &first).await?;
    fleet.wait_condition("UpToDate", "True", STEP).await?;
    let tally = fleet.wait_done(1, STEP).await?;
    ensure!(tally.is_exactly_once(), "{tally:?}");
    fleet.remove().await
}
