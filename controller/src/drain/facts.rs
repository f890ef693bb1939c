//! What is known of one workload -> the facts that the drain decides from. In: the index's view and what was heard. Out: `FleetFacts`. Left to others:
//! every decision.

use crate::observe::index::View;
use crate::observe::record::{ContainerRecord, PodRecord, ReplicaSetRecord};
use crate::observe::reports::Intake;
use qscaler_api::Intent;
use qscaler_core::drain::fleet::{FleetFacts, IntentRecord, PodFacts, ReportFacts, SetFacts};
use qscaler_core::message::Epoch;
use qscaler_core::names::annotation;
use qscaler_core::size::PodPhase;

/// The wave as the status keeps it.
pub(crate) fn record(intent: &Intent) -> IntentRecord {
    IntentRecord { epoch: Epoch(intent.epoch), count: intent.count, issued_ms: intent.issued_ms, expires_ms: intent.expires_ms }
}

/// What the facts cannot be read from a view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Why the replicas are somebody else's or nobody's to change: another scaler, pods that cannot have the sidecar; as a sentence.
    pub conflict: Option<String>,
    /// What the wish is made from is too old to lower by.
    pub data_stale: bool,
}

/// Everything one step of the drain looks at. Only a leader asks.
#[must_use]
pub fn fleet_facts(view: &View, heard: &Intake, circumstances: Circumstances) -> FleetFacts {
    let deployment = &view.deployment;
    FleetFacts {
        resource_version: deployment.resource_version.clone(),
        generation_observed: deployment.observed_generation >= deployment.generation,
        spec_replicas: deployment.spec_replicas,
        status_replicas: deployment.status_replicas,
        rs_ready_replicas: view.ready_replicas,
        sets: view.sets.iter().map(set_facts).collect(),
        max_surge: deployment.max_surge,
        max_unavailable: deployment.max_unavailable,
        pods: view.pods.iter().map(|pod| pod_facts(pod, view, heard)).collect(),
        conflict: circumstances.conflict,
        data_stale: circumstances.data_stale,
        out_of_sync: view.out_of_sync.clone(),
        leader: true,
    }
}

fn pod_facts(pod: &PodRecord, view: &View, heard: &Intake) -> PodFacts {
    PodFacts {
        uid: pod.uid.to_string(),
        name: pod.name.to_string(),
        resource_version: pod.resource_version.to_string(),
        created_ms: pod.created_ms,
        ready: pod.ready,
        scheduled: pod.node.is_some(),
        unschedulable: pod.unschedulable,
        pending: pod.phase == PodPhase::Pending,
        started: worker_has_run(pod, view),
        terminating: pod.terminating,
        injected: pod.injected,
        sidecar_started: pod.sidecar_started,
        sidecar_ready: pod.sidecar_ready,
        deletion_cost: pod.deletion_cost,
        cost_ours: pod.marks.as_ref().is_some_and(|marks| marks.is_ours(annotation::POD_DELETION_COST)),
        report: heard.heard(&pod.uid).map(|h| ReportFacts { state: h.state, epoch: h.epoch, busy: h.busy, at_ms: h.at_ms }),
        node_cordoned: pod.node.as_ref().is_some_and(|n| view.cordoned.contains(n)),
        gapped: heard.heard(&pod.uid).is_some_and(|h| !h.gaps.is_empty()),
        set_uid: pod.replicaset_uid.to_string(),
    }
}

/// While the annotations are wrong no container is known to be the worker's: then any counts.
pub(crate) fn worker_has_run(pod: &PodRecord, view: &View) -> bool {
    match view.deployment.worker.as_ref().and_then(|w| pod.container(&w.container)) {
        Some(container) => container.has_run(),
        None => pod.containers.iter().any(ContainerRecord::has_run),
    }
}

fn set_facts(set: &ReplicaSetRecord) -> SetFacts {
    SetFacts {
        uid: set.uid.clone(),
        created_ms: set.created_ms,
        revision: set.revision,
        spec_replicas: set.spec_replicas,
        max_replicas: set.max_replicas,
        create_failure: set.failure.as_ref().map(|f| f.message.clone()),
    }
}

/// The sentence about other writers of the replica count.
#[must_use]
pub fn conflict(scalers: &[String]) -> Option<String> {
    let (first, rest) = scalers.split_first()?;
    let others = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    Some(format!(
        "{first}{others} also scales this Deployment, so replicas are left alone; remove it, or set the annotation {} to protect (scaling: protect)",
        qscaler_core::names::annotation::SCALING
    ))
}
