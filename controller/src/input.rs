//! The words that the main loop hears from everybody: one message per thing that has happened. In: nothing. Out: the vocabulary. Left to others: saying
//! it (`observe`, `act`), hearing it (`lead`).

use crate::act::plan::{Failure, ListOutcome};
use crate::act::qworker::Loaded;
use crate::observe::urls::Urls;
use qscaler_broker::Reports;
use qscaler_core::replace::{Ask, Tried};
use qscaler_core::scale::QueueSample;
use qscaler_core::workload::WorkloadId;
use std::sync::Arc;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Until someone changes something: a missing Secret, a URL that is none.
    Mistake(String),
    /// For now.
    Trouble(String),
}

/// What a broker tells of a workload's queues.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// One sample a queue.
    pub queues: Vec<QueueSample>,
    /// Why the broker gives fewer figures than it could.
    pub gap: Option<Arc<str>>,
}

/// One life of a workload in this process: what a task of an earlier one brings is dropped, also when the Lease was lost and won again between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Life(pub u64);

/// What the loop hears.
#[derive(Debug)]
pub enum Input {
    /// A watch saw a change that touches this workload.
    Changed(WorkloadId),
    /// Its queues were measured, or not and why.
    Sampled(WorkloadId, Result<Measured, String>),
    /// Its pods reported.
    Reports(WorkloadId, Reports),
    /// Its control channel failed.
    ControlFailed(WorkloadId, String),
    /// Its QWorker was read or made.
    Loaded(WorkloadId, Life, Box<Result<Loaded, Failure>>),
    /// Its broker URLs were looked up.
    Resolved(WorkloadId, Life, Result<Urls, Unreachable>),
    /// A list of actions has ended.
    Applied(WorkloadId, Life, ListOutcome),
    /// A pod was replaced, or not.
    Replaced(WorkloadId, Life, Ask, Tried),
    /// The cluster's version is known.
    Version(qscaler_core::size::ClusterVersion),
}
