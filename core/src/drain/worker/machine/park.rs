//! Parking: tokens in, claims and acks out, and the ways back to work. Left to others: what happens when the pod ends (`hold`).

use super::{Gate, Main, WorkerMachine};
use crate::drain::worker::{EPOCH_MAX, EPOCH_STEP_MAX, EXPIRY_MAX_MS, LEASE_MAX_MS, WorkerEffect};
use crate::message::{Busy, ControlKind, ControlMessage, Epoch, WorkerState};

impl WorkerMachine {
    /// Whether a message of any kind means this pod, lives, and has no figure that the controller would never write: whoever can write to the queue may
    /// waste a wave, and no more.
    pub(super) fn is_for_us(&self, message: &ControlMessage, now_ms: u64) -> bool {
        let workload = &self.settings.workload_uid;
        let max = if self.epoch == Epoch(0) { EPOCH_MAX } else { self.epoch.after(EPOCH_STEP_MAX).min(EPOCH_MAX) };
        (!workload.is_known() || *workload == message.workload_uid)
            && now_ms < message.expires_ms
            && message.expires_ms - now_ms <= EXPIRY_MAX_MS
            && message.epoch <= max
            && message.target.as_ref().is_none_or(|uid| *uid == self.settings.pod_uid)
    }

    pub(super) fn token(&mut self, message: ControlMessage, now_ms: u64) {
        let stale = message.epoch < self.epoch || self.resumed_epoch.is_some_and(|resumed| message.epoch <= resumed);
        if message.kind != ControlKind::SigkillQueue || stale || !self.is_for_us(&message, now_ms) {
            self.effects.push_back(WorkerEffect::Ack);
            return;
        }
        let directed = message.target.is_some();
        let free = self.busy == Busy::Idle || self.patient || directed;
        match self.state {
            WorkerState::Open if free && self.token.is_none() => {
                self.epoch = message.epoch;
                self.give_back_ms = Some(now_ms.saturating_add(self.settings.give_back_ms));
                self.token = Some(message);
                self.state = WorkerState::Closing;
                self.close_gate();
                self.park_if_quiet(now_ms);
            }
            // A directed token renews the lease of a pod that is parked already.
            WorkerState::Parked if directed => {
                self.epoch = message.epoch;
                self.token = Some(message);
                self.park(now_ms);
            }
            WorkerState::Held | WorkerState::Released if directed => self.effects.push_back(WorkerEffect::Ack),
            _ => self.effects.push_back(WorkerEffect::GiveBack),
        }
    }

    pub(super) fn gate_closed(&mut self, now_ms: u64) {
        if self.gate == Gate::Closing {
            self.gate = Gate::Closed;
            self.evidence_behind_gate = false;
            self.park_if_quiet(now_ms);
        }
    }

    /// Parks when nothing runs, by evidence taken behind the gate where there is one. Where nothing tells, patience has stood in for evidence.
    pub(super) fn park_if_quiet(&mut self, now_ms: u64) {
        if self.state != WorkerState::Closing || (self.settings.has_gate && self.gate != Gate::Closed) {
            return;
        }
        let quiet = match self.busy {
            Busy::Idle => !self.settings.has_gate || self.evidence_behind_gate,
            Busy::Unknown => self.patient,
            Busy::Busy => false,
        };
        if quiet {
            self.park(now_ms);
        }
    }

    pub(super) fn park(&mut self, now_ms: u64) {
        let lease_ms = self.token.as_ref().map_or(0, |token| token.lease_ms.min(LEASE_MAX_MS));
        self.state = WorkerState::Parked;
        self.give_back_ms = None;
        self.lease_ends_ms = Some(now_ms.saturating_add(lease_ms));
        // The claim: published even if a report said the same before.
        self.reported = None;
    }

    pub(super) fn claim_reported(&mut self) {
        let parked = self.state == WorkerState::Parked || self.hold.is_some_and(|hold| hold.before == WorkerState::Parked);
        if parked && self.token.take().is_some() {
            self.effects.push_back(WorkerEffect::Ack);
        }
    }

    pub(super) fn resume(&mut self, message: &ControlMessage, now_ms: u64) {
        if message.kind != ControlKind::Resume || message.epoch < self.epoch || self.ending || !self.is_for_us(message, now_ms) {
            return;
        }
        self.epoch = message.epoch;
        self.resumed_epoch = Some(message.epoch);
        match &mut self.hold {
            Some(hold) if hold.before == WorkerState::Parked => hold.before = WorkerState::Open,
            None if matches!(self.state, WorkerState::Parked | WorkerState::Closing) => self.open(),
            _ => return,
        }
        self.lease_ends_ms = None;
        if self.token.take().is_some() {
            self.effects.push_back(WorkerEffect::Ack);
        }
    }

    /// To Open, by one of the few ways that lead there.
    pub(super) fn open(&mut self) {
        self.state = WorkerState::Open;
        self.give_back_ms = None;
        self.lease_ends_ms = None;
        if self.gate_opens_ms.is_none() {
            self.open_gate();
        }
    }

    pub(super) fn give_back(&mut self) {
        if self.token.take().is_some() {
            self.effects.push_back(WorkerEffect::GiveBack);
        }
    }

    pub(super) fn close_gate(&mut self) {
        self.gate_opens_ms = None;
        if self.settings.has_gate && self.gate == Gate::Open && self.main != Main::Absent {
            self.gate = Gate::Closing;
            self.evidence_behind_gate = false;
            self.effects.push_back(WorkerEffect::CloseGate);
        }
    }

    pub(super) fn open_gate(&mut self) {
        if self.settings.has_gate && !self.ending {
            self.gate = Gate::Open;
            self.effects.push_back(WorkerEffect::OpenGate);
        }
    }
}
