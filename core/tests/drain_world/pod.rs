//! One pod: its worker, its sidecar and the kubelet around them. In: what the cluster does to it. Out: what it does to the broker and the API.
//! Left to others: which pods there are (`cluster`).

use super::rng::Rng;
use qscaler_core::config::DeadlinePolicy;
use qscaler_core::drain::worker::{WorkerEffect, WorkerEvent, WorkerMachine, WorkerSettings};
use qscaler_core::framework::Signal;
use qscaler_core::message::{Busy, ControlMessage, Epoch, WorkerState};

/// Longest task of this world, and what the sidecar is told.
pub(crate) const TASK_MS_MAX: u64 = 8_000;
/// Main's grace: the longest task and a margin.
const GRACE_MS: u64 = 60_000;

/// The worker process.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) incarnation: u64,
    pub(crate) task_ends_ms: Option<u64>,
    pub(crate) gate_closed: bool,
    pub(crate) leaving: bool,
    /// Signals had, ours and the kubelet's: like many workers this one drops its task on the second.
    pub(crate) terms: u64,
    /// The kubelet's TERM came because the sidecar died in a hold: what follows is outside the sidecar's power.
    pub(crate) forced: bool,
    /// Leaves at this time, once it has no task.
    pub(crate) leaves_ms: u64,
}

/// What a pod did in one tick.
#[derive(Debug)]
pub(crate) enum Did {
    Ack,
    GiveBack,
    Report(WorkerState, Epoch, Busy),
}

#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) uid: String,
    pub(crate) created_ms: u64,
    pub(crate) starts_ms: u64,
    pub(crate) worker: Option<Worker>,
    pub(crate) restarts_ms: Option<u64>,
    pub(crate) next_incarnation: u64,
    pub(crate) sidecar: Option<WorkerMachine>,
    pub(crate) sidecar_back_ms: Option<u64>,
    pub(crate) settings: WorkerSettings,
    pub(crate) says_ready: bool,
    pub(crate) listening: bool,
    pub(crate) token: Option<ControlMessage>,
    pub(crate) inbox: Vec<(u64, WorkerEvent)>,
    pub(crate) deleted_ms: Option<u64>,
    pub(crate) hold_waiting: bool,
    pub(crate) liveness_kill: bool,
    pub(crate) gone: bool,
    /// As the API shows it.
    pub(crate) sidecar_ready: bool,
    pub(crate) ready: bool,
    pub(crate) cost: i32,
    pub(crate) version: u64,
    pub(crate) done: u64,
    pub(crate) cut: u64,
    pub(crate) counted: u64,
    pub(crate) signals: u64,
    pub(crate) report_due_ms: u64,
}

impl Pod {
    pub(crate) fn new(uid: String, has_gate: bool, now_ms: u64, rng: &mut Rng) -> Self {
        let settings = WorkerSettings {
            pod_uid: uid.clone(),
            workload_uid: "workload".into(),
            signals: vec![Signal::Term],
            has_gate,
            kill_behind_gate: false,
            max_task_duration_ms: TASK_MS_MAX,
            deadline_policy: DeadlinePolicy::Wait,
            patience_ms: 5_000,
            give_back_ms: 10_000,
        };
        Self {
            uid,
            created_ms: now_ms,
            starts_ms: now_ms + rng.between(500, 2_500),
            worker: None,
            restarts_ms: None,
            next_incarnation: 1,
            sidecar: None,
            sidecar_back_ms: Some(now_ms + 400),
            settings,
            says_ready: false,
            listening: false,
            token: None,
            inbox: Vec::new(),
            deleted_ms: None,
            hold_waiting: false,
            liveness_kill: false,
            gone: false,
            sidecar_ready: false,
            ready: false,
            cost: 0,
            version: 0,
            done: 0,
            cut: 0,
            counted: 0,
            signals: 0,
            report_due_ms: 0,
        }
    }

    pub(crate) fn send(&mut self, event: WorkerEvent, at_ms: u64) {
        self.inbox.push((at_ms, event));
    }

    /// The API's delete: both hooks come, in either order, up to 300 ms apart. Before the worker runs only the own hook comes.
    pub(crate) fn delete(&mut self, now_ms: u64, rng: &mut Rng) {
        if self.deleted_ms.is_some() {
            return;
        }
        self.deleted_ms = Some(now_ms);
        self.version += 1;
        self.call_hooks(now_ms, rng);
    }

    fn call_hooks(&mut self, now_ms: u64, rng: &mut Rng) {
        self.send(WorkerEvent::OwnHookCalled, now_ms + rng.between(10, 330));
        if self.worker.is_some() && !self.liveness_kill {
            self.hold(now_ms, rng);
        }
    }

    fn hold(&mut self, now_ms: u64, rng: &mut Rng) {
        self.hold_waiting = true;
        if self.sidecar.is_some() {
            self.send(WorkerEvent::HoldCalled, now_ms + rng.between(10, 330));
        } else {
            // FailedPreStopHook.
            self.hook_over(now_ms, true);
        }
    }

    /// The kubelet kills the worker for its liveness probe: the hold is called, the own hook is not, and the worker is started again.
    pub(crate) fn liveness(&mut self, now_ms: u64, rng: &mut Rng) {
        if self.worker.is_some() && self.deleted_ms.is_none() && !self.liveness_kill {
            self.liveness_kill = true;
            self.hold(now_ms, rng);
        }
    }

    /// The kubelet again, after a restart of its own: the same hooks once more.
    pub(crate) fn kubelet_restarts(&mut self, now_ms: u64, rng: &mut Rng) {
        if self.deleted_ms.is_some() && self.hold_waiting {
            self.call_hooks(now_ms, rng);
        }
    }

    /// The sidecar's process dies. In a pod that ends it is not started again, and its hook counts as ended.
    pub(crate) fn crash_sidecar(&mut self, now_ms: u64) -> Option<ControlMessage> {
        self.sidecar.take()?;
        self.inbox.clear();
        (self.says_ready, self.listening) = (false, false);
        if self.hold_waiting {
            self.hook_over(now_ms, true);
        }
        if self.deleted_ms.is_none() {
            self.sidecar_back_ms = Some(now_ms + 1_100);
        }
        self.token.take()
    }

    /// The hook has ended, well or by failing: the kubelet sends its own TERM to a worker that is still there.
    fn hook_over(&mut self, now_ms: u64, failed: bool) {
        self.hold_waiting = false;
        if let Some(worker) = &mut self.worker {
            worker.forced |= failed;
            self.term(now_ms, 50);
        }
    }

    fn term(&mut self, now_ms: u64, takes_ms: u64) {
        let Some(worker) = &mut self.worker else { return };
        worker.leaving = true;
        worker.terms += 1;
        worker.leaves_ms = worker.leaves_ms.max(now_ms + takes_ms);
        if worker.terms > 1 && worker.task_ends_ms.is_some() && !worker.forced {
            self.end_worker(now_ms);
        }
    }

    /// The worker's process ends: by itself, with its task lost if it had one.
    pub(crate) fn end_worker(&mut self, now_ms: u64) {
        let Some(worker) = self.worker.take() else { return };
        self.cut += u64::from(worker.task_ends_ms.is_some());
        self.send(WorkerEvent::MainExited { incarnation: worker.incarnation }, now_ms + 5);
        if self.deleted_ms.is_none() || self.liveness_kill {
            self.restarts_ms = Some(now_ms + 250);
        }
    }

    /// One tick. Takes tasks from `backlog`.
    pub(crate) fn tick(&mut self, now_ms: u64, backlog: &mut u64, rng: &mut Rng) -> Vec<Did> {
        let mut did = Vec::new();
        self.start(now_ms, rng);
        self.work(now_ms, backlog, rng);
        self.end_pod(now_ms);
        if self.sidecar.is_some() {
            self.run_sidecar(now_ms, rng, &mut did);
        }
        if now_ms % 1_000 == self.created_ms % 1_000 {
            let (ready, pod_ready) = (self.says_ready, self.says_ready && self.worker.is_some());
            if (self.sidecar_ready, self.ready) != (ready, pod_ready) {
                (self.sidecar_ready, self.ready) = (ready, pod_ready);
                self.version += 1;
            }
        }
        did
    }

    fn start(&mut self, now_ms: u64, rng: &mut Rng) {
        if self.sidecar.is_none() && self.sidecar_back_ms.is_some_and(|at| at <= now_ms) {
            self.sidecar_back_ms = None;
            self.sidecar = Some(WorkerMachine::new(self.settings.clone(), now_ms));
            if let Some(worker) = &self.worker {
                self.send(WorkerEvent::MainSeen { incarnation: worker.incarnation }, now_ms + 50);
            }
        }
        let first = self.next_incarnation == 1 && self.starts_ms <= now_ms && self.deleted_ms.is_none() && self.sidecar.is_some();
        if first || self.restarts_ms.is_some_and(|at| at <= now_ms) {
            self.restarts_ms = None;
            let incarnation = self.next_incarnation;
            self.next_incarnation += 1;
            self.worker = Some(Worker {
                incarnation,
                task_ends_ms: None,
                gate_closed: false,
                leaving: false,
                terms: 0,
                forced: false,
                leaves_ms: now_ms + 500,
            });
            self.send(WorkerEvent::MainSeen { incarnation }, now_ms + rng.between(0, 100));
            let was_killed = std::mem::take(&mut self.liveness_kill);
            if was_killed && self.deleted_ms.is_some() {
                // The deletion that was hidden behind the kill.
                self.send(WorkerEvent::OwnHookCalled, now_ms + 60);
                self.hold(now_ms + 50, rng);
            }
        }
    }

    fn work(&mut self, now_ms: u64, backlog: &mut u64, rng: &mut Rng) {
        let Some(worker) = &mut self.worker else { return };
        if worker.task_ends_ms.is_some_and(|at| at <= now_ms) {
            worker.task_ends_ms = None;
            self.done += 1;
            worker.leaves_ms = worker.leaves_ms.max(now_ms + rng.between(50, 1_500));
        }
        if worker.task_ends_ms.is_none() && !worker.leaving && !worker.gate_closed && *backlog > 0 && now_ms >= worker.leaves_ms {
            *backlog -= 1;
            worker.task_ends_ms = Some(now_ms + rng.between(100, TASK_MS_MAX));
        }
        if worker.leaving && worker.task_ends_ms.is_none() && worker.leaves_ms <= now_ms {
            self.end_worker(now_ms);
        }
    }

    fn end_pod(&mut self, now_ms: u64) {
        let Some(deleted_ms) = self.deleted_ms else { return };
        if now_ms >= deleted_ms + GRACE_MS && self.worker.is_some() {
            self.end_worker(now_ms);
        }
        let dead = self.worker.is_none() && self.restarts_ms.is_none() && !self.hold_waiting && now_ms > deleted_ms + 400;
        if dead && self.sidecar.is_some() && !self.inbox.iter().any(|(_, e)| *e == WorkerEvent::Terminated) {
            self.send(WorkerEvent::Terminated, now_ms + 50);
        }
        self.gone = dead && self.sidecar.is_none();
    }

    fn run_sidecar(&mut self, now_ms: u64, rng: &mut Rng, did: &mut Vec<Did>) {
        if now_ms.is_multiple_of(500)
            && let Some(worker) = &self.worker
        {
            let busy = if worker.task_ends_ms.is_some() { Busy::Busy } else { Busy::Idle };
            self.send(WorkerEvent::Busy(busy), now_ms);
        }
        let due: Vec<WorkerEvent> = self.inbox.iter().filter(|(at, _)| *at <= now_ms).map(|(_, event)| event.clone()).collect();
        self.inbox.retain(|(at, _)| *at > now_ms);
        if let Some(machine) = &mut self.sidecar {
            due.into_iter().for_each(|event| machine.handle(event, now_ms));
            machine.on_timeout(now_ms);
        }
        while let Some(effect) = self.sidecar.as_mut().and_then(WorkerMachine::next_effect) {
            self.perform(effect, now_ms, rng, did);
        }
        if self.report_due_ms <= now_ms {
            self.report(now_ms, did);
        }
    }

    fn report(&mut self, now_ms: u64, did: &mut Vec<Did>) {
        let Some(machine) = &self.sidecar else { return };
        self.report_due_ms = now_ms + 2_000;
        did.push(Did::Report(machine.state(), machine.epoch(), machine.busy()));
        if machine.state() == WorkerState::Parked && self.token.is_some() {
            self.send(WorkerEvent::ClaimReported, now_ms + 50);
        }
    }

    fn perform(&mut self, effect: WorkerEffect, now_ms: u64, rng: &mut Rng, did: &mut Vec<Did>) {
        match effect {
            WorkerEffect::ListenShared(listen) => self.listening = listen,
            WorkerEffect::Ack => {
                self.token = None;
                did.push(Did::Ack);
            }
            WorkerEffect::GiveBack => did.push(Did::GiveBack),
            WorkerEffect::Report => self.report(now_ms, did),
            WorkerEffect::SetReady(ready) => self.says_ready = ready,
            WorkerEffect::CloseGate => {
                if let Some(worker) = &mut self.worker {
                    worker.gate_closed = true;
                }
                self.send(WorkerEvent::GateClosed, now_ms + rng.between(10, 200));
            }
            WorkerEffect::OpenGate => {
                if let Some(worker) = &mut self.worker {
                    worker.gate_closed = false;
                }
            }
            WorkerEffect::Signal(_) => {
                self.signals += 1;
                let takes_ms = rng.between(20, 1_500);
                self.term(now_ms, takes_ms);
            }
            WorkerEffect::AnswerHolds => self.hook_over(now_ms, false),
            // These pods have one container.
            WorkerEffect::AnswerHelpers => {}
            WorkerEffect::KillMain => self.end_worker(now_ms),
            WorkerEffect::CountCut(_) => self.counted += 1,
            WorkerEffect::Exit => {
                self.sidecar = None;
                self.inbox.clear();
            }
        }
    }
}
