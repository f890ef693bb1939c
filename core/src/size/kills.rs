//! Which OOM kills are in the estimate. In: what sidecars and the kubelet tell of them. Out: whether it is news. Left to others: what a kill means
//! (`estimate`), at which limit it was (`controller`).
//!
//! The two tellers see the same kills, each in its own way and time, and a later life of the controller hears both again. So kills are kept by container
//! instance, by the runtime's ID where both tellers know it, and not by the time at which something was heard:
//! - a sidecar reads the cgroup's counter: every kill of a process, that of the top process too where the counter could still be read;
//! - the kubelet says that the container ended by a kill, once, and cannot be read wrong;
//! - it says the same of a container that ends by itself, hours after one of its processes was killed: the runtime remembers. With a counter that is old news.

use super::peaks::{Peaks, container_id};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// Where one of them does not know the container's ID: what the sidecar and the kubelet say of one start differs by no more than this, seconds: the runtime notes it once the process is there, and cuts it.
const SAME_START_S: f64 = 5.0;
/// The same of two lives of a sidecar, which read the boot time and the clock one after the other. A container is not started anew within this.
const SAME_READING_S: f64 = 1.0;
/// A counter that rose this shortly before the container's end, or after it, has counted the kill that was the end, seconds. Both are told by the node's
/// clock: a look of the sidecar a second, the kubelet's whole seconds, and a slow machine.
const AT_END_S: f64 = 5.0;
/// The kubelet's times are cut to whole seconds.
const CUT_S: f64 = 1.0;
/// Instances of one pod that are remembered: the kubelet shows no more.
const PER_POD: usize = 2;
/// Instances that are remembered over a restart of the controller, so that the status stays small.
const SAVED_MAX: usize = 64;

/// An OOM kill of one container instance, as the kubelet tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomSeen {
    /// Which instance: the container ID, or the restart count where it is missing.
    pub instance: String,
    /// A process died and the container left later by itself.
    pub child: bool,
    /// When the instance started, milliseconds since the epoch, cut to seconds.
    pub started_ms: Option<u64>,
    /// When it ended, likewise.
    pub at_ms: u64,
}

/// The kills of one container instance that are in the estimate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Instance {
    pod: String,
    /// The runtime's ID of it, by the first who told; None: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// When it started, by the first who told; None: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    started_s: Option<f64>,
    /// Up to this count of the cgroup's.
    kills: u64,
    /// When the latest of them was seen, by the node's clock.
    at_s: f64,
    /// The kubelet's name for it, once it has told of its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
    /// What the kubelet told is in the estimate, and may still come up in the counter.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    owed: bool,
}

/// What the next life needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SavedKills {
    counted: Vec<Instance>,
    /// All kills up to then are counted, also those of instances that are not in the list; 0: the list is complete.
    counted_until_s: f64,
}

/// For this long after a kill reports are wanted sooner: the killed task may be tried again within a second, and die at the new limit too, milliseconds.
const MORE_WITHIN_MS: u64 = 30_000;

/// Whether more kills may follow the latest that was heard of; 0: none was.
#[must_use]
pub fn expects_kills(killed_ms: u64, now_ms: u64) -> bool {
    killed_ms > 0 && now_ms < killed_ms.saturating_add(MORE_WITHIN_MS)
}

/// Kills by pod UID.
#[derive(Clone, Debug, Default)]
pub struct Kills {
    pods: HashMap<String, Vec<Instance>>,
    counted_until_s: f64,
}

impl Instance {
    /// By the runtime's ID, where both know it. None: they do not.
    fn is(&self, id: Option<&str>) -> Option<bool> {
        self.id.as_deref().zip(id).map(|(known, told)| known == told)
    }

    /// Where one of the two does not know the start, nothing speaks against it.
    fn started(&self, at_s: Option<f64>, slack_s: f64) -> bool {
        self.started_s.zip(at_s).is_none_or(|(known, told)| (known - told).abs() < slack_s)
    }
}

impl Kills {
    /// As an earlier life left them.
    #[must_use]
    pub fn restore(saved: SavedKills) -> Self {
        let mut this = Self { pods: HashMap::new(), counted_until_s: saved.counted_until_s };
        for instance in saved.counted {
            this.pods.entry(instance.pod.clone()).or_default().push(instance);
        }
        this
    }

    /// For the next life: the newest.
    #[must_use]
    pub fn saved(&self) -> SavedKills {
        let mut counted: Vec<Instance> = self.pods.values().flatten().cloned().collect();
        counted.sort_by(|a, b| b.at_s.total_cmp(&a.at_s).then_with(|| a.pod.cmp(&b.pod)));
        let left_out = counted.get(SAVED_MAX).map_or(0.0, |i| i.at_s);
        counted.truncate(SAVED_MAX);
        SavedKills { counted, counted_until_s: self.counted_until_s.max(left_out) }
    }

    /// A sidecar's report. Returns the count up to which this instance's kills were known (None: nothing of it was), and whether there is a new one.
    pub fn sidecar(&mut self, pod_uid: &str, peaks: &Peaks, now_s: f64) -> (Option<u64>, bool) {
        let (kills, started_s) = (peaks.oom_kills, peaks.started_s);
        let id = peaks.instance.as_deref().and_then(container_id);
        let at_s = peaks.sampled_s.unwrap_or(now_s);
        let of_pod = self.pods.get_mut(pod_uid);
        let mut of_pod = of_pod.into_iter().flatten();
        let by_time = |i: &Instance| {
            let slack_s = if i.kills > 0 { SAME_READING_S } else { SAME_START_S };
            // One that has ended before this one started is another, however close.
            i.started(started_s, slack_s) && !(i.ended.is_some() && started_s.is_some_and(|s| s > i.at_s + CUT_S))
        };
        if let Some(known) = of_pod.find(|i| i.is(id).unwrap_or_else(|| by_time(i))) {
            let before = known.kills;
            known.id = known.id.take().or_else(|| id.map(str::to_owned));
            known.started_s = started_s.or(known.started_s);
            if kills <= before {
                return (Some(before), false);
            }
            let told = u64::from(std::mem::take(&mut known.owed));
            known.kills = kills;
            if known.ended.is_none() {
                known.at_s = at_s;
            }
            return (Some(before), kills - before > told);
        }
        if kills == 0 {
            return (None, false);
        }
        let news = started_s.is_none_or(|s| s > self.counted_until_s);
        let instance = Instance { pod: pod_uid.to_owned(), id: id.map(str::to_owned), started_s, kills, at_s, ..Instance::default() };
        (None, self.add(instance) && news)
    }

    /// The kubelet's word; `leaving`: of a pod that was being ended anyway. True: it is news.
    pub fn kubelet(&mut self, pod_uid: &str, oom: &OomSeen, leaving: bool) -> bool {
        let (started_s, ended_s) = (oom.started_ms.map(|ms| ms as f64 / 1000.0), oom.at_ms as f64 / 1000.0);
        let of_pod = self.pods.get_mut(pod_uid);
        let of_pod: Vec<&mut Instance> = of_pod.into_iter().flatten().collect();
        if of_pod.iter().any(|i| i.ended.as_ref() == Some(&oom.instance)) {
            return false;
        }
        let id = container_id(&oom.instance);
        let by_time = |i: &Instance| i.started(started_s, SAME_START_S) && i.started_s.is_none_or(|started| started <= ended_s + CUT_S);
        let is_it = |i: &Instance| i.ended.is_none() && i.is(id).unwrap_or_else(|| by_time(i));
        if let Some(known) = of_pod.into_iter().filter(|i| is_it(i)).max_by(|a, b| a.started_s.unwrap_or(0.0).total_cmp(&b.started_s.unwrap_or(0.0)))
        {
            known.ended = Some(oom.instance.clone());
            known.id = known.id.take().or_else(|| id.map(str::to_owned));
            // The counter has it, unless the container was gone before it could be read once more. What ends otherwise is called killed all the same when
            // one of its processes was, and a SIGKILL at the end of the grace looks like one for want of memory.
            let counted = known.kills > 0 && (oom.child || leaving || known.at_s >= ended_s - AT_END_S);
            known.owed = !counted;
            known.at_s = ended_s;
            return !counted;
        }
        let news = ended_s > self.counted_until_s;
        let ended = Some(oom.instance.clone());
        let instance =
            Instance { pod: pod_uid.to_owned(), id: id.map(str::to_owned), started_s, at_s: ended_s, ended, owed: true, ..Instance::default() };
        self.add(instance) && news
    }

    /// False: it is older than all that are remembered of its pod, so it was counted and is forgotten.
    fn add(&mut self, instance: Instance) -> bool {
        let of_pod = self.pods.entry(instance.pod.clone()).or_default();
        if of_pod.len() < PER_POD {
            of_pod.push(instance);
            return true;
        }
        let age = |i: &Instance| i.started_s.unwrap_or(i.at_s);
        let Some(oldest) = of_pod.iter_mut().min_by(|a, b| age(a).total_cmp(&age(b))) else { return false };
        let newer = age(&instance) >= age(oldest);
        if newer {
            *oldest = instance;
        }
        newer
    }

    /// Forgets pods that are gone.
    pub fn retain(&mut self, pods: &HashSet<&str>) {
        self.pods.retain(|uid, _| pods.contains(uid.as_str()));
    }
}

#[cfg(test)]
#[path = "kills_tests.rs"]
mod tests;
