//! The admin endpoints over a real loopback socket, and their end.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test helper is a failed test with a line number")]

use qscaler_runtime::CancellationToken;
use qscaler_runtime::admin::{Admin, serve};
use qscaler_runtime::metrics::{Counter, Registry};
use qscaler_runtime::ready::Readiness;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn get(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[tokio::test]
async fn the_endpoints_say_alive_ready_metrics_and_decisions() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (readiness, mut registry, shutdown) = (Readiness::default(), Registry::default(), CancellationToken::new());
    registry.add("qscaler_test", "Test", Counter::default()).inc();
    let cache = readiness.handle("the cache");
    let admin = Admin::new(readiness.clone()).metrics(move || registry.text()).decisions(|| "{\"last\":[]}".to_owned());
    let server = tokio::spawn(serve(listener, admin, shutdown.clone()));

    assert_eq!(get(address, "GET", "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(get(address, "GET", "/readyz").await, (503, "waiting for the cache\n".to_owned()));
    cache.release();
    assert_eq!(get(address, "GET", "/readyz").await.0, 200);
    readiness.drain();
    assert_eq!(get(address, "GET", "/readyz").await, (503, "draining\n".to_owned()));
    assert!(get(address, "GET", "/metrics").await.1.contains("qscaler_test_total 1"));
    assert_eq!(get(address, "GET", "/debug/decisions").await.1, "{\"last\":[]}");
    assert_eq!(get(address, "GET", "/secret").await.0, 404);
    assert_eq!(get(address, "POST", "/livez").await.0, 405);

    shutdown.cancel();
    server.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_the_shutdown_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(serve(listener, Admin::new(Readiness::default()), shutdown.clone()));
    let _idle = TcpStream::connect(address).await.unwrap();
    assert_eq!(get(address, "GET", "/livez").await.0, 200);
    shutdown.cancel();
    server.await.unwrap();
}
