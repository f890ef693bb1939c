//! Watches the worker's container: its top process appears, ends, is started again. In: `/proc`. Out: the current [`Main`] for whoever needs
//! it, and `MainSeen` and `MainExited` for the driver. Left to others: what that means (`core::drain::worker`), which process it is (`find`).

use crate::input::Input;
use crate::input::Main;
use crate::peaks::SharedSampler;
use crate::worker::find::{Top, top_of};
use crate::worker::procs::ProcFs;
use qscaler_core::drain::worker::WorkerEvent;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// While there is no worker: short enough that a deletion 50 ms after a restart finds it known, and a scan costs about 0.1 ms.
const LOOK_FIRST: Duration = Duration::from_millis(50);
/// Looking slows down to this: containers in back-off stay away for minutes, yet a worker that is back shall be known before it can have a task.
const LOOK_SLOWEST: Duration = Duration::from_millis(200);
/// A process in the container instance that has just ended is one of its left-overs (an exec hook outlives the worker by some 10 ms), not a
/// new worker, unless it stays for this long: then the runtime does not tell instances apart.
const LEFT_OVER: Duration = Duration::from_secs(3);

/// What the watcher needs.
pub struct Watcher {
    /// Where processes are read.
    pub procs: ProcFs,
    /// The worker's container.
    pub container: String,
    /// The sidecar's own process.
    pub own_pid: i32,
    /// Told of every change.
    pub main: watch::Sender<Option<Arc<Main>>>,
    /// The driver.
    pub inputs: mpsc::Sender<Input>,
    /// Reads the container's peaks one last time when it ends.
    pub sampler: SharedSampler,
}

impl Watcher {
    /// Looks once, and tells the driver of a worker that is there already: before anyone can call a hook, so that a sidecar that was started
    /// again in the middle of a hold knows whom it holds.
    pub async fn first_look(self) -> Watching {
        let found = self.look(None);
        if let Some((main, _)) = &found {
            self.seen(main).await;
        }
        Watching { watcher: self, found }
    }

    async fn seen(&self, main: &Arc<Main>) {
        tracing::info!(pid = main.pid, "the worker is there");
        self.main.send_replace(Some(Arc::clone(main)));
        self.tell(WorkerEvent::MainSeen { incarnation: main.incarnation }).await;
    }

    async fn tell(&self, event: WorkerEvent) {
        // The driver outlives this task, which ends with it.
        let _ = self.inputs.send(Input::Worker(event)).await;
    }

    async fn appears(&self, ended: Option<&(String, Instant)>) -> (Arc<Main>, String) {
        let mut pause = LOOK_FIRST;
        loop {
            if let Some(found) = self.look(ended) {
                return found;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 11 / 10).min(LOOK_SLOWEST);
        }
    }

    fn look(&self, ended: Option<&(String, Instant)>) -> Option<(Arc<Main>, String)> {
        let processes = self.procs.processes().ok()?;
        let Top { process, cgroup } = top_of(&self.procs, &processes, &self.container, self.own_pid)?;
        if ended.is_some_and(|(gone, at)| *gone == cgroup && at.elapsed() < LEFT_OVER) {
            return None;
        }
        let pidfd = pidfd_open(Pid::from_raw(process.pid)?, PidfdFlags::empty()).ok()?;
        // The handle names whoever has the number now.
        if self.procs.process(process.pid)?.start_ticks != process.start_ticks {
            return None;
        }
        self.sampler.lock().begin(&self.container, process.pid, &cgroup, process.start_ticks);
        Some((Arc::new(Main { pid: process.pid, incarnation: process.start_ticks, pidfd }), cgroup))
    }
}

/// A watcher that has looked once.
pub struct Watching {
    watcher: Watcher,
    found: Option<(Arc<Main>, String)>,
}

impl Watching {
    /// The worker was there before this sidecar, which starts before it: another sidecar has watched it.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.found.is_some()
    }

    /// Follows the worker until it is dropped.
    pub async fn run(self) {
        let Self { watcher, mut found } = self;
        let mut ended: Option<(String, Instant)> = None;
        loop {
            let (main, cgroup) = match found.take() {
                Some(known) => known,
                None => {
                    let new = watcher.appears(ended.as_ref()).await;
                    watcher.seen(&new.0).await;
                    new
                }
            };
            ends(&main).await;
            watcher.sampler.lock().finish(&watcher.container);
            ended = Some((cgroup, Instant::now()));
            tracing::info!(pid = main.pid, "the worker has left");
            watcher.main.send_replace(None);
            watcher.tell(WorkerEvent::MainExited { incarnation: main.incarnation }).await;
        }
    }
}

/// Waits until the process has ended.
async fn ends(main: &Main) {
    // A second handle, since the event loop wants to own what it waits for.
    // Deprecated for descriptors that may be closed behind its back; an owned one cannot, and the successor is `unsafe`, which is not used here.
    #[allow(deprecated)]
    let waited = main.pidfd.try_clone().and_then(|fd| AsyncFd::with_interest(fd, Interest::READABLE));
    match waited {
        Ok(fd) => {
            if fd.readable().await.is_ok() {
                return;
            }
            poll_end(main).await;
        }
        Err(error) => {
            tracing::warn!(%error, "cannot wait on the worker's handle; looking at it instead");
            poll_end(main).await;
        }
    }
}

/// The same without the event loop: out of file descriptors, say.
async fn poll_end(main: &Main) {
    let Some(pid) = Pid::from_raw(main.pid) else { return };
    while !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH)) {
        tokio::time::sleep(LOOK_FIRST).await;
    }
}
