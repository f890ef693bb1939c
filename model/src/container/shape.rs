//! Containers as people have them. In: a name. Out: its processes, and how the plan sees them. Left to others: what happens to them.

use super::process::{Proc, Role};
use qscaler_core::drain::plan::{Descriptors, Process, ProcessId, STARTING_MS};
use qscaler_core::framework::Signal;

/// One container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The worker with its pool is the top process.
    Plain,
    /// A script that runs it.
    Script,
    /// A script that runs two.
    Two,
    /// A script that runs it again and again.
    Loop,
    /// A supervisor that reads its output and ends it when told.
    Supervised,
    /// One that has no handler.
    Deaf,
    /// A script above one that runs as a user that the sidecar may not signal.
    RefusedScript,
    /// Such a one on top.
    RefusedTop,
    /// A loop without signals, behind the freeze gate.
    Frozen,
}

impl Shape {
    /// Every one.
    pub const ALL: &[Self] =
        &[Self::Plain, Self::Script, Self::Two, Self::Loop, Self::Supervised, Self::Deaf, Self::RefusedScript, Self::RefusedTop, Self::Frozen];

    pub(super) fn start_ticks(pid: i32) -> u64 {
        100 + u64::from(pid.unsigned_abs())
    }

    /// A worker that was started just now.
    pub(super) fn starting(pid: i32, parent: i32) -> Proc {
        Proc {
            pid,
            parent,
            role: Role::Worker,
            handler: false,
            connected: false,
            task: false,
            told: false,
            suspended: false,
            pending: false,
            late: false,
        }
    }

    pub(super) fn procs(self) -> Vec<Proc> {
        let of = |pid, parent, role, handler| Proc {
            role,
            handler,
            connected: matches!(role, Role::Worker | Role::Child | Role::Deaf),
            ..Self::starting(pid, parent)
        };
        let script = |role| of(10, 0, role, role == Role::Supervisor);
        let (worker, child) = (|pid, parent| of(pid, parent, Role::Worker, true), |pid| of(pid + 1, pid, Role::Child, true));
        match self {
            Self::Plain => vec![worker(20, 0), child(20)],
            Self::Script => vec![script(Role::Script), worker(20, 10), child(20)],
            Self::Two => vec![script(Role::Script), worker(20, 10), worker(24, 10)],
            Self::Loop => vec![script(Role::Loop), worker(20, 10)],
            Self::Supervised => vec![script(Role::Supervisor), worker(20, 10)],
            Self::Deaf | Self::Frozen => vec![of(20, 0, Role::Deaf, false)],
            Self::RefusedScript => vec![script(Role::Script), worker(20, 10)],
            Self::RefusedTop => vec![worker(20, 0)],
        }
    }

    /// As the sidecar reads them.
    pub(super) fn values(self, procs: &[Proc]) -> Vec<Process> {
        procs.iter().map(|p| self.value(p)).collect()
    }

    fn value(self, p: &Proc) -> Process {
        let refused = matches!(self, Self::RefusedScript | Self::RefusedTop);
        let argv: &[&str] = match p.role {
            Role::Script | Role::Loop => &["bash", "/entry.sh", "rq", "worker"],
            Role::Supervisor => &["python3", "/usr/bin/supervisord"],
            Role::Worker | Role::Child => &["python3", "/usr/bin/rq", "worker"],
            Role::Deaf => &["jobs"],
        };
        // A pool has its parent's image and its connection.
        let program = if p.role == Role::Child { p.parent } else { p.pid };
        let inode = u64::from(program.unsigned_abs());
        let pipe = |there: bool| if there { [1].into() } else { [].into() };
        let descriptors = Descriptors {
            broker: if p.connected { [inode].into() } else { [].into() },
            connected: p.connected,
            reads: pipe(p.role == Role::Supervisor),
            writes: pipe(self == Self::Supervised && p.role == Role::Worker),
        };
        Process {
            id: ProcessId { pid: p.pid, start_ticks: Self::start_ticks(p.pid) },
            parent: p.parent,
            comm: String::new(),
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            image: (!refused).then_some((inode + 2, 2)),
            caught: if p.handler { 1 << (Signal::Term.number() - 1) } else { 0 },
            ignored: 0,
            blocked: 0,
            uid: 0,
            permitted: !refused,
            age_ms: Some(if p.pid == 30 { 0 } else { 2 * STARTING_MS }),
            descriptors: (!refused).then_some(descriptors),
            remaps_term: false,
        }
    }
}
