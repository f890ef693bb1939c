//! TLS over a loopback socket: rotation without a dropped connection, and an orderly end.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test helper is a failed test with a line number")]

use axum::Router;
use axum::routing::get;
use qscaler_inject::Settings;
use qscaler_runtime::CancellationToken;
use qscaler_runtime::metrics::Registry;
use qscaler_runtime::ready::Readiness;
use qscaler_webhook::decide::Decider;
use qscaler_webhook::dial;
use qscaler_webhook::metrics::Metrics;
use qscaler_webhook::server::{PATH_PODS, router, serve};
use qscaler_webhook::tls::{Loader, Served, follow_files};
use qscaler_webhook::world::World;
use rustls_pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const NAME: &str = "qscaler-webhook.q.svc";
/// Connections that the server of these tests serves at once.
const CONNECTIONS: usize = 8;
/// Far more than any step takes; only a hang meets it.
const DEADLINE: Duration = Duration::from_secs(60);

fn pair() -> (String, String, CertificateDer<'static>) {
    let key = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    (key.cert.pem(), key.signing_key.serialize_pem(), key.cert.der().clone())
}

struct Server {
    address: SocketAddr,
    served: Arc<Served>,
    metrics: Metrics,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn server(router: Router) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (served, metrics, shutdown) = (Arc::new(Served::default()), Metrics::new(Registry::default()), CancellationToken::new());
    let task = tokio::spawn(serve(listener, served.config().unwrap(), router, metrics.clone(), CONNECTIONS, shutdown.clone()));
    Server { address, served, metrics, shutdown, task }
}

async fn connect(address: SocketAddr, trusted: &CertificateDer<'static>) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(NAME).unwrap(), TcpStream::connect(address).await?).await
}

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

#[tokio::test]
async fn files_are_read_again_through_a_swapped_symlink() {
    let folder = tempfile::tempdir().unwrap();
    let put = |version: &str, cert: &str, key: &str| {
        let real = folder.path().join(version);
        std::fs::create_dir(&real).unwrap();
        std::fs::write(real.join("tls.crt"), cert).unwrap();
        std::fs::write(real.join("tls.key"), key).unwrap();
        let link = folder.path().join("new");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        std::fs::rename(link, folder.path().join("..data")).unwrap();
    };
    let (cert_a, key_a, _) = pair();
    let (cert_b, key_b, _) = pair();
    put("1", &cert_a, &key_a);
    let (served, metrics, readiness, shutdown) =
        (Arc::new(Served::default()), Metrics::new(Registry::default()), Readiness::default(), CancellationToken::new());
    let path = |file: &str| folder.path().join("..data").join(file);
    let loader = Loader::new(served, metrics.clone(), readiness.clone());
    let task = tokio::spawn(follow_files(path("tls.crt"), path("tls.key"), loader, shutdown.clone()));
    readiness.wait().await;
    assert_eq!(metrics.certificates_loaded.get(), 1);
    put("2", &cert_b, &key_b);
    tokio::time::pause();
    let loaded = async {
        while metrics.certificates_loaded.get() < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, loaded).await.unwrap();
    shutdown.cancel();
    task.await.unwrap();
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
