//! The processes of one pod, a moment of it, and what may happen next. In: nothing. Out: small values that can be compared and hashed. Left to others:
//! what follows (`container`).

use qscaler_core::drain::plan::Holder;
use qscaler_core::drain::worker::WorkerMachine;

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Proc {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) role: Role,
    pub(crate) handler: bool,
    pub(crate) connected: bool,
    pub(crate) task: bool,
    pub(crate) told: bool,
    pub(crate) suspended: bool,
    /// SIGTERM waits for it to go on.
    pub(crate) pending: bool,
    /// Started in the hold.
    pub(crate) late: bool,
}

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Script,
    Loop,
    Supervisor,
    Worker,
    /// One that never has a handler.
    Deaf,
    /// Of the worker's pool: has its handlers and its connection, and runs its task.
    Child,
}

/// A moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) machine: WorkerMachine,
    pub(crate) holder: Holder,
    pub(crate) procs: Vec<Proc>,
    pub(crate) restarts: u8,
    pub(crate) looks_late: u8,
    pub(crate) pod_ends: bool,
    pub(crate) hold_called: bool,
    pub(crate) helper_called: bool,
    pub(crate) own_called: bool,
    pub(crate) waits: bool,
    pub(crate) helper_waits: bool,
    pub(crate) answered: bool,
    pub(crate) released: bool,
    pub(crate) gate_asked: bool,
    pub(crate) gate_closed: bool,
    pub(crate) broken: Option<&'static str>,
}

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Begin(i32),
    Connect(i32),
    Take(i32),
    Finish(i32),
    Leave(i32),
    StartAgain(i32),
    ScriptEnds,
    PodEnds,
    HelperRestarts,
    Hold,
    Helper,
    Own,
    Look,
    LookLate,
    Evidence,
    Gate,
    Timer,
    Forged,
    Released,
}
