//! What is known of the cluster, as compact records. In: records as they are applied and deleted by the watches. Out: one view per workload, and
//! which workloads a change touches. Left to others: watching (`watch`), judging (`facts`).

use crate::observe::record::{
    CreateFailure, DeploymentRecord, ForeignRecord, LimitRecord, NodeRecord, PodRecord, QuotaRecord, ReplicaSetRecord, Word,
};
use qscaler_core::names::WEBHOOK_DEPLOYMENT;
use qscaler_core::workload::{WorkloadId, WorkloadUid};
use qscaler_inject::{Limits, Settings};
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

/// What a watch brings.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A Deployment with annotations of ours.
    Deployment(Box<DeploymentRecord>),
    /// A ReplicaSet.
    ReplicaSet(ReplicaSetRecord),
    /// A pod.
    Pod(Box<PodRecord>),
    /// A QWorker: its namespace and name.
    QWorker(WorkloadId),
    /// Another writer of replicas or sizes; the kind says which.
    Foreign(ForeignRecord),
    /// A node.
    Node(NodeRecord),
    /// Bounds of sizes in a namespace.
    Limit(LimitRecord),
    /// What a namespace may use.
    Quota(QuotaRecord),
    /// The webhook's Deployment: whether one of its replicas is ready.
    Webhook(bool),
}

/// The kind of a record: what one watch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Kind {
    Deployment,
    ReplicaSet,
    Pod,
    QWorker,
    Hpa,
    ScaledObject,
    Vpa,
    Node,
    LimitRange,
    ResourceQuota,
}

/// A pod that is gone is remembered through so many calls of [`Index::tidy`]: what its sidecar said last may still lie in a broker that cannot be
/// reached. With one call every ten seconds that is five minutes, longer than a broker is away for.
const GONE_TIDIES: u64 = 30;

/// The key of an object within its kind: namespace (empty for nodes) and name.
pub type ObjectKey = (Word, Word);

/// All that is known.
#[derive(Debug, Default)]
pub struct Index {
    deployments: BTreeMap<ObjectKey, Arc<DeploymentRecord>>,
    replicasets: HashMap<ObjectKey, ReplicaSetRecord>,
    /// By UID.
    by_uid: HashMap<WorkloadUid, WorkloadId>,
    /// By the Deployment's UID.
    replicasets_of: HashMap<WorkloadUid, BTreeSet<ObjectKey>>,
    /// A ReplicaSet's UID to its Deployment's.
    owner_of: HashMap<String, WorkloadUid>,
    pods: HashMap<ObjectKey, Arc<PodRecord>>,
    /// By the ReplicaSet's UID.
    pods_of: HashMap<Word, BTreeSet<ObjectKey>>,
    /// Pods that are gone, by the ReplicaSet's UID, each with the call of `tidy` since which it is.
    gone_of: HashMap<Word, Vec<(u64, Arc<PodRecord>)>>,
    tidies: u64,
    qworkers: BTreeSet<ObjectKey>,
    foreign: HashMap<(Kind, ObjectKey), ForeignRecord>,
    /// By the target's key.
    foreign_of: HashMap<ObjectKey, BTreeSet<(Kind, ObjectKey)>>,
    limits: BTreeMap<ObjectKey, LimitRecord>,
    quotas: BTreeMap<ObjectKey, QuotaRecord>,
    sidecar: Arc<Settings>,
    /// Where the webhook's Deployment is, and whether one of its replicas is ready; None: nobody has said where.
    webhook: Option<(ObjectKey, bool)>,
    nodes: HashMap<String, NodeRecord>,
    words: Words,
    /// The namespaces that the last whole list of each kind covered; a kind that is being listed is not here.
    listed: HashMap<Kind, BTreeSet<String>>,
    /// Kinds whose watch fails: what has changed since is not known.
    failing: BTreeSet<Kind>,
}

/// What a decrement hangs on: who is there, who else scales, and which nodes are being emptied.
const DECISIVE: &[(Kind, &str)] = &[
    (Kind::Deployment, "Deployments"),
    (Kind::ReplicaSet, "ReplicaSets"),
    (Kind::Pod, "Pods"),
    (Kind::Hpa, "HorizontalPodAutoscalers"),
    (Kind::Node, "Nodes"),
];

/// Texts that many pods share: namespaces, nodes, ReplicaSets, templates, containers.
#[derive(Debug, Default)]
struct Words(HashSet<Word>);

impl Words {
    fn share(&mut self, pod: &mut PodRecord) {
        let all = [&mut pod.namespace, &mut pod.replicaset_uid, &mut pod.template_hash];
        for word in all.into_iter().chain(pod.node.as_mut()).chain(pod.containers.iter_mut().map(|c| &mut c.name)) {
            match self.0.get(word) {
                Some(known) => word.clone_from(known),
                None => {
                    self.0.insert(Word::clone(word));
                }
            }
        }
    }
}

/// One workload as the index knows it.
#[derive(Clone, Debug)]
pub struct View {
    /// The Deployment.
    pub deployment: Arc<DeploymentRecord>,
    /// Its pods that are not over, terminating ones too, sorted by name.
    pub pods: Vec<Arc<PodRecord>>,
    /// Its pods that are over, those lately gone too: their last words are still to be read.
    pub finished: Vec<Arc<PodRecord>>,
    /// ReplicaSets that have or want pods.
    pub sets: Vec<ReplicaSetRecord>,
    /// `readyReplicas` of those.
    pub ready_replicas: u32,
    /// Why the API server refuses pods of those; None: it does not.
    pub failure: Option<Arc<CreateFailure>>,
    /// Other writers of the replicas, as `Kind name`.
    pub scalers: Vec<String>,
    /// Another writer of the sizes, as `Kind name`.
    pub sizer: Option<String>,
    /// Nodes of its pods that take no more pods.
    pub cordoned: BTreeSet<Word>,
    /// LimitRanges of its namespace.
    pub limits: Vec<LimitRecord>,
    /// ResourceQuotas on memory of its namespace.
    pub quotas: Vec<QuotaRecord>,
    /// What new sidecars are like, as far as this process was told.
    pub sidecar: Arc<Settings>,
    /// No replica of the webhook is ready, so that a new pod would have no sidecar.
    pub webhook_away: bool,
    /// Why this may be an incomplete picture, in words that follow "because"; None: every watch behind it is in sync.
    pub out_of_sync: Option<String>,
}

impl View {
    /// Why the webhook will not inject the next pods, in its own words; None: it will.
    #[must_use]
    pub fn refusal(&self) -> Option<Arc<str>> {
        let least = |pick: fn(&LimitRecord) -> Option<u64>| self.limits.iter().filter_map(pick).min();
        let allowed = Limits { pod_memory_max: least(|l| l.pod_max), pod_cpu_max: least(|l| l.pod_cpu_max_m), ..Limits::default() };
        let no_room = || self.deployment.size.refusal(&self.sidecar, &allowed).map(|refusal| refusal.sentences().join("; ").into());
        // A workload with a mistake is not ours to inject, and says so itself.
        self.deployment.refusal.clone().or_else(|| self.deployment.config.is_ok().then(no_room)?)
    }
}

fn id(key: &ObjectKey) -> WorkloadId {
    WorkloadId { namespace: key.0.to_string(), name: key.1.to_string() }
}

fn key(id: &WorkloadId) -> ObjectKey {
    pair(&id.namespace, &id.name)
}

fn pair(namespace: &str, name: &str) -> ObjectKey {
    (namespace.into(), name.into())
}

impl Index {
    /// The same, in an installation whose sidecars are like this.
    #[must_use]
    pub fn with_sidecar(self, settings: Settings) -> Self {
        Self { sidecar: settings.into(), ..self }
    }

    /// The same, where the webhook's Deployment is in this namespace.
    #[must_use]
    pub fn with_webhook(self, namespace: &str) -> Self {
        Self { webhook: Some((pair(namespace, WEBHOOK_DEPLOYMENT), false)), ..self }
    }

    /// Whether this is the webhook's Deployment.
    #[must_use]
    pub fn is_webhook(&self, kind: Kind, key: &ObjectKey) -> bool {
        kind == Kind::Deployment && self.webhook.as_ref().is_some_and(|(its, _)| its == key)
    }

    fn webhook_is(&mut self, now: bool) {
        if let Some((_, ready)) = self.webhook.as_mut() {
            *ready = now;
        }
    }

    /// Takes a record in. Returns the workload that it touches, if one does.
    pub fn apply(&mut self, kind: Kind, record: Record) -> Option<WorkloadId> {
        match record {
            Record::Deployment(d) => {
                let id = d.id.clone();
                self.delete(Kind::Deployment, &key(&id));
                self.by_uid.insert(d.uid.clone(), id.clone());
                self.deployments.insert(key(&id), d.into());
                Some(id)
            }
            Record::ReplicaSet(r) => {
                let key = pair(&r.namespace, &r.name);
                self.unlink_replicaset(&key);
                self.replicasets_of.entry(r.deployment_uid.clone()).or_default().insert(key.clone());
                self.owner_of.insert(r.uid.clone(), r.deployment_uid.clone());
                let id = self.by_uid.get(&r.deployment_uid).cloned();
                self.replicasets.insert(key, r);
                id
            }
            Record::Pod(mut p) => {
                self.words.share(&mut p);
                let key = (p.namespace.clone(), p.name.clone());
                self.unlink_pod(&key);
                self.pods_of.entry(p.replicaset_uid.clone()).or_default().insert(key.clone());
                let id = self.workload_of_pod(&p);
                self.pods.insert(key, Arc::from(p));
                id
            }
            Record::QWorker(id) => {
                self.qworkers.insert(key(&id));
                Some(id)
            }
            Record::Foreign(f) => {
                let (own, target) = ((kind, pair(&f.namespace, &f.name)), pair(&f.namespace, &f.deployment));
                self.unlink_foreign(&own);
                self.foreign_of.entry(target.clone()).or_default().insert(own.clone());
                self.foreign.insert(own, f);
                Some(id(&target))
            }
            Record::Node(node) => {
                self.nodes.insert(node.name.clone(), node);
                None
            }
            Record::Limit(limit) => {
                self.limits.insert(pair(&limit.namespace, &limit.name), limit);
                None
            }
            Record::Quota(quota) => {
                self.quotas.insert(pair(&quota.namespace, &quota.name), quota);
                None
            }
            Record::Webhook(ready) => {
                self.webhook_is(ready);
                None
            }
        }
    }

    /// Forgets an object. Returns the workload that it touched, if one did.
    pub fn delete(&mut self, kind: Kind, gone: &ObjectKey) -> Option<WorkloadId> {
        if self.is_webhook(kind, gone) {
            self.webhook_is(false);
        }
        match kind {
            Kind::Deployment => {
                let record = self.deployments.remove(gone)?;
                self.by_uid.remove(&record.uid)
            }
            Kind::ReplicaSet => {
                self.unlink_replicaset(gone);
                let record = self.replicasets.remove(gone)?;
                self.by_uid.get(&record.deployment_uid).cloned()
            }
            Kind::Pod => {
                self.unlink_pod(gone);
                let record = self.pods.remove(gone)?;
                let id = self.workload_of_pod(&record)?;
                self.gone_of.entry(record.replicaset_uid.clone()).or_default().push((self.tidies, record));
                Some(id)
            }
            Kind::QWorker => self.qworkers.remove(gone).then(|| id(gone)),
            Kind::Hpa | Kind::ScaledObject | Kind::Vpa => {
                let own = (kind, gone.clone());
                self.unlink_foreign(&own);
                let record = self.foreign.remove(&own)?;
                Some(WorkloadId { namespace: record.namespace, name: record.deployment })
            }
            Kind::Node => {
                self.nodes.remove(&*gone.1);
                None
            }
            Kind::LimitRange => {
                self.limits.remove(gone);
                None
            }
            Kind::ResourceQuota => {
                self.quotas.remove(gone);
                None
            }
        }
    }

    /// A list has ended: objects of this kind that were not in it are gone. Returns the workloads that they touched.
    pub fn retain(&mut self, kind: Kind, seen: &HashSet<ObjectKey>) -> Vec<WorkloadId> {
        let all: Vec<ObjectKey> = match kind {
            Kind::Deployment => self.deployments.keys().chain(self.webhook.as_ref().map(|(key, _)| key)).cloned().collect(),
            Kind::ReplicaSet => self.replicasets.keys().cloned().collect(),
            Kind::Pod => self.pods.keys().cloned().collect(),
            Kind::QWorker => self.qworkers.iter().cloned().collect(),
            Kind::Hpa | Kind::ScaledObject | Kind::Vpa => self.foreign.keys().filter(|(k, _)| *k == kind).map(|(_, key)| key.clone()).collect(),
            Kind::LimitRange => self.limits.keys().cloned().collect(),
            Kind::ResourceQuota => self.quotas.keys().cloned().collect(),
            Kind::Node => self.nodes.keys().map(|name| pair("", name)).collect(),
        };
        all.iter().filter(|key| !seen.contains(*key)).filter_map(|key| self.delete(kind, key)).collect()
    }

    /// A kind is being listed: until that has ended nothing that is missing is known to be absent.
    pub fn listing(&mut self, kind: Kind) {
        self.listed.remove(&kind);
    }

    /// A list has ended, and was of these namespaces (all that are opted in).
    pub fn listed(&mut self, kind: Kind, namespaces: &BTreeSet<String>) {
        self.listed.insert(kind, namespaces.clone());
    }

    /// The watch of a kind fails, or works again.
    pub fn failing(&mut self, kind: Kind, fails: bool) {
        if fails {
            self.failing.insert(kind)
        } else {
            self.failing.remove(&kind)
        };
    }

    /// Why what is known of this namespace may be incomplete.
    fn out_of_sync(&self, namespace: &str) -> Option<String> {
        let covered = |kind: Kind| self.listed.get(&kind).is_some_and(|all| kind == Kind::Node || all.contains(namespace));
        DECISIVE.iter().find_map(|(kind, name)| {
            if !covered(*kind) {
                return Some(format!("the {name} of this namespace are not listed yet"));
            }
            self.failing.contains(kind).then(|| format!("the watch of {name} fails"))
        })
    }

    /// Forgets pods that are gone since long, and texts that no pod has any more. To be called every ten seconds.
    pub fn tidy(&mut self) {
        self.tidies += 1;
        let oldest = self.tidies.saturating_sub(GONE_TIDIES);
        self.gone_of.retain(|_, pods| {
            pods.retain(|(since, _)| *since >= oldest);
            !pods.is_empty()
        });
        self.words.0.retain(|word| Arc::strong_count(word) > 1);
    }

    /// Every workload that carries annotations of ours.
    #[must_use]
    pub fn workloads(&self) -> Vec<WorkloadId> {
        self.deployments.keys().map(id).collect()
    }

    /// QWorkers without such a workload.
    #[must_use]
    pub fn orphans(&self) -> Vec<WorkloadId> {
        self.qworkers.iter().filter(|key| !self.deployments.contains_key(*key)).map(id).collect()
    }

    /// Whether the workload's QWorker is there.
    #[must_use]
    pub fn has_qworker(&self, workload: &WorkloadId) -> bool {
        self.qworkers.contains(&key(workload))
    }

    /// Memory in bytes and CPU in millicores of the largest nodes; None: no node is known.
    #[must_use]
    pub fn largest_node(&self) -> (Option<u64>, Option<u64>) {
        (self.nodes.values().filter_map(|n| n.memory_bytes).max(), self.nodes.values().filter_map(|n| n.cpu_m).max())
    }

    /// What is known of one workload; None when it is not ours (any more).
    #[must_use]
    pub fn view(&self, workload: &WorkloadId) -> Option<View> {
        let deployment = Arc::clone(self.deployments.get(&key(workload))?);
        let sets: Vec<&ReplicaSetRecord> =
            self.replicasets_of.get(&deployment.uid).into_iter().flatten().filter_map(|key| self.replicasets.get(key)).collect();
        let keys = sets.iter().filter_map(|set| self.pods_of.get(set.uid.as_str())).flatten();
        let gone = sets.iter().filter_map(|set| self.gone_of.get(set.uid.as_str())).flatten().map(|(_, pod)| Arc::clone(pod));
        let mut pods: Vec<Arc<PodRecord>> = keys.filter_map(|key| self.pods.get(key)).cloned().collect();
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        let (mut finished, pods): (Vec<_>, Vec<_>) = pods.into_iter().partition(|p| p.is_finished());
        finished.extend(gone);
        let active: Vec<_> = sets.into_iter().filter(|set| set.is_active()).cloned().collect();
        let cordoned = pods.iter().filter_map(|p| p.node.as_ref()).filter(|n| self.nodes.get(&***n).is_some_and(|n| n.cordoned)).cloned().collect();
        let others = self.foreign_of.get(&key(workload)).into_iter().flatten();
        let (sizers, scalers): (Vec<_>, Vec<_>) = others.partition(|(kind, _)| *kind == Kind::Vpa);
        let name = |own: &(Kind, ObjectKey)| self.foreign.get(own).map(|f| format!("{} {}", f.kind, f.name));
        let from = pair(&workload.namespace, "");
        Some(View {
            deployment,
            pods,
            finished,
            ready_replicas: active.iter().map(|set| set.ready_replicas).sum(),
            failure: active.iter().find_map(|set| set.failure.clone()),
            sets: active,
            scalers: scalers.into_iter().filter_map(name).collect(),
            sizer: sizers.into_iter().find_map(name),
            cordoned,
            limits: self.limits.range(from.clone()..).take_while(|(k, _)| *k.0 == *workload.namespace).map(|(_, l)| l.clone()).collect(),
            webhook_away: self.webhook.as_ref().is_some_and(|(_, ready)| !ready),
            out_of_sync: self.out_of_sync(&workload.namespace),
            sidecar: Arc::clone(&self.sidecar),
            quotas: self.quotas.range(from..).take_while(|(k, _)| *k.0 == *workload.namespace).map(|(_, q)| q.clone()).collect(),
        })
    }

    fn workload_of_pod(&self, pod: &PodRecord) -> Option<WorkloadId> {
        self.by_uid.get(self.owner_of.get(&*pod.replicaset_uid)?).cloned()
    }

    fn unlink_foreign(&mut self, own: &(Kind, ObjectKey)) {
        if let Some(old) = self.foreign.get(own) {
            let target = pair(&old.namespace, &old.deployment);
            if let Some(set) = self.foreign_of.get_mut(&target) {
                set.remove(own);
                if set.is_empty() {
                    self.foreign_of.remove(&target);
                }
            }
        }
    }

    fn unlink_replicaset(&mut self, key: &ObjectKey) {
        if let Some(old) = self.replicasets.get(key) {
            remove_from(&mut self.replicasets_of, old.deployment_uid.as_str(), key);
            self.owner_of.remove(&old.uid);
        }
    }

    fn unlink_pod(&mut self, key: &ObjectKey) {
        if let Some(old) = self.pods.get(key) {
            remove_from(&mut self.pods_of, &old.replicaset_uid, key);
        }
    }
}

fn remove_from<K: Borrow<str> + Eq + Hash>(map: &mut HashMap<K, BTreeSet<ObjectKey>>, uid: &str, key: &ObjectKey) {
    if let Some(set) = map.get_mut(uid) {
        set.remove(key);
        if set.is_empty() {
            map.remove(uid);
        }
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
