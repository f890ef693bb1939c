//! Watches of the API server, folded into the index. In: the client. Out: records in the index, and an input per workload that a change touches.
//! Left to others: the records (`record`), the index. Watches are cluster-wide, one per kind; objects outside opted-in namespaces are dropped at
//! once, and when the set of those namespaces changes the lists are read again.

use crate::input::Input;
use crate::observe::index::{Index, Kind, ObjectKey, Record};
use crate::observe::record::{DeploymentRecord, ForeignRecord, LimitRecord, NodeRecord, PodRecord, QuotaRecord, ReplicaSetRecord, Word};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, Node, Pod, ResourceQuota};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use qscaler_api::QWorker;
use qscaler_core::names::{INJECTION_ENABLED, LABEL_INJECTION};
use qscaler_core::workload::WorkloadId;
use qscaler_runtime::ready::{Handle, Readiness};
use serde::de::DeserializeOwned;
use std::collections::{BTreeSet, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether KEDA or the VPA has been installed.
const OPTIONAL_EVERY: Duration = Duration::from_secs(60);
/// A watch that failed is in sync again once it brings something, or after this long without another failure: twice the longest back-off.
const CALM: Duration = Duration::from_secs(60);

/// The index, shared between the watches that write it and the loop that reads it. Nobody waits while holding it.
#[derive(Clone, Debug, Default)]
pub struct SharedIndex(Arc<Mutex<Index>>);

impl SharedIndex {
    /// Of this one.
    #[must_use]
    pub fn new(index: Index) -> Self {
        Self(Arc::new(Mutex::new(index)))
    }

    /// The index, for a moment.
    pub fn lock(&self) -> MutexGuard<'_, Index> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What every watch needs.
#[derive(Clone)]
struct Context {
    client: Client,
    index: SharedIndex,
    inputs: mpsc::Sender<Input>,
    namespaces: watch::Receiver<BTreeSet<String>>,
    stop: CancellationToken,
}

/// Starts all watches. Readiness waits for the first list of each kind that every cluster has.
pub fn start(client: &Client, index: &SharedIndex, inputs: &mpsc::Sender<Input>, readiness: &Readiness, stop: &CancellationToken) {
    let (sender, namespaces) = watch::channel(BTreeSet::new());
    tokio::spawn(watch_namespaces(client.clone(), sender, readiness.handle("the list of Namespaces"), stop.clone()));
    let context = Context { client: client.clone(), index: index.clone(), inputs: inputs.clone(), namespaces, stop: stop.clone() };
    let all = |name: &str| readiness.handle(&format!("the list of {name}"));
    let c = &context;
    let of = index.clone();
    spawn(c, Api::<Deployment>::all(client.clone()), Kind::Deployment, Some(all("Deployments")), move |d| deployment(d, &of));
    spawn(c, Api::<ReplicaSet>::all(client.clone()), Kind::ReplicaSet, Some(all("ReplicaSets")), |r| {
        ReplicaSetRecord::new(r).map(Record::ReplicaSet)
    });
    spawn(c, Api::<Pod>::all(client.clone()), Kind::Pod, Some(all("Pods")), |p| PodRecord::new(p).map(|p| Record::Pod(Box::new(p))));
    spawn(c, Api::<PartialObjectMeta<QWorker>>::all(client.clone()), Kind::QWorker, Some(all("QWorkers")), |q| {
        Some(Record::QWorker(WorkloadId { namespace: q.namespace()?, name: q.name_any() }))
    });
    spawn(c, Api::<HorizontalPodAutoscaler>::all(client.clone()), Kind::Hpa, Some(all("HorizontalPodAutoscalers")), |h| {
        let value = serde_json::to_value(h).ok()?;
        ForeignRecord::new("HorizontalPodAutoscaler", &value, "/spec/scaleTargetRef").map(Record::Foreign)
    });
    spawn(c, Api::<Node>::all(client.clone()), Kind::Node, Some(all("Nodes")), |n| Some(Record::Node(NodeRecord::new(n))));
    spawn(c, Api::<LimitRange>::all(client.clone()), Kind::LimitRange, Some(all("LimitRanges")), |l| LimitRecord::new(l).map(Record::Limit));
    spawn(c, Api::<ResourceQuota>::all(client.clone()), Kind::ResourceQuota, Some(all("ResourceQuotas")), |q| QuotaRecord::new(q).map(Record::Quota));
    let optional = [
        (Kind::ScaledObject, "keda.sh", "v1alpha1", "ScaledObject", "/spec/scaleTargetRef"),
        (Kind::Vpa, "autoscaling.k8s.io", "v1", "VerticalPodAutoscaler", "/spec/targetRef"),
    ];
    for (kind, group, version, name, pointer) in optional {
        tokio::spawn(watch_optional(context.clone(), kind, GroupVersionKind::gvk(group, version, name), pointer));
    }
}

/// One of ours, or the webhook's, of which no more is known than whether it serves.
fn deployment(d: &Deployment, index: &SharedIndex) -> Option<Record> {
    let meta = &d.metadata;
    let key = (Word::from(meta.namespace.as_deref()?), Word::from(meta.name.as_deref()?));
    if index.lock().is_webhook(Kind::Deployment, &key) {
        let ready = d.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
        return Some(Record::Webhook(ready > 0 && meta.deletion_timestamp.is_none()));
    }
    DeploymentRecord::new(d).map(|d| Record::Deployment(Box::new(d)))
}

/// Keeps the set of opted-in namespaces.
async fn watch_namespaces(client: Client, sender: watch::Sender<BTreeSet<String>>, handle: Handle, stop: CancellationToken) {
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(client);
    let config = Config::default().labels(&format!("{LABEL_INJECTION}={INJECTION_ENABLED}"));
    let mut stream = Box::pin(watcher(api, config).default_backoff());
    let mut listed = BTreeSet::new();
    let mut handle = Some(handle);
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = stream.next() => event,
        };
        match event {
            None => return,
            Some(Err(error)) => tracing::warn!(%error, "watch of Namespaces"),
            Some(Ok(Event::Init)) => listed.clear(),
            Some(Ok(Event::InitApply(n))) => {
                listed.insert(n.name_any());
            }
            Some(Ok(Event::InitDone)) => {
                sender.send_if_modified(|now| std::mem::replace(now, listed.clone()) != listed);
                handle.take();
            }
            Some(Ok(Event::Apply(n))) => {
                sender.send_if_modified(|now| now.insert(n.name_any()));
            }
            Some(Ok(Event::Delete(n))) => {
                sender.send_if_modified(|now| now.remove(&n.name_any()));
            }
        }
    }
}

/// Watches a kind that may not exist, once it does.
async fn watch_optional(context: Context, kind: Kind, gvk: GroupVersionKind, pointer: &'static str) {
    let name = gvk.kind.clone();
    loop {
        if let Ok(list) = context.client.list_api_group_resources(&gvk.api_version()).await
            && let Some(found) = list.resources.iter().find(|r| r.kind == gvk.kind && !r.name.contains('/'))
        {
            let resource = ApiResource::from_gvk_with_plural(&gvk, &found.name);
            let api: Api<DynamicObject> = Api::all_with(context.client.clone(), &resource);
            tracing::info!(kind = name, "is installed; watched from now on");
            return follow(context, api, kind, None, move |o: &DynamicObject| {
                ForeignRecord::new(&name, &serde_json::to_value(o).ok()?, pointer).map(Record::Foreign)
            })
            .await;
        }
        tokio::select! {
            () = context.stop.cancelled() => return,
            () = tokio::time::sleep(OPTIONAL_EVERY) => {}
        }
    }
}

fn spawn<K>(context: &Context, api: Api<K>, kind: Kind, handle: Option<Handle>, record: impl Fn(&K) -> Option<Record> + Send + 'static)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    tokio::spawn(follow(context.clone(), api, kind, handle, record));
}

/// One kind, for ever. The list starts again whenever the opted-in namespaces change.
async fn follow<K>(mut context: Context, api: Api<K>, kind: Kind, mut handle: Option<Handle>, record: impl Fn(&K) -> Option<Record> + Send)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    loop {
        let namespaces = context.namespaces.borrow_and_update().clone();
        let config = Config::default();
        let mut stream = Box::pin(watcher(api.clone(), config).default_backoff());
        let mut seen: HashSet<ObjectKey> = HashSet::new();
        let mut failing: Option<Instant> = None;
        context.index.lock().listing(kind);
        loop {
            let event = tokio::select! {
                () = context.stop.cancelled() => return,
                changed = context.namespaces.changed(), if kind != Kind::Node => {
                    if changed.is_err() { return }
                    break;
                }
                () = calm(failing) => {
                    failing = None;
                    context.index.lock().failing(kind, false);
                    continue;
                }
                event = stream.next() => event,
            };
            let Some(event) = event else { break };
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    if failing.replace(Instant::now()).is_none() {
                        tracing::warn!(?kind, %error, "watch failed; it is tried again, and nothing is lowered meanwhile");
                        context.index.lock().failing(kind, true);
                    }
                    continue;
                }
            };
            if failing.take().is_some() {
                context.index.lock().failing(kind, false);
            }
            if matches!(event, Event::Init) {
                context.index.lock().listing(kind);
            }
            let touched = fold(&context.index, kind, &event, &namespaces, &mut seen, &record);
            if matches!(event, Event::InitDone) {
                context.index.lock().listed(kind, &namespaces);
                handle.take();
            }
            for id in touched {
                if context.inputs.send(Input::Changed(id)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Ends when a watch that failed then has been calm for long enough; never, if it did not fail.
async fn calm(failed: Option<Instant>) {
    match failed {
        Some(at) => tokio::time::sleep_until(at + CALM).await,
        None => std::future::pending().await,
    }
}

/// Folds one event into the index. Returns the workloads that it touches.
fn fold<K: Resource>(
    index: &SharedIndex,
    kind: Kind,
    event: &Event<K>,
    namespaces: &BTreeSet<String>,
    seen: &mut HashSet<ObjectKey>,
    record: &impl Fn(&K) -> Option<Record>,
) -> Vec<WorkloadId> {
    let word = |text: &Option<String>| Word::from(text.as_deref().unwrap_or_default());
    let key = |o: &K| (word(&o.meta().namespace), word(&o.meta().name));
    match event {
        Event::Init => {
            seen.clear();
            Vec::new()
        }
        Event::InitApply(object) | Event::Apply(object) => {
            let key = key(object);
            if kind != Kind::Node && !namespaces.contains(&*key.0) && !index.lock().is_webhook(kind, &key) {
                return Vec::new();
            }
            let Some(record) = record(object) else {
                return index.lock().delete(kind, &key).into_iter().collect();
            };
            if matches!(event, Event::InitApply(_)) {
                seen.insert(key);
            }
            index.lock().apply(kind, record).into_iter().collect()
        }
        Event::InitDone => {
            let touched = index.lock().retain(kind, seen);
            *seen = HashSet::new();
            touched
        }
        Event::Delete(object) => {
            let (key, mut index) = (key(object), index.lock());
            // A pod's last state says how it ended, and comes with its end alone when the watch is late.
            if kind == Kind::Pod
                && namespaces.contains(&*key.0)
                && let Some(record) = record(object)
            {
                index.apply(kind, record);
            }
            index.delete(kind, &key).into_iter().collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{deployment, orders, pod, put, replicaset, with};
    use serde_json::json;

    #[test]
    fn the_last_state_of_a_pod_is_kept_though_it_comes_with_the_pods_end() {
        let index = SharedIndex::default();
        [deployment(1, &[]), replicaset("orders-1", 1), pod("a")].iter().for_each(|object| drop(put(&mut index.lock(), object)));
        let ended = json!({"terminated": {"exitCode": 0, "containerID": "s1", "message": "last words"}});
        let last: Pod = serde_json::from_value(with(pod("a"), "/status/initContainerStatuses/0/state", ended)).unwrap();
        let record = |p: &Pod| PodRecord::new(p).map(|r| Record::Pod(Box::new(r)));
        let fold = |namespace: &str| {
            let namespaces = BTreeSet::from([namespace.to_owned()]);
            fold(&index, Kind::Pod, &Event::Delete(last.clone()), &namespaces, &mut HashSet::new(), &record)
        };
        assert_eq!(fold("shop"), [orders()]);
        let view = index.lock().view(&orders()).unwrap();
        assert_eq!((view.pods.len(), view.finished.len()), (0, 1));
        assert_eq!(view.finished[0].last_words.as_deref().map(|(_, words)| words.as_str()), Some("last words"));
        assert!(fold("elsewhere").is_empty(), "gone already, and not of a namespace that is ours");
    }

    #[test]
    fn the_webhook_s_deployment_is_followed_though_its_namespace_has_not_opted_in() {
        let index = SharedIndex::new(Index::default().with_webhook("qscaler-system"));
        put(&mut index.lock(), &deployment(1, &[]));
        let webhook = |ready: u32, ending: Option<&str>| -> Deployment {
            let metadata = json!({"namespace": "qscaler-system", "name": "qscaler-webhook", "deletionTimestamp": ending});
            let object = json!({"metadata": metadata, "spec": deployment(1, &[])["spec"], "status": {"readyReplicas": ready}});
            serde_json::from_value(object).unwrap()
        };
        let away = |event: Event<Deployment>| {
            let (namespaces, record) = (BTreeSet::from(["shop".to_owned()]), |d: &Deployment| super::deployment(d, &index));
            assert!(fold(&index, Kind::Deployment, &event, &namespaces, &mut HashSet::new(), &record).is_empty());
            index.lock().view(&orders()).unwrap().webhook_away
        };
        assert!(!away(Event::InitApply(webhook(1, None))) && away(Event::Apply(webhook(0, None))) && !away(Event::Apply(webhook(2, None))));
        assert!(
            away(Event::Apply(webhook(2, Some("2026-01-01T00:00:00Z"))))
                && !away(Event::Apply(webhook(1, None)))
                && away(Event::Delete(webhook(1, None)))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_fails_is_out_of_sync_until_it_brings_something() {
        let index = SharedIndex::default();
        put(&mut index.lock(), &deployment(1, &[]));
        crate::testing::in_sync(&mut index.lock());
        // What the index says of itself at each call: two that fail, the list, and the watch that follows it.
        let (told, seen) = (Arc::new(Mutex::new(Vec::new())), index.clone());
        let tells = Arc::clone(&told);
        let (client, _) = crate::testing::api_by(move |_| {
            let mut told = tells.lock().unwrap();
            told.push(seen.lock().view(&orders()).unwrap().out_of_sync);
            let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": [pod("a")]});
            if told.len() == 3 { (200, list) } else { crate::testing::refusal(503, "ServiceUnavailable", "away") }
        });
        let (inputs, mut heard) = mpsc::channel(16);
        let (_namespaces, namespaces) = watch::channel(BTreeSet::from(["shop".to_owned()]));
        let stop = CancellationToken::new();
        let context = Context { client: client.clone(), index: index.clone(), inputs, namespaces, stop: stop.clone() };
        put(&mut index.lock(), &replicaset("orders-1", 1));
        let task =
            tokio::spawn(follow(context, Api::<Pod>::all(client), Kind::Pod, None, |p: &Pod| PodRecord::new(p).map(|p| Record::Pod(Box::new(p)))));
        assert!(matches!(heard.recv().await, Some(Input::Changed(_))));
        while told.lock().unwrap().len() < 5 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        stop.cancel();
        task.await.unwrap();
        let told: Vec<bool> = told.lock().unwrap().iter().map(Option::is_some).collect();
        assert_eq!(told[..5], [true, true, true, false, true]);
    }
}
