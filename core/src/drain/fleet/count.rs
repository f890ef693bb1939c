//! Counts a workload's pods by what a drain may expect of them. In: facts. Out: a census. Left to others: why nothing may be
//! lowered (`blocked`), what to do about it (`machine`).

use super::{FleetFacts, PodFacts, ReportFacts, is_fresh};
use crate::message::{Busy, WorkerState};

/// The pods that are not terminating, by kind.
#[derive(Clone, Debug)]
pub(super) struct Census<'a> {
    /// All of them.
    pub(super) active: u32,
    /// Parked by their own word; the ones with a task last, then by UID.
    pub(super) parked: Vec<&'a PodFacts>,
    /// Not ready, and no task can be lost: no worker yet, or an idle one. The ReplicaSet takes these first.
    pub(super) starting: u32,
    /// Not ready though perhaps at work (a flapping probe, a crashed sidecar): would be taken first, and should not be.
    pub(super) unsteady: u32,
    /// Ready.
    pub(super) ready: u32,
    /// Wanted by the count and not created yet, by both witnesses: the pods seen and the Deployment's own count of them.
    pub(super) unborn: u32,
    /// Useful pods there will be once the ReplicaSet has followed the count as it stands.
    pub(super) expected: u32,
}

/// A number of things as `u32`; there are never more pods than that.
pub(super) fn count<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

/// The pod's report, if it still says something about now.
pub(super) fn fresh(pod: &PodFacts, now_ms: u64) -> Option<&ReportFacts> {
    pod.report.as_ref().filter(|report| is_fresh(report.at_ms, now_ms))
}

pub(super) fn is_parked(pod: &PodFacts, now_ms: u64) -> bool {
    fresh(pod, now_ms).is_some_and(|report| report.state == WorkerState::Parked)
}

/// The API itself shows the parked pod as not ready.
pub(super) fn is_quiet(pod: &PodFacts) -> bool {
    !pod.ready && !pod.sidecar_ready
}

/// A pod that is not ready counts as starting when no worker runs in it, or an idle one, or when nothing has been heard of it for so long that
/// waiting for it has no end.
fn is_starting(pod: &PodFacts, now_ms: u64) -> bool {
    match &pod.report {
        None => true,
        Some(report) => report.state == WorkerState::Boot || report.busy == Busy::Idle || fresh(pod, now_ms).is_none(),
    }
}

impl<'a> Census<'a> {
    pub(super) fn new(facts: &'a FleetFacts, now_ms: u64) -> Self {
        let active: Vec<&PodFacts> = facts.pods.iter().filter(|pod| !pod.terminating).collect();
        let mut parked: Vec<&PodFacts> = active.iter().copied().filter(|pod| is_parked(pod, now_ms)).collect();
        parked.sort_by_key(|pod| (pod.report.as_ref().is_some_and(|report| report.busy != Busy::Idle), pod.uid.clone()));
        let not_ready: Vec<&PodFacts> = active.iter().copied().filter(|pod| !pod.ready && !is_parked(pod, now_ms)).collect();
        let starting = not_ready.iter().filter(|pod| is_starting(pod, now_ms)).count();
        let active_count = count(&active);
        // A pod that is not listed is not absent: the Deployment may have counted it already.
        let created = active_count.max(facts.status_replicas);
        let useful = created.saturating_sub(count(&parked));
        let unborn = facts.spec_replicas.saturating_sub(created);
        Self {
            active: active_count,
            starting: u32::try_from(starting).unwrap_or(u32::MAX),
            unsteady: u32::try_from(not_ready.len() - starting).unwrap_or(u32::MAX),
            ready: u32::try_from(active.iter().filter(|pod| pod.ready).count()).unwrap_or(u32::MAX),
            unborn,
            expected: useful.saturating_add(unborn).min(facts.spec_replicas),
            parked,
        }
    }

    /// Ready or starting, not parked, not terminating.
    pub(super) fn useful(&self) -> u32 {
        self.active.saturating_sub(count(&self.parked))
    }
}

/// Facts behind which every watch is in sync: whoever lowers a count or takes a mark off has to show them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fresh<'a>(&'a FleetFacts);

impl<'a> Fresh<'a> {
    /// None: what is not seen may be there all the same.
    pub(super) fn of(facts: &'a FleetFacts) -> Option<Self> {
        facts.out_of_sync.is_none().then_some(Self(facts))
    }

    pub(super) fn facts(self) -> &'a FleetFacts {
        self.0
    }
}
