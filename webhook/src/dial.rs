//! Whether API servers trust what this replica serves. In: the `caBundle` that is published for each of our webhooks, by a look every few seconds. Out: readiness, and
//! a gauge. Left to others: the certificate (`tls`), publishing (`certs`).
//!
//! It calls itself, over TLS, as an API server does: a replica that nobody trusts, or that does not listen, must not be Ready, or its calls fail and pods come up
//! bare. What cannot be looked at is no reason to keep the others out: it counts as before.

use crate::metrics::Metrics;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, WebhookClientConfig};
use kube::{Api, Client};
use qscaler_core::names::WEBHOOK_CONFIGURATION;
use qscaler_runtime::CancellationToken;
use qscaler_runtime::ready::{Handle, Readiness};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How often it is looked: certs publishes a new authority five minutes before its first leaf.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Before anybody trusts us there is nothing else to do.
const LOOK_EVERY_AT_FIRST: Duration = Duration::from_secs(1);
/// So many looks in a row must fail before a replica that was trusted is taken out: a bundle is written by others, in steps.
const FAILURES: u32 = 3;
/// For one connection to ourselves, or one answer of the API server.
const WITHIN: Duration = Duration::from_secs(5);
/// What readiness waits for.
const WAITING_FOR: &str = "API servers to trust the served certificate (the caBundle of the webhook configuration)";

/// Why nobody trusts us.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// Nothing is published for one of the webhooks.
    #[error("webhook {0} has no caBundle yet")]
    NoBundle(String),
    /// What is published is no certificate.
    #[error("the caBundle of webhook {0} holds no certificate")]
    BadBundle(String),
    /// The call to ourselves failed.
    #[error("a call as the API server makes it fails, by the caBundle of webhook {name}")]
    Call {
        /// The webhook's name.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Calls this replica as each of the webhooks would be called. Those that are called elsewhere (a URL) are not looked at.
///
/// # Errors
/// When one of the calls would fail.
pub async fn trusted(configuration: &MutatingWebhookConfiguration, at: &[SocketAddr]) -> Result<(), Untrusted> {
    for webhook in configuration.webhooks.iter().flatten() {
        let Some(name) = server_name(&webhook.client_config) else { continue };
        let bundle = webhook.client_config.ca_bundle.as_ref().filter(|bundle| !bundle.0.is_empty());
        let bundle = bundle.ok_or_else(|| Untrusted::NoBundle(webhook.name.clone()))?;
        let bad = || Untrusted::BadBundle(webhook.name.clone());
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bundle.0) {
            roots.add(certificate.map_err(|_| bad())?).map_err(|_| bad())?;
        }
        if roots.is_empty() {
            return Err(bad());
        }
        let call = call(roots, name, at);
        let called = tokio::time::timeout(WITHIN, call).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        called.map_err(|source| Untrusted::Call { name: webhook.name.clone(), source })?;
    }
    Ok(())
}

/// The name that an API server asks for.
fn server_name(config: &WebhookClientConfig) -> Option<ServerName<'static>> {
    let service = config.service.as_ref()?;
    ServerName::try_from(format!("{}.{}.svc", service.name, service.namespace)).ok()
}

async fn call(roots: rustls::RootCertStore, name: ServerName<'static>, at: &[SocketAddr]) -> std::io::Result<()> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(std::io::Error::other)?;
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(at).await?).await.map(drop)
}

/// Where this process reaches itself. A socket for both protocols is tried by both: either may be off on this node.
#[must_use]
pub fn own_addresses(listen: SocketAddr) -> Vec<SocketAddr> {
    let ips: Vec<IpAddr> = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![Ipv4Addr::LOCALHOST.into()],
        IpAddr::V6(ip) if ip.is_unspecified() => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        ip => vec![ip],
    };
    ips.into_iter().map(|ip| SocketAddr::new(ip, listen.port())).collect()
}

/// What follows from one look.
struct Trust {
    readiness: Readiness,
    metrics: Metrics,
    waiting: Option<Handle>,
    failures: u32,
}

impl Trust {
    fn new(readiness: Readiness, metrics: Metrics) -> Self {
        let waiting = Some(readiness.handle(WAITING_FOR));
        Self { readiness, metrics, waiting, failures: 0 }
    }

    fn saw(&mut self, result: Result<(), &Untrusted>) {
        self.metrics.trusted.set(if result.is_ok() { 1.0 } else { 0.0 });
        match result {
            Ok(()) => {
                self.failures = 0;
                self.waiting = None;
            }
            Err(error) => {
                self.failures += 1;
                if self.waiting.is_none() && self.failures >= FAILURES {
                    tracing::error!(
                        error = error as &dyn std::error::Error,
                        "API servers do not trust the served certificate: not ready until they do"
                    );
                    self.waiting = Some(self.readiness.handle(WAITING_FOR));
                }
            }
        }
    }
}

/// Looks again and again until the shutdown.
pub async fn follow(client: Client, listen: SocketAddr, readiness: Readiness, metrics: Metrics, shutdown: CancellationToken) {
    let api: Api<MutatingWebhookConfiguration> = Api::all(client);
    let (at, mut trust) = (own_addresses(listen), Trust::new(readiness, metrics));
    loop {
        match tokio::time::timeout(WITHIN, api.get_opt(WEBHOOK_CONFIGURATION)).await {
            Ok(Ok(Some(configuration))) => {
                let result = trusted(&configuration, &at).await;
                trust.saw(result.as_ref().copied());
            }
            // Whoever calls us has a configuration of another name, or it cannot be read: that is no word about trust.
            Ok(Ok(None)) => trust.saw(Ok(())),
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the webhook configuration cannot be read: whether API servers trust us is not known"
                );
                drop(trust.waiting.take());
            }
            Err(_) => tracing::warn!("the API server did not give the webhook configuration in time"),
        }
        let pause = if trust.waiting.is_some() { LOOK_EVERY_AT_FIRST } else { LOOK_EVERY };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qscaler_runtime::metrics::Registry;

    #[test]
    fn a_replica_is_ready_once_it_is_trusted_and_not_taken_out_for_one_bad_look() {
        let readiness = Readiness::default();
        let mut trust = Trust::new(readiness.clone(), Metrics::new(Registry::default()));
        let bad = Untrusted::NoBundle("w".into());
        trust.saw(Err(&bad));
        assert!(!readiness.is_ready());
        trust.saw(Ok(()));
        assert!(readiness.is_ready());
        for _ in 1..FAILURES {
            trust.saw(Err(&bad));
            assert!(readiness.is_ready());
        }
        trust.saw(Err(&bad));
        assert_eq!(readiness.reason().unwrap(), format!("waiting for {WAITING_FOR}"));
        trust.saw(Ok(()));
        assert!(readiness.is_ready());
    }

    #[test]
    fn it_calls_itself_where_it_listens() {
        for (listen, own) in [("[::]:1", "127.0.0.1:1 [::1]:1"), ("0.0.0.0:8443", "127.0.0.1:8443"), ("10.0.0.7:1", "10.0.0.7:1")] {
            let all: Vec<String> = own_addresses(listen.parse().unwrap()).iter().map(ToString::to_string).collect();
            assert_eq!(all.join(" "), own);
        }
    }
}
