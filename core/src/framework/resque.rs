//! Resque (`lib/resque/worker.rb`, `worker_registry.rb`): a key for each worker while it has a job.

use super::{Books, BusySource, Framework, HostIn, Listed, Prefix, Processes, Signal, Tasks, list};

/// See the module.
pub(super) static RESQUE: Framework = Framework {
    name: "resque",
    signals: &[Signal::Quit],
    busy: BusySource::Broker,
    prefix: Some(Prefix { default: "resque", joint: "", setting: "Resque.redis.namespace" }),
    waiting: &[list("{prefix}:queue:{queue}")],
    books: Books::Processes(Processes {
        listed: Listed::Set("{prefix}:workers"),
        host: HostIn::Name,
        tasks: Tasks::KeyWhileBusy("{prefix}:worker:"),
    }),
    ..Framework::PLAIN
};
