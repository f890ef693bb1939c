//! Keeps node scalers (Karpenter, the cluster autoscaler) away from pods with a task, and only from those. In: what pods report. Out: a few
//! annotation writes, only for what lasts. Left to others: the hold, which keeps the task whole whatever a node scaler does.

use crate::index::View;
use crate::intake::Intake;
use crate::plan::{Action, PodRef};
use crate::record::Word;
use qscaler_core::message::Busy;
use qscaler_core::size::RateCap;
use std::collections::{HashMap, HashSet};

/// A task this young is not worth a write: most end before a node scaler has made up its mind, milliseconds.
const BUSY_MS: u64 = 10_000;
/// A worker that was idle for this long may go with its node, milliseconds.
const IDLE_MS: u64 = 60_000;
/// Writes of one workload per second in the long run, and at once: bounds the load on the API server.
const WRITES_PER_S: f64 = 1.0;
/// See [`WRITES_PER_S`].
const WRITES_BURST: f64 = 10.0;
/// A pod that was written is not written again before the watch has shown it, or this long, milliseconds.
const ECHO_MS: u64 = 3_000;

/// Since when each pod is what it is, and what was written.
#[derive(Clone, Debug)]
pub struct Keep {
    since: HashMap<Word, (Busy, u64)>,
    written: HashMap<String, (String, u64)>,
    rate: RateCap,
}

impl Keep {
    /// Nothing known yet.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self { since: HashMap::new(), written: HashMap::new(), rate: RateCap::new(WRITES_PER_S, WRITES_BURST, now_ms as f64 / 1000.0) }
    }

    /// Forgets pods that are gone.
    pub fn retain(&mut self, pods: &HashSet<&str>) {
        self.since.retain(|uid, _| pods.contains(&**uid));
        self.written.retain(|uid, _| pods.contains(uid.as_str()));
    }

    /// The writes of this look.
    pub fn step(&mut self, view: &View, heard: &Intake, now_ms: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        for pod in view.pods.iter().filter(|p| p.injected && !p.terminating) {
            let Some(busy) = heard.heard(&pod.uid).map(|h| h.busy) else { continue };
            let since = match self.since.get_mut(&pod.uid) {
                Some(since) => since,
                None => self.since.entry(pod.uid.clone()).or_insert((busy, now_ms)),
            };
            if since.0 != busy {
                *since = (busy, now_ms);
            }
            let age = now_ms.saturating_sub(since.1);
            let keep = match busy {
                Busy::Busy if age >= BUSY_MS => true,
                Busy::Idle if age >= IDLE_MS => false,
                _ => continue,
            };
            let echo = self.written.get(&*pod.uid).is_some_and(|(v, at)| **v == *pod.resource_version && now_ms < at.saturating_add(ECHO_MS));
            if keep == pod.kept_from_eviction || echo || !self.rate.take(now_ms as f64 / 1000.0) {
                continue;
            }
            let reference = PodRef::new(pod);
            actions.push(Action::Keep { pod: reference, keep });
        }
        actions
    }

    /// It was written.
    pub fn written(&mut self, pod: &PodRef, now_ms: u64) {
        self.written.insert(pod.uid.clone(), (pod.resource_version.clone(), now_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{T0_MS, deployment, pod, replicaset, report, view, with};
    use qscaler_core::message::WorkerState;
    use serde_json::json;

    fn kept(name: &str) -> serde_json::Value {
        with(
            pod(name),
            "/metadata/annotations",
            json!({"karpenter.sh/do-not-disrupt": "true", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}),
        )
    }

    fn run(pod: &serde_json::Value, said: &[(u64, Busy)]) -> Vec<(u64, bool)> {
        let v = view(&[deployment(1, &[]), replicaset("orders-1", 1), pod.clone()]);
        let (mut keep, mut heard) = (Keep::new(T0_MS), Intake::default());
        let mut out = Vec::new();
        for second in 0..200 {
            let now = T0_MS + second * 1_000;
            if let Some((_, busy)) = said.iter().find(|(at, _)| *at == second) {
                heard.take(&report("a", second + 1, WorkerState::Open, *busy), "dep", v.pods.first().map(AsRef::as_ref), now).unwrap();
            }
            for action in keep.step(&v, &heard, now) {
                let Action::Keep { pod, keep: wanted } = action else { continue };
                out.push((second, wanted));
                keep.written(&pod, now);
                if out.len() > 3 {
                    return out;
                }
            }
        }
        out
    }

    #[test]
    fn a_long_task_is_kept_and_a_long_idle_worker_is_let_go() {
        assert_eq!(run(&pod("a"), &[(0, Busy::Busy)])[0], (10, true));
        assert_eq!(run(&kept("a"), &[(0, Busy::Idle)])[0], (60, false));
    }

    #[test]
    fn short_tasks_unknown_states_and_what_is_right_already_cost_no_write() {
        let flicker: Vec<(u64, Busy)> = (0..200).map(|s| (s, if s % 8 < 4 { Busy::Busy } else { Busy::Idle })).collect();
        assert!(run(&pod("a"), &flicker).is_empty() && run(&kept("a"), &flicker).is_empty());
        assert!(run(&kept("a"), &[(0, Busy::Busy)]).is_empty() && run(&pod("a"), &[(0, Busy::Idle)]).is_empty());
        assert!(run(&kept("a"), &[(0, Busy::Unknown)]).is_empty());
    }

    #[test]
    fn a_write_that_the_watch_does_not_show_is_repeated_only_slowly() {
        let seconds: Vec<u64> = run(&pod("a"), &[(0, Busy::Busy)]).iter().map(|(s, _)| *s).collect();
        assert_eq!(seconds, [10, 13, 16, 19]);
    }
}
