//! What is known of each worker framework: how it is told to finish and leave, how busy or idle is seen, and which keys hold its queue in Redis.
//! In: the preset's name from the `worker` annotation. Out: a static table row. Left to others: reading the keys (`broker`), sending the
//! signal (`sidecar`). A new framework is one more row here.
//! Source of the rows: each framework's documentation and code, and runs with one task in flight.

use serde::{Deserialize, Serialize};

/// A signal to a worker's top process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Signal {
    #[serde(rename = "SIGTERM")]
    Term,
    #[serde(rename = "SIGINT")]
    Int,
    #[serde(rename = "SIGQUIT")]
    Quit,
    #[serde(rename = "SIGTSTP")]
    Tstp,
    #[serde(rename = "SIGUSR1")]
    Usr1,
    #[serde(rename = "SIGUSR2")]
    Usr2,
}

impl Signal {
    /// Every signal that may be asked for, with its name.
    pub const ALL: &[(&str, Self)] = &[
        ("SIGTERM", Self::Term),
        ("SIGINT", Self::Int),
        ("SIGQUIT", Self::Quit),
        ("SIGTSTP", Self::Tstp),
        ("SIGUSR1", Self::Usr1),
        ("SIGUSR2", Self::Usr2),
    ];

    /// The signal of this name, if it may be asked for.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(n, _)| *n == name).map(|(_, s)| *s)
    }

    /// `SIGTERM` and so on.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, s)| *s == self).map_or("", |(n, _)| n)
    }
}

/// Where the sidecar reads whether its worker has a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BusySource {
    /// Celery's worker heartbeat events: the field `active`, every 2 s, from the broker.
    CeleryEvents,
    /// A worker that forks one child per task: any child means busy (RQ).
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

/// How a Redis key is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KeyKind {
    /// `LLEN`.
    List,
    /// `ZCARD`.
    SortedSet,
    /// arq's queue, a sorted set by due time in milliseconds: `ZCOUNT -inf now` are due, the running ones among them, which stay in the set until their
    /// end and have a key `arq:in-progress:ID` each. Tells both what waits and what is in work.
    ArqDue,
    /// `HLEN`.
    Hash,
    /// Celery's `unacked` hash: shared by all queues of the database; only entries whose routing key is this queue count.
    CeleryUnacked,
    /// A stream's consumer groups: lag waits, pending works.
    Stream,
    /// `SCARD` of every key that matches this pattern (Dramatiq's acks).
    SetPattern,
}

/// One Redis key of a queue; `{queue}` in the template is the queue's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisKey {
    /// How it is measured.
    pub kind: KeyKind,
    /// Its name.
    pub template: &'static str,
}

/// One framework.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preset {
    /// The value of the `worker` annotation.
    pub name: &'static str,
    /// Sent in this order; with more than one, all but the last quiet the worker, and the last is sent once it is idle.
    pub signals: &'static [Signal],
    /// Default source of busy or idle.
    pub busy: BusySource,
    /// What a drain can promise.
    pub promise: Promise,
    /// How it is kept from taking tasks.
    pub gate: GateKind,
    /// Keys whose lengths add up to the messages that wait.
    pub redis_waiting: &'static [RedisKey],
    /// Keys whose lengths add up to the messages taken and not finished.
    pub redis_working: &'static [RedisKey],
    /// What a user must know, in one sentence; empty where nothing.
    pub note: &'static str,
}

impl Preset {
    /// By default a message is acknowledged when its task begins, not when it ends: the broker's count of unacknowledged messages then leaves running
    /// tasks out. Celery alone among the presets; with `acks_late` it does not.
    #[must_use]
    pub fn acknowledges_early(&self) -> bool {
        self.busy == BusySource::CeleryEvents
    }
}

const fn list(template: &'static str) -> RedisKey {
    RedisKey { kind: KeyKind::List, template }
}
const fn zset(template: &'static str) -> RedisKey {
    RedisKey { kind: KeyKind::SortedSet, template }
}
const TERM: &[Signal] = &[Signal::Term];
const QUIET_THEN_TERM: &[Signal] = &[Signal::Tstp, Signal::Term];

/// Every preset, in the order of the reference page.
pub static PRESETS: &[Preset] = &[
    Preset {
        name: "celery",
        signals: TERM,
        busy: BusySource::CeleryEvents,
        promise: Promise::FinishThenExit,
        gate: GateKind::Remote,
        redis_waiting: &[list("{queue}"), list("{queue}\u{6}\u{16}3"), list("{queue}\u{6}\u{16}6"), list("{queue}\u{6}\u{16}9")],
        redis_working: &[RedisKey { kind: KeyKind::CeleryUnacked, template: "unacked" }],
        note: "A worker with REMAP_SIGTERM=SIGQUIT needs the annotation signal: SIGINT.",
    },
    Preset {
        name: "rq",
        signals: TERM,
        busy: BusySource::Children,
        promise: Promise::FinishThenExit,
        gate: GateKind::None,
        redis_waiting: &[list("rq:queue:{queue}"), list("rq:queue:{queue}:intermediate")],
        redis_working: &[zset("rq:wip:{queue}")],
        note: "",
    },
    Preset {
        name: "dramatiq",
        signals: TERM,
        busy: BusySource::Broker,
        promise: Promise::FinishThenExit,
        gate: GateKind::None,
        redis_waiting: &[list("dramatiq:{queue}")],
        redis_working: &[RedisKey { kind: KeyKind::SetPattern, template: "dramatiq:__acks__.*.{queue}" }],
        note: "--worker-shutdown-timeout (600 s) bounds how long a task may go on.",
    },
    Preset {
        name: "huey",
        signals: &[Signal::Int],
        busy: BusySource::BlockedPop,
        promise: Promise::FinishThenExit,
        gate: GateKind::None,
        redis_waiting: &[list("huey.redis.{queue:word}")],
        redis_working: &[],
        note: "SIGTERM cuts a Huey task: never let anything else send it.",
    },
    Preset {
        name: "arq",
        signals: TERM,
        busy: BusySource::Broker,
        promise: Promise::NeedsHandler,
        gate: GateKind::None,
        redis_waiting: &[RedisKey { kind: KeyKind::ArqDue, template: "{queue}" }],
        redis_working: &[],
        note: "Set job_completion_wait to your longest task; with 0 (the default) SIGTERM cancels and retries it.",
    },
    Preset {
        name: "taskiq",
        signals: TERM,
        busy: BusySource::Unknown,
        promise: Promise::FinishThenExit,
        gate: GateKind::None,
        redis_waiting: &[list("{queue}")],
        redis_working: &[],
        note: "All messages taken are run before the worker leaves.",
    },
    Preset {
        name: "sidekiq",
        signals: QUIET_THEN_TERM,
        busy: BusySource::Broker,
        promise: Promise::FinishThenExit,
        gate: GateKind::None,
        redis_waiting: &[list("queue:{queue}")],
        redis_working: &[],
        note: "",
    },
    Preset {
        name: "resque",
        signals: &[Signal::Quit],
        busy: BusySource::Children,
        promise: Promise::FinishThenExit,
        gate: GateKind::None,
        redis_waiting: &[list("resque:queue:{queue}")],
        redis_working: &[],
        note: "",
    },
    Preset {
        name: "bullmq",
        signals: TERM,
        busy: BusySource::BlockedPop,
        promise: Promise::NeedsHandler,
        gate: GateKind::None,
        redis_waiting: &[list("bull:{queue}:wait"), zset("bull:{queue}:prioritized")],
        redis_working: &[list("bull:{queue}:active")],
        note: "The application must call worker.close() on SIGTERM.",
    },
    Preset {
        name: "faktory",
        signals: QUIET_THEN_TERM,
        busy: BusySource::Unknown,
        promise: Promise::FinishThenExit,
        gate: GateKind::None,
        redis_waiting: &[],
        redis_working: &[],
        note: "Queue depth is not readable from a Faktory server yet: use scaling: protect.",
    },
    Preset {
        name: "asynq",
        signals: QUIET_THEN_TERM,
        busy: BusySource::Broker,
        promise: Promise::FinishThenExit,
        gate: GateKind::None,
        redis_waiting: &[list("asynq:{{queue}}:pending")],
        redis_working: &[list("asynq:{{queue}}:active")],
        note: "",
    },
    Preset {
        name: "redis-loop",
        signals: &[],
        busy: BusySource::BlockedPop,
        promise: Promise::RestartOnTerm,
        gate: GateKind::Freeze,
        redis_waiting: &[list("{queue}")],
        redis_working: &[],
        note: "It is stopped only while it waits in a blocking pop (BRPOP, BLPOP, BLMOVE): under a backlog that never ends it works on to the end of \
            max-task-duration, and the task that it has then is lost.",
    },
    Preset {
        name: "amqp-consumer",
        signals: &[],
        busy: BusySource::Broker,
        promise: Promise::RestartOnTerm,
        gate: GateKind::Freeze,
        redis_waiting: &[],
        redis_working: &[],
        note: "It must acknowledge by hand, and its RabbitMQ user needs the tag monitoring. It is stopped only while it holds no message: under a \
            backlog that never ends it works on to the end of max-task-duration, and the task that it has then starts again elsewhere.",
    },
    Preset {
        name: "custom",
        signals: TERM,
        busy: BusySource::Unknown,
        promise: Promise::NeedsHandler,
        gate: GateKind::None,
        redis_waiting: &[list("{queue}")],
        redis_working: &[],
        note: "The worker must finish its task and leave on the signal; say how busy is seen with the annotation busy.",
    },
];

/// The preset of this name.
#[must_use]
pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|p| p.name == name)
}

impl RedisKey {
    /// The key's name for this queue.
    #[must_use]
    pub fn name(&self, queue: &str) -> String {
        // Asynq wraps the queue in braces (a Redis hash tag); the doubled braces of its rows stand for one.
        // Huey leaves out of a name what is neither letter, digit nor underscore.
        let word = || queue.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
        self.template.replace("{{queue}}", &format!("{{{queue}}}")).replace("{queue:word}", &word()).replace("{queue}", queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preset_names_are_unique_and_every_preset_has_a_way_to_end_its_worker() {
        for (i, p) in PRESETS.iter().enumerate() {
            assert!(!p.signals.is_empty() || p.gate == GateKind::Freeze, "{}", p.name);
            assert!(PRESETS[i + 1..].iter().all(|q| q.name != p.name), "{}", p.name);
        }
    }

    #[test]
    fn keys_are_those_of_the_frameworks() {
        let name = |worker: &str, i: usize| preset(worker).unwrap().redis_waiting[i].name("q");
        assert_eq!(name("celery", 1), "q\u{6}\u{16}3");
        assert_eq!(name("rq", 0), "rq:queue:q");
        assert_eq!(name("asynq", 0), "asynq:{q}:pending");
        assert_eq!(preset("huey").unwrap().redis_waiting[0].name("mail-out_2"), "huey.redis.mailout_2");
    }
}
