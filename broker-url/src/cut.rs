//! A URL in its parts. In: text. Out: scheme, user information, hosts, path, query, fragment; addresses; decoded text. Left to others: what the parts mean.
//!
//! Cut by hand: a list of hosts is no URL by RFC 3986, and a password with `#` or `/` shall not move the host.

use crate::{Address, Login, Secret, UrlError};
use percent_encoding::percent_decode_str;

/// Longest scheme that a message repeats: a longer one is a mistyped URL, and may hold anything.
const SCHEME_SHOWN_MAX: usize = 20;

/// Semicolons of a text that are looked at, each of which may take a look at all that follows: far more than any list has, or any password.
const SEMICOLONS_MAX: usize = 64;

/// The parts of one URL, not decoded.
pub(crate) struct Parts {
    /// In lower case.
    pub(crate) scheme: String,
    userinfo: Option<String>,
    pub(crate) hosts: String,
    /// Without the slash before it.
    pub(crate) path: String,
    query: Vec<(String, String)>,
    pub(crate) fragment: String,
}

/// Whether a scheme may stand in a message.
pub(crate) fn is_shown(scheme: &str) -> bool {
    scheme.len() <= SCHEME_SHOWN_MAX && scheme.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
}

/// URLs separated by semicolons, as kombu takes them; a later one without a scheme has the first one's.
pub(crate) fn list(text: &str) -> Result<Vec<Parts>, UrlError> {
    let mut out: Vec<Parts> = Vec::new();
    for one in split(text) {
        let url = match out.first() {
            Some(first) if !one.contains("://") => Parts::cut(&first.scheme, one)?,
            _ => {
                let (scheme, rest) = one.split_once("://").ok_or_else(|| no_scheme(one))?;
                let scheme = scheme.trim().to_ascii_lowercase();
                if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_')) {
                    return Err(UrlError::new("scheme", "a URL begins with its scheme and ://"));
                }
                Parts::cut(&scheme, rest)?
            }
        };
        out.push(url);
    }
    Ok(out)
}

/// A semicolon ends a URL where what follows begins one, or where the URL up to it has its host: in a password it does not.
pub(crate) fn split(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = text;
    let mut from = 0;
    for _ in 0..SEMICOLONS_MAX {
        let Some(at) = rest[from..].find(';').map(|at| at + from) else { break };
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        let begins = |text: &str| {
            let text = text.trim_start();
            text.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-')).starts_with("://")
        };
        // An `@` to come that is not in a URL of its own ends the user information that this semicolon stands in.
        let in_password = || !before.contains('@') && after.split("://").next().is_some_and(|part| part.contains('@'));
        if !begins(after) && (before.contains('?') || in_password()) {
            from = at + 1;
            continue;
        }
        out.push(before.trim());
        (rest, from) = (after, 0);
    }
    out.push(rest.trim());
    out.retain(|one| !one.is_empty());
    out
}

fn no_scheme(text: &str) -> UrlError {
    if text.starts_with('/') {
        return UrlError::new("scheme", "a path is no URL; a Unix socket is a file of the worker's container, which nobody else can open");
    }
    UrlError::new("scheme", "a URL begins with its scheme and ://, such as redis:// or amqp://")
}

impl Parts {
    fn cut(scheme: &str, rest: &str) -> Result<Self, UrlError> {
        let (before_query, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (userinfo, rest) = before_query.rsplit_once('@').map_or((None, before_query), |(userinfo, rest)| (Some(userinfo.to_owned()), rest));
        if userinfo.is_none() && query.contains('@') && looks_like_password(before_query) {
            return Err(UrlError::new("password", "a ? in a user or password must be written %3F (and @ : / # % as %40 %3A %2F %23 %25)"));
        }
        let (rest, mut fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (query, late) = query.split_once('#').unwrap_or((query, ""));
        if fragment.is_empty() {
            fragment = late;
        }
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Ok(Self {
            scheme: scheme.to_owned(),
            userinfo,
            hosts: hosts.trim().to_owned(),
            path: path.trim().to_owned(),
            query,
            fragment: fragment.to_owned(),
        })
    }

    /// The value of a parameter; None where it is absent or empty.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|v| !v.is_empty())
    }

    /// All names of parameters.
    pub(crate) fn options(&self) -> impl Iterator<Item = &str> {
        self.query.iter().map(|(key, _)| key.as_str())
    }

    pub(crate) fn login(&self) -> Result<Login, UrlError> {
        let Some(userinfo) = &self.userinfo else { return Ok(Login::default()) };
        let (user, password) = userinfo.split_once(':').map_or((userinfo.as_str(), None), |(user, password)| (user, Some(password)));
        let some = |part, text: &str| decode(part, text).map(|t| Some(t).filter(|t| !t.is_empty()));
        let password = password.map_or(Ok(None), |password| some("password", password))?;
        Ok(Login { user: some("user", user)?, password: password.map(Secret::from) })
    }
}

/// `host:port` has digits after its colon; a password that a `?` cut short mostly has not.
fn looks_like_password(text: &str) -> bool {
    let hosts = text.split('/').next().unwrap_or_default();
    hosts.rsplit_once(':').is_some_and(|(_, after)| !after.bytes().all(|b| b.is_ascii_digit()))
}

/// Percent-decoded text. A `%` that begins no code stays, as in every client.
pub(crate) fn decode(part: &'static str, text: &str) -> Result<String, UrlError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| UrlError::new(part, "its percent-encoding is not that of a text in UTF-8"))
}

/// `host`, `host:port` or `[v6]:port`.
pub(crate) fn address(text: &str, default_port: u16) -> Result<Address, UrlError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(|| UrlError::new("host", "an IPv6 address has no closing bracket"))?;
            if host.parse::<std::net::Ipv6Addr>().is_err() && !host.contains('%') {
                return Err(UrlError::new("host", "what stands in brackets is no IPv6 address"));
            }
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(UrlError::new("port", "after an IPv6 address in brackets only :PORT may come")),
            }
        }
        None if text.parse::<std::net::Ipv6Addr>().is_ok() || text.matches(':').count() > 1 => {
            return Err(UrlError::new(
                "host",
                "an IPv6 address stands in brackets, such as [::1]:6379; a : in a password is written %3A where no @ follows it",
            ));
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let valid_host = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%'));
    if !valid_host {
        return Err(UrlError::new(
            "host",
            "the host is missing, or holds a character that no host name has (in a password @ : / ? # are written %40 %3A %2F %3F %23)",
        ));
    }
    let port = match port {
        None | Some("") => default_port,
        Some(port) => port.parse().ok().filter(|p| *p != 0).ok_or_else(|| UrlError::new("port", "the port is not a number from 1 to 65535"))?,
    };
    Ok(Address { host: host.to_owned(), port })
}
