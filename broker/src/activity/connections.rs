//! RabbitMQ's own books: what each connection of the pod has taken and not acknowledged. In: the pod's address. Out: whether any of its
//! connections holds a message. Left to others: workers that acknowledge before they run a task (Celery by default): of those this tells nothing. One that is given messages without acknowledging them at all is never idle.
//!
//! The user needs the tag `monitoring`. Figures are renewed by the server every 5 s.

use super::Seen;
use crate::rabbitmq::management::{self, Api};
use crate::{BrokerError, Retry};
use qscaler_broker_url::AmqpUrl;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::IpAddr;

const OPERATION: &str = "looking at the worker's connections";
/// How our own connections begin, in the management API.
const OWN: &str = "qscaler";
/// What is asked of a connection, and of a channel.
const CONNECTION: &str = "name,peer_host,user_provided_name";
const CHANNEL: &str = "name,messages_unacknowledged,consumer_count,message_stats";

/// The pod's connections to one RabbitMQ. They are looked for each time: a worker that opens one more (a thread that starts, a connection made anew) holds
/// its messages there.
pub(super) struct Connections {
    url: AmqpUrl,
    address: IpAddr,
    /// Kept: its connection is one for all looks.
    api: Result<Api, String>,
}

#[derive(Deserialize)]
struct Connection {
    name: String,
    peer_host: Option<String>,
    user_provided_name: Option<String>,
}

#[derive(Deserialize)]
struct Channel {
    /// Its connection's name and, in brackets, its number.
    name: String,
    messages_unacknowledged: Option<u64>,
    consumer_count: Option<u64>,
    #[serde(default)]
    message_stats: Given,
}

/// What a channel was given. What it does not have to acknowledge: of such a message nobody knows when its task ends.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Given {
    deliver: u64,
    deliver_no_ack: u64,
    get: u64,
    get_no_ack: u64,
    get_empty: u64,
}

impl Channel {
    fn connection(&self) -> Option<&str> {
        self.name.rsplit_once(" (").map(|(connection, _)| connection)
    }

    /// It has asked for messages, or has had some; also where the server does not say.
    fn has_asked(&self) -> bool {
        let had = &self.message_stats;
        self.consumer_count != Some(0) || had.deliver + had.get + had.get_empty > 0
    }
}

impl Connections {
    pub(super) fn new(url: AmqpUrl, address: IpAddr) -> Self {
        Self { api: Api::new(&url), url, address: address.to_canonical() }
    }

    pub(super) async fn sample(&self) -> Result<Seen, BrokerError> {
        let found = match &self.api {
            Ok(api) => management::of_address(api, &self.url, self.address, CONNECTION, CHANNEL).await,
            Err(message) => Err(message.clone()),
        };
        let found = found.map_err(|message| BrokerError { operation: OPERATION, place: self.url.place(), message, retry: Retry::Later })?;
        Ok(held(&found.connections, &found.channels, self.address))
    }
}

/// What the connections from this address that are not the sidecar's hold.
fn held(connections: &[Connection], channels: &[Channel], address: IpAddr) -> Seen {
    let is_worker = |connection: &&Connection| {
        let from = connection.peer_host.as_deref().and_then(|host| host.parse::<IpAddr>().ok()).map(|ip| ip.to_canonical());
        from == Some(address) && !connection.user_provided_name.as_deref().is_some_and(|name| name.starts_with(OWN))
    };
    let workers: BTreeSet<&str> = connections.iter().filter(is_worker).map(|connection| connection.name.as_str()).collect();
    let of_worker = |channel: &&Channel| channel.connection().is_some_and(|name| workers.contains(name));
    // A channel whose figures have not come yet may hold anything, and so may what was not found.
    if channels.iter().filter(of_worker).any(|channel| channel.message_stats.deliver_no_ack + channel.message_stats.get_no_ack > 0) {
        return Seen::Unknown;
    }
    let unacked: Option<Vec<u64>> = channels.iter().filter(of_worker).map(|channel| channel.messages_unacknowledged).collect();
    // What is held includes what was prefetched: how many tasks run is not known.
    match unacked.as_deref() {
        None | Some([]) => Seen::Unknown,
        // Connected, and still loading what it works with: it consumes from nothing.
        Some(unacked) if unacked.iter().all(|held| *held == 0) => {
            if channels.iter().filter(of_worker).any(Channel::has_asked) {
                Seen::Idle
            } else {
                Seen::IdleAndStarting
            }
        }
        Some(_) => Seen::Busy(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qscaler_broker_url::BrokerUrl;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    /// What a management API was asked, and what it has answered.
    #[derive(Default)]
    struct Load {
        connections: AtomicUsize,
        requests: AtomicUsize,
        bytes: AtomicUsize,
    }

    /// A management API with one connection and channel for each pod, which finds by a part of the name as RabbitMQ does.
    async fn answer(stream: TcpStream, pods: usize, load: Arc<Load>) {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let Some((_, name)) = line.split_once("name=").filter(|_| line.starts_with("GET ")) else { continue };
            let name = name.split('&').next().unwrap();
            let item = |pod| format!(r#"{{"name": "{}:40000 -> 10.9.0.1:5672 (1)", "messages_unacknowledged": 0}}"#, address(pod));
            let found: Vec<String> = (0..pods).map(item).filter(|item| item.contains(name)).collect();
            let body = format!(r#"{{"page_count": 1, "items": [{}]}}"#, found.join(","));
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
            load.requests.fetch_add(1, Ordering::Relaxed);
            load.bytes.fetch_add(body.len(), Ordering::Relaxed);
            write.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
    }

    fn address(pod: usize) -> IpAddr {
        IpAddr::from([10, 0, 1, u8::try_from(100 + pod).unwrap()])
    }

    /// Each pod of a fleet looks so often; gives TCP connections, requests, bytes of the answers.
    async fn load(pods: usize, looks: usize) -> [usize; 3] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let management = listener.local_addr().unwrap();
        let load = Arc::new(Load::default());
        let counted = Arc::clone(&load);
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(answer(stream, pods, Arc::clone(&counted)));
            }
        });
        let BrokerUrl::Amqp(url) = crate::read_url(&format!("amqp://u:p@h?management=http://{management}")).unwrap() else { unreachable!() };
        for pod in 0..pods {
            let connections = Connections::new(url.clone(), address(pod));
            for _ in 0..looks {
                connections.sample().await.unwrap();
            }
        }
        server.abort();
        [&load.connections, &load.requests, &load.bytes].map(|count| count.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn ten_times_the_pods_ask_ten_times_as_much_of_the_management_api_over_a_connection_each() {
        let (few, many) = (load(10, 3).await, load(100, 3).await);
        assert_eq!((few[0], many[0]), (10, 100), "one connection for all looks of a pod");
        assert_eq!(few[1], 10 * 3 * 2);
        assert_eq!(many, few.map(|count| 10 * count));
    }

    fn says(connections: &str, channels: &str) -> Seen {
        let connections: Vec<Connection> = serde_json::from_str(connections).unwrap();
        let channels: Vec<Channel> = serde_json::from_str(channels).unwrap();
        held(&connections, &channels, "10.0.0.7".parse().unwrap())
    }

    #[test]
    fn the_sidecars_own_connections_and_those_of_other_pods_do_not_count() {
        let connections = r#"[{"name": "a", "peer_host": "10.0.0.7"}, {"name": "b", "peer_host": "::ffff:10.0.0.7", "user_provided_name": "x"},
            {"name": "c", "peer_host": "10.0.0.71"}, {"name": "d", "peer_host": "10.0.0.7", "user_provided_name": "qscaler sidecar"}, {"name": "e"}]"#;
        let holds = |name: &str, unacked: u32| format!(r#"{{"name": "{name} (1)", "messages_unacknowledged": {unacked}}}"#);
        let says = |channels: &[String]| says(connections, &format!("[{}]", channels.join(",")));
        let idle = [holds("a", 0), holds("b", 0)];
        let others = [holds("c", 1), holds("d", 1), holds("e", 1), r#"{"name": "a", "messages_unacknowledged": 1}"#.to_owned()];
        assert_eq!(says(&[&idle[..], &others[..]].concat()), Seen::Idle);
        assert_eq!(says(&[holds("a", 0), holds("b", 2)]), Seen::Busy(None));
        assert_eq!(says(&others), Seen::Unknown);
    }

    #[test]
    fn a_consumer_that_acknowledges_nothing_by_hand_is_unknown_and_never_idle() {
        let one = r#"[{"name": "a", "peer_host": "10.0.0.7"}]"#;
        let given = |stats: &str| format!(r#"[{{"name": "a (1)", "messages_unacknowledged": 0, "message_stats": {stats}}}]"#);
        assert_eq!(says(one, &given(r#"{"deliver_no_ack": 3, "deliver_no_ack_details": {"rate": 0.2}}"#)), Seen::Unknown);
        assert_eq!(says(one, &given(r#"{"get_no_ack": 1}"#)), Seen::Unknown);
        assert_eq!(says(one, &given(r#"{"deliver": 3, "ack": 3}"#)), Seen::Idle);
    }

    #[test]
    fn a_worker_that_is_connected_and_has_asked_for_no_message_yet_is_starting() {
        let one = r#"[{"name": "a", "peer_host": "10.0.0.7"}]"#;
        let channel = |consumers: u32, stats: &str| {
            format!(r#"{{"name": "a (1)", "messages_unacknowledged": 0, "consumer_count": {consumers}, "message_stats": {stats}}}"#)
        };
        let says = |channels: &[String]| says(one, &format!("[{}]", channels.join(",")));
        assert_eq!(says(&[channel(0, "{}"), channel(0, r#"{"publish": 4}"#)]), Seen::IdleAndStarting);
        assert_eq!(says(&[channel(0, "{}"), channel(1, "{}")]), Seen::Idle);
        // One that polls, or that has ended its consumer with its work.
        assert_eq!(says(&[channel(0, r#"{"get_empty": 1}"#)]), Seen::Idle);
        assert_eq!(says(&[channel(0, r#"{"deliver": 3, "ack": 3}"#)]), Seen::Idle);
    }

    #[test]
    fn a_channel_without_figures_is_unknown_whatever_the_others_hold() {
        let one = r#"[{"name": "a", "peer_host": "10.0.0.7"}]"#;
        let channels = r#"[{"name": "a (1)", "messages_unacknowledged": 0}, {"name": "a (2)"}]"#;
        assert_eq!(says(one, channels), Seen::Unknown);
        assert_eq!(says(one, "[]"), Seen::Unknown);
    }
}
