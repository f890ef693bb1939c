//! What the drain is asked for. In: the law's target, the user's pauses, what is there; pods that have fallen silent. Out: a count of useful pods; whether to
//! wait for a word that is on the way; the drain's settings. Left to others: the target (`scale`), the drain itself (`machine`).

use super::{FleetFacts, FleetSettings, Phase};
use crate::config::WorkerConfig;
use crate::message::WorkerState;
use crate::workload::WorkloadUid;
use std::collections::BTreeMap;

/// A drain under way is looked at this often, milliseconds: each of its steps waits for a word of a pod or of the API server.
pub const PERIOD_MS: u64 = 250;
/// How long a drain token lives, milliseconds: long enough for a busy fleet to get to it, short enough that a forgotten one harms nobody.
pub const TOKEN_TTL_MS: u64 = 60_000;
/// How long a parked worker waits for its end before it goes back to work, milliseconds: several times what a wave takes.
const LEASE_MS: u64 = 120_000;
/// Longest wait for the ReplicaSet's echo, milliseconds; only efficiency hangs on it.
const ECHO_TIMEOUT_MS: u64 = 10_000;
/// How long a wave waits for more parked pods, milliseconds.
const GATHER_MS: u64 = 2_000;
/// Longest wait for a word that should be on the way, milliseconds: several rounds of fetching reports.
const WORD_MAX_MS: u64 = 5_000;

/// When to look again after a step that came to this phase and wants to be woken then.
#[must_use]
pub fn look_again(phase: &Phase, wake_ms: Option<u64>, now_ms: u64) -> Option<u64> {
    match phase {
        Phase::Asking | Phase::Marking | Phase::Echo | Phase::Resuming => Some(now_ms.saturating_add(PERIOD_MS)),
        _ => wake_ms,
    }
}

impl FleetSettings {
    /// By the user's words; without them nothing is scaled anyway.
    #[must_use]
    pub fn of(workload_uid: &WorkloadUid, config: Option<&WorkerConfig>) -> Self {
        let paused = config.map(|c| c.paused).unwrap_or_default();
        Self {
            workload_uid: workload_uid.clone(),
            // A pause of raising is also one of raising to the minimum.
            min_replicas: if paused.stops_raising() { 0 } else { config.map_or(0, |c| c.min_replicas) },
            max_replicas: config.map_or(u32::MAX, |c| c.max_replicas),
            token_ttl_ms: TOKEN_TTL_MS,
            lease_ms: LEASE_MS,
            echo_timeout_ms: ECHO_TIMEOUT_MS,
            gather_ms: GATHER_MS,
            paused_down: paused.stops_lowering(),
            protect: config.is_some_and(|c| !c.owns_replicas()),
        }
    }
}

/// The useful pods to ask for. `raises`: the user allows more; `target`: the law's; None: it has not decided. `useful`: ready or on their way when it decided. `parked`: of the
/// `spec_replicas` that there are now. A decision is older than the facts, for a drain is stepped more often than the law: one that only said "no more than
/// there are" must not start a pod in place of one that has left since.
#[must_use]
pub fn desired(raises: bool, target: Option<u32>, useful: u32, spec_replicas: u32, parked: u32) -> u32 {
    let target = target.unwrap_or(useful);
    if raises && target > useful { target } else { target.min(spec_replicas.saturating_sub(parked)) }
}

/// Pods that may have parked without having been heard to say so, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Silent {
    since_ms: BTreeMap<String, u64>,
}

impl Silent {
    /// Whether to wait. A pod that was Ready when a wave was opened and is not any more has most likely parked, and its word is on the way: the API server
    /// is often faster than the broker is asked. Without it the pod would be taken for one that starts, and its token be waited for in vain. `open`: a wave
    /// is; `fetched_ms`: when reports were last fetched.
    pub fn wait(&mut self, facts: &FleetFacts, open: bool, fetched_ms: u64, now_ms: u64) -> bool {
        let works = |state| matches!(state, WorkerState::Open | WorkerState::Closing);
        let silent =
            facts.pods.iter().filter(|p| open && p.injected && !p.terminating && !p.ready && p.report.as_ref().is_some_and(|r| works(r.state)));
        let known = std::mem::take(&mut self.since_ms);
        self.since_ms = silent.map(|p| (p.uid.clone(), known.get(&p.uid).copied().unwrap_or(now_ms))).collect();
        self.since_ms.values().any(|since| fetched_ms <= *since && now_ms < since.saturating_add(WORD_MAX_MS))
    }
}
