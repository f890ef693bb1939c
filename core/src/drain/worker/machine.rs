//! The machine itself: one `handle` per event, one timer. In: events and the time. Out: a queue of effects. Left to others: what the events
//! and effects mean (the module above); parking and holding are in files of their own.

mod hold;
mod park;

use super::{DEAF_AFTER_MS, QUIET_SETTLE_MS, Telling, WorkerEffect, WorkerEvent, WorkerSettings};
use crate::config::DeadlinePolicy;
use crate::message::{Busy, ControlMessage, Epoch, WorkerState};
use std::collections::VecDeque;

/// The worker's top process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Main {
    Absent,
    Running(u64),
}

/// What is known of the gate. A new worker process has its own gate open until it is closed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Gate {
    Open,
    Closing,
    Closed,
}

/// A hold under way, or done: present while the state is Held or Released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Hold {
    /// Where a new worker process goes if the pod does not end: Boot, Open or Parked.
    before: WorkerState,
    /// First hold call for the running process.
    called_ms: Option<u64>,
    /// A call waits for its answer.
    waiting: bool,
    /// Evidence has come in since the first call.
    evidence: bool,
    /// Who can be told; None: not known yet.
    telling: Option<Telling>,
}

/// Signals sent to one worker process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Signalled {
    incarnation: u64,
    sent: usize,
    at_ms: u64,
    /// It did not hear and was killed.
    killed: bool,
}

/// The sidecar's half of the drain for one pod. See the module for its rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkerMachine {
    settings: WorkerSettings,
    state: WorkerState,
    /// Highest wave seen.
    epoch: Epoch,
    /// Tokens up to this wave are not meant for this pod any more: it was resumed from it.
    resumed_epoch: Option<Epoch>,
    main: Main,
    busy: Busy,
    busy_since_ms: u64,
    /// Since when evidence has said Idle without a break.
    idle_since_ms: Option<u64>,
    /// Since when it has not; counts patience.
    restless_since_ms: u64,
    /// Patience is over: even a busy worker may take a token.
    patient: bool,
    gate: Gate,
    /// Evidence has come in since the gate is closed.
    evidence_behind_gate: bool,
    /// When the gate of a worker process that followed a hold opens.
    gate_opens_ms: Option<u64>,
    /// Taken and not yet acked.
    token: Option<ControlMessage>,
    /// Closing: when the token goes back.
    give_back_ms: Option<u64>,
    /// Parked: when the lease ends.
    lease_ends_ms: Option<u64>,
    hold: Option<Hold>,
    /// The pod ends: for ever.
    ending: bool,
    /// SIGTERM came to the sidecar.
    terminated: bool,
    signalled: Option<Signalled>,
    /// This worker process is left to the kubelet: every further hold call is answered at once.
    let_go: Option<u64>,
    /// Hooks of other containers wait; until the pod's end is known, no longer than this.
    helpers_until_ms: Option<Option<u64>>,
    /// Last values given out, so that only changes are.
    ready: Option<bool>,
    listening: bool,
    /// State, wave, and whether a parked worker has a task.
    reported: Option<(WorkerState, Epoch, bool)>,
    exited: bool,
    effects: VecDeque<WorkerEffect>,
}

impl WorkerMachine {
    /// A sidecar that has just started.
    #[must_use]
    pub fn new(settings: WorkerSettings, now_ms: u64) -> Self {
        let mut machine = Self {
            settings,
            state: WorkerState::Boot,
            epoch: Epoch(0),
            resumed_epoch: None,
            main: Main::Absent,
            busy: Busy::Unknown,
            busy_since_ms: now_ms,
            idle_since_ms: None,
            restless_since_ms: now_ms,
            patient: false,
            gate: Gate::Open,
            evidence_behind_gate: false,
            gate_opens_ms: None,
            token: None,
            give_back_ms: None,
            lease_ends_ms: None,
            hold: None,
            ending: false,
            terminated: false,
            signalled: None,
            let_go: None,
            helpers_until_ms: None,
            ready: None,
            listening: false,
            reported: None,
            exited: false,
            effects: VecDeque::new(),
        };
        machine.settle();
        machine
    }

    /// Where the sidecar stands. After a hold without a pod's end it says Held or Released until a new worker process is there.
    #[must_use]
    pub fn state(&self) -> WorkerState {
        self.state
    }

    /// Highest wave seen; 0: none.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether the worker has a task, by the last evidence.
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.busy
    }

    /// Since when [`Self::busy`] is what it is, in milliseconds since the epoch.
    #[must_use]
    pub fn busy_since_ms(&self) -> u64 {
        self.busy_since_ms
    }

    /// The pod ends, for certain: its own hook was called, or the sidecar was told to leave.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.ending
    }

    /// The oldest effect not yet taken.
    pub fn next_effect(&mut self) -> Option<WorkerEffect> {
        self.effects.pop_front()
    }

    /// Takes one event in. `now_ms` may stand still or step back; timers then only come later.
    pub fn handle(&mut self, event: WorkerEvent, now_ms: u64) {
        if self.exited {
            return;
        }
        match event {
            WorkerEvent::MainSeen { incarnation } => self.main_seen(incarnation, now_ms),
            WorkerEvent::MainExited { incarnation } => self.main_exited(incarnation, now_ms),
            WorkerEvent::Busy(busy) => self.evidence(busy, now_ms),
            WorkerEvent::Token(message) => self.token(message, now_ms),
            WorkerEvent::Resume(message) => self.resume(&message, now_ms),
            WorkerEvent::Release(message) => self.release(&message, now_ms),
            WorkerEvent::HoldCalled => self.hold_called(now_ms),
            WorkerEvent::HelperHoldCalled => self.helper_hold_called(now_ms),
            WorkerEvent::OwnHookCalled => self.pod_ends(),
            WorkerEvent::Terminated => self.terminated(),
            WorkerEvent::GateClosed => self.gate_closed(now_ms),
            WorkerEvent::GateOpened => {}
            WorkerEvent::SignalFailed => self.signal_failed(),
            WorkerEvent::Telling(telling) => self.telling(telling),
            WorkerEvent::WorkersLeft => self.workers_left(),
            WorkerEvent::ClaimReported => self.claim_reported(),
        }
        self.on_timeout(now_ms);
    }

    // === processes ===

    fn main_seen(&mut self, incarnation: u64, now_ms: u64) {
        match self.main {
            Main::Running(known) if known == incarnation => return,
            Main::Running(known) => self.main_exited(known, now_ms),
            Main::Absent => {}
        }
        self.main = Main::Running(incarnation);
        self.gate = Gate::Open;
        self.set_busy(Busy::Unknown, now_ms);
        self.restless_since_ms = now_ms;
        self.patient = false;
        match self.state {
            WorkerState::Boot => self.open(),
            WorkerState::Closing | WorkerState::Parked => self.close_gate(),
            WorkerState::Held | WorkerState::Released if self.ending => {
                self.state = WorkerState::Held;
                // Its own hold call is near; until then it may already have had the kubelet's TERM, and a second one could cut its task.
                self.close_gate();
            }
            WorkerState::Held | WorkerState::Released => self.back_from_hold(now_ms),
            WorkerState::Open => {}
        }
    }

    fn main_exited(&mut self, incarnation: u64, now_ms: u64) {
        if self.main != Main::Running(incarnation) {
            return;
        }
        self.main = Main::Absent;
        self.gate = Gate::Open;
        self.set_busy(Busy::Idle, now_ms);
        if self.hold.is_some() {
            self.answer_holds();
            self.state = WorkerState::Released;
            if self.terminated {
                self.exit();
            }
            return;
        }
        match self.state {
            WorkerState::Open => {
                self.state = WorkerState::Boot;
                self.gate_opens_ms = None;
            }
            // Behind a gate the next process must show that it took nothing before the gate closed.
            WorkerState::Closing if !self.settings.has_gate => self.park(now_ms),
            _ => {}
        }
    }

    // === evidence ===

    fn set_busy(&mut self, busy: Busy, now_ms: u64) {
        if busy != self.busy {
            self.busy = busy;
            self.busy_since_ms = now_ms;
        }
        if busy == Busy::Idle {
            self.idle_since_ms.get_or_insert(now_ms);
            self.patient = false;
        } else if self.idle_since_ms.take().is_some() {
            self.restless_since_ms = now_ms;
        }
    }

    fn evidence(&mut self, busy: Busy, now_ms: u64) {
        if self.main == Main::Absent {
            return;
        }
        self.set_busy(busy, now_ms);
        self.evidence_behind_gate = self.gate == Gate::Closed;
        if let Some(hold) = self.hold.as_mut().filter(|hold| hold.called_ms.is_some()) {
            hold.evidence = true;
        }
        self.park_if_quiet(now_ms);
        self.untold();
        if busy == Busy::Idle && self.last_signal_due_ms(QUIET_SETTLE_MS).is_some_and(|due| due <= now_ms) {
            self.last_signal();
        }
    }

    // === time ===

    fn patience_ends_ms(&self) -> Option<u64> {
        (self.state == WorkerState::Open && self.busy != Busy::Idle && !self.patient)
            .then(|| self.restless_since_ms.saturating_add(self.settings.patience_ms))
    }

    fn deadline_ms(&self) -> Option<u64> {
        let called_ms = self.hold?.called_ms?;
        (self.state == WorkerState::Held && self.settings.deadline_policy == DeadlinePolicy::Cut)
            .then(|| called_ms.saturating_add(self.settings.max_task_duration_ms))
    }

    /// Where nothing tells busy from idle: no task is longer than the longest.
    fn blind_signal_ms(&self) -> Option<u64> {
        if self.busy == Busy::Unknown { self.last_signal_due_ms(self.settings.max_task_duration_ms) } else { None }
    }

    /// A worker that may not be told and of which nothing tells: no task is longer than the longest.
    fn blind_refused_ms(&self) -> Option<u64> {
        let hold = self.hold?;
        let refused = matches!(hold.telling, Some(Telling::Refused { .. })) && self.state == WorkerState::Held && hold.waiting;
        (refused && self.busy == Busy::Unknown).then(|| hold.called_ms.unwrap_or(0).saturating_add(self.settings.max_task_duration_ms))
    }

    fn deaf_ms(&self) -> Option<u64> {
        let signalled = self.signalled?;
        let told = self.main == Main::Running(signalled.incarnation) && signalled.sent == self.settings.signals.len() && !signalled.killed;
        (self.state == WorkerState::Held && told && self.gate == Gate::Closed && self.evidence_behind_gate && self.busy == Busy::Idle)
            .then(|| self.idle_since_ms.unwrap_or(0).max(signalled.at_ms).saturating_add(DEAF_AFTER_MS))
    }

    /// The earliest moment at which [`Self::on_timeout`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        if self.exited {
            return None;
        }
        let lease = self.lease_ends_ms.filter(|_| self.state == WorkerState::Parked);
        let helpers = self.helpers_until_ms.flatten();
        let holds = [helpers, self.deadline_ms(), self.blind_signal_ms(), self.blind_refused_ms(), self.deaf_ms()];
        let parks = [lease, self.give_back_ms, self.gate_opens_ms, self.patience_ends_ms()];
        holds.into_iter().chain(parks).flatten().min()
    }

    /// Does what is due by now. May be called at any time.
    pub fn on_timeout(&mut self, now_ms: u64) {
        if self.exited {
            return;
        }
        let due = |at: Option<u64>| at.is_some_and(|at| at <= now_ms);
        if due(self.lease_ends_ms) && self.state == WorkerState::Parked {
            self.give_back();
            self.open();
        }
        if due(self.give_back_ms) {
            self.give_back();
            self.open();
            // Another pod's turn: patience starts anew.
            self.patient = false;
            self.restless_since_ms = now_ms;
        }
        if due(self.gate_opens_ms) {
            self.gate_opens_ms = None;
            if self.state == WorkerState::Open {
                self.open_gate();
            }
        }
        if due(self.patience_ends_ms()) {
            self.patient = true;
        }
        if due(self.blind_signal_ms()) {
            self.last_signal();
        }
        if due(self.helpers_until_ms.flatten()) {
            self.answer_helpers();
        }
        if due(self.blind_refused_ms()) {
            self.count_cut("the kernel refuses to signal the worker");
            self.let_go();
        }
        if due(self.deadline_ms()) {
            self.count_cut("longer than max-task-duration");
            self.let_go();
            self.effects.push_back(WorkerEffect::KillMain);
        } else if self.may_be_killed() || due(self.deaf_ms()) {
            // Its exit answers the hold.
            self.signalled = self.signalled.map(|signalled| Signalled { killed: true, ..signalled });
            self.effects.push_back(WorkerEffect::KillMain);
        }
        self.settle();
    }

    /// What is said at once when it changes. A parked worker without a gate may take a task: whoever counts on it is to know.
    fn to_report(&self) -> (WorkerState, Epoch, bool) {
        (self.state, self.epoch, self.state == WorkerState::Parked && self.busy == Busy::Busy)
    }

    /// Gives out what follows from the state: readiness, report, whether tokens are taken.
    fn settle(&mut self) {
        if self.exited {
            return;
        }
        let parked = self.state == WorkerState::Parked || self.hold.is_some_and(|hold| hold.before == WorkerState::Parked);
        if self.ready != Some(!parked) {
            self.ready = Some(!parked);
            self.effects.push_back(WorkerEffect::SetReady(!parked));
        }
        if self.reported != Some(self.to_report()) {
            self.reported = Some(self.to_report());
            self.effects.push_back(WorkerEffect::Report);
        }
        let listen = self.state == WorkerState::Open && self.gate_opens_ms.is_none() && (self.busy == Busy::Idle || self.patient);
        if self.listening != listen {
            self.listening = listen;
            self.effects.push_back(WorkerEffect::ListenShared(listen));
        }
    }
}
