//! HTTP around the decisions, and TLS around HTTP. In: a listener, a TLS configuration, a decider. Out: answers; garbage gets HTTP 400. Left to
//! others: certificates (`tls`), when to stop (`run`).

use crate::admission::{self, Request};
use crate::decide::Decider;
use crate::metrics::Metrics;
use axum::Router;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use qscaler_runtime::CancellationToken;
use serde::Deserialize;
use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// Path of the webhook for pods.
pub const PATH_PODS: &str = "/mutate/pods";
/// Path of the webhook for workloads.
pub const PATH_WORKLOADS: &str = "/warn/workloads";
/// Largest body: the API server takes objects up to 3 MB, and a review may hold one twice and the caller's groups.
const BODY_MAX: usize = 8 << 20;
/// Open connections: the API server keeps one per call under way, as HTTP/1.1; 1000 calls at once are far above any real burst.
const CONNECTIONS_MAX: usize = 1024;
/// A handshake takes milliseconds; longer is someone holding a connection.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle keep-alive connections live a little longer than the API server's own 90 s: so it closes them, and no call meets a closing connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Open calls at shutdown: the API server gives up after 3 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Wait after a failed accept (out of file descriptors): trying at once would spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How long the API server waits where it does not say: the chart's `webhook.timeoutSeconds`.
const API_SERVER_WAITS: Duration = Duration::from_secs(3);
/// Of that time this much is for everything but looking a workload up: an answer that comes too late leaves the pod without a sidecar, as none does.
const ANSWERING: Duration = Duration::from_millis(700);
/// A lookup may take this long in any case.
const LOOKUP_MIN: Duration = Duration::from_millis(300);

#[derive(Clone)]
struct App {
    decider: Decider,
    metrics: Metrics,
}

/// The two paths. Once `leaving` is cancelled, answers ask for their connection to be closed: a client that closes it after an answer never writes
/// into a connection that the server is closing, which it could not repeat.
pub fn router(decider: Decider, metrics: Metrics, leaving: CancellationToken) -> Router {
    Router::new()
        .route(PATH_PODS, post(pods))
        .route(PATH_WORKLOADS, post(workloads))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(App { decider, metrics })
        .layer(map_response(move |mut response: Response| {
            if leaving.is_cancelled() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            ready(response)
        }))
}

/// What the API server appends to the path.
#[derive(Deserialize)]
struct Terms {
    /// How long it waits for the answer, such as `3s`.
    timeout: Option<String>,
}

impl Terms {
    /// How long asking for a workload may take.
    fn lookup(&self) -> Duration {
        let seconds = self.timeout.as_deref().and_then(|text| text.strip_suffix('s')?.parse().ok());
        seconds.map_or(API_SERVER_WAITS, Duration::from_secs).saturating_sub(ANSWERING).max(LOOKUP_MIN)
    }
}

async fn pods(State(app): State<App>, Query(terms): Query<Terms>, body: Result<Bytes, BytesRejection>) -> Response {
    let started = Instant::now();
    let request = match read(&app, body) {
        Ok(request) => request,
        Err(refused) => return refused.into_response(),
    };
    let decision = app.decider.pod(&request, terms.lookup()).await;
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let prefix = request.object.pointer("/metadata/generateName").and_then(serde_json::Value::as_str).unwrap_or_default();
    if decision.patch.is_some() {
        tracing::info!(namespace, prefix, uid = request.uid, outcome = decision.outcome, "pod patched");
    } else if !decision.warnings.is_empty() {
        tracing::warn!(namespace, prefix, uid = request.uid, outcome = decision.outcome, reason = decision.warnings.join("; "), "pod left as it is");
    }
    app.metrics.pod(decision.outcome, started.elapsed());
    reply(&request.uid, decision.patch.as_ref(), &decision.warnings)
}

async fn workloads(State(app): State<App>, body: Result<Bytes, BytesRejection>) -> Response {
    let started = Instant::now();
    let request = match read(&app, body) {
        Ok(request) => request,
        Err(refused) => return refused.into_response(),
    };
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let warnings = app.decider.workload_warnings(&request.kind.kind, namespace, &request.object);
    app.metrics.workload(!warnings.is_empty(), started.elapsed());
    reply(&request.uid, None, &warnings)
}

fn read(app: &App, body: Result<Bytes, BytesRejection>) -> Result<Request, (StatusCode, String)> {
    let refused = |status: StatusCode, words: String| {
        app.metrics.bad_requests.inc();
        (status, words)
    };
    let body = body.map_err(|rejection| refused(rejection.status(), rejection.body_text()))?;
    Request::parse(&body).map_err(|error| refused(StatusCode::BAD_REQUEST, error.to_string()))
}

fn reply(uid: &str, patch: Option<&json_patch::Patch>, warnings: &[String]) -> Response {
    match admission::answer(uid, patch, warnings) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Serves until the token is cancelled, then lets open calls end.
pub async fn serve(listener: TcpListener, tls: Arc<rustls::ServerConfig>, router: Router, metrics: Metrics, shutdown: CancellationToken) {
    let acceptor = TlsAcceptor::from(tls);
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let Some((stream, slot)) = accepted else {
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        let (acceptor, router, metrics, watcher) = (acceptor.clone(), router.clone(), metrics.clone(), graceful.watcher());
        let leaving = shutdown.clone();
        tokio::spawn(async move {
            let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
            let stream = tokio::select! {
                () = leaving.cancelled() => return,
                stream = handshake => stream,
            };
            let Ok(Ok(stream)) = stream else {
                metrics.handshake_failures.inc();
                return;
            };
            metrics.connections.add(1.0);
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT);
            let connection = watcher.watch(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
            metrics.connections.add(-1.0);
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("calls were still open when the process had to end");
    }
}

/// The next connection, once there is a slot for it: the rest wait in the kernel's queue.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    // The semaphore is never closed.
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            // Answers are small and complete: nothing to gain from waiting for more bytes.
            let _ = stream.set_nodelay(true);
            Some((stream, slot))
        }
        Err(error) => {
            tracing::debug!(%error, "accept failed");
            None
        }
    }
}
