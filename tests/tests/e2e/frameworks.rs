//! Every framework of the matrix side by side, each in its own namespace with its own client: up from 0, a busy pod deleted in between, back to 0.
//! In: `FRAMEWORKS`, or of these the ones that QSCALER_FRAMEWORKS names (slugs, comma-separated). Out: a table, and whether every task was done
//! exactly once. Left to others: the faults of the matrix.

use anyhow::{Result, ensure};
use futures::future::join_all;
use qscaler_tests::stand::Stand;
use qscaler_tests::stand::fleet::{Fleet, FleetOptions, STEP, Task, describe};
use qscaler_tests::stand::framework::{FRAMEWORKS, Framework};
use qscaler_tests::stand::kubectl::kubectl;
use qscaler_tests::stand::ledger::Tally;
use qscaler_tests::wait::wait_for;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Tasks of each framework: 3 at first, so that a pod is surely busy when one is deleted.
const TASKS: usize = 9;
/// How long a whole round of all frameworks may take: twelve fleets share two cores.
const ROUND: Duration = Duration::from_secs(480);

/// Which frameworks take part.
fn chosen() -> Result<Vec<&'static Framework>> {
    let Ok(names) = std::env::var("QSCALER_FRAMEWORKS") else { return Ok(FRAMEWORKS.to_vec()) };
    names.split(',').map(|name| Framework::find(name).ok_or_else(|| anyhow::anyhow!("no framework {name}"))).collect()
}

/// 1 to 6 s each, all at once.
fn plan() -> Vec<Task> {
    (0..TASKS).map(|i| Task { task: format!("t{i}"), at: 0.0, seconds: 1.0 + 5.0 * ((i * 4 % TASKS) as f64) / (TASKS - 1) as f64, mib: 0 }).collect()
}

struct Row {
    name: &'static str,
    outcome: Result<Seen>,
}

struct Seen {
    tally: Tally,
    peak: i32,
    seconds: f64,
    left_to_run: bool,
}

async fn round(stand: &'static Stand, framework: &'static Framework) -> Result<Seen> {
    let mut options = FleetOptions::of(framework, &format!("fw-{}", framework.slug), 0, 2);
    options.memory = "128Mi".to_owned();
    let fleet = Fleet::create(stand, options).await?;
    fleet.wait_condition("Ready", "True", STEP).await?;
    let begin = Instant::now();
    fleet.send(&plan()).await?;
    let host = wait_for("a busy pod", STEP, || async {
        let hosts = fleet.busy_hosts().await.map_err(|e| e.to_string())?;
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        hosts.into_iter().next().ok_or_else(|| describe(&pods))
    })
    .await?;
    kubectl(&["-n", &fleet.name, "delete", "pod", &host, "--wait=false"], None).await?;
    let busy_after = fleet.busy_hosts().await?.contains(&host);
    let peak = Cell::new(0);
    let tally = wait_for("back at 0 with all done", ROUND, || async {
        let look = async { anyhow::Ok((fleet.replicas().await?, fleet.pods().await?, fleet.tally().await?)) };
        let (replicas, pods, tally) = look.await.map_err(|e| e.to_string())?;
        peak.set(peak.get().max(replicas));
        if tally.done == TASKS && replicas == 0 && pods.is_empty() {
            return Ok(tally);
        }
        let worker = fleet.qworker().await.ok().flatten().unwrap_or_default();
        let Tally { sent, done, cut, .. } = tally;
        Err(format!("{done} done of {sent}, {cut} cut; {}; {}; {replicas} replicas", worker["status"]["reason"], describe(&pods)))
    })
    .await?;
    let peak = peak.get();
    let seen = Seen { tally, peak, seconds: begin.elapsed().as_secs_f64(), left_to_run: busy_after };
    fleet.remove().await?;
    Ok(seen)
}

#[tokio::test]
async fn each_framework_goes_from_0_up_and_back_to_0_and_every_task_is_done_exactly_once_though_a_busy_pod_is_deleted() -> Result<()> {
    let stand = Stand::get().await?;
    let rows =
        join_all(chosen()?.into_iter().map(|framework| async move { Row { name: framework.name, outcome: round(stand, framework).await } })).await;
    println!("{:38} {:>5} {:>5} {:>5} {:>8} {:>5} {:>5} {:>8}", "framework", "sent", "done", "cut", "doubled", "lost", "peak", "seconds");
    for row in &rows {
        match &row.outcome {
            Ok(Seen { tally, peak, seconds, .. }) => {
                let Tally { sent, done, cut, doubled, lost, .. } = tally;
                println!("{:38} {sent:>5} {done:>5} {cut:>5} {doubled:>8} {lost:>5} {peak:>5} {seconds:>8.1}", row.name);
            }
            Err(error) => println!("{:38} {error:#}", row.name),
        }
    }
    for row in &rows {
        let seen = row.outcome.as_ref().map_err(|error| anyhow::anyhow!("{}: {error:#}", row.name))?;
        ensure!(seen.tally.is_exactly_once(), "{}: {:?}", row.name, seen.tally);
        ensure!(seen.peak >= 1, "{}: never more than {} replicas", row.name, seen.peak);
    }
    let in_the_middle = rows.iter().filter(|row| row.outcome.as_ref().is_ok_and(|seen| seen.left_to_run)).count();
    ensure!(in_the_middle * 2 > rows.len(), "only {in_the_middle} of {} pods were busy when they were deleted: this measures nothing", rows.len());
    Ok(())
}
