//! A watch on the workers' pods. In: the API server. Out: of each pod, when it was asked to leave, when it was marked as parked, and how often its sidecar
//! was lost. Left to others: what that proves (`strike`, `cell`).

use super::now;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use qscaler_core::drain::fleet::PARKED_COST;
use qscaler_core::names::annotation::POD_DELETION_COST;
use qscaler_core::names::sidecar::CONTAINER as SIDECAR;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::JoinHandle;

/// What a process that was killed by SIGKILL leaves as its exit code.
const KILLED: i32 = 137;

/// What was seen of one pod.
#[derive(Clone, Debug)]
pub struct Seen {
    /// As it was last seen.
    pub pod: Pod,
    /// When its deletion was asked for, seconds since the Unix epoch, rounded down to a whole second by the API.
    pub asked_at: Option<f64>,
    /// When it was first seen with the mark of a parked pod.
    pub marked_at: Option<f64>,
    /// When its sidecar was first seen to have been killed.
    pub sidecar_killed_at: Option<f64>,
    /// The object is gone.
    pub gone: bool,
}

impl Seen {
    /// Has the mark of a parked pod now and is not ending.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        !self.gone && self.pod.metadata.deletion_timestamp.is_none() && is_marked(&self.pod)
    }

    /// The sidecar's state, if the pod has one.
    #[must_use]
    pub fn sidecar(&self) -> Option<&ContainerStatus> {
        status_of(&self.pod, SIDECAR)
    }

    /// Carries the sidecar.
    #[must_use]
    pub fn is_injected(&self) -> bool {
        self.pod.spec.as_ref().and_then(|s| s.init_containers.as_ref()).is_some_and(|all| all.iter().any(|c| c.name == SIDECAR))
    }
}

/// Pods by namespace and name.
type Pods = BTreeMap<(String, String), Seen>;

/// The watch. It ends when dropped.
pub struct Observer {
    pods: Arc<Mutex<Pods>>,
    task: JoinHandle<()>,
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Observer {
    /// Watches all pods with this label.
    #[must_use]
    pub fn start(client: kube::Client, label: &str) -> Self {
        let pods: Arc<Mutex<Pods>> = Arc::default();
        let kept = Arc::clone(&pods);
        let config = watcher::Config::default().labels(label);
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(Api::<Pod>::all(client), config).default_backoff());
            loop {
                match events.try_next().await {
                    Ok(Some(Event::Apply(pod) | Event::InitApply(pod))) => note(&kept, pod, false),
                    Ok(Some(Event::Delete(pod))) => note(&kept, pod, true),
                    Ok(Some(Event::Init | Event::InitDone)) => {}
                    // It lists again by itself, after a pause.
                    Err(_) => {}
                    Ok(None) => return,
                }
            }
        });
        Self { pods, task }
    }

    fn lock(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every pod that was ever seen in this namespace.
    #[must_use]
    pub fn of(&self, namespace: &str) -> Vec<Seen> {
        self.lock().iter().filter(|((ns, _), _)| ns == namespace).map(|(_, seen)| seen.clone()).collect()
    }

    /// One pod.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Seen> {
        self.lock().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }
}

fn note(pods: &Mutex<Pods>, pod: Pod, gone: bool) {
    let key = (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default());
    let mut pods = pods.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = pods.entry(key).or_insert_with(|| Seen { pod: pod.clone(), asked_at: None, marked_at: None, sidecar_killed_at: None, gone: false });
    // The first word counts: the kubelet ends a deletion by one more, without grace.
    seen.asked_at = seen.asked_at.or_else(|| asked_at(&pod));
    if is_marked(&pod) {
        seen.marked_at.get_or_insert_with(now);
    }
    if status_of(&pod, SIDECAR).is_some_and(was_killed) {
        seen.sidecar_killed_at.get_or_insert_with(now);
    }
    (seen.pod, seen.gone) = (pod, gone);
}

/// The timestamp lies the grace after the request.
fn asked_at(pod: &Pod) -> Option<f64> {
    let ends = pod.metadata.deletion_timestamp.as_ref()?.0.as_second();
    Some((ends - pod.metadata.deletion_grace_period_seconds.unwrap_or(0)) as f64)
}

fn is_marked(pod: &Pod) -> bool {
    let cost = pod.metadata.annotations.as_ref().and_then(|all| all.get(POD_DELETION_COST));
    cost.is_some_and(|cost| *cost == PARKED_COST.to_string())
}

/// The state of a container, plain or sidecar.
#[must_use]
pub fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let both = [&status.container_statuses, &status.init_container_statuses];
    both.into_iter().flatten().flatten().find(|c| c.name == container)
}

fn was_killed(container: &ContainerStatus) -> bool {
    let states = [&container.state, &container.last_state];
    states.into_iter().flatten().any(|state| state.terminated.as_ref().is_some_and(|end| end.exit_code == KILLED))
}
