//! Huey on Redis (`huey/storage.py`, class `RedisStorage`: a name's letters, digits and underscores alone go into its keys).

use super::{BusySource, Clock, Framework, Signal, due, list};

/// See the module.
pub(super) static HUEY: Framework = Framework {
    name: "huey",
    signals: &[Signal::Int],
    busy: BusySource::BlockedPop,
    waiting: &[list("huey.redis.{queue:word}")],
    later: &[due(Clock::Seconds, "huey.schedule.{queue:word}")],
    note: "SIGTERM cuts a Huey task: never let anything else send it.",
    ..Framework::PLAIN
};
