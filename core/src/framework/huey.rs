//! Huey on Redis (`huey/storage.py`, class `RedisStorage`: a name's letters, digits and underscores alone go into its keys).

use super::{BusySource, Framework, Signal, list};

/// See the module.
pub(super) static HUEY: Framework = Framework {
    name: "huey",
    signals: &[Signal::Int],
    busy: BusySource::BlockedPop,
    waiting: &[list("huey.redis.{queue:word}")],
    note: "SIGTERM cuts a Huey task: never let anything else send it.",
    ..Framework::PLAIN
};
