//! Where RabbitMQ's management API is. In: `http(s)://[USER:PASSWORD@]HOST[:PORT][/PREFIX]`. Out: address, prefix, login. Left to others: calling it.

use crate::cut::{self, Parts};
use crate::{Address, Login, MANAGEMENT_PORT, MANAGEMENT_TLS_PORT, UrlError};

/// What the address of a management API may look like; ends every error about one.
pub const VALID: &str = "valid are http://HOST:PORT and https://HOST:PORT, with /PREFIX where a proxy adds one";

/// The management API of one RabbitMQ: beside the first address, or where an annotation or `?management=` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Management {
    /// Whether it is spoken to by TLS; how its certificate is checked is the broker's [`crate::Tls`].
    pub tls: bool,
    /// Where it is.
    pub address: Address,
    /// Before `/api`: empty, or `/NAME…` without a slash at its end.
    pub prefix: String,
    /// Another user than the broker's. None: the broker's.
    pub login: Option<Login>,
}

impl Management {
    /// Reads the address of a management API. Without a port it is HTTP's own, 80 or 443.
    ///
    /// # Errors
    /// When it is none; it is not repeated in the error.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        Self::read(crate::clean(text)).map_err(|error| UrlError { part: "management", valid: VALID, ..error })
    }

    fn read(text: &str) -> Result<Self, UrlError> {
        let [url] = &*cut::list(text)? else { return Err(UrlError::new("management", "it is not one address")) };
        let (tls, port) = match url.scheme.as_str() {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return Err(UrlError::new("management", "it is not http:// or https://")),
        };
        if Parts::options(url).next().is_some() {
            return Err(UrlError::new("management", "it takes no parameters"));
        }
        let path = url.path.trim_matches('/');
        // People copy the address out of a browser or of the API's own documentation.
        let path = path.strip_suffix("api").filter(|p| p.is_empty() || p.ends_with('/')).unwrap_or(path).trim_matches('/');
        if !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(UrlError::new("management", "its prefix holds a character that no path has"));
        }
        let login = url.login()?;
        Ok(Self {
            tls,
            address: cut::address(&url.hosts, port)?,
            prefix: if path.is_empty() { String::new() } else { format!("/{path}") },
            login: login.user.is_some().then_some(login),
        })
    }

    pub(crate) fn beside(first: Option<&Address>, tls: bool) -> Self {
        let host = first.map(|a| a.host.clone()).unwrap_or_default();
        Self { tls, address: Address { host, port: if tls { MANAGEMENT_TLS_PORT } else { MANAGEMENT_PORT } }, prefix: String::new(), login: None }
    }

    /// For messages.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}://{}{}", if self.tls { "https" } else { "http" }, self.address, self.prefix)
    }
}
