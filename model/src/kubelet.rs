//! What happens inside one pod: the kubelet's calls, the worker's life, the sidecar's machine and its effects. In: a state and a pod. Out: the
//! state changed. Left to others: which pods there are and what the controller does (`control`).

use crate::intern::{Input, Known};
use crate::may::Does;
use crate::mutation::Mutation;
use crate::property::Broken;
use crate::setting::WorkerKind;
use crate::state::{Api, Main, Pod, Quiet, State};
use crate::world::World;
use qscaler_core::drain::worker::WorkerEffect;
use qscaler_core::framework::Signal;
use qscaler_core::message::{Busy, WorkerState};

/// A worker is started at most this often per pod: each start after the first costs a misfortune.
pub(crate) const INCARNATIONS_MAX: u8 = 15;

/// A machine before and after an event, and whether it kills the worker in it: a hold may then be answered in the same breath.
#[derive(Clone, Copy)]
struct Turn {
    before: Known,
    after: Known,
    kills: bool,
}

impl State {
    pub(crate) fn break_(&mut self, broken: Broken) {
        self.broken |= broken as u16;
    }
}

impl World {
    /// A pod that was just created.
    pub(crate) fn new_pod(&self, injected: bool) -> Pod {
        let api = Api { ready: false, sidecar_ready: false, deleted: false, marked: false };
        Pod {
            injected,
            sidecar: None,
            main: None,
            incarnation: 0,
            known: 0,
            liveness_kill: false,
            hold_call: false,
            own_call: false,
            hold_waits: false,
            gate_closed: false,
            gate_asked: false,
            says_ready: false,
            listening: false,
            hand: None,
            resume: None,
            excused: false,
            gone: false,
            api,
            view: None,
            view_new: false,
            heard: None,
            spent: false,
        }
    }

    /// What is left of a pod that is gone: what an old view and an old report may still show.
    pub(crate) fn ghost(&self, pod: &Pod) -> Pod {
        let shown = pod.view.is_some();
        let api = Api { ready: false, sidecar_ready: false, deleted: true, marked: false };
        let heard = pod.heard.filter(|_| shown);
        Pod { gone: true, api, view: pod.view, heard, spent: pod.spent && shown, ..self.new_pod(pod.injected) }
    }

    /// The machine's own word, while the sidecar runs.
    pub(crate) fn known(&self, pod: &Pod) -> Option<Known> {
        pod.sidecar.map(|id| self.machines.known(id))
    }

    // === the sidecar ===

    pub(crate) fn start_sidecar(&self, s: &mut State, i: usize) {
        let (id, effects) = &self.machines.started;
        s.pods[i].sidecar = Some(*id);
        s.pods[i].known = 0;
        for effect in effects.iter() {
            self.perform(s, i, effect, Input::Timer, None);
        }
    }

    /// Its process dies and takes what it knew with it. In a pod that ends it is not started again, and its hook counts as ended.
    pub(crate) fn crash_sidecar(&self, s: &mut State, i: usize) {
        let pod = &mut s.pods[i];
        pod.sidecar = None;
        pod.known = 0;
        (pod.says_ready, pod.listening, pod.gate_closed, pod.gate_asked) = (false, false, false, false);
        if let Some(epoch) = pod.hand.take() {
            self.enqueue(s, epoch);
        }
        if s.pods[i].hold_waits {
            self.hook_failed(s, i);
        }
    }

    fn hook_failed(&self, s: &mut State, i: usize) {
        s.pods[i].hold_waits = false;
        s.pods[i].excused = true;
        self.term(s, i);
    }

    /// Hands an event to the machine and performs what it answers.
    pub(crate) fn feed(&self, s: &mut State, i: usize, input: Input) {
        let Some(id) = s.pods[i].sidecar else { return };
        let before = self.machines.known(id);
        let (next, effects) = self.machines.handle(id, self.bend(input));
        s.pods[i].sidecar = Some(next);
        let mutation = self.setting.mutation;
        let after = self.machines.known(next);
        let ours = self.extra_effects(input, before, after, &effects);
        let task = s.pods[i].main.is_some_and(|main| main.task);
        let kills = effects.contains(&WorkerEffect::KillMain);
        let counted = effects.iter().any(|effect| matches!(effect, WorkerEffect::CountCut(_)));
        s.pods[i].excused |= counted;
        // Only a spent grace brings TERM beside a task.
        let must_count = input == Input::Terminated && before.busy == Busy::Busy;
        if task && ((must_count && !counted) || (counted && mutation == Some(Mutation::SilentCut))) {
            s.break_(Broken::Uncounted);
        }
        for effect in ours.iter().chain(effects.iter()) {
            let dropped = match mutation {
                Some(Mutation::SilentCut) => matches!(effect, WorkerEffect::CountCut(_)),
                Some(Mutation::ExitUnnoticed) => matches!((input, effect), (Input::MainExited(_), WorkerEffect::AnswerHolds)),
                _ => false,
            };
            if !dropped {
                self.perform(s, i, effect, input, Some(Turn { before, after, kills }));
            }
        }
        if self.setting.eperm && effects.iter().any(|effect| matches!(effect, WorkerEffect::Signal(_))) {
            self.feed(s, i, Input::Refused);
        }
    }

    fn bend(&self, input: Input) -> Input {
        match (self.setting.mutation, input) {
            (Some(Mutation::StaleResume), Input::Resume(_)) => Input::Resume(u8::MAX),
            _ => input,
        }
    }

    /// What a mutation adds.
    fn extra_effects(&self, input: Input, before: Known, after: Known, effects: &[WorkerEffect]) -> Vec<WorkerEffect> {
        let Some(mutation) = self.setting.mutation else { return Vec::new() };
        let taken = before.state == WorkerState::Open && matches!(after.state, WorkerState::Closing | WorkerState::Parked);
        let held = after.state == WorkerState::Held;
        let signals = effects.iter().any(|effect| matches!(effect, WorkerEffect::Signal(_)));
        match (mutation, input) {
            (Mutation::AckBeforeClaim, Input::Token(_)) if taken => vec![WorkerEffect::Ack],
            (Mutation::SignalAgain, Input::Hold) if held && !signals => vec![WorkerEffect::Signal(Signal::Term)],
            (Mutation::LastSignalAtOnce, Input::Hold) if held && signals => vec![WorkerEffect::Signal(Signal::Term)],
            (Mutation::AnswerAtOnce, Input::Hold) if held => vec![WorkerEffect::AnswerHolds],
            (Mutation::KillAtOnce, Input::Hold) if held => vec![WorkerEffect::KillMain],
            (Mutation::OpenWhenHeld, Input::Busy(..)) if after.ending => vec![WorkerEffect::OpenGate],
            _ => Vec::new(),
        }
    }

    fn perform(&self, s: &mut State, i: usize, effect: &WorkerEffect, input: Input, machine: Option<Turn>) {
        match effect {
            WorkerEffect::ListenShared(listen) => s.pods[i].listening = *listen,
            WorkerEffect::Ack => {
                s.pods[i].hand = None;
                if let (Input::Token(_), Some(Turn { before, after, .. })) = (input, machine)
                    && before.state == WorkerState::Open
                    && matches!(after.state, WorkerState::Closing | WorkerState::Parked)
                {
                    s.break_(Broken::Claim);
                }
            }
            WorkerEffect::GiveBack => {
                if let Some(epoch) = s.pods[i].hand.take() {
                    self.enqueue(s, epoch);
                }
            }
            WorkerEffect::Report | WorkerEffect::CountCut(_) | WorkerEffect::AnswerHelpers => {}
            WorkerEffect::SetReady(ready) => s.pods[i].says_ready = *ready,
            WorkerEffect::CloseGate => {
                s.pods[i].gate_asked = true;
                if self.setting.mutation == Some(Mutation::GateSaidClosed) {
                    self.feed(s, i, Input::GateClosed);
                }
            }
            WorkerEffect::OpenGate => self.open_gate(s, i, input, machine),
            WorkerEffect::Signal(signal) => {
                if self.setting.eperm {
                    return;
                }
                match (signal, &mut s.pods[i].main) {
                    (Signal::Tstp, Some(main)) => main.quiet = main.quiet.max(Quiet::Asked),
                    _ => self.term(s, i),
                }
            }
            WorkerEffect::AnswerHolds => {
                let released = machine.is_some_and(|turn| turn.after.state == WorkerState::Released);
                if !released
                    || (s.pods[i].main.is_some() && s.pods[i].hold_waits && !machine.is_some_and(|turn| turn.kills) && !self.let_go(s, i, input))
                {
                    s.break_(Broken::EarlyAnswer);
                }
                if std::mem::take(&mut s.pods[i].hold_waits) {
                    self.term(s, i);
                }
            }
            WorkerEffect::KillMain => {
                if s.pods[i].main.is_some_and(|main| main.task) && !s.pods[i].excused {
                    s.break_(Broken::Cut);
                }
                s.pods[i].main = None;
            }
            WorkerEffect::Exit => {
                let pod = &mut s.pods[i];
                (pod.sidecar, pod.known, pod.listening, pod.says_ready) = (None, 0, false, false);
                if let Some(epoch) = pod.hand.take() {
                    self.enqueue(s, epoch);
                }
            }
        }
    }

    /// Reasons to answer a hold beside a worker that runs: it cannot be told, or its cut is counted, or the process that was held has left and
    /// this is another one, whose own call will come.
    fn let_go(&self, s: &State, i: usize, input: Input) -> bool {
        let another = matches!(input, Input::MainExited(n) if n != s.pods[i].incarnation) || s.pods[i].known != s.pods[i].incarnation;
        self.setting.eperm || s.pods[i].excused || another
    }

    fn open_gate(&self, s: &mut State, i: usize, input: Input, machine: Option<Turn>) {
        s.pods[i].gate_closed = false;
        s.pods[i].gate_asked = false;
        let Some(Turn { before, after, .. }) = machine else { return };
        if after.ending {
            s.break_(Broken::HeldOpens);
        }
        let allowed = match input {
            Input::Resume(epoch) => epoch >= before.epoch,
            Input::MainSeen(_) => matches!(before.state, WorkerState::Boot | WorkerState::Open),
            Input::Timer | Input::Busy(_, true) => true,
            _ => false,
        };
        if !allowed {
            s.break_(Broken::WrongOpening);
        }
    }

    // === the worker ===

    /// TERM to the worker, from whomever.
    fn term(&self, s: &mut State, i: usize) {
        let excused = s.pods[i].excused;
        let Some(main) = &mut s.pods[i].main else { return };
        main.leaving = true;
        main.terms = (main.terms + 1).min(2);
        let drops = self.setting.worker == WorkerKind::QuietThenTerm || main.terms > 1;
        if main.task && drops {
            s.pods[i].main = None;
            if !excused {
                s.break_(Broken::Cut);
            }
        }
    }

    /// The kubelet starts the worker: first, or again after an exit outside the pod's end, or behind a liveness kill that hid the deletion.
    pub(crate) fn start_main(&self, s: &mut State, i: usize) {
        let pod = &mut s.pods[i];
        pod.incarnation += 1;
        pod.excused = false;
        pod.main = Some(Main { task: false, leaving: false, quiet: Quiet::No, terms: 0 });
        if std::mem::take(&mut pod.liveness_kill) && pod.api.deleted {
            (pod.own_call, pod.hold_call) = (true, true);
        }
    }

    pub(crate) fn may_start_main(&self, pod: &Pod) -> bool {
        let ready = pod.main.is_none() && !pod.gone && (!pod.injected || pod.sidecar.is_some()) && pod.incarnation < INCARNATIONS_MAX;
        let first = pod.incarnation == 0 && !pod.api.deleted;
        let again = pod.incarnation > 0 && !pod.hold_waits && !pod.hold_call && (!pod.api.deleted || pod.liveness_kill);
        ready && (first || again)
    }

    pub(crate) fn may_take(&self, pod: &Pod) -> bool {
        !pod.gate_closed && pod.main.is_some_and(|main| !main.task && !main.leaving && main.quiet != Quiet::Settled)
    }

    // === the kubelet ===

    pub(crate) fn delete(&self, s: &mut State, i: usize) {
        let pod = &mut s.pods[i];
        pod.api.deleted = true;
        pod.view_new = false;
        if pod.liveness_kill {
            return;
        }
        if pod.injected {
            pod.own_call = true;
            pod.hold_call = pod.main.is_some();
        } else {
            // No hold: outside our power.
            pod.excused = true;
            self.term(s, i);
        }
    }

    pub(crate) fn deliver_hold(&self, s: &mut State, i: usize) {
        s.pods[i].hold_call = false;
        // The driver looks for the worker before it hands the call in.
        self.does(s, i, Does::Notice);
        if s.pods[i].main.is_none() {
            return;
        }
        if s.pods[i].sidecar.is_some() {
            s.pods[i].hold_waits = true;
            self.feed(s, i, Input::Hold);
        } else {
            self.hook_failed(s, i);
        }
    }

    /// TERM to both, SIGKILL two seconds later.
    pub(crate) fn grace_spent(&self, s: &mut State, i: usize) {
        s.pods[i].excused = true;
        self.feed(s, i, Input::Terminated);
        s.pods[i].main = None;
        s.pods[i].hold_waits = false;
        s.pods[i].hold_call = false;
    }

    pub(crate) fn probe(&self, s: &mut State, i: usize) {
        let pod = &mut s.pods[i];
        let sidecar_ready = pod.says_ready && pod.sidecar.is_some();
        let api = Api { sidecar_ready, ready: (sidecar_ready || !pod.injected) && pod.main.is_some(), ..pod.api };
        pod.view_new &= api == pod.api;
        pod.api = api;
    }

    /// Invariants of a moment rather than of a step.
    pub(crate) fn look(&self, s: &mut State) {
        let busy_parked = |pod: &Pod| self.known(pod).is_some_and(|k| k.state == WorkerState::Parked) && pod.main.is_some_and(|main| main.task);
        if self.setting.gate && s.pods.iter().any(busy_parked) {
            s.break_(Broken::Quiesced);
        }
    }
}
