//! What is known of each worker framework: how it is told to finish and leave, how busy or idle is seen, which keys hold its queue in Redis, what it
//! writes down of itself.
//! In: the framework's name from the `worker` annotation. Out: its value. Left to others: reading keys and books (`broker`), sending the signal
//! (`sidecar`). A new framework is one more file here, and its line in [`FRAMEWORKS`].
//! Source of the values: each framework's documentation and code, and runs with one task in flight.

mod ages;
mod amqp_consumer;
mod arq;
mod asynq;
mod books;
mod bullmq;
mod celery;
mod custom;
mod dramatiq;
mod faktory;
mod huey;
mod keys;
mod redis_loop;
mod resque;
mod rq;
mod scheduler;
mod sidekiq;
mod signal;
mod taskiq;
mod taskiq_stream;

pub use ages::{Age, End, Stamp};
pub use books::{Books, HostIn, Listed, Processes, Tasks};
pub use keys::{Clock, Key, KeyKind, KeyNames, Prefix, RedisKey};
pub use scheduler::{Scaled, Scheduler};
pub use signal::Signal;

use serde::{Deserialize, Serialize};

/// Every framework, in the order of the reference page; the last is what a workload has that names none.
pub static FRAMEWORKS: &[&Framework] = &[
    &celery::CELERY,
    &rq::RQ,
    &dramatiq::DRAMATIQ,
    &huey::HUEY,
    &arq::ARQ,
    &taskiq::TASKIQ,
    &taskiq_stream::TASKIQ_STREAM,
    &sidekiq::SIDEKIQ,
    &resque::RESQUE,
    &bullmq::BULLMQ,
    &faktory::FAKTORY,
    &asynq::ASYNQ,
    &redis_loop::REDIS_LOOP,
    &amqp_consumer::AMQP_CONSUMER,
    &CUSTOM,
];

pub use custom::CUSTOM;

/// One framework.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framework {
    /// The value of the `worker` annotation.
    pub name: &'static str,
    /// With what its program's name, script or module begins; empty: with its own name.
    pub program: &'static str,
    /// Sent in this order; with more than one, all but the last quiet the worker, and the last is sent once it is idle.
    pub signals: &'static [Signal],
    /// Default source of busy or idle.
    pub busy: BusySource,
    /// What a drain can promise.
    pub promise: Promise,
    /// How it is kept from taking tasks.
    pub gate: GateKind,
    /// What stands before its keys; None: nothing can.
    pub prefix: Option<Prefix>,
    /// Keys whose lengths add up to the messages that wait.
    pub waiting: &'static [RedisKey],
    /// Keys of messages put aside for later (delayed, scheduled, to be retried), of which those that are due wait, too.
    pub later: &'static [RedisKey],
    /// Keys whose lengths add up to the messages taken and not finished.
    pub working: &'static [RedisKey],
    /// Since when a message waits, as written in Redis.
    pub age: Age,
    /// What it writes down of itself in Redis.
    pub books: Books,
    /// By default a message is acknowledged when its task begins, not when it ends: the broker's count of unacknowledged messages then leaves running
    /// tasks out, and no connection's unacknowledged messages tell whether its worker runs one.
    pub acknowledges_early: bool,
    /// What a user must know, in one sentence; empty where nothing.
    pub note: &'static str,
}

impl Framework {
    /// What a framework has of which nothing is said.
    const PLAIN: Self = Self {
        name: "",
        program: "",
        signals: &[Signal::Term],
        busy: BusySource::Unknown,
        promise: Promise::FinishThenExit,
        gate: GateKind::None,
        prefix: None,
        waiting: &[],
        later: &[],
        working: &[],
        age: Age::Unknown,
        books: Books::None,
        acknowledges_early: false,
        note: "",
    };

    /// With what its program's name, script or module begins.
    #[must_use]
    pub fn program(&self) -> &'static str {
        if self.program.is_empty() { self.name } else { self.program }
    }

    /// The keys of this queue that hold messages that wait.
    #[must_use]
    pub fn waiting_keys(&self, queue: &str, names: &KeyNames) -> Vec<Key> {
        self.keys(self.waiting, queue, names)
    }

    /// The keys of this queue that hold messages for later.
    #[must_use]
    pub fn later_keys(&self, queue: &str, names: &KeyNames) -> Vec<Key> {
        self.keys(self.later, queue, names)
    }

    /// The keys of this queue that hold messages taken and not finished.
    #[must_use]
    pub fn working_keys(&self, queue: &str, names: &KeyNames) -> Vec<Key> {
        self.keys(self.working, queue, names)
    }

    /// Its queues have a key for each step of priority.
    #[must_use]
    pub fn has_priorities(&self) -> bool {
        self.waiting.iter().any(|key| key.template.contains("{priority}"))
    }

    /// What stands before a job's id in the name of its hash.
    #[must_use]
    pub fn job_name(&self, template: &str, queue: &str, names: &KeyNames) -> String {
        keys::names(template, queue, names, self.prefix, str::to_owned).into_iter().next().unwrap_or_default()
    }

    fn keys(&self, keys: &[RedisKey], queue: &str, names: &KeyNames) -> Vec<Key> {
        let of = |key: &RedisKey| {
            let literal = |text: &str| if key.kind == KeyKind::SetPattern { glob_literal(text) } else { text.to_owned() };
            let found = keys::names(key.template, queue, names, self.prefix, literal);
            found.into_iter().map(|name| Key { kind: key.kind, name }).collect::<Vec<_>>()
        };
        keys.iter().flat_map(of).collect()
    }

    /// A name of its books of one queue.
    #[must_use]
    pub fn queue_book_name(&self, template: &str, queue: &str, names: &KeyNames) -> String {
        keys::names(template, queue, names, self.prefix, str::to_owned).swap_remove(0)
    }

    /// A name of its books, with the prefix in it.
    #[must_use]
    pub fn book_name(&self, template: &str, names: &KeyNames) -> String {
        template.replace("{prefix}", &names.prefix(self.prefix))
    }
}

/// A text inside a glob of Redis, standing for itself.
#[must_use]
pub fn glob_literal(text: &str) -> String {
    text.chars().flat_map(|c| if matches!(c, '*' | '?' | '[' | ']' | '\\') { vec!['\\', c] } else { vec![c] }).collect()
}

/// The framework of this name.
#[must_use]
pub fn framework(name: &str) -> Option<&'static Framework> {
    FRAMEWORKS.iter().copied().find(|f| f.name == name)
}

/// Where the sidecar reads whether its worker has a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BusySource {
    /// Celery's worker heartbeat events: the field `active`, every 2 s, from the broker.
    CeleryEvents,
    /// A worker that forks one child per task, and none for anything else: any child means busy.
    Children,
    /// Redis: the worker's own connection blocked in a pop means idle.
    BlockedPop,
    /// Redis or RabbitMQ bookkeeping of the framework, by this pod's address or host name.
    Broker,
    /// `GET http://127.0.0.1:PORT/PATH`: 200 = idle, 409 or 503 = busy, anything else = unknown.
    Http {
        /// Port on the pod's loopback.
        port: u16,
        /// Path with its leading slash.
        path: String,
    },
    /// This file exists in the worker's file system: busy.
    File {
        /// Absolute path.
        path: String,
    },
    /// Nothing tells; the patience rule still ends a drain.
    Unknown,
}

/// What a drain can promise with this framework.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Promise {
    /// On its signals the worker finishes the task in hand and leaves.
    FinishThenExit,
    /// The worker needs an own handler or setting for that (named in the docs); without it the task restarts elsewhere.
    NeedsHandler,
    /// The worker dies on every signal; only a gate at the broker keeps the task whole.
    RestartOnTerm,
}

/// How a worker is kept from taking tasks without its code being changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GateKind {
    /// There is no way: a task that an idle worker takes at the last moment is finished by the hold.
    None,
    /// The framework's own remote control (Celery: `cancel_consumer`).
    Remote,
    /// The idle worker is frozen (SIGSTOP) and its wait at the broker ended, so that it can have taken nothing. It hears no signal and needs none:
    /// frozen and idle it is killed, and nothing is lost.
    Freeze,
}

const fn list(template: &'static str) -> RedisKey {
    RedisKey { kind: KeyKind::List, template }
}
const fn zset(template: &'static str) -> RedisKey {
    RedisKey { kind: KeyKind::SortedSet, template }
}
const fn due(clock: Clock, template: &'static str) -> RedisKey {
    RedisKey { kind: KeyKind::Due { clock, running: None }, template }
}
const QUIET_THEN_TERM: &[Signal] = &[Signal::Tstp, Signal::Term];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_framework_has_a_way_to_end_its_worker() {
        for (i, f) in FRAMEWORKS.iter().enumerate() {
            assert!(!f.signals.is_empty() || f.gate == GateKind::Freeze, "{}", f.name);
            assert!(FRAMEWORKS[i + 1..].iter().all(|g| g.name != f.name), "{}", f.name);
        }
        assert_eq!(FRAMEWORKS.last().unwrap().name, CUSTOM.name);
    }

    #[test]
    fn keys_are_those_of_the_frameworks() {
        let names = |worker: &str| framework(worker).unwrap().waiting_keys("q", &KeyNames::default());
        assert_eq!(names("celery")[1].name, "q\u{6}\u{16}3");
        assert_eq!(names("rq")[0].name, "rq:queue:q");
        assert_eq!(names("asynq")[0].name, "asynq:{q}:pending");
        assert_eq!(framework("huey").unwrap().waiting_keys("mail-out_2", &KeyNames::default())[0].name, "huey.redis.mailout_2");
    }

    #[test]
    fn a_queue_s_name_stands_for_itself_in_a_pattern() {
        let dramatiq = framework("dramatiq").unwrap();
        assert_eq!(dramatiq.working_keys("a*b[c]", &KeyNames::default())[0].name, "dramatiq:__acks__.*.a\\*b\\[c\\]");
    }
}
