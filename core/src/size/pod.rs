//! What is known of a pod and of the cluster when a resize is decided, as plain values. In: the controller fills them from the API.
//! Out: facts for `resize` and `qos`. Left to others: reading the API (`controller`).

use serde::{Deserialize, Serialize};

/// Requests and limits of one container. None is "not set".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerResources {
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_request: Option<u64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
    /// Millicores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_request_m: Option<u64>,
    /// Millicores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_limit_m: Option<u64>,
}

/// `status.phase`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PodPhase {
    #[default]
    Unknown,
    Pending,
    Running,
    Succeeded,
    Failed,
}

/// `status.qosClass`, fixed when the pod is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum QosClass {
    Guaranteed,
    #[default]
    Burstable,
    BestEffort,
}

/// Reason of the condition `PodResizePending`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingReason {
    /// Fits the node, not now: the kubelet tries again by itself.
    Deferred,
    /// Will never fit: the kubelet does not try again.
    Infeasible,
}

/// The condition `PodResizePending`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// Its reason.
    pub reason: PendingReason,
    /// Its `lastTransitionTime`.
    pub since_s: f64,
    /// Its message, for people.
    pub message: String,
    /// Speaks of the spec as it is now (`observedGeneration` is the pod's generation, or the API has no such field).
    pub current: bool,
}

/// The condition `PodResizeInProgress`.
#[derive(Clone, Debug, PartialEq)]
pub struct InProgress {
    /// Its reason is `Error`: tried and failed, tried again at each sync.
    pub error: bool,
    /// Its `lastTransitionTime`.
    pub since_s: f64,
    /// Its message, for people.
    pub message: String,
}

/// Why the API server refused a resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCause {
    /// 403 with cause `NodeCapacity` (1.36+): more than the node can ever give.
    NodeCapacity,
    /// 403: a ResourceQuota is used up.
    Quota,
    /// 403: outside the LimitRange.
    LimitRange,
    /// 422: memory limits may not go down (1.33).
    Decrease,
    /// 404 or 405: the cluster has no `pods/resize`.
    NoSubresource,
    /// Anything else.
    Other,
}

/// The last refusal of a resize of this pod. The caller keeps it with the pod's uid, also for a rolled back infeasible resize
/// (cause [`RefusalCause::NodeCapacity`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResizeRefusal {
    /// Why.
    pub cause: RefusalCause,
    /// Memory that was asked for, bytes.
    pub wanted_memory: u64,
    /// When.
    pub at_s: f64,
}

/// One pod and the one container of it that is sized.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResizeFacts {
    /// `status.phase`.
    pub phase: PodPhase,
    /// `deletionTimestamp` is set.
    pub terminating: bool,
    /// In a drain hold, or parked: it is leaving, and a resize in a hold is accepted and never done.
    pub held: bool,
    /// Its worker has no task, as far as is known.
    pub idle: bool,
    /// `status.qosClass`.
    pub qos: QosClass,
    /// Every other container of the pod, init and sidecar ones too, has requests equal to limits for both resources.
    pub others_guaranteed: bool,
    /// The container's `resizePolicy` for memory is `RestartContainer`.
    pub memory_resize_restarts: bool,
    /// `spec.containers[].resources`: what is asked for.
    pub spec: ContainerResources,
    /// `status.containerStatuses[].resources`: what is in force. None when the kubelet has not said.
    pub status: Option<ContainerResources>,
    /// Condition `PodResizePending`, when true.
    pub pending: Option<Pending>,
    /// Condition `PodResizeInProgress`, when true.
    pub in_progress: Option<InProgress>,
    /// The last refusal.
    pub refusal: Option<ResizeRefusal>,
    /// Another writer that sizes this pod (a VPA's name, a field manager).
    pub other_writer: Option<String>,
    /// Use without file cache, bytes, from the last report.
    pub usage_bytes: Option<u64>,
    /// When we last patched this pod's resources.
    pub last_resize_s: Option<f64>,
    /// Seconds since the pod started.
    pub age_s: f64,
}

/// Version of the API server (`/version`); a suffix such as `35+` is the caller's to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterVersion {
    /// 1.
    pub major: u32,
    /// 33 and the like.
    pub minor: u32,
}

impl ClusterVersion {
    /// `pods/resize` is there by default.
    #[must_use]
    pub fn has_resize(self) -> bool {
        self >= Self { major: 1, minor: 33 }
    }

    /// The API allows, and the kubelet checks, a decrease of a memory limit.
    #[must_use]
    pub fn has_memory_decrease(self) -> bool {
        self >= Self { major: 1, minor: 34 }
    }

    /// Parses `/version`'s `major` and `minor`, suffixes such as `33+` included.
    #[must_use]
    pub fn parse(major: &str, minor: &str) -> Option<Self> {
        let number = |text: &str| {
            let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            text[..digits].parse().ok()
        };
        Some(Self { major: number(major)?, minor: number(minor)? })
    }
}

impl std::fmt::Display for ClusterVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}
