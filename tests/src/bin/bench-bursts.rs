//! `cargo xtask bench bursts-cluster`, inside the cluster's network: three bursts of 60 Celery tasks, 90 s apart, then silence, on the real cluster. In: `--json`.
//! Out: each change of the number of pods with the law's sentence for it, then waits, pod-seconds, seconds from the last task to no pod, tasks cut; with
//! `--json` one JSON object as the last line. The figures are printed also when the bench gives up with pods left. Exit code 1 when the promise is not kept.
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

/// What was counted, until no pod was left or the bench gave up.
#[derive(Debug, Default)]
struct Counted {
    pod_seconds: f64,
    /// When the last pod was gone, in seconds since the Unix epoch; `None`: it was not.
    empty_s: Option<f64>,
    /// Pods at the last look.
    pods: usize,
    /// What the law said at that time.
    sentence: String,
}

/// The law's sentence as it stands in the QWorker's status; empty where it cannot be read.
async fn sentence(fleet: &Fleet) -> String {
    let worker = fleet.qworker().await.ok().flatten().unwrap_or_default();
    worker["status"]["reason"].as_str().unwrap_or_default().to_owned()
}

/// Counts pods until all tasks have ended and no pod is left, or until `GIVE_UP`. A look that fails is a hole: the pods seen before count on.
async fn count(fleet: &Fleet) -> Counted {
    let (begin, mut before, mut counted) = (Instant::now(), Instant::now(), Counted::default());
    while begin.elapsed() < GIVE_UP {
        let looked = fleet.pods().await;
        counted.pod_seconds += counted.pods as f64 * before.elapsed().as_secs_f64();
        before = Instant::now();
        let pods = looked.map_or(counted.pods, |pods| pods.len());
        let said = sentence(fleet).await;
        if pods != counted.pods {
            println!("{:>5.0} s: {pods} pods; {said}", begin.elapsed().as_secs_f64());
        }
        (counted.pods, counted.sentence) = (pods, said);
        if pods == 0 && fleet.ledger().await.is_ok_and(|ledger| Tally::of(&ledger).done >= BURSTS * TASKS) {
            counted.empty_s = Some(now_s());
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    counted
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let json = std::env::args().skip(1).any(|word| word == "--json");
    let options = FleetOptions::managed("bench-bursts", BrokerKind::Redis, 0, MOST).acks_late().with("max-wait", "15s");
    let fleet = Fleet::create(Stand::get().await?, options).await?;
    let plan = plan();
    let (sent, counted) = tokio::join!(fleet.send(&plan), count(&fleet));
    let ledger = fleet.ledger().await?;
    let tally = Tally::of(&ledger);
    let last_s = ledger.iter().filter(|entry| entry.event == "done").map(|entry| entry.at).reduce(f64::max);
    let since_last_s = last_s.map(|last_s| counted.empty_s.unwrap_or_else(now_s) - last_s);
    let empty_after_s = since_last_s.filter(|_| counted.empty_s.is_some());
    let (p50_s, p99_s) = (tally.wait_quantile(0.5), tally.wait_quantile(0.99));
    let Counted { pod_seconds, pods, sentence, .. } = counted;
    let since = since_last_s.map_or_else(|| "no task has ended".to_owned(), |since_s| format!("{pods} pods {since_s:.0} s after the last task"));
    println!("{tally:?}; waits p50 {p50_s:.1} s, p99 {p99_s:.1} s; {pod_seconds:.0} pod-seconds; {since}");
    println!("the law said last: {sentence}");
    if json {
        let line = serde_json::json!({"tasks": tally.sent, "cut": tally.cut, "wait_p50_s": p50_s, "wait_p99_s": p99_s, "pod_seconds": pod_seconds,
            "empty_after_s": empty_after_s, "since_last_task_s": since_last_s, "pods_left": pods, "reason": sentence});
        println!("{line}");
    }
    fleet.remove().await.context("the fleet cannot be removed")?;
    sent.context("not everything was sent")?;
    Ok(if tally.is_exactly_once() && empty_after_s.is_some_and(|after_s| after_s <= EMPTY_AFTER_MAX_S) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
