//! What only the next life of the controller needs of a workload: the law's memory, estimates of sizes, books of what was counted. Apart from the
//! QWorker's status, which is for people and small. In: values of `core`, as JSON. Out: the Kubernetes object and its CRD. Left to others: when it is
//! written and read (`controller`).
//!
//! The values are text and not objects: the API server keeps a record of each field's writer, which for a thousand small numbers is longer than they are.

use crate::{CountedCuts, QWorkerStatus};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the controller remembers of the workload of the same name; owned by its QWorker, so that both go together.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "qscaler.dev",
    version = "v1alpha1",
    kind = "QWorkerCheckpoint",
    plural = "qworkercheckpoints",
    namespaced,
    derive = "Default",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct QWorkerCheckpointSpec {
    /// The law's memory (`core::scale::Learned`), JSON.
    pub learned: String,
    /// By container.
    pub sizes: BTreeMap<String, SavedSize>,
    /// Running tasks cut, in all and by cause: with the books that they were counted by, so that a crash between two writes counts none twice.
    pub cut: u64,
    /// See [`Self::cut`].
    pub cut_by: BTreeMap<String, u64>,
    /// Of `cut`, those whose pods may tell them again.
    pub counted_cuts: Vec<CountedCuts>,
}

/// What is remembered of one container's size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SavedSize {
    /// `pod-template-hash` that the estimate belongs to.
    pub template_hash: String,
    /// The estimate and the OOM kills that are in it (`core::size::Estimate`), JSON.
    pub estimate: String,
}

impl QWorkerStatus {
    /// Whether a release that kept its memory in the status was the last to write it.
    #[must_use]
    pub fn has_memory(&self) -> bool {
        self.learned.is_some() || !self.counted_cuts.is_empty() || self.sizes.values().any(|size| size.estimate.is_some())
    }

    /// Takes up what was remembered apart. Where the status has a memory of its own it is the newer one: whoever keeps it apart takes it out of the status.
    pub fn remember(&mut self, kept: QWorkerCheckpointSpec) {
        if self.has_memory() {
            return;
        }
        self.learned = serde_json::from_str(&kept.learned).ok();
        for (container, saved) in kept.sizes {
            let size = self.sizes.entry(container).or_default();
            (size.template_hash, size.estimate) = (saved.template_hash, serde_json::from_str(&saved.estimate).ok());
        }
        (self.counters.cut, self.counters.cut_by, self.counted_cuts) = (kept.cut, kept.cut_by, kept.counted_cuts);
    }
}
