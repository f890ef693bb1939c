//! The served certificate, changed without a restart. In: PEM from the Secret that `certs` writes, by a watch (no mount delay), or from two files.
//! Out: a TLS configuration that takes the newest usable pair for each new handshake; open connections stay. Left to others: issuing, and trust.

use crate::metrics::Metrics;
use crate::world::World;
use arc_swap::ArcSwapOption;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use qscaler_core::names::{CONTROL_KEY_PUBLIC, TLS_SECRET};
use qscaler_runtime::CancellationToken;
use qscaler_runtime::ready::{Handle, Readiness};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often certificate files are read again: the kubelet swaps a symlink, which a watch of the files would miss.
pub const FILES_POLL: Duration = Duration::from_secs(10);
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

    /// The server's configuration: TLS 1.3, which every API server since 1.19 speaks, and HTTP/2 for clients that offer it, else HTTP/1.1, which API servers use
    /// towards webhooks.
    ///
    /// # Errors
    /// When the provider lacks TLS 1.3, which ring does not.
    pub fn config(self: &Arc<Self>) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Self>::clone(self));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}

/// How often a certificate's end is looked for: the readiness probe asks every two seconds, and a validity is months.
const VALIDITY_LOOK: Duration = Duration::from_secs(10);
/// What readiness waits for without a certificate, or with one that has ended: an API server refuses it, so every call would fail.
const WAITING_FOR: &str = "a certificate that is valid now";

/// Loads what a source brings, says so once per change, and keeps readiness to the certificate's validity.
pub struct Loader {
    served: Arc<Served>,
    metrics: Metrics,
    readiness: Readiness,
    waiting: Option<Handle>,
    /// When the served leaf ends, seconds since the Unix epoch.
    expiry: Option<i64>,
    /// Who is told the public key of control messages, which comes in the same Secret.
    world: Option<Arc<World>>,
}

impl Loader {
    /// Not ready before the first certificate.
    #[must_use]
    pub fn new(served: Arc<Served>, metrics: Metrics, readiness: Readiness) -> Self {
        let waiting = Some(readiness.handle(WAITING_FOR));
        Self { served, metrics, readiness, waiting, expiry: None, world: None }
    }

    /// The same, telling the public key of control messages.
    #[must_use]
    pub fn telling(self, world: Arc<World>) -> Self {
        Self { world: Some(world), ..self }
    }

    /// A Secret without that key, as another issuer's, is no news: the key before stays.
    fn take_secret(&mut self, secret: &Secret) {
        let key = secret.data.as_ref().and_then(|data| data.get(CONTROL_KEY_PUBLIC));
        if let (Some(world), Some(key)) = (&self.world, key) {
            world.control_keys.put(&String::from_utf8_lossy(&key.0));
        }
        self.take(pair(secret));
    }

    fn take(&mut self, pair: Result<(Vec<u8>, Vec<u8>), TlsError>) {
        match pair.and_then(|(cert, key)| self.served.load(&cert, &key)) {
            Ok(expiry) => {
                self.metrics.certificates_loaded.inc();
                // A time is far below 2^52 seconds.
                self.metrics.certificate_expiry.set(expiry as f64);
                tracing::info!(expiry, "certificate loaded");
                self.expiry = Some(expiry);
                self.look(unix_seconds());
            }
            Err(error) => {
                self.metrics.certificates_refused.inc();
                tracing::error!(error = &error as &dyn std::error::Error, "certificate not usable, the one before stays");
            }
        }
    }

    /// Ready while the served certificate is valid.
    fn look(&mut self, now: i64) {
        match (self.expiry.is_some_and(|expiry| now < expiry), self.waiting.is_some()) {
            (true, true) => self.waiting = None,
            (false, false) => {
                tracing::error!(expiry = self.expiry, "the served certificate has expired: not ready until there is another");
                self.waiting = Some(self.readiness.handle(WAITING_FOR));
            }
            _ => {}
        }
    }
}

fn unix_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Follows the Secret in the webhook's namespace until the shutdown.
pub async fn follow_secret(client: Client, namespace: &str, mut loader: Loader, shutdown: CancellationToken) {
    let api: Api<Secret> = Api::namespaced(client, namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={TLS_SECRET}"));
    let mut events = pin!(watcher(api, config).default_backoff().into_stream());
    let mut looks = tokio::time::interval(VALIDITY_LOOK);
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            _ = looks.tick() => {
                loader.look(unix_seconds());
                continue;
            }
            event = events.next() => event,
        };
        match event {
            Some(Ok(Event::Apply(secret) | Event::InitApply(secret))) => loader.take_secret(&secret),
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

/// Reads two files now and then `every` so often, until the shutdown; loads them when either has changed.
pub async fn follow_files(cert: PathBuf, key: PathBuf, every: Duration, mut loader: Loader, shutdown: CancellationToken) {
    let mut last = None;
    let mut ticks = tokio::time::interval(every);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => loader.look(unix_seconds()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use qscaler_runtime::metrics::Registry;

    #[test]
    fn the_public_key_of_control_messages_comes_with_the_certificate_and_stays_when_a_secret_has_none() {
        let world = Arc::new(World::new(None));
        let (here, there) = ("A".repeat(43), "B".repeat(43));
        world.control_keys.also(std::slice::from_ref(&there));
        let mut loader = Loader::new(Arc::default(), Metrics::new(Registry::default()), Readiness::default()).telling(Arc::clone(&world));
        let secret = |key: Option<&str>| Secret {
            data: Some(key.map(|key| (CONTROL_KEY_PUBLIC.to_owned(), k8s_openapi::ByteString(key.as_bytes().to_vec()))).into_iter().collect()),
            ..Secret::default()
        };
        assert_eq!(world.control_keys.all(), std::slice::from_ref(&there));
        loader.take_secret(&secret(Some(&format!("{here}=\n"))));
        for none in [None, Some("$(NOT_A_KEY)")] {
            loader.take_secret(&secret(none));
            assert_eq!(world.control_keys.all(), [here.clone(), there.clone()]);
        }
        loader.take_secret(&secret(Some(&there)));
        assert_eq!(world.control_keys.all(), [there], "each once");
    }

    #[test]
    fn readiness_keeps_to_the_certificates_validity() {
        let readiness = Readiness::default();
        let mut loader = Loader::new(Arc::default(), Metrics::new(Registry::default()), readiness.clone());
        loader.look(0);
        assert_eq!(readiness.reason().unwrap(), format!("waiting for {WAITING_FOR}"));
        let made = |until: i64| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut parameters = rcgen::CertificateParams::new(vec!["w".to_owned()]).unwrap();
            parameters.not_after = rcgen::date_time_ymd(1970 + i32::try_from(until / 31_557_600).unwrap(), 1, 1);
            Ok((parameters.self_signed(&key).unwrap().pem().into_bytes(), key.serialize_pem().into_bytes()))
        };
        let years = 31_557_600;
        loader.take(made(40 * years));
        assert!(!readiness.is_ready(), "it ended in 2010");
        loader.take(made(130 * years));
        assert!(readiness.is_ready());
        loader.look(131 * years);
        assert!(!readiness.is_ready());
        loader.take(Err(TlsError::Empty));
        assert!(!readiness.is_ready());
        loader.take(made(140 * years));
        assert!(readiness.is_ready());
    }
}
