//! `cargo xtask bench bursts-cluster`, inside the cluster's network: three bursts of 60 Celery tasks, 90 s apart, then silence, on the real cluster. In: `--json`.
//! Out: waits, pod-seconds, seconds from the last task to no pod, tasks cut; with `--json` one JSON object as the last line. Exit code 1 when the promise
//! is not kept.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result};
use qscaler_tests::stand::fleet::{Fleet, FleetOptions, Task};
use qscaler_tests::stand::ledger::Tally;
use qscaler_tests::stand::{BrokerKind, Stand};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Bursts, tasks of each, and seconds from one to the next.
const BURSTS: usize = 3;
const TASKS: usize = 60;
const APART_S: f64 = 90.0;
/// Most pods, as in the comparison with KEDA.
const MOST: u32 = 20;
/// The promise: seconds from the last task's end to the moment at which no pod is left.
const EMPTY_AFTER_MAX_S: f64 = 60.0;
/// How often pods are counted: the resolution of pod-seconds.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// It takes five minutes; after this long it hangs.
const GIVE_UP: Duration = Duration::from_secs(1200);

/// 60 % of the tasks take 1 to 5 s, 25 % 6 to 20 s, 15 % 31 to 40 s, in turn.
fn seconds_of(number: usize) -> f64 {
    match number % 20 {
        place @ 0..12 => 1.0 + (place % 5) as f64,
        place @ 12..17 => 6.0 + 3.5 * (place - 12) as f64,
        place => 31.0 + 4.5 * (place - 17) as f64,
    }
}

fn plan() -> Vec<Task> {
    let task =
        |burst: usize, number: usize| Task { task: format!("b{burst}-{number}"), at: APART_S * burst as f64, seconds: seconds_of(number), mib: 0 };
    (0..BURSTS).flat_map(|burst| (0..TASKS).map(move |number| task(burst, number))).collect()
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Counts pods until all tasks have ended and no pod is left: pod-seconds, and when the last was gone.
async fn count(fleet: &Fleet) -> Result<(f64, f64)> {
    let (begin, mut before, mut pod_seconds) = (Instant::now(), Instant::now(), 0.0);
    loop {
        let pods = fleet.pods().await?.len();
        pod_seconds += pods as f64 * before.elapsed().as_secs_f64();
        before = Instant::now();
        if pods == 0 && Tally::of(&fleet.ledger().await?).done >= BURSTS * TASKS {
            return Ok((pod_seconds, now_s()));
        }
        anyhow::ensure!(begin.elapsed() < GIVE_UP, "{pods} pods after {} s", GIVE_UP.as_secs());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let json = std::env::args().skip(1).any(|word| word == "--json");
    let options = FleetOptions::managed("bench-bursts", BrokerKind::Redis, 0, MOST).acks_late().with("max-wait", "15s");
    let fleet = Fleet::create(Stand::get().await?, options).await?;
    let plan = plan();
    let (sent, counted) = tokio::join!(fleet.send(&plan), count(&fleet));
    sent?;
    let (pod_seconds, empty_s) = counted?;
    let ledger = fleet.ledger().await?;
    let tally = Tally::of(&ledger);
    let last_s = ledger.iter().filter(|entry| entry.event == "done").map(|entry| entry.at).fold(f64::NEG_INFINITY, f64::max);
    let empty_after_s = empty_s - last_s;
    let (p50_s, p99_s) = (tally.wait_quantile(0.5), tally.wait_quantile(0.99));
    println!("{tally:?}; waits p50 {p50_s:.1} s, p99 {p99_s:.1} s; {pod_seconds:.0} pod-seconds; no pod {empty_after_s:.0} s after the last task");
    fleet.remove().await.context("the fleet cannot be removed")?;
    if json {
        let line = serde_json::json!({"tasks": tally.sent, "cut": tally.cut, "wait_p50_s": p50_s, "wait_p99_s": p99_s,
            "pod_seconds": pod_seconds, "empty_after_s": empty_after_s});
        println!("{line}");
    }
    Ok(if tally.is_exactly_once() && empty_after_s <= EMPTY_AFTER_MAX_S { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
