//! The only crate that speaks to brokers: RabbitMQ, Redis, and an in-memory one for tests and simulation.
//! In: URLs, queue names, control messages, reports. Out: samples of queues, messages taken, errors that say whether to retry.
//! Left to others: what a sample means (`core::scale`), what a message does (`core::drain`).

pub mod activity;
mod clock;
mod rabbitmq;
mod redis;
pub mod signing;
mod tls;
mod unseen;

#[cfg(feature = "contract")]
pub mod contract;
pub mod memory;

use async_trait::async_trait;
pub(crate) use clock::now_ms;
use qscaler_broker_url::BrokerUrl;
use qscaler_core::framework::{Framework, KeyNames};
use qscaler_core::message::{ControlMessage, Report};
use qscaler_core::scale::QueueSample;
use qscaler_core::workload::ControlAddress;
use signing::{PublicKeys, Seal, Signer};
use std::sync::Arc;
use std::time::Duration;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Transient: again after a back-off.
    Later,
    /// Wrong until someone changes something: credentials, rights, a URL.
    AfterChange,
}

/// A failed operation on a broker. Never carries a password: URLs are shown without user information.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation} on {place}: {message}")]
pub struct BrokerError {
    /// What was tried.
    pub operation: &'static str,
    /// Scheme, host and port.
    pub place: String,
    /// What went wrong, in words a user can act on.
    pub message: String,
    /// Whether to retry.
    pub retry: Retry,
}

/// One queue to be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueQuery {
    /// The queue's name as the user wrote it.
    pub queue: String,
    /// The framework, which says what the keys are called.
    pub framework: &'static Framework,
    /// What the user has chosen of their names.
    pub names: KeyNames,
}

impl QueueQuery {
    /// Of a queue whose keys have the names that its framework gives them by default.
    #[must_use]
    pub fn new(queue: &str, framework: &'static Framework) -> Self {
        Self { queue: queue.to_owned(), framework, names: KeyNames::default() }
    }
}

/// How much waits in each queue, and how fast it comes and goes.
#[async_trait]
pub trait QueueStats: Send + Sync {
    /// One result per query, in the same order. A figure that the broker does not give is None, never 0. A queue with an error of its own (a key
    /// of another type, a missing right) does not hide the figures of the others.
    ///
    /// # Errors
    /// The outer one when the broker cannot be reached or refuses altogether.
    async fn sample_each(&self, queries: &[QueueQuery]) -> Result<Vec<Result<QueueSample, BrokerError>>, BrokerError>;

    /// The same for queries that belong together: the first error of any queue is the answer.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses, or a queue cannot be measured.
    async fn sample(&self, queries: &[QueueQuery]) -> Result<Vec<QueueSample>, BrokerError> {
        self.sample_each(queries).await?.into_iter().collect()
    }

    /// What is to be said of these queues beside their figures, by the last samples: why some are missing that this broker could give, or that nothing
    /// was ever seen of a queue. None: nothing.
    fn gap(&self, _queries: &[QueueQuery]) -> Option<Arc<str>> {
        None
    }
}

/// The controller's end of the control channel.
#[async_trait]
pub trait ControlSender: Send + Sync {
    /// Makes the workload's control queue and report queue exist. Idempotent.
    async fn declare(&self, address: &ControlAddress) -> Result<(), BrokerError>;
    /// Puts a message on the workload's control queue, or on one pod's where `target` is set. It is gone at the latest at its `expires_ms`.
    /// A message for a pod that does not listen now may be lost without an error: messages are hints.
    async fn publish(&self, address: &ControlAddress, message: &ControlMessage) -> Result<(), BrokerError>;
    /// Drops the messages that no sidecar has taken from the workload's control queue.
    async fn purge(&self, address: &ControlAddress) -> Result<(), BrokerError>;
    /// Takes the reports that have come in since the last call, oldest first per pod, at most `max`. Malformed ones are dropped and counted.
    /// Does not wait for any. Cancel safe: reports are either returned or still in the broker.
    async fn reports(&self, address: &ControlAddress, max: usize) -> Result<Reports, BrokerError>;
    /// Removes the workload's control and report queues (the workload is gone).
    async fn remove(&self, address: &ControlAddress) -> Result<(), BrokerError>;
}

/// Reports taken at once.
#[derive(Debug, Default)]
pub struct Reports {
    /// Those that parsed.
    pub reports: Vec<Report>,
    /// Number of those that did not, dropped.
    pub malformed: u64,
}

/// The sidecar's end of the control channel.
#[async_trait]
pub trait ControlReceiver: Send {
    /// Waits for one message: from the pod's own queue always, from the workload's shared queue only when `shared` is true. None: nothing came
    /// within `wait`. A message stays unacknowledged until `ack` or `give_back`. Malformed ones are dropped, counted, and logged once.
    /// Cancel safe: a message is either returned or still in the broker.
    async fn take(&mut self, shared: bool, wait: Duration) -> Result<Option<Delivery>, BrokerError>;
    /// The message is claimed for good.
    async fn ack(&mut self, delivery: Delivery) -> Result<(), BrokerError>;
    /// Another sidecar shall have it.
    async fn give_back(&mut self, delivery: Delivery) -> Result<(), BrokerError>;
    /// Sends a report to the controller.
    async fn report(&mut self, report: &Report) -> Result<(), BrokerError>;
    /// What is to be said of this user's rights although everything works: they are too narrow for what this release would do. None: nothing.
    fn narrowed(&self) -> Option<&str> {
        None
    }
    /// Number of malformed messages dropped so far.
    fn malformed(&self) -> u64;
}

/// How long a message may stay with a sidecar that neither acknowledges it nor gives it back, before Redis hands it to another: a claim takes
/// seconds, and a sidecar that is gone for longer is dead. RabbitMQ needs no such time, it sees the connection go.
pub const RECLAIM_AFTER: Duration = Duration::from_secs(30);

/// What a receiver may be told beside its names.
#[derive(Clone, Debug)]
pub struct ReceiverOptions {
    /// See [`RECLAIM_AFTER`], the default; Redis only.
    pub reclaim_after: Duration,
    /// The keys that messages must be signed by to be believed; None, the default: each is [`Seal::Unchecked`].
    pub keys: Option<Arc<PublicKeys>>,
}

impl Default for ReceiverOptions {
    fn default() -> Self {
        Self { reclaim_after: RECLAIM_AFTER, keys: None }
    }
}

/// The queues of the broker at this URL. Connects at the first call, and again after any error; how soon a call is repeated is the caller's choice.
///
/// URL forms: those of [`qscaler_broker_url::parse`]. For RabbitMQ the management API is looked for on the same host, port 15672 (15671 for `amqps`);
/// `?management=http://HOST:PORT` names another place.
///
/// # Errors
/// When the URL is not one of these; never because the server is away.
pub fn open_stats(url: &str) -> Result<Arc<dyn QueueStats>, BrokerError> {
    Ok(match read_url(url)? {
        BrokerUrl::Redis(url) => Arc::new(redis::stats::RedisStats::new(url)),
        BrokerUrl::Amqp(url) => Arc::new(rabbitmq::stats::RabbitStats::new(url)),
    })
}

/// The controller's end of the control channel on the broker at this URL; the URL as for [`open_stats`]. Messages are signed by the key that the signer has at that
/// moment.
///
/// # Errors
/// When the URL is not valid; never because the server is away.
pub fn open_control(url: &str, signer: Signer) -> Result<Arc<dyn ControlSender>, BrokerError> {
    Ok(match read_url(url)? {
        BrokerUrl::Redis(url) => Arc::new(redis::sender::RedisSender::new(url, signer)),
        BrokerUrl::Amqp(url) => Arc::new(rabbitmq::sender::RabbitSender::new(url, signer)),
    })
}

/// A sidecar's end of the control channel on the broker at this URL; the URL as for [`open_stats`].
///
/// # Errors
/// When the URL is not valid; never because the server is away.
pub fn open_receiver(url: &str, address: &ControlAddress, pod_uid: &str) -> Result<Box<dyn ControlReceiver>, BrokerError> {
    open_receiver_with(url, address, pod_uid, ReceiverOptions::default())
}

/// [`open_receiver`] with other options than the default.
///
/// # Errors
/// When the URL is not valid; never because the server is away.
pub fn open_receiver_with(
    url: &str,
    address: &ControlAddress,
    pod_uid: &str,
    options: ReceiverOptions,
) -> Result<Box<dyn ControlReceiver>, BrokerError> {
    Ok(match read_url(url)? {
        BrokerUrl::Redis(url) => Box::new(redis::receiver::RedisReceiver::new(url, address, pod_uid, options)),
        BrokerUrl::Amqp(url) => Box::new(rabbitmq::receiver::RabbitReceiver::new(url, address, pod_uid, options)),
    })
}

pub(crate) fn read_url(text: &str) -> Result<BrokerUrl, BrokerError> {
    qscaler_broker_url::parse(text).map_err(|error| BrokerError {
        operation: "reading the broker's URL",
        place: "the URL".to_owned(),
        message: error.to_string(),
        retry: Retry::AfterChange,
    })
}

/// A message taken and not acknowledged yet.
#[derive(Debug)]
pub struct Delivery {
    /// The message.
    pub message: ControlMessage,
    /// What its signature is worth: it may be acted on only where this is believed.
    pub seal: Seal,
    /// The adapter's own handle.
    pub handle: DeliveryHandle,
}

/// What an adapter needs to acknowledge.
#[derive(Debug)]
pub enum DeliveryHandle {
    /// Stream key and entry.
    Redis {
        /// Stream key.
        key: String,
        /// Entry id.
        id: String,
        /// The message as it came, with its signature.
        body: Vec<u8>,
    },
    /// Delivery tag, and the generation of the channel that it belongs to.
    RabbitMq {
        /// Tag.
        tag: u64,
        /// A tag of an older channel cannot be acknowledged.
        generation: u64,
    },
    /// In memory.
    Memory(u64),
}
