//! A hold under way, look by look. In: the container's processes as they are now, the time. Out: what to do now, each thing once. Left to others:
//! doing it, and that a hold is under way (`worker`).

use super::{Before, HoldPlan, Process, ProcessId, Untold, Worker, plan};
use crate::drain::worker::Telling;
use crate::framework::Signal;
use std::collections::{BTreeMap, BTreeSet};

/// When the last worker has left, what started it mostly ends by itself at once.
const SCRIPT_LEAVES_MS: u64 = 2_000;
/// A supervisor that was told ends its other programs first: supervisord and pm2 give each up to 10 s.
pub(super) const SUPERVISOR_LEAVES_MS: u64 = 15_000;

/// Something to do now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HoldAction {
    /// Stop this process for a while (SIGSTOP): it would start the worker again.
    Suspend(ProcessId),
    /// Let it go on (SIGCONT).
    Resume(ProcessId),
    /// Send this signal to this process alone.
    Signal(ProcessId, Signal),
    /// End this process (SIGKILL): it has started a worker again after its SIGTERM, and no worker is left.
    Kill(ProcessId),
    /// Who can be told, for the machine.
    Say(Telling),
    /// No worker process is left, and the top process has had its time.
    Left,
}

/// What the workers of this container were told so far.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    framework: String,
    signals: Vec<Signal>,
    /// So many of the signals may go out.
    released: usize,
    told: BTreeMap<ProcessId, usize>,
    /// Every worker seen in this hold: until it is gone it works, even when it has closed its connection to leave.
    known: BTreeSet<ProcessId>,
    /// Below a worker that was told: never told, even when that one is gone.
    spared: BTreeSet<ProcessId>,
    suspended: BTreeSet<ProcessId>,
    resumed: BTreeSet<ProcessId>,
    /// What stands above the workers and has a handler for SIGTERM.
    supervisors: BTreeMap<ProcessId, Supervisor>,
    empty_since_ms: Option<u64>,
    said: Option<Telling>,
    has_left: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Supervisor {
    /// Its name, which another program would change that it executes in its place.
    comm: String,
    /// It was told.
    told: bool,
}

impl Holder {
    /// Nobody is told anything yet.
    #[must_use]
    pub fn new(framework: String, signals: Vec<Signal>) -> Self {
        Self {
            framework,
            signals,
            released: 0,
            told: BTreeMap::new(),
            known: BTreeSet::new(),
            spared: BTreeSet::new(),
            suspended: BTreeSet::new(),
            resumed: BTreeSet::new(),
            supervisors: BTreeMap::new(),
            empty_since_ms: None,
            said: None,
            has_left: false,
        }
    }

    /// The same for another top process: it has been told nothing.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::new(self.framework.clone(), self.signals.clone())
    }

    /// The next of the signals may go out.
    pub fn release(&mut self) {
        self.released = (self.released + 1).min(self.signals.len());
    }

    /// Whether any signal may go out: a hold is under way.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.released > 0
    }

    /// The plan of this moment; None: the top process is not there.
    #[must_use]
    pub fn plan(&self, processes: &[Process], top: i32) -> Option<HoldPlan> {
        let above = |p: &&Process| self.supervisors.get(&p.id).is_some_and(|supervisor| supervisor.comm == p.comm);
        let above = processes.iter().filter(above).map(|p| p.id).collect();
        plan(processes, top, &self.framework, &self.signals, Before { told: !self.told.is_empty(), above: &above })
    }

    /// What to do at this moment of a hold.
    pub fn look(&mut self, processes: &[Process], top: i32, now_ms: u64) -> Vec<HoldAction> {
        let mut actions = Vec::new();
        let Some(plan) = self.plan(processes, top).filter(|_| self.is_held()) else { return actions };
        // Who has started a worker is none, whatever it looks like when that one is gone.
        let is_launcher = |id: &ProcessId| self.suspended.contains(id) || self.resumed.contains(id);
        let is_worker = |worker: &&Worker| !self.spared.contains(&worker.id) && !is_launcher(&worker.id);
        let workers: Vec<Worker> = plan.workers.iter().filter(is_worker).cloned().collect();
        // A task may run on below a worker that is gone.
        let orphans = plan.workers.iter().any(|worker| self.spared.contains(&worker.id));
        let leaving = processes.iter().any(|process| self.known.contains(&process.id) && !is_launcher(&process.id));
        self.spared.extend(plan.spared.iter().copied().filter(|id| !self.known.contains(id)));
        self.known.extend(workers.iter().filter(|worker| !worker.is_shell || worker.untold.is_none()).map(|worker| worker.id));
        let above = |id: &ProcessId| !self.known.contains(id) && !self.suspended.contains(id);
        let new: Vec<ProcessId> = plan.supervisors.iter().copied().filter(above).collect();
        for process in processes.iter().filter(|process| new.contains(&process.id)) {
            let supervisor = self.supervisors.entry(process.id).or_insert_with(|| Supervisor { comm: process.comm.clone(), told: false });
            supervisor.comm.clone_from(&process.comm);
        }
        if workers.is_empty() && !orphans && !leaving {
            self.nobody_works(processes, now_ms, &mut actions);
            return actions;
        }
        self.empty_since_ms = None;
        // Whoever starts workers again is told while those that it has started can have nothing.
        if !self.told.is_empty() && !orphans && workers.iter().all(|worker| worker.harmless) {
            self.tell_supervisors(processes, &mut actions);
        }
        self.say(&plan, &workers, &mut actions);
        for worker in &workers {
            self.suspend(worker, &mut actions);
        }
        for process in processes {
            match workers.iter().find(|worker| worker.id == process.id) {
                Some(worker) => self.tell(process, worker.harmless, &mut actions),
                // It has had the first signals, and looks like no worker any more.
                None if self.told.contains_key(&process.id) => self.tell(process, false, &mut actions),
                None => {}
            }
        }
        actions
    }

    /// Says who can be told, when that has changed.
    fn say(&mut self, plan: &HoldPlan, workers: &[Worker], actions: &mut Vec<HoldAction>) {
        let word = if workers.iter().any(|w| matches!(w.untold, None | Some(Untold::Starting)) || self.told.contains_key(&w.id)) {
            Telling::Told
        } else if workers.iter().any(|w| w.untold == Some(Untold::Refused)) {
            Telling::Refused { kubelet_reaches: plan.kubelet_reaches_worker() }
        } else if workers.is_empty() {
            return;
        } else {
            Telling::NoHandler
        };
        if self.said != Some(word) {
            self.said = Some(word);
            actions.push(HoldAction::Say(word));
        }
    }

    fn suspend(&mut self, worker: &Worker, actions: &mut Vec<HoldAction>) {
        // What is not told is not to end either: whoever started it goes on.
        if !matches!(worker.untold, None | Some(Untold::Starting)) {
            return;
        }
        for launcher in &worker.launchers {
            if self.suspended.insert(*launcher) {
                actions.push(HoldAction::Suspend(*launcher));
            }
        }
    }

    fn tell(&mut self, process: &Process, harmless: bool, actions: &mut Vec<HoldAction>) {
        if !process.permitted {
            return;
        }
        let mut sent = self.told.get(&process.id).copied().unwrap_or(0);
        while let Some(signal) = self.signals.get(sent).copied().filter(|_| sent < self.released) {
            let signal = process.meant(signal, &self.framework);
            if process.hears(signal) {
                actions.push(HoldAction::Signal(process.id, signal));
                sent += 1;
            } else if harmless {
                // It has nothing and would only begin: SIGTERM ends it.
                actions.push(HoldAction::Signal(process.id, Signal::Term));
                sent = self.signals.len();
            } else {
                break;
            }
        }
        if sent > 0 {
            self.told.insert(process.id, sent);
        }
    }

    /// The workers have left: then whoever started them is told as well, and goes on.
    fn nobody_works(&mut self, processes: &[Process], now_ms: u64, actions: &mut Vec<HoldAction>) {
        let since_ms = *self.empty_since_ms.get_or_insert(now_ms);
        for launcher in std::mem::take(&mut self.suspended) {
            // It might start a worker again, which could take a task; its own end cuts none any more.
            if self.resumed.insert(launcher) {
                actions.push(HoldAction::Signal(launcher, Signal::Term));
                actions.push(HoldAction::Resume(launcher));
            } else {
                actions.push(HoldAction::Kill(launcher));
            }
        }
        self.tell_supervisors(processes, actions);
        let is_told = |id: &ProcessId| self.supervisors.get(id).is_some_and(|supervisor| supervisor.told) || self.resumed.contains(id);
        let patience_ms = if processes.iter().any(|process| is_told(&process.id)) { SUPERVISOR_LEAVES_MS } else { SCRIPT_LEAVES_MS };
        if now_ms.saturating_sub(since_ms) >= patience_ms && !std::mem::replace(&mut self.has_left, true) {
            actions.push(HoldAction::Left);
        }
    }

    fn tell_supervisors(&mut self, processes: &[Process], actions: &mut Vec<HoldAction>) {
        for (id, supervisor) in &mut self.supervisors {
            let hears = processes.iter().any(|p| p.id == *id && p.permitted && p.hears(Signal::Term));
            if hears && !self.known.contains(id) && !std::mem::replace(&mut supervisor.told, true) {
                actions.push(HoldAction::Signal(*id, Signal::Term));
            }
        }
    }

    /// Whether a supervisor that cannot be suspended may start a worker again at any moment: then looks are to be short.
    #[must_use]
    pub fn is_restless(&self) -> bool {
        self.is_held() && !(self.supervisors.is_empty() && self.resumed.is_empty())
    }
}
