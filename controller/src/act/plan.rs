//! What is to be done for one workload, as values. In: nothing. Out: the vocabulary between those who decide (`workload`) and the one who
//! performs (`apply`). Left to others: both.

use crate::observe::record::PodRecord;
use qscaler_api::{Intent, QWorkerCheckpointSpec};
use qscaler_core::mark::Patch;
use qscaler_core::message::ControlKind;
use qscaler_core::message::ControlMessage;
use qscaler_core::size::{ContainerResources, RefusalCause};
use serde_json::Value;

/// Which action: two that do the same to the same object have the same key, whatever their figures are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ActionKey(&'static str, String);

/// One thing to do. What hangs on one that fails is not done; the others are.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Save a wave of drains in the QWorker's status, if the QWorker is as we know it.
    SaveIntent(Intent),
    /// Merge this into the QWorker's status, if the QWorker is as we know it.
    Status(Value),
    /// Save what the next life needs, if it is as we know it.
    Checkpoint(Box<QWorkerCheckpointSpec>),
    /// Write the replica count, if the Deployment is as read.
    Scale {
        /// Version of the Deployment as read.
        resource_version: String,
        /// As read.
        from: u32,
        /// To write.
        to: u32,
    },
    /// Set or remove a pod's deletion cost, if the pod is as read.
    SetCost {
        /// The pod as read.
        pod: PodRef,
        /// None: what it had before us.
        cost: Option<i32>,
        /// The annotations that make it so.
        patch: Patch,
    },
    /// Set or take back other marks on a pod, if it is as read.
    Mark {
        /// The pod as read.
        pod: PodRef,
        /// The annotations to write.
        patch: Patch,
    },
    /// Put a message on the control channel.
    Publish(ControlMessage),
    /// Empty the control queue.
    Purge,
    /// Change a running container's resources.
    Resize {
        /// The pod as read.
        pod: PodRef,
        /// The container.
        container: String,
        /// What it has.
        from: ContainerResources,
        /// What it shall have.
        to: ContainerResources,
        /// Why.
        reason: String,
    },
    /// Tell the user.
    Event(Notice),
}

impl Action {
    /// Which action it is.
    #[must_use]
    pub fn key(&self) -> ActionKey {
        match self {
            Self::SaveIntent(_) => ActionKey("intent", String::new()),
            Self::Status(_) => ActionKey("status", String::new()),
            Self::Checkpoint(_) => ActionKey("checkpoint", String::new()),
            Self::Scale { from, to, .. } => ActionKey(if to > from { "raise" } else { "lower" }, String::new()),
            Self::SetCost { pod, .. } => ActionKey("cost", pod.uid.clone()),
            Self::Mark { pod, .. } => ActionKey("mark", pod.uid.clone()),
            Self::Publish(message) => ActionKey("message", message.target.clone().unwrap_or_default()),
            Self::Purge => ActionKey("purge", String::new()),
            Self::Resize { pod, container, .. } => ActionKey("size", format!("{}/{container}", pod.uid)),
            Self::Event(_) => ActionKey("event", String::new()),
        }
    }
}

/// A pod as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// UID.
    pub uid: String,
    /// Name.
    pub name: String,
    /// Version.
    pub resource_version: String,
}

/// An Event on the Deployment, or on one of its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// A warning, or normal.
    pub warning: bool,
    /// One of `qscaler_core::names::event`.
    pub reason: &'static str,
    /// For people.
    pub note: String,
    /// The pod; None: the Deployment.
    pub pod: Option<PodRef>,
}

impl PodRef {
    /// The pod as the index has it.
    #[must_use]
    pub fn new(pod: &PodRecord) -> Self {
        Self { uid: pod.uid.to_string(), name: pod.name.to_string(), resource_version: pod.resource_version.to_string() }
    }
}

impl Notice {
    /// Something that works as it should.
    #[must_use]
    pub fn normal(reason: &'static str, note: impl Into<String>) -> Self {
        Self { warning: false, reason, note: note.into(), pod: None }
    }

    /// Something that someone should look at.
    #[must_use]
    pub fn warning(reason: &'static str, note: impl Into<String>) -> Self {
        Self { warning: true, reason, note: note.into(), pod: None }
    }
}

/// What came of one action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// It was done.
    Yes,
    /// A resize was refused for this reason; the list goes on.
    Refused(RefusalCause, String),
}

/// What came of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListOutcome {
    /// The actions that were done, in order, with their results.
    pub done: Vec<(Action, Done)>,
    /// Version of the QWorker after the last status write.
    pub qworker_version: Option<String>,
    /// Version of the checkpoint after it was written.
    pub checkpoint_version: Option<String>,
    /// Why the list ended early.
    pub failed: Option<Failure>,
    /// What was not done: what failed, and what hangs on it.
    pub left: Vec<Action>,
    /// What failed by itself, and why.
    pub failures: Vec<(ActionKey, Failure)>,
}

impl ListOutcome {
    /// This one failed. The gravest failure is told: what is wrong with the Lease or the QWorker is of more weight than with a pod.
    pub fn fail(&mut self, action: Action, failure: Failure) {
        let weight = |f: &Failure| match f {
            Failure::NotLeader => 3,
            Failure::Gone | Failure::Changed { qworker: true } => 2,
            Failure::Other(_) => 1,
            Failure::Changed { qworker: false } => 0,
        };
        self.failures.push((action.key(), failure.clone()));
        if self.failed.as_ref().is_none_or(|before| weight(&failure) > weight(before)) {
            self.failed = Some(failure);
        }
        self.left.push(action);
    }

    /// What came of another list for the same workload.
    pub fn join(&mut self, other: Self) {
        let Self { done, qworker_version, checkpoint_version, failed, left, failures } = other;
        self.done.extend(done);
        self.left.extend(left);
        self.failures.extend(failures);
        self.qworker_version = self.qworker_version.take().or(qworker_version);
        self.checkpoint_version = self.checkpoint_version.take().or(checkpoint_version);
        let graver = |f: &Failure| matches!(f, Failure::NotLeader | Failure::Gone | Failure::Changed { qworker: true });
        if self.failed.is_none() || (failed.as_ref().is_some_and(graver) && !self.failed.as_ref().is_some_and(graver)) {
            self.failed = failed.or(self.failed.take());
        }
    }
}

/// Why a list ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The object has changed since it was read: start from new facts.
    Changed {
        /// It was the QWorker.
        qworker: bool,
    },
    /// This object does not exist any more.
    Gone,
    /// The Lease was lost on the way.
    NotLeader,
    /// Anything else: it is tried again by itself.
    Other(String),
}

/// What the API server's answer comes to.
pub(crate) fn failure(error: &kube::Error, qworker: bool) -> Failure {
    match error {
        kube::Error::Api(status) if status.code == 409 => Failure::Changed { qworker },
        kube::Error::Api(status) if status.code == 404 && qworker => Failure::Gone,
        // A pod or a Deployment that is gone: the watch will show it.
        kube::Error::Api(status) if status.code == 404 => Failure::Changed { qworker },
        other => Failure::Other(other.to_string()),
    }
}

/// A message that asks a pod to park.
pub(crate) fn is_token(action: &Action) -> bool {
    matches!(action, Action::Publish(message) if message.kind == ControlKind::SigkillQueue)
}
