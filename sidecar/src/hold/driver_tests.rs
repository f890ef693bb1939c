//! The whole sidecar but its broker, with real worker processes shown in a made-up `/proc`.

use super::*;
use crate::clock::wall_ms;
use crate::config::Settings;
use crate::config::tests::{Table, good};
use crate::run::{PodWorld, run};
use crate::testing::FakeProc;
use async_trait::async_trait;
use qscaler_broker::{BrokerError, ControlReceiver, Delivery, DeliveryHandle};
use qscaler_core::framework::Scheduler;
use qscaler_core::message::{ControlKind, ControlMessage, Epoch};
use qscaler_core::names::sidecar as names;
use qscaler_runtime::CancellationToken;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Longer than any of this takes on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);
const TOKEN: &str = "0123456789abcdef";

/// A broker that gives out what the test sends, and shows what it gets.
struct Channel {
    messages: mpsc::UnboundedReceiver<ControlMessage>,
    reports: mpsc::UnboundedSender<Report>,
    settled: mpsc::UnboundedSender<Settle>,
}

#[async_trait]
impl ControlReceiver for Channel {
    async fn take(&mut self, _shared: bool, _wait: Duration) -> Result<Option<Delivery>, BrokerError> {
        Ok(self.messages.recv().await.map(|message| Delivery {
            message,
            seal: qscaler_broker::signing::Seal::Unchecked,
            handle: DeliveryHandle::Memory(0),
        }))
    }
    async fn ack(&mut self, _delivery: Delivery) -> Result<(), BrokerError> {
        let _ = self.settled.send(Settle::Ack);
        Ok(())
    }
    async fn give_back(&mut self, _delivery: Delivery) -> Result<(), BrokerError> {
        let _ = self.settled.send(Settle::GiveBack);
        Ok(())
    }
    async fn report(&mut self, report: &Report) -> Result<(), BrokerError> {
        let _ = self.reports.send(report.clone());
        Ok(())
    }
    fn malformed(&self) -> u64 {
        0
    }
}

/// A worker process that does not outlive its test.
struct Worker(Child);

impl Worker {
    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Pod {
    fake: Arc<FakeProc>,
    folder: tempfile::TempDir,
    address: SocketAddr,
    messages: mpsc::UnboundedSender<ControlMessage>,
    reports: mpsc::UnboundedReceiver<Report>,
    settled: mpsc::UnboundedReceiver<Settle>,
    shutdown: CancellationToken,
    sidecar: JoinHandle<()>,
}

impl Pod {
    /// A pod whose worker is busy while `<folder>/busy` exists, as the worker's own file system shows it.
    async fn start(change: impl FnOnce(&mut Table)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_in(FakeProc::new(), listener, change).await
    }

    /// The same in a pod that has more in it already, with callers that wait already.
    async fn start_in(fake: FakeProc, listener: TcpListener, change: impl FnOnce(&mut Table)) -> Self {
        fake.add(1, 0, "pause", 1, None, "/pause");
        fake.add(2, 0, "qscaler-sidecar", 2, Some(names::CONTAINER), "/side");
        let folder = tempfile::tempdir().unwrap();
        let mut table = good();
        let busy = serde_json::json!({"file": {"path": folder.path().join("busy")}});
        let config = table.0[names::ENV_CONFIG].replace("\"celeryEvents\"", &busy.to_string());
        table.0.insert(names::ENV_CONFIG, config);
        change(&mut table);
        let settings = Settings::read(&table);
        let address = listener.local_addr().unwrap();
        let ((messages, messages_out), (reports_in, reports), (settled_in, settled)) =
            (mpsc::unbounded_channel(), mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let surroundings = PodWorld {
            procs: fake.procs(),
            own_pid: 2,
            host: "orders-abc-1".to_owned(),
            termination_log: folder.path().join("termination-log"),
            receiver: Box::new(Channel { messages: messages_out, reports: reports_in, settled: settled_in }),
        };
        let shutdown = CancellationToken::new();
        let sidecar = tokio::spawn(run(settings, surroundings, listener, shutdown.clone()));
        let fake = Arc::new(fake);
        Self { fake, folder, address, messages, reports, settled, shutdown, sidecar }
    }

    /// Starts a worker; its end is that of the process.
    fn worker(&self, command: &mut Command, cgroup: &str) -> Worker {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let worker = Worker(child);
        self.fake.add_real(worker.pid(), "worker", cgroup);
        worker
    }

    fn call(&self, path: &str) -> JoinHandle<String> {
        call(self.address, path)
    }

    async fn status(&self, path: &str) -> String {
        self.call(path).await.unwrap().split(' ').nth(1).unwrap().to_owned()
    }

    async fn report(&mut self, wanted: impl Fn(&Report) -> bool) -> Report {
        let search = async {
            loop {
                let report = self.reports.recv().await.unwrap();
                if wanted(&report) {
                    return report;
                }
            }
        };
        tokio::time::timeout(DEADLINE, search).await.expect("no such report")
    }

    fn send(&self, kind: ControlKind, epoch: u64) {
        let now_ms = wall_ms();
        let message = ControlMessage {
            version: 1,
            kind,
            workload_uid: "w-uid".into(),
            epoch: Epoch(epoch),
            issued_ms: now_ms,
            expires_ms: now_ms + 600_000,
            lease_ms: 600_000,
            target: None,
        };
        self.messages.send(message).unwrap();
    }

    fn termination(&self) -> Report {
        Report::decode(&std::fs::read(self.folder.path().join("termination-log")).unwrap()).unwrap()
    }
}

fn call(address: SocketAddr, path: &str) -> JoinHandle<String> {
    let path = path.to_owned();
    tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    })
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("took too long")
}

async fn until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// Waits until the process has its trap: the kernel says so. Before that the signal would end it.
async fn until_it_catches_term(pid: i32) {
    let real = ProcFs::at("/proc");
    until(|| real.status(pid).is_none_or(|status| status.caught >> 14 & 1 == 1)).await;
}

/// Waits for the process without blocking the test's only thread.
async fn exit_code(mut worker: Worker) -> Option<i32> {
    within(tokio::task::spawn_blocking(move || worker.0.wait().unwrap().code())).await.unwrap()
}

#[tokio::test]
async fn a_hold_sends_one_signal_waits_for_the_workers_exit_and_then_answers_every_call() {
    let mut pod = Pod::start(|_| {}).await;
    let count = pod.folder.path().join("signals");
    // Finishes its task 1 s after the signal, and notes every signal.
    let script = format!("trap 'echo x >> {0}; stop=1' TERM; while [ -z \"$stop\" ]; do sleep 0.05; done; sleep 1; exit 0", count.display());
    let child = pod.worker(&mut shell(&script), "/w1");
    until_it_catches_term(child.pid()).await;
    pod.report(|report| report.state == WorkerState::Open).await;
    let hold = format!("/hold/{TOKEN}?container=worker");
    let calls: Vec<_> = (0..5).map(|_| pod.call(&hold)).collect();
    pod.report(|report| report.state == WorkerState::Held).await;
    assert!(calls.iter().all(|call| !call.is_finished()));
    assert_eq!(exit_code(child).await, Some(0));
    for call in calls {
        assert!(within(call).await.unwrap().starts_with("HTTP/1.1 200"));
    }
    assert_eq!(std::fs::read_to_string(count).unwrap(), "x\n");
    assert_eq!(pod.report(|report| report.state == WorkerState::Released).await.cut, None);
}

#[tokio::test]
async fn a_worker_that_still_starts_is_not_stopped_by_the_signal_that_is_to_quiet_it() {
    let two = |table: &mut Table| {
        let config = table.0[names::ENV_CONFIG].replace(r#""signals":["SIGTERM"]"#, r#""signals":["SIGTSTP","SIGTERM"]"#);
        assert!(config.contains("SIGTSTP"), "{config}");
        table.0.insert(names::ENV_CONFIG, config);
    };
    let mut pod = Pod::start(two).await;
    let (busy, quiet, ready) = (pod.folder.path().join("busy"), pod.folder.path().join("quiet"), pod.folder.path().join("go"));
    std::fs::write(&busy, "").unwrap();
    // Its handlers come late; a shell without them stops at SIGTSTP.
    let script = format!(
        "until [ -e {go} ]; do sleep 0.05; done; trap 'echo x >> {quiet}' TSTP; trap 'exit 7' TERM; while :; do sleep 0.05; done",
        go = ready.display(),
        quiet = quiet.display()
    );
    let child = pod.worker(&mut shell(&script), "/w1");
    pod.report(|report| report.state == WorkerState::Open && report.busy == Busy::Busy).await;
    let call = pod.call(&format!("/hold/{TOKEN}"));
    pod.report(|report| report.state == WorkerState::Held).await;
    std::fs::write(&ready, "").unwrap();
    until(|| quiet.exists()).await;
    std::fs::remove_file(&busy).unwrap();
    assert_eq!(exit_code(child).await, Some(7));
    assert!(within(call).await.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(std::fs::read_to_string(&quiet).unwrap(), "x\n", "told once");
}

#[tokio::test]
async fn a_sidecar_started_again_in_a_hold_knows_the_worker_before_it_answers() {
    let fake = FakeProc::new();
    let child = Worker(shell("trap 'sleep 1; exit 0' TERM; while :; do sleep 0.05; done").spawn().unwrap());
    until_it_catches_term(child.pid()).await;
    fake.add_real(child.pid(), "worker", "/w1");
    // The calls stand in the kernel's queue before the sidecar runs.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let calls: Vec<_> = (0..5).map(|_| call(listener.local_addr().unwrap(), &format!("/hold/{TOKEN}"))).collect();
    tokio::task::yield_now().await;
    let mut pod = Pod::start_in(fake, listener, |_| {}).await;
    // Had one been answered, the kubelet would have ended the worker.
    let held = pod.report(|report| report.state == WorkerState::Held).await;
    assert_eq!(held.gaps.iter().map(|gap| gap.reason.name()).collect::<Vec<_>>(), ["SidecarRestarted"]);
    assert!(calls.iter().all(|call| !call.is_finished()));
    assert_eq!(exit_code(child).await, Some(0));
    for call in calls {
        assert!(within(call).await.unwrap().starts_with("HTTP/1.1 200"));
    }
    // That worker has left: what it may have had is over.
    assert_eq!(pod.report(|report| report.state == WorkerState::Released).await.gaps, []);
}

#[tokio::test]
async fn an_idle_worker_is_parked_by_a_token_and_goes_on_when_resumed() {
    let mut pod = Pod::start(|_| {}).await;
    let _child = pod.worker(Command::new("sleep").arg("600"), "/w1");
    pod.report(|report| report.state == WorkerState::Open && report.busy == Busy::Idle).await;
    assert_eq!(within(pod.status("/ready")).await, "200");
    pod.send(ControlKind::SigkillQueue, 7);
    let parked = pod.report(|report| report.state == WorkerState::Parked).await;
    assert_eq!(parked.epoch, Epoch(7));
    assert_eq!(within(pod.settled.recv()).await, Some(Settle::Ack));
    assert_eq!(within(pod.status("/ready")).await, "503");
    pod.send(ControlKind::Resume, 7);
    pod.report(|report| report.state == WorkerState::Open).await;
    assert_eq!(within(pod.status("/ready")).await, "200");
}

#[tokio::test]
async fn a_busy_worker_gives_the_token_back() {
    let mut pod = Pod::start(|_| {}).await;
    std::fs::write(pod.folder.path().join("busy"), "").unwrap();
    let _child = pod.worker(Command::new("sleep").arg("600"), "/w1");
    pod.report(|report| report.busy == Busy::Busy).await;
    pod.send(ControlKind::SigkillQueue, 7);
    assert_eq!(within(pod.settled.recv()).await, Some(Settle::GiveBack));
}

#[tokio::test]
async fn a_worker_that_was_started_again_is_another_one() {
    let mut pod = Pod::start(|_| {}).await;
    let mut first = pod.worker(Command::new("sleep").arg("600"), "/w1");
    let seen = pod.report(|report| report.state == WorkerState::Open).await;
    assert!(seen.worker_ids.is_some());
    first.end();
    pod.report(|report| report.state == WorkerState::Boot).await;
    pod.fake.remove(first.pid());
    let _second = pod.worker(Command::new("sleep").arg("600"), "/w2");
    pod.report(|report| report.state == WorkerState::Open).await;
}

#[tokio::test]
async fn a_scheduler_beside_the_worker_is_reported() {
    let mut pod = Pod::start(|_| {}).await;
    let _worker = pod.worker(Command::new("sleep").arg("600"), "/w1");
    assert_eq!(pod.report(|report| report.state == WorkerState::Open).await.scheduler, None);
    let script = "while :; do sleep 0.05; done";
    let _beat = pod.worker(Command::new("sh").args(["-c", script, "celery", "-A", "app", "beat"]), "/w1");
    pod.report(|report| report.scheduler == Some(Scheduler::CeleryBeat)).await;
}

#[tokio::test]
async fn a_hold_without_a_visible_worker_is_answered_at_once() {
    let pod = Pod::start(|_| {}).await;
    assert_eq!(within(pod.status(&format!("/hold/{TOKEN}"))).await, "200");
}

#[tokio::test]
async fn on_sigterm_the_last_report_is_written_and_published_and_the_sidecar_leaves() {
    let mut pod = Pod::start(|_| {}).await;
    let mut child = pod.worker(Command::new("sleep").arg("600"), "/w1");
    pod.report(|report| report.state == WorkerState::Open).await;
    child.end();
    pod.report(|report| report.state == WorkerState::Boot).await;
    pod.shutdown.cancel();
    within(&mut pod.sidecar).await.unwrap();
    let last = pod.report(|report| report.last).await;
    assert_eq!(pod.termination(), last);
    assert!(last.peaks.contains_key("worker"), "{last:?}");
}

#[path = "hold_tests.rs"]
mod holds;
