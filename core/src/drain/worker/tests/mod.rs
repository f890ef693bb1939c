//! One sidecar, event by event: what the tests of its parts have in common.

mod hold;
mod parking;

use super::WorkerEffect as E;
use super::*;
use crate::message::{ControlKind, Epoch, VERSION, WorkerState};

const LEASE_MS: u64 = 60_000;

fn settings() -> WorkerSettings {
    WorkerSettings {
        pod_uid: "pod".into(),
        workload_uid: "workload".into(),
        signals: vec![Signal::Term],
        has_gate: false,
        kill_behind_gate: false,
        max_task_duration_ms: 600_000,
        deadline_policy: DeadlinePolicy::Wait,
        patience_ms: 10_000,
        give_back_ms: 20_000,
    }
}

fn gated() -> WorkerSettings {
    WorkerSettings { has_gate: true, ..settings() }
}

fn message(kind: ControlKind, epoch: u64) -> ControlMessage {
    ControlMessage {
        version: VERSION,
        kind,
        workload_uid: "workload".into(),
        epoch: Epoch(epoch),
        issued_ms: 0,
        expires_ms: 1_000_000,
        lease_ms: LEASE_MS,
        target: None,
    }
}

fn token(epoch: u64) -> WorkerEvent {
    WorkerEvent::Token(message(ControlKind::SigkillQueue, epoch))
}

fn resume(epoch: u64) -> WorkerEvent {
    WorkerEvent::Resume(message(ControlKind::Resume, epoch))
}

fn release_order() -> ControlMessage {
    ControlMessage { target: Some("pod".into()), ..message(ControlKind::Release, 0) }
}

fn release() -> WorkerEvent {
    WorkerEvent::Release(release_order())
}

const IDLE: WorkerEvent = WorkerEvent::Busy(Busy::Idle);
const BUSY: WorkerEvent = WorkerEvent::Busy(Busy::Busy);
const UNKNOWN: WorkerEvent = WorkerEvent::Busy(Busy::Unknown);
const TERM: E = E::Signal(Signal::Term);
const TSTP: E = E::Signal(Signal::Tstp);

fn seen(incarnation: u64) -> WorkerEvent {
    WorkerEvent::MainSeen { incarnation }
}
fn exited(incarnation: u64) -> WorkerEvent {
    WorkerEvent::MainExited { incarnation }
}

struct Pod {
    machine: WorkerMachine,
    now_ms: u64,
}

impl Pod {
    fn new(settings: WorkerSettings) -> Self {
        let mut pod = Self { machine: WorkerMachine::new(settings, 0), now_ms: 0 };
        pod.effects();
        pod
    }

    /// Started, idle, listening.
    fn open(settings: WorkerSettings) -> Self {
        let mut pod = Self::new(settings);
        pod.all([seen(1), IDLE]);
        pod
    }

    fn parked(settings: WorkerSettings) -> Self {
        let mut pod = Self::open(settings.clone());
        pod.all([token(1)]);
        if settings.has_gate {
            pod.all([WorkerEvent::GateClosed, IDLE]);
        }
        assert_eq!(pod.machine.state(), WorkerState::Parked);
        pod.all([WorkerEvent::ClaimReported]);
        pod
    }

    fn effects(&mut self) -> Vec<E> {
        std::iter::from_fn(|| self.machine.next_effect()).collect()
    }

    fn on(&mut self, event: WorkerEvent) -> Vec<E> {
        self.machine.handle(event, self.now_ms);
        self.effects()
    }

    fn all<const N: usize>(&mut self, events: [WorkerEvent; N]) -> Vec<E> {
        events.into_iter().flat_map(|event| self.on(event)).collect()
    }

    /// Lets time pass, stopping at each deadline.
    fn pass(&mut self, ms: u64) -> Vec<E> {
        let end_ms = self.now_ms + ms;
        let mut effects = Vec::new();
        while let Some(at_ms) = self.machine.next_deadline().filter(|at| *at <= end_ms) {
            self.now_ms = self.now_ms.max(at_ms);
            let before = self.machine.clone();
            self.machine.on_timeout(self.now_ms);
            assert!(self.machine != before, "a deadline that is due changes something: {before:?}");
            effects.extend(self.effects());
        }
        self.now_ms = end_ms;
        self.machine.on_timeout(end_ms);
        effects.extend(self.effects());
        effects
    }

    #[track_caller]
    fn is(&self, state: WorkerState) {
        assert_eq!(self.machine.state(), state);
    }
}
