//! HTTP around the decisions, and TLS around HTTP. In: a listener, a TLS configuration, a decider. Out: answers; garbage gets HTTP 400. Left to
//! others: certificates (`tls`), when to stop (`run`).

use crate::admission::{self, Request, Whole};
use crate::decide::Decider;
use crate::guests::Guests;
use crate::intake::{CALL_MAX, Intake};
use crate::memory;
use crate::metrics::Metrics;
use crate::variables::PodText;
use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::FutureExt;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use qscaler_runtime::CancellationToken;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::future::{Future, ready};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Path of the webhook for pods.
pub const PATH_PODS: &str = "/mutate/pods";
/// Path of the webhook for workloads.
pub const PATH_WORKLOADS: &str = "/warn/workloads";
/// Open connections: the API server keeps one per call under way, as HTTP/1.1 (for webhooks it offers nothing else: its HTTP/2 would put all calls on one replica);
/// 1000 calls at once are far above any real burst. Beyond, whoever has been served least lately makes room.
pub const CONNECTIONS_MAX: usize = 1024;
/// Calls of one HTTP/2 connection at once: whoever has more waits, or opens another.
pub const STREAMS_MAX: u32 = 16;
/// Bytes of one call's body, over HTTP/2, that come before they are asked for: of one connection no more than 64 KiB in all, as with HTTP/1.1.
const STREAM_WINDOW: u32 = 16 << 10;
/// Most bytes of an answer that wait for an HTTP/2 client to take them, beside the answer itself.
const STREAM_SEND: usize = 64 << 10;
/// The protocol's name in a handshake (RFC 9113, section 3.2).
const H2: &[u8] = b"h2";
/// An HTTP/2 client that does not answer for so long is gone: such connections have no call to wait for.
const H2_PING: Duration = Duration::from_secs(60);
/// Most bytes of a request's head: an API server's has a few hundred.
const HEAD_BYTES_MAX: usize = 64 << 10;
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
    intake: Intake,
}

/// The two paths. Once `leaving` is cancelled, answers ask for their connection to be closed: a client that closes it after an answer never writes
/// into a connection that the server is closing, which it could not repeat.
pub fn router(decider: Decider, metrics: Metrics, leaving: CancellationToken) -> Router {
    Router::new()
        .route(PATH_PODS, post(pods))
        .route(PATH_WORKLOADS, post(workloads))
        .with_state(App { decider, metrics, intake: Intake::default() })
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

async fn pods(State(app): State<App>, Query(terms): Query<Terms>, body: Body) -> Response {
    in_time(&app, async {
        let started = Instant::now();
        let request = match read::<PodText>(&app, body).await {
            Ok(request) => request,
            Err(refused) => return refused.into_response(),
        };
        let decision = app.decider.pod(&request, terms.lookup()).await;
        let namespace = request.namespace.as_deref().unwrap_or_default();
        let prefix = request.object.without_variables().pointer("/metadata/generateName").and_then(serde_json::Value::as_str).unwrap_or_default();
        if decision.patch.is_some() {
            tracing::info!(namespace, prefix, uid = request.uid, outcome = decision.outcome, "pod patched");
        } else if !decision.warnings.is_empty() {
            tracing::warn!(
                namespace,
                prefix,
                uid = request.uid,
                outcome = decision.outcome,
                reason = decision.warnings.join("; "),
                "pod left as it is"
            );
        }
        app.metrics.pod(decision.outcome, started.elapsed());
        if decision.undecided {
            // An API server goes on without us, or refuses the pod, as `failurePolicy` says.
            return (StatusCode::SERVICE_UNAVAILABLE, decision.warnings.join("; ")).into_response();
        }
        reply(&request.uid, decision.patch.as_ref(), &decision.warnings)
    })
    .await
}

async fn workloads(State(app): State<App>, body: Body) -> Response {
    in_time(&app, async {
        let started = Instant::now();
        let request = match read::<Whole>(&app, body).await {
            Ok(request) => request,
            Err(refused) => return refused.into_response(),
        };
        let namespace = request.namespace.as_deref().unwrap_or_default();
        let warnings = app.decider.workload_warnings(&request.kind.kind, namespace, &request.object.0, &request.old_object);
        app.metrics.workload(!warnings.is_empty(), started.elapsed());
        reply(&request.uid, None, &warnings)
    })
    .await
}

/// One call from its head to its answer, or HTTP 408: the connection of a body that has not ended is closed with it.
async fn in_time(app: &App, call: impl Future<Output = Response>) -> Response {
    tokio::time::timeout(CALL_MAX, call).await.unwrap_or_else(|_| {
        app.metrics.bad_requests.inc();
        (StatusCode::REQUEST_TIMEOUT, format!("the call took longer than {} s", CALL_MAX.as_secs())).into_response()
    })
}

async fn read<Object: DeserializeOwned + Default>(app: &App, body: Body) -> Result<Request<Object>, (StatusCode, String)> {
    let request = match app.intake.read(body).await {
        // The bytes, and their places, are given back as soon as they are read.
        Ok(taken) => {
            let (read, length) = (Request::parse(&taken.bytes), taken.bytes.len());
            drop(taken);
            if length >= memory::LARGE {
                // Itself, and its values, which are gone now or with the answer.
                memory::let_go(2 * length);
            }
            read.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
        }
        Err(refused) => Err(refused),
    };
    request.inspect_err(|_| {
        app.metrics.bad_requests.inc();
    })
}

fn reply(uid: &str, patch: Option<&json_patch::Patch>, warnings: &[String]) -> Response {
    match admission::answer(uid, patch, warnings) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn http1() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    http
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(HEAD_BYTES_MAX as u32)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_send_buf_size(STREAM_SEND)
        .keep_alive_interval(H2_PING);
    http
}

/// Serves until the token is cancelled, then lets open calls end. At most `connections_max` are open at once.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    metrics: Metrics,
    connections_max: usize,
    shutdown: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let graceful = GracefulShutdown::new();
    let guests = Guests::default();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        // Answers are small and complete: nothing to gain from waiting for more bytes.
        let _ = stream.set_nodelay(true);
        let (acceptor, router, metrics, watcher) = (acceptor.clone(), router.clone(), metrics.clone(), graceful.watcher());
        let leaving = shutdown.clone();
        let guest = Arc::new(guests.enter(connections_max));
        tokio::spawn(async move {
            let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
            let stream = tokio::select! {
                () = leaving.cancelled() => return,
                () = guest.asked_to_leave() => return,
                stream = handshake => stream,
            };
            let Ok(Ok(stream)) = stream else {
                metrics.handshake_failures.inc();
                return;
            };
            metrics.connections.inc();
            let h2 = stream.get_ref().1.alpn_protocol() == Some(H2);
            let router = TowerToHyperService::new(router);
            let served = Arc::clone(&guest);
            let service = service_fn(move |request| {
                let (answer, guest) = (router.call(request), Arc::clone(&served));
                async move {
                    let mut answer = answer.await;
                    if let Ok(answer) = &mut answer {
                        if answer.status().is_success() {
                            guest.served();
                        }
                        if h2 {
                            // It has none, and says in its own way that a server leaves.
                            answer.headers_mut().remove(header::CONNECTION);
                        }
                    }
                    answer
                }
            });
            let stream = TokioIo::new(stream);
            let connection = if h2 {
                watcher.watch(http2().serve_connection(stream, service)).left_future()
            } else {
                watcher.watch(http1().serve_connection(stream, service)).right_future()
            };
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                },
                () = guest.asked_to_leave() => tracing::debug!("connection closed for another"),
            }
            metrics.connections.dec();
            memory::let_go(memory::CONNECTION);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("calls were still open when the process had to end");
    }
}
