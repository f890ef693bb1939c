//! One case after the other on the cluster. In: cases. Out: what was seen of each. Left to others: what may be (`verdict`).
//!
//! Each is applied twice, side by side: as it is, and without QScaler (no label, no annotations). Where the latter runs, the former must run, too. Then one task is
//! sent to it, its pod is deleted while the task runs, and the task must end.

use crate::hostile::case::Case;
use crate::hostile::verdict::Seen;
use crate::stand::fleet::{Fleet, FleetOptions, STEP, Task, name_of};
use crate::stand::kubectl::kubectl;
use crate::stand::{BrokerKind, Stand};
use crate::wait::wait_for;
use anyhow::Result;
use serde_json::{Value, json};
use std::time::Duration;

/// What is wrong is said within this.
const SAID_WITHIN: Duration = Duration::from_secs(60);
/// How long the task takes, seconds: less than the grace in the fleet's own template, so that a pod without a sidecar finishes it, too.
const TASK_S: f64 = 12.0;

/// Runs the cases; each one's line goes to `tell` at once.
///
/// # Errors
/// There is no cluster.
pub async fn run(cases: &[Case], mut tell: impl FnMut(&str)) -> Result<Vec<Seen>> {
    let stand = Stand::get().await?;
    let mut all = Vec::new();
    for case in cases {
        let seen = match one(stand, case).await {
            Ok(seen) => seen,
            Err(error) => Seen { case: case.name.to_owned(), void: Some(format!("{error:#}")), ..Seen::default() },
        };
        tell(&seen.line());
        all.push(seen);
    }
    Ok(all)
}

async fn one(stand: &'static Stand, case: &Case) -> Result<Seen> {
    let (name, bare_name) = (format!("hostile-{}", case.name), format!("hostile-{}-bare", case.name));
    let mut options = FleetOptions::managed(&name, BrokerKind::Redis, 1, 1);
    options.pod = case.pod;
    options.annotations.extend(case.annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let mut bare = FleetOptions::managed(&bare_name, BrokerKind::Redis, 1, 1);
    (bare.pod, bare.labelled) = (case.pod, false);
    bare.annotations.clear();
    let seen = sides(stand, case, options, bare).await;
    for namespace in [&name, &bare_name] {
        if let Some(objects) = cluster_objects(case, namespace) {
            kubectl(&["delete", "--ignore-not-found", "-f", "-"], Some(&objects)).await?;
        }
        kubectl(&["delete", "namespace", namespace, "--ignore-not-found", "--wait=false"], None).await?;
    }
    seen
}

async fn sides(stand: &'static Stand, case: &Case, options: FleetOptions, bare: FleetOptions) -> Result<Seen> {
    let mut seen = Seen { case: case.name.to_owned(), ..Seen::default() };
    surround(case, &options).await?;
    surround(case, &bare).await?;
    let (fleet, bare) = tokio::try_join!(Fleet::begin(stand, options), Fleet::begin(stand, bare))?;
    let (runs, runs_bare) = tokio::join!(fleet.wait_ready(1), bare.wait_ready(1));
    match (runs, runs_bare) {
        (Ok(_), _) => {}
        (Err(error), Ok(_)) => seen.not_running = Some(format!("{error:#}")),
        (Err(_), Err(error)) => seen.void = Some(format!("{error:#}")),
    }
    bare.discard().await?;
    if let Some(word) = case.says {
        match explained(&fleet, word).await {
            Ok(said) => seen.said = Some(said),
            Err(error) => seen.unexplained = Some(format!("{error:#}")),
        }
    }
    if seen.not_running.is_none() && seen.void.is_none() {
        seen.cut = cut(&fleet).await?;
    }
    Ok(seen)
}

/// The namespace, and what of the case is in it before the worker is.
async fn surround(case: &Case, options: &FleetOptions) -> Result<()> {
    let mut items = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": options.name}})];
    items.extend(case.objects.iter().cloned().map(|mut object| {
        object["metadata"]["namespace"] = json!(options.name);
        object
    }));
    kubectl(&["apply", "-f", "-"], Some(&list(items))).await?;
    if let Some(objects) = cluster_objects(case, &options.name) {
        kubectl(&["apply", "-f", "-"], Some(&objects)).await?;
    }
    Ok(())
}

fn list(items: Vec<Value>) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

fn cluster_objects(case: &Case, namespace: &str) -> Option<String> {
    let objects: Value = serde_json::from_str(&case.cluster.replace("{namespace}", namespace)).ok()?;
    Some(list(objects.as_array()?.clone()))
}

/// What names this word: a condition of the QWorker, or an Event of the namespace.
async fn explained(fleet: &Fleet, word: &str) -> Result<String> {
    wait_for(&format!("{}: something that names {word}", fleet.name), SAID_WITHIN, || async {
        let worker = fleet.qworker().await.map_err(|e| e.to_string())?.unwrap_or_default();
        let conditions = worker["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let mut said: Vec<String> = conditions
            .iter()
            .map(|c| [&c["type"], &c["status"], &c["reason"], &c["message"]].map(|text| text.as_str().unwrap_or_default()).join(" "))
            .collect();
        said.extend(fleet.events().await.map_err(|e| e.to_string())?.into_iter().map(|(reason, note)| format!("{reason}: {note}")));
        said.iter().find(|line| line.contains(word)).cloned().ok_or_else(|| said.join(" | "))
    })
    .await
}

/// Deletes the worker's pod while a task runs in it; how many runs did not end.
async fn cut(fleet: &Fleet) -> Result<usize> {
    fleet.send(&[Task { task: "t".into(), at: 0.0, seconds: TASK_S, mib: 0 }]).await?;
    fleet.wait_busy(1).await?;
    for pod in fleet.pods().await? {
        kubectl(&["-n", &fleet.name, "delete", "pod", &name_of(&pod), "--wait=false"], None).await?;
    }
    Ok(match fleet.wait_done(1, STEP).await {
        Ok(tally) => tally.cut,
        // It never ended.
        Err(_) => fleet.tally().await?.cut.max(1),
    })
}
