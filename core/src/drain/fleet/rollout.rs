//! What may go, and what may be asked for, where the pods of more than one version are there or have not started. In: facts. Out: the lowest count
//! that costs no pod whose worker has run; how many pods the cluster has room for. Left to others: whether something shall go (`machine`).
//!
//! **Lowering in the middle of a rollout.** The Deployment controller spreads a change of the count over the ReplicaSets in proportion to their
//! sizes, whatever their pods do (pkg/controller/deployment/sync.go `scale`, util/deployment_util.go `getReplicaSetFraction`), and each ReplicaSet
//! then takes its own pods without a node first, then those that are Pending, then the not ready ones (pkg/controller/controller_utils.go
//! `ActivePodsWithRanks`). So a count is safe when, of each ReplicaSet, it costs no more than the pods never created and those at the front of that
//! order that never had a worker. It is also never below the pods that have or may soon have a worker: under `maxUnavailable` of such a count the
//! rollout itself could end more of them at once. What the rollout ends at its own pace is held as always.

use super::count::{Fresh, count};
use super::{Amount, FleetFacts, PodFacts, SetFacts};

/// A pod that was created this long ago has had its chance to start: a large image is pulled, and a cluster autoscaler has brought a node, within
/// it most times, milliseconds.
const CHANCE_MS: u64 = 120_000;
/// For how long a rollout that found no room is not given more pods to place, milliseconds.
const FULL_MS: u64 = 300_000;

fn active(facts: &FleetFacts) -> impl Iterator<Item = &PodFacts> {
    facts.pods.iter().filter(|pod| !pod.terminating)
}

fn newest(facts: &FleetFacts) -> Option<&SetFacts> {
    facts.sets.iter().max_by_key(|set| (set.revision, set.created_ms))
}

fn has_run(pod: &PodFacts) -> bool {
    pod.started || pod.ready || pod.report.is_some()
}

/// Its worker never ran, and what it waits for has had its time.
fn is_free(pod: &PodFacts, now_ms: u64) -> bool {
    !has_run(pod) && ((!pod.scheduled && pod.unschedulable) || now_ms >= pod.created_ms.saturating_add(CHANCE_MS))
}

/// The template is new, and its pods have not all been Ready and heard of since, nor had the time for it. Pods of the user's own count leave only
/// after they had a chance to work.
pub(super) fn fresh_version(facts: &FleetFacts, now_ms: u64) -> bool {
    let Some(set) = newest(facts) else { return facts.spec_replicas > 0 };
    let young = now_ms < set.created_ms.saturating_add(CHANCE_MS);
    let pods: Vec<&PodFacts> = active(facts).filter(|pod| pod.set_uid == set.uid).collect();
    young && (count(&pods) < set.spec_replicas || pods.iter().any(|pod| (pod.injected && pod.report.is_none()) || !has_run(pod)))
}

fn create_failure(facts: &FleetFacts) -> Option<&str> {
    facts.sets.iter().find_map(|set| set.create_failure.as_deref())
}

/// The lowest count, not below `target`, that costs only pods whose worker never ran; None: there is none below the present count.
pub(super) fn lowest_without_workers(fresh: Fresh<'_>, target: u32, now_ms: u64) -> Option<u32> {
    let facts = fresh.facts();
    let pods: Vec<&PodFacts> = active(facts).collect();
    let free = pods.iter().filter(|pod| is_free(pod, now_ms)).count();
    // One that is counted and not listed yet may be at work by now.
    let there = count(&pods).max(facts.status_replicas);
    let kept = there.saturating_sub(u32::try_from(free).unwrap_or(u32::MAX));
    let unborn = facts.spec_replicas.saturating_sub(there);
    // Pods of a new template are created in a moment, unless something refuses them.
    let waits = if fresh_version(facts, now_ms) && create_failure(facts).is_none() { unborn } else { 0 };
    let floor = target.max(kept.saturating_add(waits));
    (floor..facts.spec_replicas).find(|to| {
        let costs = |(set, size): (&SetFacts, u32)| {
            let pods: Vec<&PodFacts> = pods.iter().copied().filter(|pod| pod.set_uid == set.uid).collect();
            count(&pods).saturating_sub(size) <= front_without_worker(&pods, now_ms)
        };
        facts.sets.iter().zip(sizes_after(facts, *to)).all(costs)
    })
}

/// How many of the pods that their ReplicaSet takes first never had a worker.
fn front_without_worker(pods: &[&PodFacts], now_ms: u64) -> u32 {
    let classes = [|pod: &PodFacts| !pod.scheduled, |pod: &PodFacts| pod.scheduled && pod.pending];
    let mut front = 0;
    for class in classes {
        let members: Vec<&&PodFacts> = pods.iter().filter(|pod| class(pod)).collect();
        if members.iter().any(|pod| !is_free(pod, now_ms)) {
            break;
        }
        front += count(&members);
    }
    front
}

/// The sizes of `facts.sets` once the Deployment controller has seen the count `to`, which is lower than the present one.
fn sizes_after(facts: &FleetFacts, to: u32) -> Vec<u32> {
    let mut sizes: Vec<i64> = facts.sets.iter().map(|set| i64::from(set.spec_replicas)).collect();
    let mut sized: Vec<usize> = (0..sizes.len()).filter(|i| facts.sets[*i].spec_replicas > 0).collect();
    let wide = i64::from(to);
    match (sized.as_slice(), facts.max_surge) {
        ([only], _) => sizes[*only] = wide,
        ([_, _, ..], Some(surge)) => {
            let most = if to == 0 { 0 } else { wide + surge_of(surge, to) };
            let change = most - sizes.iter().sum::<i64>();
            let older_first = change < 0;
            sized.sort_by_key(|i| {
                let created = i128::from(facts.sets[*i].created_ms);
                (std::cmp::Reverse(sizes[*i]), if older_first { created } else { -created })
            });
            let mut changed = 0;
            for i in &sized {
                let allowed = change - changed;
                let share = share(facts, *i, to, most);
                let part = if change > 0 { share.min(allowed) } else { share.max(allowed) };
                if allowed != 0 {
                    sizes[*i] += part;
                    changed += part;
                }
            }
            if let Some(first) = sized.first() {
                sizes[*first] = (sizes[*first] + change - changed).max(0);
            }
        }
        _ => {}
    }
    // The newest is never larger than the count, whatever the surge.
    let newest = newest(facts).map(|set| set.uid.as_str());
    for (set, size) in facts.sets.iter().zip(sizes.iter_mut()) {
        if Some(set.uid.as_str()) == newest {
            *size = (*size).min(wide);
        }
    }
    sizes.into_iter().map(|size| u32::try_from(size).unwrap_or(0)).collect()
}

fn surge_of(surge: Amount, replicas: u32) -> i64 {
    match surge {
        Amount::Pods(pods) => i64::from(pods),
        Amount::Percent(percent) => (i64::from(replicas) * i64::from(percent) + 99) / 100,
    }
}

/// By how much a ReplicaSet follows in proportion: its part of the new most, rounded half up, less what it has.
fn share(facts: &FleetFacts, i: usize, to: u32, most: i64) -> i64 {
    let set = &facts.sets[i];
    let size = i64::from(set.spec_replicas);
    if to == 0 {
        return -size;
    }
    let before = set.max_replicas.map_or(i64::from(facts.status_replicas), i64::from);
    if before <= 0 { 0 } else { (2 * size * most + before) / (2 * before) - size }
}

/// A rollout that finds no room for its pods must not be given more of them: none of the new version could ever start beside those that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Full(Option<Seen>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Seen {
    at_ms: u64,
    /// Pods that the cluster had room for.
    room: u32,
}

impl Full {
    /// How many pods may be asked for, and why no more; None: as many as are wanted.
    pub(super) fn room(&mut self, facts: &FleetFacts, now_ms: u64) -> Option<(u32, String)> {
        if facts.sets.len() < 2 {
            self.0 = None;
            return None;
        }
        let waiting = |pod: &&PodFacts| pod.unschedulable && !pod.scheduled && now_ms >= pod.created_ms.saturating_add(CHANCE_MS);
        let cause = match (create_failure(facts), active(facts).find(waiting)) {
            (Some(failure), _) => Some(format!("a pod cannot be created: {failure}")),
            (None, Some(pod)) => Some(format!("pod {} finds no node", pod.name)),
            (None, None) => None,
        };
        // A pod that ends takes its room until it is gone.
        let placed = facts.pods.iter().filter(|pod| has_run(pod) || (pod.scheduled && !pod.terminating)).count();
        let placed = u32::try_from(placed).unwrap_or(u32::MAX);
        self.0 = match (self.0, &cause) {
            (Some(seen), Some(_)) => Some(Seen { at_ms: now_ms, room: seen.room.max(placed) }),
            (None, Some(_)) => Some(Seen { at_ms: now_ms, room: placed }),
            (Some(seen), None) if now_ms < seen.at_ms.saturating_add(FULL_MS) => Some(Seen { room: seen.room.max(placed), ..seen }),
            (_, None) => None,
        };
        let why = cause.unwrap_or_else(|| "a pod found no room a moment ago".to_owned());
        self.0.map(|seen| (seen.room, format!("a rollout is under way and {why}; more would keep it from ever ending")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(uid: &str, revision: u64, spec_replicas: u32, max_replicas: u32) -> SetFacts {
        SetFacts { uid: uid.into(), created_ms: revision, revision, spec_replicas, max_replicas: Some(max_replicas), create_failure: None }
    }

    fn facts(sets: Vec<SetFacts>, surge: Option<Amount>, spec: u32) -> FleetFacts {
        FleetFacts { sets, max_surge: surge, spec_replicas: spec, status_replicas: spec, ..super::super::tests::fleet(vec![]) }
    }

    /// Each row was worked out by hand from the rules of sync.go.
    #[test]
    fn replicasets_follow_in_proportion_as_the_deployment_controller_has_it() {
        let quarter = Some(Amount::Percent(25));
        for (sets, surge, spec, to, sizes) in [
            // A quota of two pods, maxSurge 0: the old version has two of its four.
            (vec![set("old", 1, 4, 5), set("new", 2, 1, 5)], Some(Amount::Pods(0)), 5, 2, vec![2, 0]),
            (vec![set("old", 1, 4, 5), set("new", 2, 1, 5)], Some(Amount::Pods(0)), 5, 1, vec![1, 0]),
            // Pods that do not fit the node.
            (vec![set("old", 1, 3, 4), set("new", 2, 1, 4)], quarter, 3, 1, vec![1, 1]),
            (vec![set("old", 1, 8, 13), set("new", 2, 5, 13)], Some(Amount::Pods(3)), 10, 5, vec![5, 3]),
            (vec![set("old", 1, 3, 4), set("new", 2, 1, 4)], quarter, 3, 0, vec![0, 0]),
            (vec![set("only", 1, 3, 4)], quarter, 3, 2, vec![2]),
            (vec![set("old", 1, 0, 4), set("new", 2, 3, 4)], quarter, 3, 2, vec![0, 2]),
            // Recreate does not spread anything; only the newest follows.
            (vec![set("old", 1, 3, 4), set("new", 2, 3, 4)], None, 3, 1, vec![3, 1]),
        ] {
            assert_eq!(sizes_after(&facts(sets.clone(), surge, spec), to), sizes, "{sets:?} {surge:?} {spec} -> {to}");
        }
    }
}
