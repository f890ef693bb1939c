//! What is not ours stays as it is; wrong input is named and nothing is scaled.

use anyhow::{Context, Result, ensure};
use qscaler_tests::stand::fleet::{DEPLOYMENT, Fleet, FleetOptions, STEP};
use qscaler_tests::stand::kubectl::kubectl;
use qscaler_tests::stand::{BrokerKind, SYSTEM_NAMESPACE, Stand};
use qscaler_tests::wait::wait_for;
use serde_json::Value;

/// Everything of a pod that the API server does not choose anew for each one.
fn shape(pod: &Value) -> Value {
    let mut pod = pod.clone();
    if let Some(meta) = pod["metadata"].as_object_mut() {
        for key in ["name", "namespace", "uid", "creationTimestamp", "resourceVersion", "managedFields", "generation"] {
            meta.remove(key);
        }
    }
    pod.as_object_mut().map(|o| o.remove("status"));
    pod
}

#[tokio::test]
async fn pods_outside_labelled_namespaces_or_without_annotation_are_untouched_byte_for_byte() -> Result<()> {
    Stand::get().await?;
    let manifest = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"plain","labels":{"app":"plain"}},"spec":{"automountServiceAccountToken":false,
        "containers":[{"name":"c","image":"qscaler/worker-python:dev","imagePullPolicy":"IfNotPresent","args":["-c","pass"],"env":[{"name":"A~/b","value":"x"}]}],"restartPolicy":"Never"}}"#;
    let annotated = manifest
        .replace(r#""labels""#, r#""annotations":{"qscaler.dev/queue":"q","qscaler.dev/broker":"env:A","qscaler.dev/max-replicas":"3"},"labels""#);
    for (ns, label) in [("e2e-plain", ""), ("e2e-labelled", "qscaler.dev/injection=enabled")] {
        kubectl(&["create", "namespace", ns], None).await?;
        if !label.is_empty() {
            kubectl(&["label", "namespace", ns, label], None).await?;
        }
        wait_for("the default ServiceAccount", STEP, || async {
            kubectl(&["-n", ns, "get", "serviceaccount", "default"], None).await.map_err(|e| e.to_string())
        })
        .await?;
    }
    let create = async |ns: &str, text: &str| -> Result<Value> {
        Ok(serde_json::from_str(&kubectl(&["-n", ns, "create", "--dry-run=server", "-o", "json", "-f", "-"], Some(text)).await?)?)
    };
    // kube-system is excluded twice: what a pod looks like there is the reference.
    let reference = shape(&create("kube-system", manifest).await?);
    ensure!(shape(&create("e2e-labelled", manifest).await?) == reference, "a pod without annotation was changed");
    ensure!(shape(&create("e2e-plain", manifest).await?) == reference, "a pod outside was changed");
    let reference = shape(&create("kube-system", &annotated).await?);
    ensure!(shape(&create("e2e-plain", &annotated).await?) == reference, "an annotated pod outside a labelled namespace was changed");
    for ns in ["e2e-plain", "e2e-labelled"] {
        kubectl(&["delete", "namespace", ns, "--wait=false"], None).await?;
    }
    Ok(())
}

#[tokio::test]
async fn wrong_annotations_are_named_and_nothing_is_scaled() -> Result<()> {
    let stand = Stand::get().await?;
    // One replica is the minimum: between the mistakes the fleet is managed, and idle.
    let good = || FleetOptions::managed("e2e-wrong", BrokerKind::Redis, 1, 5);
    // (annotation, value, what the condition must say)
    let cases = [
        ("max-replica", "5", "did you mean qscaler.dev/max-replicas"),
        ("max-replicas", "lots", "whole number"),
        ("min-replicas", "9", "above max-replicas"),
        ("broker", "secret:nowhere/url", "nowhere"),
        ("broker", "env:NOT_THERE", "NOT_THERE"),
        ("worker", "celeri", "celery"),
    ];
    let fleet = Fleet::create(stand, good()).await?;
    for (key, value, says) in cases {
        fleet.annotate("max-replicas", "5").await?;
        fleet.annotate("broker", "env:BROKER_URL").await?;
        fleet.annotate(key, value).await?;
        let message = wait_for(&format!("condition for {key}={value}"), STEP, || async {
            let worker = fleet.qworker().await.map_err(|e| e.to_string())?.ok_or("no QWorker")?;
            let conditions = worker["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let bad = conditions.iter().find(|c| c["status"] == "False" && c["message"].as_str().is_some_and(|m| m.contains(says)));
            bad.map(|c| c["message"].to_string()).ok_or(format!("{conditions:?}"))
        })
        .await?;
        println!("{key}={value}: {message}");
        wait_for("an event", STEP, || async {
            let events = fleet.events().await.map_err(|e| e.to_string())?;
            if events.iter().any(|(_, note)| note.contains(says)) { Ok(()) } else { Err(format!("{events:?}")) }
        })
        .await?;
        ensure!(fleet.replicas().await? == 1, "{key}={value}: the workload was scaled");
        // Back to good, so that the next case stands alone.
        let (restore, good_value) = match key {
            "max-replica" => ("max-replica", None),
            "min-replicas" => ("min-replicas", Some("1")),
            "worker" => ("worker", Some("celery")),
            other => (other, Some(if other == "broker" { "env:BROKER_URL" } else { "5" })),
        };
        match good_value {
            Some(value) => fleet.annotate(restore, value).await?,
            None => kubectl(&["-n", &fleet.name, "annotate", "deployment", DEPLOYMENT, &format!("qscaler.dev/{restore}-")], None).await.map(drop)?,
        }
    }
    // The same mistakes are a warning at `kubectl apply`, which never refuses.
    let mut manifest = fleet.deployment_manifest();
    manifest["metadata"]["annotations"]["qscaler.dev/vertical"] = "yes".into();
    let output = tokio::process::Command::new("kubectl")
        .args(["apply", "--dry-run=server", "-f", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let mut child = output?;
    tokio::io::AsyncWriteExt::write_all(&mut child.stdin.take().context("stdin")?, manifest.to_string().as_bytes()).await?;
    let output = child.wait_with_output().await?;
    let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() && warnings.contains("Warning:") && warnings.contains("in-place"), "no warning: {warnings}");
    fleet.remove().await
}

#[tokio::test]
async fn an_unreachable_broker_holds_the_fleet_and_is_reported() -> Result<()> {
    let stand = Stand::get().await?;
    let mut options = FleetOptions::managed("e2e-unreachable", BrokerKind::Redis, 0, 5);
    options.replicas = 2;
    let fleet = Fleet::create(stand, options.with("paused", "true")).await?;
    // A port where nothing listens.
    let url = format!("redis://:wrong-secret@{}:1/0", stand.host);
    kubectl(&["-n", &fleet.name, "create", "secret", "generic", "nowhere", &format!("--from-literal=url={url}")], None).await?;
    fleet.annotate("broker", "secret:nowhere/url").await?;
    fleet.annotate("paused", "false").await?;
    let message = fleet.wait_condition("BrokerReachable", "False", STEP).await?;
    ensure!(message.contains(&stand.host) && !message.contains("wrong-secret"), "{message}");
    wait_for("an event", STEP, || async {
        let events = fleet.events().await.map_err(|e| e.to_string())?;
        if events.iter().any(|(reason, _)| reason == "BrokerUnreachable") { Ok(()) } else { Err(format!("{events:?}")) }
    })
    .await?;
    ensure!(fleet.replicas().await? == 2, "unknown is not zero: the fleet must be held");
    let restarts = kubectl(
        &["-n", SYSTEM_NAMESPACE, "get", "pods", "-o", "jsonpath={range .items[*].status.containerStatuses[*]}{.restartCount}{\"\\n\"}{end}"],
        None,
    )
    .await?;
    ensure!(restarts.lines().all(|n| n == "0"), "a part of QScaler restarted: {restarts:?}");
    fleet.remove().await
}
