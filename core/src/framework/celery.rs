//! Celery, on Redis and RabbitMQ. Keys and priorities: kombu's Redis transport (`_q_for_pri`, `unacked_key`, `global_keyprefix`).

use super::{BusySource, Framework, GateKind, KeyKind, Prefix, RedisKey, list};

/// See the module.
pub(super) static CELERY: Framework = Framework {
    name: "celery",
    busy: BusySource::CeleryEvents,
    gate: GateKind::Remote,
    prefix: Some(Prefix { default: "", joint: "", setting: "broker_transport_options global_keyprefix" }),
    waiting: &[list("{prefix}{queue}{priority}")],
    working: &[RedisKey { kind: KeyKind::CeleryUnacked, template: "{prefix}unacked" }],
    acknowledges_early: true,
    note: "A worker with REMAP_SIGTERM=SIGQUIT is told SIGINT where the sidecar can read its environment; else it needs the annotation signal: SIGINT.",
    ..Framework::PLAIN
};
