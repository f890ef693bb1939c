//! taskiq with a stream in Redis (`taskiq_redis.RedisStreamBroker`): what is read and not acknowledged is in hand, and a message is acknowledged when its
//! task has ended (`AcknowledgeType.WHEN_SAVED`, the default). Consumers are named by random UUIDs.

use super::{Books, BusySource, Framework, KeyKind, RedisKey};

/// See the module.
pub(super) static TASKIQ_STREAM: Framework = Framework {
    name: "taskiq-stream",
    program: "taskiq",
    busy: BusySource::Broker,
    // The stream's groups tell what is in hand, too.
    waiting: &[RedisKey { kind: KeyKind::Stream, template: "{queue}" }],
    books: Books::Fleet,
    note: "All messages taken are run before the worker leaves; of messages that were sent before the first worker ever started taskiq's default (consumer_id $) reads none.",
    ..Framework::PLAIN
};
