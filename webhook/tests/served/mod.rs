//! What the tests over a socket have in common. In: routes. Out: a server on a loopback port that changes its certificate at will, and TLS clients. Left to others:
//! what is asked of it.

#![allow(dead_code, reason = "each test program uses some of it")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test helper is a failed test with a line number")]

use axum::Router;
use qscaler_runtime::CancellationToken;
use qscaler_runtime::metrics::Registry;
use qscaler_webhook::metrics::Metrics;
use qscaler_webhook::server::serve;
use qscaler_webhook::tls::Served;
use rustls_pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The server's name.
pub(crate) const NAME: &str = "qscaler-webhook.q.svc";
/// Connections that the server serves at once.
pub(crate) const CONNECTIONS: usize = 8;
/// Far more than any step takes; only a hang meets it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A certificate and its key in PEM, and the certificate as clients trust it.
pub(crate) fn pair() -> (String, String, CertificateDer<'static>) {
    let key = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    (key.cert.pem(), key.signing_key.serialize_pem(), key.cert.der().clone())
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) served: Arc<Served>,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: tokio::task::JoinHandle<()>,
}

pub(crate) async fn server(router: Router) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (served, metrics, shutdown) = (Arc::new(Served::default()), Metrics::new(Registry::default()), CancellationToken::new());
    let task = tokio::spawn(serve(listener, served.config().unwrap(), router, metrics.clone(), CONNECTIONS, shutdown.clone()));
    Server { address, served, metrics, shutdown, task }
}

/// A connection of a client that trusts this certificate, and offers no protocol.
pub(crate) async fn connect(address: SocketAddr, trusted: &CertificateDer<'static>) -> std::io::Result<TlsStream<TcpStream>> {
    connect_offering(address, &[trusted], &[]).await
}

/// A connection of a client that trusts these certificates, and offers these protocols (ALPN).
pub(crate) async fn connect_offering(
    address: SocketAddr,
    trusted: &[&CertificateDer<'static>],
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in trusted {
        roots.add((*certificate).clone()).unwrap();
    }
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(NAME).unwrap(), TcpStream::connect(address).await?).await
}
