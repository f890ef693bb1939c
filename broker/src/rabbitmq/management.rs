//! RabbitMQ's management API. In: its address, the AMQP user, queue names. Out: per queue what AMQP does not tell: unacknowledged messages, and
//! counters of what was published and finished; connections and channels by address. Left to others: how old these figures may grow (`stats`), what a
//! connection holds (`activity::connections`).
//! The server renews its statistics every 5 s. Fields that it leaves out (a new queue, a disabled collector) stay unknown.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use qscaler_broker_url::{AmqpUrl, Management, Secret};
use rustls::pki_types::ServerName;
use serde::Deserialize;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
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
const COLUMNS: &str = "columns=name,messages_ready,messages_unacknowledged,message_stats.publish,message_stats.ack,message_stats.deliver_no_ack,message_stats.get_no_ack";

/// What the API tells of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueFigures {
    pub(crate) ready: Option<u64>,
    pub(crate) unacked: Option<u64>,
    pub(crate) published: Option<u64>,
    pub(crate) completed: Option<u64>,
}

#[derive(Deserialize)]
struct Queue {
    name: Option<String>,
    messages_ready: Option<u64>,
    messages_unacknowledged: Option<u64>,
    message_stats: Option<Counters>,
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
        QueueFigures { ready: self.messages_ready, unacked: self.messages_unacknowledged, published: counted(|s| s.publish), completed }
    }
}

/// Figures of these queues; one that the API does not know is absent.
///
/// # Errors
/// In words, without the password: not reachable, not allowed, not understood.
pub(crate) async fn fetch(url: &AmqpUrl, queues: &[String]) -> Result<HashMap<String, QueueFigures>, String> {
    match timeout(FETCH_TIMEOUT, fetch_all(url, queues)).await {
        Ok(result) => result.map_err(|message| url.scrub(&message)),
        Err(_) => Err(format!("no answer within {} s", FETCH_TIMEOUT.as_secs())),
    }
}

async fn fetch_all(url: &AmqpUrl, queues: &[String]) -> Result<HashMap<String, QueueFigures>, String> {
    let mut api = Api::connect(&url.management, url).await?;
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
pub(crate) async fn of_address<C, H>(url: &AmqpUrl, address: IpAddr, connections: &str, channels: &str) -> Result<Traffic<C, H>, String>
where
    C: for<'de> Deserialize<'de>,
    H: for<'de> Deserialize<'de>,
{
    let name = if address.is_ipv4() { format!("name={address}&use_regex=false&") } else { String::new() };
    let request = async {
        let mut api = Api::connect(&url.management, url).await?;
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

/// One kept-alive connection.
struct Api {
    sender: SendRequest<Empty<Bytes>>,
    host: String,
    authorization: String,
}

impl Api {
    async fn connect(management: &Management, url: &AmqpUrl) -> Result<Self, String> {
        let address = &management.address;
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|error| error.to_string())?;
        let sender = if management.tls {
            let name = ServerName::try_from(address.host.clone()).map_err(|error| error.to_string())?;
            let stream = tls()?.connect(name, stream).await.map_err(|error| error.to_string())?;
            handshake(stream).await?
        } else {
            handshake(stream).await?
        };
        let user = url.login.user.as_deref().unwrap_or_default();
        let password = url.login.password.as_ref().map(Secret::expose).unwrap_or_default();
        let authorization = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        Ok(Self { sender, host: address.to_string(), authorization })
    }

    /// All pages of a list.
    async fn pages<T: for<'de> Deserialize<'de>>(&mut self, path: &str, query: &str) -> Result<Vec<T>, String> {
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

    /// The body; None for 404.
    async fn get(&mut self, path: &str) -> Result<Option<Bytes>, String> {
        let request = Request::get(path)
            .header(header::HOST, &self.host)
            .header(header::AUTHORIZATION, &self.authorization)
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        self.sender.ready().await.map_err(|error| error.to_string())?;
        let response = self.sender.send_request(request).await.map_err(|error| error.to_string())?;
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

async fn handshake<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Result<SendRequest<Empty<Bytes>>, String> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends when the sender is dropped; its errors come out of the sender's calls too.
    tokio::spawn(connection);
    Ok(sender)
}

fn tls() -> Result<tokio_rustls::TlsConnector, String> {
    crate::ensure_tls_provider();
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("no root certificates on this machine: set SSL_CERT_FILE".to_owned());
    }
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)))
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
        assert_eq!(fresh, QueueFigures { ready: Some(3), unacked: Some(1), published: None, completed: None });
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
