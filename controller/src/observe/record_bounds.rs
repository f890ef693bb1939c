//! LimitRanges and ResourceQuotas -> what of them bounds a container's size. In: objects as watched. Out: records. Left to others: what they leave
//! to one container (`bounds`).

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem, ResourceQuota};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use qscaler_core::units::{Bytes, Millicores};
use std::collections::BTreeMap;

/// A LimitRange's bounds; where several items bound the same, the tightest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitRecord {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Least memory of a container, bytes.
    pub container_min: Option<u64>,
    /// Most memory of a container, bytes.
    pub container_max: Option<u64>,
    /// Most memory of a pod, bytes.
    pub pod_max: Option<u64>,
    /// Most CPU of a pod, millicores.
    pub pod_cpu_max_m: Option<u64>,
    /// Least CPU of a container, millicores.
    pub cpu_min_m: Option<u64>,
    /// Most CPU of a container, millicores.
    pub cpu_max_m: Option<u64>,
}

/// A ResourceQuota's memory: requests and limits, each hard and used, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuotaRecord {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Hard and used memory requests.
    pub requests: Option<(u64, u64)>,
    /// Hard and used memory limits.
    pub limits: Option<(u64, u64)>,
}

type Quantities = BTreeMap<String, Quantity>;

fn memory(of: Option<&Quantities>, key: &str) -> Option<u64> {
    // A quantity of 0 is no amount to `Bytes`, and means 0 here.
    of?.get(key).map(|q| Bytes::parse(&q.0).map_or(0, |b| b.0))
}

fn cpu(of: Option<&Quantities>) -> Option<u64> {
    of?.get("cpu").map(|q| Millicores::parse(&q.0).map_or(0, |m| m.0))
}

impl LimitRecord {
    /// The record of a LimitRange.
    #[must_use]
    pub fn new(object: &LimitRange) -> Option<Self> {
        let items = object.spec.as_ref().map(|s| s.limits.as_slice()).unwrap_or_default();
        let of = |kind: &'static str| items.iter().filter(move |i| i.type_ == kind);
        let least = |pick: fn(&LimitRangeItem) -> Option<u64>| of("Container").filter_map(pick).max();
        let most = |pick: fn(&LimitRangeItem) -> Option<u64>, kind| of(kind).filter_map(pick).min();
        Some(Self {
            namespace: object.metadata.namespace.clone()?,
            name: object.metadata.name.clone()?,
            container_min: least(|i| memory(i.min.as_ref(), "memory")),
            container_max: most(|i| memory(i.max.as_ref(), "memory"), "Container"),
            pod_max: most(|i| memory(i.max.as_ref(), "memory"), "Pod"),
            pod_cpu_max_m: most(|i| cpu(i.max.as_ref()), "Pod"),
            cpu_min_m: least(|i| cpu(i.min.as_ref())),
            cpu_max_m: most(|i| cpu(i.max.as_ref()), "Container"),
        })
    }
}

impl QuotaRecord {
    /// The record of a ResourceQuota; None when it does not bound memory, or only some pods by scope.
    #[must_use]
    pub fn new(object: &ResourceQuota) -> Option<Self> {
        let spec = object.spec.as_ref()?;
        if spec.scopes.as_ref().is_some_and(|s| !s.is_empty()) || spec.scope_selector.is_some() {
            return None;
        }
        let status = object.status.as_ref();
        let (hard, used) = (status.and_then(|s| s.hard.as_ref()).or(spec.hard.as_ref()), status.and_then(|s| s.used.as_ref()));
        let pair = |keys: &[&str]| keys.iter().find_map(|k| memory(hard, k).map(|hard| (hard, memory(used, k).unwrap_or(0))));
        let (requests, limits) = (pair(&["requests.memory", "memory"]), pair(&["limits.memory"]));
        if requests.is_none() && limits.is_none() {
            return None;
        }
        Some(Self { namespace: object.metadata.namespace.clone()?, name: object.metadata.name.clone()?, requests, limits })
    }
}
