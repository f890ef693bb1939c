//! Celery's events and remote control over Redis. In: URLs, commands. Out: events, replies. Left to others: the message format (`kombu`).
//! Channels and keys are those of kombu's Redis transport with the user's `global_keyprefix`; events are seen whatever that is (a pattern subscription).

use super::kombu::{self, Call, CeleryEvent, EVENT_EXCHANGE, PIDBOX_EXCHANGE, REPLY_EXCHANGE};
use crate::redis::{RESPONSE_TIMEOUT, RedisLink};
use crate::{BrokerError, Retry};
use futures::StreamExt;
use qscaler_broker_url::RedisUrl;
use redis::{Value as RedisValue, cmd, pipe};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Workers write every 2 s: after so long a silence of the whole fleet the connection may be half open.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How often the reply queue is looked at: calls are rare, and a blocking pop would need a connection of its own.
const REPLY_POLL: Duration = Duration::from_millis(50);
/// What separates the parts of a binding in kombu's Redis transport.
const SEPARATOR: &str = "\u{6}\u{16}";
const READING: &str = "reading Celery events";
const CALLING: &str = "Celery's remote control";

pub(super) struct RedisEvents {
    place: String,
    host: String,
    messages: redis::aio::PubSubStream,
    /// Dropping the sink ends the subscription.
    _sink: redis::aio::PubSubSink,
}

impl RedisEvents {
    pub(super) async fn connect(url: RedisUrl, host: &str) -> Result<Self, BrokerError> {
        const OPERATION: &str = "subscribing to Celery events";
        let pattern = format!("*/{}.{EVENT_EXCHANGE}/worker.*", url.database);
        let link = RedisLink::new(url, RESPONSE_TIMEOUT);
        let (mut sink, messages) = link.subscriber(OPERATION).await?.split();
        sink.psubscribe(pattern).await.map_err(|error| link.error(OPERATION, &error))?;
        Ok(Self { place: link.place(), host: host.to_owned(), messages, _sink: sink })
    }

    pub(super) async fn next(&mut self) -> Result<CeleryEvent, BrokerError> {
        let lost = |message: &str| BrokerError { operation: READING, place: self.place.clone(), message: message.to_owned(), retry: Retry::Later };
        loop {
            let message = tokio::time::timeout(SILENCE_MAX, self.messages.next()).await;
            let message = message.map_err(|_| lost("no worker has been heard for 30 s"))?.ok_or_else(|| lost("the connection is closed"))?;
            let payload = message.get_payload_bytes();
            if !kombu::mentions(payload, &self.host) {
                continue;
            }
            if let Some(event) = kombu::unwrap(payload).and_then(|body| kombu::event(&body, &self.host)) {
                return Ok(event);
            }
        }
    }
}

pub(super) struct RedisRemote {
    link: RedisLink,
    name: String,
    channel: String,
    /// kombu's `global_keyprefix`.
    prefix: String,
}

impl RedisRemote {
    pub(super) fn new(url: RedisUrl, name: &str, prefix: &str) -> Self {
        let channel = format!("{prefix}/{}.{PIDBOX_EXCHANGE}", url.database);
        Self { link: RedisLink::new(url, RESPONSE_TIMEOUT), name: name.to_owned(), channel, prefix: prefix.to_owned() }
    }

    pub(super) async fn call(&mut self, call: &Call<'_>) -> Result<BTreeMap<String, Value>, BrokerError> {
        let reply = kombu::reply_queue(&self.name);
        let queue = format!("{}{reply}", self.prefix);
        let bindings = format!("{}_kombu.binding.{REPLY_EXCHANGE}", self.prefix);
        let binding = format!("{}{SEPARATOR}{SEPARATOR}{reply}", self.name);
        let ticket = kombu::ticket();
        let command = kombu::wrapped_command(call, &ticket, &self.name);
        // The same names for every call of this pod: a left-over of a call that was cut off goes now.
        self.link.run_all(CALLING, pipe().del(&queue).sadd(&bindings, &binding).publish(&self.channel, command)).await?;
        let deadline = Instant::now() + call.wait;
        let mut replies = BTreeMap::new();
        while call.awaits(replies.len()) {
            let popped = self.link.run_all(CALLING, pipe().add_command(cmd("RPOP").arg(&queue).clone())).await?;
            match popped.first() {
                Some(RedisValue::BulkString(payload)) if kombu::mentions_ticket(payload, &ticket) => {
                    let body = kombu::unwrap(payload).unwrap_or_default();
                    replies.extend(kombu::replies(&body));
                }
                Some(RedisValue::BulkString(_)) => {}
                _ if Instant::now() >= deadline => break,
                _ => tokio::time::sleep(REPLY_POLL).await,
            }
        }
        self.link.run_all(CALLING, pipe().srem(&bindings, &binding).del(&queue)).await?;
        Ok(replies)
    }
}
