//! The words that pass between the rooms of the sidecar: what the driver takes in, a sample of activity, the worker's process. In: nothing. Out: the
//! vocabulary. Left to others: saying it (the sources), hearing it (`hold::driver`).

use qscaler_core::drain::worker::WorkerEvent;
use qscaler_core::message::{Busy, EndedTasks, Report};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// What the driver takes in.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// For the machine.
    Worker(WorkerEvent),
    /// A sample of the worker's activity.
    Activity(Activity),
    /// A process was killed for want of memory.
    OomKill,
    /// This report has arrived.
    Published(Box<Report>),
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Activity {
    /// Whether it has a task.
    pub busy: Busy,
    /// Tasks running now, where the source counts them.
    pub active: Option<u32>,
    /// Tasks finished since the worker's start, where the source counts them.
    pub processed: Option<u64>,
    /// Tasks seen to end since the sample before, where the source times them.
    pub ended: Option<EndedTasks>,
    /// The figures are of a time at which the worker still took tasks: once it was told to take no more, they prove nothing.
    pub taking: bool,
}

impl Activity {
    /// Nothing is known.
    #[must_use]
    pub fn unknown() -> Self {
        Self { busy: Busy::Unknown, active: None, processed: None, ended: None, taking: false }
    }

    /// Busy or idle, and no more.
    #[must_use]
    pub fn only(busy: Busy) -> Self {
        Self { busy, ..Self::unknown() }
    }
}

/// The worker's top process.
#[derive(Debug)]
pub struct Main {
    /// Its number.
    pub pid: i32,
    /// Names it for ever: start time in ticks since boot.
    pub incarnation: u64,
    /// Handle: survives the runtime's exec, wakes when the process ends, and never names another one.
    pub pidfd: OwnedFd,
}

/// The current worker, for everyone who looks at it.
pub type MainReceiver = watch::Receiver<Option<Arc<Main>>>;

/// Hands a sample to the driver. False: it is gone.
pub async fn tell(inputs: &mpsc::Sender<Input>, activity: Activity) -> bool {
    inputs.send(Input::Activity(activity)).await.is_ok()
}
