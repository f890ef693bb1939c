//! The hold inside one pod, checked: `core`'s plan, holder and worker machine in a container of several processes, in every order of what the kubelet,
//! the workers, their launcher and time may do. In: a [`Shape`], perhaps a [`Slip`]. Out: the states reached, and the first broken rule.
//! Left to others: the fleet (the rest of this crate), reading real processes (`sidecar`).
//!
//! What is assumed, each measured: the kernel ends a process that has no handler; in a shared process namespace the top process too; with it the
//! runtime ends the container; a second signal cuts a worker's task; a suspended process does nothing until it goes on.

mod process;
mod shape;
mod slip;

pub use shape::Shape;
pub use slip::Slip;

use process::{Act, Proc, Role, State};
use qscaler_core::config::DeadlinePolicy;
use qscaler_core::drain::plan::{HoldAction, Holder, ProcessId};
use qscaler_core::drain::worker::{Telling, WorkerEffect, WorkerEvent, WorkerMachine, WorkerSettings};
use qscaler_core::framework::Signal;
use qscaler_core::message::{Busy, ControlKind, ControlMessage, Epoch, VERSION};
use std::collections::{HashSet, VecDeque};

/// The rules, by name.
pub const RULES: &[(&str, &str)] = &[
    ("H-cut", "nothing that the sidecar does or lets through ends a process with a task, but by an order that names the pod"),
    ("H-more", "a worker that a suspended launcher could start again takes no task in a hold"),
    ("H-helper", "another container's restart touches no process of the worker's"),
    ("H-ends", "when every task ends, the hold is answered or the container has ended"),
];

/// Where time stands; a late look comes this much later.
const NOW_MS: u64 = 1_000_000;
const LATE_MS: u64 = 20_000;
/// Workers started again at most.
const RESTARTS_MAX: u8 = 1;

/// What was explored.
#[derive(Debug)]
pub struct Found {
    /// How many states.
    pub states: usize,
    /// The first broken rule, and how.
    pub broken: Option<(&'static str, Vec<String>)>,
}

struct Pod {
    shape: Shape,
    slip: Option<Slip>,
}

/// Explores everything that may happen.
#[must_use]
pub fn explore(shape: Shape, slip: Option<Slip>) -> Found {
    let pod = Pod { shape, slip };
    let start = pod.start();
    let mut seen = HashSet::from([start.clone()]);
    // Each state with the one before and the step between.
    let mut all: Vec<(State, usize, Option<Act>)> = vec![(start, 0, None)];
    let mut next = VecDeque::from([0]);
    let path = |all: &[(State, usize, Option<Act>)], mut at: usize| {
        let mut steps = Vec::new();
        while let Some(act) = all[at].2 {
            steps.push(format!("{act:?}"));
            at = all[at].1;
        }
        steps.reverse();
        steps
    };
    while let Some(at) = next.pop_front() {
        let state = all[at].0.clone();
        if let Some(rule) = state.broken.or_else(|| pod.calm(state.clone())) {
            return Found { states: all.len(), broken: Some((rule, path(&all, at))) };
        }
        for act in pod.acts(&state) {
            let after = pod.step(&state, act);
            if seen.insert(after.clone()) {
                all.push((after, at, Some(act)));
                next.push_back(all.len() - 1);
            }
        }
    }
    Found { states: all.len(), broken: None }
}

impl Pod {
    fn start(&self) -> State {
        let freezes = self.shape == Shape::Frozen;
        let signals = if freezes { Vec::new() } else { vec![Signal::Term] };
        let settings = WorkerSettings {
            pod_uid: "pod".to_owned(),
            workload_uid: "workload".into(),
            signals: signals.clone(),
            has_gate: freezes,
            kill_behind_gate: freezes,
            max_task_duration_ms: 1_000_000_000,
            deadline_policy: DeadlinePolicy::Wait,
            patience_ms: 1_000_000_000,
            give_back_ms: 20_000,
        };
        let mut machine = WorkerMachine::new(settings, NOW_MS);
        machine.handle(WorkerEvent::MainSeen { incarnation: 1 }, NOW_MS);
        while machine.next_effect().is_some() {}
        State {
            machine,
            holder: Holder::new("rq".to_owned(), signals),
            procs: self.shape.procs(),
            restarts: 0,
            looks_late: 0,
            pod_ends: false,
            hold_called: false,
            helper_called: false,
            own_called: false,
            waits: false,
            helper_waits: false,
            answered: false,
            released: false,
            gate_asked: false,
            gate_closed: false,
            broken: None,
        }
    }

    fn acts(&self, s: &State) -> Vec<Act> {
        let mut acts = Vec::new();
        if s.procs.is_empty() || s.broken.is_some() {
            return acts;
        }
        for p in &s.procs {
            let works = matches!(p.role, Role::Worker | Role::Deaf) && !p.suspended;
            let frozen = s.gate_closed;
            if works && !p.handler && p.role == Role::Worker {
                acts.push(Act::Begin(p.pid));
            }
            if works && !p.connected {
                acts.push(Act::Connect(p.pid));
            }
            if works && p.connected && !p.task && !p.told && !frozen {
                acts.push(Act::Take(p.pid));
            }
            if works && p.task {
                acts.push(Act::Finish(p.pid));
            }
            if works && p.told && !p.task {
                acts.push(Act::Leave(p.pid));
            }
            let has_worker = s.procs.iter().any(|q| q.parent == p.pid);
            if matches!(p.role, Role::Loop | Role::Supervisor) && !p.suspended && !p.told && !has_worker && s.restarts < RESTARTS_MAX {
                acts.push(Act::StartAgain(p.pid));
            }
            if p.role == Role::Script && !p.suspended && !has_worker {
                acts.push(Act::ScriptEnds);
            }
        }
        if !s.pod_ends {
            acts.push(Act::PodEnds);
        }
        if !s.pod_ends && !s.helper_called {
            acts.push(Act::HelperRestarts);
        }
        if s.pod_ends && !s.hold_called {
            acts.push(Act::Hold);
        }
        if s.pod_ends && !s.helper_called {
            acts.push(Act::Helper);
        }
        if s.pod_ends && !s.own_called {
            acts.push(Act::Own);
        }
        if s.holder.is_held() {
            acts.push(Act::Look);
            if s.looks_late < 2 {
                acts.push(Act::LookLate);
            }
        }
        if s.gate_asked && !s.gate_closed {
            acts.push(Act::Gate);
        }
        if s.machine.next_deadline().is_some_and(|at| at < NOW_MS + 1_000_000) {
            acts.push(Act::Timer);
        }
        if s.waits {
            acts.push(Act::Evidence);
            acts.push(Act::Forged);
            if self.slip.is_none() {
                acts.push(Act::Released);
            }
        }
        acts
    }

    fn step(&self, before: &State, act: Act) -> State {
        let mut s = before.clone();
        let at = |s: &State, pid: i32| s.procs.iter().position(|p| p.pid == pid);
        match act {
            Act::Begin(pid) => self.change(&mut s, pid, |p| p.handler = true),
            Act::Connect(pid) => self.change(&mut s, pid, |p| p.connected = true),
            Act::Take(pid) => {
                if at(&s, pid).is_some_and(|i| s.procs[i].late) && self.shape == Shape::Loop {
                    s.broken = Some("H-more");
                }
                self.change(&mut s, pid, |p| p.task = true);
            }
            Act::Finish(pid) => self.change(&mut s, pid, |p| p.task = false),
            Act::Leave(pid) => self.end(&mut s, pid),
            Act::StartAgain(parent) => {
                s.restarts += 1;
                let late = s.hold_called;
                s.procs.push(Proc { late, ..Shape::starting(30, parent) });
            }
            Act::ScriptEnds => self.end_container(&mut s, false),
            Act::PodEnds => s.pod_ends = true,
            Act::HelperRestarts | Act::Helper => {
                (s.helper_called, s.helper_waits) = (true, true);
                let event = if self.slip == Some(Slip::HelperHolds) { WorkerEvent::HoldCalled } else { WorkerEvent::HelperHoldCalled };
                self.feed(&mut s, event);
            }
            Act::Hold => {
                (s.hold_called, s.waits) = (true, true);
                self.feed(&mut s, WorkerEvent::HoldCalled);
            }
            Act::Own => {
                s.own_called = true;
                self.feed(&mut s, WorkerEvent::OwnHookCalled);
            }
            Act::Look => self.look(&mut s),
            Act::LookLate => {
                s.looks_late += 1;
                self.look(&mut s);
            }
            Act::Evidence => {
                let busy = if s.procs.iter().any(|p| p.task) { Busy::Busy } else { Busy::Idle };
                self.feed(&mut s, WorkerEvent::Busy(busy));
            }
            // The freeze gate closes by a proof: no task anywhere in the container.
            Act::Gate => {
                if !s.procs.iter().any(|p| p.task) || self.slip == Some(Slip::GateUnproved) {
                    s.gate_closed = true;
                    self.feed(&mut s, WorkerEvent::GateClosed);
                    self.feed(&mut s, WorkerEvent::Busy(Busy::Idle));
                }
            }
            Act::Timer => {
                let due = s.machine.next_deadline().unwrap_or(NOW_MS);
                s.machine.on_timeout(due);
                self.perform(&mut s);
            }
            Act::Forged => {
                let target = if self.slip == Some(Slip::ReleaseUnchecked) { "pod" } else { "another" };
                self.feed(&mut s, WorkerEvent::Release(release(target)));
            }
            Act::Released => {
                s.released = true;
                self.feed(&mut s, WorkerEvent::Release(release("pod")));
            }
        }
        s
    }

    fn change(&self, s: &mut State, pid: i32, change: impl Fn(&mut Proc)) {
        // A pool shows its parent's task, handler and connection.
        s.procs.iter_mut().filter(|p| p.pid == pid || (p.role == Role::Child && p.parent == pid)).for_each(change);
    }

    fn end(&self, s: &mut State, pid: i32) {
        if s.procs.first().is_some_and(|top| top.pid == pid) {
            return self.end_container(s, false);
        }
        s.procs.retain(|p| p.pid != pid && !(p.role == Role::Child && p.parent == pid));
    }

    /// The container ends, and every process in it.
    fn end_container(&self, s: &mut State, excused: bool) {
        if s.procs.iter().any(|p| p.task) && !excused && !s.released {
            s.broken = Some("H-cut");
        }
        s.procs.clear();
        s.machine.handle(WorkerEvent::MainExited { incarnation: 1 }, NOW_MS);
        self.perform(s);
    }

    /// A signal arrives at one process.
    fn signal(&self, s: &mut State, pid: i32) {
        let Some(p) = s.procs.iter_mut().find(|p| p.pid == pid) else { return };
        if p.suspended {
            p.pending = true;
            return;
        }
        let p = *p;
        let dies = !p.handler || p.role == Role::Child || (p.told && p.task);
        if dies && p.task && !s.released {
            s.broken = Some("H-cut");
        }
        if p.role == Role::Supervisor {
            // It ends what it has started, after its patience.
            let below = s.procs.iter().any(|q| q.parent == pid && q.task);
            s.broken = s.broken.or((below && !s.released).then_some("H-cut"));
            return self.end(s, pid);
        }
        if dies {
            return self.end(s, pid);
        }
        self.change(s, pid, |p| p.told = true);
    }

    fn feed(&self, s: &mut State, event: WorkerEvent) {
        s.machine.handle(event, NOW_MS);
        self.perform(s);
    }

    fn perform(&self, s: &mut State) {
        while let Some(effect) = s.machine.next_effect() {
            match effect {
                WorkerEffect::Signal(_) => {
                    s.holder.release();
                    if !s.hold_called {
                        s.broken = Some("H-helper");
                    }
                    self.look(s);
                }
                WorkerEffect::AnswerHolds => {
                    s.helper_waits = false;
                    self.answered(s);
                }
                WorkerEffect::AnswerHelpers => s.helper_waits = false,
                WorkerEffect::CloseGate => s.gate_asked = true,
                WorkerEffect::KillMain => self.end_container(s, false),
                _ => {}
            }
        }
    }

    /// The hold is answered: the kubelet's own TERM goes to the top process.
    fn answered(&self, s: &mut State) {
        if std::mem::take(&mut s.waits) {
            s.answered = true;
            if let Some(top) = s.procs.first().map(|p| p.pid) {
                self.signal(s, top);
                // One that is suspended hears it no more than the end of the grace, which ends all.
                if s.procs.iter().any(|p| p.task) && s.procs.first().is_some_and(|p| p.pending) && !s.released {
                    s.broken = Some("H-cut");
                }
            }
        }
    }

    fn look(&self, s: &mut State) {
        let Some(top) = s.procs.first().map(|p| p.pid) else { return };
        let values = self.shape.values(&s.procs);
        if matches!(self.slip, Some(Slip::ToldAgain)) && s.holder.is_held() {
            s.holder = s.holder.again();
            s.holder.release();
        }
        let actions = s.holder.look(&values, top, NOW_MS + u64::from(s.looks_late) * LATE_MS);
        for action in self.bend(s, top, actions) {
            match action {
                HoldAction::Suspend(id) => s.procs.iter_mut().filter(|p| p.pid == id.pid).for_each(|p| p.suspended = true),
                HoldAction::Resume(id) => {
                    let pending = s.procs.iter_mut().find(|p| p.pid == id.pid).is_some_and(|p| {
                        p.suspended = false;
                        std::mem::take(&mut p.pending)
                    });
                    if pending {
                        self.signal(s, id.pid);
                    }
                }
                HoldAction::Signal(id, _) => self.signal(s, id.pid),
                HoldAction::Kill(id) => self.end(s, id.pid),
                HoldAction::Say(telling) => self.feed(s, WorkerEvent::Telling(telling)),
                HoldAction::Left => self.feed(s, WorkerEvent::WorkersLeft),
            }
        }
    }

    /// What is done wrong instead.
    fn bend(&self, s: &State, top: i32, actions: Vec<HoldAction>) -> Vec<HoldAction> {
        let id = |pid: i32| ProcessId { pid, start_ticks: Shape::start_ticks(pid) };
        let signals = |pid: i32| HoldAction::Signal(id(pid), Signal::Term);
        let first = actions.iter().any(|a| matches!(a, HoldAction::Say(_)));
        match self.slip {
            Some(Slip::TopToo | Slip::SupervisorFirst) if first => [signals(top)].into_iter().chain(actions).collect(),
            Some(Slip::PoolToo) => {
                let child = s.procs.iter().filter(|p| p.role == Role::Child).map(|p| signals(p.pid));
                let extra: Vec<HoldAction> = if first { child.collect() } else { Vec::new() };
                actions.into_iter().chain(extra).collect()
            }
            Some(Slip::DeafToo) if actions.contains(&HoldAction::Say(Telling::NoHandler)) => {
                let deaf: Vec<i32> = s.procs.iter().filter(|p| p.role == Role::Deaf).map(|p| p.pid).collect();
                actions.into_iter().chain(deaf.into_iter().map(signals)).collect()
            }
            Some(Slip::NeverSuspended) => actions.into_iter().filter(|a| !matches!(a, HoldAction::Suspend(_))).collect(),
            Some(Slip::NeverResumed) => {
                actions.into_iter().filter(|a| !matches!(a, HoldAction::Resume(_) | HoldAction::Left | HoldAction::Kill(_))).collect()
            }
            Some(Slip::FirstLeaves) if !first && s.procs.iter().filter(|p| p.role == Role::Worker).count() < 2 => {
                vec![HoldAction::Left]
            }
            Some(Slip::RefusedAnswered) => {
                let bent = |a| {
                    if matches!(a, HoldAction::Say(Telling::Refused { .. })) {
                        HoldAction::Say(Telling::Refused { kubelet_reaches: true })
                    } else {
                        a
                    }
                };
                actions.into_iter().map(bent).collect()
            }
            _ => actions,
        }
    }

    /// From here everything goes its way: tasks end, the sidecar looks and waits. The rule that then does not hold.
    fn calm(&self, mut s: State) -> Option<&'static str> {
        if s.helper_called && !s.pod_ends && s.procs.iter().any(|p| p.told || p.suspended) {
            return Some("H-helper");
        }
        if !s.hold_called || s.broken.is_some() {
            return None;
        }
        s.looks_late = 0;
        for round in 0..40_u8 {
            let acts = self.acts(&s);
            let settles = |a: &&Act| !matches!(a, Act::Take(_) | Act::Forged | Act::Released | Act::HelperRestarts | Act::LookLate | Act::Timer);
            for act in acts.iter().filter(settles) {
                if self.acts(&s).contains(act) {
                    s = self.step(&s, *act);
                }
            }
            s.looks_late = round.min(20) / 4;
            self.look(&mut s);
            if s.procs.is_empty() || s.answered {
                return s.broken;
            }
        }
        Some("H-ends")
    }
}

fn release(target: &str) -> ControlMessage {
    ControlMessage {
        version: VERSION,
        kind: ControlKind::Release,
        workload_uid: "workload".into(),
        epoch: Epoch(1),
        issued_ms: NOW_MS,
        expires_ms: NOW_MS + 60_000,
        lease_ms: 0,
        target: Some(target.to_owned()),
    }
}
