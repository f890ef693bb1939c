//! TLS to brokers, the same for Redis, AMQP and the management API. In: what a URL, a Secret and the installation say of certificates. Out: a client's
//! configuration, and words for what goes wrong. Left to others: sockets (`transport`).
//!
//! Authorities are those of the machine (`SSL_CERT_FILE`, `SSL_CERT_DIR`, else its own bundle), of the installation, and those given. Where those two variables name
//! nothing that is here, its own bundle counts: a sidecar gets its worker's `envFrom`, and they may name files of the worker's image.

use qscaler_broker_url::{Tls, Verify};
use qscaler_core::names::BROKER_CA_FILE;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// How to give certificates; ends messages about them.
const MEND: &str = "put ca.crt (and tls.crt, tls.key where the server asks for a client's certificate) into a Secret and name it by the annotation \
     qscaler.dev/broker-tls: secret:NAME";

/// Where images and distributions keep theirs: our own images have the first.
const BUNDLES: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Authorities of this machine and of the installation ([`BROKER_CA_FILE`]), read once: some 140 of them, 200 kB.
fn machine() -> &'static [CertificateDer<'static>] {
    static MACHINE: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let mut known = or_first(rustls_native_certs::load_native_certs().certs, &BUNDLES);
        if let Some(path) = std::env::var_os(BROKER_CA_FILE).filter(|path| !path.is_empty()) {
            match CertificateDer::pem_file_iter(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
                Ok(given) => known.extend(given),
                Err(error) => tracing::error!(file = %path.display(), %error, "{BROKER_CA_FILE} cannot be read: brokers whose certificates it is for are not trusted"),
            }
        }
        known
    })
}

/// What was found, or the first of these bundles that has anything.
fn or_first(found: Vec<CertificateDer<'static>>, bundles: &[impl AsRef<Path>]) -> Vec<CertificateDer<'static>> {
    if !found.is_empty() {
        return found;
    }
    let all = bundles.iter().map(|path| rustls_native_certs::load_certs_from_paths(Some(path.as_ref()), None).certs);
    all.into_iter().find(|certificates| !certificates.is_empty()).unwrap_or_default()
}

/// The client's configuration. `asked` becomes true when the server asks for a client's certificate: where it then closes the connection, that is why
/// (TLS 1.3 tells it after the handshake, and often the reset comes first).
///
/// # Errors
/// What was given is not PEM, or certificate and key do not fit. No error shows any of it.
pub(crate) fn client(tls: &Tls, asked: &Arc<AtomicBool>) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    let builder = match tls.verify {
        Verify::Full => builder.with_root_certificates(roots(tls)?),
        Verify::ChainOnly => {
            let inner =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots(tls)?), Arc::clone(&provider)).build().map_err(|e| e.to_string())?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyHost(inner)))
        }
        Verify::Nothing => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(Arc::clone(&provider)))),
    };
    let own = match (&tls.material.certificate, &tls.material.key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            let chain = certificates("tls.crt", certificate)?;
            let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
                .map_err(|_| "tls.key holds no private key in PEM, not encrypted".to_owned())?;
            let own = CertifiedKey::from_der(chain, key, &provider).map_err(|error| format!("tls.crt and tls.key cannot be used: {error}"))?;
            Some(Arc::new(own))
        }
        (Some(_), None) => return Err("there is tls.crt, and no tls.key".to_owned()),
        (None, Some(_)) => return Err("there is tls.key, and no tls.crt".to_owned()),
    };
    let config = builder.with_client_cert_resolver(Arc::new(Asked { own, asked: Arc::clone(asked) }));
    Ok(Arc::new(config))
}

fn roots(tls: &Tls) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = &tls.material.ca {
        for certificate in certificates("ca.crt", ca)? {
            roots.add(certificate).map_err(|error| format!("ca.crt holds a certificate that cannot be used: {error}"))?;
        }
    }
    roots.add_parsable_certificates(machine().iter().cloned());
    if roots.is_empty() { Err(format!("no authority is known here; {MEND}")) } else { Ok(roots) }
}

fn certificates(key: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| format!("{key} holds no certificate in PEM"))
}

/// Why a connection failed, where its cause is a certificate: None otherwise. All client libraries pass on the words of rustls. `asked`: the server has
/// asked for a client's certificate, and nothing has worked since.
pub(crate) fn explain(message: &str, tls: Option<&Tls>, asked: bool) -> Option<String> {
    let tls = tls?;
    let closed = |message: &str| {
        let lower = message.to_ascii_lowercase();
        ["broken pipe", "reset by peer", "connection closed", "unexpected end of file", "unexpectedeof", "aborted", "close_notify"]
            .iter()
            .any(|words| lower.contains(words))
    };
    let asks = ["CertificateRequired", "HandshakeFailure"].iter().any(|word| message.contains(word)) || asked && closed(message);
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let file = if tls.names_file { " (the URL names a file, which only the worker's container has)" } else { "" };
    if has(&["UnknownIssuer", "BadSignature", "CaUsedAsEndEntity"]) {
        return Some(format!(
            "the server's certificate is signed by no authority that is known here{file}: {MEND}; or ?ssl_cert_reqs=none in the URL"
        ));
    }
    if has(&["not valid for name", "NotValidForName"]) {
        return Some("the server's certificate is for another host: use a host that it names, or ?ssl_check_hostname=false in the URL".to_owned());
    }
    if has(&["certificate expired", "Expired", "NotValidYet", "not valid yet"]) {
        return Some("the server's certificate is not valid at this time: renew it".to_owned());
    }
    if asks && tls.material.certificate.is_none() {
        return Some(format!("the server asks for a client's certificate{file}: {MEND}"));
    }
    if asks || has(&["BadCertificate", "UnknownCA", "CertificateUnknown", "AccessDenied"]) {
        return Some("the server does not accept the client's certificate: tls.crt must be signed by an authority that the server trusts".to_owned());
    }
    if has(&["InvalidMessage", "corrupt message"]) {
        return Some("the server does not speak TLS on this port".to_owned());
    }
    None
}

/// Shows the client's certificate, if there is one, and notes that it was asked for.
#[derive(Debug)]
struct Asked {
    own: Option<Arc<CertifiedKey>>,
    asked: Arc<AtomicBool>,
}

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.own.clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Checks everything but the host.
#[derive(Debug)]
struct AnyHost(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.0.verify_server_cert(end, chain, name, ocsp, now) {
            Err(Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(&self, m: &[u8], c: &CertificateDer<'_>, d: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(m, c, d)
    }

    fn verify_tls13_signature(&self, m: &[u8], c: &CertificateDer<'_>, d: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(m, c, d)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Checks only that the server has the key of the certificate that it shows.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(&self, m: &[u8], c: &CertificateDer<'_>, d: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(m, c, d, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(&self, m: &[u8], c: &CertificateDer<'_>, d: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(m, c, d, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBbjCCARWgAwIBAgIUG7JNr2uzm9DRtEJoxgCCgMMBk5UwCgYIKoZIzj0EAwIw\n\
        DDEKMAgGA1UEAwwBYTAgFw0yNjEyMDEwOTE0MDdaGA8yMTI2MTEwNzA5MTQwN1ow\n\
        DDEKMAgGA1UEAwwBYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABBJTW0+KHV+M\n\
        IwFib6LYZDP4B/tLU+8BDQbG13okHXI1QnFkTSoPsDOQBcW+AGJjowIq0AVFpNQY\n\
        ldHJ3qJeS5ejUzBRMB0GA1UdDgQWBBRtQPnGlCN6YSLGoGFnafQYPXYXRzAfBgNV\n\
        HSMEGDAWgBRtQPnGlCN6YSLGoGFnafQYPXYXRzAPBgNVHRMBAf8EBTADAQH/MAoG\n\
        CCqGSM49BAMCA0cAMEQCID09DzJe7nMa3Y1lzbD0dbUc5xC1yZCUX1v5QV4TVpXX\n\
        AiAMPfjvCFdiQY+q4A1DEDIncltswjFCK87eLTbDsfdAQQ==\n\
        -----END CERTIFICATE-----\n";

    #[test]
    fn a_bundle_that_is_here_counts_where_what_the_environment_names_is_not() {
        let folder = std::env::temp_dir().join(format!("qscaler-bundles-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (there, absent) = (folder.join("bundle.crt"), folder.join("absent.crt"));
        std::fs::write(&there, CERTIFICATE).unwrap();
        let found = or_first(Vec::new(), &[&absent, &there]);
        assert_eq!(found.len(), 1);
        assert_eq!(or_first(found.clone(), &[&absent]), found, "what the environment names, and is there, counts alone");
        assert_eq!(or_first(Vec::new(), &[&absent]), Vec::new());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
