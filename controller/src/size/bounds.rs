//! Who bounds the working container's size: the user, the largest node, LimitRanges and ResourceQuotas of the namespace. In: the configuration,
//! the view, the cluster. Out: `SizeBounds`. Left to others: who bounds what (`core::size`).

use crate::observe::cluster::Cluster;
use crate::observe::index::View;
use crate::observe::record::PodRecord;
use qscaler_core::config::WorkerConfig;
use qscaler_core::size::{ContainerResources, LimitRange, Quota, SizeBounds, Surroundings};

/// All bounds of the working container.
#[must_use]
pub fn size_bounds(config: &WorkerConfig, view: &View, cluster: &Cluster) -> SizeBounds {
    let ours = |pick: fn(&ContainerResources) -> Option<u64>| -> u64 { view.pods.iter().map(|p| pod_memory(p, pick)).sum() };
    let (requests, limits) = (ours(|r| r.memory_request), ours(|r| r.memory_limit));
    let quota = |of: Option<(u64, u64)>, ours: u64| of.map(|(hard, used)| Quota { hard, used, ours });
    let range = |r: &crate::observe::record::LimitRecord| LimitRange {
        container_min: r.container_min,
        container_max: r.container_max,
        pod_max: r.pod_max,
        min_cpu_m: r.cpu_min_m,
        max_cpu_m: r.cpu_max_m,
    };
    SizeBounds::of(
        config,
        &Surroundings {
            others_memory: view.deployment.worker.as_ref().map_or(0, |w| w.others_memory),
            node_memory: cluster.node_memory,
            node_cpu_m: cluster.node_cpu_m,
            limits: view.limits.iter().map(range).collect(),
            quotas: view.quotas.iter().flat_map(|q| [quota(q.requests, requests), quota(q.limits, limits)]).flatten().collect(),
            pods: u32::try_from(view.pods.len()).unwrap_or(u32::MAX),
            spec_replicas: view.deployment.spec_replicas,
        },
    )
}

fn pod_memory(pod: &PodRecord, pick: fn(&ContainerResources) -> Option<u64>) -> u64 {
    pod.containers.iter().filter_map(|c| pick(&c.spec)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{deployment, pod, replicaset, view};
    use qscaler_core::size::CapSource;
    use serde_json::json;

    const MIB: u64 = 1 << 20;

    fn bounds(extra: serde_json::Value) -> SizeBounds {
        let v = view(&[deployment(2, &[("max-memory", "2Gi")]), replicaset("orders-1", 2), pod("a"), pod("b"), extra]);
        let cluster = Cluster { node_memory: Some(4096 * MIB), ..Cluster::default() };
        size_bounds(v.deployment.config.as_ref().unwrap(), &v, &cluster)
    }

    #[test]
    fn the_tightest_bound_wins_and_its_owner_is_known() {
        let range = |limits| json!({"kind": "LimitRange", "metadata": {"namespace": "shop", "name": "l"}, "spec": {"limits": limits}});
        let elsewhere = json!({"kind": "LimitRange", "metadata": {"namespace": "other", "name": "l"}, "spec": {"limits": [{"type": "Container", "max": {"memory": "1Mi"}}]}});
        let quota = |hard: serde_json::Value, used: serde_json::Value| json!({"kind": "ResourceQuota", "metadata": {"namespace": "shop", "name": "q"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}});
        for (extra, cap, source) in [
            (elsewhere, 2048, CapSource::User),
            (range(json!([{"type": "Container", "max": {"memory": "1Gi"}}])), 1024, CapSource::LimitRange),
            (range(json!([{"type": "Pod", "max": {"memory": "1Gi"}}])), 1024 - 16, CapSource::LimitRange),
            // 1000 Mi, of which our two pods use 192 of the 392 used: 800 are ours, 400 each, 16 of it for the other container.
            (quota(json!({"limits.memory": "1000Mi"}), json!({"limits.memory": "392Mi"})), 400 - 16, CapSource::Quota),
            (quota(json!({"requests.memory": "1000Mi"}), json!({"requests.memory": "392Mi"})), 400 - 16, CapSource::Quota),
        ] {
            assert_eq!(bounds(extra.clone()).memory_cap(), Some((cap * MIB, source)), "{extra}");
        }
    }

    #[test]
    fn a_floor_of_the_platform_is_kept() {
        let range = json!({"kind": "LimitRange", "metadata": {"namespace": "shop", "name": "l"}, "spec": {"limits": [{"type": "Container", "min": {"memory": "128Mi", "cpu": "50m"}}]}});
        assert_eq!((bounds(range.clone()).memory_floor(), bounds(range).clamp_cpu(10)), (128 * MIB, 50));
    }
}
