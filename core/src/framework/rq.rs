//! RQ. Each worker has a hash with its host, its state and how many jobs it has ended (`rq/worker/base.py`).

use super::{Age, Books, BusySource, Clock, End, Framework, HostIn, Listed, Processes, Stamp, Tasks, due, list, zset};

/// See the module.
pub(super) static RQ: Framework = Framework {
    name: "rq",
    busy: BusySource::Broker,
    waiting: &[list("rq:queue:{queue}"), list("rq:queue:{queue}:intermediate")],
    later: &[due(Clock::Seconds, "rq:scheduled:{queue}")],
    working: &[zset("rq:wip:{queue}")],
    age: Age::Job { next: End::Left, hash: "rq:job:", fields: &["enqueued_at"], stamp: Stamp::Iso8601 },
    books: Books::Processes(Processes {
        listed: Listed::Set("rq:workers"),
        host: HostIn::Field("hostname"),
        tasks: Tasks::State {
            field: "state",
            idle: &["started", "idle", "suspended"],
            busy: &["busy"],
            done: &["successful_job_count", "failed_job_count"],
        },
    }),
    ..Framework::PLAIN
};
