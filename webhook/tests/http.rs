//! The HTTP side without a port: reviews in, answers out.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test helper is a failed test with a line number")]

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use base64::Engine;
use http_body_util::BodyExt;
use qscaler_api::{Resources, WorkerIds};
use qscaler_core::workload::WorkloadId;
use qscaler_inject::{Limits, Settings};
use qscaler_runtime::CancellationToken;
use qscaler_runtime::metrics::Registry;
use qscaler_webhook::decide::Decider;
use qscaler_webhook::metrics::Metrics;
use qscaler_webhook::server::{PATH_PODS, PATH_WORKLOADS, router};
use qscaler_webhook::world::{NamespaceEntry, QWorkerFacts, Workload, World};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tower::ServiceExt;

struct Fixture {
    router: Router,
    metrics: Metrics,
}

fn orders() -> WorkloadId {
    WorkloadId { namespace: "shop".into(), name: "orders".into() }
}

fn good() -> BTreeMap<String, String> {
    [("queue", "orders"), ("broker", "env:URL"), ("worker", "celery"), ("max-replicas", "5")]
        .map(|(k, v)| (format!("qscaler.dev/{k}"), v.to_owned()))
        .into()
}

fn fixture(annotations: Option<BTreeMap<String, String>>) -> Fixture {
    let world = World::new(None);
    if let Some(annotations) = annotations {
        world.put_workload(orders(), Workload { uid: "d-1".into(), annotations });
    }
    in_world(world)
}

fn in_world(world: World) -> Fixture {
    world.put_namespace("shop", NamespaceEntry { enabled: true, ..NamespaceEntry::default() });
    world.put_namespace("other", NamespaceEntry::default());
    let metrics = Metrics::new(Registry::default());
    let decider = Decider { world: Arc::new(world), settings: Arc::new(Settings::default()), own_namespace: "qscaler-system".into() };
    Fixture { router: router(decider, metrics.clone(), CancellationToken::new()), metrics }
}

impl Fixture {
    async fn post(&self, path: &str, body: impl Into<Body>) -> (StatusCode, Vec<u8>) {
        let request = Request::post(path).header("content-type", "application/json").body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    async fn review(&self, path: &str, request: Value) -> Value {
        let (status, body) =
            self.post(path, json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).to_string()).await;
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&answer["apiVersion"], &answer["kind"]), (&json!("admission.k8s.io/v1"), &json!("AdmissionReview")));
        assert_eq!(answer["response"]["uid"], request["uid"]);
        assert_eq!(answer["response"]["allowed"], true, "nothing is ever refused");
        assert_eq!(answer["response"].get("patch").is_some(), answer["response"].get("patchType").is_some());
        answer["response"].clone()
    }

    /// A call that gets no review as its answer.
    async fn undecided(&self, path: &str, request: Value) -> (StatusCode, String) {
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
        let (status, body) = self.post(path, review.to_string()).await;
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn pod(&self, pod: Value) -> Value {
        self.review(PATH_PODS, create("shop", pod)).await
    }
}

fn create(namespace: &str, object: Value) -> Value {
    json!({"uid": "u-1", "kind": {"kind": "Pod"}, "operation": "CREATE", "namespace": namespace, "object": object})
}

fn pod() -> Value {
    json!({"metadata": {"generateName": "orders-5d4f-", "labels": {"pod-template-hash": "5d4f"}, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-5d4f", "controller": true}]},
        "spec": {"containers": [{"name": "w", "image": "w", "env": [{"name": "URL", "value": "redis://r"}]}]}})
}

fn patched(mut pod: Value, response: &Value) -> Value {
    let bytes = base64::engine::general_purpose::STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    json_patch::patch(&mut pod, &serde_json::from_slice::<json_patch::Patch>(&bytes).unwrap()).unwrap();
    pod
}

fn warnings(response: &Value) -> String {
    response["warnings"].as_array().map(|w| w.iter().map(|w| w.as_str().unwrap()).collect::<Vec<_>>().join("\n")).unwrap_or_default()
}

#[tokio::test]
async fn a_pod_of_an_annotated_deployment_is_injected() {
    let fixture = fixture(Some(good()));
    let response = fixture.pod(pod()).await;
    let injected = patched(pod(), &response);
    let sidecar = &injected["spec"]["initContainers"][0];
    assert_eq!(sidecar["name"], "qscaler-sidecar");
    let config = sidecar["env"].as_array().unwrap().iter().find(|e| e["name"] == "QSCALER_CONFIG").unwrap();
    let config: Value = serde_json::from_str(config["value"].as_str().unwrap()).unwrap();
    assert_eq!((&config["workloadUid"], &config["templateHash"]), (&json!("d-1"), &json!("5d4f")));
    assert_eq!(config["workload"], json!({"namespace": "shop", "name": "orders"}));
    let token = config["hookToken"].as_str().unwrap();
    assert!(token.len() == 32 && token.chars().all(|c| c.is_ascii_hexdigit()), "{token}");
    assert!(fixture.metrics.text().contains("qscaler_webhook_pods_total{outcome=\"injected\"} 1"));
}

#[tokio::test]
async fn a_second_call_is_a_no_op_and_completes_what_another_webhook_added() {
    let fixture = fixture(Some(good()));
    let mut injected = patched(pod(), &fixture.pod(pod()).await);
    let again = fixture.pod(injected.clone()).await;
    assert!(again.get("patch").is_none(), "{again}");
    injected["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "late", "image": "x"}));
    let completed = patched(injected.clone(), &fixture.pod(injected.clone()).await);
    let hook = |pod: &Value, i: usize| pod["spec"]["containers"][i]["lifecycle"]["preStop"]["httpGet"]["path"].as_str().unwrap().to_owned();
    assert_eq!(hook(&completed, 1), hook(&injected, 0).replace("container=w", "container=late"));
    assert!(fixture.pod(completed).await.get("patch").is_none());
}

#[tokio::test]
async fn the_service_accounts_token_does_not_stay_in_the_sidecar() {
    let fixture = fixture(Some(good()));
    let mut injected = patched(pod(), &fixture.pod(pod()).await);
    let token = json!({"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true});
    injected["spec"]["initContainers"][0]["volumeMounts"] = json!([token, {"name": "other", "mountPath": "/other"}, token]);
    injected["spec"]["containers"][0]["volumeMounts"] = json!([token]);
    let completed = patched(injected.clone(), &fixture.pod(injected).await);
    assert_eq!(completed["spec"]["initContainers"][0]["volumeMounts"], json!([{"name": "other", "mountPath": "/other"}]));
    assert_eq!(completed["spec"]["containers"][0]["volumeMounts"], json!([token]), "the worker keeps its own");
    assert!(fixture.pod(completed).await.get("patch").is_none());
    assert!(fixture.metrics.text().contains("outcome=\"completed\"} 1"));
}

#[tokio::test]
async fn what_earlier_pods_taught_is_used() {
    let world = World::new(None);
    let mut annotations = good();
    annotations.insert("qscaler.dev/vertical".into(), "initial".into());
    world.put_workload(orders(), Workload { uid: "d-1".into(), annotations });
    let size = Resources { memory_bytes: Some(256 << 20), cpu_request_millicores: Some(70) };
    world.put_learned(
        orders(),
        QWorkerFacts { recommended: [("w".to_owned(), size)].into(), worker_ids: Some(WorkerIds { uid: 7, gid: 8 }), ..QWorkerFacts::default() },
    );
    let metrics = Metrics::new(Registry::default());
    let decider = Decider { world: Arc::new(world), settings: Arc::new(Settings::default()), own_namespace: "q".into() };
    let fixture = Fixture { router: router(decider, metrics.clone(), CancellationToken::new()), metrics };
    let injected = patched(pod(), &fixture.pod(pod()).await);
    assert_eq!(injected["spec"]["containers"][0]["resources"], json!({"requests": {"memory": "256Mi", "cpu": "70m"}, "limits": {"memory": "256Mi"}}));
    assert_eq!(injected["spec"]["initContainers"][0]["securityContext"]["runAsUser"], 7);
}

#[tokio::test]
async fn pods_that_are_none_of_ours_are_untouched_and_unwarned() {
    let fixture = fixture(Some(BTreeMap::new()));
    let mut alone = pod();
    alone["metadata"]["ownerReferences"] = json!([]);
    let ours = |namespace: &str| create(namespace, pod());
    let mut update = ours("shop");
    update["operation"] = json!("UPDATE");
    let mut exec = ours("shop");
    exec["subResource"] = json!("exec");
    let mut empty = ours("shop");
    empty["namespace"] = json!(null);
    empty["object"]["metadata"]["namespace"] = json!("shop");
    for request in [ours("shop"), create("shop", alone), ours("kube-system"), ours("qscaler-system"), update, exec, empty] {
        assert_eq!(fixture.review(PATH_PODS, request).await, json!({"uid": "u-1", "allowed": true}));
    }
}

#[tokio::test]
async fn own_namespace_and_kube_system_are_excluded_even_when_annotated() {
    for namespace in ["kube-system", "qscaler-system"] {
        let world = World::new(None);
        world.put_workload(WorkloadId { namespace: namespace.into(), name: "orders".into() }, Workload { uid: String::new(), annotations: good() });
        let metrics = Metrics::new(Registry::default());
        let decider = Decider { world: Arc::new(world), settings: Arc::new(Settings::default()), own_namespace: "qscaler-system".into() };
        let fixture = Fixture { router: router(decider, metrics.clone(), CancellationToken::new()), metrics };
        assert!(fixture.review(PATH_PODS, create(namespace, pod())).await.get("patch").is_none());
        assert!(fixture.metrics.text().contains("excluded-namespace"));
    }
}

#[tokio::test]
async fn the_namespace_of_the_request_counts_and_not_that_of_the_object() {
    let fixture = fixture(Some(good()));
    let mut object = pod();
    object["metadata"]["namespace"] = json!("kube-system");
    assert!(fixture.pod(object).await.get("patch").is_some());
}

#[tokio::test]
async fn an_annotated_pod_that_no_deployment_owns_is_left_with_a_warning() {
    let fixture = fixture(None);
    for (kind, name) in [("StatefulSet", "db"), ("ReplicaSet", "alone")] {
        let mut object = pod();
        object["metadata"]["annotations"] = json!(good());
        object["metadata"]["ownerReferences"][0]["kind"] = json!(kind);
        object["metadata"]["ownerReferences"][0]["name"] = json!(name);
        let response = fixture.pod(object).await;
        assert!(response.get("patch").is_none());
        assert!(warnings(&response).contains(&format!("Deployments only; this pod belongs to {kind} {name}")), "{response}");
    }
}

#[tokio::test]
async fn a_deployment_that_cannot_be_read_is_named_unless_the_pod_says_enough() {
    let fixture = fixture(None);
    // Not allowed by us: `failurePolicy` says whether such a pod is created.
    let (status, words) = fixture.undecided(PATH_PODS, create("shop", pod())).await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && words.contains("could not be read (it is not in the cache)"), "{status} {words}");
    let mut object = pod();
    object["metadata"]["annotations"] = json!(good());
    assert!(fixture.pod(object).await.get("patch").is_some());
}

#[tokio::test]
async fn mistakes_are_warned_about_all_at_once_and_the_pod_is_left() {
    let mut annotations = good();
    annotations.insert("qscaler.dev/worker".into(), "celeri".into());
    annotations.insert("qscaler.dev/max-replicas".into(), "many".into());
    let response = fixture(Some(annotations)).pod(pod()).await;
    assert!(response.get("patch").is_none());
    let words = warnings(&response);
    assert!(words.contains("qscaler: not injected: qscaler.dev/max-replicas") && words.contains("celeri"), "{words}");
}

#[tokio::test]
async fn a_dry_run_request_gets_the_same_answer() {
    let fixture = fixture(Some(good()));
    let mut request = create("shop", pod());
    request["dryRun"] = json!(true);
    assert!(fixture.review(PATH_PODS, request).await.get("patch").is_some());
}

#[tokio::test]
async fn garbage_gets_400_and_too_much_413() {
    let fixture = fixture(Some(good()));
    let mut bodies: Vec<Vec<u8>> = ["", "{", "[]", "null", "{\"request\":{}}", "\u{0}"].iter().map(|s| s.as_bytes().to_vec()).collect();
    bodies.push(vec![0xff, 0xfe, 0x00]);
    bodies.push("[".repeat(100_000).into_bytes());
    bodies.push(json!({"apiVersion": "v1", "kind": "Pod", "request": {"uid": "x"}}).to_string().into_bytes());
    let count = bodies.len();
    for path in [PATH_PODS, PATH_WORKLOADS] {
        for body in &bodies {
            let (status, words) = fixture.post(path, body.clone()).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{}", String::from_utf8_lossy(body));
            assert!(!words.is_empty());
        }
    }
    assert_eq!(fixture.metrics.bad_requests.get(), 2 * count as u64);
    assert_eq!(fixture.post(PATH_PODS, vec![b' '; 9 << 20]).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(fixture.post("/other", "{}").await.0, StatusCode::NOT_FOUND);
}

fn workload(kind: &str, annotations: BTreeMap<String, String>, template_spec: Value) -> Value {
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": template_spec});
    let spec = if kind == "CronJob" { json!({"jobTemplate": {"spec": {"template": template}}}) } else { json!({"template": template}) };
    json!({"uid": "u-2", "kind": {"kind": kind}, "operation": "UPDATE", "namespace": "shop",
        "object": {"kind": kind, "metadata": {"name": "orders", "annotations": annotations}, "spec": spec}})
}

fn spec() -> Value {
    pod()["spec"].clone()
}

#[tokio::test]
async fn a_good_workload_is_told_only_what_sharing_means_and_what_its_namespace_makes_of_it() {
    let fixture = fixture(None);
    let mut spec = spec();
    spec["containers"][0]["securityContext"] = json!({"runAsUser": 1000});
    let mut annotations = good();
    annotations.insert("qscaler.dev/worker".into(), "rq".into());
    let words = warnings(&fixture.review(PATH_WORKLOADS, workload("Deployment", annotations.clone(), spec.clone())).await);
    assert!(words.lines().count() == 1 && words.contains("shareProcessNamespace"), "{words}");
    assert_eq!(warnings(&fixture.review(PATH_WORKLOADS, workload("Deployment", BTreeMap::new(), spec.clone())).await), "");

    let world = World::new(None);
    let limits = Limits { pod_memory_max: Some(64 << 20), ..Limits::default() };
    world.put_limits(WorkloadId { namespace: "shop".into(), name: "limits".into() }, limits);
    spec["containers"][0]["resources"] = json!({"limits": {"memory": "64Mi"}});
    let words = warnings(&in_world(world).review(PATH_WORKLOADS, workload("Deployment", annotations, spec)).await);
    assert!(words.contains("pods will not be injected: a LimitRange allows a pod 64Mi of memory"), "{words}");
}

#[tokio::test]
async fn what_was_said_of_a_workload_is_not_said_again_but_what_is_in_the_way_is() {
    let fixture = fixture(None);
    let mut replaced = workload("Deployment", good(), spec());
    let first = warnings(&fixture.review(PATH_WORKLOADS, replaced.clone()).await);
    assert!(first.contains("shareProcessNamespace"), "{first}");
    // The same again with another image.
    replaced["oldObject"] = replaced["object"].clone();
    replaced["object"]["spec"]["template"]["spec"]["containers"][0]["image"] = json!("w:2");
    assert_eq!(warnings(&fixture.review(PATH_WORKLOADS, replaced.clone()).await), "");
    // What is new is said alone.
    replaced["object"]["metadata"]["annotations"]["qscaler.dev/share-processes"] = json!("false");
    let words = warnings(&fixture.review(PATH_WORKLOADS, replaced.clone()).await);
    assert!(words.contains("processes are not shared") && words.lines().all(|line| !first.contains(line)), "{words}");
    // It was annotated just now.
    replaced["object"]["metadata"]["annotations"].as_object_mut().unwrap().remove("qscaler.dev/share-processes");
    replaced["oldObject"]["metadata"]["annotations"] = json!({});
    assert_eq!(warnings(&fixture.review(PATH_WORKLOADS, replaced.clone()).await), first);
    replaced["object"]["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    replaced["oldObject"] = replaced["object"].clone();
    assert!(warnings(&fixture.review(PATH_WORKLOADS, replaced).await).contains("hostNetwork"));
}

#[tokio::test]
async fn every_mistake_of_a_workload_is_a_warning_of_its_own() {
    let fixture = fixture(None);
    let mut annotations = good();
    annotations.insert("qscaler.dev/max-replica".into(), "3".into());
    annotations.insert("qscaler.dev/max-wait".into(), "soon".into());
    let response = fixture.review(PATH_WORKLOADS, workload("Deployment", annotations, spec())).await;
    assert_eq!(response["warnings"].as_array().unwrap().len(), 2, "{response}");
    assert!(response.get("patch").is_none());
}

#[tokio::test]
async fn what_would_keep_pods_bare_is_said_when_the_workload_is_applied() {
    let fixture = fixture(None);
    let mut with_hook = spec();
    with_hook["containers"][0]["lifecycle"] = json!({"preStop": {"exec": {"command": ["x"]}}});
    let mut no_env = spec();
    no_env["containers"][0]["env"] = json!([]);
    let mut wrong = good();
    wrong.insert("qscaler.dev/container".into(), "missing".into());
    let mut dry = good();
    dry.insert("qscaler.dev/dry-run".into(), "true".into());
    for (annotations, spec, says) in [
        (good(), with_hook, "has a preStop hook of its own"),
        (good(), no_env, "container w sets no such variable"),
        (wrong, spec(), "there is no such container; valid: one of w"),
        (dry, spec(), "dry-run is true"),
        (good(), json!(null), "no containers"),
    ] {
        let words = warnings(&fixture.review(PATH_WORKLOADS, workload("Deployment", annotations, spec)).await);
        assert!(words.contains(says), "{says}: {words}");
    }
}

#[tokio::test]
async fn a_namespace_that_has_not_opted_in_and_a_wrong_kind_are_said() {
    let fixture = fixture(None);
    let mut request = workload("Deployment", good(), spec());
    request["namespace"] = json!("other");
    // And nothing of how its pods would be.
    let words = warnings(&fixture.review(PATH_WORKLOADS, request).await);
    assert!(words.lines().count() == 1 && words.contains("namespace other has no label qscaler.dev/injection=enabled"), "{words}");
    for kind in ["StatefulSet", "DaemonSet", "Job", "CronJob", "Rollout"] {
        let mut request = workload(kind, good(), spec());
        let words = warnings(&fixture.review(PATH_WORKLOADS, request.clone()).await);
        assert!(words.contains(&format!("Deployments only; this {kind}")), "{words}");
        request["object"]["metadata"]["annotations"] = json!({});
        assert_eq!(warnings(&fixture.review(PATH_WORKLOADS, request).await), "");
    }
    assert_eq!(warnings(&fixture.review(PATH_WORKLOADS, workload("Widget", good(), spec())).await), "");
}

/// A world whose API server answers every request with this after a while.
fn remote(status: u16, body: Value, after: std::time::Duration, calls: &Arc<std::sync::atomic::AtomicU32>) -> World {
    let calls = Arc::clone(calls);
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(request.uri().path(), "/apis/apps/v1/namespaces/shop/deployments/orders");
        let body = body.to_string();
        async move {
            tokio::time::sleep(after).await;
            Ok::<_, std::convert::Infallible>(
                axum::http::Response::builder().status(status).body(http_body_util::Full::new(bytes::Bytes::from(body))).unwrap(),
            )
        }
    });
    World::new(Some(kube::Client::new(service, "shop")))
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_is_not_cached_is_asked_for_once_and_not_for_long() {
    use std::time::Duration;
    let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let object = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "orders", "namespace": "shop", "uid": "d-9", "annotations": {"qscaler.dev/queue": "q", "other": "x"}}});
    let world = remote(200, object, Duration::from_millis(20), &calls);
    for _ in 0..3 {
        let found = world.workload(&orders(), "5d4f", Duration::from_secs(1)).await.unwrap().unwrap();
        assert_eq!(found, Workload { uid: "d-9".into(), annotations: [("qscaler.dev/queue".to_owned(), "q".to_owned())].into() });
    }
    assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 1);

    let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "", "reason": "NotFound", "code": 404});
    assert_eq!(remote(404, gone, Duration::ZERO, &calls).workload(&orders(), "5d4f", Duration::from_secs(1)).await.unwrap(), None);

    let started = tokio::time::Instant::now();
    let slow = remote(200, json!({}), Duration::from_secs(3600), &calls).workload(&orders(), "5d4f", Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(slow.to_string(), "no answer within 300 ms");
    assert!(started.elapsed() < Duration::from_secs(1), "the clock of this test is virtual");
}

#[tokio::test(start_paused = true)]
async fn a_lookup_may_take_what_the_api_server_waits_less_the_time_for_the_answer() {
    use std::time::Duration;
    let object = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "orders", "namespace": "shop", "uid": "d-9", "annotations": good()}});
    // (what the API server appends, what the lookup takes in ms, whether that is in time)
    for (terms, takes, injected) in [
        ("?timeout=3s", 2200, true),
        ("?timeout=3s", 2400, false),
        ("?timeout=10s", 9000, true),
        ("?timeout=1s", 290, true),
        ("", 2200, true),
        ("?timeout=x", 2400, false),
    ] {
        let fixture = in_world(remote(200, object.clone(), Duration::from_millis(takes), &Arc::default()));
        let path = format!("{PATH_PODS}{terms}");
        if injected {
            let answer = fixture.review(&path, create("shop", pod())).await;
            assert!(answer.get("patch").is_some(), "{terms} {takes} ms: {answer}");
        } else {
            let (status, words) = fixture.undecided(&path, create("shop", pod())).await;
            assert!(status == StatusCode::SERVICE_UNAVAILABLE && words.contains("no answer within"), "{terms} {takes} ms: {status} {words}");
        }
    }
}

/// A review whose object has these bytes.
fn raw_review(object: &str) -> String {
    format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u-1","kind":{{"kind":"Pod"}},"operation":"CREATE","namespace":"shop","object":{object}}}}}"#
    )
}

#[tokio::test]
async fn an_object_of_more_values_than_any_has_is_refused_and_of_the_rest_of_a_review_nothing_is_kept() {
    let fixture = fixture(Some(good()));
    let zeros = |n: usize| format!("[0{}]", ",0".repeat(n));
    let (status, words) = fixture.post(PATH_PODS, raw_review(&zeros(1 << 20))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(String::from_utf8_lossy(&words).contains("more than 100000 values"));
    let beside = raw_review(&pod().to_string()).replace("\"operation\"", &format!("\"oldObject\":{},\"operation\"", zeros(1 << 20)));
    assert_eq!(fixture.post(PATH_PODS, beside).await.0, StatusCode::OK);
    let (status, _) = fixture.post(PATH_PODS, raw_review(&zeros(4 << 20))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(fixture.metrics.text().contains("qscaler_webhook_bad_requests_total 2"), "{}", fixture.metrics.text());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_has_its_call_ended() {
    let fixture = fixture(Some(good()));
    let begun = futures::StreamExt::chain(
        futures::stream::iter([Ok::<_, std::convert::Infallible>(bytes::Bytes::from_static(b"{"))]),
        futures::stream::pending(),
    );
    let (status, _) = fixture.post(PATH_PODS, Body::from_stream(begun)).await;
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_template_that_was_not_seen_before_is_asked_for_once_since_the_cache_may_be_older() {
    use std::time::Duration;
    let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = || calls.load(std::sync::atomic::Ordering::Relaxed);
    let object = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "orders", "namespace": "shop", "uid": "d-1", "annotations": good()}});
    let world = remote(200, object, Duration::from_millis(20), &calls);
    // As it was before the annotations came.
    world.put_workload(orders(), Workload { uid: "d-1".into(), annotations: BTreeMap::new() });
    let fixture = in_world(world);
    for _ in 0..3 {
        assert!(fixture.pod(pod()).await.get("patch").is_some());
    }
    assert_eq!(count(), 1);
    let other = json!({"metadata": {"name": "orders"}});
    let world = remote(500, other, Duration::ZERO, &calls);
    world.put_workload(orders(), Workload { uid: "d-1".into(), annotations: good() });
    assert!(in_world(world).pod(pod()).await.get("patch").is_some(), "where nobody answers the cache is believed");
}
