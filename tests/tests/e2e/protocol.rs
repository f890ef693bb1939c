//! What the drain owes users beside scale-downs: an order to end a hold, the deadline of a task that never ends, and fleets whose count belongs
//! to somebody else.

use crate::tasks;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use qscaler_tests::stand::fleet::{Fleet, FleetOptions, STEP, Task, describe, name_of};
use qscaler_tests::stand::kubectl::kubectl;
use qscaler_tests::stand::{BrokerKind, Stand};
use qscaler_tests::wait::wait_for;
use std::time::Duration;

/// Longer than any test here waits: a task that has to be ended.
const ENDLESS_S: f64 = 3_600.0;

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// One pod with one endless task in it; its name.
pub(crate) async fn one_endless(fleet: &Fleet) -> Result<String> {
    fleet.send(&[Task { task: "endless".into(), at: 0.0, seconds: ENDLESS_S, mib: 0 }]).await?;
    Ok(fleet.wait_busy(1).await?.remove(0))
}

/// Waits until the pod is gone and its cut is in the status and in an Event.
pub(crate) async fn gone_and_counted(fleet: &Fleet, pod: &str, cause: &str) -> Result<()> {
    wait_for("the pod gone", STEP, || async {
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        if pods.iter().all(|p| name_of(p) != pod) { Ok(()) } else { Err(describe(&pods)) }
    })
    .await?;
    wait_for("the cut counted and told", STEP, || async {
        let worker = fleet.qworker().await.map_err(|e| e.to_string())?.ok_or("no QWorker")?;
        let cut = worker["status"]["counters"]["cut"].as_u64().unwrap_or(0);
        let events = fleet.events().await.map_err(|e| e.to_string())?;
        let told = events.iter().any(|(reason, note)| reason == "TaskCut" && note.contains(cause));
        if cut == 1 && told { Ok(()) } else { Err(format!("{cut} cut, {events:?}")) }
    })
    .await
}

#[tokio::test]
async fn an_order_ends_a_hold_at_once_and_the_cut_is_counted() -> Result<()> {
    let stand = Stand::get().await?;
    let fleet = Fleet::create(stand, FleetOptions::managed("e2e-release", BrokerKind::Redis, 1, 1).with("max-task-duration", "2h")).await?;
    fleet.wait_ready(1).await?;
    let pod = one_endless(&fleet).await?;
    let ns = fleet.name.clone();
    kubectl(&["-n", &ns, "delete", "pod", &pod, "--wait=false"], None).await?;
    wait_for("the hold", STEP, || async {
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        let held = pods.iter().any(|p| name_of(p) == pod && p.metadata.deletion_timestamp.is_some());
        if held { Ok(()) } else { Err(describe(&pods)) }
    })
    .await?;
    kubectl(&["-n", &ns, "annotate", "pod", &pod, "qscaler.dev/release=now"], None).await?;
    gone_and_counted(&fleet, &pod, "released by order").await?;
    fleet.remove().await
}

#[tokio::test]
async fn a_liveness_kill_does_not_wait_for_the_hold() -> Result<()> {
    let stand = Stand::get().await?;
    let fleet = Fleet::create(stand, FleetOptions::managed("e2e-liveness", BrokerKind::Redis, 1, 1).with("max-task-duration", "2h")).await?;
    let ns = fleet.name.clone();
    let probe = r#"{"exec": {"command": ["sh", "-c", "[ ! -e /tmp/sick ]"]}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 20, "terminationGracePeriodSeconds": 5}"#;
    let patch = format!(r#"[{{"op": "add", "path": "/spec/template/spec/containers/0/livenessProbe", "value": {probe}}}]"#);
    kubectl(&["-n", &ns, "patch", "deployment", "orders", "--type=json", "--patch", &patch], None).await?;
    kubectl(&["-n", &ns, "rollout", "status", "deployment/orders", "--timeout=300s"], None).await?;
    let pod = one_endless(&fleet).await?;
    kubectl(&["-n", &ns, "exec", &pod, "-c", "worker", "--", "sh", "-c", ": > /tmp/sick"], None).await?;
    // The task would take an hour, and the pod's own grace is two.
    let restarts = "jsonpath={.status.containerStatuses[?(@.name==\"worker\")].restartCount}";
    wait_for("the worker's container is started again", STEP, || async {
        let count = kubectl(&["-n", &ns, "get", "pod", &pod, "-o", restarts], None).await.map_err(|e| e.to_string())?;
        if count == "1" { Ok(()) } else { Err(format!("{count} restarts")) }
    })
    .await?;
    // The pod was not ending: its worker works on.
    fleet.send(&[Task { task: "after".into(), at: 0.0, seconds: 1.0, mib: 0 }]).await?;
    wait_for("a task after the restart is done", STEP, || async {
        let entries = fleet.ledger().await.map_err(|e| e.to_string())?;
        if entries.iter().any(|e| e.task == "after" && e.event == "done" && e.host == pod) { Ok(()) } else { Err(format!("{entries:?}")) }
    })
    .await?;
    fleet.remove().await
}

#[tokio::test]
async fn a_task_that_never_ends_meets_its_deadline_and_the_cut_is_counted() -> Result<()> {
    let stand = Stand::get().await?;
    let options = FleetOptions::managed("e2e-deadline", BrokerKind::Redis, 1, 1);
    let fleet = Fleet::create(stand, options.with("max-task-duration", "20s").with("drain-deadline-policy", "cut")).await?;
    fleet.wait_ready(1).await?;
    let pod = one_endless(&fleet).await?;
    kubectl(&["-n", &fleet.name, "delete", "pod", &pod, "--wait=false"], None).await?;
    gone_and_counted(&fleet, &pod, "max-task-duration").await?;
    fleet.remove().await
}

#[tokio::test]
async fn beside_plain_scale_calls_tasks_stay_whole_and_idle_pods_go_first() -> Result<()> {
    let stand = Stand::get().await?;
    let mut options = FleetOptions::managed("e2e-protect", BrokerKind::Redis, 0, 5).with("scaling", "protect");
    options.replicas = 4;
    // A prefetch of 1, so that two tasks are two busy pods.
    options = options.acks_late();
    let fleet = Fleet::create(stand, options).await?;
    fleet.wait_ready(4).await?;
    fleet.send(&tasks(2, 150.0)).await?;
    let mut busy = fleet.wait_busy(2).await?;
    busy.sort();
    wait_for("each pod's deletion cost", STEP, || async {
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        let costs: Vec<_> =
            pods.iter().map(|p| (name_of(p), annotation(p, "controller.kubernetes.io/pod-deletion-cost").map(str::to_owned))).collect();
        let right = costs
            .iter()
            .all(|(name, cost)| cost.as_deref().and_then(|c| c.parse::<i32>().ok()).is_some_and(|c| if busy.contains(name) { c > 0 } else { c < 0 }));
        if right && costs.len() == 4 { Ok(()) } else { Err(format!("{costs:?}, busy {busy:?}")) }
    })
    .await?;
    // Node scalers are told of the busy pods, and only of them.
    for pod in fleet.pods().await? {
        let kept = annotation(&pod, "karpenter.sh/do-not-disrupt") == Some("true")
            && annotation(&pod, "cluster-autoscaler.kubernetes.io/safe-to-evict") == Some("false");
        let marked = kept || annotation(&pod, "karpenter.sh/do-not-disrupt").is_some();
        ensure!(kept == busy.contains(&name_of(&pod)) && marked == kept, "{}: kept {kept}, busy {busy:?}", name_of(&pod));
    }
    fleet.scale(2).await?;
    let left = wait_for("two pods left", STEP, || async {
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        if pods.len() == 2 { Ok(pods) } else { Err(describe(&pods)) }
    })
    .await?;
    let mut names: Vec<String> = left.iter().map(name_of).collect();
    names.sort();
    ensure!(names == busy, "left {names:?}, busy {busy:?}");
    // And if a busy one must go after all, its task is whole.
    fleet.scale(0).await?;
    let tally = fleet.wait_done(2, Duration::from_secs(300)).await?;
    ensure!(tally.is_exactly_once(), "{tally:?}");
    let replicas = fleet.replicas().await?;
    ensure!(replicas == 0, "somebody else owns the count, and it is {replicas}");
    let worker = fleet.qworker().await?.context("QWorker")?;
    ensure!(worker["status"]["counters"]["cut"].as_u64() == Some(0), "{}", worker["status"]["counters"]);
    fleet.remove().await
}
