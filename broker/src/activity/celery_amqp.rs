//! Celery's events and remote control over AMQP. In: URLs, commands. Out: events, replies. Left to others: the message format (`kombu`).
//! Queues made here are exclusive and bounded: they vanish with the connection, and a slow reader loses old events.

use super::kombu::{self, Call, CeleryEvent, EVENT_EXCHANGE, PIDBOX_EXCHANGE, REPLY_EXCHANGE};
use crate::rabbitmq::AmqpLink;
use crate::{BrokerError, Retry};
use futures::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, Consumer, ExchangeKind};
use qscaler_broker_url::AmqpUrl;
use serde_json::Value;
use std::collections::BTreeMap;
use tokio::time::{Instant, timeout_at};

/// An older event than this says nothing any more; milliseconds.
const EVENT_TTL_MS: i32 = 10_000;
/// Events of the whole fleet that wait for a slow reader, at most.
const EVENTS_MAX: i32 = 1_000;

fn short(text: &str) -> ShortString {
    ShortString::from(text)
}

/// Makes a queue of our own, bound to an exchange, and reads it.
async fn consume(channel: &Channel, queue: &str, exchange: &str, key: &str, arguments: FieldTable) -> lapin::Result<Consumer> {
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(short(queue), options, arguments).await?;
    channel.queue_bind(short(queue), short(exchange), short(key), QueueBindOptions::default(), FieldTable::default()).await?;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    channel.basic_consume(short(queue), short(""), options, FieldTable::default()).await
}

pub(super) struct AmqpEvents {
    link: AmqpLink,
    host: String,
    consumer: Consumer,
    /// Dropping it closes the connection.
    _connection: Connection,
}

impl AmqpEvents {
    pub(super) async fn connect(url: AmqpUrl, name: &str, host: &str) -> Result<Self, BrokerError> {
        const OPERATION: &str = "subscribing to Celery events";
        let link = AmqpLink::new(url, "qscaler events");
        let connection = link.connect(OPERATION).await?;
        let channel = link.channel(OPERATION, &connection).await?;
        let mut arguments = FieldTable::default();
        arguments.insert(short("x-message-ttl"), AMQPValue::LongInt(EVENT_TTL_MS));
        arguments.insert(short("x-max-length"), AMQPValue::LongInt(EVENTS_MAX));
        // Of its own name each time: the queue of a connection that was lost may live until the broker notices.
        let queue = format!("qscaler.ctl.events.{name}.{}", kombu::ticket());
        let consumer = link.call(OPERATION, consume(&channel, &queue, EVENT_EXCHANGE, "worker.*", arguments)).await?;
        Ok(Self { link, host: host.to_owned(), consumer, _connection: connection })
    }

    pub(super) async fn next(&mut self) -> Result<CeleryEvent, BrokerError> {
        const OPERATION: &str = "reading Celery events";
        loop {
            let delivery = match self.consumer.next().await {
                Some(delivery) => delivery.map_err(|error| self.link.error(OPERATION, &error))?,
                None => return Err(self.link.failed(OPERATION, "the connection is closed", Retry::Later)),
            };
            if !kombu::mentions(&delivery.data, &self.host) {
                continue;
            }
            if let Some(event) = kombu::event(&delivery.data, &self.host) {
                return Ok(event);
            }
        }
    }
}

pub(super) struct AmqpRemote {
    link: AmqpLink,
    name: String,
    channel: Channel,
    consumer: Consumer,
    /// Dropping it closes the connection.
    _connection: Connection,
}

impl AmqpRemote {
    pub(super) async fn connect(url: AmqpUrl, name: &str) -> Result<Self, BrokerError> {
        const OPERATION: &str = "connecting for Celery's remote control";
        let link = AmqpLink::new(url, "qscaler remote control");
        let connection = link.connect(OPERATION).await?;
        let channel = link.channel(OPERATION, &connection).await?;
        // A queue of its own name each time, for the reason given above.
        let name = format!("qscaler.ctl.remote.{name}.{}", kombu::ticket());
        let opened = async {
            // As kombu declares it; nobody may have done so yet.
            let options = ExchangeDeclareOptions::default();
            channel.exchange_declare(short(REPLY_EXCHANGE), ExchangeKind::Direct, options, FieldTable::default()).await?;
            consume(&channel, &kombu::reply_queue(&name), REPLY_EXCHANGE, &name, FieldTable::default()).await
        };
        let consumer = link.call(OPERATION, opened).await?;
        Ok(Self { link, name, channel, consumer, _connection: connection })
    }

    pub(super) async fn call(&mut self, call: &Call<'_>) -> Result<BTreeMap<String, Value>, BrokerError> {
        const OPERATION: &str = "Celery's remote control";
        let ticket = kombu::ticket();
        let mut headers = FieldTable::default();
        headers.insert(short("clock"), AMQPValue::LongInt(0));
        headers.insert(short("expires"), AMQPValue::Double(kombu::expires_s(call)));
        let properties =
            BasicProperties::default().with_content_type(short("application/json")).with_content_encoding(short("utf-8")).with_headers(headers);
        let body = kombu::command(call, &ticket, &self.name);
        let published = async {
            let options = BasicPublishOptions::default();
            self.channel.basic_publish(short(PIDBOX_EXCHANGE), short(""), options, &body, properties).await?.await
        };
        self.link.call(OPERATION, published).await?;
        let deadline = Instant::now() + call.wait;
        let mut replies = BTreeMap::new();
        while call.awaits(replies.len()) {
            let Ok(delivery) = timeout_at(deadline, self.consumer.next()).await else { break };
            let delivery = delivery.ok_or_else(|| self.link.failed(OPERATION, "the connection is closed", Retry::Later))?;
            let delivery = delivery.map_err(|error| self.link.error(OPERATION, &error))?;
            if has_ticket(&delivery.properties, &ticket) {
                replies.extend(kombu::replies(&delivery.data));
            }
        }
        Ok(replies)
    }
}

/// Whether this is a reply to that call, and not a late one to an earlier call.
fn has_ticket(properties: &BasicProperties, ticket: &str) -> bool {
    let header = properties.headers().as_ref().and_then(|headers| headers.inner().get("ticket"));
    matches!(header, Some(AMQPValue::LongString(text)) if text.as_bytes() == ticket.as_bytes())
}
