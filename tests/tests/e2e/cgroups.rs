//! Control groups, version 1 or 2: the worker's own files, what the sidecar reads in them, and what a new size changes in them.

use anyhow::{Context, Result, ensure};
use qscaler_tests::stand::fleet::{Fleet, FleetOptions, STEP, name_of};
use qscaler_tests::stand::kubectl::kubectl;
use qscaler_tests::stand::{BrokerKind, Stand};
use qscaler_tests::wait::wait_for;
use serde_json::Value;

/// The version that this run is for; unset: whichever the machine has.
pub(crate) const EXPECTED: &str = "QSCALER_TEST_CGROUP";
const SIDECAR: &str = "qscaler-sidecar";
/// Keeps a deleted pod's object until its last words have been read.
const FINALIZER: &str = "qscaler.dev/test";
const BEFORE: u64 = 160 << 20;
const AFTER: u64 = 200 << 20;

/// One container's files of one version.
struct Files {
    limit: &'static str,
    peak: &'static str,
    kills: &'static str,
}

const V1: Files = Files {
    limit: "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    peak: "/sys/fs/cgroup/memory/memory.max_usage_in_bytes",
    kills: "/sys/fs/cgroup/memory/memory.oom_control",
};
const V2: Files = Files { limit: "/sys/fs/cgroup/memory.max", peak: "/sys/fs/cgroup/memory.peak", kills: "/sys/fs/cgroup/memory.events" };

async fn in_worker(fleet: &Fleet, pod: &str, words: &[&str]) -> Result<String> {
    kubectl(&[&["-n", &fleet.name, "exec", pod, "-c", "worker", "--"], words].concat(), None).await
}

/// The last words of the pod's sidecar, as the controller would read them.
async fn last_words(fleet: &Fleet, pod: &str) -> Result<Value> {
    wait_for("the sidecar's last words", STEP, || async {
        let text = kubectl(&["-n", &fleet.name, "get", "pod", pod, "-o", "json"], None).await.map_err(|e| e.to_string())?;
        let pod: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let all = pod["status"]["initContainerStatuses"].as_array().cloned().unwrap_or_default();
        let status = all.into_iter().find(|s| s["name"] == SIDECAR).ok_or("no sidecar")?;
        let message = status["state"]["terminated"]["message"].as_str().ok_or_else(|| status.to_string())?;
        serde_json::from_str(message).map_err(|e| format!("{e}: {message}"))
    })
    .await
}

#[tokio::test]
async fn the_worker_s_own_files_say_its_size_and_the_sidecar_reads_them() -> Result<()> {
    let stand = Stand::get().await?;
    let fleet = Fleet::create(stand, FleetOptions::managed("e2e-cgroups", BrokerKind::Redis, 1, 2)).await?;
    let pod = name_of(&fleet.wait_ready(1).await?[0]);
    let unified = in_worker(&fleet, &pod, &["ls", "/sys/fs/cgroup"]).await?.lines().any(|file| file == "cgroup.controllers");
    let (version, files) = if unified { ("2", V2) } else { ("1", V1) };
    println!("control groups version {version}");
    if let Ok(expected) = std::env::var(EXPECTED) {
        ensure!(version == expected, "version {version} is not the one that this run is for");
    }
    let number = async |file: &str| -> Result<u64> {
        let text = in_worker(&fleet, &pod, &["cat", file]).await?;
        text.trim().parse().with_context(|| format!("{file}: {text}"))
    };
    ensure!(number(files.limit).await? == BEFORE, "the limit is not the pod's");
    ensure!((1..=BEFORE).contains(&number(files.peak).await?), "the peak is not between nothing and the limit");
    let kills = in_worker(&fleet, &pod, &["cat", files.kills]).await?;
    ensure!(kills.lines().any(|line| line == "oom_kill 0"), "{}: {kills}", files.kills);

    // A new size reaches the running container's group, and the container runs on.
    let patch = format!(
        r#"{{"spec":{{"containers":[{{"name":"worker","resources":{{"requests":{{"memory":"{AFTER}"}},"limits":{{"memory":"{AFTER}"}}}}}}]}}}}"#
    );
    kubectl(&["-n", &fleet.name, "patch", "pod", &pod, "--subresource=resize", "--patch", &patch], None).await?;
    wait_for("the group has the new limit", STEP, || async {
        let now = number(files.limit).await.map_err(|e| e.to_string())?;
        if now == AFTER { Ok(()) } else { Err(now.to_string()) }
    })
    .await?;
    let restarts = "jsonpath={.status.containerStatuses[?(@.name==\"worker\")].restartCount}";
    ensure!(kubectl(&["-n", &fleet.name, "get", "pod", &pod, "-o", restarts], None).await? == "0", "the worker was restarted");

    let peak = number(files.peak).await?;
    let finalizers = format!(r#"{{"metadata":{{"finalizers":["{FINALIZER}"]}}}}"#);
    kubectl(&["-n", &fleet.name, "patch", "pod", &pod, "--patch", &finalizers], None).await?;
    kubectl(&["-n", &fleet.name, "delete", "pod", &pod, "--wait=false"], None).await?;
    let words = last_words(&fleet, &pod).await?;
    kubectl(&["-n", &fleet.name, "patch", "pod", &pod, "--type=json", "--patch", r#"[{"op":"remove","path":"/metadata/finalizers"}]"#], None).await?;
    let seen = &words["peaks"]["worker"];
    println!("the sidecar read {seen}");
    ensure!(seen["access"] == "full", "the sidecar could not read everything: {words}");
    ensure!(seen["limit"].as_u64() == Some(AFTER), "the sidecar's limit is not the group's: {seen}");
    ensure!(seen["cgroupPeak"].as_u64() >= Some(peak), "the sidecar's peak is below {peak}, the group's: {seen}");
    ensure!(seen["cpuUsageUs"].as_u64() > Some(0), "the sidecar read no CPU time: {seen}");
    fleet.remove().await
}
