//! RabbitMQ's own books: what each connection of the pod has taken and not acknowledged. In: the pod's address. Out: whether any of its
//! connections holds a message. Left to others: workers that acknowledge before they run a task (Celery by default): of those this tells nothing.
//!
//! The user needs the tag `monitoring`. Figures are renewed by the server every 5 s.

use super::Seen;
use crate::rabbitmq::management;
use crate::url::AmqpUrl;
use crate::{BrokerError, Retry};
use serde::Deserialize;
use std::net::IpAddr;

const OPERATION: &str = "looking at the worker's connections";
/// How our own connections begin, in the management API.
const OWN: &str = "qscaler";
/// Connections of one pod, at most.
const CONNECTIONS_MAX: usize = 64;

/// The pod's connections to one RabbitMQ.
pub(super) struct Connections {
    url: AmqpUrl,
    address: IpAddr,
    /// Names of the worker's connections; empty: to be searched for.
    names: Vec<String>,
}

#[derive(Deserialize)]
struct Connection {
    name: String,
    peer_host: Option<String>,
    user_provided_name: Option<String>,
}

#[derive(Deserialize)]
struct Channel {
    messages_unacknowledged: Option<u64>,
}

impl Connections {
    pub(super) fn new(url: AmqpUrl, address: IpAddr) -> Self {
        Self { url, address, names: Vec::new() }
    }

    pub(super) async fn sample(&mut self) -> Result<Seen, BrokerError> {
        if self.names.is_empty() {
            let all: Option<Vec<Connection>> = self.get(&["connections"], "columns=name,peer_host,user_provided_name").await?;
            self.names = own(all.unwrap_or_default(), self.address);
        }
        let mut unacked = 0;
        let mut channels_seen = false;
        for name in self.names.clone() {
            let answer = self.get::<Vec<Channel>>(&["connections", &name, "channels"], "columns=messages_unacknowledged").await;
            let channels = match answer {
                Ok(Some(channels)) => channels,
                // That connection is gone (of some the server says so by an internal error): searched for again the next time.
                gone => {
                    self.names.clear();
                    return gone.map(|_| Seen::Unknown);
                }
            };
            for channel in channels {
                let Some(held) = channel.messages_unacknowledged else { return Ok(Seen::Unknown) };
                channels_seen = true;
                unacked += held;
            }
        }
        // What is held includes what was prefetched: how many tasks run is not known.
        Ok(match (channels_seen, unacked) {
            (false, _) => Seen::Unknown,
            (true, 0) => Seen::Idle,
            (true, _) => Seen::Busy(None),
        })
    }

    async fn get<T: for<'de> Deserialize<'de>>(&self, path: &[&str], query: &str) -> Result<Option<T>, BrokerError> {
        let result = management::get(&self.url, path, query).await;
        result.map_err(|message| BrokerError { operation: OPERATION, place: self.url.place(), message, retry: Retry::Later })
    }
}

/// Names of the connections from this address that are not the sidecar's.
fn own(all: Vec<Connection>, address: IpAddr) -> Vec<String> {
    let is_worker = |connection: &Connection| {
        let from = connection.peer_host.as_deref().and_then(|host| host.parse::<IpAddr>().ok()).map(|ip| ip.to_canonical());
        from == Some(address.to_canonical()) && !connection.user_provided_name.as_deref().is_some_and(|name| name.starts_with(OWN))
    };
    all.into_iter().filter(is_worker).map(|connection| connection.name).take(CONNECTIONS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sidecars_own_connections_and_those_of_other_pods_do_not_count() {
        let all: Vec<Connection> = serde_json::from_str(
            r#"[{"name": "a", "peer_host": "10.0.0.7"}, {"name": "b", "peer_host": "::ffff:10.0.0.7", "user_provided_name": "x"},
                {"name": "c", "peer_host": "10.0.0.8"}, {"name": "d", "peer_host": "10.0.0.7", "user_provided_name": "qscaler sidecar"}, {"name": "e"}]"#,
        )
        .unwrap();
        assert_eq!(own(all, "10.0.0.7".parse().unwrap()), ["a", "b"]);
    }
}
