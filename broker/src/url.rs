//! Broker URLs as users write them. In: the text of an environment variable or a Secret. Out: addresses, credentials and options, or an error that
//! says what would be valid. A password can leave this module by [`Secret::expose`] alone: every `Debug` and `Display` hides it.
//! Left to others: connecting.

use crate::{BrokerError, Retry};
use std::fmt;

/// What a URL may look like; ends every error about one.
pub(crate) const VALID_URLS: &str = "valid are amqp://USER:PASSWORD@HOST:PORT/VHOST, amqps://…, redis://USER:PASSWORD@HOST:PORT/DB, rediss://…, \
     and redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/MASTER/DB";
/// RabbitMQ's own port, its port with TLS, and the management API's two.
const AMQP_PORT: u16 = 5672;
const AMQPS_PORT: u16 = 5671;
const MANAGEMENT_PORT: u16 = 15672;
const MANAGEMENT_TLS_PORT: u16 = 15671;
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// A shorter secret is not searched for in messages: it would blank out ordinary words.
const SCRUB_LENGTH_MIN: usize = 3;

/// A text that no `Debug` or `Display` shows.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

/// Who connects; both may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
}

impl Login {
    /// `text` with the password blanked, as written and percent-encoded: for messages that come from servers and libraries.
    pub(crate) fn scrub(&self, text: &str) -> String {
        let Some(password) = self.password.as_ref().map(Secret::expose).filter(|p| p.len() >= SCRUB_LENGTH_MIN) else {
            return text.to_owned();
        };
        let encoded: String = url::form_urlencoded::byte_serialize(password.as_bytes()).collect();
        text.replace(password, "***").replace(&encoded, "***")
    }
}

/// A Redis, or the Sentinels that know where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RedisUrl {
    pub(crate) tls: bool,
    /// The server; the Sentinels where `master` is set.
    pub(crate) addresses: Vec<Address>,
    /// Name of the master that the Sentinels watch.
    pub(crate) master: Option<String>,
    pub(crate) login: Login,
    /// The Sentinels' own login: `?sentinel_username=…&sentinel_password=…`.
    pub(crate) sentinel_login: Login,
    pub(crate) database: i64,
}

/// A RabbitMQ; several addresses are tried in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AmqpUrl {
    pub(crate) tls: bool,
    pub(crate) addresses: Vec<Address>,
    pub(crate) login: Login,
    pub(crate) vhost: String,
    /// Where the management API is.
    pub(crate) management: Management,
}

/// The management API of one RabbitMQ: beside the first address, or where `?management=http://HOST:PORT` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Management {
    pub(crate) tls: bool,
    pub(crate) address: Address,
}

/// A parsed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BrokerUrl {
    Redis(RedisUrl),
    Amqp(AmqpUrl),
}

fn invalid(place: &str, why: impl fmt::Display) -> BrokerError {
    BrokerError { operation: "reading the broker's URL", place: place.to_owned(), message: format!("{why}; {VALID_URLS}"), retry: Retry::AfterChange }
}

fn decode(text: &str) -> String {
    // A plus sign is itself in user information and paths, and a space only in queries: it's kept from the form decoder.
    let protected = text.replace('+', "%2B");
    url::form_urlencoded::parse(format!("v={}", protected.replace('&', "%26")).as_bytes()).next().map(|(_, v)| v.into_owned()).unwrap_or_default()
}

/// `host`, `host:port` or `[v6]:port`. Errors never repeat the text: a mistyped URL may hold the password anywhere.
fn address(text: &str, default_port: u16, place: &str) -> Result<Address, BrokerError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(|| invalid(place, "an IPv6 address has no closing bracket"))?;
            (host, after.strip_prefix(':'))
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let valid_host = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%'));
    if !valid_host {
        return Err(invalid(place, "the host is missing, or holds a character that no host name has"));
    }
    let port = match port {
        None | Some("") => default_port,
        Some(port) => port.parse().ok().filter(|p| *p != 0).ok_or_else(|| invalid(place, "the port is not a number from 1 to 65535"))?,
    };
    Ok(Address { host: host.to_owned(), port })
}

fn login(userinfo: Option<&str>) -> Login {
    let Some(userinfo) = userinfo else { return Login::default() };
    let (user, password) = userinfo.split_once(':').map_or((userinfo, None), |(user, password)| (user, Some(password)));
    let some = |text: &str| Some(decode(text)).filter(|t| !t.is_empty());
    Login { user: some(user), password: password.and_then(some).map(Secret) }
}

/// One URL, cut into its parts by hand: a list of hosts is no URL by the standard, and a password with `#` or `/` shall not move the host.
struct Parts<'a> {
    scheme: &'a str,
    userinfo: Option<&'a str>,
    hosts: &'a str,
    path: &'a str,
    query: Vec<(String, String)>,
}

impl<'a> Parts<'a> {
    fn cut(text: &'a str) -> Result<Self, BrokerError> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| invalid("(no scheme)", "a URL begins with its scheme and ://"))?;
        let place = if scheme.chars().all(|c| c.is_ascii_alphanumeric() || c == '+') { scheme } else { "(no scheme)" };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (userinfo, rest) = rest.rsplit_once('@').map_or((None, rest), |(userinfo, rest)| (Some(userinfo), rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        if hosts.is_empty() {
            return Err(invalid(place, "the host is missing"));
        }
        let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Ok(Self { scheme: place, userinfo, hosts, path, query })
    }

    fn option(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|v| !v.is_empty())
    }

    /// Scheme and hosts, for messages.
    fn place(&self) -> String {
        format!("{}://{}", self.scheme, self.hosts)
    }
}

impl BrokerUrl {
    /// Reads a URL. Query parameters that other clients use (`ssl_cert_reqs`, `heartbeat`, …) are ignored. Celery's spellings are read too:
    /// `pyamqp://`, and several AMQP URLs separated by semicolons.
    pub(crate) fn parse(text: &str) -> Result<Self, BrokerError> {
        let text = text.trim();
        let parts = Parts::cut(text.split(';').next().unwrap_or_default())?;
        match parts.scheme {
            "amqp" | "pyamqp" => Self::amqp(text, false),
            "amqps" | "pyamqps" => Self::amqp(text, true),
            "redis" => Self::redis(&parts, false),
            "rediss" => Self::redis(&parts, true),
            "redis+sentinel" => Self::sentinel(&parts, false),
            "rediss+sentinel" => Self::sentinel(&parts, true),
            scheme => Err(invalid(scheme, format_args!("the scheme {scheme}:// is not known"))),
        }
    }

    fn amqp(text: &str, tls: bool) -> Result<Self, BrokerError> {
        let port = if tls { AMQPS_PORT } else { AMQP_PORT };
        let mut read: Option<AmqpUrl> = None;
        for one in text.split(';').filter(|t| !t.trim().is_empty()) {
            let parts = Parts::cut(one.trim())?;
            let here = address(parts.hosts, port, parts.scheme)?;
            if let Some(url) = &mut read {
                url.addresses.push(here);
                continue;
            }
            let mut login = login(parts.userinfo);
            login.user.get_or_insert_with(|| "guest".to_owned());
            login.password.get_or_insert_with(|| Secret("guest".to_owned()));
            let vhost = decode(parts.path);
            let management = match parts.option("management") {
                Some(base) => Management::parse(base)?,
                None => {
                    Management { tls, address: Address { host: here.host.clone(), port: if tls { MANAGEMENT_TLS_PORT } else { MANAGEMENT_PORT } } }
                }
            };
            let vhost = if vhost.is_empty() { "/".to_owned() } else { vhost };
            read = Some(AmqpUrl { tls, addresses: vec![here], login, vhost, management });
        }
        read.map(Self::Amqp).ok_or_else(|| invalid("amqp", "the URL is empty"))
    }

    fn redis(parts: &Parts<'_>, tls: bool) -> Result<Self, BrokerError> {
        let here = address(parts.hosts, REDIS_PORT, parts.scheme)?;
        let database = database(parts.path.trim_end_matches('/'), parts.option("db"), &parts.place())?;
        let login = login(parts.userinfo);
        Ok(Self::Redis(RedisUrl { tls, addresses: vec![here], master: None, login, sentinel_login: Login::default(), database }))
    }

    fn sentinel(parts: &Parts<'_>, tls: bool) -> Result<Self, BrokerError> {
        let addresses = parts.hosts.split(',').map(|host| address(host.trim(), SENTINEL_PORT, parts.scheme)).collect::<Result<Vec<_>, _>>()?;
        let (master, db) = parts.path.split_once('/').unwrap_or((parts.path, ""));
        if master.is_empty() {
            return Err(invalid(&parts.place(), "the name of the master is missing after the Sentinels"));
        }
        let database = database(db.trim_end_matches('/'), parts.option("db"), &parts.place())?;
        let sentinel_login = Login {
            user: parts.option("sentinel_username").map(str::to_owned),
            password: parts.option("sentinel_password").map(|p| Secret(p.to_owned())),
        };
        Ok(Self::Redis(RedisUrl { tls, addresses, master: Some(decode(master)), login: login(parts.userinfo), sentinel_login, database }))
    }
}

fn database(path: &str, option: Option<&str>, place: &str) -> Result<i64, BrokerError> {
    let text = if path.is_empty() { option.unwrap_or("0") } else { path };
    text.parse().ok().filter(|db| *db >= 0).ok_or_else(|| invalid(place, "the database after the host is not a number such as 0"))
}

impl Management {
    fn parse(base: &str) -> Result<Self, BrokerError> {
        let (tls, rest) = match base.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(invalid("management", "the parameter management is not http://HOST:PORT or https://HOST:PORT")),
        };
        if rest.contains('@') {
            return Err(invalid("management", "the parameter management takes no user: the AMQP user is used"));
        }
        let port = if tls { MANAGEMENT_TLS_PORT } else { MANAGEMENT_PORT };
        Ok(Self { tls, address: address(rest.trim_end_matches('/'), port, "management")? })
    }
}

impl RedisUrl {
    /// Scheme and addresses, for messages.
    pub(crate) fn place(&self) -> String {
        let scheme = match (&self.master, self.tls) {
            (None, false) => "redis",
            (None, true) => "rediss",
            (Some(_), false) => "redis+sentinel",
            (Some(_), true) => "rediss+sentinel",
        };
        place(scheme, &self.addresses, ",")
    }

    /// A message without either password.
    pub(crate) fn scrub(&self, text: &str) -> String {
        self.sentinel_login.scrub(&self.login.scrub(text))
    }
}

impl AmqpUrl {
    /// Scheme and addresses, for messages.
    pub(crate) fn place(&self) -> String {
        place(if self.tls { "amqps" } else { "amqp" }, &self.addresses, ",")
    }
}

fn place(scheme: &str, addresses: &[Address], separator: &str) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    format!("{scheme}://{}", addresses.join(separator))
}

#[cfg(test)]
#[path = "url_tests.rs"]
mod tests;
