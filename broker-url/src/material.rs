//! Certificates and keys for TLS, as parameters of a URL. In: PEM, or a URL that carries it. Out: the other of the two. Left to others: what is checked
//! by them (`tls`), where they come from.

use crate::Secret;
use crate::cut::Parts;

/// Parameters of our own: no client uses these names, and no one writes them by hand.
const CA: &str = "qscaler_ca";
const CERTIFICATE: &str = "qscaler_cert";
const KEY: &str = "qscaler_key";

/// Certificates and keys as PEM, from a Secret or from the installation; [`crate::attach`] puts them into a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TlsMaterial {
    /// Authorities to trust beside the machine's own. None: those alone.
    pub ca: Option<String>,
    /// The client's certificate, followed by its intermediate ones.
    pub certificate: Option<String>,
    /// Its key, not encrypted.
    pub key: Option<Secret>,
}

impl TlsMaterial {
    /// What [`crate::attach`] has put there.
    pub(crate) fn of(url: &Parts) -> Self {
        let option = |name| url.option(name).map(str::to_owned);
        Self { ca: option(CA), certificate: option(CERTIFICATE), key: option(KEY).map(Secret::from) }
    }

    /// By name, what [`Self::of`] reads.
    pub(crate) fn parameters(&self) -> [(&'static str, Option<&str>); 3] {
        [(CA, self.ca.as_deref()), (CERTIFICATE, self.certificate.as_deref()), (KEY, self.key.as_ref().map(Secret::expose))]
    }
}
