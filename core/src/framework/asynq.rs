//! Asynq (`internal/base/base.go`): a sorted set of servers, and a hash of the tasks of each.

use super::{Age, Books, BusySource, Clock, End, Framework, HostIn, Listed, Processes, QUIET_THEN_TERM, Stamp, Tasks, due, list};

/// See the module.
pub(super) static ASYNQ: Framework = Framework {
    name: "asynq",
    signals: QUIET_THEN_TERM,
    busy: BusySource::Broker,
    waiting: &[list("asynq:{{queue}}:pending")],
    later: &[due(Clock::Seconds, "asynq:{{queue}}:scheduled"), due(Clock::Seconds, "asynq:{{queue}}:retry")],
    working: &[list("asynq:{{queue}}:active")],
    age: Age::Job { next: End::Right, hash: "asynq:{{queue}}:t:", fields: &["pending_since"], stamp: Stamp::Nanos },
    books: Books::Processes(Processes {
        listed: Listed::AliveUntil("asynq:servers"),
        host: HostIn::NameInBraces,
        tasks: Tasks::HashBeside { from: "asynq:servers:", to: "asynq:workers:" },
    }),
    ..Framework::PLAIN
};
