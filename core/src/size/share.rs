//! Who bounds a size, from what is around the pods. In: the user's configuration; the largest node, LimitRanges and ResourceQuotas, as they are; how many pods
//! there are. Out: [`SizeBounds`]. Left to others: watching all that (`controller`), which bound wins (`bounds`). Memory in bytes, CPU in millicores.

use super::bounds::{CapSource, OuterBound, SizeBounds};
use crate::config::WorkerConfig;

/// A LimitRange, as far as it concerns one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitRange {
    /// Least memory of a container.
    pub container_min: Option<u64>,
    /// Most memory of a container.
    pub container_max: Option<u64>,
    /// Most memory of a pod.
    pub pod_max: Option<u64>,
    /// Least CPU of a container.
    pub min_cpu_m: Option<u64>,
    /// Most CPU of a container.
    pub max_cpu_m: Option<u64>,
}

/// A ResourceQuota's memory, of requests or of limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// The most that all pods of the namespace may have together.
    pub hard: u64,
    /// What they have.
    pub used: u64,
    /// Of that, what pods of this workload have.
    pub ours: u64,
}

/// What is around one workload's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// What the pod's other containers request.
    pub others_memory: u64,
    /// What the largest node has to give; None: not known.
    pub node_memory: Option<u64>,
    /// Likewise.
    pub node_cpu_m: Option<u64>,
    /// Of the namespace.
    pub limits: Vec<LimitRange>,
    /// Of the namespace.
    pub quotas: Vec<Quota>,
    /// Pods that are there.
    pub pods: u32,
    /// Pods that are asked for.
    pub spec_replicas: u32,
}

impl SizeBounds {
    /// All bounds of the working container. A quota is shared out among the pods there may be at most: a size that fits one pod only would keep the others
    /// from coming.
    #[must_use]
    pub fn of(config: &WorkerConfig, around: &Surroundings) -> Self {
        let others = around.others_memory;
        let memory = around.node_memory.map_or(OuterBound::none(CapSource::Node), |allocatable| OuterBound::node(allocatable, others));
        let node = OuterBound { max_cpu_m: around.node_cpu_m, ..memory };
        let range = |r: &LimitRange| OuterBound {
            min_cpu_m: r.min_cpu_m,
            max_cpu_m: r.max_cpu_m,
            ..OuterBound::limit_range(r.container_min, r.container_max, r.pod_max, others)
        };
        let pods = around.pods.max(around.spec_replicas);
        let quota = |q: &Quota| OuterBound::quota(q.hard, q.used.saturating_sub(q.ours), pods, others);
        Self {
            min_memory: config.min_memory.map(|b| b.0),
            max_memory: config.max_memory.map(|b| b.0),
            min_cpu_m: config.min_cpu.map(|m| m.0),
            max_cpu_m: config.max_cpu.map(|m| m.0),
            outer: std::iter::once(node).chain(around.limits.iter().map(range)).chain(around.quotas.iter().map(quota)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Parsed, parse};
    use crate::names::annotation;
    use std::collections::BTreeMap;

    const MIB: u64 = 1 << 20;

    fn config() -> WorkerConfig {
        let own = [(annotation::QUEUE, "q"), (annotation::BROKER, "env:URL"), (annotation::MAX_REPLICAS, "9"), (annotation::MAX_MEMORY, "2Gi")];
        let own: BTreeMap<String, String> = own.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        match parse(&own, &BTreeMap::new()) {
            Parsed::Valid(config) => *config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_quota_is_shared_out_among_all_pods_that_may_come_and_others_keep_what_they_have() {
        let around = |pods, spec_replicas| Surroundings {
            others_memory: 16 * MIB,
            quotas: vec![Quota { hard: 1000 * MIB, used: 392 * MIB, ours: 192 * MIB }],
            pods,
            spec_replicas,
            ..Surroundings::default()
        };
        for (pods, spec, cap) in [(2, 2, 400), (1, 2, 400), (4, 2, 200), (0, 0, 800)] {
            assert_eq!(SizeBounds::of(&config(), &around(pods, spec)).memory_cap(), Some(((cap - 16) * MIB, CapSource::Quota)), "{pods} of {spec}");
        }
    }

    #[test]
    fn the_user_the_node_and_a_limit_range_bound_too() {
        let range = LimitRange { pod_max: Some(1024 * MIB), min_cpu_m: Some(50), ..LimitRange::default() };
        let around = Surroundings { others_memory: 24 * MIB, limits: vec![range], node_memory: Some(4096 * MIB), ..Surroundings::default() };
        let bounds = SizeBounds::of(&config(), &around);
        assert_eq!((bounds.memory_cap(), bounds.clamp_cpu(10)), (Some((1000 * MIB, CapSource::LimitRange)), 50));
        assert_eq!(SizeBounds::of(&config(), &Surroundings::default()).memory_cap(), Some((2048 * MIB, CapSource::User)));
    }
}
