//! Holding: the kubelet's calls in, signals and answers out. Left to others: when timers run out (the machine's `on_timeout`).

use super::{Gate, Hold, Main, Signalled, WorkerMachine};
use crate::drain::worker::{HELPER_WAIT_MS, NEW_MAIN_CLOSED_MS, Telling, UNSEEN, WorkerEffect};
use crate::framework::Signal;
use crate::message::{Busy, ControlKind, ControlMessage, WorkerState};

impl WorkerMachine {
    pub(super) fn enter_hold(&mut self) -> &mut Hold {
        let before = match self.state {
            WorkerState::Closing => {
                self.give_back();
                WorkerState::Open
            }
            state => state,
        };
        self.give_back_ms = None;
        self.close_gate();
        self.hold.get_or_insert(Hold { before, called_ms: None, waiting: false, evidence: false, telling: None })
    }

    pub(super) fn hold_called(&mut self, now_ms: u64) {
        let leave_it_to_kubelet = self.settings.signals.is_empty() && !self.settings.kill_behind_gate;
        let let_go = self.let_go;
        let main = self.main;
        let hold = self.enter_hold();
        hold.called_ms.get_or_insert(now_ms);
        hold.waiting = true;
        match main {
            Main::Running(incarnation) if !leave_it_to_kubelet && let_go != Some(incarnation) => {
                self.state = WorkerState::Held;
                self.signal(now_ms);
            }
            _ => self.let_go(),
        }
    }

    pub(super) fn pod_ends(&mut self) {
        self.ending = true;
        self.enter_hold();
        let let_go = matches!(self.main, Main::Running(incarnation) if self.let_go == Some(incarnation));
        self.state = if self.main == Main::Absent || let_go { WorkerState::Released } else { WorkerState::Held };
        // Hooks of other containers now wait for the worker, however long.
        self.helpers_until_ms = self.helpers_until_ms.map(|_| None);
        if self.state == WorkerState::Released {
            self.answer_helpers();
        }
    }

    pub(super) fn helper_hold_called(&mut self, now_ms: u64) {
        self.helpers_until_ms = Some(if self.ending { None } else { Some(now_ms.saturating_add(HELPER_WAIT_MS)) });
        if self.ending && self.state == WorkerState::Released {
            self.answer_helpers();
        }
    }

    pub(super) fn answer_helpers(&mut self) {
        if self.helpers_until_ms.take().is_some() {
            self.effects.push_back(WorkerEffect::AnswerHelpers);
        }
    }

    pub(super) fn telling(&mut self, telling: Telling) {
        if let Some(hold) = self.hold.as_mut() {
            hold.telling = Some(telling);
            self.untold();
        }
    }

    /// What becomes of a worker that is held and cannot be told.
    pub(super) fn untold(&mut self) {
        let Some(hold) = self.hold.filter(|hold| hold.waiting && self.state == WorkerState::Held) else { return };
        // Idle by evidence of this hold, and from behind the gate where there is one.
        let behind = !self.settings.has_gate || (self.gate == Gate::Closed && self.evidence_behind_gate);
        let idle = hold.evidence && behind && self.busy == Busy::Idle;
        match hold.telling {
            Some(Telling::Refused { kubelet_reaches }) => {
                let only_term = self.settings.signals == [Signal::Term];
                // As without a sidecar: it finishes its task on the kubelet's TERM, or nobody can know when it is idle.
                if idle || (kubelet_reaches && (only_term || self.busy == Busy::Unknown)) {
                    self.let_go();
                }
            }
            Some(Telling::NoHandler) if idle => {
                if let Some(signalled) = self.signalled.as_mut().filter(|signalled| !signalled.killed) {
                    signalled.killed = true;
                    self.effects.push_back(WorkerEffect::KillMain);
                }
            }
            _ => {}
        }
    }

    pub(super) fn workers_left(&mut self) {
        if self.hold.is_some_and(|hold| hold.waiting) {
            self.let_go();
        }
    }

    pub(super) fn terminated(&mut self) {
        if self.terminated {
            return;
        }
        let held = self.hold.is_some_and(|hold| hold.called_ms.is_some());
        self.pod_ends();
        self.terminated = true;
        if self.main == Main::Absent || !held {
            // The worker is gone; or the sidecar alone is being stopped and the worker lives on.
            self.exit();
            return;
        }
        if self.main == Main::Running(UNSEEN) {
            // Its end is the usual reason for this signal; only evidence of a task says that it was a spent grace.
            if self.busy == Busy::Busy {
                self.count_cut("the pod's grace ended");
            }
            self.exit();
            return;
        }
        // Only a spent grace brings TERM to the sidecar while a held worker still runs. Report now: two seconds are left.
        self.count_cut("the pod's grace ended");
        self.let_go();
        self.reported = None;
    }

    pub(super) fn exit(&mut self) {
        self.give_back();
        self.answer_holds();
        self.reported = Some(self.to_report());
        self.exited = true;
        self.effects.extend([WorkerEffect::Report, WorkerEffect::Exit]);
    }

    pub(super) fn back_from_hold(&mut self, now_ms: u64) {
        let before = self.hold.take().map_or(WorkerState::Open, |hold| hold.before);
        self.state = if before == WorkerState::Boot { WorkerState::Open } else { before };
        self.close_gate();
        self.gate_opens_ms = Some(now_ms.saturating_add(NEW_MAIN_CLOSED_MS));
    }

    pub(super) fn signal(&mut self, now_ms: u64) {
        let Main::Running(incarnation) = self.main else { return };
        if self.signalled.is_some_and(|s| s.incarnation == incarnation) {
            return;
        }
        let at_once = self.settings.signals.len().saturating_sub(1).max(1);
        self.signalled = Some(Signalled { incarnation, sent: at_once, at_ms: now_ms, killed: false });
        self.effects.extend(self.settings.signals.iter().take(at_once).map(|s| WorkerEffect::Signal(*s)));
    }

    /// Whether a worker that hears no signal can be ended now without cutting anything.
    pub(super) fn may_be_killed(&self) -> bool {
        let held = self.signalled.is_some_and(|s| self.main == Main::Running(s.incarnation) && !s.killed);
        let idle = self.gate == Gate::Closed && self.evidence_behind_gate && self.busy == Busy::Idle;
        self.settings.kill_behind_gate && self.state == WorkerState::Held && held && idle
    }

    /// When the last of several signals is due, this long after the first ones; None when there is none to send.
    pub(super) fn last_signal_due_ms(&self, after_ms: u64) -> Option<u64> {
        let signalled = self.signalled?;
        (self.state == WorkerState::Held && self.main == Main::Running(signalled.incarnation) && signalled.sent < self.settings.signals.len())
            .then(|| signalled.at_ms.saturating_add(after_ms))
    }

    pub(super) fn last_signal(&mut self) {
        if let (Some(signalled), Some(signal)) = (&mut self.signalled, self.settings.signals.last()) {
            signalled.sent = self.settings.signals.len();
            self.effects.push_back(WorkerEffect::Signal(*signal));
        }
    }

    pub(super) fn signal_failed(&mut self) {
        if self.hold.is_some() {
            self.let_go();
        }
    }

    pub(super) fn release(&mut self, message: &ControlMessage, now_ms: u64) {
        // It ends a task: it must name this pod, not any.
        let meant = message.kind == ControlKind::Release && message.target.is_some() && self.is_for_us(message, now_ms);
        if meant && self.hold.is_some_and(|hold| hold.waiting) {
            self.count_cut("released by order");
            self.let_go();
            // Many frameworks take the kubelet's SIGTERM as the second of two and go on with their task.
            if matches!(self.main, Main::Running(_)) {
                self.effects.push_back(WorkerEffect::KillMain);
            }
        }
    }

    /// The rest is the kubelet's: holds are answered, now and later, as long as this process lives.
    pub(super) fn let_go(&mut self) {
        if let Main::Running(incarnation) = self.main {
            self.let_go = Some(incarnation);
        }
        self.state = WorkerState::Released;
        self.answer_holds();
    }

    pub(super) fn answer_holds(&mut self) {
        let waits = self.hold.as_mut().is_some_and(|hold| std::mem::take(&mut hold.waiting));
        let helpers = self.helpers_until_ms.take().is_some();
        if waits {
            self.effects.push_back(WorkerEffect::AnswerHolds);
        } else if helpers {
            self.effects.push_back(WorkerEffect::AnswerHelpers);
        }
    }

    /// A worker that was told to leave and is still there is believed idle only by evidence from behind its gate: many fall silent when they are
    /// told (Celery sends no more heartbeats), and what they said last may be of before their last task.
    pub(super) fn count_cut(&mut self, cause: &str) {
        match self.busy {
            Busy::Busy => self.effects.push_back(WorkerEffect::CountCut(cause.to_owned())),
            Busy::Idle if self.evidence_behind_gate => {}
            _ => self.effects.push_back(WorkerEffect::CountCut(format!("{cause}; whether a task ran is not known"))),
        }
    }
}
