//! A plain consumer of RabbitMQ, without a handler for any signal.

use super::{BusySource, Framework, GateKind, Promise};

/// See the module.
pub(super) static AMQP_CONSUMER: Framework = Framework {
    name: "amqp-consumer",
    signals: &[],
    busy: BusySource::Broker,
    promise: Promise::RestartOnTerm,
    gate: GateKind::Freeze,
    note: "It must acknowledge by hand, and its RabbitMQ user needs the tag monitoring. It is stopped only while it holds no message: under a \
        backlog that never ends it works on to the end of max-task-duration, and the task that it has then starts again elsewhere.",
    ..Framework::PLAIN
};
