//! The identity of a managed workload, and what the webhook hands to the sidecar. In: names from the API. Out: values that webhook, sidecar,
//! broker and controller all use in the same spelling. Left to others: everything about behaviour.

use crate::config::{DeadlinePolicy, WorkerConfig};
use crate::framework::{BusySource, KeyNames, Signal};
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::fmt;

/// A Deployment in its namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadId {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A Deployment's UID; empty: not known. A type of its own, since wherever it is a pod's UID is near, and a message for the one must not be taken for the
/// other's.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkloadUid(String);

impl WorkloadUid {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// It is known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !self.0.is_empty()
    }
}

// For maps by UID that are asked with text.
impl Borrow<str> for WorkloadUid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<String> for WorkloadUid {
    fn from(uid: String) -> Self {
        Self(uid)
    }
}

impl From<&str> for WorkloadUid {
    fn from(uid: &str) -> Self {
        Self(uid.to_owned())
    }
}

impl fmt::Display for WorkloadUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the control messages and reports of one workload are, on its broker: part of every name that QScaler has there.
///
/// A Deployment's UID is unique across clusters and lives, so two clusters on one broker, or a Deployment made anew under its old name, never take one
/// another's messages. Names without a UID are those of sidecars that were not told it, and of older releases.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControlAddress {
    /// Whose.
    pub workload: WorkloadId,
    /// The Deployment's UID; None: a name without one.
    pub uid: Option<WorkloadUid>,
}

impl ControlAddress {
    /// Of a workload with this UID; an empty one is none.
    #[must_use]
    pub fn new(workload: &WorkloadId, uid: &WorkloadUid) -> Self {
        Self { workload: workload.clone(), uid: uid.is_known().then(|| uid.clone()) }
    }

    /// The name that sidecars have which were not told a UID.
    #[must_use]
    pub fn without_uid(&self) -> Self {
        Self { workload: self.workload.clone(), uid: None }
    }

    /// A colon and the UID, or nothing: neither namespaces nor names of Deployments have a colon, so that names with it are distinct from all without.
    #[must_use]
    pub fn suffix(&self) -> String {
        self.uid.as_ref().map(|uid| format!(":{uid}")).unwrap_or_default()
    }
}

impl fmt::Display for ControlAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.workload, self.suffix())
    }
}

/// What an injected sidecar is told, as JSON in one environment variable. Written by the webhook of one version, read by a sidecar of the
/// same version; unknown fields are ignored, missing ones take their defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarConfig {
    /// Always 1.
    pub version: u32,
    /// Whose pod this is.
    pub workload: WorkloadId,
    /// The Deployment's UID; empty where the webhook did not know it.
    #[serde(default)]
    pub workload_uid: WorkloadUid,
    /// `pod-template-hash` of the pod: key of the size estimate.
    #[serde(default)]
    pub template_hash: String,
    /// The working container's name.
    pub container: String,
    /// The framework's name.
    pub worker: String,
    /// The queues.
    pub queues: Vec<String>,
    /// What the user has chosen of the names of its keys in Redis.
    #[serde(default, skip_serializing_if = "KeyNames::is_default")]
    pub key_names: KeyNames,
    /// Signals; empty: the kubelet's TERM.
    pub signals: Vec<Signal>,
    /// Where busy is read.
    pub busy: BusySource,
    /// Tasks that the worker runs at once.
    pub concurrency: u32,
    /// How long a task may run, in milliseconds.
    pub max_task_duration_ms: u64,
    /// Afterwards.
    pub drain_deadline_policy: DeadlinePolicy,
    /// Whether the pod's process namespace is shared: without it no signal and no peaks.
    pub share_processes: bool,
    /// Secret path segment of the hook's URL: strangers on the pod network must not stop the worker.
    pub hook_token: String,
}

impl SidecarConfig {
    /// The configuration of one pod of this workload.
    #[must_use]
    pub fn new(
        config: &WorkerConfig,
        workload: WorkloadId,
        workload_uid: WorkloadUid,
        template_hash: String,
        container: String,
        hook_token: String,
    ) -> Self {
        Self {
            version: 1,
            workload,
            workload_uid,
            template_hash,
            container,
            worker: config.worker.clone(),
            queues: config.queues.clone(),
            key_names: config.key_names.clone(),
            signals: config.signals.clone(),
            busy: config.busy.clone(),
            concurrency: config.concurrency,
            max_task_duration_ms: config.max_task_duration_ms,
            drain_deadline_policy: config.drain_deadline_policy,
            share_processes: config.share_processes != Some(false),
            hook_token,
        }
    }
}
