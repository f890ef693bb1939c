//! The demonstration, inside the cluster's network: an unchanged Celery worker goes 0 -> N -> 0, then meets tasks that need more memory than its
//! pods have. In: `--broker redis|rabbitmq --headless --json --report FILE`. Out: a live table, a page, and a summary. `cargo xtask demo` brings
//! up the cluster and QScaler before, and takes them down after.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, bail};
use qscaler_core::units::Bytes;
use qscaler_tests::demo::{Sample, Summary, report, table};
use qscaler_tests::stand::fleet::{Fleet, FleetOptions, STEP, Task, is_ready};
use qscaler_tests::stand::ledger::{Entry, Tally};
use qscaler_tests::stand::{BrokerKind, Stand};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Tasks of the burst.
const BURST: usize = 100;
/// Most replicas: what two cores can start in a reasonable time.
const REPLICAS: u32 = 8;
/// Tasks that need more memory than a pod has.
const BIG: usize = 3;
/// What a big task takes, on top of the worker's own.
const BIG_MIB: u32 = 130;
/// How long one act may take.
const ACT: Duration = Duration::from_secs(420);
/// Between samples.
const SAMPLE: Duration = Duration::from_millis(500);

struct Options {
    broker: BrokerKind,
    headless: bool,
    json: bool,
    report: PathBuf,
}

fn options() -> Result<Options> {
    let mut options = Options { broker: BrokerKind::Redis, headless: false, json: false, report: PathBuf::from("qscaler-demo.html") };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--broker" => {
                options.broker = match args.next().as_deref() {
                    Some("redis") => BrokerKind::Redis,
                    Some("rabbitmq") => BrokerKind::RabbitMq,
                    other => bail!("--broker {}: valid: redis, rabbitmq", other.unwrap_or("(nothing)")),
                }
            }
            "--headless" => options.headless = true,
            "--json" => options.json = true,
            "--report" => options.report = args.next().context("--report needs a file name")?.into(),
            other => bail!("unknown argument {other}; valid: --broker, --headless, --json, --report"),
        }
    }
    Ok(options)
}

struct Show {
    fleet: Fleet,
    begin: Instant,
    samples: Vec<Sample>,
    peak: Sample,
    live: bool,
    act: &'static str,
    pod_seconds: f64,
}

impl Show {
    async fn sample(&mut self) -> Result<Sample> {
        let (worker, deployment, pods, ledger) =
            tokio::try_join!(self.fleet.qworker(), self.fleet.deployment(), self.fleet.pods(), self.fleet.ledger())?;
        let status = worker.map(|w| w["status"].clone()).unwrap_or_default();
        let number = |key: &str| status[key].as_i64().unwrap_or(0);
        let memory = pods.iter().filter_map(|p| {
            let worker = p.spec.as_ref()?.containers.iter().find(|c| c.name == "worker")?;
            Bytes::parse(&worker.resources.as_ref()?.limits.as_ref()?.get("memory")?.0).ok().map(|b| b.0 >> 20)
        });
        let memory: Vec<u64> = memory.collect();
        let sample = Sample {
            at: self.begin.elapsed().as_secs_f64(),
            backlog: status["backlog"].as_i64(),
            in_flight: status["inFlight"].as_i64(),
            rate_in: status["rateIn"].as_str().unwrap_or_default().into(),
            rate_out: status["rateOut"].as_str().unwrap_or_default().into(),
            replicas: i64::from(deployment.spec.replicas.unwrap_or(0)),
            desired: number("desired"),
            ready: pods.iter().filter(|p| is_ready(p)).count() as i64,
            parked: number("parked"),
            terminating: pods.iter().filter(|p| p.metadata.deletion_timestamp.is_some()).count() as i64,
            pods: pods.len() as i64,
            done: ledger.iter().filter(|e| e.event == "done").count() as i64,
            memory_mib: (memory.iter().copied().min().unwrap_or(0), memory.iter().copied().max().unwrap_or(0)),
            oom_kills: status["counters"]["oomKills"].as_i64().unwrap_or(0),
            reason: status["reason"].as_str().unwrap_or_default().into(),
            act: self.act,
        };
        if let Some(last) = self.samples.last() {
            self.pod_seconds += (sample.at - last.at) * last.pods as f64;
        }
        self.peak.backlog = self.peak.backlog.max(sample.backlog);
        self.peak.replicas = self.peak.replicas.max(sample.replicas);
        if self.live {
            print!("{}", table::live(&sample, &self.peak, self.samples.is_empty()));
            std::io::stdout().flush()?;
        } else if self.samples.len().is_multiple_of(6) {
            println!("{}", table::line(&sample));
        }
        self.samples.push(sample.clone());
        Ok(sample)
    }

    async fn until(&mut self, what: &str, mut reached: impl FnMut(&Sample) -> bool) -> Result<()> {
        let begin = Instant::now();
        loop {
            let sample = self.sample().await?;
            if reached(&sample) {
                return Ok(());
            }
            if begin.elapsed() > ACT {
                bail!("{what}: not within {} s; last: {}", ACT.as_secs(), table::line(&sample));
            }
            tokio::time::sleep(SAMPLE).await;
        }
    }
}

fn plan() -> Vec<Task> {
    let mut state: u64 = 7;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1u32 << 31)
    };
    (0..BURST).map(|i| Task { task: format!("small-{i}"), at: next() * 3.0, seconds: 0.5 + 4.0 * next(), mib: 0 }).collect()
}

/// From the first message sent to a replica count above 0.
async fn time_to_scale(fleet: &Fleet) -> Result<f64> {
    let begin = Instant::now();
    loop {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
        if fleet.replicas().await? > 0 {
            let first = fleet.ledger().await?.iter().filter(|e| e.event == "sent").map(|e| e.at).fold(now, f64::min);
            return Ok(now - first);
        }
        if begin.elapsed() > STEP {
            bail!("the burst was not answered within {} s", STEP.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = options()?;
    let stand = Stand::get().await?;
    let mut fleet_options = FleetOptions::managed("demo", options.broker, 0, REPLICAS).with("vertical", "in-place").with("max-memory", "512Mi");
    fleet_options.memory = "96Mi".into();
    fleet_options = fleet_options.acks_late();
    println!("An unchanged Celery worker, annotated as the README says, at 0 replicas; {BURST} tasks of 0.5 to 4.5 s are coming.");
    let fleet = Fleet::create(stand, fleet_options).await?;
    fleet.wait_condition("Ready", "True", STEP).await?;
    let live = !options.headless && std::io::stdout().is_terminal();
    let mut show =
        Show { fleet, begin: Instant::now(), samples: Vec::new(), peak: Sample::default(), live, act: "a burst: 0 -> N", pod_seconds: 0.0 };

    let plan = plan();
    let (sent, scaled) = {
        let Show { fleet, .. } = &show;
        tokio::join!(fleet.send(&plan), time_to_scale(fleet))
    };
    sent?;
    let burst_to_scale_s = scaled?;
    show.until("the burst done", |s| s.done >= BURST as i64).await?;
    show.act = "done: N -> 0, free workers leave";
    show.until("back at 0", |s| s.replicas == 0 && s.pods == 0).await?;

    show.act = "tasks that need more memory than a pod has";
    let before = show.samples.iter().map(|s| s.memory_mib.1).max().unwrap_or(0);
    let big: Vec<Task> = (0..BIG).map(|i| Task { task: format!("big-{i}"), at: f64::from(i as u32), seconds: 2.0, mib: BIG_MIB }).collect();
    show.fleet.send(&big).await?;
    show.until("the big tasks done", |s| s.done >= (BURST + BIG) as i64).await?;
    let after = show.samples.iter().map(|s| s.memory_mib.1).max().unwrap_or(0);
    show.act = "done: N -> 0";
    show.until("back at 0", |s| s.replicas == 0 && s.pods == 0).await?;

    let entries = show.fleet.ledger().await?;
    let of = |prefix: &str| Tally::of(&entries.iter().filter(|e| e.task.starts_with(prefix)).cloned().collect::<Vec<Entry>>());
    let (small, large) = (of("small-"), of("big-"));
    let last = show.samples.last().cloned().unwrap_or_default();
    let summary = Summary {
        broker: options.broker.name().into(),
        sent: small.sent + large.sent,
        done: small.done + large.done,
        cut: small.cut,
        doubled: small.doubled + large.doubled,
        lost: small.lost + large.lost,
        peak_replicas: show.peak.replicas,
        final_replicas: last.replicas,
        burst_to_scale_s,
        wait_p50_s: small.wait_quantile(0.5),
        wait_p99_s: small.wait_quantile(0.99),
        pod_seconds: show.pod_seconds,
        oom_kills: last.oom_kills,
        oom_retried: large.cut,
        memory_before: format!("{before}Mi"),
        memory_after: format!("{after}Mi"),
    };
    std::fs::write(&options.report, report::html(&summary, &show.samples)).with_context(|| format!("cannot write {}", options.report.display()))?;
    println!(
        "\n{} of {} tasks done on {}: {} cut, {} done twice, {} lost. 0 -> {} -> {} replicas; the burst was answered in {:.1} s; waits p50 {:.1} s, p99 {:.1} s; {:.0} pod-seconds.\n{} OOM kills answered: {} -> {} MiB. Report: {}",
        summary.done,
        summary.sent,
        summary.broker,
        summary.cut,
        summary.doubled,
        summary.lost,
        summary.peak_replicas,
        summary.final_replicas,
        summary.burst_to_scale_s,
        summary.wait_p50_s,
        summary.wait_p99_s,
        summary.pod_seconds,
        summary.oom_kills,
        before,
        after,
        options.report.display()
    );
    show.fleet.remove().await?;
    if options.json {
        println!("{}", serde_json::to_string(&summary)?);
    }
    Ok(())
}
