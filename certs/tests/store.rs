//! `store` and `run` against an API server in memory: what is written, and that two writers do not undo each other.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test helper is a failed test with a line number")]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use kube::Client;
use kube::client::Body;
use qscaler_certs::issue::{Certificate, ControlKey, service_names};
use qscaler_certs::metrics::Metrics;
use qscaler_certs::run::pass;
use qscaler_certs::store::Store;
use qscaler_runtime::metrics::Registry;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use time::{Duration, OffsetDateTime};

const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/qscaler";
const SECRETS: &str = "/api/v1/namespaces/q/secrets";

/// Objects by path, and every write.
#[derive(Default)]
struct Api {
    objects: BTreeMap<String, Value>,
    version: u64,
    writes: Vec<String>,
}

impl Api {
    fn answer(&mut self, method: &Method, path: &str, query: &str, body: &Value) -> (StatusCode, Value) {
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        let key = if *method == Method::POST { format!("{path}/{name}") } else { path.to_owned() };
        let there = self.objects.get(&key).cloned();
        let conflict = there.as_ref().is_some_and(|o| o["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]);
        let next = match (method.as_str(), there) {
            ("GET", Some(object)) => return (StatusCode::OK, object),
            ("GET" | "PUT" | "PATCH", None) => return failure(StatusCode::NOT_FOUND, "NotFound"),
            ("POST", Some(_)) => return failure(StatusCode::CONFLICT, "AlreadyExists"),
            ("PUT", Some(_)) if conflict => return failure(StatusCode::CONFLICT, "Conflict"),
            ("POST", None) | ("PUT", Some(_)) => body.clone(),
            ("PATCH", Some(mut object)) => {
                assert!(query.contains("fieldManager=qscaler-certs") && query.contains("force=true"), "{query}");
                assert_eq!(body["metadata"]["uid"], object["metadata"]["uid"]);
                for (webhook, applied) in object["webhooks"].as_array_mut().unwrap().iter_mut().zip(body["webhooks"].as_array().unwrap()) {
                    assert_eq!(*applied, json!({"name": webhook["name"], "clientConfig": {"caBundle": applied["clientConfig"]["caBundle"]}}));
                    webhook["clientConfig"]["caBundle"] = applied["clientConfig"]["caBundle"].clone();
                }
                object
            }
            other => panic!("{other:?}"),
        };
        self.version += 1;
        self.writes.push(format!("{method} {}", key.rsplit('/').next().unwrap()));
        let mut object = next;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(key, object.clone());
        (StatusCode::OK, object)
    }
}

fn failure(status: StatusCode, reason: &str) -> (StatusCode, Value) {
    (status, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": status.as_u16()}))
}

fn client(api: &Arc<Mutex<Api>>) -> Client {
    let api = Arc::clone(api);
    let service = tower::service_fn(move |request: Request<Body>| {
        let api = Arc::clone(&api);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
            // Two writers take turns at every request.
            tokio::task::yield_now().await;
            let (status, answer) = api.lock().unwrap().answer(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default(), &body);
            Ok::<_, Infallible>(Response::builder().status(status).body(Full::new(Bytes::from(answer.to_string()))).unwrap())
        }
    });
    Client::new(service, "q")
}

fn installed() -> Arc<Mutex<Api>> {
    let webhook = |name: &str| json!({"name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": {"service": {"name": "s", "namespace": "q"}}});
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "qscaler", "uid": "c-1", "resourceVersion": "0"}, "webhooks": [webhook("pods.qscaler.dev"), webhook("workloads.qscaler.dev")]});
    Arc::new(Mutex::new(Api { objects: [(CONFIGURATION.to_owned(), configuration)].into(), ..Api::default() }))
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_780_000_000).unwrap()
}

fn names() -> Vec<String> {
    service_names("qscaler-webhook", "q")
}

fn text(api: &Mutex<Api>, path: &str, key: &str) -> String {
    let api = api.lock().unwrap();
    String::from_utf8(STANDARD.decode(api.objects[path]["data"][key].as_str().unwrap()).unwrap()).unwrap()
}

/// The served leaf is signed by what both webhooks trust.
fn check(api: &Mutex<Api>) {
    let leaf = Certificate::parse(&text(api, &format!("{SECRETS}/qscaler-webhook-tls"), "tls.crt")).unwrap();
    let configuration = api.lock().unwrap().objects[CONFIGURATION].clone();
    for webhook in configuration["webhooks"].as_array().unwrap() {
        let bundle = String::from_utf8(STANDARD.decode(webhook["clientConfig"]["caBundle"].as_str().unwrap()).unwrap()).unwrap();
        assert!(Certificate::parse(&bundle).unwrap().signed(&leaf));
    }
}

#[tokio::test]
async fn an_install_writes_both_secrets_and_the_bundle_once() {
    let api = installed();
    let (store, metrics) = (Store::new(client(&api), "q"), Metrics::new(Registry::default()));
    pass(&store, &names(), now(), &metrics).await.unwrap();
    assert_eq!(api.lock().unwrap().writes, ["POST qscaler-control-key", "POST qscaler-webhook-ca", "PATCH qscaler", "POST qscaler-webhook-tls"]);
    check(&api);
    let tls = api.lock().unwrap().objects[&format!("{SECRETS}/qscaler-webhook-tls")].clone();
    assert_eq!(tls["type"], "kubernetes.io/tls");
    let ca_key = text(&api, &format!("{SECRETS}/qscaler-webhook-ca"), "tls.key");
    assert!(tls["data"].as_object().unwrap().values().all(|v| v != &json!(STANDARD.encode(&ca_key))), "the authority's key stays in its own Secret");
    let control = ControlKey::read(&text(&api, &format!("{SECRETS}/qscaler-control-key"), "private.pem")).unwrap();
    assert_eq!(text(&api, &format!("{SECRETS}/qscaler-webhook-tls"), "control.pub"), control.public);
    assert!(!tls["data"].to_string().contains(&STANDARD.encode(&control.private)), "nor does the webhook see the key that signs");

    pass(&store, &names(), now(), &metrics).await.unwrap();
    assert_eq!(api.lock().unwrap().writes.len(), 4, "a second pass writes nothing");
    assert!(metrics.text().contains("qscaler_certs_expiry_timestamp_seconds{certificate=\"leaf\"} 1780604800"), "{}", metrics.text());
}

/// `helm upgrade` writes the webhook configuration as the chart has it, without a bundle, or makes it anew; a new process of certs meets the Secrets of the old one.
#[tokio::test]
async fn an_upgrade_changes_no_authority_no_leaf_and_no_key() {
    let api = installed();
    let secrets = |api: &Mutex<Api>| {
        let all = api.lock().unwrap().objects.clone();
        all.into_iter().filter(|(path, _)| path.starts_with(SECRETS)).map(|(path, secret)| (path, secret["data"].clone())).collect::<Vec<_>>()
    };
    pass(&Store::new(client(&api), "q"), &names(), now(), &Metrics::new(Registry::default())).await.unwrap();
    let (before, writes) = (secrets(&api), api.lock().unwrap().writes.len());
    assert_eq!(before.len(), 3);
    let fresh = installed().lock().unwrap().objects[CONFIGURATION].clone();
    for (times, uid) in [(1, "c-1"), (2, "c-2")] {
        let mut configuration = fresh.clone();
        configuration["metadata"]["uid"] = json!(uid);
        api.lock().unwrap().objects.insert(CONFIGURATION.to_owned(), configuration);
        let later = now() + Duration::hours(times);
        pass(&Store::new(client(&api), "q"), &names(), later, &Metrics::new(Registry::default())).await.unwrap();
        assert_eq!(secrets(&api), before, "the same bytes");
        assert_eq!(api.lock().unwrap().writes[writes..], vec!["PATCH qscaler"; times as usize]);
        check(&api);
    }
}

#[tokio::test]
async fn two_replicas_agree_on_one_authority() {
    let api = installed();
    let metrics = Metrics::new(Registry::default());
    let (a, b) = (Store::new(client(&api), "q"), Store::new(client(&api), "q"));
    let one = async |store: &Store| pass(store, &names(), now(), &metrics).await.unwrap();
    tokio::join!(one(&a), one(&b));
    let writes = api.lock().unwrap().writes.clone();
    for one in ["-ca", "-control-key"] {
        assert_eq!(writes.iter().filter(|w| w.ends_with(one)).count(), 1, "{writes:?}");
    }
    check(&api);
    let later = now() + Duration::days(6);
    let two = async |store: &Store| pass(store, &names(), later, &metrics).await.unwrap();
    tokio::join!(two(&a), two(&b));
    let writes = api.lock().unwrap().writes.clone();
    assert_eq!(writes.iter().filter(|w| *w == "PUT qscaler-webhook-tls").count(), 1, "one new leaf: {writes:?}");
    check(&api);
}

#[tokio::test]
async fn a_writer_that_undoes_every_step_is_named() {
    let api = installed();
    let stubborn = Arc::clone(&api);
    let real = client(&api);
    let service = tower::service_fn(move |request: Request<Body>| {
        // Whatever is published is gone at the next look.
        if request.uri().path() == CONFIGURATION && request.method() == Method::GET {
            for webhook in stubborn.lock().unwrap().objects.get_mut(CONFIGURATION).unwrap()["webhooks"].as_array_mut().unwrap() {
                webhook["clientConfig"]["caBundle"] = json!("");
            }
        }
        let real = real.clone();
        async move { real.send(request).await }
    });
    let store = Store::new(Client::new(service, "q"), "q");
    let error = pass(&store, &names(), now(), &Metrics::new(Registry::default())).await.unwrap_err().to_string();
    assert!(error.contains("another writer"), "{error}");
}

#[tokio::test]
async fn an_api_server_that_refuses_is_an_error_with_its_cause() {
    let service = tower::service_fn(|_: Request<Body>| async {
        let (status, answer) = failure(StatusCode::FORBIDDEN, "Forbidden");
        Ok::<_, Infallible>(Response::builder().status(status).body(Full::new(Bytes::from(answer.to_string()))).unwrap())
    });
    let store = Store::new(Client::new(service, "q"), "q");
    let error = pass(&store, &names(), now(), &Metrics::new(Registry::default())).await.unwrap_err();
    assert_eq!(error.to_string(), "reading the authority's Secret failed");
    assert!(std::error::Error::source(&error).is_some());
}
