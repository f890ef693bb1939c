//! The hold plan: which processes of the worker's container hear a signal, in which order, and which never. In: the processes as values
//! ([`Process`]), the framework's signals, its name. Out: a [`HoldPlan`] that prints, and while the pod is held, from a [`Holder`], what to do
//! at each look. Left to others: reading `/proc` and sending (`sidecar`), when a hold begins and ends (`worker`).
//!
//! People start workers behind scripts, pipes, init programs and supervisors, so neither parenthood nor names say who works. The rules:
//! * A process works when it has opened a connection to the broker itself (one that it has inherited is its parent's), or when it runs the
//!   framework's program. Only where neither can be seen, the topmost process that has a handler does, launchers passed over.
//! * Of processes of one program (forked, not executed) the topmost that has a handler is told; what is below a worker is never told: a pool's
//!   or a work-horse's process holds the task.
//! * A process without a handler for its signal dies of it: it is not told, unless it has only just started and has no connection at all, so that
//!   it can have no task. In a shared process namespace a container's top process is not PID 1: the kernel does not protect it.
//! * Whatever has started the worker may start it again, or end its siblings: it, and each shell above it up to a supervisor, is suspended while they finish, and told SIGTERM
//!   when none is left, before it goes on. One that reads its children's output is never suspended: they would wait for it. Who stood above a worker is none
//!   itself when that one is gone, though nothing but its handler says so: it waits for those that are suspended, and would be waited for.
//! * Each worker process is told once, also one that appears after the hold was called, until the container has none left.

mod choose;
mod holder;
#[cfg(test)]
mod tests;

pub use choose::{Before, in_same_container, plan};
pub use holder::{HoldAction, Holder};

use crate::framework::Signal;
use crate::message::GapReason;
use std::collections::BTreeSet;
use std::fmt;

/// A process younger than this may still be starting: it has no handler yet, and that is no gap. Python workers on a busy node import for
/// tens of seconds.
pub const STARTING_MS: u64 = 60_000;
/// The same for one that has no connection to anyone yet, nor has anything below it: it may have no handler because its node is slow. It is not told
/// before it has one, and a process without any connection for so long is taken as it is.
pub const SLOW_START_MS: u64 = 300_000;

/// Names a process for ever: its number and its start, in ticks since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId {
    /// Its number.
    pub pid: i32,
    /// Its start.
    pub start_ticks: u64,
}

/// What can be read of a process's descriptors; only the same user may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Descriptors {
    /// Inodes of its established connections to the broker.
    pub broker: BTreeSet<u64>,
    /// It has at least one established connection, to whomever.
    pub connected: bool,
    /// Inodes of the pipes that it can read.
    pub reads: BTreeSet<u64>,
    /// Inodes of the pipes that it can write.
    pub writes: BTreeSet<u64>,
}

/// One process of the worker's container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Which.
    pub id: ProcessId,
    /// Its parent's number; 0: the container's top process, or one executed into it.
    pub parent: i32,
    /// The kernel's name of it, for people: the file's, cut to 15 bytes.
    pub comm: String,
    /// Its arguments; never printed, for they may hold secrets.
    pub argv: Vec<String>,
    /// Where its code and its stack begin: equal in a process and its fork, another after an exec. None: not readable.
    pub image: Option<(u64, u64)>,
    /// Bit n-1: signal n has a handler.
    pub caught: u64,
    /// Bit n-1: signal n is ignored.
    pub ignored: u64,
    /// Bit n-1: signal n is blocked; init programs wait for it so.
    pub blocked: u64,
    /// Its effective user.
    pub uid: u32,
    /// Whether the kernel lets the sidecar signal it.
    pub permitted: bool,
    /// Time since its start; None: not known, which counts as long.
    pub age_ms: Option<u64>,
    /// None: not readable.
    pub descriptors: Option<Descriptors>,
    /// `REMAP_SIGTERM=SIGQUIT` stands in its environment, as far as that can be read.
    pub remaps_term: bool,
}

impl Process {
    /// Whether it has a handler for this signal.
    #[must_use]
    pub fn hears(&self, signal: Signal) -> bool {
        has(self.caught, signal)
    }

    /// What has to be sent to this process for this signal of its framework to mean what it does by default. Celery with `REMAP_SIGTERM=SIGQUIT` cuts its
    /// tasks on SIGTERM, and finishes them on SIGINT (celery/apps/worker.py).
    #[must_use]
    pub fn meant(&self, signal: Signal, framework: &str) -> Signal {
        if framework == "celery" && self.remaps_term && signal == Signal::Term { Signal::Int } else { signal }
    }

    fn is_starting(&self) -> bool {
        self.age_ms.is_some_and(|age_ms| age_ms < STARTING_MS)
    }
}

fn has(set: u64, signal: Signal) -> bool {
    set >> (signal.number() - 1) & 1 == 1
}

/// Why a worker is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Untold {
    /// It has no handler for the signal.
    NoHandler,
    /// It has no handler yet: it has only just started.
    Starting,
    /// The kernel refuses.
    Refused,
}

/// One worker process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Worker {
    /// Which.
    pub id: ProcessId,
    /// Its name.
    pub comm: String,
    /// Its user.
    pub uid: u32,
    /// None: it is told.
    pub untold: Option<Untold>,
    /// It has a handler for SIGTERM, the kubelet's own signal.
    pub hears_term: bool,
    /// It is a shell: its work may be to start others.
    pub is_shell: bool,
    /// It can have no task: it has only just started, and neither it nor what is below it has any connection.
    pub harmless: bool,
    /// Who has started it and would start it again, where they may be suspended meanwhile: its parent, and the shells above that up to a supervisor.
    pub launchers: Vec<ProcessId>,
}

/// Who is told what when this pod ends now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HoldPlan {
    /// The container's top process.
    pub top: ProcessId,
    /// Its name.
    pub top_comm: String,
    /// The processes that work, topmost of each program.
    pub workers: Vec<Worker>,
    /// What is below them, never told.
    pub spared: Vec<ProcessId>,
    /// The top process and what stands above the workers, where it has a handler for SIGTERM: supervisors, told after the workers.
    pub supervisors: Vec<ProcessId>,
    /// What they are told, in this order.
    pub signals: Vec<Signal>,
}

impl HoldPlan {
    /// The workers that will be told.
    pub fn told(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter().filter(|worker| worker.untold.is_none())
    }

    /// Whether the kubelet's own SIGTERM to the container's top process does what the sidecar may not do: it reaches the one worker itself, which
    /// has a handler for it, and is one of its signals.
    #[must_use]
    pub fn kubelet_reaches_worker(&self) -> bool {
        self.signals.contains(&Signal::Term) && matches!(&self.workers[..], [only] if only.id == self.top && only.hears_term)
    }

    /// The reasons that [`Self::gaps`] finds, or finds mended.
    pub const GAPS: &[GapReason] = &[GapReason::NotPermitted, GapReason::NoHandler, GapReason::SignalCuts];

    /// What cannot be kept, with the mend. `own_uid` is the sidecar's user.
    #[must_use]
    pub fn gaps(&self, own_uid: u32) -> Vec<(GapReason, String)> {
        let mut gaps = Vec::new();
        let signal = self.signals.first().map_or("its signal", |signal| signal.name());
        if let Some(worker) = self.workers.iter().find(|worker| worker.untold == Some(Untold::Refused)) {
            let (comm, uid) = (&worker.comm, worker.uid);
            gaps.push((
                GapReason::NotPermitted,
                format!(
                    "the worker {comm} (process {}) runs as UID {uid}, the sidecar as UID {own_uid}, and the kernel refuses it signals: set \
                     securityContext.runAsUser: {uid} on the worker's container (or the pod), or restart the pod once the UID is learned",
                    worker.id.pid
                ),
            ));
        }
        if let Some(worker) = self.workers.iter().find(|worker| worker.untold == Some(Untold::NoHandler)) {
            gaps.push((
                GapReason::NoHandler,
                format!(
                    "{} (process {}) has no handler for {signal} and would die of it with its task: at its pod's end it is not told, and is held until \
                     evidence says that it is idle or the grace is over; let it finish and leave on {signal}, name its signal in qscaler.dev/signal, or say there none to \
                     have it ended at once with its task, as without QScaler",
                    worker.comm, worker.id.pid
                ),
            ));
        }
        gaps
    }
}

impl fmt::Display for HoldPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signals: Vec<&str> = self.signals.iter().map(|signal| signal.name()).collect();
        let (signals, top) = (signals.join(", "), format!("{} {}", self.top.pid, self.top_comm));
        write!(f, "top {top}")?;
        for worker in &self.workers {
            let (pid, comm) = (worker.id.pid, &worker.comm);
            match worker.untold {
                None => write!(f, "; {signals} to {pid} {comm}")?,
                Some(Untold::NoHandler) => write!(f, "; nothing to {pid} {comm}: no handler")?,
                Some(Untold::Starting) if worker.harmless => write!(f, "; {pid} {comm} has only started and has nothing: it may end")?,
                Some(Untold::Starting) => write!(f, "; {signals} to {pid} {comm} once it has a handler")?,
                Some(Untold::Refused) => write!(f, "; nothing to {pid} {comm}: user {} is not ours", worker.uid)?,
            }
            if !worker.launchers.is_empty() {
                let launchers: Vec<String> = worker.launchers.iter().map(|id| id.pid.to_string()).collect();
                write!(f, ", {} suspended meanwhile", launchers.join(", "))?;
            }
        }
        if !self.spared.is_empty() {
            let spared: Vec<String> = self.spared.iter().map(|id| id.pid.to_string()).collect();
            write!(f, "; never {}", spared.join(", "))?;
        }
        if !self.supervisors.is_empty() {
            let supervisors: Vec<String> = self.supervisors.iter().map(|id| id.pid.to_string()).collect();
            write!(f, "; then SIGTERM to {}", supervisors.join(", "))?;
        }
        Ok(())
    }
}
