//! Fixtures: objects as the API server gives them, an index filled with them, and an API server that answers by a script.

pub(crate) mod look;

use crate::observe::index::{Index, Kind, Record, View};
use crate::observe::record::{DeploymentRecord, ForeignRecord, LimitRecord, NodeRecord, PodRecord, QuotaRecord, ReplicaSetRecord};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use qscaler_core::message::{AccessLevel, Busy, Epoch, PodMs, Report, VERSION, WorkerState};
use qscaler_core::workload::WorkloadId;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

/// A round time: fixtures count from here.
pub(crate) const T0_MS: u64 = 1_800_000_000_000;

/// `T0_MS` plus this, as Kubernetes writes it.
pub(crate) fn stamp(after_ms: i64) -> String {
    let at = i64::try_from(T0_MS).unwrap() + after_ms;
    k8s_openapi::jiff::Timestamp::from_second(at / 1000).unwrap().to_string()
}

pub(crate) fn orders() -> WorkloadId {
    WorkloadId { namespace: "shop".into(), name: "orders".into() }
}

/// The Deployment `shop/orders` with these annotations on top of the required ones.
pub(crate) fn deployment(replicas: u32, annotations: &[(&str, &str)]) -> Value {
    let mut all = serde_json::Map::new();
    for (key, value) in [("queue", "orders"), ("broker", "env:URL"), ("max-replicas", "20"), ("worker", "celery")].iter().chain(annotations) {
        all.insert(format!("qscaler.dev/{key}"), json!(value));
    }
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": "shop", "name": "orders", "uid": "dep", "resourceVersion": "100", "generation": 3, "annotations": all},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "orders"}},
            "template": {"metadata": {"labels": {"app": "orders"}}, "spec": {"containers": [
                {"name": "worker", "image": "w", "env": [{"name": "URL", "value": "redis://r/0"}], "resources": {"limits": {"memory": "96Mi"}, "requests": {"memory": "96Mi", "cpu": "100m"}}},
                {"name": "log", "image": "l", "resources": {"requests": {"memory": "16Mi"}}}
            ]}}
        },
        "status": {"observedGeneration": 3, "replicas": replicas, "readyReplicas": replicas}
    })
}

pub(crate) fn replicaset(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"), "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": "orders", "uid": "dep", "controller": true}]},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "orders"}}},
        "status": {"replicas": replicas, "readyReplicas": replicas}
    })
}

/// A Ready, injected pod of the ReplicaSet `orders-1`, created a minute before `T0_MS`.
pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"), "resourceVersion": "7", "generation": 1,
            "creationTimestamp": stamp(-60_000), "labels": {"pod-template-hash": "1"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-1", "uid": "uid-orders-1", "controller": true}]},
        "spec": {
            "nodeName": "n1",
            "initContainers": [{"name": "qscaler-sidecar", "image": "s", "restartPolicy": "Always"}],
            "containers": [{"name": "worker", "image": "w", "resources": {"limits": {"memory": "96Mi"}, "requests": {"memory": "96Mi", "cpu": "100m"}}}]
        },
        "status": {
            "phase": "Running", "qosClass": "Burstable", "startTime": stamp(-60_000),
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": stamp(-50_000)}, {"type": "PodScheduled", "status": "True"}],
            "initContainerStatuses": [{"name": "qscaler-sidecar", "image": "s", "imageID": "", "ready": true, "started": true, "restartCount": 0,
                "state": {"running": {"startedAt": stamp(-60_000)}}}],
            "containerStatuses": [{"name": "worker", "image": "w", "imageID": "", "ready": true, "restartCount": 0,
                "resources": {"limits": {"memory": "96Mi"}, "requests": {"memory": "96Mi", "cpu": "100m"}}, "state": {"running": {}}}]
        }
    })
}

/// The pod with another value at `pointer`.
pub(crate) fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = if parent.is_empty() { &mut object } else { object.pointer_mut(parent).unwrap() };
    match parent {
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        other => other[key] = value,
    }
    object
}

pub(crate) fn pod_record(value: &Value) -> PodRecord {
    PodRecord::new(&serde_json::from_value(value.clone()).unwrap()).unwrap()
}

pub(crate) fn deployment_record(value: &Value) -> Option<DeploymentRecord> {
    DeploymentRecord::new(&serde_json::from_value(value.clone()).unwrap())
}

/// Folds an object into the index, as its watch would.
pub(crate) fn put(index: &mut Index, object: &Value) -> Option<WorkloadId> {
    let from = object.clone();
    match object["kind"].as_str().unwrap() {
        "Deployment" => index.apply(Kind::Deployment, Record::Deployment(Box::new(deployment_record(object).unwrap()))),
        "ReplicaSet" => index.apply(Kind::ReplicaSet, Record::ReplicaSet(ReplicaSetRecord::new(&serde_json::from_value(from).unwrap()).unwrap())),
        "Pod" => index.apply(Kind::Pod, Record::Pod(Box::new(pod_record(object)))),
        "Node" => index.apply(Kind::Node, Record::Node(NodeRecord::new(&serde_json::from_value(from).unwrap()))),
        "LimitRange" => index.apply(Kind::LimitRange, Record::Limit(LimitRecord::new(&serde_json::from_value(from).unwrap()).unwrap())),
        "ResourceQuota" => index.apply(Kind::ResourceQuota, Record::Quota(QuotaRecord::new(&serde_json::from_value(from).unwrap()).unwrap())),
        "HorizontalPodAutoscaler" => {
            index.apply(Kind::Hpa, Record::Foreign(ForeignRecord::new("HorizontalPodAutoscaler", object, "/spec/scaleTargetRef").unwrap()))
        }
        "VerticalPodAutoscaler" => {
            index.apply(Kind::Vpa, Record::Foreign(ForeignRecord::new("VerticalPodAutoscaler", object, "/spec/targetRef").unwrap()))
        }
        other => panic!("no fixture for {other}"),
    }
}

/// Every watch has listed the namespace `shop`.
pub(crate) fn in_sync(index: &mut Index) {
    for kind in [Kind::Deployment, Kind::ReplicaSet, Kind::Pod, Kind::Hpa, Kind::Node] {
        index.listed(kind, &["shop".to_owned()].into());
    }
}

/// `shop/orders` as the index shows it with these objects, all watches in sync.
pub(crate) fn view(objects: &[Value]) -> View {
    let mut index = Index::default();
    in_sync(&mut index);
    for object in objects {
        put(&mut index, object);
    }
    index.view(&orders()).unwrap()
}

pub(crate) fn hpa() -> Value {
    json!({"kind": "HorizontalPodAutoscaler", "metadata": {"namespace": "shop", "name": "orders-hpa"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "orders"}}})
}

/// A report of a pod.
pub(crate) fn report(pod: &str, sequence: u64, state: WorkerState, busy: Busy) -> Report {
    Report {
        version: VERSION,
        workload: orders(),
        workload_uid: "dep".into(),
        pod_uid: format!("uid-{pod}"),
        pod_name: pod.into(),
        sequence,
        started_ms: PodMs(T0_MS - 60_000),
        at_ms: PodMs(T0_MS),
        state,
        epoch: Epoch(0),
        busy,
        busy_since_ms: PodMs(T0_MS - 1_000),
        active_tasks: None,
        processed_total: None,
        service: None,
        peaks: Default::default(),
        template_hash: "1".into(),
        access: AccessLevel::Full,
        worker_ids: None,
        cuts: 0,
        cut: None,
        last: false,
        gaps: Vec::new(),
        control_keys: Vec::new(),
        scheduler: None,
    }
}

/// One request as the API server saw it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) content_type: String,
    pub(crate) body: Value,
}

/// What the API server saw.
#[derive(Clone, Default)]
pub(crate) struct Script {
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Script {
    /// The calls so far, as `METHOD path`; Events are left out.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.calls().iter().map(|c| format!("{} {}", c.method, c.path)).filter(|c| !c.contains("/events")).collect()
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

/// A client of an API server that gives these answers, one after the other; Events are taken silently, and a call too many is answered with 500.
pub(crate) fn api(answers: Vec<(u16, Value)>) -> (Client, Script) {
    let answers: Mutex<VecDeque<(u16, Value)>> = Mutex::new(answers.into());
    let missing = || refusal(500, "InternalError", "not in the script");
    api_by(
        move |call| {
            if call.path.contains("/events") { (201, call.body.clone()) } else { answers.lock().unwrap().pop_front().unwrap_or_else(missing) }
        },
    )
}

/// A client of an API server that answers each call by this function.
pub(crate) fn api_by(answer: impl Fn(&Call) -> (u16, Value) + Send + Sync + 'static) -> (Client, Script) {
    let script = Script::default();
    let (shared, answer) = (script.clone(), Arc::new(answer));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (script, answer) = (shared.clone(), Arc::clone(&answer));
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let content_type = parts.headers.get("content-type").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let call = Call { method: parts.method.to_string(), path: parts.uri.path().to_owned(), content_type, body };
            let (code, answer) = answer(&call);
            script.calls.lock().unwrap().push(call);
            let response = http::Response::builder().status(code).header("content-type", "application/json");
            Ok::<_, Infallible>(response.body(Body::from(answer.to_string().into_bytes())).unwrap())
        }
    });
    (Client::new(service, "default"), script)
}

/// A client of an API server that never answers.
pub(crate) fn silent_api() -> Client {
    let service = tower::service_fn(|_: http::Request<Body>| std::future::pending::<Result<http::Response<Body>, Infallible>>());
    Client::new(service, "default")
}

/// A refusal as the API server words it.
pub(crate) fn refusal(code: u16, reason: &str, message: &str) -> (u16, Value) {
    (code, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}))
}
