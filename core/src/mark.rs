//! Marks on pods that others act on: which pod a ReplicaSet takes first, which pods node scalers leave alone. In: a pod's annotations, what its
//! worker does. Out: what to write, with what was there before kept beside it. Left to others: writing (`controller`).
//!
//! Whatever we write can be told from the user's own value: an annotation of ours, [`annotation::MARKS`], remembers for each key what we set and
//! what was there before. A key whose value is not the one that we set is the user's again. Taking a mark back puts the old value there.

use crate::message::Busy;
use crate::names::annotation::{self, KARPENTER_DO_NOT_DISRUPT, POD_DELETION_COST, SAFE_TO_EVICT};
use crate::size::RateCap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The keys that we may write.
pub const KEYS: [&str; 3] = [POD_DELETION_COST, KARPENTER_DO_NOT_DISRUPT, SAFE_TO_EVICT];
/// What keeps node scalers away.
const KEPT: [(&str, &str); 2] = [(KARPENTER_DO_NOT_DISRUPT, "true"), (SAFE_TO_EVICT, "false")];
/// The cost of a parked pod, as releases before this memory wrote it: nobody else has a use for the lowest number there is.
const PARKED: &str = "-2147483648";

/// What one pod carries under [`KEYS`], and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    now: BTreeMap<String, String>,
    ours: BTreeMap<String, Mine>,
}

/// One value of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mine {
    set: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<String>,
}

/// Annotations to write; None: remove the key.
pub type Patch = BTreeMap<String, Option<String>>;

impl Marks {
    /// None: the pod carries none of the keys, and no memory of them.
    #[must_use]
    pub fn read(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let now: BTreeMap<String, String> =
            KEYS.iter().filter_map(|key| annotations.get(*key).map(|value| ((*key).to_owned(), value.clone()))).collect();
        let memory = annotations.get(annotation::MARKS);
        if now.is_empty() && memory.is_none() {
            return None;
        }
        // A memory that does not parse is nobody's word: what is there counts as the user's.
        let mut ours: BTreeMap<String, Mine> = memory.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        ours.retain(|key, mine| now.get(key) == Some(&mine.set));
        if memory.is_none() && now.get(POD_DELETION_COST).is_some_and(|cost| cost == PARKED) {
            ours.insert(POD_DELETION_COST.to_owned(), Mine { set: PARKED.to_owned(), before: None });
        }
        Some(Self { now, ours })
    }

    /// The value under this key is one that we wrote.
    #[must_use]
    pub fn is_ours(&self, key: &str) -> bool {
        self.ours.contains_key(key)
    }

    /// Something of ours is there.
    #[must_use]
    pub fn any_ours(&self) -> bool {
        !self.ours.is_empty()
    }

    /// The user has a value of his own under this key.
    fn is_users(&self, key: &str) -> bool {
        self.now.contains_key(key) && !self.is_ours(key)
    }

    /// What to write so that the pod has this deletion cost; None: what it had before us.
    #[must_use]
    pub fn cost(&self, cost: Option<i32>) -> Patch {
        self.change(&[(POD_DELETION_COST, cost.map(|c| c.to_string()))])
    }

    /// Node scalers are kept away by marks of ours, wherever the user has no word of his own.
    #[must_use]
    pub fn kept(&self) -> bool {
        KEPT.iter().all(|(key, _)| self.is_ours(key) || self.is_users(key)) && KEPT.iter().any(|(key, _)| self.is_ours(key))
    }

    /// What to write to keep node scalers away, or to let them have the pod. The user's own word stands; None: nothing is to be written.
    #[must_use]
    pub fn keep(&self, keep: bool) -> Option<Patch> {
        let wanted: Vec<(&str, Option<String>)> =
            KEPT.iter().filter(|(key, _)| !self.is_users(key)).map(|(key, value)| (*key, keep.then(|| (*value).to_owned()))).collect();
        let same = wanted.iter().all(|(key, value)| self.is_ours(key) == value.is_some());
        (!same).then(|| self.change(&wanted))
    }

    /// What to write so that nothing of ours is left.
    #[must_use]
    pub fn take_back(&self) -> Patch {
        let all: Vec<(&str, Option<String>)> = self.ours.keys().map(|key| (key.as_str(), None)).collect();
        self.change(&all)
    }

    fn change(&self, wanted: &[(&str, Option<String>)]) -> Patch {
        let (mut ours, mut patch) = (self.ours.clone(), Patch::new());
        for (key, value) in wanted {
            let mine = ours.remove(*key);
            match (value, mine) {
                (Some(value), mine) => {
                    let before = mine.map_or_else(|| self.now.get(*key).cloned(), |m| m.before);
                    ours.insert((*key).to_owned(), Mine { set: value.clone(), before });
                    patch.insert((*key).to_owned(), Some(value.clone()));
                }
                (None, Some(mine)) => drop(patch.insert((*key).to_owned(), mine.before)),
                (None, None) => {}
            }
        }
        let memory = if ours.is_empty() { None } else { serde_json::to_string(&ours).ok() };
        patch.insert(annotation::MARKS.to_owned(), memory);
        patch
    }
}

/// A task this young is not worth a write: most end before a node scaler has made up its mind, milliseconds.
const BUSY_MS: u64 = 10_000;
/// A worker that was idle for this long may go with its node, milliseconds.
const IDLE_MS: u64 = 60_000;
/// Writes of one workload per second in the long run: bounds the load on the API server.
const WRITES_PER_S: f64 = 1.0;
/// Writes at once.
const WRITES_BURST: f64 = 10.0;

/// Which pods node scalers shall leave alone: those with a task, and only those.
#[derive(Clone, Debug)]
pub struct Eviction {
    /// Since when each pod, by UID, is what it is.
    since: BTreeMap<String, (Busy, u64)>,
    rate: RateCap,
}

/// One pod, as a decision about its node sees it.
#[derive(Clone, Copy, Debug)]
pub struct PodMarks<'a> {
    /// UID.
    pub uid: &'a str,
    /// What its worker does, by a report that still says something about now; None: there is none.
    pub busy: Option<Busy>,
    /// Its marks.
    pub marks: Option<&'a Marks>,
    /// It was written a moment ago, and the watch has not shown it yet.
    pub written: bool,
}

impl Eviction {
    /// Nothing known yet.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self { since: BTreeMap::new(), rate: RateCap::new(WRITES_PER_S, WRITES_BURST, now_ms as f64 / 1000.0) }
    }

    /// The writes of this look, by UID. `in_sync`: every watch behind the pods is; without it no mark comes off. A pod of which nothing fresh is
    /// heard keeps what it has: silence is not idleness.
    pub fn step(&mut self, pods: &[PodMarks<'_>], in_sync: bool, now_ms: u64) -> Vec<(String, Patch)> {
        let known: BTreeSet<&str> = pods.iter().map(|pod| pod.uid).collect();
        self.since.retain(|uid, _| known.contains(uid.as_str()));
        let (mut writes, none) = (Vec::new(), Marks::default());
        for pod in pods {
            let Some(busy) = pod.busy else {
                self.since.remove(pod.uid);
                continue;
            };
            let since = self.since.entry(pod.uid.to_owned()).or_insert((busy, now_ms));
            if since.0 != busy {
                *since = (busy, now_ms);
            }
            let age = now_ms.saturating_sub(since.1);
            let keep = match busy {
                Busy::Busy if age >= BUSY_MS => true,
                Busy::Idle if age >= IDLE_MS && in_sync => false,
                _ => continue,
            };
            let Some(patch) = pod.marks.unwrap_or(&none).keep(keep) else { continue };
            if !pod.written && self.rate.take(now_ms as f64 / 1000.0) {
                writes.push((pod.uid.to_owned(), patch));
            }
        }
        writes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn apply(mut to: BTreeMap<String, String>, patch: Patch) -> BTreeMap<String, String> {
        for (key, value) in patch {
            match value {
                Some(value) => drop(to.insert(key, value)),
                None => drop(to.remove(&key)),
            }
        }
        to
    }

    #[test]
    fn whatever_the_user_had_is_there_again_after_any_marks_of_ours() {
        for own in [
            &[][..],
            &[(POD_DELETION_COST, "100")],
            &[(SAFE_TO_EVICT, "true")],
            &[(SAFE_TO_EVICT, "true"), (KARPENTER_DO_NOT_DISRUPT, "true"), (POD_DELETION_COST, "-5")],
        ] {
            let before = annotations(own);
            let read = |a: &BTreeMap<String, String>| Marks::read(a).unwrap_or_default();
            let mut now = before.clone();
            now = apply(now.clone(), read(&now).cost(Some(-1_000)));
            now = apply(now.clone(), read(&now).keep(true).unwrap_or_default());
            now = apply(now.clone(), read(&now).cost(Some(i32::MIN)));
            assert_eq!(now[POD_DELETION_COST], PARKED);
            assert_eq!(
                now.get(SAFE_TO_EVICT).map(String::as_str),
                if own.iter().any(|(k, _)| *k == SAFE_TO_EVICT) { Some("true") } else { Some("false") }
            );
            assert_eq!(apply(now.clone(), read(&now).take_back()), before);
            now = apply(now.clone(), read(&now).cost(None));
            now = apply(now.clone(), read(&now).keep(false).unwrap_or_default());
            assert_eq!(now, before);
        }
    }

    #[test]
    fn a_value_that_the_user_put_in_the_place_of_ours_is_the_users() {
        let ours = apply(BTreeMap::new(), Marks::default().cost(Some(i32::MIN)));
        let mut changed = ours.clone();
        changed.insert(POD_DELETION_COST.to_owned(), "7".to_owned());
        let marks = Marks::read(&changed).unwrap();
        assert!(!marks.is_ours(POD_DELETION_COST) && Marks::read(&ours).unwrap().is_ours(POD_DELETION_COST));
        assert_eq!(apply(changed.clone(), marks.take_back()), annotations(&[(POD_DELETION_COST, "7")]));
        assert_eq!(apply(changed, marks.cost(None)), annotations(&[(POD_DELETION_COST, "7")]));
    }

    #[test]
    fn a_parked_pods_cost_of_an_earlier_release_is_ours() {
        let marks = Marks::read(&annotations(&[(POD_DELETION_COST, PARKED)])).unwrap();
        assert!(marks.any_ours());
        assert_eq!(marks.cost(None)[POD_DELETION_COST], None);
    }

    /// Seconds at which something was written, and whether it keeps.
    fn run(marks: Option<&Marks>, in_sync: bool, said: impl Fn(u64) -> Option<Busy>) -> Vec<(u64, bool)> {
        let mut eviction = Eviction::new(0);
        let mut out = Vec::new();
        for second in 0..4_000 {
            let pod = PodMarks { uid: "a", busy: said(second), marks, written: out.last().is_some_and(|(at, _)| second < at + 3) };
            let writes = eviction.step(&[pod], in_sync, second * 1_000);
            out.extend(writes.iter().map(|(_, patch)| (second, patch[SAFE_TO_EVICT].is_some())));
        }
        out
    }

    #[test]
    fn a_long_task_is_kept_and_a_long_idle_worker_is_let_go() {
        let kept = Marks::read(&apply(BTreeMap::new(), Marks::default().keep(true).unwrap())).unwrap();
        assert_eq!(run(None, true, |_| Some(Busy::Busy))[0], (10, true));
        assert_eq!(run(Some(&kept), true, |_| Some(Busy::Idle))[0], (60, false));
        assert!(run(Some(&kept), true, |_| Some(Busy::Busy)).is_empty() && run(None, true, |_| Some(Busy::Idle)).is_empty());
        assert!(run(Some(&kept), true, |_| Some(Busy::Unknown)).is_empty());
        let flicker = |s: u64| Some(if s % 8 < 4 { Busy::Busy } else { Busy::Idle });
        assert!(run(None, true, flicker).is_empty() && run(Some(&kept), true, flicker).is_empty());
    }

    #[test]
    fn one_idle_report_and_then_silence_lets_no_pod_go() {
        let kept = Marks::read(&apply(BTreeMap::new(), Marks::default().keep(true).unwrap())).unwrap();
        assert!(run(Some(&kept), true, |s| (s < 50).then_some(Busy::Idle)).is_empty());
        assert!(run(Some(&kept), false, |_| Some(Busy::Idle)).is_empty(), "nor does a picture that is not whole");
    }

    #[test]
    fn a_write_that_the_watch_does_not_show_is_repeated_only_slowly() {
        let seconds: Vec<u64> = run(None, true, |_| Some(Busy::Busy)).iter().map(|(s, _)| *s).take(4).collect();
        assert_eq!(seconds, [10, 13, 16, 19]);
    }
}
