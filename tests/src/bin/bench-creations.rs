//! `cargo xtask bench creations`, inside the cluster's network: pods of a managed Deployment created through the API server while the webhook is rolled out anew, and while
//! its authority is rotated. In: `--json`. Out: how many calls failed, and how many pods came back without a sidecar; with `--json` one JSON object as the last line. Exit
//! code 1 where there is one of either.
//!
//! Nearly all are dry runs: the API server calls the webhook and answers with the pod, and keeps nothing. One of fifty is kept; no node takes it, and its ReplicaSet, which
//! has no replicas, removes it. The wait between a new authority and its first leaf, five minutes, is cut short by hand.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::Resource as _;
use kube::api::{ListParams, ObjectMeta, PostParams};
use qscaler_core::names::{CA_SECRET, TLS_SECRET, WEBHOOK_CONFIGURATION, sidecar};
use qscaler_tests::stand::kubectl::kubectl;
use qscaler_tests::stand::{SYSTEM_NAMESPACE, Stand};
use qscaler_tests::wait::wait_for;
use serde_json::json;
use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

const NAMESPACE: &str = "bench-creations";
/// Pods of each of the two parts, at least: a part goes on until its change is over.
const PODS: usize = 1500;
/// One of so many is kept.
const KEPT_EVERY: usize = 50;
/// Callers at once, and the pause of each after a call: some fifty pods a second.
const CALLERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(120);
/// Rollouts of the webhook in the first part.
const ROLLOUTS: usize = 2;
/// For one step of the cluster.
const STEP: Duration = Duration::from_secs(180);
/// Before and after a change, so that its edges are seen, too.
const AROUND: Duration = Duration::from_secs(5);
/// From the published bundle to the first leaf of the new authority: for API servers to see it.
const SEEN: Duration = Duration::from_secs(15);
/// Long before now: the new authority counts as known.
const LONG_AGO: &str = "2020-01-01T00:00:00Z";

/// What came of one part.
#[derive(Default)]
struct Part {
    created: usize,
    kept: usize,
    failed: Vec<String>,
    bare: Vec<String>,
}

impl Part {
    fn and(mut self, other: Self) -> Self {
        self.created += other.created;
        self.kept += other.kept;
        self.failed.extend(other.failed);
        self.bare.extend(other.bare);
        self
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let json = std::env::args().skip(1).any(|word| word == "--json");
    let client = Stand::get().await?.client().await?;
    let pod = template(&client).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let first = pods.create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await.context("the first pod")?;
    ensure!(has_sidecar(&first), "the first pod has no sidecar, before anything was changed");
    let rolling = during(&pods, &pod, roll_out()).await?;
    report("rollouts of the webhook", &rolling);
    let rotation = during(&pods, &pod, rotate(&client)).await?;
    report("a rotation of the authority", &rotation);
    kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"], None).await?;
    let parts = [rolling.created, rotation.created];
    let all = rolling.and(rotation);
    if json {
        let line = json!({"created": all.created, "failed": all.failed.len(), "bare": all.bare.len(), "rolling": parts[0], "rotation": parts[1], "kept": all.kept});
        println!("{line}");
    }
    Ok(if all.failed.is_empty() && all.bare.is_empty() && all.created >= 2 * PODS { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(what: &str, part: &Part) {
    println!("{what}: {} pods created ({} kept), {} calls failed, {} pods bare", part.created, part.kept, part.failed.len(), part.bare.len());
    for (kind, all) in [("failed", &part.failed), ("bare", &part.bare)] {
        for one in all.iter().take(5) {
            println!("  {kind}: {one}");
        }
    }
}

fn has_sidecar(pod: &Pod) -> bool {
    pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()).any(|container| container.name == sidecar::CONTAINER)
}

/// A managed Deployment without replicas; gives a pod as its ReplicaSet would make it.
async fn template(client: &kube::Client) -> Result<Pod> {
    let annotations = json!({"qscaler.dev/queue": NAMESPACE, "qscaler.dev/broker": "env:URL", "qscaler.dev/worker": "celery",
        "qscaler.dev/min-replicas": "0", "qscaler.dev/max-replicas": "5", "qscaler.dev/paused": "true"});
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"qscaler.dev/injection": "enabled"}}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "orders", "namespace": NAMESPACE, "annotations": annotations}, "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": "orders"}}, "template": {"metadata": {"labels": {"app": "orders"}}, "spec": {
                "nodeSelector": {"bench.qscaler.dev/no-node": "true"}, "automountServiceAccountToken": false,
                "containers": [{"name": "worker", "image": "qscaler/worker-python:dev", "imagePullPolicy": "IfNotPresent",
                    "env": [{"name": "URL", "value": "redis://localhost:1/0"}]}]}}}}]});
    kubectl(&["apply", "-f", "-"], Some(&objects.to_string())).await?;
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), NAMESPACE);
    let set = wait_for("the Deployment's ReplicaSet", STEP, || async {
        sets.list(&ListParams::default()).await.map_err(|e| e.to_string())?.items.pop().ok_or_else(|| "none".to_owned())
    })
    .await?;
    // Of its namespace, too: without it no pod is taken.
    wait_for("the default ServiceAccount", STEP, || async {
        kubectl(&["-n", NAMESPACE, "get", "serviceaccount", "default"], None).await.map_err(|e| e.to_string())
    })
    .await?;
    let owner = set.controller_owner_ref(&()).context("a ReplicaSet without a UID")?;
    let name = set.metadata.name.context("a ReplicaSet without a name")?;
    let template = set.spec.template.context("a ReplicaSet without a template")?;
    let labels = template.metadata.and_then(|meta| meta.labels);
    let metadata = ObjectMeta { generate_name: Some(format!("{name}-")), labels, owner_references: Some(vec![owner]), ..ObjectMeta::default() };
    Ok(Pod { metadata, spec: template.spec, status: None })
}

/// Creates pods while something is changed, and until there are enough.
async fn during(pods: &Api<Pod>, pod: &Pod, change: impl Future<Output = Result<()>>) -> Result<Part> {
    let (over, number) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (pods, pod, over, number) = (pods.clone(), pod.clone(), Arc::clone(&over), Arc::clone(&number));
        callers.spawn(async move {
            let mut part = Part::default();
            loop {
                let n = number.fetch_add(1, Ordering::Relaxed);
                if over.load(Ordering::Relaxed) && n >= PODS {
                    return part;
                }
                let kept = n.is_multiple_of(KEPT_EVERY);
                match pods.create(&PostParams { dry_run: !kept, ..PostParams::default() }, &pod).await {
                    Ok(created) => {
                        part.created += 1;
                        part.kept += usize::from(kept);
                        if !has_sidecar(&created) {
                            part.bare.push(format!("number {n}: {}", created.metadata.name.unwrap_or_default()));
                        }
                    }
                    Err(error) => part.failed.push(format!("number {n}: {error}")),
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
    tokio::time::sleep(AROUND).await;
    let changed = change.await;
    tokio::time::sleep(AROUND).await;
    over.store(true, Ordering::Relaxed);
    let parts = callers.join_all().await;
    changed?;
    Ok(parts.into_iter().fold(Part::default(), Part::and))
}

async fn roll_out() -> Result<()> {
    for _ in 0..ROLLOUTS {
        kubectl(&["-n", SYSTEM_NAMESPACE, "rollout", "restart", "deployment/qscaler-webhook"], None).await?;
        kubectl(&["-n", SYSTEM_NAMESPACE, "rollout", "status", "deployment/qscaler-webhook", "--timeout=240s"], None).await?;
    }
    Ok(())
}

/// A new authority, because the old one's Secret is gone; then the leaf that it signs.
async fn rotate(client: &kube::Client) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let part = |secret: Secret, key: &str| secret.data.and_then(|mut data| data.remove(key)).map(|bytes| bytes.0).unwrap_or_default();
    let old = part(secrets.get(CA_SECRET).await?, "tls.crt");
    let leaf = part(secrets.get(TLS_SECRET).await?, "tls.crt");
    kubectl(&["-n", SYSTEM_NAMESPACE, "delete", "secret", CA_SECRET], None).await?;
    wait_for("a new authority beside the old one", STEP, || async {
        let secret = secrets.get_opt(CA_SECRET).await.map_err(|e| e.to_string())?.ok_or("no Secret")?;
        let (new, previous) = (part(secret.clone(), "tls.crt"), part(secret, "previous.crt"));
        if new != old && !previous.is_empty() { Ok(()) } else { Err("the old one".to_owned()) }
    })
    .await?;
    wait_for("both in the published bundle", STEP, || async {
        let path = ["get", "mutatingwebhookconfiguration", WEBHOOK_CONFIGURATION, "-o", "jsonpath={.webhooks[*].clientConfig.caBundle}"];
        let bundles = kubectl(&path, None).await.map_err(|e| e.to_string())?;
        let secret = secrets.get(CA_SECRET).await.map_err(|e| e.to_string())?;
        // The end of a bundle is the new authority; base64 of the whole has no fixed place for it, so the length tells.
        let both = 4 * (part(secret.clone(), "tls.crt").len() + part(secret, "previous.crt").len()) / 3;
        if bundles.split_whitespace().all(|bundle| bundle.len() >= both) { Ok(()) } else { Err("one".to_owned()) }
    })
    .await?;
    tokio::time::sleep(SEEN).await;
    let since = json!({"stringData": {"since": LONG_AGO}}).to_string();
    kubectl(&["-n", SYSTEM_NAMESPACE, "patch", "secret", CA_SECRET, "-p", &since], None).await?;
    wait_for("a leaf of the new authority", STEP, || async {
        let secret = secrets.get(TLS_SECRET).await.map_err(|e| e.to_string())?;
        if part(secret, "tls.crt") == leaf { Err("the old one".to_owned()) } else { Ok(()) }
    })
    .await?;
    // Replicas watch the Secret; how soon they serve it is what is looked at.
    tokio::time::sleep(SEEN).await;
    Ok(())
}
