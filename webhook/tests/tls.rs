//! TLS over a loopback socket: rotation without a dropped connection, and an orderly end.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test helper is a failed test with a line number")]

mod served;

use axum::Router;
use axum::routing::get;
use qscaler_inject::Settings;
use qscaler_runtime::CancellationToken;
use qscaler_runtime::metrics::Registry;
use qscaler_runtime::ready::Readiness;
use qscaler_webhook::decide::Decider;
use qscaler_webhook::dial;
use qscaler_webhook::metrics::Metrics;
use qscaler_webhook::server::{PATH_PODS, router};
use qscaler_webhook::tls::{Loader, follow_files};
use qscaler_webhook::world::World;
use rustls_pki_types::CertificateDer;
use served::{CONNECTIONS, DEADLINE, connect, connect_offering, pair, server};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

async fn get_ok(stream: &mut TlsStream<TcpStream>, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"done") {
        let mut buffer = [0; 1024];
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..n]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn a_replica_knows_whether_the_published_bundles_trust_it() {
    let server = server(Router::new().route("/", get(|| async { "done" }))).await;
    let (cert, key, _) = pair();
    let (other, _, _) = pair();
    let bundle = |pem: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
    let service = |bundle: Option<String>| {
        serde_json::json!({"name": "w", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": "qscaler-webhook", "namespace": "q"}, "caBundle": bundle}})
    };
    let elsewhere =
        serde_json::json!({"name": "x", "sideEffects": "None", "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://elsewhere"}});
    let asked = async |webhooks: Vec<serde_json::Value>| {
        let configuration = serde_json::from_value(serde_json::json!({"metadata": {}, "webhooks": webhooks})).unwrap();
        dial::trusted(&configuration, &[server.address]).await.map_err(|error| error.to_string())
    };
    assert!(asked(vec![service(Some(bundle(&cert)))]).await.unwrap_err().contains("fails"), "nothing is served yet");
    server.served.load(cert.as_bytes(), key.as_bytes()).unwrap();
    asked(vec![service(Some(bundle(&cert))), service(Some(bundle(&format!("{other}{cert}")))), elsewhere]).await.unwrap();
    for (given, says) in
        [(Some(bundle(&other)), "a call as the API server makes it fails"), (Some(bundle("none")), "holds no certificate"), (None, "has no caBundle")]
    {
        // One of them is enough: its calls would fail.
        let error = asked(vec![service(Some(bundle(&cert))), service(given)]).await.unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    server.shutdown.cancel();
    server.task.await.unwrap();
}

#[tokio::test]
async fn new_handshakes_get_the_new_certificate_and_old_connections_stay() {
    let server = server(Router::new().route("/", get(|| async { "done" }))).await;
    let (cert_a, key_a, der_a) = pair();
    let (cert_b, key_b, der_b) = pair();
    assert!(connect(server.address, &der_a).await.is_err(), "there is no certificate yet");
    server.served.load(cert_a.as_bytes(), key_a.as_bytes()).unwrap();
    let mut old = connect(server.address, &der_a).await.unwrap();
    get_ok(&mut old, "/").await;

    assert!(server.served.load(cert_b.as_bytes(), key_a.as_bytes()).is_err(), "a key of another certificate");
    assert!(server.served.load(b"garbage", key_b.as_bytes()).is_err());
    assert!(server.served.load(cert_b.as_bytes(), b"garbage").is_err());
    connect(server.address, &der_a).await.unwrap();

    server.served.load(cert_b.as_bytes(), key_b.as_bytes()).unwrap();
    get_ok(&mut old, "/").await;
    assert!(connect(server.address, &der_a).await.is_err());
    get_ok(&mut connect(server.address, &der_b).await.unwrap(), "/").await;
    assert!(server.metrics.handshake_failures.get() >= 1);
}

#[tokio::test]
async fn an_open_call_ends_before_the_server_does_and_idle_connections_do_not_hold_it() {
    let (started, release) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (s, r) = (started.clone(), release.clone());
    let slow = move || async move {
        s.notify_one();
        r.notified().await;
        "done"
    };
    let server = server(Router::new().route("/slow", get(slow)).route("/", get(|| async { "done" }))).await;
    let (cert, key, der) = pair();
    server.served.load(cert.as_bytes(), key.as_bytes()).unwrap();
    let mut idle = connect(server.address, &der).await.unwrap();
    get_ok(&mut idle, "/").await;
    let _only_tcp = TcpStream::connect(server.address).await.unwrap();
    let mut busy = connect(server.address, &der).await.unwrap();
    let call = tokio::spawn(async move { get_ok(&mut busy, "/slow").await });
    started.notified().await;

    server.shutdown.cancel();
    // The idle connection is closed, the port too; the call is still open.
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(DEADLINE, idle.read_to_end(&mut rest)).await.unwrap();
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!server.task.is_finished());
    release.notify_one();
    call.await.unwrap();
    tokio::time::timeout(DEADLINE, server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_leaving_server_has_its_connections_closed_by_their_clients() {
    let leaving = CancellationToken::new();
    let decider = Decider { world: Arc::new(World::new(None)), settings: Arc::new(Settings::default()), own_namespace: "q".into() };
    let server = server(router(decider, Metrics::new(Registry::default()), leaving.clone())).await;
    let (cert, key, der) = pair();
    server.served.load(cert.as_bytes(), key.as_bytes()).unwrap();
    let mut stream = connect(server.address, &der).await.unwrap();
    let request = format!("POST {PATH_PODS} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}");
    let mut buffer = [0; 4096];
    stream.write_all(request.as_bytes()).await.unwrap();
    let n = stream.read(&mut buffer).await.unwrap();
    assert!(!String::from_utf8_lossy(&buffer[..n]).contains("connection: close"));
    leaving.cancel();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await.unwrap();
    assert!(String::from_utf8_lossy(&rest).contains("connection: close"), "{}", String::from_utf8_lossy(&rest));
}

/// A folder as the kubelet mounts a Secret: its content is a folder of its own, and a symlink to that is swapped.
struct Mount(tempfile::TempDir);

impl Mount {
    fn put(&self, version: &str, cert: &str, key: &str) {
        let real = self.0.path().join(version);
        std::fs::create_dir(&real).unwrap();
        std::fs::write(real.join("tls.crt"), cert).unwrap();
        std::fs::write(real.join("tls.key"), key).unwrap();
        let link = self.0.path().join("new");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        std::fs::rename(link, self.0.path().join("..data")).unwrap();
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join("..data").join(file)
    }
}

#[tokio::test]
async fn a_rotation_of_mounted_files_fails_no_handshake_and_no_open_connection() {
    let server = server(Router::new().route("/", get(|| async { "done" }))).await;
    let ((cert_a, key_a, der_a), (cert_b, key_b, der_b)) = (pair(), pair());
    let mount = Mount(tempfile::tempdir().unwrap());
    mount.put("1", &cert_a, &key_a);
    let readiness = Readiness::default();
    let loader = Loader::new(Arc::clone(&server.served), server.metrics.clone(), readiness.clone());
    let every = Duration::from_millis(20);
    let files = tokio::spawn(follow_files(mount.path("tls.crt"), mount.path("tls.key"), every, loader, server.shutdown.clone()));
    readiness.wait().await;
    assert_eq!(server.metrics.certificates_loaded.get(), 1);
    let mut old = connect(server.address, &der_a).await.unwrap();

    // The leaf that a new handshake gets, with a call on it, and one on the connection from before.
    let mut leaf = async || {
        let mut new = connect_offering(server.address, &[&der_a, &der_b], &[]).await.expect("a handshake fails");
        get_ok(&mut new, "/").await;
        get_ok(&mut old, "/").await;
        CertificateDer::from(new.get_ref().1.peer_certificates().unwrap()[0].to_vec())
    };
    assert_eq!(leaf().await, der_a);
    // What is read while the two are changed may be of two pairs: the one before stays.
    mount.put("2", &cert_b, &key_a);
    let refused = async {
        while server.metrics.certificates_refused.get() == 0 {
            assert_eq!(leaf().await, der_a);
        }
    };
    tokio::time::timeout(DEADLINE, refused).await.unwrap();
    mount.put("3", &cert_b, &key_b);
    let rotated = async {
        loop {
            let shown = leaf().await;
            if shown == der_b {
                break;
            }
            assert_eq!(shown, der_a);
        }
    };
    tokio::time::timeout(DEADLINE, rotated).await.unwrap();
    for _ in 0..10 {
        assert_eq!(leaf().await, der_b, "and it stays so");
    }
    assert!(readiness.is_ready());
    assert_eq!((server.metrics.certificates_loaded.get(), server.metrics.handshake_failures.get()), (2, 0));
    assert!(connect(server.address, &der_a).await.is_err(), "who trusts the old one alone gets no new connection");
    server.shutdown.cancel();
    files.await.unwrap();
    server.task.await.unwrap();
}

/// Connections that send a byte now and then, at every stage, and never come to an answer.
#[tokio::test]
async fn trickling_clients_make_room_for_a_caller_however_many_they_are() {
    let server = server(Router::new().route("/", get(|| async { "done" })).route("/body", axum::routing::post(|_: String| async { "done" }))).await;
    let (cert, key, der) = pair();
    server.served.load(cert.as_bytes(), key.as_bytes()).unwrap();
    let mut known = connect(server.address, &der).await.unwrap();
    get_ok(&mut known, "/").await;
    let mut strangers = Vec::new();
    let mut only_tcp = Vec::new();
    for begun in
        ["", "G", "GET / HTTP/1.1\r\nho", "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\nabc"].iter().cycle().take(4 * CONNECTIONS)
    {
        only_tcp.push(TcpStream::connect(server.address).await.unwrap());
        if let Ok(mut stream) = connect(server.address, &der).await {
            let _ = stream.write_all(begun.as_bytes()).await;
            strangers.push(stream);
        }
        // Whoever is served stays, and a newcomer is served.
        tokio::time::timeout(DEADLINE, get_ok(&mut known, "/")).await.unwrap();
        let mut newcomer = connect(server.address, &der).await.unwrap();
        tokio::time::timeout(DEADLINE, get_ok(&mut newcomer, "/")).await.unwrap();
    }
    assert!(strangers.len() > CONNECTIONS);
}
