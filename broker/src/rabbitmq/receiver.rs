//! A sidecar's end of the control channel on RabbitMQ. In: the pod's own queue, and the workload's shared one, consumed only while the caller wants
//! it. Out: one message at a time, acknowledged or given back by the caller, and reports. Left to others: what a message does.
//!
//! Consuming and not polling: a hundred thousand idle sidecars then cost the server nothing. With a prefetch of 1 the server hands this pod at most
//! one shared message; one that comes after the caller has lost interest is requeued. The pod's own queue is exclusive: it goes with the connection.

use super::{AmqpLink, is_missing, names};
use crate::signing::{self, PublicKeys};
use crate::{BrokerError, ControlReceiver, Delivery, DeliveryHandle, ReceiverOptions, Retry, now_ms};
use async_trait::async_trait;
use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, Consumer};
use qscaler_broker_url::AmqpUrl;
use qscaler_core::message::Report;
use qscaler_core::workload::ControlAddress;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Directed messages that may be under way at once.
const POD_PREFETCH: u16 = 16;
/// One shared message per pod.
const SHARED_PREFETCH: u16 = 1;
/// A report is of no use once the next ones are there; the controller's memory of a pod is shorter than this.
const REPORT_TTL_MS: u64 = 10 * 60 * 1000;
const OPERATION: &str = "waiting for control messages";
const REQUEUE: BasicNackOptions = BasicNackOptions { multiple: false, requeue: true };

/// See the module.
#[derive(Debug)]
pub(crate) struct RabbitReceiver {
    link: Arc<AmqpLink>,
    address: ControlAddress,
    pod_uid: String,
    keys: Option<Arc<PublicKeys>>,
    session: Option<Session>,
    generation: u64,
    malformed: u64,
}

#[derive(Debug)]
struct Session {
    connection: Connection,
    consuming: Channel,
    /// With publisher confirms.
    publishing: Channel,
    pod: Consumer,
    shared: Option<Consumer>,
    /// A change of `shared` under way: it outlives a `take` that is cut off.
    change: Option<JoinHandle<Result<Option<Consumer>, BrokerError>>>,
}

impl RabbitReceiver {
    pub(crate) fn new(url: AmqpUrl, address: &ControlAddress, pod_uid: &str, options: ReceiverOptions) -> Self {
        let link = Arc::new(AmqpLink::new(url, "qscaler sidecar"));
        Self { link, address: address.clone(), pod_uid: pod_uid.to_owned(), keys: options.keys, session: None, generation: 0, malformed: 0 }
    }

    /// The session, made anew where there is none. Cut off on the way, the connection is dropped with what it had declared.
    async fn session(&mut self, operation: &'static str) -> Result<&mut Session, BrokerError> {
        if self
            .session
            .as_ref()
            .is_some_and(|s| !(s.connection.status().connected() && s.consuming.status().connected() && s.publishing.status().connected()))
        {
            self.session = None;
        }
        let session = match self.session.take() {
            Some(session) => session,
            None => {
                let session = self.open(operation).await?;
                self.generation += 1;
                session
            }
        };
        Ok(self.session.insert(session))
    }

    async fn open(&self, operation: &'static str) -> Result<Session, BrokerError> {
        let link = &self.link;
        let connection = link.connect(operation).await?;
        names::ensure_exchange(link, operation, &connection).await?;
        let publishing = link.channel(operation, &connection).await?;
        link.call(operation, publishing.confirm_select(ConfirmSelectOptions::default())).await?;
        let consuming = link.channel(operation, &connection).await?;
        let name = names::short(link, operation, &names::pod_queue(&self.address, &self.pod_uid, now_ms()))?;
        let key = names::short(link, operation, &names::pod_routing_key(&self.address, &self.pod_uid))?;
        let exclusive = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        link.call(operation, consuming.queue_declare(name.clone(), exclusive, names::pod_arguments())).await?;
        link.call(operation, consuming.queue_bind(name.clone(), names::EXCHANGE.into(), key, QueueBindOptions::default(), FieldTable::default()))
            .await?;
        link.call(operation, consuming.basic_qos(POD_PREFETCH, BasicQosOptions::default())).await?;
        let pod = link.call(operation, consuming.basic_consume(name, "".into(), BasicConsumeOptions::default(), FieldTable::default())).await?;
        // From here on for consumers to come: the shared one.
        link.call(operation, consuming.basic_qos(SHARED_PREFETCH, BasicQosOptions::default())).await?;
        Ok(Session { connection, consuming, publishing, pod, shared: None, change: None })
    }

    /// Begins or ends consuming the shared queue. Ends only when what had come in between is requeued.
    async fn set_shared(&mut self, shared: bool) -> Result<(), BrokerError> {
        let (link, queue) = (Arc::clone(&self.link), names::control(&self.address));
        let session = self.session(OPERATION).await?;
        loop {
            if let Some(change) = &mut session.change {
                let changed = change.await.unwrap_or_else(|error| Err(link.failed(OPERATION, &error.to_string(), Retry::Later)));
                session.change = None;
                session.shared = changed?;
            }
            if session.shared.is_some() == shared {
                return Ok(());
            }
            let channel = session.consuming.clone();
            if let Some(consumer) = session.shared.take() {
                session.change = Some(tokio::spawn(stop(Arc::clone(&link), channel, consumer)));
            } else {
                // A queue that is missing would close the consuming channel: it is made to exist first.
                queue.ensure(&link, OPERATION, &session.connection).await?;
                session.change = Some(tokio::spawn(start(Arc::clone(&link), channel, queue.name.clone())));
            }
        }
    }

    async fn wait(&mut self, deadline: Instant) -> Result<Option<Delivery>, BrokerError> {
        loop {
            // Made by `set_shared`. A new one here would not consume the shared queue.
            let Some(session) = self.session.as_mut().filter(|session| session.consuming.status().connected()) else {
                return Err(self.link.failed(OPERATION, "the connection was lost", Retry::Later));
            };
            let Session { pod, shared, consuming, .. } = session;
            let shared = async {
                match shared {
                    Some(shared) => shared.next().await,
                    None => std::future::pending().await,
                }
            };
            let next = tokio::select! {
                biased;
                next = pod.next() => next,
                next = shared => next,
                () = sleep_until(deadline) => return Ok(None),
            };
            let channel = consuming.clone();
            let delivery = match next {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => return Err(self.link.error(OPERATION, &error)),
                None => return Err(self.link.failed(OPERATION, "the server ended the consumer: its queue was deleted", Retry::Later)),
            };
            match signing::open(&delivery.data, self.keys.as_deref()) {
                Ok((message, seal)) if message.expires_ms > now_ms() => {
                    let handle = DeliveryHandle::RabbitMq { tag: delivery.delivery_tag, generation: self.generation };
                    return Ok(Some(Delivery { message, seal, handle }));
                }
                Ok(_) => {}
                Err(error) => {
                    self.malformed += 1;
                    if self.malformed == 1 {
                        tracing::warn!(address = %self.address, %error, "a malformed control message is dropped; further ones are only counted");
                    }
                }
            }
            self.link.call(OPERATION, channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default())).await?;
        }
    }

    /// The channel that a delivery came on, if it is still the live one.
    fn channel_of(&self, operation: &'static str, delivery: &Delivery) -> Result<(Channel, u64), BrokerError> {
        let DeliveryHandle::RabbitMq { tag, generation } = delivery.handle else {
            return Err(self.link.failed(operation, "the delivery is of another broker", Retry::AfterChange));
        };
        match &self.session {
            Some(session) if generation == self.generation => Ok((session.consuming.clone(), tag)),
            _ => Err(self.link.failed(operation, "the connection that brought the message is gone: the server has requeued it", Retry::Later)),
        }
    }

    /// After a transient error the connection is not trusted any more.
    fn after<T>(&mut self, result: Result<T, BrokerError>) -> Result<T, BrokerError> {
        if result.is_err() {
            self.session = None;
        }
        result
    }
}

async fn start(link: Arc<AmqpLink>, channel: Channel, queue: String) -> Result<Option<Consumer>, BrokerError> {
    let name = names::short(&link, OPERATION, &queue)?;
    link.call(OPERATION, channel.basic_consume(name, "".into(), BasicConsumeOptions::default(), FieldTable::default())).await.map(Some)
}

async fn stop(link: Arc<AmqpLink>, channel: Channel, mut consumer: Consumer) -> Result<Option<Consumer>, BrokerError> {
    link.call(OPERATION, channel.basic_cancel(consumer.tag(), BasicCancelOptions::default())).await?;
    // The stream ends with the answer to the cancel; whatever stands before it has been delivered to us.
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery.map_err(|error| link.error(OPERATION, &error))?;
        link.call(OPERATION, channel.basic_nack(delivery.delivery_tag, REQUEUE)).await?;
    }
    Ok(None)
}

#[async_trait]
impl ControlReceiver for RabbitReceiver {
    async fn take(&mut self, shared: bool, wait: Duration) -> Result<Option<Delivery>, BrokerError> {
        let deadline = Instant::now() + wait;
        let ready = self.set_shared(shared).await;
        self.after(ready)?;
        let taken = self.wait(deadline).await;
        self.after(taken)
    }

    async fn ack(&mut self, delivery: Delivery) -> Result<(), BrokerError> {
        const OPERATION: &str = "acknowledging a control message";
        let (channel, tag) = self.channel_of(OPERATION, &delivery)?;
        let result = self.link.call(OPERATION, channel.basic_ack(tag, BasicAckOptions::default())).await;
        self.after(result)
    }

    async fn give_back(&mut self, delivery: Delivery) -> Result<(), BrokerError> {
        const OPERATION: &str = "giving a control message back";
        let (channel, tag) = self.channel_of(OPERATION, &delivery)?;
        // Not consuming any more when it is requeued: else the server may hand it to us again before anyone else.
        let ended = self.set_shared(false).await;
        self.after(ended)?;
        let result = self.link.call(OPERATION, channel.basic_nack(tag, REQUEUE)).await;
        self.after(result)
    }

    async fn report(&mut self, report: &Report) -> Result<(), BrokerError> {
        const OPERATION: &str = "sending a report";
        let key = names::short(&self.link, OPERATION, &names::reports(&self.address).routing_key)?;
        let session = self.session(OPERATION).await?;
        // In an alarm (memory, disk) the server stops reading from whoever publishes: acknowledgements of this connection would wait with the report.
        if session.connection.status().blocked() {
            return Err(self.link.failed(OPERATION, "the server takes no messages now: its memory or disk alarm is on", Retry::Later));
        }
        let channel = session.publishing.clone();
        let properties = BasicProperties::default().with_expiration(REPORT_TTL_MS.to_string().into());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let body = report.encode();
        let sent = async { channel.basic_publish(names::EXCHANGE.into(), key, options, &body, properties).await?.await };
        let undeclared = "no queue takes reports of this workload yet: the controller declares it";
        match self.link.raw(sent).await {
            Ok(confirmation) if confirmation.is_nack() => Err(self.link.failed(OPERATION, "the server did not take the report", Retry::Later)),
            Ok(confirmation) => match confirmation.take_message() {
                Some(_) => Err(self.link.failed(OPERATION, undeclared, Retry::Later)),
                None => Ok(()),
            },
            Err(Some(error)) if is_missing(&error) => {
                self.session = None;
                Err(self.link.failed(OPERATION, undeclared, Retry::Later))
            }
            Err(error) => {
                let error = self.link.either(OPERATION, error.as_ref());
                self.after(Err(error))
            }
        }
    }

    fn malformed(&self) -> u64 {
        self.malformed
    }
}
