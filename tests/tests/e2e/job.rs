//! The main job: bursts up and down again, the control arm, who stays and who goes, everything else that ends pods.

use crate::tasks;
use anyhow::{Result, ensure};
use qscaler_tests::stand::fleet::{DEPLOYMENT, Fleet, FleetOptions, STEP, Task, describe, is_ready, name_of};
use qscaler_tests::stand::kubectl::kubectl;
use qscaler_tests::stand::ledger::Tally;
use qscaler_tests::stand::{BrokerKind, Stand};
use qscaler_tests::wait::{patience, wait_for};
use std::cell::Cell;
use std::time::Duration;

/// How many tasks the bursts have: `QSCALER_TEST_TASKS`, or as many as two cores do in two minutes.
fn burst_tasks() -> usize {
    std::env::var("QSCALER_TEST_TASKS").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

/// How long they and the way back to nothing may take.
const BURSTS: Duration = Duration::from_secs(600);

/// Seconds from burst to burst. None on an emulated machine: there a start takes longer than this, and what returns before its pods are there is rightly
/// kept ready (`learned-hold`), for up to an hour.
fn pause() -> f64 {
    if patience() > 1 { 0.0 } else { 20.0 }
}

/// Tasks of 0.2 to 8 s, most of them short, in bursts; the same every time.
fn bursts(count: usize) -> Vec<Task> {
    let mut state: u64 = 20_261_124;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1u32 << 31)
    };
    (0..count)
        .map(|i| {
            let burst = (i * 3 / count) as f64;
            let seconds = 0.2 + 7.8 * next().powi(4);
            Task { task: format!("t{i}"), at: burst * pause() + next() * 2.0, seconds, mib: 0 }
        })
        .collect()
}

async fn bursts_are_done_exactly_once(name: &str, broker: BrokerKind) -> Result<()> {
    let stand = Stand::get().await?;
    let fleet = Fleet::create(stand, FleetOptions::managed(name, broker, 0, 8)).await?;
    fleet.wait_condition("Ready", "True", STEP).await?;
    let plan = bursts(burst_tasks());
    let sent = plan.len();
    let sending = fleet.send(&plan);
    let peak = Cell::new(0);
    let end = format!("{sent} tasks done and the fleet back at 0");
    let watching = wait_for(&end, BURSTS, || async {
        let replicas = fleet.replicas().await.map_err(|e| e.to_string())?;
        peak.set(peak.get().max(replicas));
        let tally = fleet.tally().await.map_err(|e| e.to_string())?;
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        if tally.done == sent && replicas == 0 && pods.is_empty() {
            return Ok(tally);
        }
        let worker = fleet.qworker().await.ok().flatten().unwrap_or_default();
        Err(format!("replicas {replicas}, {} done, {} cut; {}; {}", tally.done, tally.cut, worker["status"]["reason"], describe(&pods)))
    });
    let ((), tally): ((), Tally) = tokio::try_join!(sending, watching)?;
    let peak = peak.get();
    println!("{name}: {tally:?}, peak {peak}, wait p50 {:.1} s, p99 {:.1} s", tally.wait_quantile(0.5), tally.wait_quantile(0.99));
    ensure!(tally.is_exactly_once(), "{tally:?}");
    ensure!(peak >= 3, "never more than {peak} replicas: the load asked for more");
    fleet.remove().await
}

#[tokio::test]
async fn celery_on_redis_goes_from_0_up_and_back_to_0_and_every_task_is_done_exactly_once() -> Result<()> {
    bursts_are_done_exactly_once("e2e-redis", BrokerKind::Redis).await
}

#[tokio::test]
async fn celery_on_rabbitmq_goes_from_0_up_and_back_to_0_and_every_task_is_done_exactly_once() -> Result<()> {
    bursts_are_done_exactly_once("e2e-rabbitmq", BrokerKind::RabbitMq).await
}

/// The control arm: without the sidecar plain `/scale` calls cut tasks. If they do not, the other tests measure nothing.
#[tokio::test]
async fn without_the_sidecar_plain_scale_calls_do_cut_tasks() -> Result<()> {
    let stand = Stand::get().await?;
    let mut options = FleetOptions::managed("e2e-control", BrokerKind::Redis, 0, 8);
    options.annotations.clear();
    options.replicas = 4;
    options.grace_seconds = 1;
    let fleet = Fleet::create(stand, options).await?;
    fleet.send(&tasks(16, 8.0)).await?;
    fleet.wait_busy(4).await?;
    fleet.scale(1).await?;
    wait_for("one pod left", STEP, || async {
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        if pods.len() == 1 { Ok(()) } else { Err(describe(&pods)) }
    })
    .await?;
    let running = fleet.busy_hosts().await?.len();
    let tally = fleet.tally().await?;
    println!("control arm: {running} runs without an end on 1 pod, {tally:?}");
    ensure!(running >= 2, "plain /scale calls cut nothing ({tally:?}): this arm measures nothing");
    fleet.remove().await
}

#[tokio::test]
async fn busy_pods_stay_and_exactly_the_idle_ones_go() -> Result<()> {
    let stand = Stand::get().await?;
    // The fleet is held at 5 by min-replicas until 2 pods are busy; then the bounds fall and the 3 idle ones must go. The maximum, too: arrivals times service
    // time may call for a third or fourth pod until the tasks are done, where pods take long to start.
    // A prefetch of 1: by default one Celery worker may reserve both tasks and run them one after the other.
    let mut options = FleetOptions::managed("e2e-idle", BrokerKind::Redis, 5, 5);
    options = options.acks_late();
    let fleet = Fleet::create(stand, options).await?;
    let before: Vec<String> = fleet.pods().await?.iter().map(name_of).collect();
    fleet.send(&tasks(2, 90.0)).await?;
    let busy = fleet.wait_busy(2).await?;
    for (bound, pods) in [("min-replicas", "0"), ("max-replicas", "2")] {
        fleet.annotate(bound, pods).await?;
    }
    let left = wait_for("the idle pods gone", STEP, || async {
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        if pods.len() == 2 { Ok(pods) } else { Err(describe(&pods)) }
    })
    .await?;
    let mut left_names: Vec<String> = left.iter().map(name_of).collect();
    let mut busy_names = busy.clone();
    left_names.sort();
    busy_names.sort();
    ensure!(left_names == busy_names, "left {left_names:?}, busy {busy_names:?}, before {before:?}");
    // A probe that a busy machine answers late makes a pod NotReady for a moment.
    wait_for("the busy pods Ready", STEP, || async {
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        if pods.iter().filter(|pod| busy.contains(&name_of(pod)) && is_ready(pod)).count() == busy.len() { Ok(()) } else { Err(describe(&pods)) }
    })
    .await?;
    ensure!(left_names.iter().all(|n| before.contains(n)), "a new pod was started: {left_names:?}");
    let tally = fleet.wait_done(2, Duration::from_secs(240)).await?;
    ensure!(tally.is_exactly_once(), "{tally:?}");
    fleet.remove().await
}

#[tokio::test]
async fn a_task_outlives_rollout_restart_and_delete() -> Result<()> {
    let stand = Stand::get().await?;
    let fleet = Fleet::create(stand, FleetOptions::managed("e2e-deletions", BrokerKind::Redis, 1, 2)).await?;
    let ns = fleet.name.clone();
    for (i, how) in ["rollout", "delete"].into_iter().enumerate() {
        let pod = name_of(&fleet.wait_ready(1).await?[0]);
        fleet.send(&[Task { task: how.into(), at: 0.0, seconds: 15.0, mib: 0 }]).await?;
        let busy = fleet.wait_busy(1).await?;
        ensure!(busy == [pod.clone()], "{busy:?} is busy, {pod} is the pod");
        match how {
            "rollout" => kubectl(&["-n", &ns, "rollout", "restart", "deployment", DEPLOYMENT], None).await?,
            _ => kubectl(&["-n", &ns, "delete", "pod", &pod, "--wait=false"], None).await?,
        };
        let tally = fleet.wait_done(i + 1, Duration::from_secs(120)).await?;
        ensure!(tally.is_exactly_once(), "after {how}: {tally:?}");
    }
    fleet.remove().await
}
