//! What the worker frameworks themselves say on the broker about one pod: busy or idle, and the remote control of Celery.
//! In: the worker's broker URL, and the pod's host name or address. Out: heartbeats, counts, replies to remote control. Left to others:
//! reconnecting and its back-off, and what follows from an answer (`sidecar`).
//!
//! These are read with the worker's own rights and never with more. Where the bookkeeping of a framework does not tell one pod from another,
//! the answer is "unknown", not a guess.

mod blocked;
mod books;
mod celery_amqp;
mod celery_redis;
mod connections;
pub mod kombu;
mod look;
mod owners;

pub use blocked::Waiting;
pub use look::look;

use crate::BrokerError;
use blocked::Blocked;
use books::PodBooks;
use celery_amqp::{AmqpEvents, AmqpRemote};
use celery_redis::{RedisEvents, RedisRemote};
use connections::Connections;
use kombu::{Call, CeleryEvent, Whom};
use qscaler_broker_url::BrokerUrl;
use qscaler_core::framework::{Framework, KeyNames};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Celery's worker events, of the nodes on one host.
pub struct CeleryEvents {
    transport: EventsTransport,
}

enum EventsTransport {
    Redis(RedisEvents),
    Amqp(Box<AmqpEvents>),
}

impl CeleryEvents {
    /// Subscribes to the events of the nodes `<anything>@<host>`. `name` tells this subscriber from others (the pod's UID).
    ///
    /// # Errors
    /// When the broker cannot be reached, refuses, or (AMQP) no worker has made the event exchange yet.
    pub async fn connect(url: &str, name: &str, host: &str) -> Result<Self, BrokerError> {
        let transport = match crate::read_url(url)? {
            BrokerUrl::Amqp(url) => EventsTransport::Amqp(Box::new(AmqpEvents::connect(url, name, host).await?)),
            BrokerUrl::Redis(url) => EventsTransport::Redis(RedisEvents::connect(url, host).await?),
        };
        Ok(Self { transport })
    }

    /// The next event of this host's nodes. Cancel safe.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn next(&mut self) -> Result<CeleryEvent, BrokerError> {
        match &mut self.transport {
            EventsTransport::Redis(events) => events.next().await,
            EventsTransport::Amqp(events) => events.next().await,
        }
    }
}

/// Celery's remote control: commands to named nodes, with replies.
pub struct CeleryRemote {
    transport: RemoteTransport,
}

enum RemoteTransport {
    Redis(Box<RedisRemote>),
    Amqp(Box<AmqpRemote>),
}

impl CeleryRemote {
    /// Connects. `name` tells this caller from others (the pod's UID); `prefix` is kombu's `global_keyprefix` on Redis.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses.
    pub async fn connect(url: &str, name: &str, prefix: &str) -> Result<Self, BrokerError> {
        let transport = match crate::read_url(url)? {
            BrokerUrl::Amqp(url) => RemoteTransport::Amqp(Box::new(AmqpRemote::connect(url, name).await?)),
            BrokerUrl::Redis(url) => RemoteTransport::Redis(Box::new(RedisRemote::new(url, name, prefix))),
        };
        Ok(Self { transport })
    }

    /// Sends one command to these nodes and collects their replies by node name, until all have answered or `wait` is over.
    ///
    /// # Errors
    /// When the connection is lost or the broker refuses. A node that does not answer is no error.
    pub async fn call(&mut self, method: &str, arguments: Value, nodes: &[String], wait: Duration) -> Result<BTreeMap<String, Value>, BrokerError> {
        self.send(&Call { method, arguments, whom: Whom::Nodes(nodes), wait }).await
    }

    /// The nodes on this host that answer within `wait`, which is waited out.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn nodes_on(&mut self, host: &str, wait: Duration) -> Result<Vec<String>, BrokerError> {
        // A host's name has nothing in it that means something in a glob.
        let whom = format!("*@{host}");
        let call = Call { method: "ping", arguments: Value::Object(serde_json::Map::new()), whom: Whom::Matching(&whom), wait };
        Ok(self.send(&call).await?.into_keys().collect())
    }

    async fn send(&mut self, call: &Call<'_>) -> Result<BTreeMap<String, Value>, BrokerError> {
        match &mut self.transport {
            RemoteTransport::Redis(remote) => remote.call(call).await,
            RemoteTransport::Amqp(remote) => remote.call(call).await,
        }
    }
}

/// What the books say of one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It has tasks; how many, where that is known.
    Busy(Option<u32>),
    /// It has none.
    Idle,
    /// It has none, by figures of a time at which it still took tasks.
    IdleAndTaking,
    /// It has none, and has not asked for one yet.
    IdleAndStarting,
    /// So many tasks are in hand in the fleet, where that is known; they do not say where.
    Elsewhere(Option<u64>),
    /// They do not say.
    Unknown,
}

impl Seen {
    fn from_active(active: u32) -> Self {
        if active > 0 { Self::Busy(Some(active)) } else { Self::Idle }
    }
}

/// Whose books are read.
#[derive(Clone, Copy, Debug)]
pub struct Whose<'a> {
    /// The framework.
    pub framework: &'static Framework,
    /// What the user has chosen of its keys' names.
    pub names: &'a KeyNames,
    /// The queues.
    pub queues: &'a [String],
}

/// The bookkeeping of a framework, or of RabbitMQ, on who has taken what.
pub struct Bookkeeping {
    kind: Kind,
}

enum Kind {
    Redis(Box<PodBooks>),
    Amqp(Box<Connections>),
}

impl Bookkeeping {
    /// The books of this framework at this broker about the pod with this host name and address. None: they would not tell: the framework keeps none,
    /// acknowledges before it runs a task (Celery), or the address is not known.
    ///
    /// # Errors
    /// When the URL is not valid; never because the server is away.
    pub fn open(url: &str, whose: &Whose<'_>, host: &str, address: Option<IpAddr>) -> Result<Option<Self>, BrokerError> {
        let kind = match crate::read_url(url)? {
            _ if whose.framework.acknowledges_early => None,
            BrokerUrl::Redis(url) => PodBooks::new(url, whose, host).map(|books| Kind::Redis(Box::new(books))),
            BrokerUrl::Amqp(url) => address.map(|address| Kind::Amqp(Box::new(Connections::new(url, address)))),
        };
        Ok(kind.map(|kind| Self { kind }))
    }

    /// They are RabbitMQ's: renewed every few seconds, and dear to ask for.
    #[must_use]
    pub fn is_amqp(&self) -> bool {
        matches!(self.kind, Kind::Amqp(_))
    }

    /// Tasks that this pod's workers say have ended since their start, by the last look; None: they do not count them.
    #[must_use]
    pub fn done(&self) -> Option<u64> {
        match &self.kind {
            Kind::Redis(books) => books.done(),
            Kind::Amqp(_) => None,
        }
    }

    /// What they say now.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses.
    pub async fn sample(&mut self) -> Result<Seen, BrokerError> {
        match &mut self.kind {
            Kind::Redis(books) => books.sample().await,
            Kind::Amqp(connections) => connections.sample().await,
        }
    }
}

/// The worker's connections to a Redis, of which some wait in a blocking command.
pub struct BlockedPops {
    blocked: Blocked,
}

impl BlockedPops {
    /// At this broker, of this worker. None: it is no Redis.
    ///
    /// # Errors
    /// When the URL is not valid; never because the server is away.
    pub fn open(url: &str, whose: &Whose<'_>) -> Result<Option<Self>, BrokerError> {
        Ok(match crate::read_url(url)? {
            BrokerUrl::Redis(url) => Some(Self { blocked: Blocked::new(url, whose) }),
            BrokerUrl::Amqp(_) => None,
        })
    }

    /// What they do now; `ports` are the local ports of the pod's connections without the sidecar's. None: the worker has no connection there.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses.
    pub async fn sample(&mut self, ports: &BTreeSet<u16>) -> Result<Option<Waiting>, BrokerError> {
        self.blocked.sample(ports).await
    }

    /// Whether every task in hand, of the whole fleet, is proved to be another worker's; true also where there is none. To be asked right after each
    /// [`Self::sample`], whatever that says: the proof is made of what happens between two questions. `ports` as there; `to_broker` are those of them whose
    /// other end has the broker's port. None: the framework's locks name no owners.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses.
    pub async fn none_here(&mut self, ports: &BTreeSet<u16>, to_broker: &BTreeSet<u16>) -> Result<Option<bool>, BrokerError> {
        self.blocked.none_here(ports, to_broker).await
    }

    /// Ends the wait of every connection that waited at the last look, as a timeout would. True: each of them did wait until now, so none has been
    /// given anything; with the worker's processes stopped before, none can take anything either.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses.
    pub async fn unblock(&mut self) -> Result<bool, BrokerError> {
        self.blocked.unblock().await
    }
}
