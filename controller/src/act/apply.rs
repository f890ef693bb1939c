//! Performs lists of actions, and makes no choices but that what is refused takes down only what hangs on it. In: actions, the clients. Out: what was done and what failed. Left to others: what to do
//! (`workload`), when to try again (`run`). Every write says which version of the object it was decided from, or is harmless twice.

use crate::act::checkpoint;
use crate::act::events::Events;
use crate::act::known::Known;
use crate::act::plan::failure;
use crate::act::plan::{Action, Done, Failure, ListOutcome, Notice, PodRef};
use crate::lead::lease::Leadership;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use qscaler_api::QWorker;
use qscaler_broker::ControlSender;
use qscaler_core::message::ControlKind;
use qscaler_core::names::{MANAGER, event};
use qscaler_core::size::{ContainerResources, RefusalCause};
use qscaler_core::workload::{ControlAddress, WorkloadId, WorkloadUid};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// A broker that does not take a message within this is not there: the next look tries again.
const BROKER_TIMEOUT: Duration = Duration::from_secs(5);
/// An API server that does not answer within this is not there.
const API_TIMEOUT: Duration = Duration::from_secs(15);

/// The one who performs.
#[derive(Clone)]
pub struct Applier {
    client: Client,
    events: Events,
    leadership: Leadership,
}

/// For whom.
#[derive(Clone)]
pub struct Target {
    /// The workload.
    pub id: WorkloadId,
    /// UID of its Deployment.
    pub deployment_uid: WorkloadUid,
    /// Its QWorker as known.
    pub qworker: Known,
    /// Its control channel; None: not connected.
    pub control: Option<Arc<dyn ControlSender>>,
}

impl Target {
    /// Where its control messages go.
    fn address(&self) -> ControlAddress {
        ControlAddress::new(&self.id, &self.deployment_uid)
    }
}

impl Applier {
    /// Writes through this client, under this instance's name.
    #[must_use]
    pub fn new(client: Client, instance: &str, leadership: Leadership) -> Self {
        Self { events: Events::new(client.clone(), instance), client, leadership }
    }

    /// Does the actions. Those that hang on one another are done in order: a wave of drains with whatever is written to the QWorker, and the
    /// marks and messages of each pod. What is refused takes down only what hangs on it. Events come last, and only of what was done.
    pub async fn run(&self, target: &Target, actions: Vec<Action>) -> ListOutcome {
        let mut lanes: [Vec<Action>; 5] = Default::default();
        for action in actions {
            lanes[lane(&action)].push(action);
        }
        let [raises, qworker, pods, resizes, events] = lanes;
        let raises = self.each(target, raises);
        let saved = async {
            let mut outcome = self.in_order(target, qworker).await;
            // What is known is saved before it is used, if it can be saved.
            outcome.join(self.each(target, resizes).await);
            outcome
        };
        let (raised, mut outcome, pods) = futures::join!(raises, saved, self.each(target, pods));
        outcome.join(raised);
        outcome.join(pods);
        let undone = outcome.left.iter().any(|action| matches!(action, Action::Scale { .. }));
        let until = tokio::time::Instant::now() + API_TIMEOUT;
        for action in events.into_iter().filter(|action| !(undone && tells_of_scaling(action))) {
            let told = match &action {
                Action::Event(notice) if self.leadership.holds() => tokio::time::timeout_at(until, self.tell(target, notice)).await.is_ok(),
                _ => false,
            };
            if told { outcome.done.push((action, Done::Yes)) } else { outcome.left.push(action) }
        }
        outcome
    }

    /// One after the other, to the first that fails.
    async fn in_order(&self, target: &Target, actions: Vec<Action>) -> ListOutcome {
        let (mut outcome, mut known) = (ListOutcome::default(), target.qworker.clone());
        let mut wave_failed = false;
        for action in actions {
            // The status of a workload hangs on no message, only on the QWorker's version; what it remembers on nothing at all.
            let blocked = match action {
                Action::Status(_) => matches!(outcome.failed, Some(Failure::Changed { qworker: true } | Failure::Gone | Failure::NotLeader)),
                Action::Checkpoint(_) => false,
                _ => wave_failed,
            };
            if blocked {
                outcome.left.push(action);
                continue;
            }
            match self.timely(target, &mut known, &action).await {
                Ok(done) => outcome.done.push((action, done)),
                Err(failure) => {
                    wave_failed |= !matches!(action, Action::Status(_) | Action::Checkpoint(_));
                    outcome.fail(action, failure);
                }
            }
        }
        outcome.qworker_version = (known.version != target.qworker.version).then_some(known.version);
        outcome.checkpoint_version = (known.checkpoint != target.qworker.checkpoint).then_some(known.checkpoint);
        outcome
    }

    /// Each by itself; a message to a pod is not sent when its mark could not be written, and none once the broker has failed.
    async fn each(&self, target: &Target, actions: Vec<Action>) -> ListOutcome {
        let (mut outcome, mut known) = (ListOutcome::default(), Known::default());
        let (mut unmarked, mut mute) = (Vec::new(), false);
        for action in actions {
            let blocked = matches!(&action, Action::Publish(m) if mute || m.target.as_ref().is_some_and(|uid| unmarked.contains(uid)));
            if blocked {
                outcome.left.push(action);
                continue;
            }
            match self.timely(target, &mut known, &action).await {
                Ok(done) => outcome.done.push((action, done)),
                Err(failure) => {
                    mute |= matches!(action, Action::Publish(_));
                    if let Action::SetCost { pod, .. } = &action {
                        unmarked.push(pod.uid.clone());
                    }
                    outcome.fail(action, failure);
                }
            }
        }
        outcome
    }

    async fn timely(&self, target: &Target, known: &mut Known, action: &Action) -> Result<Done, Failure> {
        if !self.leadership.holds() {
            return Err(Failure::NotLeader);
        }
        let done = tokio::time::timeout(API_TIMEOUT, self.one(target, known, action)).await;
        done.unwrap_or_else(|_| Err(Failure::Other("no answer in time".to_owned())))
    }

    async fn one(&self, target: &Target, known: &mut Known, action: &Action) -> Result<Done, Failure> {
        let (namespace, name) = (target.id.namespace.as_str(), target.id.name.as_str());
        match action {
            Action::SaveIntent(intent) => self.status(target, &mut known.version, json!({ "intent": intent })).await?,
            Action::Status(patch) => self.status(target, &mut known.version, patch.clone()).await?,
            Action::Checkpoint(spec) => known.checkpoint = checkpoint::save(&self.client, &target.id, known, spec).await?,
            Action::Scale { resource_version, to, .. } => {
                let metadata = ObjectMeta {
                    name: Some(name.to_owned()),
                    namespace: Some(namespace.to_owned()),
                    uid: Some(target.deployment_uid.to_string()),
                    resource_version: Some(resource_version.clone()),
                    ..ObjectMeta::default()
                };
                let replicas = Some(i32::try_from(*to).unwrap_or(i32::MAX));
                let scale = Scale { metadata, spec: Some(ScaleSpec { replicas }), status: None };
                let api: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
                let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
                api.replace_scale(name, &params, &scale).await.map_err(|e| failure(&e, false))?;
            }
            Action::SetCost { pod, patch, .. } | Action::Mark { pod, patch } => self.annotate(namespace, pod, json!(patch)).await?,
            Action::Publish(message) => {
                broker(target.control.as_ref(), |control| async move { control.publish(&target.address(), message).await }).await?;
            }
            Action::Purge => broker(target.control.as_ref(), |control| async move { control.purge(&target.address()).await }).await?,
            Action::Resize { pod, container, from, to, .. } => return self.resize(namespace, pod, container, from, to).await,
            Action::Event(notice) => self.tell(target, notice).await,
        }
        Ok(Done::Yes)
    }

    async fn status(&self, target: &Target, version: &mut String, status: Value) -> Result<(), Failure> {
        let api: Api<QWorker> = Api::namespaced(self.client.clone(), &target.id.namespace);
        let patch = json!({ "metadata": { "resourceVersion": version }, "status": status });
        let written = api.patch_status(&target.id.name, &manager(), &Patch::Merge(patch)).await.map_err(|e| failure(&e, true))?;
        *version = written.resource_version().unwrap_or_default();
        Ok(())
    }

    async fn annotate(&self, namespace: &str, pod: &PodRef, annotations: Value) -> Result<(), Failure> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let metadata = json!({ "uid": pod.uid, "resourceVersion": pod.resource_version, "annotations": annotations });
        api.patch(&pod.name, &manager(), &Patch::Merge(json!({ "metadata": metadata }))).await.map_err(|e| failure(&e, false))?;
        Ok(())
    }

    /// A strategic merge patch: containers are a list merged by name, which a plain merge patch would replace and the API refuse.
    async fn resize(
        &self,
        namespace: &str,
        pod: &PodRef,
        container: &str,
        from: &ContainerResources,
        to: &ContainerResources,
    ) -> Result<Done, Failure> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let containers = json!([{ "name": container, "resources": resources(from, to) }]);
        let metadata = json!({ "uid": pod.uid, "resourceVersion": pod.resource_version });
        let patch = json!({ "metadata": metadata, "spec": { "containers": containers } });
        match api.patch_resize(&pod.name, &manager(), &Patch::Strategic(patch)).await {
            Ok(_) => Ok(Done::Yes),
            Err(kube::Error::Api(status)) if status.code == 409 => Err(Failure::Changed { qworker: false }),
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => Ok(Done::Refused(cause(&status), status.message.clone())),
            Err(error) => Err(failure(&error, false)),
        }
    }

    /// An Event that cannot be written is logged and no reason to stop.
    async fn tell(&self, target: &Target, notice: &Notice) {
        let (api_version, kind, name, uid) = match &notice.pod {
            Some(pod) => ("v1", "Pod", &pod.name, pod.uid.as_str()),
            None => ("apps/v1", "Deployment", &target.id.name, target.deployment_uid.as_str()),
        };
        let about = ObjectReference {
            api_version: Some(api_version.to_owned()),
            kind: Some(kind.to_owned()),
            namespace: Some(target.id.namespace.clone()),
            name: Some(name.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        tracing::info!(workload = %target.id, reason = notice.reason, note = notice.note, "told");
        if let Err(error) = self.events.tell(notice, &about).await {
            tracing::warn!(workload = %target.id, %error, "an Event could not be written");
        }
    }
}

/// Who is done after whom: raises; what is written to the QWorker, and the waves that hang on it; pods' marks and messages; sizes; Events.
fn lane(action: &Action) -> usize {
    match action {
        Action::Scale { from, to, .. } if to > from => 0,
        Action::SaveIntent(_) | Action::Purge | Action::Checkpoint(_) | Action::Status(_) | Action::Scale { .. } => 1,
        Action::Publish(message) if message.kind == ControlKind::SigkillQueue => 1,
        Action::SetCost { .. } | Action::Mark { .. } | Action::Publish(_) => 2,
        Action::Resize { .. } => 3,
        Action::Event(_) => 4,
    }
}

pub(crate) fn tells_of_scaling(action: &Action) -> bool {
    matches!(action, Action::Event(notice) if [event::SCALED_UP, event::SCALED_DOWN].contains(&notice.reason))
}

async fn broker<F, R>(control: Option<&Arc<dyn ControlSender>>, call: F) -> Result<(), Failure>
where
    F: FnOnce(Arc<dyn ControlSender>) -> R,
    R: Future<Output = Result<(), qscaler_broker::BrokerError>>,
{
    let control = control.ok_or_else(|| Failure::Other("the control channel is not connected".to_owned()))?;
    match tokio::time::timeout(BROKER_TIMEOUT, call(Arc::clone(control))).await {
        Ok(done) => done.map_err(|e| Failure::Other(e.to_string())),
        Err(_) => Err(Failure::Other("the control broker does not answer".to_owned())),
    }
}

fn manager() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

fn cause(status: &kube::core::Status) -> RefusalCause {
    let says = |word: &str| status.message.to_lowercase().contains(word);
    let node = status.details.as_ref().is_some_and(|d| d.causes.iter().any(|c| c.reason == "NodeCapacity"));
    match status.code {
        403 if node => RefusalCause::NodeCapacity,
        403 if says("quota") => RefusalCause::Quota,
        403 if says("limitrange") || says("usage per") => RefusalCause::LimitRange,
        404 | 405 => RefusalCause::NoSubresource,
        422 if says("decrease") => RefusalCause::Decrease,
        _ => RefusalCause::Other,
    }
}

/// Requests and limits that differ; removing one is not possible in a resize, so it is not tried.
fn resources(from: &ContainerResources, to: &ContainerResources) -> Value {
    let mut out = json!({});
    let mut put = |list: &str, resource: &str, before: Option<u64>, after: Option<u64>, unit: &str| {
        if let Some(value) = after.filter(|_| after != before) {
            out[list][resource] = Value::String(format!("{value}{unit}"));
        }
    };
    put("requests", "memory", from.memory_request, to.memory_request, "");
    put("limits", "memory", from.memory_limit, to.memory_limit, "");
    put("requests", "cpu", from.cpu_request_m, to.cpu_request_m, "m");
    put("limits", "cpu", from.cpu_limit_m, to.cpu_limit_m, "m");
    out
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
