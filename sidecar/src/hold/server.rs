//! The sidecar's port: probes, the preStop hooks, metrics. In: HTTP from the node, and from anyone on the pod network. Out: hook calls for the
//! driver; answers. Left to others: when a hold is answered (`core::drain::worker`).
//!
//! Nothing here helps or hurts a stranger: hooks want the token, a connection that does not ask in time is closed, and one request is served
//! per connection. Hold calls are many, idempotent, and answered all at once; a caller may be gone by then.

use crate::input::Input;
use crate::metrics::Metrics;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use qscaler_core::drain::worker::WorkerEvent;
use qscaler_core::names::sidecar as names;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc};

/// Answers as long as the process lives; what `wait` polls.
pub const PATH_LIVE: &str = "/livez";
/// A caller that has not sent its request by then is not the kubelet, which writes it at once.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that have not shown the token: a kubelet needs two or three. More wait in the kernel's queue, at most [`HEAD_TIMEOUT`].
const STRANGERS_MAX: usize = 64;
/// Hold calls waiting at once: containers of the pod, times a few kubelet restarts. Beyond, a call is answered at once, as if it had failed.
const HOLDS_MAX: usize = 256;
/// One request line and a kubelet's headers have a few hundred bytes; hyper takes no smaller buffer than this.
const HEAD_BYTES_MAX: usize = 8192;
/// After a failed accept (out of file descriptors): a moment for others to close theirs.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A hold is answered so much later than the driver says. The kubelet then stops the container at once, and if the worker has left only just now, it meets
/// a container runtime that is about to note that: with containerd the call can fail (`ttrpc: closed`), and a kubelet whose stop of a plain container has
/// failed lets the native sidecar live, and the pod stay, for all of its grace. Seen on containerd 1.6 and Kubernetes 1.36; docs/adr/0003.
const RUNTIME_SETTLES: Duration = Duration::from_secs(1);

/// What the server shows and whom it tells. Shared with the driver.
#[derive(Debug)]
pub struct Hooks {
    token: String,
    /// The worker's container.
    container: String,
    ready: AtomicBool,
    /// Wakes every waiting hold call of the worker's container.
    answered: Notify,
    /// And those of the other containers.
    helpers_answered: Notify,
    holds: Semaphore,
    inputs: mpsc::Sender<Input>,
    metrics: Metrics,
}

impl Hooks {
    /// Not ready yet, no calls.
    #[must_use]
    pub fn new(token: String, container: String, inputs: mpsc::Sender<Input>, metrics: Metrics) -> Self {
        let (answered, helpers_answered) = (Notify::new(), Notify::new());
        Self { token, container, ready: AtomicBool::new(false), answered, helpers_answered, holds: Semaphore::new(HOLDS_MAX), inputs, metrics }
    }

    /// What the readiness probe is told from now on.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
        self.metrics.ready.set(f64::from(u8::from(ready)));
    }

    /// Answers every hold call that waits now, a moment later.
    pub fn answer_holds(&self) {
        self.answered.notify_waiters();
        self.helpers_answered.notify_waiters();
    }

    /// Answers those of the other containers alone.
    pub fn answer_helpers(&self) {
        self.helpers_answered.notify_waiters();
    }

    /// A hook of this container; without a name, as pods of an older release call it, the worker's.
    async fn hold(&self, container: Option<&str>) -> StatusCode {
        let is_helper = container.is_some_and(|name| name != self.container);
        let (answered, event) =
            if is_helper { (&self.helpers_answered, WorkerEvent::HelperHoldCalled) } else { (&self.answered, WorkerEvent::HoldCalled) };
        let Ok(_place) = self.holds.try_acquire() else { return StatusCode::TOO_MANY_REQUESTS };
        self.metrics.hold_calls.inc();
        // Registered before the driver hears of the call: its answer may come at once.
        let answered = answered.notified();
        tokio::pin!(answered);
        answered.as_mut().enable();
        if self.inputs.send(Input::Worker(event)).await.is_err() {
            return StatusCode::OK;
        }
        answered.await;
        tokio::time::sleep(RUNTIME_SETTLES).await;
        StatusCode::OK
    }

    async fn answer(&self, method: &Method, path: &str, query: Option<&str>) -> (StatusCode, String) {
        if method != Method::GET {
            return (StatusCode::METHOD_NOT_ALLOWED, String::new());
        }
        match path {
            names::PATH_READY if self.ready.load(Ordering::Relaxed) => return (StatusCode::OK, String::new()),
            names::PATH_READY => return (StatusCode::SERVICE_UNAVAILABLE, String::new()),
            PATH_LIVE => return (StatusCode::OK, String::new()),
            names::PATH_METRICS => return (StatusCode::OK, self.metrics.render()),
            _ => {}
        }
        let hook = |prefix: &str| path.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/'));
        let (token, is_hold) = match (hook(names::PATH_HOLD), hook(names::PATH_OWN)) {
            (Some(token), _) => (token, true),
            (_, Some(token)) => (token, false),
            _ => return (StatusCode::NOT_FOUND, String::new()),
        };
        if !same(token, &self.token) {
            self.metrics.refused_calls.inc();
            return (StatusCode::FORBIDDEN, String::new());
        }
        if is_hold {
            let container = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("container=")));
            return (self.hold(container).await, String::new());
        }
        // A full channel or a gone driver: the answer is the same, for the pod's end must not wait for us.
        let _ = self.inputs.send(Input::Worker(WorkerEvent::OwnHookCalled)).await;
        (StatusCode::OK, String::new())
    }
}

/// Compares without telling by its duration how far the two agree.
fn same(given: &str, expected: &str) -> bool {
    given.len() == expected.len() && given.bytes().zip(expected.bytes()).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, hooks: Arc<Hooks>) {
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    loop {
        let Ok(place) = Arc::clone(&strangers).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let hooks = Arc::clone(&hooks);
                tokio::spawn(async move { connection(stream, hooks, place).await });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, hooks: Arc<Hooks>, place: tokio::sync::OwnedSemaphorePermit) {
    let place = std::sync::Mutex::new(Some(place));
    let service = service_fn(|request: Request<Incoming>| {
        // From here on the connection is a request under way, no longer one that only takes a place.
        drop(place.lock().ok().and_then(|mut place| place.take()));
        let hooks = Arc::clone(&hooks);
        async move {
            let (status, text) = hooks.answer(request.method(), request.uri().path(), request.uri().query()).await;
            let mut response = Response::new(Full::new(Bytes::from(text)));
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).keep_alive(false).max_buf_size(HEAD_BYTES_MAX);
    // A caller that is gone is no error of ours: the kubelet was restarted, or its pod is gone.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const TOKEN: &str = "0123456789abcdef";

    async fn start() -> (std::net::SocketAddr, Arc<Hooks>, mpsc::Receiver<Input>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = mpsc::channel(16);
        let hooks = Arc::new(Hooks::new(TOKEN.to_owned(), "worker".to_owned(), sender, Metrics::default()));
        tokio::spawn(serve(listener, Arc::clone(&hooks)));
        (address, hooks, receiver)
    }

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn readiness_follows_the_driver() {
        let (address, hooks, _inputs) = start().await;
        assert!(get(address, "/ready").await.starts_with("HTTP/1.1 503"));
        hooks.set_ready(true);
        assert!(get(address, "/ready").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/metrics").await.contains("qscaler_sidecar_ready 1"));
    }

    #[tokio::test]
    async fn a_stranger_without_the_token_is_refused_and_nothing_happens() {
        let (address, _hooks, mut inputs) = start().await;
        for path in ["/hold/x", "/hold/0123456789abcdeX", "/own/", "/hold/0123456789abcdef/x"] {
            assert!(get(address, path).await.starts_with("HTTP/1.1 403"), "{path}");
        }
        assert!(get(address, "/hold").await.starts_with("HTTP/1.1 404"));
        assert!(get(address, "/else").await.starts_with("HTTP/1.1 404"));
        assert!(inputs.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_leaves_the_runtime_time_to_note_that_the_worker_has_left() {
        let (sender, mut inputs) = mpsc::channel(16);
        let hooks = Arc::new(Hooks::new(TOKEN.to_owned(), "worker".to_owned(), sender, Metrics::default()));
        let call = tokio::spawn({
            let hooks = Arc::clone(&hooks);
            async move { hooks.hold(None).await }
        });
        assert_eq!(inputs.recv().await, Some(Input::Worker(WorkerEvent::HoldCalled)));
        let begin = tokio::time::Instant::now();
        hooks.answer_holds();
        assert_eq!(call.await.unwrap(), StatusCode::OK);
        assert_eq!(begin.elapsed(), RUNTIME_SETTLES);
    }

    #[tokio::test]
    async fn many_hold_calls_are_answered_all_at_once_even_if_some_callers_are_gone() {
        let (address, hooks, mut inputs) = start().await;
        let path = format!("/hold/{TOKEN}?container=worker");
        let calls: Vec<_> = (0..20)
            .map(|_| {
                tokio::spawn({
                    let path = path.clone();
                    async move { get(address, &path).await }
                })
            })
            .collect();
        for _ in 0..20 {
            assert_eq!(inputs.recv().await, Some(Input::Worker(WorkerEvent::HoldCalled)));
        }
        calls[3].abort();
        hooks.answer_holds();
        for (i, call) in calls.into_iter().enumerate() {
            match call.await {
                Ok(text) => assert!(text.starts_with("HTTP/1.1 200")),
                Err(error) => assert!(i == 3 && error.is_cancelled()),
            }
        }
    }

    #[tokio::test]
    async fn the_hook_of_another_container_is_told_apart_and_answered_alone() {
        let (address, hooks, mut inputs) = start().await;
        let helper = tokio::spawn(async move { get(address, &format!("/hold/{TOKEN}?container=metrics")).await });
        assert_eq!(inputs.recv().await, Some(Input::Worker(WorkerEvent::HelperHoldCalled)));
        let own = tokio::spawn(async move { get(address, &format!("/hold/{TOKEN}?container=worker")).await });
        assert_eq!(inputs.recv().await, Some(Input::Worker(WorkerEvent::HoldCalled)));
        hooks.answer_helpers();
        assert!(helper.await.unwrap().starts_with("HTTP/1.1 200"));
        assert!(!own.is_finished());
        hooks.answer_holds();
        assert!(own.await.unwrap().starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn the_own_hook_is_answered_at_once() {
        let (address, _hooks, mut inputs) = start().await;
        assert!(get(address, &format!("/own/{TOKEN}")).await.starts_with("HTTP/1.1 200"));
        assert_eq!(inputs.recv().await, Some(Input::Worker(WorkerEvent::OwnHookCalled)));
    }

    #[tokio::test]
    async fn idle_strangers_do_not_keep_a_hold_call_out() {
        let (address, hooks, mut inputs) = start().await;
        let mut idle = Vec::new();
        for _ in 0..STRANGERS_MAX + 8 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let call = tokio::spawn(async move { get(address, &format!("/hold/{TOKEN}")).await });
        let deadline = Duration::from_secs(60);
        let input = tokio::time::timeout(deadline, inputs.recv()).await.unwrap();
        assert_eq!(input, Some(Input::Worker(WorkerEvent::HoldCalled)));
        hooks.answer_holds();
        assert!(tokio::time::timeout(deadline, call).await.unwrap().unwrap().starts_with("HTTP/1.1 200"));
    }
}
