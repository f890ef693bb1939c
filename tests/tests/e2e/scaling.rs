//! How many pods there are: bursts, outages, dry runs, and what is learned.

use crate::tasks;
use anyhow::{Context, Result, ensure};
use qscaler_tests::servers::RedisServer;
use qscaler_tests::stand::burst::{MOST, Target};
use qscaler_tests::stand::fleet::{Fleet, FleetOptions, STEP};
use qscaler_tests::stand::kubectl::kubectl;
use qscaler_tests::stand::{BrokerKind, SYSTEM_NAMESPACE, Stand};
use qscaler_tests::wait::wait_for;
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long the broker is away, seconds: well past every limit of staleness (the figures' 15 s, the reports' 30 s). `QSCALER_OUTAGE_S=600` for the
/// promise in full.
const OUTAGE_S: u64 = 90;
/// What is learned is saved each half minute, and a new leader waits for the old one's Lease.
const LEARNED: Duration = Duration::from_secs(240);

#[tokio::test]
async fn a_burst_raises_from_0_to_20_in_one_write() -> Result<()> {
    let target = Target::create(Stand::get().await?, "e2e-burst").await?;
    let burst = target.burst().await?;
    println!("0 to {MOST} after {:.3} s", burst.seconds);
    ensure!(burst.writes == 1, "{} writes", burst.writes);
    target.calm().await?;
    target.remove().await
}

#[tokio::test]
async fn an_outage_of_the_broker_under_load_lowers_nothing() -> Result<()> {
    let stand = Stand::get().await?;
    let seconds = std::env::var("QSCALER_OUTAGE_S").ok().map_or(Ok(OUTAGE_S), |text| text.parse()).context("QSCALER_OUTAGE_S")?;
    // Its own, since the other tests need theirs.
    let mut redis = RedisServer::start_at(stand.host.parse()?, None)?;
    let options = FleetOptions { url: Some(redis.url(0)), ..FleetOptions::managed("e2e-outage", BrokerKind::Redis, 0, 4).acks_late() };
    let fleet = Fleet::create(stand, options).await?;
    // They end during the outage, so workers get idle while nobody can be asked.
    let begun = Instant::now();
    fleet.send(&tasks(4, 80.0)).await?;
    fleet.wait_busy(4).await?;
    let before = fleet.replicas().await?;
    redis.stop();
    println!("{before} replicas when the broker went, {:.0} s after the tasks were sent", begun.elapsed().as_secs_f64());
    let away = Instant::now();
    let mut least = before;
    while away.elapsed() < Duration::from_secs(seconds) {
        let now = fleet.replicas().await?;
        ensure!(now >= least, "{least} replicas became {now}, {} s into the outage", away.elapsed().as_secs());
        least = least.max(now);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let said = fleet.wait_condition("BrokerReachable", "False", STEP).await?;
    println!("{least} replicas after {seconds} s; the user reads: {said}");
    redis.restart()?;
    fleet.wait_condition("BrokerReachable", "True", STEP).await?;
    let tally = fleet.tally().await?;
    ensure!(tally.cut == 0, "{tally:?}");
    fleet.remove().await
}

#[tokio::test]
async fn a_dry_run_shows_what_it_would_do_and_leaves_the_count_to_its_owner() -> Result<()> {
    let stand = Stand::get().await?;
    let fleet = Fleet::create(stand, FleetOptions::managed("e2e-dry", BrokerKind::Redis, 0, 6).with("dry-run", "true")).await?;
    let generation = async || anyhow::Ok(fleet.deployment().await?.metadata.generation.unwrap_or_default());
    let before = generation().await?;
    fleet.send(&tasks(200, 5.0)).await?;
    let status = wait_for("a wish beside the real count", STEP, || async {
        let status = status_of(&fleet).await.map_err(|e| e.to_string())?;
        let wants = status["desired"].as_i64().unwrap_or_default() > 0 && status["wouldDo"].is_string();
        if wants { Ok(status) } else { Err(status.to_string()) }
    })
    .await?;
    println!("{} real, {} desired: {}", status["replicas"], status["desired"], status["wouldDo"]);
    ensure!(status["replicas"] == 0 && generation().await? == before, "a dry run wrote to the Deployment: {status}");
    // A person, or another scaler, goes on owning the count.
    fleet.scale(1).await?;
    let after = wait_for("the count that a person set", STEP, || async {
        let status = status_of(&fleet).await.map_err(|e| e.to_string())?;
        if status["replicas"] == 1 && status["wouldDo"].is_string() { Ok(status) } else { Err(status.to_string()) }
    })
    .await?;
    println!("{} real, {} desired: {}", after["replicas"], after["desired"], after["wouldDo"]);
    ensure!(generation().await? == before + 1, "only the person's write counts");
    fleet.remove().await
}

#[tokio::test]
async fn what_was_learned_outlives_the_controller_and_is_used() -> Result<()> {
    let stand = Stand::get().await?;
    let fleet = Fleet::create(stand, FleetOptions::managed("e2e-learned", BrokerKind::Redis, 1, 1)).await?;
    fleet.wait_ready(1).await?;
    fleet.send(&tasks(12, 3.0)).await?;
    fleet.wait_done(12, STEP).await?;
    let learned = |kept: &Value| {
        let all = &kept["learned"]["service"]["all"];
        let weight = all["weight"].as_f64().unwrap_or_default();
        (weight, all["sum"].as_f64().unwrap_or_default() / weight.max(1.0), kept["learned"]["last_s"].as_f64().unwrap_or_default())
    };
    let (weight, mean_s, _) = wait_for("a learned service time that is saved", LEARNED, || async {
        let kept = fleet.checkpoint().await.map_err(|e| e.to_string())?;
        let now = learned(&kept);
        if now.0 >= 6.0 { Ok(now) } else { Err(kept["learned"].to_string()) }
    })
    .await?;
    println!("{mean_s:.2} s a task, from {weight:.1} tasks");
    ensure!((2.0..6.0).contains(&mean_s), "tasks of 3 s were learned as {mean_s} s");
    // Both controllers at once: whoever leads next has read nothing but what was saved. The status is small and for people.
    let status = status_of(&fleet).await?;
    ensure!(status["learned"].is_null() && status.to_string().len() < 8_000, "{} bytes: {status}", status.to_string().len());
    kubectl(&["-n", SYSTEM_NAMESPACE, "delete", "pods", "-l", "app.kubernetes.io/component=controller", "--wait=true"], None).await?;
    // An empty queue teaches nothing, and then nothing is saved: the next leader gets a task to learn of. Those before it are gone, so whatever is saved
    // after this is its own.
    let (_, _, saved_s) = learned(&fleet.checkpoint().await?);
    fleet.send(&tasks(1, 3.0)).await?;
    let (weight, mean_after_s, _) = wait_for("what the next leader learned and saved", LEARNED, || async {
        let status = status_of(&fleet).await.map_err(|e| e.to_string())?;
        let now = learned(&fleet.checkpoint().await.map_err(|e| e.to_string())?);
        let words = status["reason"].as_str().unwrap_or_default().to_owned();
        // The learned time is in its reason, and not the one that is taken where nothing is known.
        if now.2 > saved_s && words.contains(" s a task") && !words.contains("10 s a task") { Ok(now) } else { Err(format!("{now:?}, {words:?}")) }
    })
    .await?;
    ensure!(weight >= 6.0 && (mean_after_s - mean_s).abs() < 1.0, "{mean_s} s became {mean_after_s} s");
    fleet.remove().await
}

async fn status_of(fleet: &Fleet) -> Result<Value> {
    Ok(fleet.qworker().await?.context("no QWorker")?["status"].clone())
}
