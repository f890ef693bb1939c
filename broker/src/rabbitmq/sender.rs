//! The controller's end of the control channel on RabbitMQ. In: messages for a workload's queue or one pod's. Out: reports, consumed from the
//! workload's report queue into memory as they come, so that asking for them costs no round trip. Left to others: when to send, what a report means.

use super::{AmqpLink, is_missing, names};
use crate::signing::Signer;
use crate::{BrokerError, ControlSender, Reports, Retry, now_ms};
use async_trait::async_trait;
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, Consumer};
use qscaler_broker_url::AmqpUrl;
use qscaler_core::message::{ControlMessage, Report};
use qscaler_core::workload::ControlAddress;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Reports held in memory per workload and not returned yet: some seconds' worth of a large fleet.
const REPORTS_PREFETCH: u16 = 256;
/// Reports of a workload that nobody has asked for so long go back to the broker: another controller may lead now.
const REPORTS_UNASKED: Duration = Duration::from_secs(60);
const DURABLE: u8 = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct RabbitSender {
    link: Arc<AmqpLink>,
    signer: Signer,
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
}

#[derive(Debug)]
struct Session {
    connection: Connection,
    /// With publisher confirms.
    publishing: Channel,
    consuming: Channel,
    consumers: Mutex<HashMap<ControlAddress, Source>>,
    /// Consumers being made. Each is made by a task, so that a call that is cut off leaves none behind that nobody knows of.
    starting: Mutex<HashMap<ControlAddress, Starting>>,
}

type Starting = Shared<BoxFuture<'static, Result<(), BrokerError>>>;

#[derive(Debug)]
struct Source {
    consumer: Consumer,
    asked: Instant,
}

/// What became of a message.
enum Sent {
    Routed,
    NoQueue,
    NoExchange,
}

impl RabbitSender {
    pub(crate) fn new(url: AmqpUrl, signer: Signer) -> Self {
        Self { link: Arc::new(AmqpLink::new(url, "qscaler controller")), signer, session: tokio::sync::Mutex::new(None) }
    }

    async fn session(&self, operation: &'static str) -> Result<Arc<Session>, BrokerError> {
        let mut slot = self.session.lock().await;
        let alive = |s: &Session| s.connection.status().connected() && s.publishing.status().connected() && s.consuming.status().connected();
        if let Some(session) = slot.as_ref().filter(|session| alive(session)) {
            return Ok(Arc::clone(session));
        }
        *slot = None;
        let connection = self.link.connect(operation).await?;
        let publishing = self.link.channel(operation, &connection).await?;
        self.link.call(operation, publishing.confirm_select(ConfirmSelectOptions::default())).await?;
        let consuming = self.link.channel(operation, &connection).await?;
        self.link.call(operation, consuming.basic_qos(REPORTS_PREFETCH, BasicQosOptions::default())).await?;
        let session =
            Arc::new(Session { connection, publishing, consuming, consumers: Mutex::new(HashMap::new()), starting: Mutex::new(HashMap::new()) });
        *slot = Some(Arc::clone(&session));
        Ok(session)
    }

    /// After a transient error the connection is not trusted any more. A refusal closed one channel at most, which `session` sees by itself.
    async fn after<T>(&self, session: &Arc<Session>, result: Result<T, BrokerError>) -> Result<T, BrokerError> {
        if result.as_ref().is_err_and(|error| error.retry == Retry::Later) {
            let mut slot = self.session.lock().await;
            if slot.as_ref().is_some_and(|live| Arc::ptr_eq(live, session)) {
                *slot = None;
            }
        }
        result
    }

    async fn send(&self, session: &Session, operation: &'static str, key: &str, body: &[u8], ttl_ms: u64) -> Result<Sent, BrokerError> {
        let key = names::short(&self.link, operation, key)?;
        let properties = BasicProperties::default().with_delivery_mode(DURABLE).with_expiration(ttl_ms.to_string().into());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = async { session.publishing.basic_publish(names::EXCHANGE.into(), key, options, body, properties).await?.await };
        match self.link.raw(sent).await {
            Ok(confirmation) if confirmation.is_nack() => Err(self.link.failed(operation, "the server did not take the message", Retry::Later)),
            Ok(confirmation) => Ok(if confirmation.take_message().is_some() { Sent::NoQueue } else { Sent::Routed }),
            Err(Some(error)) if is_missing(&error) => Ok(Sent::NoExchange),
            Err(error) => Err(self.link.either(operation, error.as_ref())),
        }
    }

    async fn ensure(&self, session: &Session, operation: &'static str, address: &ControlAddress) -> Result<(), BrokerError> {
        names::control(address).ensure(&self.link, operation, &session.connection).await?;
        names::reports(address).ensure(&self.link, operation, &session.connection).await
    }

    /// Runs one operation on a channel of its own, on which a queue that does not exist is success.
    async fn unless_missing<T>(
        &self,
        operation: &'static str,
        session: &Session,
        run: impl AsyncFnOnce(Channel) -> lapin::Result<T>,
    ) -> Result<(), BrokerError> {
        let channel = self.link.channel(operation, &session.connection).await?;
        match self.link.raw(run(channel.clone())).await {
            Ok(_) => {
                let _ = channel.close(200, "".into()).await;
                Ok(())
            }
            Err(Some(error)) if is_missing(&error) => Ok(()),
            Err(error) => Err(self.link.either(operation, error.as_ref())),
        }
    }
}

/// Makes the workload's consumer of reports.
async fn consume(link: Arc<AmqpLink>, session: Arc<Session>, operation: &'static str, address: ControlAddress) -> Result<(), BrokerError> {
    let queue = names::reports(&address);
    queue.ensure(&link, operation, &session.connection).await?;
    let name = names::short(&link, operation, &queue.name)?;
    let consuming = session.consuming.basic_consume(name, "".into(), BasicConsumeOptions::default(), FieldTable::default());
    let consumer = link.call(operation, consuming).await?;
    session.lock().insert(address, Source { consumer, asked: Instant::now() });
    Ok(())
}

impl Session {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ControlAddress, Source>> {
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The making of this workload's consumer: the one under way, or a new one.
    fn start(self: &Arc<Self>, link: &Arc<AmqpLink>, operation: &'static str, address: &ControlAddress) -> Starting {
        let mut starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        starting.retain(|_, started| started.peek().is_none());
        let begin = || {
            let task = tokio::spawn(consume(Arc::clone(link), Arc::clone(self), operation, address.clone()));
            let link = Arc::clone(link);
            async move { task.await.unwrap_or_else(|error| Err(link.failed(operation, &error.to_string(), Retry::Later))) }.boxed().shared()
        };
        starting.entry(address.clone()).or_insert_with(begin).clone()
    }

    /// What has come in for this address; None: its consumer is gone. Nothing here waits, so nothing can be cut off between taking and returning.
    fn take(&self, address: &ControlAddress, max: usize) -> Option<Reports> {
        let mut consumers = self.lock();
        let source = consumers.get_mut(address)?;
        source.asked = Instant::now();
        let mut taken = Reports::default();
        let mut tags = Vec::new();
        let mut gone = false;
        while tags.len() < max {
            match source.consumer.next().now_or_never() {
                None => break,
                Some(Some(Ok(delivery))) => {
                    tags.push(delivery.delivery_tag);
                    match Report::decode(&delivery.data) {
                        Ok(report) => taken.reports.push(report),
                        Err(_) => taken.malformed += 1,
                    }
                }
                Some(Some(Err(_)) | None) => {
                    gone = true;
                    break;
                }
            }
        }
        if gone {
            consumers.remove(address);
        }
        if !tags.is_empty() {
            let channel = self.consuming.clone();
            tokio::spawn(async move {
                for tag in tags {
                    // An error closes the channel: the reports come again, and are old by their sequence.
                    let _ = channel.basic_ack(tag, BasicAckOptions::default()).await;
                }
            });
        }
        if gone && taken.reports.is_empty() { None } else { Some(taken) }
    }

    /// Lets go of workloads that nobody asks for any more.
    fn let_go(&self) {
        let mut consumers = self.lock();
        let unasked: Vec<ControlAddress> = consumers.iter().filter(|(_, s)| s.asked.elapsed() >= REPORTS_UNASKED).map(|(w, _)| w.clone()).collect();
        for address in unasked {
            if let Some(Source { mut consumer, .. }) = consumers.remove(&address) {
                let channel = self.consuming.clone();
                tokio::spawn(async move {
                    let _ = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await;
                    while let Some(Ok(delivery)) = consumer.next().await {
                        let _ = delivery.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await;
                    }
                });
            }
        }
    }
}

#[async_trait]
impl ControlSender for RabbitSender {
    async fn declare(&self, address: &ControlAddress) -> Result<(), BrokerError> {
        const OPERATION: &str = "declaring control and report queues";
        let session = self.session(OPERATION).await?;
        let result = self.ensure(&session, OPERATION, address).await;
        self.after(&session, result).await
    }

    async fn publish(&self, address: &ControlAddress, message: &ControlMessage) -> Result<(), BrokerError> {
        const OPERATION: &str = "sending a control message";
        let key = message.target.as_ref().map_or_else(|| names::control(address).routing_key, |pod| names::pod_routing_key(address, pod));
        let body = self.signer.seal(message);
        // Once more after the queue was made: it may have expired, or the server lost its data.
        for again in [true, false] {
            let ttl_ms = message.expires_ms.saturating_sub(now_ms());
            if ttl_ms == 0 {
                return Ok(());
            }
            let session = self.session(OPERATION).await?;
            let sent = self.send(&session, OPERATION, &key, &body, ttl_ms).await;
            match self.after(&session, sent).await? {
                Sent::Routed => return Ok(()),
                Sent::NoQueue if message.target.is_some() => {
                    tracing::debug!(%address, target = ?message.target, "the pod does not listen, its message is dropped");
                    return Ok(());
                }
                Sent::NoQueue | Sent::NoExchange if again => self.declare(address).await?,
                Sent::NoQueue | Sent::NoExchange => {}
            }
        }
        Err(self.link.failed(OPERATION, "the control queue vanished as soon as it was declared", Retry::Later))
    }

    async fn purge(&self, address: &ControlAddress) -> Result<(), BrokerError> {
        const OPERATION: &str = "dropping control messages";
        let session = self.session(OPERATION).await?;
        let name = names::short(&self.link, OPERATION, &names::control(address).name)?;
        let result =
            self.unless_missing(OPERATION, &session, async |channel: Channel| channel.queue_purge(name, QueuePurgeOptions::default()).await).await;
        self.after(&session, result).await
    }

    async fn reports(&self, address: &ControlAddress, max: usize) -> Result<Reports, BrokerError> {
        const OPERATION: &str = "reading reports";
        let session = self.session(OPERATION).await?;
        session.let_go();
        if let Some(taken) = session.take(address, max) {
            return Ok(taken);
        }
        let result = session.start(&self.link, OPERATION, address).await;
        self.after(&session, result).await?;
        Ok(session.take(address, max).unwrap_or_default())
    }

    async fn remove(&self, address: &ControlAddress) -> Result<(), BrokerError> {
        const OPERATION: &str = "removing control and report queues";
        let session = self.session(OPERATION).await?;
        session.lock().remove(address);
        for queue in [names::control(address), names::reports(address)] {
            let name = names::short(&self.link, OPERATION, &queue.name)?;
            let result = self
                .unless_missing(OPERATION, &session, async |channel: Channel| channel.queue_delete(name, QueueDeleteOptions::default()).await)
                .await;
            self.after(&session, result).await?;
        }
        Ok(())
    }
}
