//! The QWorker type: one per managed workload, made and written by the controller, owned by the Deployment. People write annotations, the
//! system writes QWorkers. In: values of `core`. Out: the Kubernetes object and its CRD. Left to others: when it is written (`controller`);
//! what only the next life of the controller needs (`checkpoint`).

mod checkpoint;

pub use checkpoint::{QWorkerCheckpoint, QWorkerCheckpointSpec, SavedSize};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which workload this describes.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "qscaler.dev",
    version = "v1alpha1",
    kind = "QWorker",
    plural = "qworkers",
    shortname = "qw",
    namespaced,
    derive = "Default",
    derive = "PartialEq",
    status = "QWorkerStatus",
    printcolumn = r#"{"name":"Queue","type":"string","jsonPath":".status.queue"}"#,
    printcolumn = r#"{"name":"Backlog","type":"integer","jsonPath":".status.backlog"}"#,
    printcolumn = r#"{"name":"Replicas","type":"integer","jsonPath":".status.replicas"}"#,
    printcolumn = r#"{"name":"Desired","type":"integer","jsonPath":".status.desired"}"#,
    printcolumn = r#"{"name":"Rule","type":"string","jsonPath":".status.rule"}"#,
    printcolumn = r#"{"name":"Hold","type":"string","jsonPath":".status.conditions[?(@.type==\"HoldEffective\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"In-flight","type":"integer","priority":1,"jsonPath":".status.inFlight"}"#,
    printcolumn = r#"{"name":"Rate-in","type":"string","priority":1,"jsonPath":".status.rateIn"}"#,
    printcolumn = r#"{"name":"Rate-out","type":"string","priority":1,"jsonPath":".status.rateOut"}"#,
    printcolumn = r#"{"name":"Parked","type":"integer","priority":1,"jsonPath":".status.parked"}"#,
    printcolumn = r#"{"name":"Unheld","type":"integer","priority":1,"jsonPath":".status.unheld"}"#,
    printcolumn = r#"{"name":"Memory","type":"string","priority":1,"jsonPath":".status.memory"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","priority":1,"jsonPath":".status.reason"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct QWorkerSpec {
    /// Always `Deployment`.
    pub target_kind: String,
    /// The workload's name, which is also the QWorker's.
    pub target_name: String,
}

/// What the system knows and does about the workload. Quantities are bytes and millicores.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct QWorkerStatus {
    /// `metadata.generation` of the Deployment that was read last.
    pub observed_generation: i64,
    /// The queues, comma-separated.
    pub queue: String,
    /// Messages that wait; absent: unknown.
    pub backlog: Option<i64>,
    /// Messages taken and not finished; absent: unknown.
    pub in_flight: Option<i64>,
    /// Messages per second coming, two decimals; empty: unknown.
    pub rate_in: String,
    /// Messages per second done, two decimals; empty: unknown.
    pub rate_out: String,
    /// `spec.replicas` of the Deployment.
    pub replicas: i32,
    /// Useful pods wished for.
    pub desired: i32,
    /// Pods that are Ready and not parked.
    pub ready: i32,
    /// Workers with a task, as their sidecars say.
    pub busy: i32,
    /// Pods parked.
    pub parked: i32,
    /// Pods whose hold is less than whole: condition `HoldEffective` says which and why.
    pub unheld: i32,
    /// Some of those, at most ten.
    pub unheld_pods: Vec<UnheldPod>,
    /// Pods that end, held until their task is done.
    pub terminating: i32,
    /// The memory that new pods of the working container get, as a quantity.
    pub memory: String,
    /// Why the last decision was made, in one sentence.
    pub reason: String,
    /// The rule that made it.
    pub rule: String,
    /// When it last changed, RFC 3339.
    pub decided_at: String,
    /// What would have been done (dry run); absent where decisions are applied.
    pub would_do: Option<String>,
    /// Conditions; types in `qscaler_core::names::condition`.
    pub conditions: Vec<Condition>,
    /// The wave of drains under way.
    pub intent: Option<Intent>,
    /// Of releases before QWorkerCheckpoint: read once, and removed.
    #[schemars(schema_with = "any_object")]
    pub learned: Option<serde_json::Value>,
    /// Sizes by container.
    pub sizes: BTreeMap<String, ContainerSize>,
    /// UID and GID of the worker's top process, as learned from earlier pods: the sidecars of new pods get the same.
    pub worker_ids: Option<WorkerIds>,
    /// Counters that survive restarts.
    pub counters: Counters,
    /// Of releases before QWorkerCheckpoint: read once, and removed.
    pub counted_cuts: Vec<CountedCuts>,
}

/// A pod whose hold is less than whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UnheldPod {
    /// Its name.
    pub name: String,
    /// Why, the most severe first: reasons of the condition `HoldEffective`.
    pub reasons: Vec<String>,
}

/// Cuts that one sidecar process has told and that are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CountedCuts {
    /// The pod.
    pub pod_uid: String,
    /// When its sidecar process started, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// How many.
    pub count: u32,
}

/// The drain intent, written before the first message of a wave is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Intent {
    /// Number of the wave; never falls.
    pub epoch: u64,
    /// Workers asked to leave.
    pub count: u32,
    /// When, in milliseconds since the Unix epoch.
    pub issued_ms: u64,
    /// Dead from then on.
    pub expires_ms: u64,
}

/// The size of one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerSize {
    /// `pod-template-hash` that the estimate belongs to.
    pub template_hash: String,
    /// Of releases before QWorkerCheckpoint: read once, and removed.
    #[schemars(schema_with = "any_object")]
    pub estimate: Option<serde_json::Value>,
    /// What new pods should get; absent: nothing known yet.
    pub recommended: Option<Resources>,
    /// What the template says now.
    pub current: Option<Resources>,
    /// What a pod saves once it has the size that is aimed at; negative: it needs more.
    pub saving: Option<Saving>,
    /// What is measured, and where it is less than everything, why; in one sentence.
    pub measured: String,
    /// Why, in one sentence.
    pub reason: String,
}

/// What is saved per pod; negative: what is added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Saving {
    /// Bytes.
    pub memory_bytes: Option<i64>,
    /// Millicores.
    pub cpu_request_millicores: Option<i64>,
}

/// Memory (request and limit) and CPU (request).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Bytes.
    pub memory_bytes: Option<u64>,
    /// Millicores.
    pub cpu_request_millicores: Option<u64>,
}

/// A process's owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkerIds {
    /// UID.
    pub uid: i64,
    /// GID.
    pub gid: i64,
}

/// Counters of events that matter to a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Counters {
    /// Replicas added.
    pub scaled_up: u64,
    /// Replicas removed.
    pub scaled_down: u64,
    /// Workers drained before their end.
    pub drained: u64,
    /// Running tasks cut, with each cause in an Event.
    pub cut: u64,
    /// The same by cause: `deadline`, `release`, `grace-over`, `not-held`, `out-of-memory`, `killed`, `forced`, `other`.
    pub cut_by: BTreeMap<String, u64>,
    /// OOM kills, of whole containers and of single processes.
    pub oom_kills: u64,
    /// Pods resized in place.
    pub resized: u64,
    /// Messages dropped because they did not parse.
    pub malformed_messages: u64,
}

/// The schema of a value that only we read: any JSON object, kept as it is.
fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true})
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::CustomResourceExt;

    #[test]
    fn kubectl_get_qworkers_fits_into_120_columns() {
        let crd = QWorker::crd();
        let columns = crd.spec.versions[0].additional_printer_columns.clone().unwrap_or_default();
        let shown: Vec<&str> = columns.iter().filter(|c| c.priority.unwrap_or(0) == 0).map(|c| c.name.as_str()).collect();
        // The longest value of each, as far as it is ours to say; names of Deployments and of queues as they usually are.
        let longest = |column: &str| match column {
            "Queue" => "invoices-monthly",
            "Backlog" => "9999999",
            "Replicas" | "Desired" => "100000",
            "Rule" => "length-target",
            "Hold" => "BrokerUnreachable",
            "Age" => "364d",
            other => panic!("{other}: how wide is it?"),
        };
        let width = |column: &&str| longest(column).len().max(column.len()) + 3;
        let line = "orders-worker-monthly".len() + 3 + shown.iter().map(width).sum::<usize>();
        assert!(line <= 120, "{line} columns: {shown:?}");
        let wide: Vec<&str> = columns.iter().filter(|c| c.priority == Some(1)).map(|c| c.name.as_str()).collect();
        assert!(wide.contains(&"Reason"), "the sentence is for -o wide: {wide:?}");
    }
}
