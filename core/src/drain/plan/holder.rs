//! A hold under way, look by look. In: the container's processes as they are now, the time. Out: what to do now, each thing once. Left to others:
//! doing it, and that a hold is under way (`worker`).

use super::{HoldPlan, Process, ProcessId, Untold, Worker, plan};
use crate::framework::Signal;
use std::collections::{BTreeMap, BTreeSet};

/// When the last worker has left, what started it mostly ends by itself at once; a script may still do a last thing.
const SCRIPT_LEAVES_MS: u64 = 2_000;
/// A supervisor that was told ends its other programs first: supervisord and pm2 give each up to 10 s.
const SUPERVISOR_LEAVES_MS: u64 = 15_000;

/// Something to do now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HoldAction {
    /// Stop this process for a while (SIGSTOP): it would start the worker again.
    Suspend(ProcessId),
    /// Let it go on (SIGCONT).
    Resume(ProcessId),
    /// Send this signal to this process alone.
    Signal(ProcessId, Signal),
    /// From now on at least one worker process has been told, or is about to be.
    Told,
    /// There are workers, none has a handler: none is told.
    NoHandler,
    /// There are workers, and the kernel refuses to signal them. Whether the kubelet's SIGTERM reaches them as well.
    Refused(bool),
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
    /// Below a worker that was told: never told, even when that one is gone.
    spared: BTreeSet<ProcessId>,
    suspended: BTreeSet<ProcessId>,
    /// They went on once, and a worker came again: they end with their last worker.
    looping: BTreeSet<ProcessId>,
    resumed: BTreeSet<ProcessId>,
    top_told: bool,
    empty_since_ms: Option<u64>,
    said: Option<HoldAction>,
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
            spared: BTreeSet::new(),
            suspended: BTreeSet::new(),
            looping: BTreeSet::new(),
            resumed: BTreeSet::new(),
            top_told: false,
            empty_since_ms: None,
            said: None,
        }
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
        plan(processes, top, &self.framework, &self.signals, !self.told.is_empty())
    }

    /// What to do at this moment of a hold.
    pub fn look(&mut self, processes: &[Process], top: i32, now_ms: u64) -> Vec<HoldAction> {
        let mut actions = Vec::new();
        let Some(plan) = self.plan(processes, top).filter(|_| self.is_held()) else { return actions };
        let is_new = |worker: &&Worker| !self.spared.contains(&worker.id);
        let workers: Vec<Worker> = plan.workers.iter().filter(is_new).cloned().collect();
        // A task may run on below a worker that is gone.
        let orphans = plan.workers.iter().any(|worker| self.spared.contains(&worker.id));
        self.spared.extend(plan.spared.iter().copied().filter(|id| !self.told.contains_key(id)));
        if workers.is_empty() && !orphans {
            self.nobody_works(&plan, now_ms, &mut actions);
            return actions;
        }
        self.empty_since_ms = None;
        self.say(&plan, &workers, &mut actions);
        for worker in &workers {
            self.suspend(worker, &mut actions);
        }
        for worker in &workers {
            self.tell(worker, processes, &mut actions);
        }
        actions
    }

    /// Says who can be told, when that has changed.
    fn say(&mut self, plan: &HoldPlan, workers: &[Worker], actions: &mut Vec<HoldAction>) {
        let word = if workers.iter().any(|w| matches!(w.untold, None | Some(Untold::Starting)) || self.told.contains_key(&w.id)) {
            HoldAction::Told
        } else if workers.iter().any(|w| w.untold == Some(Untold::Refused)) {
            HoldAction::Refused(plan.kubelet_reaches_worker())
        } else if workers.is_empty() {
            return;
        } else {
            HoldAction::NoHandler
        };
        if self.said.as_ref() != Some(&word) {
            self.said = Some(word.clone());
            actions.push(word);
        }
    }

    fn suspend(&mut self, worker: &Worker, actions: &mut Vec<HoldAction>) {
        // What is not told is not to end either: whoever started it goes on.
        let Some(launcher) = worker.launcher.filter(|_| matches!(worker.untold, None | Some(Untold::Starting))) else { return };
        if self.suspended.insert(launcher) {
            if self.resumed.contains(&launcher) {
                self.looping.insert(launcher);
            }
            actions.push(HoldAction::Suspend(launcher));
        }
    }

    fn tell(&mut self, worker: &Worker, processes: &[Process], actions: &mut Vec<HoldAction>) {
        let Some(process) = processes.iter().find(|p| p.id == worker.id).filter(|p| p.permitted) else { return };
        let mut sent = self.told.get(&worker.id).copied().unwrap_or(0);
        while let Some(signal) = self.signals.get(sent).copied().filter(|_| sent < self.released) {
            if process.hears(signal) {
                actions.push(HoldAction::Signal(worker.id, signal));
                sent += 1;
            } else if worker.harmless {
                // It has nothing and would only begin: SIGTERM ends it.
                actions.push(HoldAction::Signal(worker.id, Signal::Term));
                sent = self.signals.len();
            } else {
                break;
            }
        }
        if sent > 0 {
            self.told.insert(worker.id, sent);
        }
    }

    /// The workers have left: then whoever started them goes on, and the supervisor is told.
    fn nobody_works(&mut self, plan: &HoldPlan, now_ms: u64, actions: &mut Vec<HoldAction>) {
        let since_ms = *self.empty_since_ms.get_or_insert(now_ms);
        for launcher in std::mem::take(&mut self.suspended) {
            // It would start a worker again, and none is left whose task its end could cut.
            if self.looping.contains(&launcher) {
                actions.push(HoldAction::Signal(launcher, Signal::Term));
            }
            self.resumed.insert(launcher);
            actions.push(HoldAction::Resume(launcher));
        }
        if plan.top_hears && !self.told.contains_key(&plan.top) && !std::mem::replace(&mut self.top_told, true) {
            actions.push(HoldAction::Signal(plan.top, Signal::Term));
        }
        let patience_ms = if self.top_told { SUPERVISOR_LEAVES_MS } else { SCRIPT_LEAVES_MS };
        if now_ms.saturating_sub(since_ms) >= patience_ms && self.said != Some(HoldAction::Left) {
            self.said = Some(HoldAction::Left);
            actions.push(HoldAction::Left);
        }
    }
}
