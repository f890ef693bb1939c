//! Puts the parts together. In: settings, a listener, a shutdown. Out: a running sidecar, until its machine says Exit. Left to others: where the
//! settings come from (`config`), and every decision (`core`).

use crate::blind;
use crate::busy::Sources;
use crate::clock::wall_ms;
use crate::config::Settings;
use crate::gaps::Gaps;
use crate::hold::driver::{Driver, INPUTS_MAX};
use crate::hold::server::{Hooks, serve};
use crate::input::Input;
use crate::line::control::{Control, Mailbox};
use crate::line::report::Reporter;
use crate::metrics::Metrics;
use crate::peaks::SharedSampler;
use crate::worker::container::Container;
use crate::worker::procs::ProcFs;
use crate::worker::watch::Watcher;
use qscaler_broker::ControlReceiver;
use qscaler_core::drain::plan::Holder;
use qscaler_core::drain::worker::{UNSEEN, WorkerEvent, WorkerMachine, WorkerSettings};
use qscaler_core::framework::{GateKind, Signal, framework};
use qscaler_core::message::GapReason;
use qscaler_core::names::sidecar as names;
use qscaler_runtime::CancellationToken;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// A worker that nothing has shown idle for this long may be asked all the same: long against the gaps between tasks of a loaded worker, short
/// against the life of an order.
const PATIENCE_MS: u64 = 60_000;
/// A token that a worker took while busy goes back when its task has not ended by then, or within the longest task where that is shorter: a
/// pod that may be free sooner shall have it.
const GIVE_BACK_MAX_MS: u64 = 600_000;

/// A restart of the sidecar is said for so long, or until that worker has left: a hold that it broke is over by then, or its pod is.
const RESTART_SAID: Duration = Duration::from_secs(600);

/// The world around the sidecar: real in `main`, made up in tests.
pub struct PodWorld {
    /// Where processes are read.
    pub procs: ProcFs,
    /// The sidecar's own process.
    pub own_pid: i32,
    /// The pod's host name.
    pub host: String,
    /// Where the kubelet looks for the last words.
    pub termination_log: PathBuf,
    /// The line to the controller.
    pub receiver: Box<dyn ControlReceiver>,
}

/// What the machine is told of this workload.
fn worker_settings(settings: &Settings, signals: Vec<Signal>, has_gate: bool) -> WorkerSettings {
    let config = &settings.config;
    WorkerSettings {
        pod_uid: settings.pod_uid.clone(),
        workload_uid: config.workload_uid.clone(),
        signals,
        has_gate,
        // Without a signal to send, a gate that is no framework's own can only be the one that freezes.
        kill_behind_gate: has_gate && framework(&config.worker).is_some_and(|row| row.gate == GateKind::Freeze) && config.signals.is_empty(),
        max_task_duration_ms: config.max_task_duration_ms,
        deadline_policy: config.drain_deadline_policy,
        patience_ms: PATIENCE_MS,
        give_back_ms: config.max_task_duration_ms.clamp(PATIENCE_MS, GIVE_BACK_MAX_MS),
    }
}

/// Runs the sidecar. Returns when its machine says Exit; `shutdown` tells it that SIGTERM came.
pub async fn run(settings: Settings, surroundings: PodWorld, listener: TcpListener, shutdown: CancellationToken) {
    let PodWorld { procs, own_pid, host, termination_log, receiver } = surroundings;
    let metrics = Metrics::default();
    let gaps = Gaps::default();
    blind::tell(&settings, &gaps);
    let (inputs, inputs_out) = mpsc::channel(INPUTS_MAX);
    let (main_in, main) = watch::channel(None);
    let sampler = SharedSampler::new(procs.clone(), own_pid, names::CONTAINER);
    let hooks = Arc::new(Hooks::new(settings.config.hook_token.clone(), settings.config.container.clone(), inputs.clone(), metrics.clone()));
    let mailbox = Arc::new(Mailbox::default());
    let container = settings.config.container.clone();
    // Everything ends with the driver: a set of tasks that is dropped stops them.
    let mut tasks = JoinSet::new();

    let sources = Sources { settings: settings.clone(), host, procs: procs.clone(), main: main.clone(), inputs: inputs.clone(), gaps: gaps.clone() };
    let (gate, work) = sources.start();
    for work in work {
        tasks.spawn(work);
    }
    tasks.spawn(Control::new(receiver, Arc::clone(&mailbox), inputs.clone(), metrics.clone(), gaps.clone()).run());
    let signals = if settings.config.share_processes {
        tasks.spawn(sampler.clone().run(inputs.clone()));
        let watcher =
            Watcher { procs: procs.clone(), container: container.clone(), own_pid, main: main_in, inputs: inputs.clone(), sampler: sampler.clone() };
        let watching = watcher.first_look().await;
        if watching.is_late() {
            gaps.set(
                GapReason::SidecarRestarted,
                "the sidecar was started again beside a running worker: had its hold been under way, the kubelet has sent the worker SIGTERM, and a second signal may cut its \
                 task; see why the sidecar ended (memory, kubectl logs --previous)",
            );
            let gaps = gaps.clone();
            tasks.spawn(async move {
                tokio::time::sleep(RESTART_SAID).await;
                gaps.clear(GapReason::SidecarRestarted);
            });
        }
        tasks.spawn(watching.run());
        settings.config.signals.clone()
    } else {
        // The worker is there and cannot be seen: it is the kubelet's to end it.
        gaps.set(
            GapReason::NotVisible,
            "this pod shares no process namespace (qscaler.dev/share-processes: \"false\"): nothing holds its worker, which has the kubelet's SIGTERM at once; take the \
             annotation away to have its tasks held",
        );
        let _ = inputs.send(Input::Worker(WorkerEvent::MainSeen { incarnation: UNSEEN })).await;
        Vec::new()
    };
    // After the first look: a hook call finds the worker known.
    tasks.spawn(serve(listener, Arc::clone(&hooks)));
    tasks.spawn(async move {
        shutdown.cancelled().await;
        let _ = inputs.send(Input::Worker(WorkerEvent::Terminated)).await;
    });

    let now_ms = wall_ms();
    let processes = Container::new(procs.clone(), own_pid, settings.broker.as_str());
    let holder = Holder::new(settings.config.worker.clone(), signals.clone());
    let machine = WorkerMachine::new(worker_settings(&settings, signals, gate.is_some()), now_ms);
    let reporter = Reporter::new(settings, procs.clone(), sampler, gaps.clone(), now_ms);
    let own_uid = rustix::process::geteuid().as_raw();
    let said = String::new();
    let driver =
        Driver { machine, procs, main, hooks, mailbox, gate, reporter, metrics, processes, holder, said, gaps, own_uid, container, termination_log };
    driver.run(inputs_out).await;
}
