//! The demonstration: what is watched (`watch`), and how it is shown in a terminal (`table`) and as a page (`report`). In: samples of a running
//! fleet. Out: text, HTML, and the summary. Left to others: making the fleet (`stand`), the script of events (`bin/demo`).

pub mod report;
pub mod table;

use serde::Serialize;

/// What a viewer sees at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sample {
    /// Seconds since the demo's first task.
    pub at: f64,
    /// Messages that wait; None: unknown.
    pub backlog: Option<i64>,
    /// Messages in work; None: unknown.
    pub in_flight: Option<i64>,
    /// Messages per second coming, as the status shows it.
    pub rate_in: String,
    /// Messages per second done, as the status shows it.
    pub rate_out: String,
    /// `spec.replicas`.
    pub replicas: i64,
    /// Useful pods wished for.
    pub desired: i64,
    /// Pods that are Ready.
    pub ready: i64,
    /// Pods parked.
    pub parked: i64,
    /// Pods that end.
    pub terminating: i64,
    /// Pods of any kind, ending ones too.
    pub pods: i64,
    /// Tasks done so far.
    pub done: i64,
    /// Memory of the pods, in MiB, lowest and highest.
    pub memory_mib: (u64, u64),
    /// OOM kills counted.
    pub oom_kills: i64,
    /// Reason of the last decision.
    pub reason: String,
    /// Which act is on.
    pub act: &'static str,
}

/// The demo's last line.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// `redis` or `rabbitmq`.
    pub broker: String,
    /// Tasks sent.
    pub sent: usize,
    /// Tasks done.
    pub done: usize,
    /// Runs cut by anything but the kernel's OOM killer.
    pub cut: usize,
    /// Tasks done more than once.
    pub doubled: usize,
    /// Tasks never done.
    pub lost: usize,
    /// Most replicas.
    pub peak_replicas: i64,
    /// Replicas at the end.
    pub final_replicas: i64,
    /// From the first message of the burst to the Deployment's new replica count, in seconds.
    pub burst_to_scale_s: f64,
    /// Median wait.
    pub wait_p50_s: f64,
    /// 99th percentile.
    pub wait_p99_s: f64,
    /// Pods (ending ones too) over time.
    pub pod_seconds: f64,
    /// OOM kills counted.
    pub oom_kills: i64,
    /// Runs that the OOM killer ended; each was run again.
    pub oom_retried: usize,
    /// The worker's memory before the OOM kill.
    pub memory_before: String,
    /// And what new pods get now.
    pub memory_after: String,
}
