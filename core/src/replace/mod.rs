//! Pods that are not as a new one would be are replaced, one at a time, each while it is idle. In: facts of the fleet; which pods shall go, and what keeps a
//! task of theirs whole; what became of the last try; the time. Out: at most one pod to try now, and where it stands, in words. Left to others: which pods
//! shall go, proving at the broker that one is idle, evicting it (`controller`); pods on cordoned nodes (`drain::fleet`), which leave by the count.
//!
//! A pod leaves by an eviction, and its ReplicaSet makes the new one: the count is never touched, so that neither `max-replicas` nor a quota is exceeded, and
//! a disruption budget is kept by the API server itself. Two nets lie under each task: only an idle pod is tried, and what comes to it in the last moment is
//! finished all the same, by the hold where there is one, else by a worker that finishes its task on SIGTERM within a grace that is long enough. Where one
//! of the two is missing the pod is left alone, and that is said.

mod causes;
mod nets;
mod words;

#[cfg(test)]
mod tests;

pub use causes::Sidecar;
pub use nets::{BareWorker, Hindrances, hindrance, remaps_term};

use crate::drain::fleet::{FleetFacts, PodFacts};
use crate::message::{Busy, WorkerState};
use std::collections::{BTreeMap, BTreeSet};

/// Sidecars report every 5 s, and at once when their worker begins a task: an older report does not show that a pod is idle, milliseconds.
const IDLE_AGE_MS: u64 = 15_000;
/// A pod that had a task is looked at again after this, milliseconds.
const BUSY_AGAIN_MS: u64 = 3_000;
/// Between two tries of one workload, milliseconds: each may ask the broker, and Celery's answer comes from the whole fleet.
const TRIES_APART_MS: u64 = 1_000;
/// A pod of which the broker's books do not tell is asked about again after this, milliseconds.
const UNKNOWN_AGAIN_MS: u64 = 10_000;
/// Said only when it lasts: a worker that starts is in no book yet, milliseconds.
const UNKNOWN_LASTS_MS: u64 = 40_000;
/// A try of which nothing is heard within this never ends, milliseconds.
const TRY_MAX_MS: u64 = 60_000;
/// An evicted pod that the watch does not show as ending within this was not evicted, milliseconds.
const SEEN_MS: u64 = 30_000;
/// An evicted pod that is idle has left within this, milliseconds.
const LINGERS_MS: u64 = 120_000;
/// The first wait after the API server has refused an eviction; it doubles with each, milliseconds.
const REFUSED_FIRST_MS: u64 = 10_000;
/// The longest, milliseconds: a mend is noticed within a minute.
const REFUSED_MOST_MS: u64 = 60_000;
/// A new pod that has the same fault: nothing is gained by another until someone has mended it; milliseconds.
const FRUITLESS_MS: u64 = 600_000;

/// Why a pod is not as a new one would be. The first is mended first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// It has no sidecar, and so no hold.
    Bare,
    /// Its sidecar is of another user than its worker, and new pods' are not.
    WrongUser,
    /// Its sidecar was told other annotations than those that stand now.
    OldConfiguration,
    /// Its sidecar was given a key by which the controller does not sign its messages, so it believes none of them.
    OtherKey,
    /// New pods get another sidecar.
    OldSidecar,
}

/// What keeps a task whole that comes to the pod after it was seen to be idle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Net {
    /// Its hold.
    Held,
    /// Its worker never ran.
    NoWorker,
    /// Its worker finishes on SIGTERM, within this grace where it has to be another than the pod's own; seconds.
    Grace(Option<u32>),
    /// Nothing: it is left alone, for this reason.
    None(String),
}

/// A pod that shall be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// UID.
    pub uid: String,
    /// Why.
    pub cause: Cause,
    /// What keeps its task whole.
    pub net: Net,
}

/// A pod to evict now if it is idle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// UID.
    pub pod_uid: String,
    /// Name.
    pub pod_name: String,
    /// Why it shall go.
    pub cause: Cause,
    /// It has to be proved at the broker that it is idle: it has no sidecar that says so.
    pub prove: bool,
    /// Another grace than its own, seconds.
    pub grace_s: Option<u32>,
}

/// What became of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It is being evicted.
    Evicted,
    /// It has a task, or tasks run of which nothing tells where.
    Busy,
    /// The broker does not tell, and why.
    Unknown(String),
    /// A disruption budget allows no eviction now, in the API server's words.
    Budget(String),
    /// The API server refuses for another reason, or the broker does not answer.
    Failed(String),
    /// It has changed or gone meanwhile, or this controller does not lead any more.
    Moot,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// Every pod is as a new one would be.
    UpToDate,
    /// Pods are replaced as they fall idle, or something that passes is waited for.
    Replacing,
    /// Nothing is replaced by the user's will.
    Paused,
    /// A disruption budget allows none.
    Budget,
    /// Tasks of the pods that are left cannot be kept whole.
    LeftAlone,
    /// What is made in their place is no better, or cannot be made.
    Fruitless,
    /// The API server refuses.
    Refused,
}

/// What one step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Try this pod. To be answered by [`Replacer::tried`].
    pub ask: Option<Ask>,
    /// Where it stands.
    pub stands: Stands,
    /// The same for people.
    pub words: String,
}

impl Step {
    /// Nothing is to be replaced.
    #[must_use]
    pub fn is_up_to_date(&self) -> bool {
        self.stands == Stands::UpToDate
    }
}

/// What lasts, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    budget: bool,
    message: String,
    times: u32,
    until_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Evicted {
    uid: String,
    cause: Cause,
    at_ms: u64,
    /// The pods that were there.
    known: BTreeSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Try {
    again_ms: u64,
    /// Since when the broker does not tell, and why.
    unknown: Option<(u64, String)>,
}

/// The engine for one workload. What it forgets in a restart costs one pod more at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replacer {
    trying: Option<(Ask, u64)>,
    tries: BTreeMap<String, Try>,
    next_ms: u64,
    evicted: Option<Evicted>,
    refusal: Option<Refusal>,
}

impl Replacer {
    /// Looks at everything. `hindrance`: why nothing may be replaced by the user's will or since another drains, with where it then stands. `may_ask`: there
    /// is room for one more in the cluster.
    pub fn step(&mut self, facts: &FleetFacts, candidates: &[Candidate], hindrance: Option<(Stands, String)>, may_ask: bool, now_ms: u64) -> Step {
        let there = |uid: &str| facts.pods.iter().find(|pod| pod.uid == uid);
        self.tries.retain(|uid, _| there(uid).is_some_and(|pod| !pod.terminating));
        self.trying.take_if(|(_, since)| now_ms >= since.saturating_add(TRY_MAX_MS));
        let settled = |e: &mut Evicted| there(&e.uid).is_none_or(|pod| pod.terminating) || now_ms >= e.at_ms.saturating_add(SEEN_MS);
        let waits_for_echo = self.evicted.as_mut().is_some_and(|e| !settled(e));
        let wanted: Vec<(&PodFacts, &Candidate)> =
            candidates.iter().filter_map(|c| there(&c.uid).filter(|pod| !pod.terminating).map(|pod| (pod, c))).collect();
        if wanted.is_empty() {
            self.refusal = None;
            return Step { ask: None, stands: Stands::UpToDate, words: "every pod is as a new one would be".to_owned() };
        }
        let what = words::what(&wanted, facts);
        let say = |stands, why: String| Step { ask: None, stands, words: format!("{what}{why}") };
        if let Some((stands, why)) = hindrance.or_else(|| self.in_the_way(facts, &wanted, now_ms)) {
            return say(stands, format!("; {why}"));
        }
        let (hopeless, others): (Vec<_>, Vec<_>) = wanted.iter().partition(|(_, c)| self.hopeless(c, now_ms).is_some());
        if let (true, Some((pod, candidate))) = (others.is_empty(), hopeless.first()) {
            let why = self.hopeless(candidate, now_ms).unwrap_or_default();
            // Somebody may have mended it.
            let ask = self.choose(&wanted, may_ask && !waits_for_echo, facts, now_ms);
            return Step { ask, ..say(Stands::LeftAlone, format!("; pod {} is left alone: {why}", pod.name)) };
        }
        if let Some(refusal) = &self.refusal {
            let stands = if refusal.budget { Stands::Budget } else { Stands::Refused };
            let words = words::refused(refusal.budget, &refusal.message);
            let ask = if now_ms >= refusal.until_ms { self.choose(&wanted, may_ask, facts, now_ms) } else { None };
            return Step { ask, ..say(stands, format!("; {words}")) };
        }
        let ask = self.choose(&wanted, may_ask && !waits_for_echo, facts, now_ms);
        let left = match hopeless.first() {
            Some((pod, c)) => {
                format!("; of those {} left alone, pod {} since {}", hopeless.len(), pod.name, self.hopeless(c, now_ms).unwrap_or_default())
            }
            None => String::new(),
        };
        Step { ask, ..say(Stands::Replacing, format!(": replaced one by one as they fall idle{left}")) }
    }

    /// What became of the last [`Ask`].
    pub fn tried(&mut self, uid: &str, outcome: Tried, facts: &FleetFacts, now_ms: u64) {
        let Some((ask, _)) = self.trying.take_if(|(ask, _)| ask.pod_uid == uid) else { return };
        self.next_ms = now_ms.saturating_add(TRIES_APART_MS);
        let one = self.tries.entry(uid.to_owned()).or_default();
        match outcome {
            Tried::Evicted => {
                (self.refusal, one.unknown) = (None, None);
                let known = facts.pods.iter().map(|pod| pod.uid.clone()).collect();
                self.evicted = Some(Evicted { uid: ask.pod_uid, cause: ask.cause, at_ms: now_ms, known });
            }
            Tried::Busy => {
                one.unknown = None;
                one.again_ms = now_ms.saturating_add(BUSY_AGAIN_MS);
            }
            Tried::Unknown(why) => {
                let since = one.unknown.as_ref().map_or(now_ms, |(since, _)| *since);
                one.unknown = Some((since, why));
                one.again_ms = now_ms.saturating_add(UNKNOWN_AGAIN_MS);
            }
            Tried::Budget(message) => self.refused(true, message, now_ms),
            Tried::Failed(message) => self.refused(false, message, now_ms),
            Tried::Moot => {}
        }
    }

    fn refused(&mut self, budget: bool, message: String, now_ms: u64) {
        let times = self.refusal.as_ref().map_or(0, |r| r.times).saturating_add(1);
        let wait = REFUSED_FIRST_MS.saturating_mul(1 << times.saturating_sub(1).min(8)).min(REFUSED_MOST_MS);
        self.refusal = Some(Refusal { budget, message, times, until_ms: now_ms.saturating_add(wait) });
    }

    /// Why this one cannot be replaced, as far as is known.
    fn hopeless(&self, candidate: &Candidate, now_ms: u64) -> Option<String> {
        if let Net::None(why) = &candidate.net {
            return Some(why.clone());
        }
        let (since, why) = self.tries.get(&candidate.uid)?.unknown.as_ref()?;
        (now_ms >= since.saturating_add(UNKNOWN_LASTS_MS)).then(|| why.clone())
    }

    /// What has to end first, and where it stands meanwhile.
    fn in_the_way(&mut self, facts: &FleetFacts, wanted: &[(&PodFacts, &Candidate)], now_ms: u64) -> Option<(Stands, String)> {
        let wait = |why: String| Some((Stands::Replacing, why));
        if let Some(why) = &facts.out_of_sync {
            return wait(format!("none is replaced now because {why}"));
        }
        if let Some(failure) = facts.sets.iter().find_map(|set| set.create_failure.as_deref()) {
            return Some((Stands::Fruitless, format!("none is replaced, since no new pod can be created: {failure}")));
        }
        if !facts.generation_observed || facts.sets.len() > 1 {
            return wait("none is replaced while a rollout is under way".to_owned());
        }
        let is_wanted = |uid: &str| wanted.iter().find(|(pod, _)| pod.uid == uid).map(|(_, c)| *c);
        let active = || facts.pods.iter().filter(|pod| !pod.terminating);
        self.evicted.take_if(|e| now_ms >= e.at_ms.saturating_add(FRUITLESS_MS));
        if let Some(evicted) = &self.evicted {
            let same = |pod: &&PodFacts| !evicted.known.contains(&pod.uid) && is_wanted(&pod.uid).is_some_and(|c| c.cause == evicted.cause);
            if let Some(pod) = active().find(same) {
                return Some((Stands::Fruitless, words::fruitless(evicted.cause, &pod.name)));
            }
        }
        if let Some(pod) = facts.pods.iter().find(|pod| pod.terminating) {
            let since = self.evicted.as_ref().filter(|e| e.uid == pod.uid).map(|e| now_ms.saturating_sub(e.at_ms));
            let long = match since {
                Some(ms) if ms >= LINGERS_MS => {
                    format!(
                        ", which was told to {} min ago: it finishes a task that came last, or its process 1 does not pass SIGTERM on",
                        ms / 60_000
                    )
                }
                _ => String::new(),
            };
            return wait(format!("the next one waits until pod {} has left{long}", pod.name));
        }
        let count = u32::try_from(active().count()).unwrap_or(u32::MAX);
        if count != facts.spec_replicas || facts.status_replicas != facts.spec_replicas {
            return wait(format!("the next one waits until there are {} pods", facts.spec_replicas));
        }
        if let Some(pod) = active().find(|pod| !pod.ready && is_wanted(&pod.uid).is_none()) {
            let room = if pod.unschedulable { ", for which there is no node" } else { "" };
            return wait(format!("the next one waits until pod {} is Ready{room}", pod.name));
        }
        None
    }

    /// The pod to try now, if there is one.
    fn choose(&mut self, wanted: &[(&PodFacts, &Candidate)], may_ask: bool, facts: &FleetFacts, now_ms: u64) -> Option<Ask> {
        if !may_ask || self.trying.is_some() || now_ms < self.next_ms {
            return None;
        }
        let again_ms = |pod: &PodFacts| self.tries.get(&pod.uid).map_or(0, |one| one.again_ms);
        let idle = |pod: &PodFacts| {
            let report = pod.report.as_ref().filter(|report| now_ms < report.at_ms.saturating_add(IDLE_AGE_MS));
            report.is_some_and(|report| report.state == WorkerState::Open && report.busy == Busy::Idle)
        };
        let may = |(pod, c): &&(&PodFacts, &Candidate)| match c.net {
            Net::None(_) => false,
            Net::NoWorker => !pod.started && !pod.ready,
            Net::Held | Net::Grace(_) => !pod.injected || idle(pod),
        };
        let due = wanted.iter().filter(may).filter(|(pod, _)| again_ms(pod) <= now_ms);
        let (pod, candidate) = due.min_by_key(|(pod, c)| (c.cause, again_ms(pod), &pod.name))?;
        let ask = Ask {
            pod_uid: pod.uid.clone(),
            pod_name: pod.name.clone(),
            cause: candidate.cause,
            prove: !pod.injected && candidate.net != Net::NoWorker,
            grace_s: if let Net::Grace(grace_s) = candidate.net { grace_s } else { None },
        };
        debug_assert!(facts.pods.iter().any(|pod| pod.uid == ask.pod_uid));
        self.trying = Some((ask.clone(), now_ms));
        Some(ask)
    }
}

/// Evictions per second in the long run, over the whole cluster.
const PER_S: f64 = 0.5;
/// The same at once.
const BURST: f64 = 5.0;

/// What all workloads together may replace: after an upgrade of QScaler every pod of the cluster is outdated at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    left: f64,
    at_ms: u64,
}

impl Budget {
    /// All of it.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self { left: BURST, at_ms: now_ms }
    }

    /// There is room for one more.
    pub fn has_room(&mut self, now_ms: u64) -> bool {
        let elapsed_s = now_ms.saturating_sub(self.at_ms) as f64 / 1000.0;
        self.at_ms = self.at_ms.max(now_ms);
        self.left = (self.left + elapsed_s * PER_S).min(BURST);
        self.left >= 1.0
    }

    /// One is tried.
    pub fn take(&mut self) {
        self.left -= 1.0;
    }

    /// It was not evicted.
    pub fn give_back(&mut self) {
        self.left = (self.left + 1.0).min(BURST);
    }
}
