//! Pod in, JSON patch out. In: a raw pod, its workload's checked configuration, and what the cluster knows about the workload. Out: operations with
//! warnings, or the reason why there are none. Left to others: finding the workload, and who asks: the webhook for each new pod, and whoever must know beforehand
//! what it will say.
//!
//! What is injected, and why each part is needed:
//! - A native sidecar (an init container that restarts always): it starts before and ends after every plain container. First in line, or directly
//!   after a mesh's proxy, so that its broker connection can use the mesh at both ends of its life.
//! - The hold: an `httpGet` preStop on every plain container, which the sidecar answers when the worker has left. Without it on a second
//!   container, that one would get its TERM while the worker still works.
//! - `postStart` on the sidecar, so that no worker starts before its guard; a `readinessProbe`, which is how parking becomes visible.
//! - The pod's grace, long enough for the longest task; the old grace moves to the user's own liveness and startup probes.
//! - A shared process namespace, since the sidecar signals and measures the worker; can be declined.
//!
//! - In a mesh: the sidecar's port is left out of it, since the kubelet has no certificate.
//!
//! Everything is within the `restricted` Pod Security level where that is enforced, and within `baseline` elsewhere; nothing needs a volume.

mod env;
mod existing;
mod identity;
mod limits;
mod mesh;
mod ops;
mod owner;
mod pid_one;
mod plan;
mod pod;
mod reason;
mod resources;
pub mod variables;
mod warn;

pub use env::BlindReason;
pub use limits::{Bounds, Limits};
pub use owner::{Owner, owner};
pub use plan::{GRACE_MARGIN_S, SIDECAR_BINARY};
pub use reason::{Refusal, Skip};
pub use resources::PodSize;
pub use warn::{WorkloadFacts, notes, scheduler, strays, warnings};

use existing::{Existing, complete, existing};
use json_patch::Patch;
use plan::Plan;
use pod::array;
use qscaler_api::{Resources, WorkerIds};
use qscaler_core::config::WorkerConfig;
use qscaler_core::units::{Bytes, Millicores};
use qscaler_core::workload::{SidecarConfig, WorkloadId, WorkloadUid};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The longest label value that Kubernetes takes; a Deployment's name may be longer.
const LABEL_MAX: usize = 63;
/// Most containers, init containers among them: each costs a part of the patch, and what Kubernetes can run at all has a few dozen.
const CONTAINERS_MAX: usize = 256;
/// Set by the kubelet on mirror pods.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What all sidecars of an installation have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Image of the sidecar.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: String,
    /// CPU request.
    pub cpu_request: Millicores,
    /// CPU limit; None: only where every other container has one.
    pub cpu_limit: Option<Millicores>,
    /// Memory request.
    pub memory_request: Bytes,
    /// Memory limit.
    pub memory_limit: Bytes,
    /// Secrets of the pods' own namespaces by which the sidecar's image may be pulled.
    pub pull_secrets: Vec<String>,
    /// Authorities (PEM) by which brokers' certificates may be signed, for workloads without an annotation of their own.
    pub broker_authorities: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            image: format!("ghcr.io/qscaler/qscaler-sidecar:{}", env!("CARGO_PKG_VERSION")),
            pull_policy: "IfNotPresent".to_owned(),
            cpu_request: Millicores(5),
            cpu_limit: None,
            memory_request: Bytes(16 << 20),
            memory_limit: Bytes(64 << 20),
            pull_secrets: Vec::new(),
            broker_authorities: None,
        }
    }
}

/// What the cluster knows about one pod's workload.
#[derive(Clone, Debug)]
pub struct Injection<'a> {
    /// Common to all.
    pub settings: &'a Settings,
    /// Whose pod it is.
    pub workload: WorkloadId,
    /// The Deployment's UID.
    pub workload_uid: WorkloadUid,
    /// `pod-template-hash`.
    pub template_hash: String,
    /// Recommended sizes by container.
    pub recommended: BTreeMap<String, Resources>,
    /// The worker's owner, as learned from earlier pods.
    pub worker_ids: Option<WorkerIds>,
    /// What the namespace allows.
    pub allowed: Allowed,
    /// Why processes shall not be shared, as earlier pods taught; the user's word wins.
    pub not_shared: Option<&'static str>,
    /// 32 hexadecimal digits, new for each pod.
    pub hook_token: String,
    /// Public keys of the controller, as [`qscaler_core::control_key::read`] gives them; empty: unsigned messages are believed. They are no part of
    /// [`config_hash`]: a pod is not out of date for having none.
    pub control_keys: Vec<String>,
}

/// What a namespace allows its pods.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Allowed {
    /// By all its LimitRanges.
    pub limits: Limits,
    /// Whether a container may run as root with the capability KILL: false where the Pod Security level `restricted` is enforced, or nothing is known.
    pub root: bool,
    /// Not an allowance: what its pods get beside us.
    pub meshes: Meshes,
}

/// Service meshes whose proxies the pods of a namespace get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meshes {
    /// Istio, with sidecars.
    pub istio: bool,
    /// Linkerd.
    pub linkerd: bool,
    /// Kuma, and what is made of it.
    pub kuma: bool,
}

impl<'a> Injection<'a> {
    /// For asking beforehand what will be said about the pods of a workload: of a pod that is not there, nothing is learned.
    #[must_use]
    pub fn preview(settings: &'a Settings, workload: WorkloadId, allowed: Allowed) -> Self {
        Self {
            settings,
            workload,
            workload_uid: WorkloadUid::default(),
            template_hash: String::new(),
            recommended: BTreeMap::new(),
            worker_ids: None,
            allowed,
            not_shared: None,
            hook_token: String::new(),
            control_keys: Vec::new(),
        }
    }
}

/// What will become of pods of this template (`metadata` and `spec`, as in a Deployment's `spec.template`).
#[must_use]
pub fn preview(template: &Value, config: &WorkerConfig, injection: &Injection<'_>) -> Outcome {
    inject(&json!({"metadata": template.get("metadata"), "spec": template.get("spec")}), config, injection)
}

/// The answer about one pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Apply this.
    Patch {
        /// Operations.
        patch: Patch,
        /// Said to whoever creates the pod.
        warnings: Vec<String>,
    },
    /// It is injected already, and this completes it.
    Complete {
        /// Operations.
        patch: Patch,
        /// Said to whoever creates the pod.
        warnings: Vec<String>,
    },
    /// Nothing to do.
    Skip(Skip),
    /// Asked for, but not possible.
    Refuse(Refusal),
}

/// The annotation of an injected pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Injected {
    /// Version of the webhook that did it.
    pub version: String,
    /// [`config_hash`] of its configuration.
    pub config: String,
    /// The working container.
    pub container: String,
    /// The grace that the pod asked for itself, in seconds: that of probes which come later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_s: Option<u64>,
}

/// A short stable hash (FNV-1a, 64 bits) of everything that a pod's sidecar has from its workload's annotations: what it was told, without token and template
/// hash, and where `config` finds broker, control broker, certificates and management API. Equal for all pods of one configuration. What stands behind a
/// reference (a Secret's content) is not in it.
#[must_use]
pub fn config_hash(told: &SidecarConfig, config: &WorkerConfig) -> String {
    let told = SidecarConfig { hook_token: String::new(), template_hash: String::new(), ..told.clone() };
    let WorkerConfig { broker, control_broker, broker_tls, management, .. } = config;
    let text = serde_json::to_string(&(told, broker, control_broker, broker_tls, management)).unwrap_or_default();
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// The value of [`qscaler_core::names::LABEL_WORKLOAD`]: the name, or where it is too long for a label, its beginning.
#[must_use]
pub fn workload_label(name: &str) -> &str {
    let mut end = name.len().min(LABEL_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].trim_end_matches(|c: char| !c.is_ascii_alphanumeric())
}

/// Decides about one pod.
#[must_use]
pub fn inject(pod: &Value, config: &WorkerConfig, injection: &Injection<'_>) -> Outcome {
    if pod.pointer("/metadata/annotations").is_some_and(|a| a.get(MIRROR).is_some()) {
        return Outcome::Skip(Skip::MirrorPod);
    }
    let count = ["containers", "initContainers"].map(|list| array(pod, list).len()).iter().sum();
    if count > CONTAINERS_MAX {
        return Outcome::Refuse(Refusal::TooManyContainers { count });
    }
    match existing(pod) {
        Existing::Ours { token, grace_s } => return complete(pod, config, &token, grace_s),
        Existing::NotOurs => return Outcome::Refuse(Refusal::NameTaken),
        Existing::None => {}
    }
    if config.dry_run {
        return Outcome::Skip(Skip::DryRun);
    }
    match Plan::new(pod, config, injection).and_then(|plan| plan.patch(injection)) {
        Ok((patch, warnings)) => Outcome::Patch { patch, warnings },
        Err(refusal) => Outcome::Refuse(refusal),
    }
}

/// The string annotations of a metadata object.
#[must_use]
pub fn annotations(metadata: Option<&Value>) -> BTreeMap<String, String> {
    let map = metadata.and_then(|m| m.get("annotations")).and_then(Value::as_object);
    map.map(|map| map.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()).unwrap_or_default()
}
