//! Where another scaler owns the count: tells the ReplicaSet which pods to prefer. In: reports. Out: a few cost changes, only for what lasts.
//! Left to others: everything else; the hold keeps tasks whole whatever is chosen.

use super::count::fresh;
use super::{FleetEffect, FleetFacts, PodFacts};
use crate::message::Busy;
use std::collections::BTreeMap;

/// A pod must have been idle or busy for this long: short tasks must not become API writes.
const EDGE_LASTS_MS: u64 = 30_000;
/// Cost writes per step, and a step comes about once a second: bounds the load on the API server.
const WRITES_MAX: usize = 5;
/// Cost of a pod that is idle: goes first.
const IDLE_COST: i32 = -1_000;
/// Cost of an idle pod whose hold is less than whole: a task may come to it before it goes, so a better idle one goes first.
const IDLE_GAPPED_COST: i32 = -500;
/// Cost of a pod in a long task: goes last.
const BUSY_COST: i32 = 1_000;

/// Since when each pod, by UID, is what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Edges(BTreeMap<String, (Busy, u64)>);

impl Edges {
    /// The cost changes of this step.
    pub(super) fn step(&mut self, facts: &FleetFacts, now_ms: u64) -> Vec<FleetEffect> {
        self.0.retain(|uid, _| facts.pods.iter().any(|pod| pod.uid == *uid));
        let mut writes = Vec::new();
        for pod in facts.pods.iter().filter(|pod| !pod.terminating && pod.injected) {
            let Some(busy) = fresh(pod, now_ms).map(|report| report.busy) else { continue };
            let edge = self.0.entry(pod.uid.clone()).or_insert((busy, now_ms));
            if edge.0 != busy {
                *edge = (busy, now_ms);
            }
            let lasts = now_ms >= edge.1.saturating_add(EDGE_LASTS_MS);
            let cost = match busy {
                Busy::Idle if pod.gapped => IDLE_GAPPED_COST,
                Busy::Idle => IDLE_COST,
                Busy::Busy => BUSY_COST,
                Busy::Unknown => continue,
            };
            let users = pod.deletion_cost != 0 && !pod.cost_ours;
            if lasts && !users && pod.deletion_cost != cost && writes.len() < WRITES_MAX {
                writes.push(set_cost(pod, Some(cost)));
            }
        }
        writes
    }
}

/// A cost change of this pod as read.
pub(super) fn set_cost(pod: &PodFacts, cost: Option<i32>) -> FleetEffect {
    FleetEffect::SetDeletionCost { pod_uid: pod.uid.clone(), pod_name: pod.name.clone(), resource_version: pod.resource_version.clone(), cost }
}
