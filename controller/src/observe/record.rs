//! Kubernetes objects -> compact records of what the controller needs of them. In: objects as watched. Out: records; most of each object is
//! dropped at once, so that a hundred thousand pods fit in memory. Left to others: keeping them (`index`), judging them (`facts`, `sizing`).

use crate::observe::record_owner::owner;
use crate::words::millis;
use crate::words::shorten;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, Node};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use qscaler_core::config::{ConfigError, Parsed, WorkerConfig, parse};
use qscaler_core::drain::fleet::Amount;
use qscaler_core::framework::Scheduler;
use qscaler_core::names::{MANAGER, annotation};
use qscaler_core::size::ContainerResources;
use qscaler_core::units::{Bytes, Millicores};
use qscaler_core::workload::{WorkloadId, WorkloadUid};
use qscaler_inject::{Allowed, Injection, Outcome, PodSize, Settings, preview, scheduler};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

pub use crate::observe::record_bounds::{LimitRecord, QuotaRecord};
pub use crate::observe::record_made::{Bare, Made};
pub use crate::observe::record_owner::Word;
pub use crate::observe::record_pod::{ContainerRecord, Ended, Instances, PodRecord, resources};

/// Kubernetes' default of `maxUnavailable`, percent.
const MAX_UNAVAILABLE_DEFAULT_PERCENT: u32 = 25;

/// Most bytes of an API server's refusal that are quoted: a policy may write a page.
const FAILURE_BYTES_MAX: usize = 1_000;

/// A Deployment that carries annotations of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentRecord {
    /// Namespace and name.
    pub id: WorkloadId,
    /// UID.
    pub uid: WorkloadUid,
    /// Version of the object, also of its `/scale`.
    pub resource_version: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `status.observedGeneration`.
    pub observed_generation: i64,
    /// `spec.replicas`.
    pub spec_replicas: u32,
    /// `status.replicas`.
    pub status_replicas: u32,
    /// `maxUnavailable` of the rollout strategy, in pods.
    pub max_unavailable: u32,
    /// `maxSurge` of a rolling update; None: the strategy is another.
    pub max_surge: Option<Amount>,
    /// Who wrote `spec.replicas` last, by the API server's own notes, if it was not us.
    pub replicas_writer: Option<Box<str>>,
    /// The checked configuration, or every mistake.
    pub config: Result<Arc<WorkerConfig>, Vec<ConfigError>>,
    /// The working container as the template has it; None: the template has no such container.
    pub worker: Option<WorkerTemplate>,
    /// Why pods of this template can have the sidecar in no namespace, in the webhook's own words; None: they can. See `View::refusal`.
    pub refusal: Option<Arc<str>>,
    /// A scheduler that a container of the template starts, by its command, and the container's name.
    pub scheduler: Option<(Scheduler, Word)>,
    /// What such a pod takes of what its namespace allows one pod.
    pub size: PodSize,
}

/// The working container in the pod template.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerTemplate {
    /// Its name.
    pub container: String,
    /// Its environment.
    pub env: Vec<EnvVar>,
    /// Where more of its environment comes from.
    pub env_from: Vec<EnvFromSource>,
    /// Its requests and limits.
    pub resources: ContainerResources,
    /// Memory that the pod's other containers request, bytes.
    pub others_memory: u64,
}

impl DeploymentRecord {
    /// The record of a Deployment; None when it carries no annotation of ours, or is being deleted: its pods go, and nothing is to be decided.
    #[must_use]
    pub fn new(object: &Deployment) -> Option<Self> {
        let meta = &object.metadata;
        if meta.deletion_timestamp.is_some() {
            return None;
        }
        let spec = &object.spec;
        let template = &spec.template;
        let empty = BTreeMap::new();
        let own = meta.annotations.as_ref().unwrap_or(&empty);
        let of_template = template.metadata.as_ref().and_then(|m| m.annotations.as_ref()).unwrap_or(&empty);
        let mut config = match parse(own, of_template) {
            Parsed::NotOurs => return None,
            Parsed::Invalid(errors) => Err(errors),
            Parsed::Valid(config) => Ok(Arc::<WorkerConfig>::from(config)),
        };
        let containers = template.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default();
        let worker = match &config {
            Ok(valid) => find_worker(containers, valid.container.as_deref()),
            Err(_) => None,
        };
        if let (Ok(valid), None) = (&config, &worker) {
            config = Err(vec![no_container(containers, valid.container.clone())]);
        }
        let status = object.status.clone().unwrap_or_default();
        let spec_replicas = count(spec.replicas, 1);
        let id = WorkloadId { namespace: meta.namespace.clone()?, name: meta.name.clone()? };
        let asked = serde_json::to_value(template).unwrap_or_default();
        let refusal = config.as_ref().ok().and_then(|config| refusal(&asked, config, &id));
        Some(Self {
            id,
            refusal,
            scheduler: scheduler(&asked).map(|(scheduler, container)| (scheduler, container.into())),
            size: PodSize::of(&asked),
            uid: meta.uid.clone().unwrap_or_default().into(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            generation: meta.generation.unwrap_or(0),
            observed_generation: status.observed_generation.unwrap_or(0),
            spec_replicas,
            status_replicas: count(status.replicas, 0),
            max_unavailable: max_unavailable(object, spec_replicas),
            max_surge: max_surge(object),
            replicas_writer: replicas_writer(meta),
            config,
            worker,
        })
    }
}

/// By the same function as the webhook: what it will say of the next pod, whatever its namespace allows; that is asked by `index`, since it changes.
fn refusal(template: &Value, config: &WorkerConfig, id: &WorkloadId) -> Option<Arc<str>> {
    let settings = Settings::default();
    match preview(template, config, &Injection::preview(&settings, id.clone(), Allowed::default())) {
        Outcome::Refuse(refusal) => Some(refusal.sentences().join("; ").into()),
        Outcome::Patch { .. } | Outcome::Complete { .. } | Outcome::Skip(_) => None,
    }
}

fn count(value: Option<i32>, default: u32) -> u32 {
    value.map_or(default, |v| u32::try_from(v).unwrap_or(0))
}

fn find_worker(containers: &[Container], name: Option<&str>) -> Option<WorkerTemplate> {
    let container = match name {
        Some(name) => containers.iter().find(|c| c.name == name)?,
        None => containers.first()?,
    };
    Some(WorkerTemplate {
        container: container.name.clone(),
        env: container.env.clone().unwrap_or_default(),
        env_from: container.env_from.clone().unwrap_or_default(),
        resources: resources(container.resources.as_ref()),
        others_memory: containers.iter().filter(|c| c.name != container.name).filter_map(|c| resources(c.resources.as_ref()).memory_request).sum(),
    })
}

fn no_container(containers: &[Container], name: Option<String>) -> ConfigError {
    let names: Vec<&str> = containers.iter().map(|c| c.name.as_str()).collect();
    ConfigError {
        key: annotation::CONTAINER.to_owned(),
        value: name,
        problem: "the pod template has no such container".to_owned(),
        valid: format!("one of {}", names.join(", ")),
    }
}

/// `maxUnavailable` in pods: percentages are rounded down, as the Deployment controller does; with `Recreate` all pods may go at once.
fn max_unavailable(object: &Deployment, replicas: u32) -> u32 {
    let strategy = object.spec.strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate") {
        return replicas.max(1);
    }
    let value = strategy.and_then(|s| s.rolling_update.as_ref()).and_then(|r| r.max_unavailable.as_ref());
    let percent = |p: u32| u32::try_from(u64::from(replicas) * u64::from(p) / 100).unwrap_or(u32::MAX);
    match value {
        None => percent(MAX_UNAVAILABLE_DEFAULT_PERCENT),
        Some(IntOrString::Int(n)) => u32::try_from(*n).unwrap_or(0),
        Some(IntOrString::String(text)) => percent(text.trim_end_matches('%').parse().unwrap_or(MAX_UNAVAILABLE_DEFAULT_PERCENT)),
    }
}

/// A write takes the field from whoever had it before, so the newest entry that has it is the writer.
fn replicas_writer(meta: &ObjectMeta) -> Option<Box<str>> {
    let entries = meta.managed_fields.iter().flatten();
    let has_it = entries.filter(|e| e.fields_v1.as_ref().is_some_and(|f| f.0.pointer("/f:spec/f:replicas").is_some()));
    let newest = has_it.max_by_key(|e| e.time.as_ref().map_or(0, millis))?;
    newest.manager.as_deref().filter(|manager| *manager != MANAGER).map(Into::into)
}

/// Kubernetes' default of `maxSurge`, percent.
const MAX_SURGE_DEFAULT_PERCENT: u32 = 25;

fn max_surge(object: &Deployment) -> Option<Amount> {
    let strategy = object.spec.strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate") {
        return None;
    }
    Some(match strategy.and_then(|s| s.rolling_update.as_ref()).and_then(|r| r.max_surge.as_ref()) {
        None => Amount::Percent(MAX_SURGE_DEFAULT_PERCENT),
        Some(IntOrString::Int(n)) => Amount::Pods(u32::try_from(*n).unwrap_or(0)),
        Some(IntOrString::String(text)) => Amount::Percent(text.trim_end_matches('%').parse().unwrap_or(MAX_SURGE_DEFAULT_PERCENT)),
    })
}

/// A ReplicaSet of a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaSetRecord {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// The Deployment's UID.
    pub deployment_uid: WorkloadUid,
    /// `spec.replicas`.
    pub spec_replicas: u32,
    /// `status.replicas`.
    pub status_replicas: u32,
    /// `status.readyReplicas`.
    pub ready_replicas: u32,
    /// Why the API server refuses its pods; None: it does not.
    pub failure: Option<Arc<CreateFailure>>,
    /// When it was created, milliseconds since the epoch.
    pub created_ms: u64,
    /// `deployment.kubernetes.io/revision`; 0 where it is not set.
    pub revision: u64,
    /// `deployment.kubernetes.io/max-replicas`.
    pub max_replicas: Option<u32>,
}

/// Why pods are not created, as the ReplicaSet's controller notes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateFailure {
    /// Such as `FailedCreate`.
    pub reason: String,
    /// The API server's words.
    pub message: String,
}

/// The condition that a ReplicaSet has while its pods are refused.
fn create_failure(object: &ReplicaSet) -> Option<Arc<CreateFailure>> {
    let conditions = object.status.as_ref()?.conditions.as_ref()?;
    let said = [Some("ReplicaFailure"), Some("True"), Some("FailedCreate")];
    let failed = conditions.iter().find(|c| [c.type_.as_deref(), c.status.as_deref(), c.reason.as_deref()] == said)?;
    let mut message = failed.message.clone().unwrap_or_default();
    shorten(&mut message, FAILURE_BYTES_MAX);
    Some(Arc::new(CreateFailure { reason: "FailedCreate".to_owned(), message }))
}

/// The Deployment controller's own annotations.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// See [`REVISION`].
const SET_MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

impl ReplicaSetRecord {
    /// The record of a ReplicaSet; None when no Deployment owns it.
    #[must_use]
    pub fn new(object: &ReplicaSet) -> Option<Self> {
        let meta = &object.metadata;
        let status = object.status.as_ref();
        let note = |key: &str| meta.annotations.as_ref().and_then(|a| a.get(key));
        Some(Self {
            namespace: meta.namespace.clone()?,
            name: meta.name.clone()?,
            uid: meta.uid.clone()?,
            deployment_uid: owner(meta, "Deployment")?.into(),
            spec_replicas: count(object.spec.replicas, 1),
            status_replicas: count(status.map(|s| s.replicas), 0),
            ready_replicas: count(status.and_then(|s| s.ready_replicas), 0),
            failure: create_failure(object),
            created_ms: meta.creation_timestamp.as_ref().map_or(0, millis),
            revision: note(REVISION).and_then(|v| v.parse().ok()).unwrap_or(0),
            max_replicas: note(SET_MAX_REPLICAS).and_then(|v| v.parse().ok()),
        })
    }

    /// It has or wants pods.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.spec_replicas > 0 || self.status_replicas > 0
    }
}

/// Something else that writes a Deployment's replicas or its pods' sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignRecord {
    /// Namespace.
    pub namespace: String,
    /// Kind, such as `HorizontalPodAutoscaler`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// The Deployment it targets.
    pub deployment: String,
}

impl ForeignRecord {
    /// Reads the target reference at `pointer` of an object; None when it targets no Deployment, or does nothing to it (`updateMode: "Off"`).
    #[must_use]
    pub fn new(kind: &str, object: &serde_json::Value, pointer: &str) -> Option<Self> {
        let target = object.pointer(pointer)?;
        let text = |value: Option<&serde_json::Value>| value.and_then(|v| v.as_str()).map(str::to_owned);
        // KEDA's default kind is Deployment, and the field may be missing there.
        let target_kind = text(target.get("kind")).unwrap_or_else(|| "Deployment".to_owned());
        let off = object.pointer("/spec/updatePolicy/updateMode").and_then(|v| v.as_str()) == Some("Off");
        if target_kind != "Deployment" || off {
            return None;
        }
        Some(Self {
            namespace: text(object.pointer("/metadata/namespace"))?,
            kind: kind.to_owned(),
            name: text(object.pointer("/metadata/name"))?,
            deployment: text(target.get("name"))?,
        })
    }
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRecord {
    /// Name.
    pub name: String,
    /// Takes no more pods.
    pub cordoned: bool,
    /// Allocatable memory.
    pub memory_bytes: Option<u64>,
    /// Allocatable CPU.
    pub cpu_m: Option<u64>,
}

impl NodeRecord {
    /// The record of a node.
    #[must_use]
    pub fn new(object: &Node) -> Self {
        let allocatable = object.status.as_ref().and_then(|s| s.allocatable.as_ref());
        let get = |key: &str| allocatable.and_then(|a| a.get(key)).map(|q| q.0.as_str());
        Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            cordoned: object.spec.as_ref().and_then(|s| s.unschedulable) == Some(true),
            memory_bytes: get("memory").and_then(|q| Bytes::parse(q).ok()).map(|b| b.0),
            cpu_m: get("cpu").and_then(|q| Millicores::parse(q).ok()).map(|m| m.0),
        }
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
