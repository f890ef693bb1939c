//! What real Celery workers say on real brokers, and their gate: busy and idle from events, no task taken behind a closed gate, all of them done
//! after it opens. The same of a plain loop over a Redis list, which is frozen. The parts under test are the sidecar's own. Celery comes from the package index, once, into the cache.
// A test crate: a failed unwrap is a failed test with a line number, in its helpers too.
#![allow(clippy::unwrap_used)]

use qscaler_broker::activity::CeleryRemote;
use qscaler_core::drain::worker::WorkerEvent;
use qscaler_core::message::{Busy, GapReason};
use qscaler_core::names::sidecar as names;
use qscaler_sidecar::busy::Sources;
use qscaler_sidecar::config::{Environment, Settings};
use qscaler_sidecar::gaps::Gaps;
use qscaler_sidecar::gate::GateSwitch;
use qscaler_sidecar::hold::driver::INPUTS_MAX;
use qscaler_sidecar::input::{Activity, Input, Main};
use qscaler_sidecar::worker::procs::ProcFs;
use qscaler_tests::servers::{RabbitServer, RedisServer};
use qscaler_tests::wait::wait_for;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// The version whose wire format is pinned here.
const CELERY: &str = "5.7.0";
/// Longer than any step takes on a loaded machine: Celery alone takes some seconds to start.
const DEADLINE: Duration = Duration::from_secs(120);

/// The Python of a virtual environment with Celery in it, made once.
fn python() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("QSCALER_CACHE").or_else(|| variable("XDG_CACHE_HOME").map(|path| path.join("qscaler")));
    let cache = cache.or_else(|| variable("HOME").map(|path| path.join(".cache/qscaler"))).expect("set QSCALER_CACHE or HOME");
    let folder = cache.join(format!("venv/celery-{CELERY}"));
    std::fs::create_dir_all(&folder).unwrap();
    // Tests of several processes may come here at once.
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let python = folder.join("bin/python");
    if !folder.join("done").exists() {
        let run = |command: &mut Command| assert!(command.stdin(Stdio::null()).status().unwrap().success(), "{command:?}");
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        // kombu imports `packaging` without asking for it.
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", &format!("celery[redis]=={CELERY}"), "packaging"]));
        std::fs::write(folder.join("done"), "").unwrap();
    }
    python
}

/// The list of the plain loop.
const LOOP_QUEUE: &str = "loop";

struct Table(BTreeMap<&'static str, String>);

impl Environment for Table {
    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }
}

/// A Celery worker on a broker, and the sidecar's eyes and hand beside it.
struct Beside {
    broker: String,
    ledger: String,
    host: String,
    worker: Option<Child>,
    inputs: mpsc::Receiver<Input>,
    gate: GateSwitch,
    main: watch::Sender<Option<Arc<Main>>>,
    gaps: Gaps,
    _tasks: JoinSet<()>,
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.end();
    }
}

impl Beside {
    /// With a Celery worker that prefetches 4: enough to see that those are waited for too.
    fn start(broker: String, ledger: String, host: &str) -> Self {
        let mut beside = Self::alone(broker, ledger, host, "celery", "celery", &["SIGTERM"], "celeryEvents");
        let node = format!("celery@{host}");
        beside.worker = Some(beside.python(&["-m", "celery", "-A", "celery_tasks", "worker", "-c", "1", "-n", &node]).spawn().unwrap());
        beside
    }

    /// With a Celery worker that has these flags besides, its process known as the worker's top process.
    fn start_with(broker: String, ledger: String, host: &str, flags: &[&str]) -> Self {
        let mut beside = Self::alone(broker, ledger, host, "celery", "celery", &["SIGTERM"], "celeryEvents");
        let worker = beside.python(&[&["-m", "celery", "-A", "celery_tasks", "worker", "-c", "1"], flags].concat()).spawn().unwrap();
        beside.is_top(&worker);
        beside.worker = Some(worker);
        beside
    }

    fn is_top(&self, worker: &Child) {
        let pid = i32::try_from(worker.id()).unwrap();
        let pidfd = rustix::process::pidfd_open(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::PidfdFlags::empty()).unwrap();
        let incarnation = ProcFs::at("/proc").process(pid).unwrap().start_ticks;
        self.main.send_replace(Some(Arc::new(Main { pid, incarnation, pidfd })));
    }

    /// With a plain loop over a Redis list; its process is the worker's top process.
    fn start_loop(broker: String, ledger: String, host: &str) -> Self {
        let mut beside = Self::alone(broker, ledger, host, "redis-loop", LOOP_QUEUE, &[], "blockedPop");
        let worker = beside.python(&["brpop_tasks.py"]).env("QUEUE", LOOP_QUEUE).spawn().unwrap();
        beside.is_top(&worker);
        beside.worker = Some(worker);
        beside
    }

    fn alone(broker: String, ledger: String, host: &str, worker: &str, queue: &str, signals: &[&str], busy: &str) -> Self {
        let config = serde_json::json!({
            "version": 1, "workload": {"namespace": "shop", "name": "orders"}, "container": "worker", "worker": worker, "queues": [queue],
            "signals": signals, "busy": busy, "concurrency": 1, "maxTaskDurationMs": 60_000, "drainDeadlinePolicy": "wait",
            "shareProcesses": true, "hookToken": "0123456789abcdef",
        });
        let table = Table(BTreeMap::from([
            (names::ENV_CONFIG, config.to_string()),
            (names::ENV_BROKER_URL, broker.clone()),
            (names::ENV_POD_UID, format!("uid-{host}")),
            (names::ENV_POD_NAME, host.to_owned()),
        ]));
        let gaps = Gaps::default();
        let (main_in, main) = watch::channel(None);
        let (inputs_in, inputs) = mpsc::channel(INPUTS_MAX);
        let settings = Settings::read(&table);
        let sources = Sources { settings, host: host.to_owned(), procs: ProcFs::at("/proc"), main, inputs: inputs_in, gaps: gaps.clone() };
        let (gate, work) = sources.start();
        let mut tasks = JoinSet::new();
        work.into_iter().for_each(|work| {
            tasks.spawn(work);
        });
        Self {
            broker,
            ledger,
            host: host.to_owned(),
            worker: None,
            inputs,
            gate: gate.expect("both have a gate"),
            main: main_in,
            gaps,
            _tasks: tasks,
        }
    }

    fn python(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(python());
        command.args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/apps")).stdin(Stdio::null()).stdout(Stdio::null());
        command.env("BROKER_URL", &self.broker).env("LEDGER_URL", &self.ledger).env("LEDGER_KEY", &self.host).env("C_FORCE_ROOT", "1");
        if std::env::var_os("QSCALER_TEST_VERBOSE").is_none() {
            command.stderr(Stdio::null());
        }
        command
    }

    fn send(&self, tasks: u32, seconds: f64) {
        let script = format!("import celery_tasks\nfor i in range({tasks}): celery_tasks.work.delay(f'{{i}}-{seconds}', {seconds})");
        assert!(self.python(&["-c", &script]).status().unwrap().success());
    }

    async fn input(&mut self, wanted: impl Fn(&Input) -> bool) -> Input {
        let search = async {
            loop {
                let input = self.inputs.recv().await.expect("the sources have ended");
                if wanted(&input) {
                    return input;
                }
            }
        };
        tokio::time::timeout(DEADLINE, search).await.expect("this did not come")
    }

    async fn activity(&mut self, wanted: impl Fn(&Activity) -> bool) -> Activity {
        match self.input(|input| matches!(input, Input::Activity(activity) if wanted(activity))).await {
            Input::Activity(activity) => activity,
            other => panic!("{other:?}"),
        }
    }

    /// TERM, the warm shutdown.
    fn end(&mut self) {
        if let Some(mut worker) = self.worker.take() {
            // A frozen one hears TERM once it goes on.
            for signal in ["-TERM", "-CONT"] {
                let _ = Command::new("kill").args([signal, &worker.id().to_string()]).status();
            }
            let _ = worker.wait();
        }
    }

    async fn is_seen_at_work(&mut self) {
        self.activity(|activity| activity.busy == Busy::Idle && activity.processed == Some(0)).await;
        self.send(1, 5.0);
        self.activity(|activity| activity.busy == Busy::Busy && activity.active == Some(1)).await;
        self.activity(|activity| activity.busy == Busy::Idle && activity.processed == Some(1)).await;
    }

    async fn takes_nothing_behind_its_gate(&mut self) {
        self.send(3, 1.0);
        self.activity(|activity| activity.busy == Busy::Busy).await;
        self.gate.switch(true);
        self.input(|input| *input == Input::Worker(WorkerEvent::GateClosed)).await;
        // What it had taken is done first: idle behind the gate is idle for good.
        let before = self.activity(|activity| activity.busy == Busy::Idle).await.processed;
        self.send(2, 0.1);
        for _ in 0..3 {
            let activity = self.activity(|_| true).await;
            assert_eq!((activity.busy, activity.processed), (Busy::Idle, before));
        }
        self.gate.switch(false);
        self.input(|input| *input == Input::Worker(WorkerEvent::GateOpened)).await;
        self.activity(|activity| activity.processed == Some(6)).await;
    }

    async fn says_good_bye(&mut self) {
        self.end();
        self.activity(|activity| activity.busy == Busy::Unknown).await;
    }
}

#[tokio::test]
async fn a_celery_worker_on_redis_is_seen_and_stopped_from_taking_tasks() {
    let redis = RedisServer::start().unwrap();
    let mut beside = Beside::start(redis.url(3), redis.url(1), "pod-a");
    beside.is_seen_at_work().await;
    beside.takes_nothing_behind_its_gate().await;
    beside.says_good_bye().await;
}

#[tokio::test]
async fn a_celery_worker_on_rabbitmq_is_seen_and_stopped_from_taking_tasks() {
    let (rabbit, redis) = (RabbitServer::start().unwrap(), RedisServer::start().unwrap());
    let mut beside = Beside::start(rabbit.url(), redis.url(1), "pod-b");
    beside.is_seen_at_work().await;
    beside.takes_nothing_behind_its_gate().await;
    beside.says_good_bye().await;
}

#[tokio::test]
async fn a_celery_worker_that_does_not_beat_is_asked_and_stopped_from_taking_tasks() {
    const QUIET: &[&str] = &["--without-heartbeat", "--without-gossip", "--without-mingle", "-n", "celery@pod-q"];
    let redis = RedisServer::start().unwrap();
    let mut beside = Beside::start_with(redis.url(0), redis.url(1), "pod-q", QUIET);
    beside.activity(|activity| activity.busy == Busy::Idle && activity.processed.is_none()).await;
    beside.send(1, 12.0);
    beside.activity(|activity| activity.busy == Busy::Busy && activity.active == Some(1)).await;
    beside.activity(|activity| activity.busy == Busy::Idle).await;
    beside.gate.switch(true);
    beside.input(|input| *input == Input::Worker(WorkerEvent::GateClosed)).await;
    assert!(beside.gaps.list().is_empty());
}

#[tokio::test]
async fn a_celery_worker_that_cannot_be_heard_is_a_gap_that_names_the_flag() {
    let redis = RedisServer::start().unwrap();
    let beside = Beside::start_with(redis.url(0), redis.url(1), "pod-n", &["-n", "worker1@fixed"]);
    wait_for("the gap", DEADLINE, || async {
        let gaps = beside.gaps.list();
        let named = |reason| gaps.iter().any(|gap| gap.reason == reason && gap.detail.contains("worker1@fixed") && gap.detail.contains("%h"));
        if named(GapReason::IdleUnknown) && named(GapReason::GateCannotClose) { Ok(()) } else { Err(format!("{gaps:?}")) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_gate_closed_by_a_sidecar_that_is_gone_is_opened_by_the_next() {
    let redis = RedisServer::start().unwrap();
    let mut beside = Beside::start(redis.url(0), redis.url(1), "pod-c");
    beside.activity(|activity| activity.busy == Busy::Idle).await;
    let mut other = CeleryRemote::connect(&redis.url(0), "other", "").await.unwrap();
    let nodes = ["celery@pod-c".to_owned()];
    // A worker says that it is there a moment before it listens.
    let cancelled = async {
        let call = ("cancel_consumer", serde_json::json!({"queue": "celery"}), Duration::from_secs(1));
        while other.call(call.0, call.1.clone(), &nodes, call.2).await.unwrap().is_empty() {}
    };
    tokio::time::timeout(DEADLINE, cancelled).await.expect("the worker does not answer");
    beside.gate.switch(false);
    beside.input(|input| *input == Input::Worker(WorkerEvent::GateOpened)).await;
    beside.send(1, 0.1);
    beside.activity(|activity| activity.processed == Some(1)).await;
}

#[tokio::test]
async fn events_of_another_pod_are_not_this_ones() {
    let redis = RedisServer::start().unwrap();
    let mut beside = Beside::start(redis.url(0), redis.url(1), "pod-d");
    beside.activity(|activity| activity.busy == Busy::Idle).await;
    let mut remote = CeleryRemote::connect(&redis.url(0), "x", "").await.unwrap();
    let wait = Duration::from_millis(500);
    let replies = remote.call("active", serde_json::json!({}), &["celery@pod-e".to_owned()], wait).await.unwrap();
    assert!(replies.is_empty());
}

/// What Redis answers, without the line's end.
fn ask(redis: &RedisServer, db: u32, command: &[&str]) -> String {
    let output = redis.cli(db).args(command).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test]
async fn a_plain_loop_is_frozen_only_while_it_has_no_task_and_nothing_is_lost() {
    let redis = RedisServer::start().unwrap();
    let mut beside = Beside::start_loop(redis.url(0), redis.url(1), "pod-f");
    let done = |redis: &RedisServer| ask(redis, 1, &["LRANGE", "pod-f", "0", "-1"]).matches("\"done\"").count();
    beside.activity(|activity| activity.busy == Busy::Idle).await;
    // Busy: the gate closes only after the task's end.
    ask(&redis, 0, &["LPUSH", LOOP_QUEUE, r#"["a", 4]"#]);
    beside.activity(|activity| activity.busy == Busy::Busy).await;
    beside.gate.switch(true);
    beside.input(|input| *input == Input::Worker(WorkerEvent::GateClosed)).await;
    assert_eq!(done(&redis), 1);
    // Frozen: it takes nothing, and counts as idle.
    ask(&redis, 0, &["LPUSH", LOOP_QUEUE, r#"["b", 0.1]"#]);
    for _ in 0..3 {
        assert_eq!(beside.activity(|_| true).await.busy, Busy::Idle);
    }
    assert_eq!(ask(&redis, 0, &["LLEN", LOOP_QUEUE]), "1");
    // It goes on as if nothing had been.
    beside.gate.switch(false);
    beside.input(|input| *input == Input::Worker(WorkerEvent::GateOpened)).await;
    wait_for("the loop goes on", DEADLINE, || async {
        let tasks = done(&redis);
        if tasks >= 2 { Ok(()) } else { Err(format!("{tasks} done")) }
    })
    .await
    .unwrap();
    // Frozen again and killed: what comes then is not lost.
    beside.gate.switch(true);
    beside.input(|input| *input == Input::Worker(WorkerEvent::GateClosed)).await;
    ask(&redis, 0, &["LPUSH", LOOP_QUEUE, r#"["c", 0.1]"#]);
    let mut worker = beside.worker.take().unwrap();
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert_eq!((ask(&redis, 0, &["LLEN", LOOP_QUEUE]).as_str(), done(&redis)), ("1", 2));
}
