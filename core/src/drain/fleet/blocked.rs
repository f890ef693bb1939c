//! Why a count may not be lowered. In: settings and facts. Out: the first reason there is, and whether it concerns every pod or only those whose worker has
//! run. Left to others: counting pods (`count`), what may go all the same (`rollout`), what to do about it (`machine`).

use super::rollout::fresh_version;
use super::{FleetFacts, FleetSettings, PodFacts};

/// Why nothing may be lowered now; the first reason there is.
pub(super) fn blocked(settings: &FleetSettings, facts: &FleetFacts, now_ms: u64) -> Option<Blocked> {
    never(settings, facts).map(Blocked::All).or_else(|| for_workers(facts, now_ms).map(Blocked::Workers))
}

/// What may not go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Blocked {
    /// Nothing may.
    All(String),
    /// No pod whose worker has run, or has not had the time to.
    Workers(String),
}

impl Blocked {
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::All(reason) | Self::Workers(reason) => reason,
        }
    }
}

fn never(settings: &FleetSettings, facts: &FleetFacts) -> Option<String> {
    if !facts.leader {
        return Some("another controller holds the lease".to_owned());
    }
    if let Some(conflict) = &facts.conflict {
        return Some(conflict.clone());
    }
    if settings.paused_down {
        return Some("lowering is paused by annotation".to_owned());
    }
    if let Some(why) = &facts.out_of_sync {
        return Some(format!("nothing is lowered because {why}"));
    }
    if facts.data_stale {
        return Some("the data is too old to lower by".to_owned());
    }
    if !facts.generation_observed {
        return Some("the Deployment's newest generation is not observed yet".to_owned());
    }
    None
}

fn for_workers(facts: &FleetFacts, now_ms: u64) -> Option<String> {
    if facts.sets.len() > 1 {
        return Some(format!("a rollout is under way ({} active ReplicaSets)", facts.sets.len()));
    }
    if fresh_version(facts, now_ms) {
        return Some("the pods of the newest version have not all had the time to start and take a task".to_owned());
    }
    let bare: Vec<&PodFacts> = facts.pods.iter().filter(|pod| !pod.terminating && !pod.injected).collect();
    bare.first().map(|pod| match bare.len() {
        1 => format!("pod {} has no sidecar; condition Injected says what to do", pod.name),
        n => format!("{n} pods have no sidecar (one is {}); condition Injected says what to do", pod.name),
    })
}
