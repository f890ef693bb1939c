//! Shapes whose worker is Celery: how it is started, as whom, with which pool and flags. In: nothing. Out: data. Left to others: everything else.

use super::shape::{Shape, USUAL};
use crate::stand::fleet::PodShape;
use crate::stand::framework::{CELERY_REDIS, Framework};

const LEDGER: (&str, &str) = ("ledger.py", include_str!("../../apps/ledger.py"));
const SEND: (&str, &str) = ("send.py", include_str!("../../apps/send.py"));
const TASKS: (&str, &str) = ("tasks.py", include_str!("../../apps/celery_tasks.py"));
const CHILD: (&str, &str) = ("entrypoint.sh", include_str!("../../apps/shapes/entrypoint-child.sh"));

const CELERY: Framework = Framework { note: "", ..CELERY_REDIS };
/// The usual start with flags of one's own: the queue, then those.
macro_rules! flags {
    ($($flag:literal),*) => { &["-m", "celery", "-A", "tasks", "worker", "-l", "INFO", "-Q", "{queue}", $($flag),*] };
}

const fn named(slug: &'static str, name: &'static str) -> Framework {
    Framework { slug, name, ..CELERY }
}

/// Started by a command of one's own.
const fn started(framework: Framework, command: &'static [&'static str]) -> Shape {
    Shape { pod: PodShape { command, ..USUAL }, ..Shape::of(Framework { args: &[], ..framework }) }
}

static EXEC: Shape = started(
    Framework {
        files: &[LEDGER, SEND, TASKS, ("entrypoint.sh", include_str!("../../apps/shapes/entrypoint-exec.sh"))],
        ..named("entry-exec", "script that ends in `exec celery`")
    },
    &["/app/entrypoint.sh"],
);
static ENTRY: Shape = started(
    Framework { files: &[LEDGER, SEND, TASKS, CHILD], ..named("entry-child", "script that runs celery as its child") },
    &["/app/entrypoint.sh"],
);
static TINI: Shape = started(
    Framework { files: &[LEDGER, SEND, TASKS, CHILD], ..named("tini", "`tini --` and the same script") },
    &["tini", "--", "/app/entrypoint.sh"],
);
static AND: Shape =
    started(named("sh-and", "`sh -c \"cd /app && celery …\"`"), &["/bin/sh", "-c", "cd /app && celery -A tasks worker -l INFO -c 1 -Q {queue}"]);
static TWO: Shape = started(
    named("two-children", "`bash -c \"http.server & celery …; wait\"`"),
    &["/bin/bash", "-c", "python3 -m http.server 8000 & celery -A tasks worker -l INFO -c 1 -Q {queue} & wait"],
);
static FIRST: Shape = started(
    named("one-behind", "`bash -c \"http.server & celery …\"`"),
    &["/bin/bash", "-c", "python3 -m http.server 8000 & celery -A tasks worker -l INFO -c 1 -Q {queue}; wait"],
);
static TEE: Shape = started(
    named("tee", "`sh -c \"celery … 2>&1 | tee log\"`"),
    &["/bin/sh", "-c", "celery -A tasks worker -l INFO -c 1 -Q {queue} 2>&1 | tee /tmp/log"],
);
static NESTED: Shape = started(
    Framework {
        files: &[LEDGER, SEND, TASKS, ("init.py", include_str!("../../apps/shapes/init.py"))],
        ..named("nested", "`sh -c \"init bash -c 'celery …; true'; true\"`, an init with a handler")
    },
    &["/bin/sh", "-c", "cd /app; python3 init.py /bin/bash -c 'celery -A tasks worker -l INFO -c 1 -Q {queue}; true'; true"],
);
static SUPERVISORD: Shape = started(
    Framework {
        files: &[LEDGER, SEND, TASKS, ("supervisord.conf", include_str!("../../apps/shapes/supervisord.conf"))],
        ..named("supervisord", "supervisord with worker and beat")
    },
    &["supervisord", "-n", "-c", "/app/supervisord.conf"],
);
static HONCHO: Shape = started(
    Framework {
        files: &[LEDGER, SEND, TASKS, ("Procfile", include_str!("../../apps/shapes/Procfile"))],
        ..named("honcho", "honcho with web and worker")
    },
    &["honcho", "start", "-d", "/app"],
);
static MULTI: Shape = started(
    named("celery-multi", "`celery multi start` and `tail -f`"),
    &[
        "/bin/sh",
        "-c",
        "cd /app && celery multi start w1 -A tasks -l INFO -c 1 -Q {queue} --pidfile=/tmp/%n.pid --logfile=/tmp/%n.log && exec tail -f /tmp/w1.log",
    ],
);
static NAMED: Shape = Shape {
    pod: PodShape { own_user: true, ..USUAL },
    ..Shape::of(Framework { image: "qscaler/worker-python:named", ..named("named-user", "image with `USER worker`, no securityContext") })
};
static HELPER: Shape = Shape {
    pod: PodShape {
        // It runs for half a minute and is then killed for its probe.
        helpers: r#"[{"name": "helper", "image": "qscaler/worker-python:dev", "imagePullPolicy": "IfNotPresent", "command": ["/bin/sleep", "86400"],
            "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}, "limits": {"memory": "32Mi"}},
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            "livenessProbe": {"exec": {"command": ["/bin/kill", "-0", "99999999"]}, "periodSeconds": 30, "failureThreshold": 1}, "terminationMessagePolicy": "File"}]"#,
        ..USUAL
    },
    ..Shape::of(named("helper", "a helper beside it whose liveness probe fails"))
};
static PROBE: Shape = Shape {
    pod: PodShape {
        container: r#"{"livenessProbe": {"exec": {"command": ["/bin/sh", "-c", "kill -0 1 && grep -q python /proc/1/cmdline"]}, "periodSeconds": 5, "failureThreshold": 3, "initialDelaySeconds": 5}}"#,
        ..USUAL
    },
    ..Shape::of(named("probe", "liveness probe that looks at process 1"))
};
static PRE_STOP: Shape = Shape {
    pod: PodShape { container: r#"{"lifecycle": {"preStop": {"exec": {"command": ["/bin/sleep", "3"]}}}}"#, ..USUAL },
    ..Shape::of(named("pre-stop", "a preStop hook of its own"))
};
static THREADS: Shape =
    Shape { width: 4, ..Shape::of(Framework { args: flags!("-P", "threads", "-c", "4"), ..named("celery-threads", "celery `-P threads -c 4`") }) };
static GEVENT: Shape =
    Shape { width: 10, ..Shape::of(Framework { args: flags!("-P", "gevent", "-c", "10"), ..named("celery-gevent", "celery `-P gevent -c 10`") }) };
static SOLO: Shape = Shape::of(Framework { args: flags!("-P", "solo"), ..named("celery-solo", "celery `-P solo`") });
static AUTOSCALE: Shape =
    Shape { width: 3, ..Shape::of(Framework { args: flags!("--autoscale=3,1"), ..named("celery-autoscale", "celery `--autoscale=3,1`") }) };
static ONCE: Shape = Shape {
    width: 2,
    ..Shape::of(Framework {
        args: flags!("-c", "2", "--max-tasks-per-child=1"),
        ..named("celery-max-tasks", "celery `--max-tasks-per-child=1 -c 2`")
    })
};
static QUIET: Shape = Shape::of(Framework {
    args: flags!("-c", "1", "--without-heartbeat", "--without-gossip", "--without-mingle"),
    ..named("celery-quiet", "celery `--without-heartbeat --without-gossip --without-mingle`")
});
static FIXED: Shape =
    Shape::of(Framework { args: flags!("-c", "1", "-n", "worker1@fixed"), ..named("celery-fixed", "celery `-n worker1@fixed` in every replica") });
static NO_REMOTE: Shape = Shape::of(Framework { env: &[("REMOTE_CONTROL", "off")], ..named("celery-no-remote", "celery with remote control off") });
static REMAP: Shape = Shape::of(Framework { env: &[("REMAP_SIGTERM", "SIGQUIT")], ..named("celery-remap", "celery with `REMAP_SIGTERM=SIGQUIT`") });
static PREFIX: Shape = Shape::of(Framework { env: &[("KEY_PREFIX", "prod:")], ..named("celery-prefix", "celery with `global_keyprefix`") });
static ETA: Shape = Shape { held: 20, ..Shape::of(named("celery-eta", "celery that holds 20 tasks due in ten minutes")) };
static NOWHERE: Shape = Shape::of(Framework {
    annotations: &[("worker", "celery"), ("broker", "secret:nowhere/url")],
    ..named("broker-nowhere", "`broker: secret:nowhere/url`")
});
static TYPO: Shape =
    Shape::of(Framework { annotations: &[("worker", "celery"), ("broker", "env:TYPO")], ..named("broker-typo", "`broker: env:TYPO`") });

/// All of them.
pub static SHAPES: &[&Shape] = &[
    &EXEC,
    &ENTRY,
    &TINI,
    &AND,
    &TWO,
    &FIRST,
    &TEE,
    &NESTED,
    &SUPERVISORD,
    &HONCHO,
    &MULTI,
    &NAMED,
    &HELPER,
    &PROBE,
    &PRE_STOP,
    &THREADS,
    &GEVENT,
    &SOLO,
    &AUTOSCALE,
    &ONCE,
    &QUIET,
    &FIXED,
    &NO_REMOTE,
    &REMAP,
    &PREFIX,
    &ETA,
    &NOWHERE,
    &TYPO,
];
