//! One workload: observe, decide, and say what to do. In: the index's view, samples of its queues, reports of its pods, the time. Out: a list of
//! actions and the status. Left to others: performing (`apply`), the decisions themselves (`core::scale`, `core::drain`, `core::size`).

use crate::act::apply::tells_of_scaling;
use crate::act::backoff::ActionBackoff;
use crate::act::echo::Echo;
use crate::act::plan::is_token;
use crate::act::plan::{Action, Done, Failure, ListOutcome, Notice};
use crate::drain::facts::record;
use crate::drain::replacing::Replacing;
use crate::due::{Checkpoints, FORGET_EVERY_MS, WriteRoom};
use crate::mark::pods::Keep;
use crate::observe::cluster::{Cluster, KeyName};
use crate::observe::cuts::Cuts;
use crate::observe::index::View;
use crate::observe::pools::SharedPool;
use crate::observe::reports::Intake;
use crate::show::conditions::{Conditions, Holds};
use crate::show::lasting::Lasting;
use crate::show::status_writer::{Digest, Writer};
use crate::show::tally::{SizeFigures, Tally, Totals};
use crate::size::bounds::size_bounds;
use crate::size::sizing::{Sizing, resize_notices};
use qscaler_api::{ContainerSize, Counters, Intent, QWorkerStatus, UnheldPod, WorkerIds};
use qscaler_core::config::WorkerConfig;
use qscaler_core::cut::CutCause;
use qscaler_core::drain::contest::Contest;
use qscaler_core::drain::fleet::{FleetMachine, FleetSettings, Phase, Releases, Silent};
use qscaler_core::names::condition;
use qscaler_core::scale::seen::Starts;
use qscaler_core::scale::{FleetSample, Learned, QueueSample, ScaleDecision};
use qscaler_core::workload::{WorkloadId, WorkloadUid};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Events that wait to be told: where the API server takes none for long the oldest are dropped.
const NOTICES_MAX: usize = 50;

/// One managed workload.
#[derive(Debug)]
pub struct Workload {
    pub(crate) id: WorkloadId,
    pub(crate) uid: WorkloadUid,
    pub(crate) config: Option<Arc<WorkerConfig>>,
    pub(crate) machine: FleetMachine,
    pub(crate) learned: Learned,
    pub(crate) intake: Intake,
    pub(crate) cuts: Cuts,
    pub(crate) sizing: Option<Sizing>,
    /// What an earlier life knew of sizes and of the worker's process.
    saved: (BTreeMap<String, ContainerSize>, Option<WorkerIds>),
    pub(crate) conditions: Conditions,
    pub(crate) counters: Counters,
    pub(crate) tally: Tally,
    /// The working container's size as shown last.
    pub(crate) sized: SizeFigures,
    pub(crate) writer: Writer,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) samples: Option<Vec<QueueSample>>,
    /// The others that take from its queues; None: nobody does.
    pub(crate) pool: Option<SharedPool>,
    pub(crate) broker: Broker,
    pub(crate) decision: Option<ScaleDecision>,
    pub(crate) decided_ms: u64,
    pub(crate) law_ms: u64,
    pub(crate) starts: Starts,
    pub(crate) fleet: FleetSample,
    /// Where the drain stands.
    pub(crate) phase: Phase,
    /// Why nothing may be lowered.
    pub(crate) blocked: Option<String>,
    /// Why fewer pods are asked for than are wanted.
    pub(crate) not_raised: Option<String>,
    /// The last scaling.
    pub(crate) scaled: Option<Echo>,
    pub(crate) keep: Keep,
    pub(crate) replacing: Replacing,
    backoff: ActionBackoff,
    /// Others that write the replica count.
    pub(crate) contest: Contest,
    /// Orders to end holds.
    pub(crate) releases: Releases,
    /// Who else sizes the pods: the condition's reason, and a sentence.
    pub(crate) other_sizer: Option<(&'static str, String)>,
    /// Since when what is said only when it lasts has lasted.
    pub(crate) lasting: Lasting,
    /// Pods whose hold is less than whole, as said last.
    pub(crate) unheld: u32,
    /// Some of those.
    pub(crate) unheld_pods: Vec<UnheldPod>,
    /// Pods that believe unsigned control messages.
    pub(crate) unsigned: u32,
    /// By which key control messages are signed, as known at the last look.
    pub(crate) control_key: Option<KeyName>,
    /// When reports were last fetched.
    pub(crate) reports_ms: u64,
    /// Pods that may have parked without having been heard to say so.
    pub(crate) silent: Silent,
    /// The law has learned something since it was saved.
    pub(crate) law_learned: bool,
    pub(crate) notices: Vec<Notice>,
    /// What the status write under way says, and of which containers.
    pub(crate) pending_status: Option<(Digest, Vec<String>)>,
    forgot_ms: u64,
}

/// What is known of the workload's broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Broker {
    /// Why there is no URL: for the user to change.
    pub(crate) mistake: Option<String>,
    /// Why the queues cannot be measured.
    pub(crate) queues: Option<String>,
    /// Why they can be measured in part only.
    pub(crate) gap: Option<Arc<str>>,
    /// Why the control channel cannot be used.
    pub(crate) control: Option<String>,
    /// It has answered once.
    pub(crate) answered: bool,
    /// Messages that wait in all queues, and those that are in flight, as the broker said last; None: it does not say.
    pub(crate) messages: (Option<u64>, Option<u64>),
    /// When it last answered.
    pub(crate) good_ms: u64,
}

/// What to do now, and when to look again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In order.
    pub actions: Vec<Action>,
    /// Look again then, if nothing happens before.
    pub wake_ms: Option<u64>,
    /// The rule by which the law has decided, if it was asked.
    pub decided: Option<&'static str>,
}

impl Workload {
    /// A workload as an earlier life left it.
    #[must_use]
    pub fn restore(id: WorkloadId, uid: WorkloadUid, mut saved: QWorkerStatus, now_ms: u64) -> Self {
        let intent = saved.intent.as_ref().map(record);
        let learned = saved.learned.take().and_then(|l| serde_json::from_value(l).ok()).unwrap_or_default();
        Self {
            machine: FleetMachine::restore(FleetSettings::of(&uid, None), intent),
            config: None,
            learned,
            intake: Intake::restore(&saved.counted_cuts),
            cuts: Cuts::default(),
            sizing: None,
            conditions: Conditions::restore(&saved.conditions),
            counters: saved.counters.clone(),
            tally: Tally::default(),
            sized: SizeFigures::default(),
            writer: Writer::restore(&saved),
            checkpoints: Checkpoints::restore(saved.counters.cut, now_ms),
            samples: None,
            pool: None,
            broker: Broker { good_ms: now_ms, ..Broker::default() },
            decision: None,
            decided_ms: now_ms,
            law_ms: 0,
            starts: Starts::default(),
            fleet: FleetSample::default(),
            phase: Phase::Idle,
            blocked: None,
            not_raised: None,
            forgot_ms: 0,
            scaled: None,
            keep: Keep::new(now_ms),
            replacing: Replacing::default(),
            backoff: ActionBackoff::default(),
            contest: Contest::default(),
            releases: Releases::default(),
            other_sizer: None,
            lasting: Lasting::new(now_ms),
            unheld: u32::try_from(saved.unheld).unwrap_or(0),
            unheld_pods: std::mem::take(&mut saved.unheld_pods),
            unsigned: 0,
            control_key: None,
            reports_ms: 0,
            silent: Silent::default(),
            law_learned: false,
            notices: Vec::new(),
            pending_status: None,
            saved: (saved.sizes, saved.worker_ids),
            id,
            uid,
        }
    }

    /// UID of the Deployment that this is the state of.
    #[must_use]
    pub fn uid(&self) -> &WorkloadUid {
        &self.uid
    }

    /// The queues were measured, in the order of the configuration.
    pub fn sampled(&mut self, samples: Vec<QueueSample>, now_ms: u64) {
        let messages = (samples.iter().map(|s| s.ready).sum(), samples.iter().map(|s| s.unacked).sum());
        self.samples = Some(samples);
        self.broker =
            Broker { messages, mistake: None, queues: None, gap: None, answered: true, good_ms: now_ms, control: self.broker.control.take() };
    }

    /// From now on its queues are these others' too, or its own alone.
    pub fn share(&mut self, pool: Option<SharedPool>) {
        self.pool = pool;
    }

    /// The broker gave fewer figures than it could, and why.
    pub fn partly(&mut self, gap: Option<Arc<str>>) {
        self.broker.gap = gap;
    }

    /// The queues could not be measured.
    pub fn unmeasured(&mut self, problem: String) {
        self.samples = None;
        self.broker.queues = Some(problem);
    }

    /// The broker's URL cannot be had until someone changes something.
    pub fn mistaken(&mut self, problem: String) {
        self.unmeasured(problem.clone());
        self.broker.mistake = Some(problem);
    }

    /// The control channel works, and every report that was in it by now has been handed over.
    pub fn fetched(&mut self, now_ms: u64) {
        self.broker.control = None;
        self.reports_ms = now_ms;
        self.lasting.channel_works(now_ms);
    }

    /// The control channel does not work.
    pub fn unfetched(&mut self, problem: String) {
        self.broker.control = Some(problem);
        self.lasting.channel_fails();
    }

    /// Messages that did not parse.
    pub fn malformed(&mut self, n: u64) {
        self.counters.malformed_messages += n;
    }

    /// Somebody else has written the QWorker, or made it anew: all of ours is written again, and the wave starts over.
    pub fn unwritten(&mut self, saved: Option<&Intent>) {
        self.writer = Writer::default();
        self.checkpoints = Checkpoints::default();
        self.machine.distrust(saved.map(record));
    }

    /// Looks at everything and says what to do.
    pub fn look(&mut self, view: &View, cluster: &Cluster, saving: WriteRoom, now_ms: u64) -> Plan {
        self.control_key = cluster.control_key;
        self.configure(view, now_ms);
        if now_ms >= self.forgot_ms.saturating_add(FORGET_EVERY_MS) {
            self.forgot_ms = now_ms;
            self.forget(view);
        }
        let mut actions = Vec::new();
        let Some(config) = self.config.clone() else {
            self.mistakes(view, now_ms);
            actions.extend(self.keep.take_back(view, now_ms));
            self.finish(view, None, saving, &mut actions, now_ms);
            actions.extend(std::mem::take(&mut self.notices).into_iter().map(Action::Event));
            return Plan { actions, ..Plan::default() };
        };
        let bounds = size_bounds(&config, view, cluster);
        self.sizes(&bounds, view, cluster, now_ms);
        self.untold_cuts(view, now_ms);
        let decided = self.law(&config, view, now_ms);
        let wake_ms = self.drain(&config, view, &mut actions, now_ms);
        self.release(view, &mut actions, now_ms);
        let resizes = self.resize(&config, &bounds, view, cluster, now_ms);
        self.finish(view, Some((&config, &bounds)), saving, &mut actions, now_ms);
        actions.extend(resizes);
        if config.changes_nothing() {
            actions.extend(self.keep.take_back(view, now_ms));
        } else {
            actions.extend(self.keep.step(view, &self.intake, now_ms));
        }
        let events = std::mem::take(&mut self.notices).into_iter().map(Action::Event);
        actions.extend(events);
        self.hold_back(&mut actions, now_ms);
        Plan { actions, wake_ms, decided }
    }

    /// Forgets pods that are gone.
    fn forget(&mut self, view: &View) {
        let uids: HashSet<&str> = view.pods.iter().chain(&view.finished).map(|p| p.uid.as_ref()).collect();
        self.intake.retain(&uids);
        self.cuts.retain(&uids);
        self.keep.retain(&uids);
        if let Some(sizing) = self.sizing.as_mut() {
            sizing.retain(&uids);
        }
    }

    /// What an earlier life knew of the worker's UID and GID.
    pub(crate) fn known_ids(&self) -> Option<WorkerIds> {
        self.saved.1
    }

    /// What an earlier life knew of sizes.
    pub(crate) fn known_sizes(&self) -> &BTreeMap<String, ContainerSize> {
        &self.saved.0
    }

    fn configure(&mut self, view: &View, now_ms: u64) {
        let config = view.deployment.config.as_ref().ok();
        let same = match (config, self.config.as_ref()) {
            (Some(new), Some(old)) => Arc::ptr_eq(new, old) || new == old,
            (new, old) => new.is_none() && old.is_none(),
        };
        if !same {
            self.config = config.cloned();
            self.machine.set_settings(FleetSettings::of(&self.uid, self.config.as_deref()));
        }
        let container = view.deployment.worker.as_ref().map(|w| w.container.as_str());
        // While the annotations are wrong no container is known, and what was learned stays.
        if let Some(name) = container.filter(|c| self.sizing.as_ref().is_none_or(|s| s.container() != *c)) {
            self.sizing = Some(Sizing::restore(name, self.saved.0.get(name), now_ms as f64 / 1000.0));
        }
    }

    /// The annotations are wrong: say so, and touch nothing.
    fn mistakes(&mut self, view: &View, now_ms: u64) {
        let errors: Vec<String> = view.deployment.config.as_ref().err().into_iter().flatten().map(ToString::to_string).collect();
        self.set(view, condition::READY, false, "InvalidConfig", errors.join("\n"), now_ms);
        self.set(view, condition::SCALING, false, "InvalidConfig", "the annotations have mistakes, so the workload is left alone", now_ms);
        self.decision = None;
        (self.phase, self.blocked, self.not_raised) = (Phase::Idle, None, None);
    }

    pub(crate) fn set(
        &mut self,
        view: &View,
        kind: &'static str,
        holds: impl Into<Holds>,
        reason: &'static str,
        message: impl Into<Cow<'static, str>>,
        now_ms: u64,
    ) {
        let notice = self.conditions.set(kind, holds, reason, message, view.deployment.generation, now_ms);
        self.notices.extend(notice);
    }

    /// Counters for metrics, since the workload is known.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            added: self.counters.scaled_up,
            removed: self.counters.scaled_down,
            cuts: CutCause::ALL.map(|cause| self.counters.cut_by.get(cause.name()).copied().unwrap_or(0)),
            oom_kills: self.sizing.as_ref().map_or(self.counters.oom_kills, Sizing::oom_kills),
            malformed: self.counters.malformed_messages,
        }
    }

    /// Takes out of the list what waits after failures, with all that hangs on it.
    fn hold_back(&mut self, actions: &mut Vec<Action>, now_ms: u64) {
        let held = self.backoff.hold(actions, now_ms);
        if held.is_empty() {
            return;
        }
        if held.iter().any(|a| matches!(a, Action::Scale { .. })) {
            actions.retain(|a| !tells_of_scaling(a));
        }
        if held.iter().any(|a| matches!(a, Action::Status(_))) {
            self.pending_status = None;
        }
        if held.iter().any(of_a_wave) {
            actions.retain(|a| !of_a_wave(a));
            self.machine.distrust(None);
        }
    }

    /// What came of the last list.
    pub fn applied(&mut self, outcome: &ListOutcome, now_ms: u64) {
        self.backoff.heard(outcome, now_ms);
        for (action, done) in &outcome.done {
            match (action, done) {
                (Action::Scale { resource_version, from, to }, _) => {
                    self.contest.wrote(*to);
                    self.scaled = Some(Echo::new(resource_version, now_ms));
                    self.counters.scaled_up += u64::from(to.saturating_sub(*from));
                    self.counters.scaled_down += u64::from(from.saturating_sub(*to));
                    if to < from {
                        self.tally.lowered(from - to, now_ms);
                    }
                }
                (Action::Resize { pod, from, .. }, Done::Yes) => {
                    self.counters.resized += 1;
                    if let Some(sizing) = self.sizing.as_mut() {
                        sizing.resized(pod, from, now_ms);
                    }
                }
                (Action::Resize { pod, to, .. }, Done::Refused(cause, _)) => {
                    if let Some(sizing) = self.sizing.as_mut() {
                        sizing.refused(pod, to, *cause, now_ms);
                    }
                }
                (Action::SetCost { pod, .. } | Action::Mark { pod, .. }, _) => self.keep.written(pod, now_ms),
                (Action::Status(_), _) => {
                    if let Some((digest, containers)) = self.pending_status.take() {
                        self.writer.written(digest, containers, now_ms);
                    }
                }
                (Action::Checkpoint(saved), _) => {
                    self.checkpoints.written(saved, now_ms);
                    self.law_learned = false;
                    if let Some(sizing) = self.sizing.as_mut() {
                        sizing.saved();
                    }
                }
                _ => {}
            }
        }
        self.pending_status = None;
        // Whether the broker or the API server has got it is not known, and a token that is not sent is never waited for.
        if outcome.left.iter().any(of_a_wave) {
            self.machine.distrust(None);
        }
        self.notices.extend(resize_notices(outcome.done.iter().filter(|(_, done)| *done == Done::Yes).map(|(action, _)| action)));
        // What was to be told is still true, but for what was not done.
        let told_later = |a: &Action| if let (Action::Event(notice), false) = (a, tells_of_scaling(a)) { Some(notice.clone()) } else { None };
        self.notices.extend(outcome.left.iter().filter_map(told_later));
        let too_many = self.notices.len().saturating_sub(NOTICES_MAX);
        self.notices.drain(..too_many);
        if let Some(Failure::Other(problem)) = &outcome.failed {
            tracing::warn!(workload = %self.id, problem, "not everything could be done; it is tried again");
        }
    }
}

fn of_a_wave(action: &Action) -> bool {
    matches!(action, Action::SaveIntent(_)) || is_token(action)
}

#[cfg(test)]
#[path = "workload_tests.rs"]
mod tests;
