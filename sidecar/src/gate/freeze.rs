//! The gate of workers that no signal and no remote control can quiet: they are frozen while they have nothing. In: close or open, from the gate's
//! task. Out: stopped processes, once it is proved that they hold no task; and whether they are. Left to others: when (`gate`), killing the frozen
//! worker at its pod's end (`core::drain::worker`).
//!
//! The order makes the proof. Stopped first, the worker cannot ask for anything new. Then the broker is asked. Redis: `CLIENT UNBLOCK` of each
//! waiting connection; where the answer is that it was waiting still, it has been given nothing and now waits no more. RabbitMQ: figures that
//! are younger than the stop and say that the pod's connections hold no unacknowledged message; what arrives afterwards lies in a socket, and goes
//! back to the queue when the worker dies. Without the proof the worker goes on at once, as if nothing had been.

use crate::gaps::Gaps;
use crate::hold::signal::{go_on, stop};
use crate::input::MainReceiver;
use crate::worker::container::Container;
use crate::worker::procs::{ProcFs, ProcessStat};
use crate::worker::sockets::Connections;
use qscaler_broker::BrokerError;
use qscaler_broker::activity::{BlockedPops, Bookkeeping, Seen};
use qscaler_core::message::GapReason;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A process stops within microseconds, one that sleeps in the kernel within the wake-up; on a busy machine it has to get its turn first.
const STOP_WAIT: Duration = Duration::from_millis(200);
/// Between two looks at processes that are about to stop.
const STOP_LOOK: Duration = Duration::from_millis(2);
/// RabbitMQ renews its figures every 5 s: after twice this time and a second they are younger than the stop.
const FIGURES_WAIT: Duration = Duration::from_secs(11);
/// Between two looks at these figures: a message that arrives meanwhile lets the worker go on.
const FIGURES_LOOK: Duration = Duration::from_secs(1);
/// Between two looks at a Redis.
const POPS_LOOK: Duration = Duration::from_millis(250);

/// What proves that a stopped worker has no task.
#[allow(clippy::large_enum_variant)] // there is one in a sidecar
pub enum Proof {
    /// A Redis whose answer says that the worker was waiting.
    Pops {
        /// Its connections.
        pops: BlockedPops,
        /// So many of them wait at least while nothing runs.
        concurrency: u32,
        /// Most that ever waited at once, as the source of busy or idle has seen them.
        most: Arc<AtomicUsize>,
    },
    /// A RabbitMQ whose figures say that the worker holds no message.
    Books(Bookkeeping),
}

/// Whether the worker that runs now is frozen.
#[derive(Clone)]
pub struct FrozenView {
    frozen: watch::Receiver<Option<u64>>,
    main: MainReceiver,
}

impl FrozenView {
    /// Of what the gate says, and the worker.
    #[must_use]
    pub fn new(frozen: watch::Receiver<Option<u64>>, main: MainReceiver) -> Self {
        Self { frozen, main }
    }

    /// See [`FrozenView`].
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        let incarnation = self.main.borrow().as_ref().map(|main| main.incarnation);
        incarnation.is_some() && *self.frozen.borrow() == incarnation
    }
}

/// The gate's way.
pub struct Freeze {
    proof: Proof,
    procs: ProcFs,
    main: MainReceiver,
    /// The worker process that is frozen, by its incarnation.
    frozen: watch::Sender<Option<u64>>,
    /// Where it says that there is no proof.
    gaps: Gaps,
}

impl Freeze {
    /// Nothing is frozen yet.
    #[must_use]
    pub fn new(proof: Proof, procs: ProcFs, main: MainReceiver, frozen: watch::Sender<Option<u64>>, gaps: Gaps) -> Self {
        Self { proof, procs, main, frozen, gaps }
    }

    /// How long to wait until [`Self::close`] is tried again.
    #[must_use]
    pub fn again(&self) -> Duration {
        match self.proof {
            Proof::Pops { .. } => POPS_LOOK,
            Proof::Books(_) => FIGURES_LOOK,
        }
    }

    /// True: the worker is frozen and has no task. False: it has one, or that is not known; it runs.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses; then it runs, too.
    pub async fn close(&mut self) -> Result<bool, BrokerError> {
        let Some((top, incarnation)) = self.main.borrow().as_ref().map(|main| (main.pid, main.incarnation)) else { return Ok(false) };
        if !self.has_nothing(top).await? {
            return Ok(false);
        }
        let proved = if self.stopped(top).await { self.proved().await } else { Ok(false) };
        let unchanged = self.main.borrow().as_ref().is_some_and(|main| main.incarnation == incarnation);
        if !matches!(proved, Ok(true)) || !unchanged {
            self.open();
            return proved.map(|_| false);
        }
        self.frozen.send_replace(Some(incarnation));
        Ok(true)
    }

    /// Lets the worker go on. Always true.
    pub fn open(&mut self) -> bool {
        self.frozen.send_replace(None);
        let top = self.main.borrow().as_ref().map(|main| main.pid);
        if let (Some(top), Ok(processes)) = (top, self.procs.processes()) {
            // Children first: a worker that goes on may look after them.
            self.members(&processes, top).iter().rev().for_each(go_on);
        }
        true
    }

    /// Whether it is worth stopping: a look without a proof.
    async fn has_nothing(&mut self, top: i32) -> Result<bool, BrokerError> {
        let spare = self.spare_threads(top);
        Ok(match &mut self.proof {
            Proof::Pops { pops, concurrency, most } => {
                let Some(seen) = pops.sample(&Connections::read(&self.procs).others()).await? else { return Ok(false) };
                if hides_tasks(spare, seen.waiting, *concurrency) {
                    let words = format!(
                        "the worker has {spare} threads besides its main one, and {} of its connections wait at Redis: which thread runs a task cannot be seen, so it \
                         is never frozen; let it handle SIGTERM and say signal: SIGTERM, or say concurrency if each thread waits for itself",
                        seen.waiting
                    );
                    self.gaps.set(GapReason::GateCannotClose, words);
                    return Ok(false);
                }
                self.gaps.clear(GapReason::GateCannotClose);
                let most = most.fetch_max(seen.waiting, Ordering::Relaxed).max(seen.waiting);
                seen.waiting >= needed(*concurrency, most, seen.connections)
            }
            Proof::Books(books) => books.sample().await? == Seen::Idle,
        })
    }

    /// Every process of the worker's container.
    fn members(&self, processes: &[ProcessStat], top: i32) -> Vec<ProcessStat> {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        Container::new(self.procs.clone(), own, "").of_top(processes, top)
    }

    /// Threads beside each process' first, of the programs that run one thread unless their author makes more. Other runtimes (Node, Go, the JVM) have
    /// threads of their own, whose number says nothing.
    fn spare_threads(&self, top: i32) -> usize {
        let Ok(processes) = self.procs.processes() else { return 0 };
        let is_python = |process: &&ProcessStat| {
            let program = self.procs.command_line(process.pid).and_then(|words| words.into_iter().next()).unwrap_or_default();
            let name = program.rsplit('/').next().unwrap_or_default();
            name.starts_with("python") || name.starts_with("pypy")
        };
        let members = self.members(&processes, top);
        members.iter().filter(is_python).map(|process| self.procs.threads(process.pid).saturating_sub(1)).sum()
    }

    /// Stops the worker and all its children, those that appear meanwhile too.
    async fn stopped(&self, top: i32) -> bool {
        let end = Instant::now() + STOP_WAIT;
        while Instant::now() < end {
            let Ok(processes) = self.procs.processes() else { return false };
            let running: Vec<_> = self.members(&processes, top).into_iter().filter(|process| !self.procs.is_stopped(process.pid)).collect();
            if running.is_empty() {
                return processes.iter().any(|process| process.pid == top);
            }
            if running.iter().any(|process| stop(process).is_err()) {
                return false;
            }
            tokio::time::sleep(STOP_LOOK).await;
        }
        false
    }

    async fn proved(&mut self) -> Result<bool, BrokerError> {
        match &mut self.proof {
            Proof::Pops { pops, .. } => pops.unblock().await,
            Proof::Books(books) => {
                let end = Instant::now() + FIGURES_WAIT;
                loop {
                    if books.sample().await? != Seen::Idle {
                        return Ok(false);
                    }
                    if Instant::now() >= end {
                        return Ok(true);
                    }
                    tokio::time::sleep(FIGURES_LOOK).await;
                }
            }
        }
    }
}

/// Whether a worker with so many threads beside its main one may have a task that no waiting connection tells of: a dispatcher waits, and its threads
/// work. Not where every thread waits for itself, the main one too; nor where the user says that as many tasks run at once as connections wait.
fn hides_tasks(spare: usize, waiting: usize, concurrency: u32) -> bool {
    let said = usize::try_from(concurrency).unwrap_or(usize::MAX);
    spare > 0 && spare + 1 > waiting && !(said > 1 && said == spare && waiting >= said)
}

/// So many connections wait while a worker has no task: as many as ever did, if it still has that many.
pub(crate) fn needed(concurrency: u32, most: usize, connections: usize) -> usize {
    most.min(connections).max(usize::try_from(concurrency).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Main;
    use qscaler_broker::activity::Whose;
    use qscaler_core::framework::KeyNames;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use std::process::{Child, Command};

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").spawn().unwrap()
    }

    fn freeze_of(child: &Child) -> (Freeze, FrozenView) {
        let procs = ProcFs::at("/proc");
        let pid = i32::try_from(child.id()).unwrap();
        let incarnation = procs.process(pid).unwrap().start_ticks;
        let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        let (_, main) = watch::channel(Some(Arc::new(Main { pid, incarnation, pidfd })));
        let (frozen, view) = watch::channel(None);
        // Nobody listens there: there is no proof.
        let whose = Whose { framework: &qscaler_core::framework::CUSTOM, names: &KeyNames::default(), queues: &[] };
        let pops = BlockedPops::open("redis://127.0.0.1:1/0", &whose).unwrap().unwrap();
        (
            Freeze::new(Proof::Pops { pops, concurrency: 1, most: Arc::default() }, procs, main.clone(), frozen, Gaps::default()),
            FrozenView::new(view, main),
        )
    }

    #[tokio::test]
    async fn a_stopped_worker_is_seen_stopped_and_goes_on() {
        let mut child = sleeper();
        let (mut freeze, view) = freeze_of(&child);
        let pid = i32::try_from(child.id()).unwrap();
        // One try is given up soon, for a gate that does not close is tried again: a process that gets no turn within it is not stopped yet.
        let end = Instant::now() + Duration::from_secs(60);
        while !freeze.stopped(pid).await {
            assert!(Instant::now() < end, "never seen stopped");
        }
        assert!(freeze.procs.is_stopped(pid));
        assert!(freeze.open());
        assert!(!freeze.procs.is_stopped(pid) && !view.is_frozen());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_dispatcher_with_a_pool_of_threads_hides_its_tasks() {
        assert!(!hides_tasks(0, 1, 1));
        assert!(hides_tasks(4, 1, 1) && hides_tasks(1, 1, 1) && hides_tasks(4, 1, 4));
        // Five threads that each wait; four beside a main one that only waits for them, by the user's word.
        assert!(!hides_tasks(4, 5, 1) && !hides_tasks(4, 4, 4) && hides_tasks(4, 4, 1));
    }

    #[tokio::test]
    async fn without_a_proof_the_worker_runs_on() {
        let mut child = sleeper();
        let (mut freeze, view) = freeze_of(&child);
        assert!(freeze.close().await.is_err());
        assert!(!freeze.procs.is_stopped(i32::try_from(child.id()).unwrap()) && !view.is_frozen());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
