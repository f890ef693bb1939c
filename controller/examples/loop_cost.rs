//! What one second of the main loop costs at scale. In: `--workloads N --pods M --seconds S`. Out: one JSON line: CPU time per look and per
//! second of the cluster, memory. Left to others: API server and brokers; their answers are made up here, all of them on time.

use anyhow::Context;
use clap::Parser;
use qscaler_broker::Reports;
use qscaler_controller::act::known::Known;
use qscaler_controller::act::plan::{Action, Done, ListOutcome};
use qscaler_controller::act::qworker::Loaded;
use qscaler_controller::input::{Life, Measured};
use qscaler_controller::lead::managed::Managed;
use qscaler_controller::observe::cluster::Cluster;
use qscaler_controller::observe::index::{Index, Kind, Record};
use qscaler_controller::observe::record::{DeploymentRecord, PodRecord, ReplicaSetRecord};
use qscaler_controller::show::metrics::Metrics;
use qscaler_core::message::{AccessLevel, Busy, Epoch, PodMs, Report, VERSION, WorkerState};
use qscaler_core::scale::QueueSample;
use qscaler_core::size::{ClusterVersion, Peaks};
use qscaler_core::workload::WorkloadId;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[derive(Parser)]
struct Args {
    /// Workloads.
    #[arg(long, default_value_t = 10_000)]
    workloads: usize,
    /// Pods of each.
    #[arg(long, default_value_t = 10)]
    pods: usize,
    /// Seconds of the cluster's life.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Seconds between two reports of one pod.
    #[arg(long, default_value_t = 5)]
    report_every: u64,
}

const T0_MS: u64 = 1_800_000_000_000;

fn id(n: usize) -> WorkloadId {
    WorkloadId { namespace: format!("team-{}", n % 100), name: format!("orders-{n}") }
}

fn deployment(n: usize, pods: usize) -> Value {
    let id = id(n);
    json!({
        "metadata": {"namespace": id.namespace, "name": id.name, "uid": format!("00000000-0000-0000-0000-{n:012}"), "resourceVersion": "100", "generation": 1,
            "annotations": {"qscaler.dev/queue": id.name, "qscaler.dev/broker": "env:URL", "qscaler.dev/worker": "celery", "qscaler.dev/max-replicas": "50"}},
        "spec": {"replicas": pods, "selector": {}, "template": {"spec": {"containers": [{"name": "worker", "image": "w",
            "env": [{"name": "URL", "value": "redis://r/0"}], "resources": {"limits": {"memory": "256Mi"}, "requests": {"memory": "256Mi", "cpu": "100m"}}}]}}},
        "status": {"observedGeneration": 1, "replicas": pods, "readyReplicas": pods}
    })
}

fn replicaset(n: usize, pods: usize) -> ReplicaSetRecord {
    let pods = u32::try_from(pods).unwrap_or(u32::MAX);
    ReplicaSetRecord {
        namespace: id(n).namespace,
        name: format!("orders-{n}-7f8f7bf86"),
        uid: format!("rs-{n}"),
        deployment_uid: format!("00000000-0000-0000-0000-{n:012}").into(),
        spec_replicas: pods,
        status_replicas: pods,
        ready_replicas: pods,
        ..ReplicaSetRecord::default()
    }
}

fn pod(n: usize, p: usize) -> Value {
    let resources = json!({"limits": {"memory": "256Mi"}, "requests": {"memory": "256Mi", "cpu": "100m"}});
    json!({
        "metadata": {"namespace": id(n).namespace, "name": format!("orders-{n}-7f8f7bf86-{p:05}"), "uid": format!("{p:08}-0000-0000-0000-{n:012}"), "resourceVersion": "1234567",
            "creationTimestamp": "2027-01-01T00:00:00Z", "labels": {"pod-template-hash": "7f8f7bf86"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": format!("rs-{n}"), "controller": true}]},
        "spec": {"nodeName": format!("node-{}", (n + p) % 500), "initContainers": [{"name": "qscaler-sidecar", "image": "s"}], "containers": [{"name": "worker", "image": "w", "resources": resources}]},
        "status": {"phase": "Running", "startTime": "2027-01-01T00:00:00Z", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2027-01-01T00:00:10Z"}],
            "initContainerStatuses": [{"name": "qscaler-sidecar", "image": "s", "imageID": "", "ready": true, "started": true, "restartCount": 0}],
            "containerStatuses": [{"name": "worker", "image": "w", "imageID": "", "ready": true, "restartCount": 0, "resources": resources}]}
    })
}

fn report(n: usize, p: usize, second: u64) -> Report {
    let peaks = Peaks {
        cgroup_peak: Some(200 << 20),
        working_set_max: Some(150 << 20),
        cpu_usage_us: Some(second * 200_000),
        limit: Some(256 << 20),
        tasks_done: Some(second),
        started_s: Some(1.0),
        sampled_s: Some((T0_MS / 1000 + second) as f64),
        ..Peaks::default()
    };
    Report {
        version: VERSION,
        workload: id(n),
        workload_uid: format!("00000000-0000-0000-0000-{n:012}").into(),
        pod_uid: format!("{p:08}-0000-0000-0000-{n:012}"),
        pod_name: format!("orders-{n}-7f8f7bf86-{p:05}"),
        sequence: second + 1,
        started_ms: PodMs(T0_MS),
        at_ms: PodMs(T0_MS + second * 1_000),
        state: WorkerState::Open,
        epoch: Epoch(0),
        busy: if (n + p + second as usize).is_multiple_of(3) { Busy::Idle } else { Busy::Busy },
        busy_since_ms: PodMs(T0_MS),
        active_tasks: None,
        processed_total: None,
        service: None,
        peaks: [("worker".to_owned(), peaks)].into(),
        template_hash: "7f8f7bf86".into(),
        access: AccessLevel::Full,
        worker_ids: Some((1000, 1000)),
        cuts: 0,
        cut: None,
        last: false,
        gaps: Vec::new(),
        control_keys: Vec::new(),
        scheduler: None,
    }
}

/// Time that this thread has had on a CPU: the machine may be busy with other things.
fn on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

fn resident_mib() -> u64 {
    let pages: Option<u64> = std::fs::read_to_string("/proc/self/statm").ok().and_then(|s| s.split(' ').nth(1)?.parse().ok());
    (pages.unwrap_or(0) * 4096) >> 20
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut index = Index::default();
    for kind in [Kind::Deployment, Kind::ReplicaSet, Kind::Pod, Kind::Hpa, Kind::Node] {
        index.listed(kind, &(0..100).map(|n| format!("team-{n}")).collect());
    }
    for n in 0..args.workloads {
        let record = DeploymentRecord::new(&serde_json::from_value(deployment(n, args.pods))?).context("a record")?;
        index.apply(Kind::Deployment, Record::Deployment(Box::new(record)));
        index.apply(Kind::ReplicaSet, Record::ReplicaSet(replicaset(n, args.pods)));
        for p in 0..args.pods {
            let record = PodRecord::new(&serde_json::from_value(pod(n, p))?).context("a record")?;
            index.apply(Kind::Pod, Record::Pod(Box::new(record)));
        }
    }
    let index_mib = resident_mib();
    let cluster =
        Cluster { version: Some(ClusterVersion { major: 1, minor: 36 }), node_memory: Some(64 << 30), node_cpu_m: Some(32_000), control_key: None };
    let metrics = Metrics::default();
    let mut managed: Vec<Managed> =
        (0..args.workloads).map(|n| Managed::new(format!("00000000-0000-0000-0000-{n:012}").into(), Life(n as u64), T0_MS)).collect();
    for (n, managed) in managed.iter_mut().enumerate() {
        managed.loaded(Ok(Loaded { known: Known { version: "1".into(), ..Known::default() }, ..Loaded::default() }), &id(n), T0_MS);
    }
    let (mut hearing, mut looking, mut worst, mut writes) = (Duration::ZERO, Duration::ZERO, Duration::ZERO, 0);
    for second in 0..args.seconds {
        let now_ms = T0_MS + second * 1_000;
        let begin = Instant::now();
        let mut room = 100;
        for (n, managed) in managed.iter_mut().enumerate() {
            let reports: Vec<Report> =
                (0..args.pods).filter(|p| (n + p) as u64 % args.report_every == second % args.report_every).map(|p| report(n, p, second)).collect();
            let heard = on_cpu();
            let view = index.view(&id(n)).context("a view")?;
            managed.reports(&Reports { reports, malformed: 0 }, Some(&view), &cluster, now_ms);
            let queue = QueueSample { ready: Some((n as u64 + second) % 20), unacked: Some(7), ..QueueSample::default() };
            managed.sampled(Ok(Measured { queues: vec![queue], gap: None }), now_ms);
            hearing += on_cpu().saturating_sub(heard);
            let looked = on_cpu();
            let view = index.view(&id(n)).context("a view")?;
            let plan = managed.look(&view, &cluster, room > 0, &metrics, now_ms);
            let snapshot = managed.snapshot(&view);
            looking += on_cpu().saturating_sub(looked);
            drop(snapshot);
            let actions = plan.map(|(actions, _)| actions).unwrap_or_default();
            let statuses = actions.iter().filter(|a| matches!(a, Action::Status(_) | Action::Checkpoint(_))).count();
            (room, writes) = (room - i64::try_from(statuses)?, writes + actions.len());
            managed.applied(ListOutcome { done: actions.into_iter().map(|a| (a, Done::Yes)).collect(), ..ListOutcome::default() }, now_ms);
        }
        worst = worst.max(begin.elapsed());
    }
    let looks = args.workloads as u64 * args.seconds;
    let line = json!({
        "workloads": args.workloads, "pods": args.workloads * args.pods, "look_us": looking.as_micros() as f64 / looks as f64,
        "hear_us": hearing.as_micros() as f64 / looks as f64, "busy_share": (looking + hearing).as_secs_f64() / args.seconds as f64,
        "worst_second_s": worst.as_secs_f64(), "actions": writes, "index_mib": index_mib, "resident_mib": resident_mib(),
    });
    // The one line that a caller reads.
    #[allow(clippy::print_stdout)]
    {
        println!("{line}");
    }
    Ok(())
}
