//! What people do to their clusters without meaning harm: pods whose worker is a child, queues that stay empty, quotas, broker references that lead nowhere.

use anyhow::{Result, ensure};
use qscaler_tests::shapes::trial::Trial;
use qscaler_tests::shapes::{rows, run, table};
use qscaler_tests::stand::fleet::{Fleet, FleetOptions, STEP, name_of};
use qscaler_tests::stand::kubectl::kubectl;
use qscaler_tests::stand::{BrokerKind, Stand};
use qscaler_tests::wait::{patience, wait_for};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long a queue to which nothing is sent is watched: what a start, or a crash, could be taken for shows within a minute or two.
const EMPTY: Duration = Duration::from_secs(180);

#[tokio::test]
async fn a_worker_that_is_a_script_s_child_keeps_its_tasks_as_it_does_without_qscaler() -> Result<()> {
    let shapes = rows::chosen(&["entry-child".to_owned(), "tee".to_owned()]);
    let (cells, _) = run::run(&shapes, &[Trial::Wave, Trial::Delete], &run::Kept::new(), |line| println!("{line}")).await?;
    let failed: Vec<String> = cells.iter().filter(|cell| cell.complaint().is_some()).map(table::line).collect();
    ensure!(failed.is_empty() && cells.len() == 4, "{}", failed.join("\n"));
    Ok(())
}

#[tokio::test]
async fn a_queue_to_which_nothing_is_sent_never_calls_for_a_second_pod() -> Result<()> {
    let stand = Stand::get().await?;
    let fleet = Fleet::create(stand, FleetOptions::managed("e2e-empty", BrokerKind::Redis, 1, 5)).await?;
    fleet.wait_condition("Ready", "True", STEP).await?;
    // A pod that starts and one that ends are no work that comes and goes.
    for pod in fleet.pods().await? {
        kubectl(&["-n", &fleet.name, "delete", "pod", &name_of(&pod), "--wait=false"], None).await?;
    }
    let begun = Instant::now();
    while begun.elapsed() < EMPTY * patience() {
        let replicas = fleet.replicas().await?;
        let status = fleet.qworker().await?.unwrap_or_default();
        ensure!(replicas == 1, "{replicas} replicas after {} s: {}", begun.elapsed().as_secs(), status["status"]["reason"]);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    fleet.remove().await
}

#[tokio::test]
async fn pods_that_a_quota_forbids_are_told_with_the_quota_s_own_words() -> Result<()> {
    let stand = Stand::get().await?;
    let fleet = Fleet::create(stand, FleetOptions::managed("e2e-quota", BrokerKind::Redis, 1, 4)).await?;
    // One for the client, one for the worker that is there.
    kubectl(&["-n", &fleet.name, "create", "quota", "pods", "--hard=pods=2"], None).await?;
    wait_for("the quota counts", STEP, || async {
        let used =
            kubectl(&["-n", &fleet.name, "get", "quota", "pods", "-o", "jsonpath={.status.used.pods}"], None).await.map_err(|e| e.to_string())?;
        if used == "2" { Ok(()) } else { Err(used) }
    })
    .await?;
    fleet.send(&crate::tasks(60, 4.0)).await?;
    let message = wait_for("a condition with the quota's words", STEP, || async {
        let worker = fleet.qworker().await.map_err(|e| e.to_string())?.unwrap_or_default();
        let conditions = worker["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let says = |c: &&Value| c["message"].as_str().is_some_and(|message| message.contains("exceeded quota"));
        conditions.iter().find(says).map(Value::to_string).ok_or(worker["status"].to_string())
    })
    .await?;
    println!("{message}");
    kubectl(&["-n", &fleet.name, "delete", "quota", "pods"], None).await?;
    let tally = fleet.wait_done(60, Duration::from_secs(600)).await?;
    ensure!(tally.is_exactly_once(), "{tally:?}");
    fleet.remove().await
}

#[tokio::test]
async fn a_broker_reference_that_leads_nowhere_leaves_the_worker_running() -> Result<()> {
    const NS: &str = "e2e-nowhere";
    Stand::get().await?;
    // (Deployment, annotation, the value of the worker's BROKER_URL)
    let cases = [
        ("no-secret", "secret:nowhere/url", json!({"value": "redis://localhost:6379/0"})),
        ("no-key", "secret:there/nothing", json!({"value": "redis://localhost:6379/0"})),
        ("empty-key", "secret:there/empty", json!({"value": "redis://localhost:6379/0"})),
        ("no-variable", "env:TYPO", json!({"value": "redis://localhost:6379/0"})),
        ("no-url", "env:BROKER_URL", json!({"value": "not a url"})),
        ("other-broker", "env:BROKER_URL", json!({"value": "kafka://localhost:9092"})),
        ("sentinel", "env:BROKER_URL", json!({"value": "sentinel://localhost:26379;sentinel://localhost:26380"})),
        ("optional", "env:BROKER_URL", json!({"valueFrom": {"secretKeyRef": {"name": "nowhere", "key": "url", "optional": true}}})),
    ];
    let deployment = |(name, reference, url): &(&str, &str, Value)| {
        let mut env = url.clone();
        env["name"] = json!("BROKER_URL");
        let container = json!({"name": "worker", "image": "qscaler/worker-python:dev", "imagePullPolicy": "IfNotPresent", "command": ["/bin/sleep", "86400"],
            "env": [env], "envFrom": [{"secretRef": {"name": "there"}}], "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}}});
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": NS, "annotations": {"qscaler.dev/queue": "q", "qscaler.dev/broker": reference, "qscaler.dev/worker": "celery",
                "qscaler.dev/min-replicas": "1", "qscaler.dev/max-replicas": "3"}},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name, "all": "workers"}}, "spec": {"automountServiceAccountToken": false,
                    "terminationGracePeriodSeconds": 1, "containers": [container]}}}})
    };
    let mut items = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS, "labels": {"qscaler.dev/injection": "enabled"}}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "there", "namespace": NS}, "stringData": {"empty": "", "other": "x"}}),
    ];
    items.extend(cases.iter().map(deployment));
    kubectl(&["apply", "-f", "-"], Some(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())).await?;
    for (name, reference, _) in &cases {
        let available =
            ["-n", NS, "wait", "--for=condition=Available", &format!("deployment/{name}"), &format!("--timeout={}s", (STEP * patience()).as_secs())];
        if let Err(error) = kubectl(&available, None).await {
            let pods = kubectl(&["-n", NS, "get", "pods", "-l", &format!("app={name}"), "-o", "wide"], None).await.unwrap_or_default();
            anyhow::bail!("{name} ({reference}): its worker does not run: {error:#}\n{pods}");
        }
        // And the user reads why nothing is scaled.
        let said = wait_for(&format!("{name}: a condition that says so"), STEP, || async {
            let text = kubectl(&["-n", NS, "get", "qworker", name, "-o", "json"], None).await.map_err(|e| e.to_string())?;
            let worker: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
            let conditions = worker["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let bad = conditions.iter().find(|c| c["status"] == "False" && ["Ready", "BrokerReachable"].iter().any(|kind| c["type"] == *kind));
            bad.map(|c| c["message"].to_string()).ok_or(worker["status"]["conditions"].to_string())
        })
        .await?;
        println!("{name}: {said}");
    }
    // Of `sleep` nobody can tell that it has no task, and it has no handler for a signal: its pods would be held for their whole hour.
    kubectl(&["-n", NS, "delete", "deployments", "--all", "--wait=false"], None).await?;
    kubectl(&["-n", NS, "delete", "pods", "--all", "--grace-period=0", "--force"], None).await?;
    kubectl(&["delete", "namespace", NS, "--wait=false"], None).await.map(drop)
}
