//! Short HTTP answers on a listener of this process. In: a bound listener, and a function from requests to answers. Out: answers, until the token is cancelled. Left
//! to others: what is answered (`admin`, a page), authentication.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
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

/// An answer that is whole from the start.
pub type Answer = Response<Full<Bytes>>;

/// An answer with this body.
#[must_use]
pub fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Serves until the token is cancelled, then lets open answers finish.
pub async fn serve<F>(listener: TcpListener, answers: F, shutdown: CancellationToken)
where
    F: Fn(&Request<Incoming>) -> Answer + Clone + Send + Sync + 'static,
{
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
                tracing::debug!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        // Above the cap a connection is closed at once: an old one must not lock the probes out by waiting.
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let answers = answers.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let response = answers(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::debug!("connections were still open");
    }
}
