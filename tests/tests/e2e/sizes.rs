//! Flow 3 on the real cluster: what tasks need -> the sizes of running and of new pods. In: fleets with small limits, tasks that need more. Out:
//! what their pods, QWorkers, Events and ledgers say. Left to others: replica counts (`job`), the arithmetic (`core/tests/size*.rs`).
//!
//! A task's `total` is what the whole container needs while it runs: the "needs 180 MiB", whatever Celery itself takes.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use qscaler_core::units::Bytes;
use qscaler_tests::stand::fleet::{Fleet, FleetOptions, STEP, describe, name_of};
use qscaler_tests::stand::kubectl::kubectl;
use qscaler_tests::stand::{BrokerKind, SYSTEM_NAMESPACE, Stand};
use qscaler_tests::wait::{patience, wait_for};
use serde_json::{Value, json};
use std::time::Duration;

/// A restarted controller waits for the Lease of the one that was killed, and Celery may notice the kill of a task's process only 10 s late.
const LONG: Duration = Duration::from_secs(300);

fn small(name: &str, pods: u32) -> FleetOptions {
    let mut options = FleetOptions::managed(name, BrokerKind::Redis, pods, pods + 1).with("vertical", "in-place").with("max-memory", "500Mi");
    if patience() > 1 {
        // An emulated machine has one processor, and a worker's start uses most of it: three pods with a request of what was used would not fit.
        options = options.with("max-cpu", "100m");
    }
    // On control groups version 2 the whole container is killed, and Redis gives its task back only after this, by default an hour. Not beside other fleets:
    // all Celery workers of a Redis database give back what is overdue there by their own setting, tasks of other fleets too.
    // A run for version 2 has its tests one by one.
    if std::env::var(crate::cgroups::EXPECTED).is_ok_and(|version| version == "2") {
        options.env.insert("VISIBILITY_TIMEOUT_S".to_owned(), (30 * patience()).to_string());
    }
    FleetOptions { memory: "96Mi".into(), ..options.acks_late() }
}

/// A task in whose time the container needs this many MiB in all.
fn needs(task: &str, total: u64) -> [Value; 1] {
    [json!({"task": task, "at": 0, "seconds": 3, "total": total})]
}

/// Memory limit of the working container as asked for, MiB.
fn limit(pod: &Pod) -> u64 {
    let worker = pod.spec.as_ref().and_then(|s| s.containers.iter().find(|c| c.name == "worker"));
    let limit = worker.and_then(|c| c.resources.as_ref()).and_then(|r| r.limits.as_ref()).and_then(|l| l.get("memory"));
    limit.and_then(|q| Bytes::parse(&q.0).ok()).map_or(0, |b| b.0 >> 20)
}

/// The limit that the kubelet says is in force, MiB.
fn in_force(pod: &Pod) -> u64 {
    let worker = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref()).and_then(|all| all.iter().find(|c| c.name == "worker"));
    let limit = worker.and_then(|c| c.resources.as_ref()).and_then(|r| r.limits.as_ref()).and_then(|l| l.get("memory"));
    limit.and_then(|q| Bytes::parse(&q.0).ok()).map_or(0, |b| b.0 >> 20)
}

fn names(pods: &[Pod]) -> Vec<String> {
    let mut names: Vec<String> = pods.iter().map(name_of).collect();
    names.sort();
    names
}

async fn status(fleet: &Fleet) -> Result<Value> {
    Ok(fleet.qworker().await?.context("QWorker")?["status"].clone())
}

/// Seconds since the Unix epoch: pods are on this machine, so the ledger's clock is this one.
fn now_s() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn kills(status: &Value) -> u64 {
    status["counters"]["oomKills"].as_u64().unwrap_or(0)
}

fn recommended(status: &Value) -> u64 {
    status["sizes"]["worker"]["recommended"]["memoryBytes"].as_u64().unwrap_or(0) >> 20
}

/// Whether a process of a worker was killed for want of memory: by the control group, which forgets with its container, or by the kubelet.
async fn is_killed(fleet: &Fleet) -> bool {
    for pod in fleet.pods().await.unwrap_or_default() {
        let states = pod.status.iter().filter_map(|s| s.container_statuses.as_ref()).flatten().flat_map(|c| [&c.state, &c.last_state]);
        if states.flatten().any(|s| s.terminated.as_ref().is_some_and(|t| t.reason.as_deref() == Some("OOMKilled"))) {
            return true;
        }
        // There is none while the container is started again.
        let events = cgroup(fleet, &name_of(&pod), "memory.events memory/memory.oom_control").await.unwrap_or_default();
        if events.lines().any(|l| l.strip_prefix("oom_kill ").is_some_and(|n| n.trim() != "0")) {
            return true;
        }
    }
    false
}

/// How often its containers were started again.
fn restarts(pod: &Pod) -> u64 {
    let all = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref()).into_iter().flatten();
    all.map(|c| u64::try_from(c.restart_count).unwrap_or(0)).sum()
}

/// Waits until the QWorker's status is as wished; gives it.
async fn wait_status(fleet: &Fleet, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
    wait_for(&format!("{}: {what}", fleet.name), LONG, || async {
        let status = status(fleet).await.map_err(|e| e.to_string())?;
        if is(&status) { Ok(status) } else { Err(format!("{} kills, {}", kills(&status), status["sizes"])) }
    })
    .await
}

/// Waits until every pod of the fleet has at least this limit; gives the pods.
async fn wait_limits(fleet: &Fleet, least: u64) -> Result<Vec<Pod>> {
    wait_for(&format!("{}: running pods have {least} MiB", fleet.name), LONG, || async {
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        let sizes: Vec<u64> = pods.iter().map(limit).collect();
        if !pods.is_empty() && sizes.iter().all(|m| *m >= least) { Ok(pods) } else { Err(format!("{sizes:?} MiB, {}", describe(&pods))) }
    })
    .await
}

/// Sends a task, waits until it is done, and gives how often it was begun. Runs that begin before the answer to the first kill is in force die too, and how
/// many those are is up to Celery, which tries again within a second, and to the machine; no run may be lost after that.
async fn costs(fleet: &Fleet, task: &str, total: u64) -> Result<usize> {
    fleet.send(&needs(task, total)).await?;
    let what = format!("{}: {total} MiB are in force", fleet.name);
    wait_for(&what, LONG, || async {
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        let sizes: Vec<u64> = pods.iter().map(in_force).collect();
        if !sizes.is_empty() && sizes.iter().all(|m| *m >= total) { Ok(()) } else { Err(format!("{sizes:?} MiB")) }
    })
    .await?;
    let sized_at = now_s();
    let begun = wait_task(fleet, task).await?;
    let entries = fleet.ledger().await?;
    let starts: Vec<f64> = entries.iter().filter(|e| e.event == "start" && e.task == task).map(|e| e.at).collect();
    let late = starts.iter().filter(|at| **at > sized_at).count();
    let first = starts.iter().copied().fold(f64::INFINITY, f64::min);
    println!("{task}: begun {begun} times, {late} of them after its size was seen in force, {:.1} s after the first", sized_at - first);
    ensure!(late <= 1, "{task}: {late} runs begun after its size was in force");
    Ok(begun)
}

/// Waits until a task is done; gives how often it was begun.
async fn wait_task(fleet: &Fleet, task: &str) -> Result<usize> {
    wait_for(&format!("{}: {task} is done", fleet.name), LONG, || async {
        let entries = fleet.ledger().await.map_err(|e| e.to_string())?;
        let count = |event: &str| entries.iter().filter(|e| e.event == event && e.task == task).count();
        if count("done") > 0 { Ok(count("start")) } else { Err(format!("begun {} times", count("start"))) }
    })
    .await
}

/// Reads a file of the worker's container, of whichever cgroup version.
async fn cgroup(fleet: &Fleet, pod: &str, files: &str) -> Result<String> {
    kubectl(&["-n", &fleet.name, "exec", pod, "-c", "worker", "--", "sh", "-c", &format!("cd /sys/fs/cgroup; cat {files} 2>/dev/null || true")], None)
        .await
}

/// Kills the controller that leads, without a word.
async fn kill_the_controller() -> Result<()> {
    let holder = kubectl(&["-n", SYSTEM_NAMESPACE, "get", "lease", "qscaler-controller", "-o", "jsonpath={.spec.holderIdentity}"], None).await?;
    let list = ["-n", SYSTEM_NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/component=controller", "-o", "jsonpath={.items[*].metadata.name}"];
    let pods = kubectl(&list, None).await?;
    let pod = pods.split_whitespace().find(|p| holder.contains(*p)).with_context(|| format!("{holder} is none of {pods}"))?;
    kubectl(&["-n", SYSTEM_NAMESPACE, "delete", "pod", pod, "--wait=false", "--grace-period=0", "--force"], None).await.map(drop)
}

#[tokio::test]
async fn a_task_of_180_mib_in_a_pod_of_96_is_killed_once_and_done_by_its_replacement_run() -> Result<()> {
    let fleet = Fleet::create(Stand::get().await?, small("e2e-oom", 2)).await?;
    let before = names(&fleet.pods().await?);
    fleet.send(&needs("big", 180)).await?;
    // Running pods have more, and nobody has sent the task again: Celery has, when it saw or missed the process.
    let after = names(&wait_limits(&fleet, 196).await?);
    let sized_at = now_s();
    ensure!(after == before, "a pod was replaced: {before:?} -> {after:?}");
    let begun = wait_task(&fleet, "big").await?;
    let status = wait_status(&fleet, "the kill is counted", |s| kills(s) > 0).await?;
    println!("begun {begun} times: {status:#}");
    // Celery may try again before the resize; what began after it is done.
    let begun_after = fleet.ledger().await?.iter().filter(|e| e.event == "start" && e.at > sized_at).count();
    ensure!(begun_after <= 1, "begun {begun} times, {begun_after} of them after the resize");
    ensure!(begun > 2 || (begun, kills(&status)) == (2, 1), "begun {begun} times, {} kills: {status:#}", kills(&status));
    // New pods have more too.
    fleet.annotate("min-replicas", "3").await?;
    let pods = fleet.wait_ready(3).await?;
    let fresh = pods.iter().find(|p| !before.contains(&name_of(p))).context("a third pod")?;
    ensure!(limit(fresh) >= 196, "the new pod has {} MiB", limit(fresh));
    let again: u64 = pods.iter().map(restarts).sum();
    ensure!(again <= 1, "{again} restarts");
    let events = fleet.events().await?;
    let notes = |wanted: &str| events.iter().filter(|(reason, _)| reason == wanted).map(|(_, note)| note.as_str()).collect::<Vec<_>>();
    let (killed, resized) = (notes("OOMKilled"), notes("Resized"));
    ensure!(!killed.is_empty() && killed.iter().all(|note| note.contains("at its limit of 96Mi")), "{events:?}");
    // One change is told once for all pods.
    ensure!(resized.iter().filter(|note| note.contains("96Mi -> 196Mi in 2 pods")).count() == 1, "{events:?}");
    ensure!(!events.iter().any(|(reason, _)| reason.contains("Evict")), "{events:?}");
    fleet.remove().await
}

#[tokio::test]
async fn a_bigger_class_of_task_costs_few_kills_and_one_that_fits_nowhere_is_named() -> Result<()> {
    let fleet = Fleet::create(Stand::get().await?, small("e2e-classes", 1).with("max-memory", "300Mi").with("max-replicas", "1")).await?;
    let before = names(&fleet.pods().await?);
    // One answer each: 96 -> 196 -> 296.
    let begun = costs(&fleet, "first", 150).await? + costs(&fleet, "second", 260).await?;
    let status = status(&fleet).await?;
    ensure!(kills(&status) <= begun as u64 - 2, "{begun} runs, 2 done, {} kills: {status:#}", kills(&status));
    let events = fleet.events().await?;
    let answered = |change: &str| events.iter().any(|(reason, note)| reason == "Resized" && note.contains(change));
    ensure!(answered("memory 96Mi -> 196Mi") && answered("memory 196Mi -> 296Mi"), "{events:?}");
    // No limit up to 300 MiB is enough for this one. Celery gives it back for ever; the size does not follow.
    fleet.send(&needs("poison", 420)).await?;
    let message = fleet.wait_condition("MemoryCapped", "True", LONG).await?;
    println!("{message}");
    ensure!(message.contains("e2e-classes") && message.contains("times at 300Mi"), "{message}");
    let pods = fleet.pods().await?;
    ensure!(names(&pods) == before && pods.iter().all(|p| limit(p) <= 300), "{:?} {:?}", describe(&pods), pods.iter().map(limit).collect::<Vec<_>>());
    fleet.remove().await
}

#[tokio::test]
async fn a_task_that_fills_the_page_cache_does_not_inflate_the_estimate() -> Result<()> {
    let mut options = small("e2e-cache", 1);
    options.memory = "128Mi".into();
    let fleet = Fleet::create(Stand::get().await?, options).await?;
    let pod = name_of(fleet.pods().await?.first().context("a pod")?);
    fleet.send(&[json!({"task": "stream", "at": 0, "seconds": 5, "file": 256})]).await?;
    wait_task(&fleet, "stream").await?;
    // The kernel's own peak is the limit: that is what must not be taken for need.
    let peak: u64 = cgroup(&fleet, &pod, "memory.peak memory/memory.max_usage_in_bytes").await?.trim().parse().context("the cgroup's peak")?;
    ensure!(peak >> 20 >= 120, "the cache has filled only {} MiB", peak >> 20);
    let status =
        wait_status(&fleet, "peaks were measured", |s| s["sizes"]["worker"]["reason"].as_str().is_some_and(|r| r.contains("highest need"))).await?;
    println!("cgroup peak {} MiB; {}", peak >> 20, status["sizes"]["worker"]["reason"]);
    let kept = fleet.checkpoint().await?;
    let cells = kept["sizes"]["worker"]["estimate"]["window"].as_array().context("the window")?.iter();
    let need = cells.filter_map(|c| c["max"].as_u64()).max().context("a need")? >> 20;
    ensure!((20..=105).contains(&need), "a need of {need} MiB was learned: {status:#}");
    ensure!(recommended(&status) <= 128 && kills(&status) == 0, "{status:#}");
    ensure!(fleet.pods().await?.iter().all(|p| limit(p) == 128), "the pod was resized");
    fleet.remove().await
}

#[tokio::test]
async fn an_estimate_outlives_the_controller_killed_at_each_step() -> Result<()> {
    let fleet = Fleet::create(Stand::get().await?, small("e2e-estimate", 2)).await?;
    let before = names(&fleet.pods().await?);
    // After the kill of the task, before anyone has answered it.
    fleet.send(&needs("one", 180)).await?;
    wait_for("a process is killed", LONG, || async { if is_killed(&fleet).await { Ok(()) } else { Err("no kill".to_owned()) } }).await?;
    kill_the_controller().await?;
    wait_limits(&fleet, 196).await?;
    wait_task(&fleet, "one").await?;
    // After the recommendation, which is saved before it is used.
    let first = kills(&wait_status(&fleet, "the first kill is counted", |s| kills(s) > 0).await?);
    fleet.send(&needs("two", 250)).await?;
    wait_status(&fleet, "more is recommended", |s| recommended(s) >= 290).await?;
    kill_the_controller().await?;
    let pods = wait_limits(&fleet, 290).await?;
    ensure!(names(&pods) == before, "a pod was replaced: {before:?} -> {:?}", names(&pods));
    wait_task(&fleet, "two").await?;
    // During the resize: one pod is patched.
    let second = kills(&status(&fleet).await?);
    fleet.send(&needs("three", 340)).await?;
    wait_for("the first pod is patched", LONG, || async {
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        if pods.iter().any(|p| limit(p) > 400) { Ok(()) } else { Err(describe(&pods)) }
    })
    .await?;
    kill_the_controller().await?;
    let pods = wait_limits(&fleet, 400).await?;
    ensure!(names(&pods) == before, "a pod was replaced: {before:?} -> {:?}", names(&pods));
    wait_task(&fleet, "three").await?;
    // A new life counts no kill again: each run that was begun and not done is one.
    let third = status(&fleet).await?;
    let entries = fleet.ledger().await?;
    let (started, done) = (entries.iter().filter(|e| e.event == "start").count(), entries.iter().filter(|e| e.event == "done").count());
    let samples = fleet.checkpoint().await?["sizes"]["worker"]["estimate"]["samples"].as_u64().context("samples")?;
    println!("{first}, {second}, {} kills; {started} runs begun, {done} done; {samples} samples", kills(&third));
    ensure!(kills(&third) <= (started - done) as u64, "{} kills counted, {started} runs begun, {done} done: {third:#}", kills(&third));
    // Nor a task: a run is one sample, and so is what each container said before its first task. (On control groups version 2 a kill ends the container.)
    let instances = fleet.pods().await?.iter().map(|pod| 1 + restarts(pod)).sum::<u64>();
    ensure!(samples <= started as u64 + instances, "{samples} samples of {started} runs in {instances} containers: {third:#}");
    // 340 MiB and the narrower of the two margins.
    ensure!(recommended(&third) >= 391, "{third:#}");
    fleet.remove().await
}

#[tokio::test]
async fn vertical_off_recommends_and_does_nothing() -> Result<()> {
    let fleet = Fleet::create(Stand::get().await?, small("e2e-off", 1).with("vertical", "off")).await?;
    fleet.send(&needs("big", 180)).await?;
    let status = wait_status(&fleet, "more is recommended", |s| recommended(s) >= 196).await?;
    let size = &status["sizes"]["worker"];
    println!("{size:#}");
    ensure!(size["current"]["memoryBytes"].as_u64() == Some(96 << 20), "{size:#}");
    ensure!(size["saving"]["memoryBytes"].as_i64().is_some_and(|n| n <= -(100 << 20)), "no word on what it would cost: {size:#}");
    ensure!(size["reason"].as_str().is_some_and(|r| r.contains("OOM-killed")), "no reason: {size:#}");
    // A new pod, made when the recommendation was there, has what the user wrote, and so has the old one.
    fleet.annotate("min-replicas", "2").await?;
    let pods = fleet.wait_ready(2).await?;
    ensure!(pods.iter().all(|p| limit(p) == 96), "{:?}", pods.iter().map(limit).collect::<Vec<_>>());
    ensure!(!fleet.events().await?.iter().any(|(reason, _)| reason == "Resized"), "it was resized");
    fleet.remove().await
}

#[tokio::test]
async fn a_pod_that_another_writer_has_sized_is_left_to_it_and_said() -> Result<()> {
    let fleet = Fleet::create(Stand::get().await?, small("e2e-writer", 2)).await?;
    let pods = names(&fleet.pods().await?);
    let patch = json!({"spec": {"containers": [{"name": "worker", "resources": {"requests": {"memory": "112Mi"}, "limits": {"memory": "112Mi"}}}]}});
    let args =
        ["-n", &fleet.name, "patch", "pod", &pods[0], "--subresource", "resize", "--field-manager", "vpa-updater", "--patch", &patch.to_string()];
    kubectl(&args, None).await?;
    let message = fleet.wait_condition("Conflict", "True", STEP).await?;
    println!("{message}");
    ensure!(message.contains("vpa-updater") && message.contains(&pods[0]), "{message}");
    // A kill is answered in the pod that is ours alone.
    fleet.send(&needs("big", 180)).await?;
    wait_for("the other pod has more", LONG, || async {
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        if pods.iter().any(|p| limit(p) >= 196) { Ok(()) } else { Err(format!("{:?}", pods.iter().map(limit).collect::<Vec<_>>())) }
    })
    .await?;
    wait_task(&fleet, "big").await?;
    let now = fleet.pods().await?;
    let theirs = now.iter().find(|p| name_of(p) == pods[0]).context("the pod is gone")?;
    ensure!(limit(theirs) == 112, "the other writer's size was changed to {} MiB", limit(theirs));
    ensure!(fleet.events().await?.iter().any(|(reason, _)| reason == "Conflict"), "no Event");
    fleet.remove().await
}

/// The kind as its project installs it, as far as anyone reads it here.
fn vertical_pod_autoscaler_crd() -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "verticalpodautoscalers.autoscaling.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes/kubernetes/pull/63797"},
        },
        "spec": {
            "group": "autoscaling.k8s.io", "scope": "Namespaced",
            "names": {"kind": "VerticalPodAutoscaler", "listKind": "VerticalPodAutoscalerList", "plural": "verticalpodautoscalers", "singular": "verticalpodautoscaler"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": open}}],
        },
    })
}

#[tokio::test]
async fn beside_a_vpa_no_pod_is_sized_and_without_it_they_are_again() -> Result<()> {
    let fleet = Fleet::create(Stand::get().await?, small("e2e-vpa", 1)).await?;
    kubectl(&["apply", "-f", "-"], Some(&vertical_pod_autoscaler_crd().to_string())).await?;
    let vpa = json!({
        "apiVersion": "autoscaling.k8s.io/v1", "kind": "VerticalPodAutoscaler",
        "metadata": {"name": "orders", "namespace": fleet.name},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "orders"}, "updatePolicy": {"updateMode": "Auto"}},
    });
    wait_for("the API serves VerticalPodAutoscalers", STEP, || async {
        kubectl(&["apply", "-f", "-"], Some(&vpa.to_string())).await.map_err(|e| e.to_string())
    })
    .await?;
    let message = fleet.wait_condition("Conflict", "True", LONG).await?;
    ensure!(message.contains("VerticalPodAutoscaler orders"), "{message}");

    // What a kill has taught is recommended, and written nowhere.
    fleet.send(&needs("big", 180)).await?;
    wait_status(&fleet, "the kill is answered", |s| kills(s) > 0 && recommended(s) >= 180).await?;
    let before = fleet.pods().await?;
    fleet.annotate("min-replicas", "2").await?;
    let pods = fleet.wait_ready(2).await?;
    ensure!(pods.iter().all(|pod| limit(pod) == 96), "sized beside a VPA: {:?} MiB", pods.iter().map(limit).collect::<Vec<_>>());
    ensure!(before.iter().all(|old| pods.iter().any(|pod| name_of(pod) == name_of(old))), "a pod was replaced: {}", describe(&pods));

    kubectl(&["-n", &fleet.name, "delete", "verticalpodautoscaler", "orders"], None).await?;
    fleet.wait_condition("Conflict", "False", LONG).await?;
    wait_limits(&fleet, 196).await?;
    wait_task(&fleet, "big").await?;
    fleet.remove().await
}
