//! RabbitMQ's management API. In: its address, the AMQP user, queue names. Out: per queue what AMQP does not tell: unacknowledged messages, and
//! counters of what was published and finished; connections and channels by address. Left to others: how old these figures may grow (`stats`), what a
//! connection holds (`activity::connections`).
//! The server renews its statistics every 5 s. Fields that it leaves out (a new queue, a disabled collector) stay unknown.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use qscaler_broker_url::{AmqpUrl, Secret, Tls};
use serde::Deserialize;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// For the connection and every answer together: 200 queues take 24 ms on a small server, and figures that take longer than this are of no use.
pub(crate) const FETCH_TIMEOUT: Duration = Duration::from_secs(4);
/// Up to so many queues are asked for one by one (2 ms each on the server); more are read from the list, by page.
const SINGLE_MAX: usize = 10;
/// Largest page that the API gives.
const PAGE_SIZE: usize = 500;
/// Pages read at most: 50,000 queues.
const PAGES_MAX: usize = 100;
/// A page of 500 queues with these columns has about 50 kB.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
const COLUMNS: &str = "columns=name,messages_ready,messages_unacknowledged,message_stats.publish,message_stats.ack,message_stats.deliver_no_ack,message_stats.get_no_ack,head_message_timestamp";

/// What the API tells of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueFigures {
    pub(crate) ready: Option<u64>,
    pub(crate) unacked: Option<u64>,
    pub(crate) published: Option<u64>,
    pub(crate) completed: Option<u64>,
    /// When the message that waits longest was published, seconds since the epoch: its property `timestamp`, where its publisher sets one (classic queues alone tell).
    pub(crate) head_s: Option<u64>,
}

#[derive(Deserialize)]
struct Queue {
    name: Option<String>,
    messages_ready: Option<u64>,
    messages_unacknowledged: Option<u64>,
    message_stats: Option<Counters>,
    /// A number; null, or an empty text, where there is none.
    #[serde(default)]
    head_message_timestamp: serde_json::Value,
}

#[derive(Deserialize)]
struct Counters {
    publish: Option<u64>,
    ack: Option<u64>,
    deliver_no_ack: Option<u64>,
    get_no_ack: Option<u64>,
}

#[derive(Deserialize)]
struct Page<T> {
    #[serde(default)]
    page_count: usize,
    items: Vec<T>,
}

impl Queue {
    fn figures(&self) -> QueueFigures {
        let stats = self.message_stats.as_ref();
        // Counters appear with the first event of their kind: where others are there, an absent one has counted nothing.
        let counted = |of: fn(&Counters) -> Option<u64>| stats.map(|s| of(s).unwrap_or(0));
        let completed = counted(|s| Some(s.ack.unwrap_or(0) + s.deliver_no_ack.unwrap_or(0) + s.get_no_ack.unwrap_or(0)));
        // The server looks at messages in work, too: with one of these it may be theirs, and what waits longest is not known.
        let head_s = self.head_message_timestamp.as_u64().filter(|at| *at > 0 && self.messages_unacknowledged == Some(0));
        QueueFigures { ready: self.messages_ready, unacked: self.messages_unacknowledged, published: counted(|s| s.publish), completed, head_s }
    }
}

/// Figures of these queues; one that the API does not know is absent.
///
/// # Errors
/// In words, without the password: not reachable, not allowed, not understood.
pub(crate) async fn fetch(api: &Api, url: &AmqpUrl, queues: &[String]) -> Result<HashMap<String, QueueFigures>, String> {
    match timeout(FETCH_TIMEOUT, fetch_all(api, url, queues)).await {
        Ok(result) => result.map_err(|message| url.scrub(&message)),
        Err(_) => Err(format!("no answer within {} s", FETCH_TIMEOUT.as_secs())),
    }
}

async fn fetch_all(api: &Api, url: &AmqpUrl, queues: &[String]) -> Result<HashMap<String, QueueFigures>, String> {
    let vhost = encode(&url.vhost);
    let mut found = HashMap::new();
    if queues.len() <= SINGLE_MAX {
        for name in queues {
            if let Some(body) = api.get(&format!("/api/queues/{vhost}/{}?{COLUMNS}", encode(name))).await? {
                let queue: Queue = parse(&body)?;
                found.insert(name.clone(), queue.figures());
            }
        }
        return Ok(found);
    }
    for queue in api.pages::<Queue>(&format!("/api/queues/{vhost}"), COLUMNS).await? {
        if let Some(name) = &queue.name {
            found.insert(name.clone(), queue.figures());
        }
    }
    Ok(found)
}

/// Connections to the broker and channels on them, as [`of_address`] finds them.
#[derive(Debug)]
pub(crate) struct Traffic<C, H> {
    pub(crate) connections: Vec<C>,
    pub(crate) channels: Vec<H>,
}

/// What has this address in its name: of the channels these columns, of the connections those; `name` must be among them, the server sorts by it. Others whose names contain the address, or (IPv6, which is
/// written in more than one way) all, are among them.
///
/// # Errors
/// As for [`fetch`].
pub(crate) async fn of_address<C, H>(api: &Api, url: &AmqpUrl, address: IpAddr, connections: &str, channels: &str) -> Result<Traffic<C, H>, String>
where
    C: for<'de> Deserialize<'de>,
    H: for<'de> Deserialize<'de>,
{
    let name = if address.is_ipv4() { format!("name={address}&use_regex=false&") } else { String::new() };
    let request = async {
        // Channels first: then of each one its connection is there, if it still lives.
        let channels = api.pages("/api/channels", &format!("{name}columns={channels}")).await?;
        let connections = api.pages("/api/connections", &format!("{name}columns={connections}")).await?;
        Ok(Traffic { connections, channels })
    };
    match timeout(FETCH_TIMEOUT, request).await {
        Ok(result) => result.map_err(|message: String| url.scrub(&message)),
        Err(_) => Err(format!("no answer within {} s", FETCH_TIMEOUT.as_secs())),
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("not understood: {error}"))
}

/// For one segment of a path.
fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The API; its connections are kept alive between calls.
pub(crate) struct Api {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    base: String,
    authorization: String,
    tls: Option<Tls>,
    asked: Arc<AtomicBool>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Api {
    /// Connects at the first call.
    ///
    /// # Errors
    /// When the certificates that were given cannot be used.
    pub(crate) fn new(url: &AmqpUrl) -> Result<Self, String> {
        let management = &url.management;
        // A management API with TLS beside a broker without: the certificates of the machine.
        let tls = management.tls.then(|| url.tls.clone().unwrap_or_default());
        let asked = Arc::default();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let config = match &tls {
            Some(tls) => crate::tls::client(tls, &asked)?,
            None => {
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let builder =
                    rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
                Arc::new(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
            }
        };
        let connector = HttpsConnectorBuilder::new().with_tls_config((*config).clone()).https_or_http().enable_http1().wrap_connector(tcp);
        let login = management.login.as_ref().unwrap_or(&url.login);
        let user = login.user.as_deref().unwrap_or_default();
        let password = login.password.as_ref().map(Secret::expose).unwrap_or_default();
        let authorization = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), base: management.place(), authorization, tls, asked })
    }

    /// All pages of a list.
    async fn pages<T: for<'de> Deserialize<'de>>(&self, path: &str, query: &str) -> Result<Vec<T>, String> {
        let mut items = Vec::new();
        for page in 1..=PAGES_MAX {
            let Some(body) = self.get(&format!("{path}?page={page}&page_size={PAGE_SIZE}&{query}")).await? else { break };
            let answer: Page<T> = parse(&body)?;
            items.extend(answer.items);
            if page >= answer.page_count {
                break;
            }
        }
        Ok(items)
    }

    /// What went wrong, down to its cause: the outermost error says "client error (Connect)" alone.
    fn words(&self, error: &dyn std::error::Error) -> String {
        let mut words = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            words = format!("{words}: {inner}");
            source = inner.source();
        }
        crate::tls::explain(&words, self.tls.as_ref(), self.asked.load(Ordering::Relaxed)).unwrap_or(words)
    }

    /// The body; None for 404.
    async fn get(&self, path: &str) -> Result<Option<Bytes>, String> {
        let request = Request::get(format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, &self.authorization)
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let response = self.client.request(request).await.map_err(|error| self.words(&error))?;
        self.asked.store(false, Ordering::Relaxed);
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await.map_err(|error| error.to_string())?.to_bytes();
        match status {
            StatusCode::OK => Ok(Some(body)),
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(format!("HTTP {status}: the user needs the tag management")),
            status => Err(format!("HTTP {status}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(json: &str) -> QueueFigures {
        serde_json::from_str::<Queue>(json).unwrap().figures()
    }

    #[test]
    fn fields_that_the_server_leaves_out_are_unknown() {
        assert_eq!(figures(r#"{"name":"q"}"#), QueueFigures::default());
        let fresh = figures(r#"{"name":"q","messages_ready":3,"messages_unacknowledged":1}"#);
        assert_eq!(fresh, QueueFigures { ready: Some(3), unacked: Some(1), ..QueueFigures::default() });
    }

    #[test]
    fn the_head_s_time_is_that_of_a_waiting_message_only_while_none_is_in_work() {
        let head = |unacked: u64, time: &str| {
            figures(&format!(r#"{{"messages_ready":3,"messages_unacknowledged":{unacked},"head_message_timestamp":{time}}}"#)).head_s
        };
        assert_eq!(head(0, "1796043600"), Some(1_796_043_600));
        assert_eq!([head(1, "1796043600"), head(0, "null"), head(0, "\"\""), head(0, "0")], [None; 4]);
    }

    #[test]
    fn both_ways_of_finishing_a_message_count() {
        let queue = figures(r#"{"messages_ready":0,"message_stats":{"publish":9,"ack":4,"deliver_no_ack":2}}"#);
        assert_eq!((queue.published, queue.completed), (Some(9), Some(6)));
        assert_eq!(figures(r#"{"message_stats":{"publish":9}}"#).completed, Some(0));
    }

    #[test]
    fn names_become_one_segment_of_a_path() {
        assert_eq!(encode("/"), "%2F");
        assert_eq!(encode("a b/c?d"), "a%20b%2Fc%3Fd");
    }
}
