//! A plain loop over a Redis list, without a handler for any signal.

use super::{BusySource, Framework, GateKind, Promise, list};

/// See the module.
pub(super) static REDIS_LOOP: Framework = Framework {
    name: "redis-loop",
    signals: &[],
    busy: BusySource::BlockedPop,
    promise: Promise::RestartOnTerm,
    gate: GateKind::Freeze,
    waiting: &[list("{queue}")],
    note: "It is stopped only while it waits in a blocking pop (BRPOP, BLPOP, BLMOVE): under a backlog that never ends it works on to the end of \
        max-task-duration, and the task that it has then is lost.",
    ..Framework::PLAIN
};
