//! What is left of an installation. In: the cluster with QScaler in it. Out: that after `helm uninstall` the cluster is as it was before `helm install`, but for what
//! docs/injection.md says stays. QScaler is installed again at the end, as it was. Left to others: what an installation does meanwhile.

use crate::tasks;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use qscaler_core::names::{DOMAIN, LABEL_WORKLOAD, annotation};
use qscaler_tests::stand::fleet::{Fleet, FleetOptions, STEP, describe, is_ready};
use qscaler_tests::stand::kubectl::kubectl;
use qscaler_tests::stand::{BrokerKind, SYSTEM_NAMESPACE, Stand};
use qscaler_tests::wait::wait_for;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/qscaler");
const RELEASE: &str = "qscaler";
/// Kinds that come and go by themselves.
const PASSING: [&str; 3] = ["events", "events.events.k8s.io", "componentstatuses"];
/// What a pod keeps until it is replaced.
const KEPT_ON_PODS: [&str; 2] = [annotation::INJECTED, LABEL_WORKLOAD];
/// What QScaler puts on a pod while it runs, and takes back.
const MARKS: [&str; 5] =
    [annotation::MARKS, annotation::RELEASE, annotation::POD_DELETION_COST, annotation::KARPENTER_DO_NOT_DISRUPT, annotation::SAFE_TO_EVICT];

/// Every object of the cluster, by kind, namespace and name: its labels, annotations and finalizers. Pods go by their owner's name.
type Objects = BTreeMap<String, Value>;

async fn helm(words: &[&str]) -> Result<String> {
    let mut command = tokio::process::Command::new("helm");
    command.args(words).args(["--namespace", SYSTEM_NAMESPACE]).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.context("helm cannot be started")?;
    ensure!(output.status.success(), "helm {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn install(values: &str, clean_up: bool) -> Result<()> {
    let file = tempfile::NamedTempFile::with_suffix(".json")?;
    std::fs::write(file.path(), values)?;
    let mut words = vec!["upgrade", "--install", RELEASE, CHART, "--create-namespace", "--wait", "--timeout", "300s", "--values"];
    let path = file.path().display().to_string();
    words.push(&path);
    if clean_up {
        words.extend(["--set", "cleanUp.enabled=true"]);
    }
    helm(&words).await.map(drop)
}

async fn objects() -> Result<Objects> {
    let kinds = kubectl(&["api-resources", "--verbs=list", "-o", "name"], None).await?;
    // Of our own kinds the definitions stay, and so do the objects.
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !PASSING.contains(kind) && !kind.ends_with(&format!(".{DOMAIN}"))).collect();
    let all: Value = serde_json::from_str(&kubectl(&["get", &kinds.join(","), "-A", "-o", "json"], None).await?)?;
    let items = all["items"].as_array().context("no items")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ending = |item: &&Value| !item["metadata"]["deletionTimestamp"].is_null();
    let namespaces: BTreeSet<String> =
        items.iter().filter(|item| item["kind"] == "Namespace").filter(ending).map(|item| text(&item["metadata"]["name"])).collect();
    let mut objects = Objects::new();
    for item in items.iter().filter(|item| !ending(item)) {
        let (meta, kind) = (&item["metadata"], text(&item["kind"]));
        let (namespace, owner) = (text(&meta["namespace"]), text(&meta["ownerReferences"][0]["name"]));
        let name = text(&meta["name"]);
        if namespaces.contains(&namespace) || name.ends_with(&format!(".{DOMAIN}")) {
            continue;
        }
        let shown = if kind == "Pod" && !owner.is_empty() { format!("of {owner}") } else { name };
        let rest = json!({"labels": meta["labels"], "annotations": meta["annotations"], "finalizers": meta["finalizers"]});
        let key = (0..).map(|n| format!("{kind} {namespace}/{shown} {n}")).find(|key| !objects.contains_key(key));
        objects.insert(key.unwrap_or_default(), rest);
    }
    Ok(objects)
}

/// What bears our name and should not be there.
fn ours(objects: &Objects) -> Vec<String> {
    let mut found = Vec::new();
    // A node may bear any name, and so do its Lease and what its drivers say of it.
    let nodes: BTreeSet<&str> = objects.keys().filter_map(|key| key.strip_prefix("Node /")?.split(' ').next()).collect();
    for (key, rest) in objects {
        let kind = key.split(' ').next().unwrap_or_default();
        // The namespace was there before the chart; the labels of namespaces and the annotations of Deployments are the user's.
        let name = key.split_once('/').map_or("", |(_, name)| name);
        let is_node = name.split(' ').next().is_some_and(|name| nodes.contains(name));
        if name.trim_start_matches("of ").starts_with("qscaler") && kind != "Namespace" && !is_node {
            found.push(key.clone());
        }
        let keys = ["labels", "annotations"].into_iter().flat_map(|part| rest[part].as_object().into_iter().flatten()).map(|(key, _)| key.as_str());
        for one in keys {
            let bad = match kind {
                "Namespace" | "Deployment" | "ReplicaSet" => false,
                "Pod" => MARKS.contains(&one) || (one.starts_with(DOMAIN) && !KEPT_ON_PODS.contains(&one)),
                _ => one.starts_with(DOMAIN),
            };
            if bad {
                found.push(format!("{key}: {one}"));
            }
        }
        if rest["finalizers"].to_string().contains(DOMAIN) {
            found.push(format!("{key}: {}", rest["finalizers"]));
        }
    }
    found
}

/// Uninstalls, and answers what is there once nothing has our name any more.
async fn uninstall() -> Result<Objects> {
    helm(&["uninstall", RELEASE, "--timeout", "300s"]).await?;
    wait_for("a cluster without QScaler", STEP, || async {
        let objects = objects().await.map_err(|e| e.to_string())?;
        let left = ours(&objects);
        if left.is_empty() { Ok(objects) } else { Err(left.join(", ")) }
    })
    .await
}

#[tokio::test]
async fn after_an_uninstallation_the_cluster_is_as_it_was_before_the_installation() -> Result<()> {
    let stand = Stand::get().await?;
    let values = helm(&["get", "values", RELEASE, "-o", "json"]).await?;
    let fleet = Fleet::create(stand, FleetOptions::managed("e2e-uninstall", BrokerKind::Redis, 1, 1)).await?;
    let result = there_and_back(&fleet, &values).await;
    // Other tests need it, however this one ends.
    install(&values, false).await?;
    result?;
    fleet.discard().await
}

fn uids(pods: &[Pod]) -> Vec<String> {
    pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect()
}

async fn there_and_back(fleet: &Fleet, values: &str) -> Result<()> {
    install(values, true).await?;
    let before = uninstall().await?;
    let old = uids(&fleet.wait_ready(1).await?);
    install(values, true).await?;
    // It was given the key of the installation before, so it believes nobody: it is replaced while it is idle, and once the webhook is there to inject the new one.
    let new = wait_for("a new pod that knows the new key", STEP, || async {
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        let is_new = pods.len() == 1 && pods.iter().all(is_ready) && uids(&pods) != old;
        if is_new { Ok(pods) } else { Err(describe(&pods)) }
    })
    .await?;
    ensure!(new.iter().all(|pod| pod.metadata.annotations.iter().flatten().any(|(key, _)| key == annotation::INJECTED)), "a pod without a sidecar");
    fleet.send(&tasks(1, 45.0)).await?;
    fleet.wait_busy(1).await?;
    wait_for("marks on the busy pod", STEP, || async {
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        let marked = pods.iter().any(|pod| pod.metadata.annotations.iter().flatten().any(|(key, _)| key == annotation::MARKS));
        if marked { Ok(()) } else { Err(format!("{:?}", pods.iter().map(|pod| &pod.metadata.annotations).collect::<Vec<_>>())) }
    })
    .await?;
    let after = uninstall().await?;
    let differ = |one: &Objects, other: &Objects| -> Vec<String> {
        let not_so = one.iter().filter(|(key, rest)| other.get(*key) != Some(*rest));
        not_so.map(|(key, rest)| format!("{key} {rest}")).collect()
    };
    ensure!(before == after, "only before: {:?}\nonly after: {:?}", differ(&before, &after), differ(&after, &before));
    println!("{} objects before the installation and after the uninstallation", after.len());
    let tally = fleet.wait_done(1, STEP).await?;
    ensure!(tally.is_exactly_once(), "{tally:?}");
    Ok(())
}
