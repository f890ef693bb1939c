//! Resources: the sidecar's own, and the recommended ones of the working container. In: the pod, settings, a recommendation. Out: values to set.
//! Left to others: the recommendation itself (`core::size`, kept in the QWorker).

use crate::Settings;
use crate::limits::Limits;
use crate::ops::Ops;
use crate::pod::array;
use crate::reason::Refusal;
use qscaler_api::Resources;
use qscaler_core::config::WorkerConfig;
use qscaler_core::units::{Bytes, Millicores};
use serde_json::{Value, json};

/// The sidecar's CPU limit where every other container has one: a quota on `limits.cpu` asks for it. Far above its use of about 1m.
const CPU_LIMIT_WHERE_ALL_HAVE_ONE: Millicores = Millicores(100);

/// A quota on it asks every container for a value, and where every other one has it, there may be such a quota. The sidecar writes its log alone, of which the
/// kubelet keeps 50 MiB by default (`containerLogMaxSize`, `containerLogMaxFiles`); a pod beyond its limit is evicted.
const STORAGE: &str = "ephemeral-storage";
const STORAGE_REQUEST: Bytes = Bytes(16 << 20);
const STORAGE_LIMIT: Bytes = Bytes(256 << 20);
/// Less is as good as none.
const STORAGE_LEAST: Bytes = Bytes(1 << 20);

/// The least memory limit that the sidecar can live with: twice what it uses.
const MEMORY_LEAST: Bytes = Bytes(24 << 20);

/// The sidecar's `resources`; None where the pod as a whole has resources, whose sum ours would break. An error where the namespace leaves it no room.
pub(crate) fn of_sidecar(pod: &Value, settings: &Settings, allowed: Limits) -> Result<Option<Value>, Refusal> {
    let size = PodSize::of(pod);
    if size.as_a_whole {
        return Ok(None);
    }
    // Where a limit must be within a multiple of the request, one as small as ours would all but stop the sidecar: the request rises instead.
    let cpu_limit = sidecar_cpu_limit(settings, size.cpu_limited || allowed.cpu.ratio.is_some());
    let guaranteed = array(pod, "containers").iter().all(is_guaranteed);
    let (memory_room, cpu_room) = size.room(settings, &allowed)?;
    let cpu_limit = cpu_limit.map(|limit| Millicores(cpu_room.map_or(limit.0, |room| limit.0.min(room))));
    let memory_limit = memory_room.map_or(settings.memory_limit.0, |room| settings.memory_limit.0.min(room));
    // A Guaranteed pod stays Guaranteed: requests become the limits.
    let (cpu_request, memory_request) = if guaranteed {
        (cpu_limit.unwrap_or(settings.cpu_request), memory_limit)
    } else {
        (settings.cpu_request, settings.memory_request.0.min(memory_limit))
    };
    let (cpu_request, cpu_limit) = allowed.cpu.fit(cpu_request.0, cpu_limit.map(|limit| limit.0));
    let (memory_request, memory_limit) = allowed.memory.fit(memory_request, Some(memory_limit));
    let mut limits = json!({"memory": Bytes(memory_limit.unwrap_or(settings.memory_limit.0)).to_string()});
    if let Some(limit) = cpu_limit {
        limits["cpu"] = json!(Millicores(limit).to_string());
    }
    let mut requests = json!({"cpu": Millicores(cpu_request).to_string(), "memory": Bytes(memory_request).to_string()});
    let (storage_request, storage_limit) = storage(pod, size.storage, &allowed);
    for (amounts, bytes) in [(&mut requests, storage_request), (&mut limits, storage_limit)] {
        if let Some(bytes) = bytes {
            amounts[STORAGE] = json!(Bytes(bytes).to_string());
        }
    }
    Ok(Some(json!({"requests": requests, "limits": limits})))
}

/// Request and limit of ephemeral storage, each where every container has one, within what the namespace allows; neither where a pod may have no more than `taken`.
fn storage(pod: &Value, taken: u64, allowed: &Limits) -> (Option<u64>, Option<u64>) {
    let all_have = |kind: &str| array(pod, "containers").iter().all(|container| amount(container, kind, STORAGE).is_some());
    let room = allowed.pod_storage_max.map_or(STORAGE_LIMIT.0, |max| max.saturating_sub(taken).min(STORAGE_LIMIT.0));
    let (requested, limited) = (all_have("requests"), all_have("limits"));
    if room < STORAGE_LEAST.0 || !requested && !limited {
        return (None, None);
    }
    // A request that is not said is the limit.
    let request = if requested { STORAGE_REQUEST.0.min(room) } else { room };
    let (request, limit) = allowed.storage.fit(request, limited.then_some(room));
    (requested.then_some(request), limit)
}

fn sidecar_cpu_limit(settings: &Settings, all_limited: bool) -> Option<Millicores> {
    settings.cpu_limit.or(all_limited.then_some(CPU_LIMIT_WHERE_ALL_HAVE_ONE)).map(|limit| limit.max(settings.cpu_request))
}

/// Whether the pod as a whole has resources; empty ones are none.
pub(crate) fn as_a_whole(pod: &Value) -> bool {
    let filled = |kind: &str| pod.pointer("/spec/resources").and_then(|r| r.get(kind)?.as_object()).is_some_and(|amounts| !amounts.is_empty());
    filled("requests") || filled("limits")
}

/// What a pod, or a template, takes of what its namespace allows one pod. Limits of plain containers and native sidecars add up
/// (k8s.io/kubernetes/plugin/pkg/admission/limitranger).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodSize {
    /// The pod as a whole has resources, and one more container takes nothing.
    as_a_whole: bool,
    /// Bytes.
    memory: u64,
    /// Millicores.
    cpu: u64,
    /// Bytes of ephemeral storage.
    storage: u64,
    /// Every plain container has a CPU limit.
    cpu_limited: bool,
}

impl PodSize {
    /// Of a pod, or of a template's `spec`.
    #[must_use]
    pub fn of(pod: &Value) -> Self {
        let sidecars = array(pod, "initContainers").iter().filter(|c| c.get("restartPolicy").and_then(Value::as_str) == Some("Always"));
        let all: Vec<&Value> = array(pod, "containers").iter().chain(sidecars).collect();
        let sum = |what: &str, parse: fn(&str) -> Option<u64>| {
            all.iter().filter_map(|c| parse(&text(amount(c, "limits", what)?))).fold(0, u64::saturating_add)
        };
        Self {
            as_a_whole: as_a_whole(pod),
            memory: sum("memory", |text| Bytes::parse(text).ok().map(|b| b.0)),
            cpu: sum("cpu", |text| Millicores::parse(text).ok().map(|c| c.0)),
            storage: sum(STORAGE, |text| Bytes::parse(text).ok().map(|b| b.0)),
            cpu_limited: array(pod, "containers").iter().all(|c| amount(c, "limits", "cpu").is_some()),
        }
    }

    /// Why the namespace leaves the sidecar no room in such a pod; None: it does.
    #[must_use]
    pub fn refusal(&self, settings: &Settings, allowed: &Limits) -> Option<Refusal> {
        if self.as_a_whole { None } else { self.room(settings, allowed).err() }
    }

    /// Memory and CPU that the bounds leave to one more container; None: there is no bound.
    fn room(&self, settings: &Settings, allowed: &Limits) -> Result<(Option<u64>, Option<u64>), Refusal> {
        let memory = room(self.memory, allowed.pod_memory_max, MEMORY_LEAST.0).map_err(|max| Refusal::NoRoom {
            what: "memory",
            max: Bytes(max).to_string(),
            taken: Bytes(self.memory).to_string(),
        })?;
        let bounded = allowed.pod_cpu_max.filter(|_| sidecar_cpu_limit(settings, self.cpu_limited).is_some());
        let cpu = room(self.cpu, bounded, settings.cpu_request.0).map_err(|max| Refusal::NoRoom {
            what: "CPU",
            max: Millicores(max).to_string(),
            taken: Millicores(self.cpu).to_string(),
        })?;
        Ok((memory, cpu))
    }
}

/// What a bound leaves; an error with the bound where that is less than `least`.
fn room(taken: u64, max: Option<u64>, least: u64) -> Result<Option<u64>, u64> {
    let Some(max) = max else { return Ok(None) };
    let room = max.saturating_sub(taken);
    // A pod that is refused without us is refused with us, too.
    if room >= least || taken > max { Ok(Some(room.max(least))) } else { Err(max) }
}

fn amount<'a>(container: &'a Value, kind: &str, what: &str) -> Option<&'a Value> {
    container.get("resources")?.get(kind)?.get(what).filter(|v| !v.is_null())
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Limits for both, and requests absent (they default to the limits) or equal.
fn is_guaranteed(container: &Value) -> bool {
    let equal = |what: &str, same: fn(&str, &str) -> bool| match (amount(container, "limits", what), amount(container, "requests", what)) {
        (Some(limit), Some(request)) => same(&text(limit), &text(request)),
        (Some(_), None) => true,
        (None, _) => false,
    };
    equal("memory", |a, b| Bytes::parse(a).is_ok_and(|a| Bytes::parse(b) == Ok(a)))
        && equal("cpu", |a, b| Millicores::parse(a).is_ok_and(|a| Millicores::parse(b) == Ok(a)))
}

/// Sets the recommended size of the working container: memory request and limit, CPU request. The user's bounds, the CPU limit and what the
/// namespace allows win.
pub(crate) fn set_recommended(ops: &mut Ops<'_>, container: &Value, at: &str, config: &WorkerConfig, recommended: &Resources, allowed: Limits) {
    if let Some(memory) = recommended.memory_bytes.filter(|b| *b > 0) {
        let memory = bounded(Bytes(memory), config.min_memory, config.max_memory);
        let memory = Bytes(allowed.memory.fit(memory.0, Some(memory.0)).0).to_string();
        for kind in ["requests", "limits"] {
            ops.set(&["spec", "containers", at, "resources", kind, "memory"], json!(memory));
        }
    }
    if let Some(cpu) = recommended.cpu_request_millicores.filter(|c| *c > 0) {
        let limit = amount(container, "limits", "cpu").and_then(|v| Millicores::parse(&text(v)).ok());
        let cpu = bounded(bounded(Millicores(cpu), config.min_cpu, config.max_cpu), None, limit);
        let (fitting, _) = allowed.cpu.fit(cpu.0, limit.map(|limit| limit.0));
        ops.set(&["spec", "containers", at, "resources", "requests", "cpu"], json!(bounded(Millicores(fitting), None, limit).to_string()));
    }
}

fn bounded<T: Ord + Copy>(value: T, min: Option<T>, max: Option<T>) -> T {
    let value = min.map_or(value, |min| value.max(min));
    max.map_or(value, |max| value.min(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(resources: Value) -> Value {
        json!({"name": "w", "resources": resources})
    }

    fn sidecar(containers: &[Value]) -> Value {
        of_sidecar(&json!({"spec": {"containers": containers}}), &Settings::default(), Limits::default()).unwrap().unwrap()
    }

    #[test]
    fn requests_are_small_and_memory_is_limited() {
        assert_eq!(sidecar(&[container(json!({}))]), json!({"requests": {"cpu": "5m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}}));
    }

    #[test]
    fn a_cpu_limit_is_set_where_every_container_has_one() {
        let limited = container(json!({"limits": {"cpu": "1"}}));
        assert_eq!(sidecar(std::slice::from_ref(&limited))["limits"]["cpu"], "100m");
        assert!(sidecar(&[limited, container(json!({}))])["limits"].get("cpu").is_none());
    }

    #[test]
    fn a_guaranteed_pod_stays_guaranteed() {
        let guaranteed = container(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}));
        assert_eq!(sidecar(&[guaranteed]), json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}}));
    }

    #[test]
    fn a_limit_range_is_kept() {
        let bounds = |min, max, ratio| crate::Bounds { min, max, ratio };
        let allowed = Limits { cpu: bounds(Some(10), Some(200), None), memory: bounds(None, None, Some(2.0)), ..Limits::default() };
        let got = of_sidecar(&json!({"spec": {"containers": [container(json!({}))]}}), &Settings::default(), allowed).unwrap().unwrap();
        assert_eq!(got, json!({"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}));
    }

    #[test]
    fn a_pod_with_resources_of_its_own_gets_none_from_us() {
        assert_eq!(of_sidecar(&json!({"spec": {"resources": {"limits": {"cpu": "1"}}}}), &Settings::default(), Limits::default()), Ok(None));
    }

    #[test]
    fn where_every_container_has_storage_so_has_the_sidecar_as_a_quota_may_ask_for_it() {
        let both = container(json!({"requests": {"ephemeral-storage": "1Gi"}, "limits": {"ephemeral-storage": "2Gi"}}));
        let got = sidecar(std::slice::from_ref(&both));
        assert_eq!((&got["requests"]["ephemeral-storage"], &got["limits"]["ephemeral-storage"]), (&json!("16Mi"), &json!("256Mi")));
        let requests = container(json!({"requests": {"ephemeral-storage": "1Gi"}}));
        let got = sidecar(&[both, requests]);
        assert_eq!((&got["requests"]["ephemeral-storage"], got["limits"].get("ephemeral-storage")), (&json!("16Mi"), None));
    }

    #[test]
    fn storage_is_within_what_the_namespace_allows() {
        let of = |allowed: Limits| {
            let both = container(json!({"requests": {"ephemeral-storage": "50Mi"}, "limits": {"ephemeral-storage": "50Mi"}}));
            let got = of_sidecar(&json!({"spec": {"containers": [both]}}), &Settings::default(), allowed).unwrap().unwrap();
            ["requests", "limits"].map(|kind| got[kind]["ephemeral-storage"].as_str().unwrap_or_default().to_owned())
        };
        let bounds = |min: Option<u64>, max: Option<u64>, ratio| crate::Bounds { min: min.map(|m| m << 20), max: max.map(|m| m << 20), ratio };
        assert_eq!(of(Limits { storage: bounds(None, Some(100), None), ..Limits::default() }), ["16Mi", "100Mi"]);
        assert_eq!(of(Limits { storage: bounds(Some(32), Some(100), Some(2.0)), ..Limits::default() }), ["50Mi", "100Mi"]);
        let pod_max = |max: u64| of(Limits { pod_storage_max: Some(max << 20), ..Limits::default() });
        assert_eq!(pod_max(90), ["16Mi", "40Mi"]);
        assert_eq!(pod_max(60), ["10Mi", "10Mi"]);
        assert_eq!(pod_max(50), ["", ""], "what has no limit adds nothing to the sum");
    }

    #[test]
    fn where_limits_are_a_multiple_of_requests_the_request_rises_and_the_sidecar_is_not_stopped() {
        let allowed = Limits { cpu: crate::Bounds { ratio: Some(4.0), ..crate::Bounds::default() }, ..Limits::default() };
        let got = of_sidecar(&json!({"spec": {"containers": [container(json!({}))]}}), &Settings::default(), allowed).unwrap().unwrap();
        assert_eq!((&got["requests"]["cpu"], &got["limits"]["cpu"]), (&json!("25m"), &json!("100m")));
    }

    #[test]
    fn empty_resources_of_the_pod_as_a_whole_are_none() {
        for empty in [json!({}), json!(null), json!({"limits": null, "requests": {}})] {
            let pod = json!({"spec": {"resources": empty, "containers": [container(json!({}))]}});
            assert!(of_sidecar(&pod, &Settings::default(), Limits::default()).unwrap().is_some(), "{pod}");
        }
    }

    #[test]
    fn a_bound_on_the_whole_pod_leaves_the_sidecar_less_or_nothing() {
        let of = |pod_max: u64, limit: &str| {
            let worker = container(json!({"limits": {"memory": limit}}));
            let pod = json!({"spec": {"containers": [worker], "initContainers": [{"name": "once", "resources": {"limits": {"memory": "8Gi"}}}]}});
            let allowed = Limits { pod_memory_max: Some(pod_max << 20), ..Limits::default() };
            of_sidecar(&pod, &Settings::default(), allowed).map(|r| r.unwrap()["limits"]["memory"].as_str().unwrap().to_owned())
        };
        assert_eq!(of(1024, "512Mi").unwrap(), "64Mi");
        assert_eq!(of(552, "512Mi").unwrap(), "40Mi");
        let refusal = of(512, "512Mi").unwrap_err();
        assert_eq!(refusal, Refusal::NoRoom { what: "memory", max: "512Mi".into(), taken: "512Mi".into() });
        assert!(of(512, "1Gi").is_ok(), "that pod is refused without us, too");
    }
}
