//! The worker frameworks that QScaler is shown with. In: nothing. Out: a row each: the image, how a worker of it is started and a task is sent, its
//! application's files, and the annotations that a user writes for it. Left to others: running them (`fleet`), what should be (`tests/e2e`).
//!
//! The applications (`tests/apps`) know nothing of QScaler. All of them write the same ledger: what was sent, started and done, in a Redis of
//! its own. In arguments and annotations `{queue}` stands for the fleet's name, which is its queue; `$(NAME)` is the container's variable.

use super::BrokerKind;

/// One framework with one broker.
#[derive(Debug, PartialEq, Eq)]
pub struct Framework {
    /// As the matrix names it: a row's title.
    pub name: &'static str,
    /// The same for namespaces and queues: lower case letters, digits and dashes.
    pub slug: &'static str,
    /// Where its tasks wait.
    pub broker: BrokerKind,
    /// The worker's and the client's image.
    pub image: &'static str,
    /// The worker's arguments, after the image's entry point.
    pub args: &'static [&'static str],
    /// The whole command that sends a plan (JSON on its standard input) from the client's pod.
    pub send: &'static [&'static str],
    /// The command that prints a line `name version` of each package that says something about queues, in the client's pod.
    pub versions: &'static [&'static str],
    /// Variables of worker and client beside `BROKER_URL`, `QUEUE`, `LEDGER_URL` and `LEDGER_KEY`.
    pub env: &'static [(&'static str, &'static str)],
    /// Annotations, without `qscaler.dev/`, beside queue, broker and the replica bounds.
    pub annotations: &'static [(&'static str, &'static str)],
    /// The application: file names below `/app`, and what is in them.
    pub files: &'static [(&'static str, &'static str)],
    /// What cannot be promised with it, and why; empty: everything is.
    pub note: &'static str,
}

const PYTHON: &str = "qscaler/worker-python:dev";
const LEDGER_PY: (&str, &str) = ("ledger.py", include_str!("../../apps/ledger.py"));
const SEND_PY: (&str, &str) = ("send.py", include_str!("../../apps/send.py"));
const PYTHON_SEND: &[&str] = &["python3", "/app/send.py", "{queue}"];
const PYTHON_VERSIONS: &[&str] = &[
    "python3",
    "-c",
    "import importlib.metadata as m
for n in ('celery', 'kombu', 'redis', 'amqp', 'rq', 'dramatiq', 'huey', 'arq', 'taskiq', 'pika'):
    try: print(n, m.version(n))
    except m.PackageNotFoundError: pass",
];

/// What a Python application on Redis has in common.
const REDIS_TASKS: Framework = Framework {
    name: "",
    slug: "",
    broker: BrokerKind::Redis,
    image: PYTHON,
    args: &[],
    send: PYTHON_SEND,
    versions: PYTHON_VERSIONS,
    env: &[],
    annotations: &[],
    files: &[],
    note: "",
};

const CELERY: Framework = Framework {
    name: "celery redis early-ack",
    slug: "celery",
    args: &["-m", "celery", "-A", "tasks", "worker", "-l", "INFO", "-c", "1", "-Q", "{queue}"],
    annotations: &[("worker", "celery")],
    files: &[LEDGER_PY, SEND_PY, ("tasks.py", include_str!("../../apps/celery_tasks.py"))],
    ..REDIS_TASKS
};

/// Celery on Redis as it comes: a task is acknowledged before it runs.
pub static CELERY_REDIS: Framework = CELERY;
/// Celery on Redis with `acks_late` and a prefetch of 1; a task whose process was killed goes back to the queue.
pub static CELERY_REDIS_LATE: Framework = Framework { name: "celery redis acks_late", slug: "celery-late", env: &[("ACKS_LATE", "1")], ..CELERY };
/// Celery on RabbitMQ as it comes.
pub static CELERY_RABBITMQ: Framework = Framework { name: "celery rabbitmq", slug: "celery-rabbitmq", broker: BrokerKind::RabbitMq, ..CELERY };
/// Celery on RabbitMQ with `acks_late` and a prefetch of 1; not a row of the matrix.
pub static CELERY_RABBITMQ_LATE: Framework =
    Framework { name: "celery rabbitmq acks_late", slug: "celery-rabbitmq-late", broker: BrokerKind::RabbitMq, env: &[("ACKS_LATE", "1")], ..CELERY };

/// RQ: a process forked for each job.
pub static RQ: Framework = Framework {
    name: "rq",
    slug: "rq",
    args: &["-m", "rq.cli", "worker", "--url", "$(BROKER_URL)", "{queue}"],
    annotations: &[("worker", "rq")],
    files: &[LEDGER_PY, SEND_PY, ("tasks.py", include_str!("../../apps/rq_tasks.py"))],
    ..REDIS_TASKS
};

const DRAMATIQ: Framework = Framework {
    name: "dramatiq redis",
    slug: "dramatiq",
    args: &["-m", "dramatiq", "tasks", "--processes", "1", "--threads", "1", "--queues", "{queue}"],
    annotations: &[("worker", "dramatiq")],
    files: &[LEDGER_PY, SEND_PY, ("tasks.py", include_str!("../../apps/dramatiq_tasks.py"))],
    ..REDIS_TASKS
};
/// Dramatiq on Redis.
pub static DRAMATIQ_REDIS: Framework = DRAMATIQ;
/// Dramatiq on RabbitMQ.
pub static DRAMATIQ_RABBITMQ: Framework =
    Framework { name: "dramatiq rabbitmq", slug: "dramatiq-rabbitmq", broker: BrokerKind::RabbitMq, ..DRAMATIQ };

/// Huey with one thread.
pub static HUEY: Framework = Framework {
    name: "huey",
    slug: "huey",
    args: &["-m", "huey.bin.huey_consumer", "tasks.huey", "-w", "1"],
    annotations: &[("worker", "huey")],
    files: &[LEDGER_PY, SEND_PY, ("tasks.py", include_str!("../../apps/huey_tasks.py"))],
    ..REDIS_TASKS
};

/// arq whose workers finish their job before they leave.
pub static ARQ: Framework = Framework {
    name: "arq with completion wait",
    slug: "arq",
    args: &["-m", "arq", "tasks.WorkerSettings"],
    // arq needs an older client of Redis than the others.
    env: &[("PYTHONPATH", "/opt/arq:/opt/site:/app")],
    annotations: &[("worker", "arq")],
    files: &[LEDGER_PY, SEND_PY, ("tasks.py", include_str!("../../apps/arq_tasks.py"))],
    ..REDIS_TASKS
};

/// BullMQ whose application closes its worker on SIGTERM.
pub static BULLMQ: Framework = Framework {
    name: "bullmq with close handler",
    slug: "bullmq",
    image: "qscaler/worker-node:dev",
    args: &["/app/tasks.js"],
    send: &["node", "/app/tasks.js", "send", "{queue}"],
    versions: &[
        "node",
        "-e",
        "for (const n of ['bullmq', 'ioredis']) console.log(n, JSON.parse(require('fs').readFileSync(`${process.env.NODE_PATH}/${n}/package.json`)).version)",
    ],
    annotations: &[("worker", "bullmq")],
    files: &[("tasks.js", include_str!("../../apps/bullmq_tasks.js"))],
    ..REDIS_TASKS
};

/// A consumer of RabbitMQ without any handler.
pub static PIKA: Framework = Framework {
    name: "pika with manual ack",
    slug: "pika",
    broker: BrokerKind::RabbitMq,
    args: &["/app/tasks.py"],
    annotations: &[("worker", "amqp-consumer")],
    files: &[LEDGER_PY, SEND_PY, ("tasks.py", include_str!("../../apps/pika_tasks.py"))],
    note: "Under a backlog that never ends it has no moment between two tasks: it works on to the end of the pod's grace, and what it has then starts again elsewhere.",
    ..REDIS_TASKS
};

/// A loop over a Redis list without any handler.
pub static BRPOP: Framework = Framework {
    name: "plain BRPOP loop with the freeze gate",
    slug: "brpop",
    args: &["/app/tasks.py"],
    annotations: &[("worker", "redis-loop")],
    files: &[LEDGER_PY, SEND_PY, ("tasks.py", include_str!("../../apps/brpop_tasks.py"))],
    note: "Under a backlog that never ends it has no moment between two tasks: it works on to the end of the pod's grace, and what it has then is lost.",
    ..REDIS_TASKS
};

/// Debian's Sidekiq.
pub static SIDEKIQ: Framework = Framework {
    name: "sidekiq",
    slug: "sidekiq",
    image: "qscaler/worker-ruby:dev",
    args: &["/usr/bin/sidekiq", "--require", "/app/tasks.rb", "--queue", "{queue}", "--concurrency", "1"],
    send: &["ruby", "/app/send.rb"],
    versions: &["ruby", "-e", "require 'sidekiq/version'; puts \"sidekiq #{Sidekiq::VERSION}\""],
    env: &[("REDIS_URL", "$(BROKER_URL)")],
    annotations: &[("worker", "sidekiq")],
    files: &[("tasks.rb", include_str!("../../apps/sidekiq_tasks.rb")), ("send.rb", include_str!("../../apps/sidekiq_send.rb"))],
    ..REDIS_TASKS
};

/// The rows of the matrix.
pub static FRAMEWORKS: &[&Framework] =
    &[&CELERY_REDIS, &CELERY_REDIS_LATE, &CELERY_RABBITMQ, &RQ, &DRAMATIQ_REDIS, &DRAMATIQ_RABBITMQ, &HUEY, &ARQ, &BULLMQ, &PIKA, &BRPOP, &SIDEKIQ];

impl Framework {
    /// Celery with this broker, as it comes.
    #[must_use]
    pub fn celery(broker: BrokerKind) -> &'static Self {
        match broker {
            BrokerKind::Redis => &CELERY_REDIS,
            BrokerKind::RabbitMq => &CELERY_RABBITMQ,
        }
    }

    /// Celery with this broker, `acks_late` and a prefetch of 1.
    #[must_use]
    pub fn celery_acks_late(broker: BrokerKind) -> &'static Self {
        match broker {
            BrokerKind::Redis => &CELERY_REDIS_LATE,
            BrokerKind::RabbitMq => &CELERY_RABBITMQ_LATE,
        }
    }

    /// The row of this name or slug.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        FRAMEWORKS.iter().copied().find(|f| f.name == name || f.slug == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qscaler_core::config::{Parsed, parse};
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn every_row_has_a_name_of_its_own_that_a_namespace_may_have() {
        let slugs: BTreeSet<&str> = FRAMEWORKS.iter().map(|f| f.slug).collect();
        let names: BTreeSet<&str> = FRAMEWORKS.iter().map(|f| f.name).collect();
        assert_eq!((slugs.len(), names.len()), (FRAMEWORKS.len(), FRAMEWORKS.len()));
        assert!(slugs.iter().all(|s| s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')), "{slugs:?}");
    }

    #[test]
    fn the_annotations_of_every_row_are_valid() {
        for framework in FRAMEWORKS {
            let options = crate::stand::fleet::FleetOptions::of(framework, framework.slug, 0, 3);
            let annotations: BTreeMap<String, String> = options.annotations.iter().map(|(k, v)| (format!("qscaler.dev/{k}"), v.clone())).collect();
            let parsed = parse(&annotations, &BTreeMap::new());
            assert!(matches!(parsed, Parsed::Valid(_)), "{}: {parsed:?}", framework.name);
        }
    }
}
