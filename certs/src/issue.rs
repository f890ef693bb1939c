//! Authorities and leaves as values. In: names, the time. Out: PEM, and what can be read from PEM. Left to others: when to do it (`plan`), and
//! where it is kept (`store`).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519,
    PublicKeyData,
};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, GeneralName, Pem, X509Certificate};

/// An authority lives this long: rotation is exercised every eight months, and an installation that was off for a quarter still works.
pub const AUTHORITY_LIFETIME: Duration = Duration::days(365);
/// A leaf lives this long: short enough that a stolen one is of little use, long enough for a week without this process.
pub const LEAF_LIFETIME: Duration = Duration::days(7);
/// Validity starts this much earlier, for clocks that are behind.
pub const BACKDATE: Duration = Duration::hours(1);

/// A certificate with its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// Certificate.
    pub cert: String,
    /// PKCS #8 key.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    /// Never the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("cert", &self.cert).finish_non_exhaustive()
    }
}

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Making failed.
    #[error("a certificate could not be made")]
    Make(#[from] rcgen::Error),
    /// Reading failed.
    #[error("a certificate could not be read: {0}")]
    Read(String),
}

/// The names that a Service is called by from API servers.
#[must_use]
pub fn service_names(service: &str, namespace: &str) -> Vec<String> {
    vec![service.to_owned(), format!("{service}.{namespace}"), format!("{service}.{namespace}.svc")]
}

/// A new authority, P-256, for leaves only.
///
/// # Errors
/// When key or certificate cannot be made.
pub fn new_authority(now: OffsetDateTime) -> Result<Pair, IssueError> {
    let mut params = CertificateParams::new(Vec::new())?;
    // The time in the name keeps two authorities of one bundle apart.
    params.distinguished_name = common_name(&format!("qscaler webhook authority {}", now.unix_timestamp()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now - BACKDATE;
    params.not_after = now + AUTHORITY_LIFETIME;
    let key = KeyPair::generate()?;
    let cert = params.self_signed(&key)?;
    Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
}

/// The key by which control messages are signed.
#[derive(Clone, PartialEq, Eq)]
pub struct ControlKey {
    /// PKCS #8, in PEM.
    pub private: String,
    /// 32 bytes in base64.
    pub public: String,
}

impl std::fmt::Debug for ControlKey {
    /// Never the private key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl ControlKey {
    /// A new one, Ed25519. It has no end: pods know the key that they were made with, and live for as long as they like.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self, IssueError> {
        Ok(Self::of(&KeyPair::generate_for(&PKCS_ED25519)?))
    }

    /// From PEM; None: it is no Ed25519 key.
    #[must_use]
    pub fn read(pem: &str) -> Option<Self> {
        KeyPair::from_pem(pem).ok().filter(|key| key.is_compatible(&PKCS_ED25519)).map(|key| Self { private: pem.to_owned(), ..Self::of(&key) })
    }

    fn of(key: &KeyPair) -> Self {
        Self { private: key.serialize_pem(), public: URL_SAFE_NO_PAD.encode(key.der_bytes()) }
    }
}

/// A new leaf for these names, P-256, never valid beyond its authority.
///
/// # Errors
/// When the authority is unusable or the leaf cannot be made.
pub fn new_leaf(authority: &Pair, names: &[String], now: OffsetDateTime) -> Result<Pair, IssueError> {
    let end = Certificate::parse(&authority.cert)?.not_after;
    let issuer = Issuer::from_ca_cert_pem(&authority.cert, KeyPair::from_pem(&authority.key)?)?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = common_name(names.last().map_or("qscaler webhook", String::as_str));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = now - BACKDATE;
    params.not_after = end.min(now + LEAF_LIFETIME);
    let key = KeyPair::generate()?;
    let cert = params.signed_by(&key, &issuer)?;
    Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

/// What is known of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Valid from.
    pub not_before: OffsetDateTime,
    /// Valid to.
    pub not_after: OffsetDateTime,
    /// DNS names, sorted.
    pub names: Vec<String>,
    public_key: Vec<u8>,
    der: Vec<u8>,
}

impl Certificate {
    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// When there is none.
    pub fn parse(pem: &str) -> Result<Self, IssueError> {
        let first = Pem::iter_from_buffer(pem.as_bytes()).next().ok_or_else(|| IssueError::Read("there is none".to_owned()))?;
        let first = first.map_err(|e| IssueError::Read(e.to_string()))?;
        let (_, x509) = X509Certificate::from_der(&first.contents).map_err(|e| IssueError::Read(e.to_string()))?;
        let mut names: Vec<String> = x509
            .subject_alternative_name()
            .ok()
            .flatten()
            .map(|san| {
                san.value
                    .general_names
                    .iter()
                    .filter_map(|name| if let GeneralName::DNSName(dns) = name { Some((*dns).to_owned()) } else { None })
                    .collect()
            })
            .unwrap_or_default();
        names.sort();
        let instant =
            |t: &x509_parser::time::ASN1Time| OffsetDateTime::from_unix_timestamp(t.timestamp()).map_err(|e| IssueError::Read(e.to_string()));
        Ok(Self {
            not_before: instant(&x509.validity().not_before)?,
            not_after: instant(&x509.validity().not_after)?,
            names,
            public_key: x509.public_key().raw.to_vec(),
            der: first.contents.clone(),
        })
    }

    /// Whether it is valid at this time.
    #[must_use]
    pub fn is_valid(&self, now: OffsetDateTime) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// Whether two thirds of its life are over: time for the next one.
    #[must_use]
    pub fn is_due(&self, now: OffsetDateTime) -> bool {
        now >= self.not_before + (self.not_after - self.not_before) * 2 / 3
    }

    /// Whether this authority signed that leaf.
    #[must_use]
    pub fn signed(&self, leaf: &Self) -> bool {
        let (Ok((_, ca)), Ok((_, leaf))) = (X509Certificate::from_der(&self.der), X509Certificate::from_der(&leaf.der)) else { return false };
        ca.subject() == leaf.issuer() && leaf.verify_signature(Some(ca.public_key())).is_ok()
    }

    /// Whether this private key is its key.
    #[must_use]
    pub fn has_key(&self, key: &str) -> bool {
        KeyPair::from_pem(key).is_ok_and(|key| key.subject_public_key_info() == self.public_key)
    }
}

/// Every certificate of a PEM text that is valid now, in PEM again; what cannot be read is left out.
#[must_use]
pub fn valid_parts(pem: &str, now: OffsetDateTime) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split_inclusive(END)
        .filter_map(|part| part.find("-----BEGIN CERTIFICATE-----").map(|start| format!("{}\n", &part[start..])))
        .filter(|part| Certificate::parse(part).is_ok_and(|c| c.is_valid(now)))
        .collect()
}
