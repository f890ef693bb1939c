//! The admin endpoints of a process: `/livez`, `/readyz`, `/metrics`, `/debug/decisions`. In: a bound listener, readiness, closures. Out: short
//! HTTP answers. Left to others: authentication (the port is for the pod's node and the metrics scraper; nothing behind it changes anything).

use crate::metrics;
use crate::ready::Readiness;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Connections served at once: probes and scrapers need a handful; more means someone is holding them.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take over a request's head, and how long an idle connection is kept: longer than a usual scrape interval.
const HEADER_TIMEOUT: Duration = Duration::from_secs(90);
/// How long open answers may take once the process shuts down: they are all short.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Wait after a failed accept (out of file descriptors): trying at once would spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What people read.
const PLAIN: &str = "text/plain; charset=utf-8";

type Text = Arc<dyn Fn() -> String + Send + Sync>;

/// What the endpoints say.
#[derive(Clone)]
pub struct Admin {
    readiness: Readiness,
    metrics: Option<Text>,
    decisions: Option<Text>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("readiness", &self.readiness).finish_non_exhaustive()
    }
}

impl Admin {
    /// `/livez` and `/readyz` only.
    #[must_use]
    pub fn new(readiness: Readiness) -> Self {
        Self { readiness, metrics: None, decisions: None }
    }

    /// Adds `/metrics`; the closure gives the Prometheus text.
    #[must_use]
    pub fn metrics(mut self, text: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.metrics = Some(Arc::new(text));
        self
    }

    /// Adds `/debug/decisions`; the closure gives a JSON text.
    #[must_use]
    pub fn decisions(mut self, json: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.decisions = Some(Arc::new(json));
        self
    }

    /// The answer to one request.
    #[must_use]
    pub fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".to_owned());
        }
        match (path, &self.metrics, &self.decisions) {
            ("/livez", ..) => text(StatusCode::OK, PLAIN, "ok\n".to_owned()),
            ("/readyz", ..) => match self.readiness.reason() {
                None => text(StatusCode::OK, PLAIN, "ok\n".to_owned()),
                Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{reason}\n")),
            },
            ("/metrics", Some(metrics), _) => text(StatusCode::OK, metrics::CONTENT_TYPE, metrics()),
            ("/debug/decisions", _, Some(decisions)) => text(StatusCode::OK, "application/json", decisions()),
            _ => text(StatusCode::NOT_FOUND, PLAIN, "not found\n".to_owned()),
        }
    }
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// Serves until the token is cancelled, then lets open answers finish.
pub async fn serve(listener: TcpListener, admin: Admin, shutdown: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "admin: accept failed");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        // Above the cap a connection is closed at once: an old one must not lock the probes out by waiting.
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let admin = admin.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let response = admin.answer(request.method(), request.uri().path());
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "admin: connection ended");
            }
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::debug!("admin: connections were still open");
    }
}
