//! HTTP/2, where a client offers it: the same bounds as with HTTP/1.1, and one more, on the calls of one connection.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test helper is a failed test with a line number")]

mod served;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, Version};
use axum::routing::get;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use qscaler_inject::Settings;
use qscaler_runtime::CancellationToken;
use qscaler_runtime::metrics::Registry;
use qscaler_webhook::decide::Decider;
use qscaler_webhook::metrics::Metrics;
use qscaler_webhook::server::{PATH_PODS, STREAMS_MAX, router};
use qscaler_webhook::world::World;
use served::{DEADLINE, Server, connect_offering, pair, server};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// A client as Go's is that may choose: it offers both, and takes what the server likes best.
async fn client(server: &Server) -> SendRequest<Body> {
    let (cert, key, der) = pair();
    server.served.load(cert.as_bytes(), key.as_bytes()).unwrap();
    let stream = connect_offering(server.address, &[&der], &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask(mut sender: SendRequest<Body>, path: &str, body: Body) -> (StatusCode, Bytes) {
    let request = Request::post(format!("https://{}{path}", served::NAME)).version(Version::HTTP_2).body(body).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status();
    (status, answer.into_body().collect().await.unwrap().to_bytes())
}

fn webhook(leaving: CancellationToken) -> Router {
    let decider = Decider { world: Arc::new(World::new(None)), settings: Arc::new(Settings::default()), own_namespace: "q".into() };
    router(decider, Metrics::new(Registry::default()), leaving)
}

fn review(uid: usize) -> Body {
    let text = format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u-{uid}","operation":"CREATE","namespace":"shop","object":{{"spec":{{}}}}}}}}"#
    );
    text.into()
}

#[tokio::test]
async fn calls_of_one_connection_are_answered_side_by_side_and_a_slow_or_huge_one_holds_up_no_other() {
    let leaving = CancellationToken::new();
    let server = server(webhook(leaving.clone())).await;
    let sender = client(&server).await;
    // Begun, and never ended.
    let begun = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"{\"api"))]).chain(stream::pending());
    let slow = tokio::spawn(ask(sender.clone(), PATH_PODS, Body::from_stream(begun)));
    for (size, status) in [(5 << 20, StatusCode::PAYLOAD_TOO_LARGE), (3 << 20, StatusCode::BAD_REQUEST)] {
        assert_eq!(ask(sender.clone(), PATH_PODS, vec![b' '; size].into()).await.0, status);
    }
    // Without its length, so that all of it comes.
    let pieces = stream::iter((0..600).map(|_| Ok::<_, Infallible>(Bytes::from(vec![b' '; 8 << 10]))));
    assert_eq!(ask(sender.clone(), PATH_PODS, Body::from_stream(pieces)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    for _ in 0..2 {
        let calls = (0..4 * STREAMS_MAX as usize).map(|uid| ask(sender.clone(), PATH_PODS, review(uid)));
        for (uid, (status, answer)) in futures::future::join_all(calls).await.into_iter().enumerate() {
            assert_eq!(status, StatusCode::OK);
            assert!(String::from_utf8_lossy(&answer).contains(&format!("\"u-{uid}\"")), "each gets its own");
        }
        // A replica that leaves still answers.
        leaving.cancel();
    }
    let (status, words) = tokio::time::timeout(DEADLINE, slow).await.unwrap().unwrap();
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT, "{}", String::from_utf8_lossy(&words));
    server.shutdown.cancel();
    tokio::time::timeout(DEADLINE, server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn of_one_connection_so_many_calls_run_at_once_and_they_end_before_the_server_does() {
    let (inside, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (count, wait) = (Arc::clone(&inside), Arc::clone(&release));
    let park = move || {
        let (count, wait) = (Arc::clone(&count), Arc::clone(&wait));
        async move {
            let waiting = wait.notified();
            count.fetch_add(1, Ordering::SeqCst);
            waiting.await;
            "done"
        }
    };
    let server = server(Router::new().route("/park", get(park.clone()).post(park))).await;
    let sender = client(&server).await;
    // The server's settings are known with its first answer.
    assert_eq!(ask(sender.clone(), "/nothing", Body::empty()).await.0, StatusCode::NOT_FOUND);
    let all = STREAMS_MAX as usize;
    let calls: Vec<_> = (0..all + 4).map(|_| tokio::spawn(ask(sender.clone(), "/park", Body::empty()))).collect();
    let full = async {
        while inside.load(Ordering::SeqCst) < all {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, full).await.unwrap();
    // Time enough for one more, if one more were let in.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(inside.load(Ordering::SeqCst), all);
    release.notify_waiters();
    let more = async {
        while inside.load(Ordering::SeqCst) < all + 4 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, more).await.unwrap();
    server.shutdown.cancel();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(!server.task.is_finished(), "calls are open");
    release.notify_waiters();
    for call in calls {
        assert_eq!(call.await.unwrap(), (StatusCode::OK, Bytes::from_static(b"done")));
    }
    tokio::time::timeout(DEADLINE, server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_offers_only_http_1_gets_it() {
    let server = server(Router::new().route("/", get(|| async { "done" }))).await;
    let (cert, key, der) = pair();
    server.served.load(cert.as_bytes(), key.as_bytes()).unwrap();
    for (offers, gets) in [(&[&b"http/1.1"[..]][..], Some(&b"http/1.1"[..])), (&[], None)] {
        let stream = connect_offering(server.address, &[&der], offers).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), gets);
    }
    assert!(connect_offering(server.address, &[&der], &[b"spdy/3"]).await.is_err());
}
