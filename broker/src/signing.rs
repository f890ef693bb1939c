//! Signatures of control messages. In: a message and the installation's private key; or bytes that a broker brought, and the public keys that a pod was given.
//! Out: bytes to send; or a message with what its signature is worth. Left to others: making and keeping the key (`certs`, `controller`), what is done with a
//! message that is not to be believed (`sidecar`).
//!
//! A signed message is the JSON of the message with one member more at its very end: `{"version":1,…,"signature":"KEY.SIGNATURE"}`. What is signed (Ed25519,
//! RFC 8032) is every byte of the object without that member, behind [`CONTEXT`]: kind, workload, target, wave, lease, expiry, and whatever a later release
//! adds. It is verified over the bytes as they came, before any JSON is parsed. Readers of older releases pass over the member as over any that they do not know.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use qscaler_core::control_key::{self, NAME_CHARS};
use qscaler_core::message::{ControlMessage, MESSAGE_BYTES_MAX, MessageError};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// Stands before what is signed: a signature made for anything else with the same key is none of a control message.
pub const CONTEXT: &[u8] = b"qscaler control message, signed 1\n";
const BEFORE: &[u8] = b",\"signature\":\"";
const AFTER: &[u8] = b"\"}";
/// 64 bytes in base64, without padding.
const SIGNATURE_CHARS: usize = 86;
/// The member as a whole.
const MEMBER_BYTES: usize = BEFORE.len() + NAME_CHARS + 1 + SIGNATURE_CHARS + AFTER.len();

/// What the signature of a message is worth to the pod that got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seal {
    /// This pod was given no key: nothing can be told, and every message is believed.
    Unchecked,
    /// Signed by a key that this pod was given, and unchanged since.
    Good,
    /// Not signed.
    Missing,
    /// It claims a key that this pod was given, and was not signed by it, or was changed since.
    Forged,
    /// It claims a key that this pod was not given.
    UnknownKey,
}

impl Seal {
    /// Whether the message may be acted on.
    #[must_use]
    pub fn is_believed(self) -> bool {
        matches!(self, Self::Unchecked | Self::Good)
    }
}

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No PEM of a PKCS #8 key.
    #[error("it is no private key in PEM (PKCS #8)")]
    Pem,
    /// A key of another kind.
    #[error("it is no Ed25519 key")]
    Kind,
}

/// The private key. Never shown.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// From PEM, as `certs` or `openssl genpkey -algorithm ed25519` writes it.
    ///
    /// # Errors
    /// When it is no such key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| KeyError::Pem)?;
        // OpenSSL writes no public key beside the private one, which is computed then.
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).map(Self::of).map_err(|_| KeyError::Kind)
    }

    /// From 32 bytes: for tests, which want the same key each time.
    ///
    /// # Errors
    /// Never for 32 bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_seed_unchecked(seed).map(Self::of).map_err(|_| KeyError::Kind)
    }

    fn of(pair: Ed25519KeyPair) -> Self {
        let public = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        Self { pair, public }
    }

    /// The public key, as pods get it.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }

    fn seal(&self, mut message: Vec<u8>) -> Vec<u8> {
        let mut signed = CONTEXT.to_vec();
        signed.extend_from_slice(&message);
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(&signed));
        debug_assert_eq!(message.last(), Some(&b'}'), "a message is a JSON object");
        message.pop();
        message.extend_from_slice(BEFORE);
        message.extend_from_slice(control_key::name(&self.public).as_bytes());
        message.push(b'.');
        message.extend_from_slice(signature.as_bytes());
        message.extend_from_slice(AFTER);
        message
    }
}

/// Signs what is sent, with the key that is known at that moment; clones share it. Without one, messages go out unsigned.
#[derive(Clone, Debug, Default)]
pub struct Signer(Arc<RwLock<Option<Arc<SigningKey>>>>);

impl Signer {
    /// From now on with this key.
    pub fn set(&self, key: SigningKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(key));
    }

    fn key(&self) -> Option<Arc<SigningKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The public key; None: messages go out unsigned.
    #[must_use]
    pub fn public(&self) -> Option<String> {
        self.key().map(|key| key.public().to_owned())
    }

    /// The bytes to send.
    #[must_use]
    pub fn seal(&self, message: &ControlMessage) -> Vec<u8> {
        match self.key() {
            Some(key) => key.seal(message.encode()),
            None => message.encode(),
        }
    }
}

/// The public keys that a pod was given. With none at all in it no message is believed: keys that cannot be read are not as good as none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicKeys(Vec<(String, Vec<u8>)>);

impl PublicKeys {
    /// From a list, comma-separated; what is no key is left out.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let decode = |key: String| URL_SAFE_NO_PAD.decode(&key).ok().map(|bytes| (key, bytes));
        Self(control_key::read_list(text).into_iter().filter_map(decode).collect())
    }

    /// Their short names; of none at all, one that no key has.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        if self.0.is_empty() {
            return vec!["?".repeat(NAME_CHARS)];
        }
        self.0.iter().map(|(key, _)| control_key::name(key).to_owned()).collect()
    }

    /// What the signature of these bytes is worth.
    #[must_use]
    pub fn check(&self, bytes: &[u8]) -> Seal {
        let Some((message, name, signature)) = split(bytes) else { return Seal::Missing };
        let mut named = self.0.iter().filter(|(key, _)| control_key::name(key).as_bytes() == name).peekable();
        if named.peek().is_none() {
            return Seal::UnknownKey;
        }
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return Seal::Forged };
        let signed = [CONTEXT, message, b"}"].concat();
        let good = named.any(|(_, key)| UnparsedPublicKey::new(&ED25519, key).verify(&signed, &signature).is_ok());
        if good { Seal::Good } else { Seal::Forged }
    }
}

/// The object without its end, the name of the key, and the signature; None: there is no such member at the end.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (message, member) = bytes.split_at(bytes.len().checked_sub(MEMBER_BYTES)?);
    let inner = member.strip_prefix(BEFORE)?.strip_suffix(AFTER)?;
    let (name, rest) = inner.split_at_checked(NAME_CHARS)?;
    Some((message, name, rest.strip_prefix(b".")?))
}

/// Reads what a broker brought: the size first, then the signature, then the JSON.
///
/// # Errors
/// When it is too long, malformed, or of another version.
pub fn open(bytes: &[u8], keys: Option<&PublicKeys>) -> Result<(ControlMessage, Seal), MessageError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(MessageError::TooLong(bytes.len()));
    }
    let seal = keys.map_or(Seal::Unchecked, |keys| keys.check(bytes));
    Ok((ControlMessage::decode(bytes)?, seal))
}

#[cfg(test)]
#[path = "signing_tests.rs"]
mod tests;
