//! Marks that keep node scalers (Karpenter, the cluster autoscaler) away from pods with a task, and taking back whatever marks are ours. In: the
//! view, what pods report. Out: a few annotation writes. Left to others: which and when (`core::mark`), writing (`apply`); the hold, which keeps
//! the task whole whatever a node scaler does.

use crate::act::echo::Echo;
use crate::act::plan::{Action, PodRef};
use crate::observe::index::View;
use crate::observe::reports::Intake;
use qscaler_core::mark::{Eviction, PodMarks};
use std::collections::{HashMap, HashSet};

/// Marks taken back per look: bounds the load on the API server.
const TAKEN_BACK_MAX: usize = 10;

/// What was decided and written.
#[derive(Clone, Debug)]
pub struct Keep {
    eviction: Eviction,
    /// The last write to each pod's annotations, by its UID: each is made from one version, so that of two from the same the API server refuses the second.
    written: HashMap<String, Echo>,
}

impl Keep {
    /// Nothing known yet.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self { eviction: Eviction::new(now_ms), written: HashMap::new() }
    }

    /// Forgets pods that are gone.
    pub fn retain(&mut self, pods: &HashSet<&str>) {
        self.written.retain(|uid, _| pods.contains(uid.as_str()));
    }

    /// The writes of this look.
    pub fn step(&mut self, view: &View, heard: &Intake, now_ms: u64) -> Vec<Action> {
        let of = |p: &'_ std::sync::Arc<crate::observe::record::PodRecord>| self.is_echo(&p.uid, &p.resource_version, now_ms);
        let pods: Vec<PodMarks<'_>> = view
            .pods
            .iter()
            .filter(|p| p.injected && !p.terminating)
            .map(|p| PodMarks { uid: &p.uid, busy: heard.fresh(&p.uid, now_ms).map(|h| h.busy), marks: p.marks.as_deref(), written: of(p) })
            .collect();
        let writes = self.eviction.step(&pods, view.out_of_sync.is_none(), now_ms);
        let action = |(uid, patch): (String, _)| view.pods.iter().find(|p| *p.uid == *uid).map(|p| Action::Mark { pod: PodRef::new(p), patch });
        writes.into_iter().filter_map(action).collect()
    }

    /// Nothing is to be changed any more: marks of ours go, and what was there before comes back.
    pub fn take_back(&mut self, view: &View, now_ms: u64) -> Vec<Action> {
        let left = view.pods.iter().filter(|p| !p.terminating && !self.is_echo(&p.uid, &p.resource_version, now_ms));
        let ours = left.filter_map(|p| p.marks.as_ref().filter(|marks| marks.any_ours()).map(|marks| (p, marks.take_back())));
        ours.take(TAKEN_BACK_MAX).map(|(p, patch)| Action::Mark { pod: PodRef::new(p), patch }).collect()
    }

    /// The watch has not shown the last write to this pod yet.
    pub fn is_echo(&self, uid: &str, version: &str, now_ms: u64) -> bool {
        self.written.get(uid).is_some_and(|echo| echo.is_awaited(version, now_ms))
    }

    /// It was written.
    pub fn written(&mut self, pod: &PodRef, now_ms: u64) {
        self.written.insert(pod.uid.clone(), Echo::new(&pod.resource_version, now_ms));
    }
}
