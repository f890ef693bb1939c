//! The controller's half of the drain: what the API and the reports say of one workload in, what to do out. Left to others: doing it
//! (`controller`), how many pods are wanted (`scale`).
//!
//! Level-triggered: each step looks at the facts alone and says what is missing; the only memory that matters is the intent, which is saved
//! before any message of its wave is sent. A lost, doubled or late message, a crash or an old cache therefore costs time and nothing else.
//!
//! Up: parked pods go back to work first, then the count rises in one step, also during a rollout, unless the cluster has no room for it
//! (`rollout`). Down, in waves: ask (tokens), mark (deletion
//! cost), wait for the echo (`readyReplicas` has dropped **and** each parked pod is itself not ready), lower by no more than those, settle.
//! Pods that are still starting go without a token: the ReplicaSet takes them before any parked pod anyway.
//! The size of a wave is bounded by `maxUnavailable`, so that the Deployment stays Available; a fleet that goes to zero has nothing to keep
//! available and goes in one wave. Pods on cordoned nodes are replaced first and then drained by tokens that name them. Lowering waits while any active pod is neither ready, parked nor counted in, for it would be hit first.

mod blocked;
mod count;
mod machine;
mod protect;
mod release;
mod replace;
mod rollout;
#[cfg(test)]
mod tests;
mod wanted;

pub use machine::FleetMachine;
pub use release::Releases;
pub use wanted::{PERIOD_MS, Silent, TOKEN_TTL_MS, desired, look_again};

use crate::message::{Busy, ControlMessage, Epoch, WorkerState};
use crate::workload::WorkloadUid;
use serde::{Deserialize, Serialize};

/// The cost that marks a parked pod: the lowest there is.
pub const PARKED_COST: i32 = i32::MIN;
/// Sidecars report every few seconds; a report older than this says nothing about now.
pub const REPORT_STALE_MS: u64 = 60_000;
/// A report that came at `at_ms` still says something about now: the one rule of freshness for all that is decided from reports.
#[must_use]
pub fn is_fresh(at_ms: u64, now_ms: u64) -> bool {
    now_ms < at_ms.saturating_add(REPORT_STALE_MS)
}

/// The next look when the facts themselves do not wake the driver: facts come by watch, this only covers a lost one.
pub const RECHECK_MS: u64 = 1_000;

/// What rules one workload. Times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FleetSettings {
    /// UID of the workload; goes into each message.
    pub workload_uid: WorkloadUid,
    /// The count is never lowered below this.
    pub min_replicas: u32,
    /// The count is never raised above this, for replacements neither.
    pub max_replicas: u32,
    /// How long a token lives.
    pub token_ttl_ms: u64,
    /// How long a parked pod waits for its end. Longer than the waits below together, or a wave's first pods are back at work before its last are
    /// there.
    pub lease_ms: u64,
    /// How long the ReplicaSet's echo is waited for once every parked pod is not ready; it only makes the right victim more likely.
    pub echo_timeout_ms: u64,
    /// How long a wave waits for more parked pods before the count is lowered by those there are.
    pub gather_ms: u64,
    /// The user paused lowering.
    pub paused_down: bool,
    /// Another owns the count: never scale, only mark idle and busy pods.
    pub protect: bool,
}

/// The newest report of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReportFacts {
    /// Where its sidecar stands.
    pub state: WorkerState,
    /// Its wave.
    pub epoch: Epoch,
    /// Whether its worker has a task.
    pub busy: Busy,
    /// When the report came in, by the controller's clock.
    pub at_ms: u64,
}

/// One pod of the workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodFacts {
    /// UID.
    pub uid: String,
    /// Name.
    pub name: String,
    /// Of the pod as read.
    pub resource_version: String,
    /// When it was created.
    pub created_ms: u64,
    /// Condition Ready.
    pub ready: bool,
    /// Has a node.
    pub scheduled: bool,
    /// The scheduler has found no node for it.
    pub unschedulable: bool,
    /// Its phase is Pending: not all of its containers have run.
    pub pending: bool,
    /// Its worker has run, be it for a moment.
    pub started: bool,
    /// Has a deletion timestamp.
    pub terminating: bool,
    /// Carries our sidecar and its hold.
    pub injected: bool,
    /// The sidecar has started.
    pub sidecar_started: bool,
    /// The sidecar's container is ready.
    pub sidecar_ready: bool,
    /// `controller.kubernetes.io/pod-deletion-cost`; 0 where it is not set.
    pub deletion_cost: i32,
    /// It has a deletion cost, and one that we set.
    pub cost_ours: bool,
    /// The newest report; None: none came.
    pub report: Option<ReportFacts>,
    /// Its hold is less than whole, by its own word: it is not asked to go while a better one is idle.
    pub gapped: bool,
    /// Its node takes no more pods and is about to be emptied.
    pub node_cordoned: bool,
    /// UID of its ReplicaSet.
    pub set_uid: String,
}

/// One ReplicaSet of the workload that has or wants pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SetFacts {
    /// UID.
    pub uid: String,
    /// When it was created.
    pub created_ms: u64,
    /// `deployment.kubernetes.io/revision`: the highest is the template's as it is now.
    pub revision: u64,
    /// `spec.replicas`.
    pub spec_replicas: u32,
    /// `deployment.kubernetes.io/max-replicas`: the count and the surge that its size was made for; None: not set.
    pub max_replicas: Option<u32>,
    /// Why a pod of it could not be created (condition `ReplicaFailure`), in the API server's words.
    pub create_failure: Option<String>,
}

/// A number of pods as a rollout strategy has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Amount {
    /// So many.
    Pods(u32),
    /// Of the count, rounded up.
    Percent(u32),
}

/// Everything one step looks at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FleetFacts {
    /// Of the `/scale` as read.
    pub resource_version: String,
    /// `status.observedGeneration` is the object's generation.
    pub generation_observed: bool,
    /// `spec.replicas`.
    pub spec_replicas: u32,
    /// `status.replicas`.
    pub status_replicas: u32,
    /// `status.readyReplicas` of the active ReplicaSet.
    pub rs_ready_replicas: u32,
    /// ReplicaSets that have or want pods.
    pub sets: Vec<SetFacts>,
    /// `maxSurge` of a rolling update; None: the strategy is another.
    pub max_surge: Option<Amount>,
    /// `maxUnavailable` of the rollout strategy, in pods.
    pub max_unavailable: u32,
    /// Active and terminating pods.
    pub pods: Vec<PodFacts>,
    /// Another scaler on the target, as a sentence.
    pub conflict: Option<String>,
    /// Some of this, or what the wish is made from, is too old to lower by.
    pub data_stale: bool,
    /// Why this may be an incomplete picture (a watch that has not listed the namespace yet, or fails), in words that follow "because"; None: every
    /// watch behind it is in sync. What is not listed is not known to be absent.
    pub out_of_sync: Option<String>,
    /// This controller holds the lease.
    pub leader: bool,
}

/// A wave of tokens, saved before any of them is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IntentRecord {
    /// Number of the wave.
    pub epoch: Epoch,
    /// How many pods were asked to park; 0: the wave is over.
    pub count: u32,
    /// When.
    pub issued_ms: u64,
    /// From then on its tokens are dead.
    pub expires_ms: u64,
}

/// What is to be done, in this order. A driver may stop at the first that is refused, or go on with what does not hang on it (a wave and a decrement
/// on the saved intent, a pod's message on its mark): the next step says again what is still missing. Only after a refused [`FleetEffect::SaveIntent`] the
/// machine is made anew, by `restore` from the status as it is then: somebody else has written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FleetEffect {
    /// Save the wave in the workload's status.
    SaveIntent(IntentRecord),
    /// Publish a message; directed ones to that pod, others to the shared queue.
    Publish(ControlMessage),
    /// Empty the shared control queue.
    Purge,
    /// Set or remove a pod's deletion cost, for exactly this UID and resource version.
    SetDeletionCost {
        /// UID.
        pod_uid: String,
        /// Name.
        pod_name: String,
        /// Of the pod as read.
        resource_version: String,
        /// None: remove the annotation.
        cost: Option<i32>,
    },
    /// Write `/scale` with this resource version.
    Scale {
        /// Of the `/scale` as read.
        resource_version: String,
        /// The count as read.
        from: u32,
        /// The new count.
        to: u32,
        /// Why, in one sentence.
        reason: String,
    },
}

/// Where a drain stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nothing to do.
    Idle,
    /// Tokens are out.
    Asking,
    /// Parked pods are being marked, or a starting pod is waited for.
    Marking,
    /// The ReplicaSet's echo is waited for.
    Echo,
    /// The count is lowered in this step.
    Lowering,
    /// The count was changed and the ReplicaSet has not followed yet.
    Settling,
    /// Parked pods go back to work.
    Resuming,
    /// Nothing may be lowered.
    Blocked {
        /// Why, in one sentence.
        reason: String,
    },
}

/// What one step decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FleetStep {
    /// What to do.
    pub effects: Vec<FleetEffect>,
    /// Where the drain stands.
    pub phase: Phase,
    /// Why nothing may be lowered, in one sentence; present also while nothing needs to be.
    pub blocked: Option<String>,
    /// Why fewer pods are asked for than are wanted, in one sentence.
    pub not_raised: Option<String>,
    /// Parked pods.
    pub parked: u32,
    /// Pods that are ready or starting, not parked, not terminating.
    pub useful: u32,
    /// When to step again if nothing changes before.
    pub next_wake_ms: Option<u64>,
}
