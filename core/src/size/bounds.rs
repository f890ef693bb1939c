//! Who may bound a size: the user, a LimitRange, a quota, the node. In: bounds from each. Out: the tightest one, with its owner's name.
//! Left to others: reading them (`controller`, `webhook`), and what to do at the cap (`recommend`).

use super::{MIN_CPU_M, MIN_MEMORY_BYTES};
use serde::{Deserialize, Serialize};

/// Who set a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CapSource {
    /// The workload's own `max-memory` or `max-cpu`.
    User,
    /// A LimitRange of the namespace.
    LimitRange,
    /// What a ResourceQuota leaves to one pod.
    Quota,
    /// What the largest node can hold.
    Node,
}

impl CapSource {
    /// The words for a sentence.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::User => "the workload's annotations",
            Self::LimitRange => "the namespace's LimitRange",
            Self::Quota => "the namespace's ResourceQuota",
            Self::Node => "the size of the largest node",
        }
    }
}

/// Bounds that do not come from the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OuterBound {
    /// Whose they are.
    pub source: CapSource,
    /// Bytes for this container, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_memory: Option<u64>,
    /// Bytes for this container, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<u64>,
    /// Millicores for this container, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_cpu_m: Option<u64>,
    /// Millicores for this container, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cpu_m: Option<u64>,
}

impl OuterBound {
    /// No bound at all, of this source.
    #[must_use]
    pub fn none(source: CapSource) -> Self {
        Self { source, min_memory: None, max_memory: None, min_cpu_m: None, max_cpu_m: None }
    }

    /// What the node leaves to this container: allocatable memory less what the pod's other containers request. Bytes.
    #[must_use]
    pub fn node(allocatable: u64, other_containers: u64) -> Self {
        Self { max_memory: Some(allocatable.saturating_sub(other_containers)), ..Self::none(CapSource::Node) }
    }

    /// What a ResourceQuota on memory leaves to each of `pods` pods, when everything else in the namespace uses `used_by_others` of `hard` and
    /// the pods' other containers `other_containers` each. Bytes. A quota counts a resize like a new pod.
    #[must_use]
    pub fn quota(hard: u64, used_by_others: u64, pods: u32, other_containers: u64) -> Self {
        let each = hard.saturating_sub(used_by_others) / u64::from(pods.max(1));
        Self { max_memory: Some(each.saturating_sub(other_containers)), ..Self::none(CapSource::Quota) }
    }

    /// A LimitRange's `Container` bounds, and its `Pod` maximum less what the pod's other containers have. Bytes.
    #[must_use]
    pub fn limit_range(container_min: Option<u64>, container_max: Option<u64>, pod_max: Option<u64>, other_containers: u64) -> Self {
        let pod_max = pod_max.map(|max| max.saturating_sub(other_containers));
        let max_memory = [container_max, pod_max].into_iter().flatten().min();
        Self { min_memory: container_min, max_memory, ..Self::none(CapSource::LimitRange) }
    }
}

/// Everything that bounds one container: the user's wishes, and what the platform allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SizeBounds {
    /// The user's `min-memory`, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_memory: Option<u64>,
    /// The user's `max-memory`, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<u64>,
    /// The user's `min-cpu`, millicores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_cpu_m: Option<u64>,
    /// The user's `max-cpu`, millicores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cpu_m: Option<u64>,
    /// The platform's bounds, any number of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outer: Vec<OuterBound>,
}

/// A recommendation that was cut down, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SizeCap {
    /// Whose bound it was.
    pub source: CapSource,
    /// The bound, bytes.
    pub at_bytes: u64,
    /// What would have been recommended without it, bytes.
    pub wanted_bytes: u64,
    /// OOM kills seen at this cap: more than 0 is the condition `MemoryCapped`.
    pub ooms_at_cap: u32,
}

impl SizeBounds {
    /// The lowest of the memory caps and its owner; None when nobody caps. A cap below [`MIN_MEMORY_BYTES`] counts as that.
    #[must_use]
    pub fn memory_cap(&self) -> Option<(u64, CapSource)> {
        lowest(self.max_memory, self.outer.iter().map(|b| (b.max_memory, b.source))).map(|(v, s)| (v.max(MIN_MEMORY_BYTES), s))
    }

    /// The highest of the memory floors, never below [`MIN_MEMORY_BYTES`], never above the cap: where a floor and a cap
    /// contradict each other the cap wins, since a pod above it would be refused.
    #[must_use]
    pub fn memory_floor(&self) -> u64 {
        let floor = highest(self.min_memory, self.outer.iter().map(|b| b.min_memory)).max(MIN_MEMORY_BYTES);
        self.memory_cap().map_or(floor, |(cap, _)| floor.min(cap))
    }

    /// Memory within the bounds.
    #[must_use]
    pub fn clamp_memory(&self, bytes: u64) -> u64 {
        let raised = bytes.max(self.memory_floor());
        self.memory_cap().map_or(raised, |(cap, _)| raised.min(cap))
    }

    /// A CPU request within the bounds, never below [`MIN_CPU_M`] but where a cap is.
    #[must_use]
    pub fn clamp_cpu(&self, millicores: u64) -> u64 {
        let floor = highest(self.min_cpu_m, self.outer.iter().map(|b| b.min_cpu_m)).max(MIN_CPU_M);
        let cap = lowest(self.max_cpu_m, self.outer.iter().map(|b| (b.max_cpu_m, b.source)));
        let raised = millicores.max(floor);
        cap.map_or(raised, |(cap, _)| raised.min(cap))
    }
}

fn lowest(user: Option<u64>, outer: impl Iterator<Item = (Option<u64>, CapSource)>) -> Option<(u64, CapSource)> {
    let user = user.map(|v| (v, CapSource::User));
    outer.filter_map(|(v, s)| v.map(|v| (v, s))).chain(user).min_by_key(|&(v, _)| v)
}

fn highest(user: Option<u64>, outer: impl Iterator<Item = Option<u64>>) -> u64 {
    outer.flatten().chain(user).max().unwrap_or(0)
}
