//! The wire: control messages to sidecars and reports from them, as JSON with a version.
//! In: values. Out: JSON, and back; a message that does not parse gives a reason to count and drop it. Every released message stays as a
//! golden file in `core/tests/messages/`. Left to others: carrying them (`broker`), believing them (`drain`, `size`).
//! Messages are hints: lost, doubled or late ones change efficiency, never safety. So do forged ones, but for RELEASE, which ends a task by order: it is
//! believed only in a held pod that it names by its UID and its workload's. Control messages are signed on their way (`broker::signing`, SECURITY.md).

use crate::framework::Scheduler;
use crate::size::Peaks;
use crate::workload::{WorkloadId, WorkloadUid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version written by this release. Readers accept any version with the same major meaning: 1.
pub const VERSION: u32 = 1;
/// A longer message is dropped unread: none of ours comes near.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// What a control message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ControlKind {
    /// A free worker shall park, so that its pod can be removed.
    SigkillQueue,
    /// A parked worker shall go on working.
    Resume,
    /// A held pod shall end its hold now (a person's order).
    Release,
}

/// Controller -> sidecar. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlMessage {
    /// [`VERSION`].
    pub version: u32,
    /// What is asked.
    pub kind: ControlKind,
    /// The workload's UID: a message of a deleted namesake means nothing.
    pub workload_uid: WorkloadUid,
    /// Number of the wave.
    pub epoch: Epoch,
    /// When it was sent.
    pub issued_ms: u64,
    /// Dead from then on.
    pub expires_ms: u64,
    /// How long a parked worker waits for its end before it goes back to work by itself.
    pub lease_ms: u64,
    /// UID of the one pod that is meant; None: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// Number of a workload's wave of drain tokens, which rises by one with each; 0: none yet. What has a lower one than was seen is old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// That of the next wave.
    #[must_use]
    pub fn next(self) -> Self {
        self.after(1)
    }

    /// That of the wave so many waves later.
    #[must_use]
    pub fn after(self, waves: u64) -> Self {
        Self(self.0.saturating_add(waves))
    }
}

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds since the Unix epoch by the clock of a pod's node, as its sidecar and its kubelet have it. The controller's clock is another one, and they may
/// differ by minutes: times of the two are not compared, and a type of its own keeps them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodMs(pub u64);

impl PodMs {
    /// Milliseconds from an earlier time to this one, by the same clock; 0 where it is no earlier one.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Where a sidecar stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WorkerState {
    /// Starting: no worker process yet.
    Boot,
    /// Working or waiting for work.
    Open,
    /// Has a drain token, waits until idle.
    Closing,
    /// Idle, not Ready, waits for its end.
    Parked,
    /// The pod ends; the worker finishes its task.
    Held,
    /// The worker has left, or was let go.
    Released,
}

/// Whether the worker has a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Busy {
    /// It has at least one.
    Busy,
    /// It has none, by evidence not older than the source's own period.
    Idle,
    /// Nothing says.
    Unknown,
}

/// How much the sidecar may see and do; decided by trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AccessLevel {
    /// Signals and the cgroup files.
    Full,
    /// Signals, and VmHWM only.
    SignalOnly,
    /// VmHWM only: the UIDs differ.
    ReadOnly,
    /// The worker's processes are not visible.
    None,
}

/// Sidecar -> controller: at each change and every few seconds. Times are by the pod's clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// Whose pod.
    pub workload: WorkloadId,
    /// The workload's UID as the sidecar was told; empty: not known.
    #[serde(default)]
    pub workload_uid: WorkloadUid,
    /// The pod.
    pub pod_uid: String,
    /// The pod's name.
    pub pod_name: String,
    /// Rises with each report of this sidecar process; a lower one than seen, with the same `started_ms`, is old.
    pub sequence: u64,
    /// When this sidecar process started.
    pub started_ms: PodMs,
    /// When this was written.
    pub at_ms: PodMs,
    /// Where the sidecar stands.
    pub state: WorkerState,
    /// Epoch of the token that it holds or held last.
    #[serde(default)]
    pub epoch: Epoch,
    /// Whether the worker has a task.
    pub busy: Busy,
    /// Since when busy is what it is; 0: not known.
    #[serde(default)]
    pub busy_since_ms: PodMs,
    /// Tasks running now, where the source counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_tasks: Option<u32>,
    /// Tasks finished since the worker started, where the source counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processed_total: Option<u64>,
    /// Mean busy time in milliseconds of the tasks that ended since the last report, and their number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<EndedTasks>,
    /// Highest use, by container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub peaks: BTreeMap<String, Peaks>,
    /// `pod-template-hash`.
    #[serde(default)]
    pub template_hash: String,
    /// What the sidecar may do here.
    pub access: AccessLevel,
    /// UID and GID of the worker's top process: the webhook gives the sidecars of later pods the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_ids: Option<(u32, u32)>,
    /// Running tasks cut since the sidecar started, and said in every report from then on: whoever counts takes what is new since he counted last.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cuts: u32,
    /// The cause of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<String>,
    /// The last report of this pod.
    #[serde(default)]
    pub last: bool,
    /// Every way in which this pod's hold is less than whole, as the sidecar sees it now; empty: a running task is held until it is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<HoldGap>,
    /// Short names of the keys that control messages must be signed by in this pod; empty: it was given none, and believes unsigned ones. At most
    /// [`crate::control_key::KEYS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub control_keys: Vec<String>,
    /// A scheduler that runs in the worker's container and is scaled along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
}

/// Most gaps of one report: there are no more reasons than that, and each is said once.
pub const GAPS_MAX: usize = 16;

/// One way in which a pod's hold is less than whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldGap {
    /// Which.
    pub reason: GapReason,
    /// What was seen and how to mend it, in one sentence for people, without secrets; at most a few hundred bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Why a hold is less than whole. The controller shows the name as the reason of the condition `HoldEffective`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GapReason {
    /// The worker's processes are not visible: no shared process namespace.
    NotVisible,
    /// The kernel refuses signals to the worker: it runs as another user than the sidecar.
    NotPermitted,
    /// The working process has no handler for its signal: it would die of it, so it is held without being told.
    NoHandler,
    /// By the worker's own settings the signal ends a running task (Celery: `REMAP_SIGTERM=SIGQUIT`; arq: no `job_completion_wait`).
    SignalCuts,
    /// The gate cannot be closed, or the proof that it needs never comes.
    GateCannotClose,
    /// Nothing tells busy from idle, so this pod never parks while it is idle.
    IdleUnknown,
    /// The broker does not know this sidecar's user, or refuses it a right that it needs.
    BrokerRefuses,
    /// The broker's URL is missing or cannot be used, or the broker cannot be reached.
    BrokerUnreachable,
    /// What the webhook told the sidecar cannot be read whole, as where the two are of different versions; defaults stand in.
    Misconfigured,
    /// The sidecar was started again during a hold.
    SidecarRestarted,
    /// Nothing is heard of a sidecar that runs. Seen by the controller.
    SidecarSilent,
    /// The pod's clock and the controller's differ by more than messages live. Seen by the controller.
    ClockSkew,
    /// Control messages that this pod got were not signed by a key that it was given; or, as the controller sees it, will not be.
    MessagesRefused,
    /// A reason that this release does not know.
    #[serde(other)]
    Other,
}

impl GapReason {
    /// How severe it is; 0 is the most: a running task is cut, then it is left to chance, then an idle pod is only kept from being let go.
    #[must_use]
    pub fn severity(self) -> u8 {
        match self {
            Self::NotPermitted => 0,
            Self::SignalCuts => 1,
            Self::NotVisible => 2,
            Self::NoHandler => 3,
            Self::Misconfigured => 4,
            Self::SidecarSilent => 5,
            Self::SidecarRestarted => 6,
            Self::GateCannotClose => 7,
            Self::BrokerUnreachable => 8,
            Self::BrokerRefuses => 9,
            Self::MessagesRefused => 10,
            Self::ClockSkew => 11,
            Self::IdleUnknown => 12,
            Self::Other => 13,
        }
    }

    /// Stable name, as conditions, metrics and documents have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotVisible => "NotVisible",
            Self::NotPermitted => "NotPermitted",
            Self::NoHandler => "NoHandler",
            Self::SignalCuts => "SignalCuts",
            Self::GateCannotClose => "GateCannotClose",
            Self::IdleUnknown => "IdleUnknown",
            Self::BrokerRefuses => "BrokerRefuses",
            Self::BrokerUnreachable => "BrokerUnreachable",
            Self::Misconfigured => "Misconfigured",
            Self::SidecarRestarted => "SidecarRestarted",
            Self::SidecarSilent => "SidecarSilent",
            Self::ClockSkew => "ClockSkew",
            Self::MessagesRefused => "MessagesRefused",
            Self::Other => "Other",
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it with a reference
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Tasks that ended, and how long they kept the worker busy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndedTasks {
    /// How many.
    pub tasks: u32,
    /// Their mean busy time in milliseconds.
    pub mean_ms: f64,
}

/// Why a message was dropped.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Too long.
    #[error("message of {0} bytes, at most {MESSAGE_BYTES_MAX} are read")]
    TooLong(usize),
    /// Not the JSON of this message.
    #[error("message does not parse")]
    Malformed(#[from] serde_json::Error),
    /// From a future with another meaning.
    #[error("message version {0}, this release reads version {VERSION}")]
    Version(u32),
}

fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8], version: fn(&T) -> u32) -> Result<T, MessageError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(MessageError::TooLong(bytes.len()));
    }
    let message: T = serde_json::from_slice(bytes)?;
    if version(&message) == VERSION { Ok(message) } else { Err(MessageError::Version(version(&message))) }
}

impl ControlMessage {
    /// Reads a message.
    ///
    /// # Errors
    /// When it is too long, malformed, or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        decode(bytes, |m: &Self| m.version)
    }

    /// The JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// When it is too long, malformed, or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        decode(bytes, |m: &Self| m.version)
    }

    /// The JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}
