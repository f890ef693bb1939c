//! Broker URLs as users write them. In: the text of an environment variable or a Secret, in any form that kombu, redis-py, ioredis, Sidekiq, pika or
//! lapin takes. Out: addresses, credentials and options, or an error that names the part, what is wrong with it and what would be valid, and never a
//! secret. Left to others: connecting (`broker`), finding the text (`webhook`, `controller`).
//!
//! Leaf crate: no broker client, no runtime. The admission webhook, the sidecar and the controller read URLs by the same function.
//!
//! Rules that clients disagree on, and which one is followed here:
//! - the last `@` before the query ends the user information, so a password may hold `@`, `:`, `/` and `#` unescaped; `?` must be written `%3F`;
//! - `?db=` wins over the path (redis-py); an `ssl_` parameter on `redis://` or `amqp://` turns TLS on (kombu);
//! - of `sentinel://…;sentinel://…` (kombu) the first URL gives user, password and database, all give addresses.

mod attach;
mod cut;
pub mod expand;
mod identity;
mod management;
mod material;
mod secret;
mod tls;

pub use attach::attach;
pub use management::{Management, VALID as VALID_MANAGEMENT};
pub use material::TlsMaterial;
pub use secret::{Login, Secret};
pub use tls::{Tls, Verify};

use cut::Parts;
use std::fmt;

/// What a URL may look like; ends every error about one.
pub const VALID_URLS: &str = "valid are amqp://USER:PASSWORD@HOST:PORT/VHOST, amqps://…, redis://USER:PASSWORD@HOST:PORT/DB, rediss://…, \
     valkey(s)://…, and redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/MASTER/DB or sentinel://HOST:PORT;sentinel://HOST:PORT";
/// RabbitMQ's own port, and its port with TLS (IANA: amqp, amqps).
const AMQP_PORT: u16 = 5672;
const AMQPS_PORT: u16 = 5671;
/// The management API's two.
const MANAGEMENT_PORT: u16 = 15672;
const MANAGEMENT_TLS_PORT: u16 = 15671;
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// Addresses of one URL: each one that is down costs a connect's time limit. Clusters of both kinds have three to seven.
const ADDRESSES_MAX: usize = 16;

/// Why a text is no URL of a broker. Shows the scheme at most: a mistyped URL may hold its password anywhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part}: {problem}; {valid}")]
pub struct UrlError {
    /// The part of the URL that is wrong: `scheme`, `host`, `port`, `user`, `password`, `database`, `virtual host`, `master`, `list`, `management`, a
    /// parameter's name, or `text` for all of it.
    pub part: &'static str,
    /// What is wrong, in a sentence without a stop.
    pub problem: String,
    /// What would be valid.
    pub valid: &'static str,
}

impl UrlError {
    fn new(part: &'static str, problem: impl Into<String>) -> Self {
        Self { part, problem: problem.into(), valid: VALID_URLS }
    }
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Name or IP address, IPv6 without brackets.
    pub host: String,
    /// TCP port, not 0.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

/// A Redis or Valkey, or the Sentinels that know where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisUrl {
    /// None: plain TCP.
    pub tls: Option<Tls>,
    /// Servers to try in turn; the Sentinels where `sentinel` is true. At least one.
    pub addresses: Vec<Address>,
    /// Whether `addresses` are Sentinels.
    pub sentinel: bool,
    /// Name of the master that the Sentinels watch. None: the only one that they watch.
    pub master: Option<String>,
    /// Who logs in at the server.
    pub login: Login,
    /// The Sentinels' own login (`?sentinel_username=…&sentinel_password=…`); empty: none, or the same as the server's.
    pub sentinel_login: Login,
    /// Database number.
    pub database: i64,
}

/// A RabbitMQ; several addresses are tried in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmqpUrl {
    /// None: plain TCP.
    pub tls: Option<Tls>,
    /// At least one.
    pub addresses: Vec<Address>,
    /// Who logs in; `guest` with password `guest` where the URL names nobody, as every client has it.
    pub login: Login,
    /// Whether the server knows the user by the client certificate (`?auth_mechanism=external`).
    pub external: bool,
    /// Virtual host, decoded.
    pub vhost: String,
    /// Where the management API is.
    pub management: Management,
}

/// A parsed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerUrl {
    /// Redis, Valkey, and whatever speaks the same.
    Redis(RedisUrl),
    /// RabbitMQ by AMQP 0-9-1.
    Amqp(AmqpUrl),
}

/// Reads a URL. White space around it (Secrets often end in a newline) and one pair of quotes are taken off; parameters that other clients use
/// (`heartbeat`, `connection_timeout`, `socket_timeout`, …) are ignored.
///
/// # Errors
/// When it is none, or of a broker that is not supported.
pub fn parse(text: &str) -> Result<BrokerUrl, UrlError> {
    let text = clean(text);
    if text.is_empty() {
        return Err(UrlError::new("text", "the URL is empty"));
    }
    read(text).map_err(|error| expand::unexpanded(text).map_or(error, |problem| UrlError::new("text", problem)))
}

fn clean(text: &str) -> &str {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}' || c == '\0');
    let inside = |quote: char| text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote));
    inside('"').or_else(|| inside('\'')).unwrap_or(text).trim()
}

/// What a scheme stands for.
enum Kind {
    Amqp { tls: bool },
    Redis { tls: bool },
    Sentinel { tls: bool },
    Unsupported(&'static str),
}

fn kind(scheme: &str) -> Option<Kind> {
    Some(match scheme {
        "amqp" | "pyamqp" | "librabbitmq" | "rabbitmq" => Kind::Amqp { tls: false },
        "amqps" | "pyamqps" | "amqp+ssl" => Kind::Amqp { tls: true },
        "redis" | "valkey" => Kind::Redis { tls: false },
        "rediss" | "valkeys" | "redis+ssl" | "redis+tls" => Kind::Redis { tls: true },
        "redis+sentinel" | "valkey+sentinel" | "redis-sentinel" | "sentinel" => Kind::Sentinel { tls: false },
        "rediss+sentinel" | "valkeys+sentinel" | "rediss-sentinel" | "sentinels" => Kind::Sentinel { tls: true },
        "redis+cluster" | "rediss+cluster" | "valkey+cluster" | "valkeys+cluster" | "redis-cluster" | "rediss-cluster" => Kind::Unsupported(
            "Redis Cluster is not supported: queues of one framework lie on several of its nodes; use a Redis without cluster mode, or Sentinels",
        ),
        "unix" | "socket" | "redis+socket" | "redis-socket" | "redis+unix" | "valkey+unix" | "valkey+socket" | "rediss+socket" => Kind::Unsupported(
            "a Unix socket is a file of the worker's container, which neither the sidecar nor the controller can open; give the broker's TCP address",
        ),
        "sqs" => Kind::Unsupported("Amazon SQS is not supported"),
        "kafka" | "confluentkafka" => Kind::Unsupported("Kafka is not supported"),
        "nats" | "tls" => Kind::Unsupported("NATS is not supported"),
        "memory" | "filesystem" => Kind::Unsupported("this broker lives inside the worker, so that nobody else can see its queues"),
        "http" | "https" => {
            Kind::Unsupported("this is an address of the web, not of a broker (a management API is named by the annotation qscaler.dev/management)")
        }
        "mongodb" | "mongodb+srv" | "sqlalchemy" | "sqla" | "postgres" | "postgresql" | "mysql" | "sqlite" | "azureservicebus"
        | "azurestoragequeues" | "gcpubsub" | "pubsub" | "zookeeper" | "consul" | "etcd" | "qpid" | "pyro" | "slmq" | "stomp" | "mqtt" | "pulsar"
        | "amqp10" | "sb" => Kind::Unsupported("this broker is not supported, only RabbitMQ and Redis are"),
        _ => return None,
    })
}

fn read(text: &str) -> Result<BrokerUrl, UrlError> {
    let urls = cut::list(text)?;
    let Some(first) = urls.first() else { return Err(UrlError::new("text", "the URL is empty")) };
    let scheme = first.scheme.as_str();
    let kind = kind(scheme).ok_or_else(|| {
        let shown = if cut::is_shown(scheme) { format!("the scheme {scheme}:// is not known") } else { "the scheme is not known".to_owned() };
        UrlError::new("scheme", shown)
    })?;
    if let Kind::Unsupported(why) = kind {
        return Err(UrlError::new("scheme", why));
    }
    if urls.iter().any(|url| url.scheme != first.scheme) {
        return Err(UrlError::new("list", "the URLs of a list have different schemes"));
    }
    match kind {
        Kind::Amqp { tls } => amqp(&urls, first, tls).map(BrokerUrl::Amqp),
        Kind::Redis { tls } => redis(&urls, first, tls).map(BrokerUrl::Redis),
        Kind::Sentinel { tls } => sentinel(&urls, first, tls).map(BrokerUrl::Redis),
        Kind::Unsupported(why) => Err(UrlError::new("scheme", why)),
    }
}

fn addresses(urls: &[Parts], port: u16) -> Result<Vec<Address>, UrlError> {
    let mut out: Vec<Address> = Vec::new();
    for url in urls {
        for host in url.hosts.split(',').map(str::trim).filter(|host| !host.is_empty()) {
            let address = cut::address(host, port)?;
            if !out.contains(&address) {
                out.push(address);
            }
            if out.len() > ADDRESSES_MAX {
                return Err(UrlError::new("list", format!("more than {ADDRESSES_MAX} addresses, and no more are taken")));
            }
        }
    }
    if out.is_empty() { Err(UrlError::new("host", "the host is missing")) } else { Ok(out) }
}

/// Of URLs that stand for one broker the user, the password and the path are the same: one login is used for all.
fn alike<T: PartialEq>(urls: &[Parts], what: &'static str, of: impl Fn(&Parts) -> Result<T, UrlError>) -> Result<(), UrlError> {
    let all = urls.iter().map(of).collect::<Result<Vec<T>, UrlError>>()?;
    if all.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(());
    }
    Err(UrlError::new("list", format!("the URLs of the list differ in their {what}: the addresses of one broker take the same")))
}

fn amqp(urls: &[Parts], first: &Parts, tls: bool) -> Result<AmqpUrl, UrlError> {
    alike(urls, "user or password", Parts::login)?;
    alike(urls, "virtual host", vhost)?;
    let tls = Tls::read(first, tls)?;
    let addresses = addresses(urls, if tls.is_some() { AMQPS_PORT } else { AMQP_PORT })?;
    let mut login = first.login()?;
    let external = first.option("auth_mechanism").is_some_and(|m| m.eq_ignore_ascii_case("external"));
    if !external {
        login.user.get_or_insert_with(|| "guest".to_owned());
        login.password.get_or_insert_with(|| Secret::from("guest".to_owned()));
    }
    let management = match first.option("management") {
        Some(base) => Management::parse(base)?,
        None => Management::beside(addresses.first(), tls.is_some()),
    };
    Ok(AmqpUrl { tls, addresses, login, external, vhost: vhost(first)?, management })
}

/// Nothing, `/`, `//` and `/%2F` are all the root, as in kombu and pika; in `//NAME` the second slash is part of the name.
fn vhost(url: &Parts) -> Result<String, UrlError> {
    let decoded = cut::decode("virtual host", &url.path)?;
    Ok(if decoded.is_empty() { "/".to_owned() } else { decoded })
}

fn redis(urls: &[Parts], first: &Parts, tls: bool) -> Result<RedisUrl, UrlError> {
    if urls.iter().any(|url| url.hosts.contains(',')) {
        let words =
            "several hosts: a Redis has one address (Redis Cluster is not supported; Sentinels are written redis+sentinel://HOST,HOST/MASTER)";
        return Err(UrlError::new("host", words));
    }
    alike(urls, "user or password", Parts::login)?;
    alike(urls, "database", |url| database(&url.path, url))?;
    Ok(RedisUrl {
        tls: Tls::read(first, tls)?,
        addresses: addresses(urls, REDIS_PORT)?,
        sentinel: false,
        master: None,
        login: first.login()?,
        sentinel_login: Login::default(),
        database: database(&first.path, first)?,
    })
}

fn sentinel(urls: &[Parts], first: &Parts, tls: bool) -> Result<RedisUrl, UrlError> {
    let path = first.path.trim_matches('/');
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (in_path, db) = match path.split_once('/') {
        Some((db, master)) if is_number(db) && !is_number(master) => (master, db),
        Some((master, db)) => (master, db),
        None if is_number(path) => ("", path),
        None => (path, ""),
    };
    let named = ["master_name", "master", "service_name", "sentinel_master", "sentinelMasterId"].iter().find_map(|name| first.option(name));
    // Lettuce writes the master after a `#`.
    let master = match (in_path, named, first.fragment.as_str()) {
        ("", None, "") => None,
        ("", None, fragment) => Some(cut::decode("master", fragment)?),
        ("", Some(named), _) => Some(named.to_owned()),
        (in_path, _, _) => Some(cut::decode("master", in_path)?),
    };
    let option = |names: [&str; 2]| names.iter().find_map(|name| first.option(name)).map(str::to_owned);
    Ok(RedisUrl {
        tls: Tls::read(first, tls)?,
        addresses: addresses(urls, SENTINEL_PORT)?,
        sentinel: true,
        master,
        login: first.login()?,
        sentinel_login: Login {
            user: option(["sentinel_username", "sentinelUsername"]),
            password: option(["sentinel_password", "sentinelPassword"]).map(Secret::from),
        },
        database: database(db, first)?,
    })
}

fn database(path: &str, url: &Parts) -> Result<i64, UrlError> {
    let path = path.trim_matches('/');
    let text = url.option("db").unwrap_or(if path.is_empty() { "0" } else { path });
    text.parse().ok().filter(|db| *db >= 0).ok_or_else(|| UrlError::new("database", "what follows the host is not a number such as 0"))
}

impl BrokerUrl {
    /// Scheme and addresses, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::Redis(url) => url.place(),
            Self::Amqp(url) => url.place(),
        }
    }

    /// The hosts that a connection is made to: the broker's, and the management API's.
    #[must_use]
    pub fn hosts(&self) -> Vec<&str> {
        match self {
            Self::Redis(url) => url.addresses.iter().map(|a| a.host.as_str()).collect(),
            Self::Amqp(url) => url.addresses.iter().chain([&url.management.address]).map(|a| a.host.as_str()).collect(),
        }
    }
}

impl RedisUrl {
    /// Scheme and addresses, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        let scheme = match (self.sentinel, self.tls.is_some()) {
            (false, false) => "redis",
            (false, true) => "rediss",
            (true, false) => "redis+sentinel",
            (true, true) => "rediss+sentinel",
        };
        place(scheme, &self.addresses)
    }

    /// A message without either password.
    #[must_use]
    pub fn scrub(&self, text: &str) -> String {
        self.sentinel_login.scrub(&self.login.scrub(text))
    }
}

impl AmqpUrl {
    /// Scheme and addresses, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        place(if self.tls.is_some() { "amqps" } else { "amqp" }, &self.addresses)
    }

    /// A message without any password.
    #[must_use]
    pub fn scrub(&self, text: &str) -> String {
        let text = self.login.scrub(text);
        self.management.login.as_ref().map_or_else(|| text.clone(), |login| login.scrub(&text))
    }
}

fn place(scheme: &str, addresses: &[Address]) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    format!("{scheme}://{}", addresses.join(","))
}

#[cfg(test)]
mod tests;
