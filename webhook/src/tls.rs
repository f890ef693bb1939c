//! The served certificate, changed without a restart. In: PEM from the Secret that `certs` writes, by a watch (no mount delay), or from two files.
//! Out: a TLS configuration that takes the newest usable pair for each new handshake; open connections stay. Left to others: issuing, and trust.

use crate::metrics::Metrics;
use arc_swap::ArcSwapOption;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use qscaler_core::names::TLS_SECRET;
use qscaler_runtime::CancellationToken;
use qscaler_runtime::ready::Handle;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// How often certificate files are read again: the kubelet swaps a symlink, which a watch of the files would miss.
const FILES_POLL: Duration = Duration::from_secs(10);
/// Key of the certificate chain in a TLS Secret.
pub const SECRET_CERT: &str = "tls.crt";
/// Key of the private key in a TLS Secret.
pub const SECRET_KEY: &str = "tls.key";

/// Why a pair cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The Secret lacks a key.
    #[error("the Secret has no {0}")]
    Missing(&'static str),
    /// Not PEM, or no certificate in it.
    #[error("{0} does not hold what it should in PEM")]
    Pem(&'static str, #[source] rustls_pki_types::pem::Error),
    /// No certificate.
    #[error("{SECRET_CERT} holds no certificate")]
    Empty,
    /// Not a certificate.
    #[error("{SECRET_CERT} holds something else than a certificate")]
    Unreadable,
    /// The key is of no known kind, or is not the certificate's.
    #[error("certificate and key do not fit")]
    Pair(#[from] rustls::Error),
    /// A file cannot be read.
    #[error("{path} cannot be read", path = .0.display())]
    File(PathBuf, #[source] std::io::Error),
}

/// The pair that new handshakes get.
#[derive(Debug)]
pub struct Served {
    current: ArcSwapOption<CertifiedKey>,
    provider: Arc<CryptoProvider>,
}

impl Default for Served {
    fn default() -> Self {
        Self { current: ArcSwapOption::empty(), provider: Arc::new(rustls::crypto::ring::default_provider()) }
    }
}

impl Served {
    /// Takes a pair into use; on an error the old one stays. Answers with when the leaf expires, in seconds since the Unix epoch.
    ///
    /// # Errors
    /// When the two are not a certificate chain and its key.
    pub fn load(&self, cert: &[u8], key: &[u8]) -> Result<i64, TlsError> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(cert).collect::<Result<_, _>>().map_err(|e| TlsError::Pem(SECRET_CERT, e))?;
        let leaf = chain.first().ok_or(TlsError::Empty)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|_| TlsError::Unreadable)?;
        let expiry = parsed.validity().not_after.timestamp();
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| TlsError::Pem(SECRET_KEY, e))?;
        let pair = CertifiedKey::from_der(chain, key, &self.provider)?;
        self.current.store(Some(Arc::new(pair)));
        Ok(expiry)
    }

    /// The server's configuration: TLS 1.3, which every API server since 1.19 speaks, and HTTP/1.1, which it uses towards Services.
    ///
    /// # Errors
    /// When the provider lacks TLS 1.3, which ring does not.
    pub fn config(self: &Arc<Self>) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Self>::clone(self));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}

/// Loads what a source brings, and says so once per change.
struct Loader {
    served: Arc<Served>,
    metrics: Metrics,
    waiting: Option<Handle>,
}

impl Loader {
    fn take(&mut self, pair: Result<(Vec<u8>, Vec<u8>), TlsError>) {
        match pair.and_then(|(cert, key)| self.served.load(&cert, &key)) {
            Ok(expiry) => {
                self.metrics.certificates_loaded.inc();
                // A time is far below 2^52 seconds.
                self.metrics.certificate_expiry.set(expiry as f64);
                tracing::info!(expiry, "certificate loaded");
                drop(self.waiting.take());
            }
            Err(error) => {
                self.metrics.certificates_refused.inc();
                tracing::error!(error = &error as &dyn std::error::Error, "certificate not usable, the one before stays");
            }
        }
    }
}

/// Follows the Secret in the webhook's namespace until the shutdown.
pub async fn follow_secret(client: Client, namespace: &str, served: Arc<Served>, metrics: Metrics, waiting: Handle, shutdown: CancellationToken) {
    let api: Api<Secret> = Api::namespaced(client, namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={TLS_SECRET}"));
    let mut loader = Loader { served, metrics, waiting: Some(waiting) };
    let mut events = pin!(watcher(api, config).default_backoff().into_stream());
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            Some(Ok(Event::Apply(secret) | Event::InitApply(secret))) => loader.take(pair(&secret)),
            // A deleted Secret is made anew by `certs`; until then the old pair is better than none.
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the watch of the certificate failed and will be tried again")
            }
            None => return,
        }
    }
}

fn pair(secret: &Secret) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
    let part = |key: &'static str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
        bytes.filter(|b| !b.is_empty()).ok_or(TlsError::Missing(key))
    };
    Ok((part(SECRET_CERT)?, part(SECRET_KEY)?))
}

/// Reads two files now and then again and again, until the shutdown; loads them when either has changed.
pub async fn follow_files(cert: PathBuf, key: PathBuf, served: Arc<Served>, metrics: Metrics, waiting: Handle, shutdown: CancellationToken) {
    let mut loader = Loader { served, metrics, waiting: Some(waiting) };
    let mut last = None;
    let mut ticks = tokio::time::interval(FILES_POLL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match (read(&cert).await, read(&key).await) {
            (Ok(cert), Ok(key)) => {
                let now = (cert, key);
                if last.as_ref() != Some(&now) {
                    last = Some(now.clone());
                    loader.take(Ok(now));
                }
            }
            (Err(error), _) | (_, Err(error)) => loader.take(Err(error)),
        }
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    tokio::fs::read(path).await.map_err(|error| TlsError::File(path.to_owned(), error))
}
