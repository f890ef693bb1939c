//! Sidekiq. Each process has a hash with its figures, written every 5 to 10 s (`lib/sidekiq/launcher.rb`).

use super::{
    Age, Books, BusySource, Clock, End, Framework, HostIn, KeyKind, Listed, Prefix, Processes, QUIET_THEN_TERM, RedisKey, Stamp, Tasks, list,
};

const fn all_due(template: &'static str) -> RedisKey {
    RedisKey { kind: KeyKind::DueOfAll { clock: Clock::Seconds }, template }
}

/// See the module.
pub(super) static SIDEKIQ: Framework = Framework {
    name: "sidekiq",
    signals: QUIET_THEN_TERM,
    busy: BusySource::Broker,
    prefix: Some(Prefix { default: "", joint: ":", setting: "redis-namespace" }),
    waiting: &[list("{prefix}queue:{queue}")],
    later: &[all_due("{prefix}schedule"), all_due("{prefix}retry")],
    age: Age::Message { next: End::Right, field: "enqueued_at", stamp: Stamp::SecondsOrMillis },
    books: Books::Processes(Processes {
        listed: Listed::Set("{prefix}processes"),
        host: HostIn::Name,
        // Three beats of 10 s.
        tasks: Tasks::Beat { busy: "busy", beat: "beat", quiet: "quiet", age_max_s: 30 },
    }),
    ..Framework::PLAIN
};
