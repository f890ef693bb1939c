//! How fast the webhook answers: the real router behind TLS on loopback, called at a fixed rate from the same process. In: rate, seconds, number of
//! environment variables of the pod. Out: one JSON line with percentiles in milliseconds, counted from when a call was due, and the process's memory.
//! Left to others: the API server's own time.
//!
//! `taskset -c 0 cargo run --release -p qscaler-webhook --example load -- 1000 10 20` gives server and client one CPU together.

use anyhow::{Context, ensure};
use qscaler_core::workload::WorkloadId;
use qscaler_inject::Settings;
use qscaler_runtime::CancellationToken;
use qscaler_runtime::metrics::Registry;
use qscaler_webhook::decide::Decider;
use qscaler_webhook::metrics::Metrics;
use qscaler_webhook::server::{CONNECTIONS_MAX, PATH_PODS, router, serve};
use qscaler_webhook::tls::Served;
use qscaler_webhook::world::{Workload, World};
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const NAME: &str = "qscaler-webhook.q.svc";
/// As many as an API server keeps open under such a load.
const CONNECTIONS: u32 = 32;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<u32>());
    let mut next = |default| arguments.next().unwrap_or(Ok(default)).context("usage: load [calls per second] [seconds] [variables]");
    let (rate, seconds, variables) = (next(1000)?, next(10)?, next(20)?);
    ensure!(rate > 0 && seconds > 0, "rate and seconds must be above 0");

    let world = World::new(None);
    let annotations =
        [("queue", "orders"), ("broker", "env:URL"), ("max-replicas", "50")].map(|(k, v)| (format!("qscaler.dev/{k}"), v.to_owned())).into();
    world.put_workload(WorkloadId { namespace: "shop".into(), name: "orders".into() }, Workload { uid: "u".into(), annotations });
    let metrics = Metrics::new(Registry::default());
    let decider = Decider { world: Arc::new(world), settings: Arc::new(Settings::default()), own_namespace: "q".into() };
    let (served, shutdown) = (Arc::new(Served::default()), CancellationToken::new());
    let pair = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    served.load(pair.cert.pem().as_bytes(), pair.signing_key.serialize_pem().as_bytes())?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(serve(
        listener,
        served.config()?,
        router(decider, metrics.clone(), shutdown.clone()),
        metrics,
        CONNECTIONS_MAX,
        shutdown.clone(),
    ));

    let body = review(variables);
    let request: Arc<[u8]> = format!("POST {PATH_PODS} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes().into();
    let start = Instant::now() + Duration::from_millis(200);
    let mut callers = Vec::new();
    for caller in 0..CONNECTIONS {
        let mut stream = connect(address, pair.cert.der()).await?;
        let request = Arc::clone(&request);
        callers.push(tokio::spawn(async move {
            let mut took = Vec::new();
            for call in (caller..rate * seconds).step_by(CONNECTIONS as usize) {
                let due = start + Duration::from_secs(1).mul_f64(f64::from(call) / f64::from(rate));
                tokio::time::sleep_until(due).await;
                stream.write_all(&request).await?;
                answer(&mut stream).await?;
                took.push(due.elapsed().as_secs_f64() * 1000.0);
            }
            anyhow::Ok(took)
        }));
    }
    let mut took = Vec::new();
    for caller in callers {
        took.extend(caller.await??);
    }
    took.sort_by(f64::total_cmp);
    let at = |q: f64| took.get(((took.len() - 1) as f64 * q) as usize).copied().unwrap_or_default();
    let round = |x: f64| (x * 1000.0).round() / 1000.0;
    let line = json!({"calls": took.len(), "rate": rate, "variables": variables, "body_bytes": body.len(),
        "p50_ms": round(at(0.5)), "p99_ms": round(at(0.99)), "max_ms": round(at(1.0)), "rss_mib": round(rss_mib()?)});
    #[allow(clippy::print_stdout, reason = "the result")]
    {
        println!("{line}");
    }
    shutdown.cancel();
    server.await?;
    Ok(())
}

fn review(variables: u32) -> String {
    let mut env: Vec<_> = (0..variables).map(|i| json!({"name": format!("VARIABLE_{i}"), "value": "some value of usual length"})).collect();
    env.push(json!({"name": "URL", "value": "redis://redis:6379/0"}));
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "operation": "CREATE", "namespace": "shop", "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
        "object": {"metadata": {"generateName": "orders-5d4f-", "labels": {"pod-template-hash": "5d4f"}, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-5d4f", "controller": true}]},
            "spec": {"containers": [{"name": "w", "image": "w", "env": env}]}}}})
    .to_string()
}

async fn connect(address: std::net::SocketAddr, trusted: &CertificateDer<'static>) -> anyhow::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone())?;
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(NAME)?, tcp).await?)
}

/// Reads one answer to its end.
async fn answer(stream: &mut TlsStream<TcpStream>) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16_384];
    loop {
        let n = stream.read(&mut buffer).await?;
        ensure!(n > 0, "the server closed the connection");
        bytes.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length: usize = head.lines().find_map(|l| l.strip_prefix("content-length: ")).context("no length")?.parse()?;
        if body.len() >= length {
            ensure!(head.starts_with("HTTP/1.1 200") && body.contains("JSONPatch"), "{head}");
            return Ok(());
        }
    }
}

/// Resident memory of this process, client included.
fn rss_mib() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?.trim().trim_end_matches(" kB").parse::<f64>()?;
    Ok(kib / 1024.0)
}
