//! What the webhook knows about the cluster. In: watches of Deployments and namespaces (metadata only), QWorkers and LimitRanges. Out: the
//! annotations of a workload, its recommended sizes, what a namespace allows and whether it has opted in. Left to others: what follows from that.
//!
//! One cluster-wide watch per kind, and of each object only what is needed here: UID and our annotations of a Deployment, so 10,000 Deployments
//! cost about 2 MB. Watches per opted-in namespace would cost a connection each, and a delay when a namespace opts in; holding annotated Deployments
//! only would make every pod of the others look unknown, and ask the API server.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{LimitRange, Namespace};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use qscaler_api::{QWorker, QWorkerStatus, Resources, WorkerIds};
use qscaler_core::names::condition::{CONFLICT, REASON_OTHER_SIZER};
use qscaler_core::names::{DOMAIN, INJECTION_ENABLED, LABEL_INJECTION};
use qscaler_core::units::{Bytes, Millicores};
use qscaler_core::workload::WorkloadId;
use qscaler_inject::{Allowed, Bounds, Limits, NamespaceFacts};
use qscaler_runtime::CancellationToken;
use qscaler_runtime::ready::{Handle, Readiness};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// What is kept of a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// `metadata.uid`.
    pub uid: String,
    /// Our annotations of its metadata.
    pub annotations: BTreeMap<String, String>,
}

/// What is kept of a QWorker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Recommended sizes by container.
    pub recommended: BTreeMap<String, Resources>,
    /// The worker's owner.
    pub worker_ids: Option<WorkerIds>,
}

/// Why a Deployment is not known.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// There is no connection to the API server.
    #[error("it is not in the cache")]
    NotCached,
    /// It took too long.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The API server refused.
    #[error("the API server refused")]
    Api(#[from] kube::Error),
}

/// A pruned copy of all objects of one kind, by namespace and name.
#[derive(Debug)]
struct Mirror<V>(RwLock<BTreeMap<WorkloadId, V>>);

impl<V> Default for Mirror<V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<V: Clone> Mirror<V> {
    fn get(&self, id: &WorkloadId) -> Option<V> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn set(&self, id: WorkloadId, value: V) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(id, value);
    }

    fn set_if_absent(&self, id: WorkloadId, value: V) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).entry(id).or_insert(value);
    }

    fn remove(&self, id: &WorkloadId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    fn replace(&self, all: BTreeMap<WorkloadId, V>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = all;
    }
}

/// All of it; shared by every request.
#[derive(Default)]
pub struct World {
    deployments: Mirror<Workload>,
    learned: Mirror<Learned>,
    namespaces: Mirror<bool>,
    limits: Mirror<Limits>,
    client: Option<Client>,
}

impl Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

impl World {
    /// An empty world; with a client, a Deployment that is missing is asked for once.
    #[must_use]
    pub fn new(client: Option<Client>) -> Self {
        Self { client, ..Self::default() }
    }

    /// A Deployment, from the cache or by one GET that takes at most `within`. None: there is none of this name. A Deployment that was made a moment ago is
    /// not in the cache yet when its first pods are.
    ///
    /// # Errors
    /// When it is not in the cache and could not be read in time.
    pub async fn workload(&self, id: &WorkloadId, within: Duration) -> Result<Option<Workload>, LookupError> {
        if let Some(workload) = self.deployments.get(id) {
            return Ok(Some(workload));
        }
        let client = self.client.clone().ok_or(LookupError::NotCached)?;
        let api: Api<PartialObjectMeta<Deployment>> = Api::namespaced(client, &id.namespace);
        let found = tokio::time::timeout(within, api.get_opt(&id.name)).await.map_err(|_| LookupError::Timeout(within))??;
        Ok(found.map(|object| {
            let workload = prune_deployment(&object);
            // The watch may have brought a newer one meanwhile.
            self.deployments.set_if_absent(id.clone(), workload.clone());
            workload
        }))
    }

    /// What earlier pods of a workload taught.
    #[must_use]
    pub fn learned(&self, id: &WorkloadId) -> Learned {
        self.learned.get(id).unwrap_or_default()
    }

    /// Whether a namespace has opted in; None: not known.
    #[must_use]
    pub fn namespace_enabled(&self, namespace: &str) -> Option<bool> {
        self.namespaces.get(&WorkloadId { namespace: String::new(), name: namespace.to_owned() })
    }

    /// All of that about a namespace.
    #[must_use]
    pub fn namespace(&self, namespace: &str) -> NamespaceFacts {
        NamespaceFacts { enabled: self.namespace_enabled(namespace), allowed: Allowed { limits: self.limits(namespace) } }
    }

    /// What all LimitRanges of a namespace allow.
    #[must_use]
    pub fn limits(&self, namespace: &str) -> Limits {
        let from = WorkloadId { namespace: namespace.to_owned(), name: String::new() };
        let limits = self.limits.0.read().unwrap_or_else(PoisonError::into_inner);
        limits.range(from..).take_while(|(id, _)| id.namespace == namespace).fold(Limits::default(), |all, (_, one)| all.and(*one))
    }

    /// Puts a Deployment into the cache, as the watch does.
    pub fn put_workload(&self, id: WorkloadId, workload: Workload) {
        self.deployments.set(id, workload);
    }

    /// Puts what was learned into the cache, as the watch does.
    pub fn put_learned(&self, id: WorkloadId, learned: Learned) {
        self.learned.set(id, learned);
    }

    /// Puts a namespace into the cache, as the watch does.
    pub fn put_namespace(&self, namespace: &str, enabled: bool) {
        self.namespaces.set(WorkloadId { namespace: String::new(), name: namespace.to_owned() }, enabled);
    }

    /// Puts a LimitRange into the cache, as the watch does.
    pub fn put_limits(&self, id: WorkloadId, limits: Limits) {
        self.limits.set(id, limits);
    }

    /// Follows the cluster until the shutdown. Readiness waits for the first full list of each kind.
    pub async fn follow(self: Arc<Self>, client: Client, readiness: &Readiness, shutdown: CancellationToken) {
        let waiting =
            [readiness.handle("Deployments"), readiness.handle("QWorkers"), readiness.handle("namespaces"), readiness.handle("LimitRanges")];
        let [deployments, qworkers, namespaces, limits] = waiting;
        let all = async {
            tokio::join!(
                mirror(Api::<PartialObjectMeta<Deployment>>::all(client.clone()), &self.deployments, prune_deployment, deployments),
                mirror(Api::<QWorker>::all(client.clone()), &self.learned, prune_qworker, qworkers),
                mirror(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), &self.namespaces, prune_namespace, namespaces),
                mirror(Api::<LimitRange>::all(client), &self.limits, prune_limit_range, limits),
            )
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = all => {}
        }
    }
}

fn ours(annotations: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    annotations
        .iter()
        .filter(|(key, _)| key.strip_prefix(DOMAIN).is_some_and(|rest| rest.starts_with('/')))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

fn prune_deployment(object: &PartialObjectMeta<Deployment>) -> Workload {
    Workload { uid: object.uid().unwrap_or_default(), annotations: ours(object.annotations()) }
}

fn prune_qworker(object: &QWorker) -> Learned {
    let status = object.status.as_ref();
    // Another sizer owns the workload's pods: two writers would undo each other's work.
    let stands_back = |s: &&QWorkerStatus| s.conditions.iter().any(|c| c.type_ == CONFLICT && c.status == "True" && c.reason == REASON_OTHER_SIZER);
    Learned {
        recommended: status
            .filter(|s| !stands_back(s))
            .map(|s| s.sizes.iter().filter_map(|(name, size)| Some((name.clone(), size.recommended.clone()?))).collect())
            .unwrap_or_default(),
        worker_ids: status.and_then(|s| s.worker_ids),
    }
}

fn prune_namespace(object: &PartialObjectMeta<Namespace>) -> bool {
    object.labels().get(LABEL_INJECTION).is_some_and(|value| value == INJECTION_ENABLED)
}

fn prune_limit_range(object: &LimitRange) -> Limits {
    let items = object.spec.iter().flat_map(|spec| &spec.limits).filter(|item| item.type_ == "Container");
    items.fold(Limits::default(), |all, item| {
        let amount = |map: &Option<BTreeMap<String, Quantity>>, key: &str| map.as_ref().and_then(|map| map.get(key)).map(|q| q.0.clone());
        let bounds = |key: &str, parse: fn(&str) -> Option<u64>| Bounds {
            min: amount(&item.min, key).and_then(|text| parse(&text)),
            max: amount(&item.max, key).and_then(|text| parse(&text)),
            // A plain number, to thousandths; read as CPU it is that in thousandths.
            ratio: amount(&item.max_limit_request_ratio, key).and_then(|text| Millicores::parse(&text).ok()).map(|ratio| ratio.0 as f64 / 1000.0),
        };
        let memory = bounds("memory", |text| Bytes::parse(text).ok().map(|bytes| bytes.0));
        let cpu = bounds("cpu", |text| Millicores::parse(text).ok().map(|cpu| cpu.0));
        all.and(Limits { memory, cpu })
    })
}

/// Copies one kind for ever; the watch reconnects by itself, with backoff.
async fn mirror<K, V>(api: Api<K>, mirror: &Mirror<V>, prune: fn(&K) -> V, waiting: Handle)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    V: Clone,
{
    let mut waiting = Some(waiting);
    let mut listed = BTreeMap::new();
    let id = |object: &K| WorkloadId { namespace: object.namespace().unwrap_or_default(), name: object.name_any() };
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff().into_stream());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.insert(id(&object), prune(&object));
            }
            Ok(Event::InitDone) => {
                mirror.replace(std::mem::take(&mut listed));
                drop(waiting.take());
            }
            Ok(Event::Apply(object)) => mirror.set(id(&object), prune(&object)),
            Ok(Event::Delete(object)) => mirror.remove(&id(&object)),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "a watch failed and will be tried again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn range(limits: serde_json::Value) -> Limits {
        prune_limit_range(&serde_json::from_value(json!({"metadata": {"name": "l"}, "spec": {"limits": limits}})).unwrap())
    }

    #[test]
    fn only_what_binds_containers_is_read_of_a_limit_range() {
        let got = range(json!([
            {"type": "Pod", "max": {"cpu": "1"}},
            {"type": "Container", "min": {"cpu": "50m"}, "max": {"memory": "1Gi", "nvidia.com/gpu": "1"}, "maxLimitRequestRatio": {"memory": "1.5"}},
            {"type": "Container", "min": {"cpu": "10m"}, "max": {"memory": "2Gi"}}]));
        let memory = Bounds { min: None, max: Some(1 << 30), ratio: Some(1.5) };
        assert_eq!(got, Limits { memory, cpu: Bounds { min: Some(50), max: None, ratio: None } });
        assert_eq!(range(json!([])), Limits::default());
    }

    #[test]
    fn sizes_are_left_to_another_sizer_of_the_workload_and_not_for_one_foreign_pod() {
        let learned = |status: &str, reason: &str| {
            let condition =
                json!({"type": "Conflict", "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let object = json!({"apiVersion": "qscaler.dev/v1alpha1", "kind": "QWorker", "metadata": {"name": "orders"},
                "spec": {"targetKind": "Deployment", "targetName": "orders"},
                "status": {"conditions": [condition], "sizes": {"worker": {"recommended": {"memoryBytes": 200}}}}});
            prune_qworker(&serde_json::from_value(object).unwrap()).recommended.len()
        };
        assert_eq!(
            [learned("True", "OtherSizer"), learned("False", "None"), learned("True", "PodsResized"), learned("True", "OtherScaler")],
            [0, 1, 1, 1]
        );
    }

    #[test]
    fn the_limit_ranges_of_one_namespace_add_up_and_no_others() {
        let world = World::new(None);
        let id = |namespace: &str, name: &str| WorkloadId { namespace: namespace.into(), name: name.into() };
        let min = |min| Limits { cpu: Bounds { min: Some(min), ..Bounds::default() }, ..Limits::default() };
        for (namespace, name, cpu) in [("a", "z", 9), ("b", "x", 1), ("b", "y", 3), ("b-c", "x", 7)] {
            world.put_limits(id(namespace, name), min(cpu));
        }
        assert_eq!(world.limits("b"), min(3));
        assert_eq!(world.limits("c"), Limits::default());
    }
}
