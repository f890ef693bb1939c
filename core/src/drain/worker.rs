//! The sidecar's half of the drain: what happened in this pod in, what to do out. Left to others: doing it (`sidecar`), and choosing how many
//! pods go (`fleet`).
//!
//! Rules, each from a measurement on a real cluster:
//! * A hold call signals whatever worker runs, at once, once per worker process. Nothing waits to learn whether the pod or only the worker ends:
//!   the sidecar's own hook comes before or after the worker's with equal odds.
//! * Holds are answered the moment the worker has left, or is not there: the kubelet's own TERM is the fallback.
//! * A worker that cannot be told, because it has no handler or the kernel refuses, is held all the same: where it has no handler it is ended on
//!   evidence from within the hold that it is idle, where the kernel refuses it is then left to the kubelet. Left to the kubelet at once is only who
//!   finishes his task on the kubelet's own TERM.
//! * The hooks of the pod's other containers never touch the worker: they wait for it when the pod ends, and are answered after
//!   [`HELPER_WAIT_MS`] when only their own container does.
//! * A pod whose own hook was called never opens its gate again. Without it (a liveness kill) the next worker process returns to the state
//!   before, its gate closed for [`NEW_MAIN_CLOSED_MS`]: a deletion hidden behind that kill shows within 70 ms of the new process.
//! * With several signals all but the last go out at once (they quiet the worker); the last follows on evidence of idleness that is at least
//!   [`QUIET_SETTLE_MS`] younger. Where nothing tells busy from idle it follows after `max_task_duration_ms`, for no task is longer by the
//!   user's own word; any earlier moment could cut one.
//! * A worker that finishes nothing on any signal is told nothing. It is killed once evidence behind its closed gate says that it is idle; until
//!   then it works on, for as long as the pod's grace lasts.
//! * A token is claimed by a published report, then acked. A parked pod goes back to work by itself at the end of its lease.
//! * A parked worker without a gate may still take a task. It stays parked and says that it is busy: the fleet then resumes it first, and should
//!   its pod be removed, the hold lets the task end.

mod machine;
#[cfg(test)]
mod tests;

pub use machine::WorkerMachine;

use crate::config::DeadlinePolicy;
use crate::framework::Signal;
use crate::message::{Busy, ControlMessage, Epoch};
use crate::workload::WorkloadUid;

/// How long a worker process that follows a hold without a pod's end finds its gate closed. Measured: a deletion hidden behind a liveness kill
/// shows 50 to 70 ms after the new process; this leaves a slow node ten times that.
pub const NEW_MAIN_CLOSED_MS: u64 = 1_000;
/// Evidence of idleness counts for the last of several signals only when it is this much younger than the signals before it: those are
/// delivered at once, but a worker may still be in the middle of fetching.
pub const QUIET_SETTLE_MS: u64 = 1_000;
/// A worker that was told to leave, is idle, whose gate is closed and that is still there after this long does not hear: it is killed.
/// Measured: an idle Celery worker leaves within 2.3 s; this is ten times that, and rounded up.
pub const DEAF_AFTER_MS: u64 = 30_000;

/// How long the hook of a container beside the worker waits for the word that the whole pod ends, which the kubelet brings by the sidecar's own hook.
/// Measured on 1015 pods: at most 314 ms after any other; this is six times that.
pub const HELPER_WAIT_MS: u64 = 2_000;
/// Longest lease that a message may ask for: several times what the controller gives. A longer one is cut to it.
pub const LEASE_MAX_MS: u64 = 600_000;
/// A message that says that it lives longer than this from now is not the controller's, whose tokens live a minute; the rest is for clocks that
/// differ.
pub const EXPIRY_MAX_MS: u64 = 3_600_000;
/// Waves rise by one each, at most one a second: no workload ever comes near.
pub const EPOCH_MAX: Epoch = Epoch(1 << 40);
/// A sidecar may miss the waves of some weeks, and no more.
pub const EPOCH_STEP_MAX: u64 = 1 << 20;

/// The incarnation of a worker that is there and cannot be seen (no shared process namespace): its end is not seen either.
pub const UNSEEN: u64 = 0;

/// What one sidecar is told about its worker. Times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkerSettings {
    /// UID of this pod.
    pub pod_uid: String,
    /// UID of the workload; empty: any is accepted.
    pub workload_uid: WorkloadUid,
    /// Told to the worker in this order when its pod ends; empty: the kubelet's TERM is left to do it.
    pub signals: Vec<Signal>,
    /// Whether the worker can be kept from taking new tasks.
    pub has_gate: bool,
    /// The worker dies of every signal, and hears none behind its gate: it is told nothing, and killed once it is idle behind its closed gate.
    pub kill_behind_gate: bool,
    /// How long a task may run.
    pub max_task_duration_ms: u64,
    /// What happens to a task that runs longer than that in a hold.
    pub deadline_policy: DeadlinePolicy,
    /// A worker that was not seen idle for this long may take a token as well.
    pub patience_ms: u64,
    /// A token taken by a worker that does not become idle is given back after this long.
    pub give_back_ms: u64,
}

/// What happened in the pod. The driver reports it as it comes, in any order, and as often as it likes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WorkerEvent {
    /// The worker's top process is there. A number names it; another process has another number.
    MainSeen {
        /// Which process.
        incarnation: u64,
    },
    /// That process has ended.
    MainExited {
        /// Which process.
        incarnation: u64,
    },
    /// Evidence taken just now. Every sample is to be handed in, changed or not: its age matters.
    Busy(Busy),
    /// A token taken from the broker and not yet acked. At most one is outstanding.
    Token(ControlMessage),
    /// An order to go on working.
    Resume(ControlMessage),
    /// A person's order to end the hold of this pod now.
    Release(ControlMessage),
    /// The kubelet called the preStop hook of the worker's container. The driver looks for the worker first and hands in what it found: a hold
    /// that a sidecar answers because it has not seen the worker yet lets the kubelet's TERM through.
    HoldCalled,
    /// The kubelet called the preStop hook of another container of the pod.
    HelperHoldCalled,
    /// The kubelet called the sidecar's own preStop hook: the pod ends. The driver answers it at once.
    OwnHookCalled,
    /// SIGTERM to the sidecar.
    Terminated,
    /// The gate is closed: from now on the worker starts no task.
    GateClosed,
    /// The gate is open.
    GateOpened,
    /// The worker's processes are out of sight, or the kernel refuses to kill them: there is nothing that this sidecar can do.
    SignalFailed,
    /// Who of the worker's processes can be told, since the hold was called and whenever that changes.
    Telling(Telling),
    /// No worker process is left in the container, though its top process is: the rest is the kubelet's.
    WorkersLeft,
    /// The report that says Parked has been published durably.
    ClaimReported,
}

/// Who can be told, while a hold lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Telling {
    /// At least one worker process is told, or will be as soon as it has its handler.
    Told,
    /// None has a handler: a signal would end it with its task.
    NoHandler,
    /// The kernel refuses.
    Refused {
        /// The kubelet's own TERM reaches the worker itself, which has a handler for it, and is one of its signals.
        kubelet_reaches: bool,
    },
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WorkerEffect {
    /// Take tokens from the shared control queue, or stop taking.
    ListenShared(bool),
    /// Acknowledge the outstanding token.
    Ack,
    /// Put the outstanding token back into the queue, for another pod.
    GiveBack,
    /// Publish a report now. When it says Parked and is durable, hand in [`WorkerEvent::ClaimReported`].
    Report,
    /// What the sidecar's readiness probe answers from now on.
    SetReady(bool),
    /// Keep the worker from taking tasks; then hand in [`WorkerEvent::GateClosed`].
    CloseGate,
    /// Let it take tasks again.
    OpenGate,
    /// The next of the worker's signals, which is this one, may go to its processes from now on, as the hold plan says (`drain::plan`). Hand in
    /// [`WorkerEvent::Telling`], and [`WorkerEvent::SignalFailed`] if there is no worker in sight.
    Signal(Signal),
    /// Answer every waiting hold call.
    AnswerHolds,
    /// Answer those of the other containers alone.
    AnswerHelpers,
    /// SIGKILL to the worker: the deadline's policy, or a deaf worker that is quiet for sure.
    KillMain,
    /// A running task is cut; the cause, for the next report and the metrics.
    CountCut(String),
    /// Leave.
    Exit,
}
