//! A worker that says by HTTP whether it has a task. In: port and path on the pod's loopback. Out: samples: 200 is idle, 409 and 503 are busy,
//! everything else is unknown. Left to others: the worker's own server.

use crate::input::Input;
use crate::input::MainReceiver;
use crate::input::{Activity, tell};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use qscaler_core::message::Busy;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Often enough to see a task of a few seconds.
const PERIOD: Duration = Duration::from_secs(1);
/// A worker whose loop is blocked by its task does not answer: that is "unknown", and soon.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Samples until the driver is gone.
pub(super) async fn run(port: u16, path: String, main: MainReceiver, inputs: mpsc::Sender<Input>) {
    loop {
        let there = main.borrow().is_some();
        if there {
            let busy = tokio::time::timeout(TIMEOUT, ask(port, &path)).await.ok().flatten().unwrap_or(Busy::Unknown);
            if !tell(&inputs, Activity::only(busy)).await {
                return;
            }
        }
        tokio::time::sleep(PERIOD).await;
        if inputs.is_closed() {
            return;
        }
    }
}

async fn ask(port: u16, path: &str) -> Option<Busy> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::get(path).header(http::header::HOST, "127.0.0.1").body(Empty::<Bytes>::new()).ok()?;
    // The connection moves the request along, and ends once the sender is dropped.
    let asked = async move { sender.send_request(request).await.map(|response| response.status()) };
    let (status, _) = tokio::join!(asked, connection);
    let status = status.ok()?;
    Some(match status {
        StatusCode::OK => Busy::Idle,
        StatusCode::CONFLICT | StatusCode::SERVICE_UNAVAILABLE => Busy::Busy,
        _ => Busy::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_status_code_is_the_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            for status in ["200 OK", "409 Conflict", "503 Service Unavailable", "404 Not Found"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 1024];
                let length = stream.read(&mut buffer).await.unwrap();
                assert!(buffer[..length].starts_with(b"GET /busy HTTP/1.1"));
                stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await.unwrap();
            }
        });
        for expected in [Busy::Idle, Busy::Busy, Busy::Busy, Busy::Unknown] {
            assert_eq!(ask(port, "/busy").await, Some(expected));
        }
        server.await.unwrap();
        assert_eq!(ask(port, "/busy").await, None);
    }
}
