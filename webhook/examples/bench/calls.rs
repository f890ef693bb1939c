//! Calls of a webhook over TLS. In: where it is, bodies, a rate. Out: how long each took, counted from when it was due, so that a late call makes those behind
//! it late too. Left to others: what is in a body, what the times mean.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connections that are kept: as many as an API server has open under such a load.
const CONNECTIONS: u32 = 32;
/// A call that takes longer has failed: no API server waits longer than 10 s.
const CALL_MAX: Duration = Duration::from_secs(10);
/// Between two bytes of a trickling connection.
const TRICKLE_EVERY: Duration = Duration::from_secs(1);
/// What a trickling connection says it will send, bytes: more than it ever does.
const TRICKLE_BYTES: usize = 100_000;
/// How late a timer may be.
const TIMER: Duration = Duration::from_millis(2);
/// Before the first call of a run, so that all connections stand.
const LEAD: Duration = Duration::from_millis(300);

/// Where a webhook is.
#[derive(Clone)]
pub(crate) struct Target {
    authority: String,
    host: String,
    path: String,
    /// Answers must hold a patch.
    patches: bool,
    tls: TlsConnector,
}

impl Target {
    /// Any webhook, by its URL.
    pub(crate) fn of(url: &str) -> Result<Self> {
        let uri: Uri = url.parse().context("--url")?;
        ensure!(uri.scheme_str() == Some("https"), "--url: https://HOST:PORT/PATH");
        let host = uri.host().context("--url has no host")?.trim_matches(['[', ']']).to_owned();
        let authority = format!("{}:{}", uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(443));
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Whoever(ring::default_provider())))
            .with_no_client_auth();
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { authority, host, path, patches: false, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// The same, whose every answer must hold a patch.
    pub(crate) fn patching(self) -> Self {
        Self { patches: true, ..self }
    }

    async fn stream(&self) -> Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(&self.authority).await.with_context(|| format!("no connection to {}", self.authority))?;
        tcp.set_nodelay(true)?;
        Ok(self.tls.connect(ServerName::try_from(self.host.clone())?, tcp).await?)
    }

    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>> {
        let (sender, connection) = handshake(TokioIo::new(self.stream().await?)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn call(&self, connection: &mut SendRequest<Full<Bytes>>, body: &Bytes) -> Result<()> {
        let request = Request::post(&self.path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.clone()))?;
        let whole = async {
            connection.ready().await?;
            let response = connection.send_request(request).await?;
            let status = response.status();
            anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        let (status, answer) = tokio::time::timeout(CALL_MAX, whole).await.context("no answer in time")??;
        ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&answer));
        ensure!(!self.patches || answer.windows(9).any(|part| part == b"JSONPatch"), "no patch: {}", String::from_utf8_lossy(&answer));
        Ok(())
    }
}

/// Times of calls, milliseconds, sorted.
#[derive(Default)]
pub(crate) struct Times {
    took: Vec<f64>,
    failures: Vec<String>,
}

impl Times {
    /// The time that this share of the calls did not exceed.
    pub(crate) fn at(&self, share: f64) -> f64 {
        self.took.get((self.took.len().saturating_sub(1) as f64 * share) as usize).copied().unwrap_or_default()
    }

    pub(crate) fn count(&self) -> usize {
        self.took.len()
    }

    pub(crate) fn failed(&self) -> usize {
        self.failures.len()
    }

    pub(crate) fn first_failure(&self) -> &str {
        self.failures.first().map_or("", String::as_str)
    }

    /// Both together.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.took.extend(other.took);
        self.failures.extend(other.failures);
        self.took.sort_by(f64::total_cmp);
        self
    }
}

/// Calls at a fixed rate, by kept connections.
pub(crate) async fn at_rate(target: &Target, bodies: &[Bytes], rate: u32, length: Duration) -> Result<Times> {
    // At most an hour of 100,000 a second.
    let calls = (length.as_secs_f64() * f64::from(rate)) as u32;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(target.connection().await?);
    }
    let start = Instant::now() + LEAD;
    let bodies: Arc<[Bytes]> = bodies.into();
    let mut callers = JoinSet::new();
    for (caller, mut connection) in (0_u32..).zip(connections) {
        let (target, bodies) = (target.clone(), Arc::clone(&bodies));
        callers.spawn(async move {
            let mut times = Times::default();
            for call in (caller..calls).step_by(CONNECTIONS as usize) {
                let due = start + Duration::from_secs_f64(f64::from(call) / f64::from(rate));
                until(due).await;
                match target.call(&mut connection, &bodies[call as usize % bodies.len()]).await {
                    Ok(()) => times.took.push(due.elapsed().as_secs_f64() * 1000.0),
                    Err(error) => {
                        times.failures.push(format!("{error:#}"));
                        connection = target.connection().await?;
                    }
                }
            }
            anyhow::Ok(times)
        });
    }
    let mut all = Times::default();
    while let Some(times) = callers.join_next().await {
        all = all.and(times??);
    }
    Ok(all)
}

/// The runtime's timer counts whole milliseconds, so the last of them are waited for by looking: a call that is late by the clock of whoever measures says nothing.
async fn until(due: Instant) {
    tokio::time::sleep_until(due - TIMER).await;
    while Instant::now() < due {
        tokio::task::yield_now().await;
    }
}

/// Calls on one connection, each as soon as the one before is answered.
pub(crate) async fn one_by_one(target: &Target, body: &Bytes, count: usize) -> Result<Times> {
    let mut connection = target.connection().await?;
    let mut times = Times::default();
    for _ in 0..count {
        let begin = Instant::now();
        target.call(&mut connection, body).await?;
        times.took.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(times.and(Times::default()))
}

/// Bodies that deserve no answer; whatever becomes of them.
pub(crate) async fn bombs(target: &Target, bodies: &[Bytes], count: usize, at_once: usize) {
    for round in 0..count.div_ceil(at_once) {
        let mut callers = JoinSet::new();
        for one in 0..at_once {
            let (target, body) = (target.clone(), bodies[(round * at_once + one) % bodies.len()].clone());
            callers.spawn(async move {
                if let Ok(mut connection) = target.connection().await {
                    let _ = target.call(&mut connection, &body).await;
                }
            });
        }
        callers.join_all().await;
    }
}

/// Connections that begin a call and send a byte of it a second; one that is closed is opened again.
pub(crate) struct Trickle(JoinSet<()>);

impl Trickle {
    /// Answers when all stand.
    pub(crate) async fn begin(target: &Target, count: usize) -> Result<Self> {
        let mut all = JoinSet::new();
        for _ in 0..count {
            let mut stream = target.stream().await?;
            let target = target.clone();
            all.spawn(async move {
                loop {
                    let head = format!("POST {} HTTP/1.1\r\nhost: {}\r\ncontent-length: {TRICKLE_BYTES}\r\n\r\n", target.path, target.authority);
                    let mut sent = stream.write_all(head.as_bytes()).await;
                    while sent.is_ok() {
                        tokio::time::sleep(TRICKLE_EVERY).await;
                        sent = stream.write_all(b" ").await;
                    }
                    stream = loop {
                        match target.stream().await {
                            Ok(stream) => break stream,
                            Err(_) => tokio::time::sleep(TRICKLE_EVERY).await,
                        }
                    };
                }
            });
        }
        Ok(Self(all))
    }

    /// Closes all.
    pub(crate) fn end(mut self) {
        self.0.abort_all();
    }
}

/// Takes any certificate: what is measured is time, and nothing is sent that anybody may not read.
#[derive(Debug)]
struct Whoever(CryptoProvider);

impl ServerCertVerifier for Whoever {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
