//! The admin endpoints of a process: `/livez`, `/readyz`, `/metrics`, `/debug/decisions`. In: a bound listener, readiness, closures. Out: short
//! HTTP answers. Left to others: connections (`serve`); authentication (the port is for the pod's node and the metrics scraper; nothing behind it changes anything).

use crate::metrics;
use crate::ready::Readiness;
use crate::serve::{self, Answer, answer};
use http::{Method, StatusCode};
use std::fmt;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

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
    pub fn answer(&self, method: &Method, path: &str) -> Answer {
        if method != Method::GET && method != Method::HEAD {
            return answer(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n");
        }
        match (path, &self.metrics, &self.decisions) {
            ("/livez", ..) => answer(StatusCode::OK, PLAIN, "ok\n"),
            ("/readyz", ..) => match self.readiness.reason() {
                None => answer(StatusCode::OK, PLAIN, "ok\n"),
                Some(reason) => answer(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{reason}\n")),
            },
            ("/metrics", Some(metrics), _) => answer(StatusCode::OK, metrics::CONTENT_TYPE, metrics()),
            ("/debug/decisions", _, Some(decisions)) => answer(StatusCode::OK, "application/json", decisions()),
            _ => answer(StatusCode::NOT_FOUND, PLAIN, "not found\n"),
        }
    }
}

/// Serves until the token is cancelled, then lets open answers finish.
pub async fn serve(listener: TcpListener, admin: Admin, shutdown: CancellationToken) {
    serve::serve(listener, move |request| admin.answer(request.method(), request.uri().path()), shutdown).await;
}
