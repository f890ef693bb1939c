//! BullMQ (`src/classes/queue-keys.ts`, its Lua scripts).

use super::{Age, Books, BusySource, Clock, End, Framework, Prefix, Promise, Stamp, due, list, zset};

/// See the module.
pub(super) static BULLMQ: Framework = Framework {
    name: "bullmq",
    busy: BusySource::BlockedPop,
    promise: Promise::NeedsHandler,
    prefix: Some(Prefix { default: "bull", joint: "", setting: "prefix" }),
    waiting: &[list("{prefix}:{queue}:wait"), zset("{prefix}:{queue}:prioritized")],
    later: &[due(Clock::Millis4096, "{prefix}:{queue}:delayed")],
    working: &[list("{prefix}:{queue}:active")],
    age: Age::Job { next: End::Right, hash: "{prefix}:{queue}:", fields: &["timestamp", "opts", "processedOn"], stamp: Stamp::BullMq },
    books: Books::Locks { before: "{prefix}:{queue}:", after: ":lock" },
    note: "The application must call worker.close() on SIGTERM.",
    ..Framework::PLAIN
};
