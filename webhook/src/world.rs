//! What the webhook knows about the cluster. In: watches of Deployments and namespaces (metadata only), QWorkers and LimitRanges. Out: the
//! annotations of a workload, its recommended sizes, what a namespace allows and whether it has opted in. Left to others: what follows from that.
//!
//! One cluster-wide watch per kind, and of each object only what is needed here: UID and our annotations of a Deployment, so 10,000 Deployments
//! cost about 2 MB. Watches per opted-in namespace would cost a connection each, and a delay when a namespace opts in; holding annotated Deployments
//! only would make every pod of the others look unknown, and ask the API server.

use crate::control_keys::ControlKeys;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{LimitRange, Namespace};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use qscaler_api::{QWorker, QWorkerStatus, Resources, WorkerIds};
use qscaler_core::names::condition::{CONFLICT, INJECTED, REASON_FAILED_CREATE, REASON_OTHER_SIZER, REASON_WORKER_CRASHES};
use qscaler_core::names::{DOMAIN, INJECTION_ENABLED, LABEL_INJECTION};
use qscaler_core::units::{Bytes, Millicores};
use qscaler_core::workload::WorkloadId;
use qscaler_inject::{Allowed, Bounds, Limits, Meshes, WorkloadFacts};
use qscaler_runtime::CancellationToken;
use qscaler_runtime::ready::{Handle, Readiness};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Templates of Deployments that are gone stay until there are so many of them; then each is asked for once more.
const TEMPLATES_SLACK: usize = 1000;

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
pub struct QWorkerFacts {
    /// Recommended sizes by container.
    pub recommended: BTreeMap<String, Resources>,
    /// The worker's owner.
    pub worker_ids: Option<WorkerIds>,
    /// The API server refuses its pods at the moment.
    pub refused: bool,
    /// Why its pods should not share their processes, where the controller has seen that they cannot.
    pub not_shared: Option<&'static str>,
}

/// What is kept of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceEntry {
    /// Whether it has opted in.
    pub enabled: bool,
    /// Whether its containers may run as root, as far as its labels say.
    pub root: bool,
    /// Meshes whose proxy its pods get.
    pub meshes: Meshes,
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

    fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Forgets all where there are more than this.
    fn clear_beyond(&self, max: usize) {
        if self.len() > max {
            self.replace(BTreeMap::new());
        }
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
    learned: Mirror<QWorkerFacts>,
    namespaces: Mirror<NamespaceEntry>,
    /// The last template of each Deployment whose annotations are known to be at least as new.
    templates: Mirror<String>,
    /// Workloads whose pods should not share their processes, and the template that this was learned of; None: that of the next pod. A condition ends once
    /// pods do without, and the template is as it was.
    unshared: Mirror<(&'static str, Option<String>)>,
    limits: Mirror<Limits>,
    /// Public keys of control messages, for new pods.
    pub control_keys: ControlKeys,
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

    /// A Deployment, from the cache or by one GET that takes at most `within`. None: there is none of this name. Two cases ask: a Deployment that was made
    /// a moment ago is not in the cache yet when its first pods are; and what the cache has may be older than a pod's template, so of each template the
    /// first pod asks. Where that fails the cache is believed.
    ///
    /// # Errors
    /// When it is not in the cache and could not be read in time.
    pub async fn workload(&self, id: &WorkloadId, template_hash: &str, within: Duration) -> Result<Option<Workload>, LookupError> {
        let cached = self.deployments.get(id);
        if let Some(workload) = &cached
            && self.templates.get(id).is_some_and(|seen| seen == template_hash)
        {
            return Ok(Some(workload.clone()));
        }
        match self.ask(id, within).await {
            Ok(found) => {
                if found.is_some() {
                    self.templates.clear_beyond(self.deployments.len() + TEMPLATES_SLACK);
                    self.templates.set(id.clone(), template_hash.to_owned());
                }
                Ok(found)
            }
            Err(error) => cached.map(Some).ok_or(error),
        }
    }

    async fn ask(&self, id: &WorkloadId, within: Duration) -> Result<Option<Workload>, LookupError> {
        let client = self.client.clone().ok_or(LookupError::NotCached)?;
        let api: Api<PartialObjectMeta<Deployment>> = Api::namespaced(client, &id.namespace);
        let found = tokio::time::timeout(within, api.get_opt(&id.name)).await.map_err(|_| LookupError::Timeout(within))??;
        Ok(found.map(|object| {
            let workload = prune_deployment(&object);
            // The watch brings what is newer.
            self.deployments.set(id.clone(), workload.clone());
            workload
        }))
    }

    /// What earlier pods of a workload taught.
    #[must_use]
    pub fn learned(&self, id: &WorkloadId) -> QWorkerFacts {
        self.learned.get(id).unwrap_or_default()
    }

    /// Why pods of this template should not share their processes.
    #[must_use]
    pub fn not_shared(&self, id: &WorkloadId, template_hash: &str) -> Option<&'static str> {
        let learned = self.learned(id).not_shared.map(|reason| (reason, None));
        let (reason, of) = learned.or_else(|| self.unshared.get(id))?;
        let holds = of.is_none_or(|of| of == template_hash);
        if holds {
            self.unshared.set(id.clone(), (reason, Some(template_hash.to_owned())));
        } else {
            self.unshared.remove(id);
        }
        holds.then_some(reason)
    }

    /// What is known of a workload, and of its namespace.
    #[must_use]
    pub fn facts(&self, id: &WorkloadId) -> WorkloadFacts {
        let entry = self.namespaces.get(&WorkloadId { namespace: String::new(), name: id.namespace.clone() });
        // Of a namespace that is not known nothing is assumed.
        let NamespaceEntry { root, meshes, .. } = entry.unwrap_or_default();
        let allowed = Allowed { limits: self.limits(&id.namespace), root, meshes };
        WorkloadFacts { enabled: entry.map(|entry| entry.enabled), allowed, worker_ids: self.learned(id).worker_ids }
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
    pub fn put_learned(&self, id: WorkloadId, learned: QWorkerFacts) {
        self.learned.set(id, learned);
    }

    /// Puts a namespace into the cache, as the watch does.
    pub fn put_namespace(&self, namespace: &str, entry: NamespaceEntry) {
        self.namespaces.set(WorkloadId { namespace: String::new(), name: namespace.to_owned() }, entry);
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

fn prune_qworker(object: &QWorker) -> QWorkerFacts {
    let status = object.status.as_ref();
    // Another sizer owns the workload's pods: two writers would undo each other's work.
    let stands_back = |s: &&QWorkerStatus| s.conditions.iter().any(|c| c.type_ == CONFLICT && c.status == "True" && c.reason == REASON_OTHER_SIZER);
    QWorkerFacts {
        recommended: status
            .filter(|s| !stands_back(s))
            .map(|s| s.sizes.iter().filter_map(|(name, size)| Some((name.clone(), size.recommended.clone()?))).collect())
            .unwrap_or_default(),
        worker_ids: status.and_then(|s| s.worker_ids),
        refused: status.is_some_and(|s| s.conditions.iter().any(failed_create)),
        not_shared: status.and_then(|s| s.conditions.iter().find_map(cannot_share)),
    }
}

fn failed_create(condition: &Condition) -> bool {
    condition.status == "False" && condition.reason == REASON_FAILED_CREATE
}

fn cannot_share(condition: &Condition) -> Option<&'static str> {
    let words = condition.message.to_ascii_lowercase();
    if failed_create(condition) && (words.contains("shareprocessnamespace") || words.contains("process namespace")) {
        return Some("the API server refuses pods that share them");
    }
    (condition.type_ == INJECTED && condition.status == "False" && condition.reason == REASON_WORKER_CRASHES).then_some("pods that share them crash")
}

/// Pod Security Admission's own label (kubernetes.io/docs/concepts/security/pod-security-admission), and OpenShift's mark of a namespace whose UIDs it gives out.
const LABEL_ENFORCE: &str = "pod-security.kubernetes.io/enforce";
const OPENSHIFT_UIDS: &str = "openshift.io/sa.scc.uid-range";

fn prune_namespace(object: &PartialObjectMeta<Namespace>) -> NamespaceEntry {
    let label = |key: &str| object.labels().get(key).map(String::as_str);
    let annotation = |key: &str| object.annotations().get(key).map(String::as_str);
    NamespaceEntry {
        enabled: label(LABEL_INJECTION) == Some(INJECTION_ENABLED),
        root: label(LABEL_ENFORCE) != Some("restricted") && annotation(OPENSHIFT_UIDS).is_none(),
        meshes: Meshes {
            istio: label("istio-injection") == Some("enabled") || label("istio.io/rev").is_some(),
            linkerd: matches!(annotation("linkerd.io/inject"), Some("enabled" | "ingress")),
            kuma: matches!(label("kuma.io/sidecar-injection"), Some("enabled" | "true")),
        },
    }
}

fn prune_limit_range(object: &LimitRange) -> Limits {
    object.spec.iter().flat_map(|spec| &spec.limits).fold(Limits::default(), |all, item| {
        let amount = |map: &Option<BTreeMap<String, Quantity>>, key: &str| map.as_ref().and_then(|map| map.get(key)).map(|q| q.0.clone());
        let bounds = |key: &str, parse: fn(&str) -> Option<u64>| Bounds {
            min: amount(&item.min, key).and_then(|text| parse(&text)),
            max: amount(&item.max, key).and_then(|text| parse(&text)),
            // A plain number, to thousandths; read as CPU it is that in thousandths.
            ratio: amount(&item.max_limit_request_ratio, key).and_then(|text| Millicores::parse(&text).ok()).map(|ratio| ratio.0 as f64 / 1000.0),
        };
        let memory = bounds("memory", |text| Bytes::parse(text).ok().map(|bytes| bytes.0));
        let cpu = bounds("cpu", |text| Millicores::parse(text).ok().map(|cpu| cpu.0));
        let storage = bounds("ephemeral-storage", |text| Bytes::parse(text).ok().map(|bytes| bytes.0));
        // A pod that is within a ratio stays so by one more container that is.
        let ratio = |of: Bounds| Bounds { ratio: of.ratio, ..Bounds::default() };
        match item.type_.as_str() {
            "Container" => all.and(Limits { memory, cpu, storage, ..Limits::default() }),
            "Pod" => all.and(Limits {
                memory: ratio(memory),
                cpu: ratio(cpu),
                storage: ratio(storage),
                pod_memory_max: memory.max,
                pod_cpu_max: cpu.max,
                pod_storage_max: storage.max,
            }),
            _ => all,
        }
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
    fn what_binds_a_container_or_a_pod_is_read_of_a_limit_range() {
        let got = range(json!([
            {"type": "Pod", "max": {"cpu": "1"}},
            {"type": "Container", "min": {"cpu": "50m"}, "max": {"memory": "1Gi", "nvidia.com/gpu": "1"}, "maxLimitRequestRatio": {"memory": "1.5"}},
            {"type": "Container", "min": {"cpu": "10m"}, "max": {"memory": "2Gi"}}]));
        let memory = Bounds { min: None, max: Some(1 << 30), ratio: Some(1.5) };
        let cpu = Bounds { min: Some(50), max: None, ratio: None };
        assert_eq!(got, Limits { memory, cpu, pod_cpu_max: Some(1000), ..Limits::default() });
        let got = range(json!([{"type": "Pod", "max": {"ephemeral-storage": "1Gi"}, "maxLimitRequestRatio": {"memory": "1"}},
            {"type": "Container", "max": {"ephemeral-storage": "100Mi"}}]));
        assert_eq!((got.pod_storage_max, got.storage.max, got.memory.ratio), (Some(1 << 30), Some(100 << 20), Some(1.0)));
        assert_eq!(range(json!([])), Limits::default());
    }

    #[test]
    fn a_namespaces_labels_say_whether_root_is_allowed_and_which_mesh_there_is() {
        let entry = |labels: serde_json::Value, annotations: serde_json::Value| {
            let metadata = json!({"name": "shop", "labels": labels, "annotations": annotations});
            prune_namespace(
                &serde_json::from_value(json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata})).unwrap(),
            )
        };
        for (labels, annotations, root) in [
            (json!({}), json!({}), true),
            (json!({LABEL_ENFORCE: "privileged"}), json!({}), true),
            (json!({LABEL_ENFORCE: "baseline"}), json!({}), true),
            (json!({LABEL_ENFORCE: "restricted"}), json!({}), false),
            (json!({}), json!({OPENSHIFT_UIDS: "1000680000/10000"}), false),
        ] {
            assert_eq!(entry(labels.clone(), annotations).root, root, "{labels}");
        }
        assert_eq!(entry(json!({"istio-injection": "enabled"}), json!({})).meshes, Meshes { istio: true, ..Meshes::default() });
        assert_eq!(
            entry(json!({"istio.io/rev": "stable"}), json!({"linkerd.io/inject": "enabled"})).meshes,
            Meshes { istio: true, linkerd: true, kuma: false }
        );
        assert_eq!(entry(json!({"kuma.io/sidecar-injection": "enabled"}), json!({})).meshes, Meshes { kuma: true, ..Meshes::default() });
        assert_eq!(entry(json!({"istio-injection": "disabled"}), json!({"linkerd.io/inject": "disabled"})).meshes, Meshes::default());
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
    fn pods_that_crash_while_they_share_are_made_without_until_the_template_changes() {
        let learned = |type_: &str, status: &str, reason: &str, message: &str| {
            let condition =
                json!({"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let object = json!({"apiVersion": "qscaler.dev/v1alpha1", "kind": "QWorker", "metadata": {"name": "orders"},
                "spec": {"targetKind": "Deployment", "targetName": "orders"}, "status": {"conditions": [condition]}});
            prune_qworker(&serde_json::from_value(object).unwrap())
        };
        let (world, id) = (World::new(None), WorkloadId { namespace: "shop".into(), name: "orders".into() });
        assert_eq!(world.not_shared(&id, "a"), None);
        world.put_learned(id.clone(), learned("Injected", "False", "WorkerCrashes", "restarted 4 times"));
        assert!(world.not_shared(&id, "a").is_some());
        // The condition ends, since pods do without now.
        world.put_learned(id.clone(), QWorkerFacts::default());
        assert!(world.not_shared(&id, "a").is_some() && world.not_shared(&id, "a").is_some());
        assert_eq!(world.not_shared(&id, "b"), None);
        assert_eq!(world.not_shared(&id, "a"), None, "a new template is a new try");
        let refused = learned("Injected", "False", "FailedCreate", "denied by policy: spec.shareProcessNamespace must not be true");
        assert!(refused.refused && refused.not_shared.is_some());
        let quota = learned("Scaling", "False", "FailedCreate", "exceeded quota");
        assert!(quota.refused && quota.not_shared.is_none());
        assert!(!learned("Injected", "True", "AllPods", "").refused);
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
