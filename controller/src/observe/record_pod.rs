//! A pod -> its compact record. In: the object as watched. Out: what drain and sizing need of it. Left to others: judging it.

use crate::observe::record_made::{Bare, Made, bare, made};
use crate::observe::record_owner::{Word, owner};
use crate::words::millis;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodCondition, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use qscaler_core::mark::Marks;
use qscaler_core::names::{MANAGER, annotation, sidecar};
use qscaler_core::size::{ContainerResources, InProgress, OomSeen, Pending, PendingReason, PodPhase, QosClass};
use qscaler_core::units::{Bytes, Millicores};

/// A termination message longer than this is not ours: the kubelet itself cuts at 4 KiB.
const TERMINATION_MESSAGE_MAX: usize = 4096;
/// What the Vertical Pod Autoscaler's admission controller leaves on a pod whose resources it has set.
const VPA_MARK: &str = "vpaUpdates";
/// Exit code of a process ended by SIGKILL.
pub(crate) const EXIT_SIGKILL: i32 = 137;

/// One pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodRecord {
    /// Namespace.
    pub namespace: Word,
    /// UID.
    pub uid: Word,
    /// Name.
    pub name: Word,
    /// Version of the object.
    pub resource_version: Box<str>,
    /// UID of its ReplicaSet.
    pub replicaset_uid: Word,
    /// When it was created, milliseconds since the epoch.
    pub created_ms: u64,
    /// `status.startTime`, milliseconds since the epoch.
    pub started_ms: Option<u64>,
    /// Condition Ready.
    pub ready: bool,
    /// When Ready last changed.
    pub ready_since_ms: u64,
    /// Its node.
    pub node: Option<Word>,
    /// The scheduler found no node.
    pub unschedulable: bool,
    /// Has a deletion timestamp.
    pub terminating: bool,
    /// `status.phase`.
    pub phase: PodPhase,
    /// Has our sidecar.
    pub injected: bool,
    /// Its containers share one process namespace.
    pub shares_processes: bool,
    /// When its grace ends, milliseconds since the epoch; None: nobody has deleted it.
    pub deadline_ms: Option<u64>,
    /// It was deleted without any grace.
    pub forced: bool,
    /// What the kubelet says of the sidecar's container.
    pub sidecar: Option<Box<Instances>>,
    /// The UID that the pod's spec gives to the sidecar; None: that of its image.
    pub sidecar_uid: Option<i64>,
    /// The sidecar's container has started.
    pub sidecar_started: bool,
    /// The sidecar's container is ready.
    pub sidecar_ready: bool,
    /// The last words of the sidecar, with the instance that said them.
    pub last_words: Option<Box<(String, String)>>,
    /// Deletion cost, 0 where not set.
    pub deletion_cost: i32,
    /// `pod-template-hash`.
    pub template_hash: Word,
    /// `status.qosClass`.
    pub qos: QosClass,
    /// Condition PodResizePending.
    pub pending: Option<Box<Pending>>,
    /// Condition PodResizeInProgress.
    pub in_progress: Option<Box<InProgress>>,
    /// Its end has been ordered by annotation.
    pub release: bool,
    /// What it carries of annotations that others act on, and whose it is; None: nothing.
    pub marks: Option<Box<Marks>>,
    /// Its plain containers.
    pub containers: Vec<ContainerRecord>,
    /// Who else has set its resources since it was made.
    pub other_sizer: Option<Box<str>>,
    /// The init containers (sidecars too) have requests equal to limits.
    pub inits_guaranteed: bool,
    /// How its sidecar was made; None: it has none, or another version wrote it that this one cannot read.
    pub made: Option<Box<Made>>,
    /// Where the broker knows it by, if it has no sidecar that speaks for it.
    pub bare: Option<Box<Bare>>,
}

/// One container of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerRecord {
    /// Name.
    pub name: Word,
    /// What the spec asks for.
    pub spec: ContainerResources,
    /// What is in force.
    pub status: Option<ContainerResources>,
    /// `resizePolicy` restarts it when memory changes.
    pub memory_resize_restarts: bool,
    /// OOM kills that the kubelet shows: the present instance's and the one before.
    pub ooms: Vec<OomSeen>,
    /// Its instances; None: the kubelet has said nothing yet.
    pub life: Option<Box<Instances>>,
}

/// What the kubelet says of one container's instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instances {
    /// How often it was started again.
    pub restarts: u32,
    /// Since when it runs, milliseconds since the epoch, cut to seconds; None: it does not run.
    pub running_since_ms: Option<u64>,
    /// Why it does not run yet or again: the kubelet's reason and message.
    pub waiting: Option<(Box<str>, Box<str>)>,
    /// How its newest instance that has ended did so.
    pub ended: Option<Ended>,
}

/// The end of one instance of a container. Times in milliseconds since the epoch, cut to seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Which instance: the container ID, or the restart count where it is missing.
    pub instance: Box<str>,
    /// Its exit code; 128 and a signal's number where that ended it.
    pub exit_code: i32,
    /// The kubelet's word, such as `OOMKilled` or `Error`.
    pub reason: Box<str>,
    /// When it started.
    pub started_ms: u64,
    /// When it ended.
    pub at_ms: u64,
}

impl ContainerRecord {
    /// The memory limit in force, else the one asked for.
    #[must_use]
    pub fn memory_limit(&self) -> Option<u64> {
        self.status.and_then(|s| s.memory_limit).or(self.spec.memory_limit)
    }

    /// It has run, be it for a moment.
    #[must_use]
    pub fn has_run(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.restarts > 0 || life.running_since_ms.is_some() || life.ended.is_some())
    }

    /// Requests equal limits for both resources.
    #[must_use]
    pub fn is_guaranteed(&self) -> bool {
        guaranteed(&self.spec)
    }
}

fn guaranteed(r: &ContainerResources) -> bool {
    r.memory_limit.is_some() && r.cpu_limit_m.is_some() && r.memory_request == r.memory_limit && r.cpu_request_m == r.cpu_limit_m
}

/// Requests and limits as numbers; what does not parse counts as not set.
#[must_use]
pub fn resources(from: Option<&ResourceRequirements>) -> ContainerResources {
    let Some(from) = from else { return ContainerResources::default() };
    let get =
        |limit: bool, key: &str| if limit { from.limits.as_ref() } else { from.requests.as_ref() }.and_then(|m| m.get(key)).map(|q| q.0.as_str());
    let memory = |limit| get(limit, "memory").and_then(|q| Bytes::parse(q).ok()).map(|b| b.0);
    let cpu = |limit| get(limit, "cpu").and_then(|q| Millicores::parse(q).ok()).map(|m| m.0);
    ContainerResources { memory_request: memory(false), memory_limit: memory(true), cpu_request_m: cpu(false), cpu_limit_m: cpu(true) }
}

impl PodRecord {
    /// The record of a pod; None when no ReplicaSet owns it, or it is over (neither running nor held).
    #[must_use]
    pub fn new(object: &Pod) -> Option<Self> {
        let meta = &object.metadata;
        let spec = object.spec.as_ref()?;
        let status = object.status.clone().unwrap_or_default();
        let conditions = status.conditions.clone().unwrap_or_default();
        let condition = |kind: &str| conditions.iter().find(|c| c.type_ == kind);
        let note = |key: &str| meta.annotations.as_ref().and_then(|a| a.get(key)).map(String::as_str);
        let ready = condition("Ready");
        let scheduled = condition("PodScheduled");
        let inits = spec.init_containers.as_deref().unwrap_or_default();
        let side = status.init_container_statuses.as_deref().unwrap_or_default().iter().find(|s| s.name == sidecar::CONTAINER);
        let statuses = status.container_statuses.as_deref().unwrap_or_default();
        Some(Self {
            namespace: meta.namespace.as_deref()?.into(),
            uid: meta.uid.as_deref()?.into(),
            name: meta.name.as_deref()?.into(),
            resource_version: meta.resource_version.as_deref().unwrap_or_default().into(),
            replicaset_uid: owner(meta, "ReplicaSet")?.into(),
            created_ms: meta.creation_timestamp.as_ref().map_or(0, millis),
            started_ms: status.start_time.as_ref().map(millis),
            ready: ready.is_some_and(|c| c.status == "True"),
            ready_since_ms: ready.and_then(|c| c.last_transition_time.as_ref()).map_or(0, millis),
            node: spec.node_name.as_deref().filter(|n| !n.is_empty()).map(Word::from),
            unschedulable: scheduled.is_some_and(|c| c.status == "False" && c.reason.as_deref() == Some("Unschedulable")),
            terminating: meta.deletion_timestamp.is_some(),
            shares_processes: spec.share_process_namespace == Some(true),
            deadline_ms: meta.deletion_timestamp.as_ref().map(millis),
            forced: meta.deletion_timestamp.is_some() && meta.deletion_grace_period_seconds == Some(0),
            sidecar: side.map(|s| Box::new(life(s))),
            sidecar_uid: inits.iter().find(|c| c.name == sidecar::CONTAINER).and_then(|c| c.security_context.as_ref()?.run_as_user),
            phase: phase(status.phase.as_deref()),
            injected: inits.iter().any(|c| c.name == sidecar::CONTAINER),
            sidecar_started: side.is_some_and(|s| s.started == Some(true)),
            sidecar_ready: side.is_some_and(|s| s.ready),
            last_words: side.and_then(last_words).map(Box::new),
            deletion_cost: note(annotation::POD_DELETION_COST).and_then(|v| v.parse().ok()).unwrap_or(0),
            template_hash: meta.labels.as_ref().and_then(|l| l.get("pod-template-hash")).map_or("", String::as_str).into(),
            qos: match status.qos_class.as_deref() {
                Some("Guaranteed") => QosClass::Guaranteed,
                Some("BestEffort") => QosClass::BestEffort,
                _ => QosClass::Burstable,
            },
            pending: condition("PodResizePending").filter(|c| c.status == "True").map(|c| Box::new(pending(c, meta.generation))),
            in_progress: condition("PodResizeInProgress").filter(|c| c.status == "True").map(|c| Box::new(in_progress(c))),
            release: note(annotation::RELEASE) == Some("now"),
            marks: meta.annotations.as_ref().and_then(Marks::read).map(Box::new),
            containers: spec.containers.iter().map(|c| container(c, statuses.iter().find(|s| s.name == c.name))).collect(),
            other_sizer: other_sizer(meta),
            inits_guaranteed: inits.iter().all(|c| guaranteed(&resources(c.resources.as_ref()))),
            made: inits.iter().find(|c| c.name == sidecar::CONTAINER).and_then(|c| made(c, note(annotation::INJECTED)?)).map(Box::new),
            bare: inits.iter().all(|c| c.name != sidecar::CONTAINER).then(|| Box::new(bare(meta, spec, status.pod_ip.as_deref()))),
        })
    }

    /// Neither finished nor terminating: what the ReplicaSet counts.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.terminating && !self.is_finished()
    }

    /// Succeeded or failed.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, PodPhase::Succeeded | PodPhase::Failed)
    }

    /// The container of this name.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&ContainerRecord> {
        self.containers.iter().find(|c| *c.name == *name)
    }
}

/// The API server notes who wrote through `pods/resize`, and a VPA's admission controller leaves its mark: neither is gone after a restart of
/// the controller.
fn other_sizer(meta: &ObjectMeta) -> Option<Box<str>> {
    if meta.annotations.as_ref().is_some_and(|a| a.contains_key(VPA_MARK)) {
        return Some("a VerticalPodAutoscaler".into());
    }
    let resized = meta.managed_fields.iter().flatten().filter(|m| m.subresource.as_deref() == Some("resize"));
    resized.filter_map(|m| m.manager.as_deref()).find(|manager| *manager != MANAGER).map(Into::into)
}

fn phase(text: Option<&str>) -> PodPhase {
    match text {
        Some("Pending") => PodPhase::Pending,
        Some("Running") => PodPhase::Running,
        Some("Succeeded") => PodPhase::Succeeded,
        Some("Failed") => PodPhase::Failed,
        _ => PodPhase::Unknown,
    }
}

fn seconds(condition: &PodCondition) -> f64 {
    condition.last_transition_time.as_ref().map_or(0.0, |t| millis(t) as f64 / 1000.0)
}

fn pending(condition: &PodCondition, generation: Option<i64>) -> Pending {
    let infeasible = condition.reason.as_deref() == Some("Infeasible");
    Pending {
        reason: if infeasible { PendingReason::Infeasible } else { PendingReason::Deferred },
        since_s: seconds(condition),
        message: condition.message.clone().unwrap_or_default(),
        current: condition.observed_generation.is_none() || condition.observed_generation == generation,
    }
}

fn in_progress(condition: &PodCondition) -> InProgress {
    InProgress {
        error: condition.reason.as_deref() == Some("Error"),
        since_s: seconds(condition),
        message: condition.message.clone().unwrap_or_default(),
    }
}

fn last_words(status: &ContainerStatus) -> Option<(String, String)> {
    let states = [status.state.as_ref(), status.last_state.as_ref()];
    let ended = states.into_iter().flatten().find_map(|s| s.terminated.as_ref())?;
    let message = ended.message.clone().filter(|m| !m.is_empty() && m.len() <= TERMINATION_MESSAGE_MAX)?;
    Some((ended.container_id.clone().unwrap_or_else(|| status.restart_count.to_string()), message))
}

fn life(status: &ContainerStatus) -> Instances {
    let state = status.state.as_ref();
    let ended = [state, status.last_state.as_ref()].into_iter().flatten().find_map(|s| s.terminated.as_ref());
    Instances {
        restarts: u32::try_from(status.restart_count).unwrap_or(0),
        running_since_ms: state.and_then(|s| s.running.as_ref()).map(|r| r.started_at.as_ref().map_or(0, millis)),
        waiting: state.and_then(|s| s.waiting.as_ref()).map(|w| {
            let text = |t: &Option<String>| t.as_deref().unwrap_or_default().into();
            (text(&w.reason), text(&w.message))
        }),
        ended: ended.map(|t| Ended {
            instance: t.container_id.clone().unwrap_or_else(|| status.restart_count.to_string()).into(),
            exit_code: t.exit_code,
            reason: t.reason.as_deref().unwrap_or_default().into(),
            started_ms: t.started_at.as_ref().map_or(0, millis),
            at_ms: t.finished_at.as_ref().map_or(0, millis),
        }),
    }
}

fn container(spec: &Container, status: Option<&ContainerStatus>) -> ContainerRecord {
    let restarts = |p: &k8s_openapi::api::core::v1::ContainerResizePolicy| p.resource_name == "memory" && p.restart_policy == "RestartContainer";
    let states = status.map(|s| [s.state.as_ref(), s.last_state.as_ref()]).unwrap_or_default();
    let ended = states.into_iter().flatten().filter_map(|s| s.terminated.as_ref());
    let ooms = ended.filter(|t| t.reason.as_deref() == Some("OOMKilled")).map(|t| OomSeen {
        instance: t.container_id.clone().unwrap_or_else(|| status.map_or(0, |s| s.restart_count).to_string()),
        child: t.exit_code != EXIT_SIGKILL,
        started_ms: t.started_at.as_ref().map(millis).filter(|ms| *ms > 0),
        at_ms: t.finished_at.as_ref().map_or(0, millis),
    });
    ContainerRecord {
        name: spec.name.as_str().into(),
        spec: resources(spec.resources.as_ref()),
        status: status.and_then(|s| s.resources.as_ref()).map(|r| resources(Some(r))),
        memory_resize_restarts: spec.resize_policy.iter().flatten().any(restarts),
        ooms: ooms.collect(),
        life: status.map(|s| Box::new(life(s))),
    }
}
