//! Shapes whose worker is not Celery. In: nothing. Out: data. Left to others: everything else.

use super::shape::{Shape, USUAL};
use crate::stand::fleet::PodShape;
use crate::stand::framework::{self, Framework};

const LEDGER: (&str, &str) = ("ledger.py", include_str!("../../apps/ledger.py"));
const SEND: (&str, &str) = ("send.py", include_str!("../../apps/send.py"));
const BULLMQ_APP: (&str, &str) = ("tasks.js", include_str!("../../apps/bullmq_tasks.js"));
/// Seconds for which a worker of arq is idle before that is seen: its books tell only whether the whole fleet has work.
const ARQ_PATIENCE_S: f64 = 75.0;

const RQ: Framework = Framework { note: "", ..framework::RQ };
const BULLMQ: Framework = Framework { note: "", ..framework::BULLMQ };
const OWN_USER: PodShape = PodShape { own_user: true, ..USUAL };

static LOOP: Shape = Shape {
    pod: PodShape { command: &["/app/loop.sh"], ..USUAL },
    backlog: 10,
    ..Shape::of(Framework {
        slug: "rq-loop",
        name: "`while true; do rq worker --burst`",
        args: &[],
        annotations: &[("worker", "rq"), ("max-task-duration", "60s")],
        files: &[LEDGER, SEND, ("tasks.py", include_str!("../../apps/rq_tasks.py")), ("loop.sh", include_str!("../../apps/shapes/rq-loop.sh"))],
        ..RQ
    })
};
static SCHEDULER: Shape = Shape {
    zero: true,
    ..Shape::of(Framework {
        slug: "rq-scheduler",
        name: "rq `--with-scheduler`",
        args: &["-m", "rq.cli", "worker", "--with-scheduler", "--url", "$(BROKER_URL)", "{queue}"],
        ..RQ
    })
};
static POOL: Shape = Shape {
    width: 2,
    ..Shape::of(Framework {
        slug: "rq-pool",
        name: "rq `worker-pool -n 2`",
        args: &["-m", "rq.cli", "worker-pool", "--url", "$(BROKER_URL)", "-n", "2", "{queue}"],
        ..RQ
    })
};
static ROOT_HUEY: Shape = Shape {
    pod: OWN_USER,
    ..Shape::of(Framework {
        slug: "root-huey",
        name: "huey as root, no securityContext",
        image: "qscaler/worker-python:root",
        note: "",
        ..framework::HUEY
    })
};
static ROOT_SIDEKIQ: Shape = Shape {
    pod: OWN_USER,
    ..Shape::of(Framework {
        slug: "root-sidekiq",
        name: "sidekiq as root, no securityContext",
        image: "qscaler/worker-ruby:root",
        note: "",
        ..framework::SIDEKIQ
    })
};
static SIDEKIQ_LATER: Shape =
    Shape { zero: true, ..Shape::of(Framework { slug: "sidekiq-later", name: "sidekiq, `perform_in` too", note: "", ..framework::SIDEKIQ }) };
static ARQ_LATER: Shape = Shape {
    patience_s: ARQ_PATIENCE_S,
    zero: true,
    ..Shape::of(Framework { slug: "arq-later", name: "arq, deferred jobs too", note: "", ..framework::ARQ })
};
static BULLMQ_TEN: Shape = Shape {
    width: 10,
    zero: true,
    ..Shape::of(Framework {
        slug: "bullmq-10",
        name: "bullmq, concurrency 10, annotated",
        env: &[("CONCURRENCY", "10")],
        annotations: &[("worker", "bullmq"), ("concurrency", "10")],
        ..BULLMQ
    })
};
static BULLMQ_TEN_PLAIN: Shape = Shape {
    width: 10,
    ..Shape::of(Framework { slug: "bullmq-10-plain", name: "bullmq, concurrency 10, not annotated", env: &[("CONCURRENCY", "10")], ..BULLMQ })
};
static BULLMQ_PREFIX: Shape =
    Shape::of(Framework { slug: "bullmq-prefix", name: "bullmq with `prefix: {app}`", env: &[("KEY_PREFIX", "{app}")], ..BULLMQ });
static NPM: Shape = Shape {
    pod: PodShape { command: &["node", "/opt/site/node_modules/npm/bin/npm-cli.js", "start", "--prefix", "/app"], ..USUAL },
    ..Shape::of(Framework {
        slug: "npm-start",
        name: "bullmq under `npm start`",
        args: &[],
        env: &[("HOME", "/tmp")],
        files: &[BULLMQ_APP, ("package.json", include_str!("../../apps/shapes/package.json"))],
        ..BULLMQ
    })
};
static PM2: Shape = Shape {
    pod: PodShape { command: &["node", "/opt/site/node_modules/pm2/bin/pm2-runtime", "start", "/app/tasks.js"], ..USUAL },
    ..Shape::of(Framework { slug: "pm2", name: "bullmq under pm2-runtime", args: &[], env: &[("HOME", "/tmp"), ("PM2_HOME", "/tmp/.pm2")], ..BULLMQ })
};
static DISPATCHER: Shape = Shape {
    width: 4,
    ..Shape::of(Framework {
        slug: "brpop-pool",
        name: "BRPOP dispatcher with four threads",
        files: &[LEDGER, SEND, ("tasks.py", include_str!("../../apps/brpop_pool_tasks.py"))],
        note: "",
        ..framework::BRPOP
    })
};
static AUTO_ACK: Shape =
    Shape::of(Framework { slug: "pika-auto-ack", name: "pika with auto-ack", env: &[("AUTO_ACK", "1")], note: "", ..framework::PIKA });

/// All of them.
pub static SHAPES: &[&Shape] = &[
    &LOOP,
    &SCHEDULER,
    &POOL,
    &ROOT_HUEY,
    &ROOT_SIDEKIQ,
    &SIDEKIQ_LATER,
    &ARQ_LATER,
    &BULLMQ_TEN,
    &BULLMQ_TEN_PLAIN,
    &BULLMQ_PREFIX,
    &NPM,
    &PM2,
    &DISPATCHER,
    &AUTO_ACK,
];
