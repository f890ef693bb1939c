//! Dramatiq, on Redis and RabbitMQ. Keys: `dramatiq/brokers/redis` (its Lua dispatch).

use super::{Books, BusySource, Framework, KeyKind, Prefix, RedisKey, list};

/// See the module.
pub(super) static DRAMATIQ: Framework = Framework {
    name: "dramatiq",
    busy: BusySource::Broker,
    prefix: Some(Prefix { default: "dramatiq", joint: "", setting: "RedisBroker namespace" }),
    waiting: &[list("{prefix}:{queue}")],
    later: &[RedisKey { kind: KeyKind::DueList, template: "{prefix}:{queue}.DQ" }],
    working: &[RedisKey { kind: KeyKind::SetPattern, template: "{prefix}:__acks__.*.{queue}" }],
    books: Books::FleetAcks { processes: "{prefix}:__heartbeats__", acks: "{prefix}:__acks__." },
    note: "--worker-shutdown-timeout (600 s) bounds how long a task may go on.",
    ..Framework::PLAIN
};
