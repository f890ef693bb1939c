//! How a server's certificate is checked. In: a scheme, the parameters that clients use for TLS. Out: [`Tls`]. Left to others: doing it (`broker`).

use crate::UrlError;
use crate::cut::Parts;
use crate::material::TlsMaterial;

/// What must be true of the server's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verify {
    /// Signed by a known authority, valid now, and for this host.
    #[default]
    Full,
    /// The same, for whatever host (`?ssl_check_hostname=false`).
    ChainOnly,
    /// Nothing (`?ssl_cert_reqs=none`): whoever stands in between can read the password.
    Nothing,
}

/// TLS to one broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// What is checked.
    pub verify: Verify,
    /// The URL names a file with authorities or a client certificate: it is in the worker's container, and only there.
    pub names_file: bool,
    /// With what.
    pub material: TlsMaterial,
}

impl Tls {
    /// `tls`: what the scheme says.
    pub(crate) fn read(url: &Parts, tls: bool) -> Result<Option<Self>, UrlError> {
        let asked = url.options().any(|name| name.starts_with("ssl_") && name != "ssl_options");
        let on = |name| url.option(name).is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "true" | "1" | "yes"));
        if !tls && !asked && !on("ssl") && !on("tls") {
            return Ok(None);
        }
        let mut verify = Verify::Full;
        if url.option("ssl_check_hostname").is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "false" | "0" | "no")) {
            verify = Verify::ChainOnly;
        }
        if let Some(value) = url.option("ssl_cert_reqs") {
            let lower = value.to_ascii_lowercase();
            match lower.strip_prefix("ssl.").unwrap_or(&lower).trim_start_matches("cert_") {
                "none" | "0" => verify = Verify::Nothing,
                "required" | "optional" | "1" | "2" => {}
                _ => {
                    return Err(UrlError {
                        part: "ssl_cert_reqs",
                        problem: "its value is not known".to_owned(),
                        valid: "valid are none, optional and required",
                    });
                }
            }
        }
        // RabbitMQ's own URI query parameter.
        if url.option("verify").is_some_and(|v| v.eq_ignore_ascii_case("verify_none")) {
            verify = Verify::Nothing;
        }
        let files = ["ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "cacertfile", "certfile", "keyfile", "ssl_ca_file"];
        Ok(Some(Self { verify, names_file: files.iter().any(|name| url.option(name).is_some()), material: TlsMaterial::of(url) }))
    }
}
