//! Holds of the containers that people run, with real processes: scripts, pipes, loops, supervisors, pools, in a session that a made-up `/proc` shows.

use super::*;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

/// A worker: connects to its broker, notes that it may take a task, notes every signal, and finishes its task after one.
const WORKER: &str = r#"
import os, signal, socket, sys, time
port, folder, name, kind = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
def note(what):
    with open(f"{folder}/{name}.{what}", "a") as file:
        file.write("x\n")
told = []
def on_signal(*_):
    note("signals")
    told.append(1)
if kind != "deaf":
    signal.signal(signal.SIGTERM, on_signal)
if told:
    sys.exit(0)
broker = socket.create_connection(("127.0.0.1", port))
if kind == "pool" and os.fork() == 0:
    name += ".child"
    while os.getppid() != 1 and not os.path.exists(f"{folder}/end"):
        time.sleep(0.02)
    os._exit(0)
note("ready")
while not told:
    time.sleep(0.02)
time.sleep(1)
note("done")
open(f"{folder}/end", "w").close()
"#;

/// Ends its child 300 ms after SIGTERM, as supervisors do after their patience; starts it again when it fails, and leaves when it ends well.
const SUPERVISOR: &str = r#"
import signal, subprocess, sys, time
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
while not told:
    if child.poll() == 0:
        sys.exit(0)
    if child.poll() is not None:
        child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
    time.sleep(0.02)
child.terminate()
time.sleep(0.3)
child.kill()
"#;

struct Shape {
    pod: Pod,
    _broker: std::net::TcpListener,
    top: Option<Worker>,
    mirror: JoinHandle<()>,
}

impl Drop for Shape {
    fn drop(&mut self) {
        self.mirror.abort();
        // What its session has left.
        if let Some(top) = &self.top {
            let _ = Command::new("pkill").args(["-KILL", "-s", &top.pid().to_string()]).status();
        }
    }
}

impl Shape {
    /// Starts this script as a container's top process. In it `$W NAME KIND` is a worker, `$S` a supervisor of its arguments, `$F` the test's folder. An
    /// old container's processes have had their time to start.
    async fn start(script: &str, old: bool) -> Self {
        let broker = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = broker.local_addr().unwrap().port();
        let fake = FakeProc::new();
        fake.show_system(if old { Duration::from_secs(600) } else { Duration::from_millis(500) });
        let url = format!("redis://127.0.0.1:{port}/0");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pod = Pod::start_in(fake, listener, |table| drop(table.0.insert(names::ENV_BROKER_URL, url))).await;
        let folder = pod.folder.path().display().to_string();
        std::fs::write(pod.folder.path().join("worker.py"), WORKER).unwrap();
        std::fs::write(pod.folder.path().join("supervisor.py"), SUPERVISOR).unwrap();
        let short = pod.folder.path().join("w.sh");
        std::fs::write(&short, format!("#!/bin/sh\nexec python3 {folder}/worker.py {port} {folder} \"$@\"\n")).unwrap();
        let entry = pod.folder.path().join("entry.sh");
        let mut file = std::fs::File::create(&entry).unwrap();
        let script = script.replace("$W", &format!("{folder}/w.sh")).replace("$S", &format!("python3 {folder}/supervisor.py")).replace("$F", &folder);
        write!(file, "#!/bin/bash\n{script}\n").unwrap();
        drop(file);
        for path in [&short, &entry] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::fs::write(pod.folder.path().join("busy"), "").unwrap();
        let child = Command::new("setsid").arg(&entry).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let top = Worker(child);
        let mirror = tokio::spawn(Arc::clone(&pod.fake).mirror(top.pid(), "worker".to_owned(), "/w1".to_owned()));
        Self { pod, _broker: broker, top: Some(top), mirror }
    }

    fn count(&self, name: &str) -> usize {
        std::fs::read_to_string(self.pod.folder.path().join(name)).unwrap_or_default().lines().count()
    }

    async fn ready(&mut self, workers: &[&str]) {
        for name in workers {
            until(|| self.count(&format!("{name}.ready")) == 1).await;
        }
        self.pod.report(|report| report.state == WorkerState::Open && report.busy == Busy::Busy).await;
    }

    fn hold(&self) -> JoinHandle<String> {
        self.pod.call(&format!("/hold/{TOKEN}?container=worker"))
    }
}

#[tokio::test]
async fn however_the_worker_was_started_its_task_ends_and_it_is_told_once() {
    let ways = [
        "$W a plain",
        "$W a plain; true",
        "$W a plain & sleep 600 & wait %1",
        "$W a plain 2>&1 | cat > $F/log",
        "sh -c '$W a pool; true'; true",
        "$S $W a plain",
        "exec $S $W a plain",
    ];
    for way in ways {
        let mut shape = Shape::start(way, true).await;
        shape.ready(&["a"]).await;
        let call = shape.hold();
        assert!(within(call).await.unwrap().starts_with("HTTP/1.1 200"), "{way}");
        assert_eq!((shape.count("a.done"), shape.count("a.signals"), shape.count("a.child.signals")), (1, 1, 0), "{way}");
        let report = shape.pod.report(|report| report.state == WorkerState::Released).await;
        assert_eq!((report.cuts, report.gaps), (0, Vec::new()), "{way}");
    }
}

#[tokio::test]
async fn two_workers_are_told_and_both_finish() {
    let mut shape = Shape::start("$W a plain & $W b pool & wait", true).await;
    shape.ready(&["a", "b"]).await;
    within(shape.hold()).await.unwrap();
    for name in ["a", "b"] {
        assert_eq!((shape.count(&format!("{name}.done")), shape.count(&format!("{name}.signals"))), (1, 1), "{name}");
    }
    assert_eq!(shape.count("b.child.signals"), 0);
}

#[tokio::test]
async fn a_loop_starts_no_worker_again_in_a_hold() {
    let mut shape = Shape::start("while true; do $W a plain; done", true).await;
    shape.ready(&["a"]).await;
    within(shape.hold()).await.unwrap();
    assert_eq!((shape.count("a.done"), shape.count("a.signals"), shape.count("a.ready")), (1, 1, 1));
}

#[tokio::test]
async fn a_loop_that_traps_the_signal_ends_all_the_same_and_cuts_nothing() {
    let mut shape = Shape::start("trap 'true' TERM; while true; do $W a plain; done", true).await;
    shape.ready(&["a"]).await;
    within(shape.hold()).await.unwrap();
    // Its trap ran, and it went on: whoever came so far as to take a task has finished it.
    assert!(shape.count("a.done") >= 1);
    assert_eq!(shape.count("a.done"), shape.count("a.ready"));
}

#[tokio::test]
async fn a_worker_detached_behind_a_helper_is_told_and_the_helper_is_not_waited_for() {
    let mut shape = Shape::start("(nohup $W a plain >/dev/null 2>&1 &); exec tail -f /dev/null", true).await;
    shape.ready(&["a"]).await;
    within(shape.hold()).await.unwrap();
    assert_eq!((shape.count("a.done"), shape.count("a.signals")), (1, 1));
}

#[tokio::test]
async fn a_worker_without_a_handler_is_said_before_any_hold_is_never_told_and_ends_when_idle() {
    let mut shape = Shape::start("$W a deaf; true", true).await;
    shape.ready(&["a"]).await;
    let report = shape.pod.report(|report| !report.gaps.is_empty()).await;
    assert_eq!((report.state, report.gaps[0].reason.name()), (WorkerState::Open, "NoHandler"));
    let call = shape.hold();
    shape.pod.report(|report| report.state == WorkerState::Held).await;
    // The next report of the hold: several looks later.
    shape.pod.report(|report| report.state == WorkerState::Held && report.busy == Busy::Busy).await;
    assert!(!call.is_finished());
    std::fs::remove_file(shape.pod.folder.path().join("busy")).unwrap();
    within(call).await.unwrap();
    let report = shape.pod.report(|report| report.state == WorkerState::Released).await;
    assert_eq!(report.cuts, 0, "nothing ran, nothing was cut");
}

#[tokio::test]
async fn a_worker_that_has_just_started_ends_before_it_takes_a_task() {
    let mut shape = Shape::start("sleep 0.3; touch $F/begins; sleep 3; $W a plain", false).await;
    until(|| shape.pod.folder.path().join("begins").exists()).await;
    shape.pod.report(|report| report.state == WorkerState::Open).await;
    within(shape.hold()).await.unwrap();
    assert_eq!(shape.count("a.done"), 0);
}

#[tokio::test]
async fn another_containers_restart_does_not_touch_the_worker() {
    let mut shape = Shape::start("$W a plain; true", true).await;
    shape.ready(&["a"]).await;
    let helper = shape.pod.call(&format!("/hold/{TOKEN}?container=metrics"));
    assert!(within(helper).await.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!((shape.count("a.signals"), shape.count("a.done")), (0, 0));
    // At the pod's end it waits for the worker.
    let helper = shape.pod.call(&format!("/hold/{TOKEN}?container=metrics"));
    assert!(within(shape.pod.call(&format!("/own/{TOKEN}"))).await.unwrap().starts_with("HTTP/1.1 200"));
    within(shape.hold()).await.unwrap();
    within(helper).await.unwrap();
    assert_eq!((shape.count("a.signals"), shape.count("a.done")), (1, 1));
}
