//! arq: its queue is a sorted set by due time in milliseconds, in which a running job stays until its end, with a key of its own beside it
//! (`arq/constants.py`, `in_progress_key_prefix`).

use super::{Books, BusySource, Clock, Framework, KeyKind, Promise, RedisKey};

/// See the module.
pub(super) static ARQ: Framework = Framework {
    name: "arq",
    busy: BusySource::Broker,
    promise: Promise::NeedsHandler,
    waiting: &[RedisKey { kind: KeyKind::Due { clock: Clock::Millis, running: Some("arq:in-progress:") }, template: "{queue}" }],
    books: Books::Fleet,
    note: "Set job_completion_wait to your longest task; with 0 (the default) SIGTERM cancels and retries it.",
    ..Framework::PLAIN
};
