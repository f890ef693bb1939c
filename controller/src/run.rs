//! The main loop: one task that owns the state of every workload. In: what watches, brokers and writers say, the clock. Out: lists of actions,
//! performed by tasks of their own, at most one per workload at a time. Left to others: deciding (`workload`), performing (`apply`).

use crate::apply::{Applier, Target, tells_of_scaling};
use crate::brokers::Brokers;
use crate::lease::Leadership;
use crate::marks;
use crate::metrics::Metrics;
use crate::plan::{Action, Failure, Outcome};
use crate::record::DeploymentRecord;
use crate::sizing::Cluster;
use crate::slot::{Links, Slot, Unreachable};
use crate::store::{self, Loaded, UrlError, Urls};
use crate::summary::Snapshot;
use crate::watch::SharedIndex;
use kube::Client;
use qscaler_broker::Reports;
use qscaler_core::scale::QueueSample;
use qscaler_core::scale::budget::DarkBudget;
use qscaler_core::workload::WorkloadId;
use qscaler_runtime::ready::Readiness;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Inputs that may wait: more only means that the loop is behind, and the senders shall feel it.
pub const INPUTS_MAX: usize = 4_096;
/// How often the loop looks whose turn it is; the finest rhythm in here.
const TICK: Duration = Duration::from_millis(25);
/// A workload is looked at this often when nothing happens, milliseconds.
const PERIOD_MS: u64 = 1_000;
/// After a change nothing is done for this long, so that a burst of watch events costs one look, milliseconds.
const SETTLE_MS: u64 = 30;
/// Lists of actions performed at once.
const APPLIES_MAX: usize = 64;
/// Status writes per second in the long run: bounds the load on the API server when thousands of workloads have new figures.
const STATUSES_PER_S: f64 = 100.0;
/// Status writes at once.
const STATUSES_BURST: f64 = 200.0;
/// A QWorker must have been without its workload for this long before it is removed: lists of different kinds come in at different times.
const ORPHAN_MS: u64 = 60_000;
/// How often orphans and the cluster's version are looked for, milliseconds.
const HOUSEKEEPING_MS: u64 = 10_000;
/// A broker that does not remove queues within this keeps them: they are empty and cost nothing.
const REMOVE: Duration = Duration::from_secs(5);
/// Writes under way may finish for this long at shutdown: less than the Lease has left.
const DRAIN: Duration = Duration::from_secs(4);

/// What a broker tells of a workload's queues.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// One sample a queue.
    pub queues: Vec<QueueSample>,
    /// Why the broker gives fewer figures than it could.
    pub gap: Option<Arc<str>>,
}

/// One life of a workload in this process: what a task of an earlier one brings is dropped, also when the Lease was lost and won again between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Life(pub u64);

/// What the loop hears.
#[derive(Debug)]
pub enum Input {
    /// A watch saw a change that touches this workload.
    Changed(WorkloadId),
    /// Its queues were measured, or not and why.
    Sampled(WorkloadId, Result<Measured, String>),
    /// Its pods reported.
    Reports(WorkloadId, Reports),
    /// Its control channel failed.
    ControlFailed(WorkloadId, String),
    /// Its QWorker was read or made.
    Loaded(WorkloadId, Life, Box<Result<Loaded, Failure>>),
    /// Its broker URLs were looked up.
    Resolved(WorkloadId, Life, Result<Urls, Unreachable>),
    /// A list of actions has ended.
    Applied(WorkloadId, Life, Outcome),
    /// The cluster's version is known.
    Version(qscaler_core::size::ClusterVersion),
}

/// Last decisions by workload, for `/debug/decisions`.
pub type Decisions = Arc<Mutex<BTreeMap<WorkloadId, Snapshot>>>;

/// What the loop is made of.
pub struct Parts {
    /// The API server.
    pub client: Client,
    /// The index.
    pub index: SharedIndex,
    /// Connections to brokers.
    pub brokers: Brokers,
    /// Where inputs are sent to.
    pub sender: mpsc::Sender<Input>,
    /// Where they come from.
    pub inputs: mpsc::Receiver<Input>,
    /// Whether we lead.
    pub leadership: Leadership,
    /// Metrics.
    pub metrics: Metrics,
    /// Last decisions.
    pub decisions: Decisions,
    /// This process's name in Events.
    pub instance: String,
    /// Nothing is decided before this.
    pub readiness: Readiness,
}

struct Loop {
    parts: Parts,
    applier: Applier,
    slots: HashMap<WorkloadId, Slot>,
    orphans: HashMap<WorkloadId, u64>,
    /// Slots made so far.
    lives: u64,
    /// Pods that workloads without figures may ask for together.
    dark: DarkBudget,
    cluster: Cluster,
    led: bool,
    filled: bool,
    housekeeping_ms: u64,
    /// Status writes that may be made now; may fall below 0 by those that cannot wait.
    statuses: f64,
    turned_ms: u64,
    tasks: TaskTracker,
    room: Arc<Semaphore>,
}

/// What one look came to.
struct Planned {
    target: Target,
    plan: Vec<Action>,
    /// Its queues cannot be measured now.
    dark: bool,
}

/// Milliseconds since the epoch: the only place where the clock is read for decisions.
fn clock_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Runs until shutdown. Inputs are taken from the start; nothing is decided before the caches are filled.
pub async fn run(parts: Parts, shutdown: CancellationToken) {
    let mut this = Loop::new(parts);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            _ = tick.tick() => this.turn(clock_ms()),
            input = this.parts.inputs.recv() => match input {
                Some(input) => this.hear(input, clock_ms()),
                None => break,
            },
        }
    }
    this.tasks.close();
    // Inputs are not read any more: whoever waits to send one gives up.
    this.parts.inputs.close();
    if tokio::time::timeout(DRAIN, this.tasks.wait()).await.is_err() {
        tracing::warn!("some writes were still under way at the end");
    }
}

impl Loop {
    fn new(parts: Parts) -> Self {
        Self {
            applier: Applier::new(parts.client.clone(), &parts.instance, parts.leadership.clone()),
            slots: HashMap::new(),
            orphans: HashMap::new(),
            lives: 0,
            dark: DarkBudget::new(clock_ms()),
            cluster: Cluster::default(),
            led: false,
            filled: false,
            housekeeping_ms: 0,
            statuses: STATUSES_BURST,
            turned_ms: 0,
            tasks: TaskTracker::new(),
            room: Arc::new(Semaphore::new(APPLIES_MAX)),
            parts,
        }
    }

    fn hear(&mut self, input: Input, now_ms: u64) {
        match input {
            Input::Changed(id) => {
                if let Some(slot) = self.slots.get_mut(&id) {
                    slot.hurry(now_ms.saturating_add(SETTLE_MS));
                } else {
                    self.adopt(&id, now_ms);
                }
            }
            Input::Sampled(id, result) => {
                if result.is_err() {
                    self.parts.metrics.broker_errors.inc();
                }
                let Some(slot) = self.slots.get_mut(&id) else { return };
                slot.sampled(result, now_ms);
            }
            Input::Reports(id, reports) => {
                let Some(slot) = self.slots.get_mut(&id) else { return };
                let view = if reports.reports.is_empty() { None } else { self.parts.index.lock().view(&id) };
                slot.reports(&reports, view.as_ref(), &self.cluster, now_ms);
            }
            Input::ControlFailed(id, problem) => {
                self.parts.metrics.broker_errors.inc();
                let Some(slot) = self.slots.get_mut(&id) else { return };
                slot.control_failed(problem, now_ms);
            }
            Input::Loaded(id, life, result) => {
                if let Some(slot) = self.slots.get_mut(&id).filter(|s| s.life == life) {
                    slot.loaded(*result, &id, now_ms);
                }
            }
            Input::Resolved(id, life, result) => self.resolved(&id, life, result, now_ms),
            Input::Applied(id, life, outcome) => {
                self.parts.metrics.applied(&outcome);
                if let Some(slot) = self.slots.get_mut(&id).filter(|s| s.life == life) {
                    slot.applied(outcome, now_ms);
                }
            }
            Input::Version(version) => self.cluster.version = Some(version),
        }
    }

    fn resolved(&mut self, id: &WorkloadId, life: Life, result: Result<Urls, Unreachable>, now_ms: u64) {
        let Some(slot) = self.slots.get_mut(id).filter(|s| s.life == life) else { return };
        let queries = slot.queries();
        let register =
            |urls: Urls| self.parts.brokers.register(id, &urls.queues, &urls.control, queries).map_err(|e| Unreachable::Mistake(e.to_string()));
        let result = result.and_then(register);
        if result.is_err() {
            self.parts.brokers.deregister(id);
        }
        slot.registered(result, now_ms);
        self.parts.metrics.connections.set(self.parts.brokers.connections() as f64);
    }

    /// A workload that has no slot yet gets one, if it is ours.
    fn adopt(&mut self, id: &WorkloadId, now_ms: u64) {
        if !self.led {
            return;
        }
        let uid = self.parts.index.lock().view(id).map(|v| v.deployment.uid.clone());
        if let Some(uid) = uid {
            tracing::info!(workload = %id, "managed from now on");
            self.lives += 1;
            self.slots.insert(id.clone(), Slot::new(uid, Life(self.lives), now_ms));
        }
    }

    /// Looks at every workload whose turn it is.
    fn turn(&mut self, now_ms: u64) {
        // An index that is half filled would look like a cluster half of whose workloads are gone.
        self.filled |= self.parts.readiness.is_ready();
        let leads = self.filled && self.parts.leadership.holds();
        if leads != self.led {
            tracing::info!(leads, "leadership");
            self.led = leads;
            self.parts.metrics.leader.set(f64::from(u8::from(leads)));
            // What is not led any more is not to be exported as if it were.
            self.slots.drain().for_each(|(id, slot)| {
                slot.end();
                self.parts.metrics.forget(&id.to_string());
            });
            self.parts.brokers.clear();
            self.decisions().clear();
            // A new leader has not looked at the nodes yet.
            self.housekeeping_ms = now_ms;
            let all = if leads { self.parts.index.lock().workloads() } else { Vec::new() };
            all.iter().for_each(|id| self.adopt(id, now_ms));
        }
        let housekeeping = now_ms >= self.housekeeping_ms;
        if housekeeping {
            self.housekeeping_ms = now_ms.saturating_add(HOUSEKEEPING_MS);
            // Whoever does not lead watches all the same.
            self.parts.index.lock().tidy();
        }
        if !leads {
            return;
        }
        if housekeeping {
            self.housekeeping(now_ms);
        }
        let elapsed_s = now_ms.saturating_sub(self.turned_ms) as f64 / 1000.0;
        self.statuses = (self.statuses + elapsed_s * STATUSES_PER_S).min(STATUSES_BURST);
        self.turned_ms = now_ms;
        // Whoever was written longest ago comes first: where there is room for a few, all have their turn.
        let mut due: Vec<(u64, WorkloadId)> =
            self.slots.iter().filter(|(_, s)| s.due_ms <= now_ms).map(|(id, s)| (s.written_ms, id.clone())).collect();
        due.sort_unstable();
        let mut planned: Vec<Planned> = due.into_iter().filter_map(|(_, id)| self.look(&id, now_ms)).collect();
        let mut dark: Vec<&mut Planned> = planned.iter_mut().filter(|p| p.dark && raise(&p.plan) > 0).collect();
        let asks: Vec<u32> = dark.iter().map(|p| raise(&p.plan)).collect();
        for (planned, given) in dark.iter_mut().zip(self.dark.share(&asks, now_ms)) {
            bound_raise(&mut planned.plan, given);
        }
        planned.into_iter().for_each(|p| self.begin(p, now_ms));
        self.parts.metrics.workloads.set(self.slots.len() as f64);
    }

    fn look(&mut self, id: &WorkloadId, now_ms: u64) -> Option<Planned> {
        let view = self.parts.index.lock().view(id);
        let slot = self.slots.get_mut(id)?;
        self.parts.metrics.lateness.observe(now_ms.saturating_sub(slot.due_ms) as f64 / 1000.0);
        slot.due_ms = now_ms.saturating_add(PERIOD_MS);
        let Some(view) = view.filter(|v| v.deployment.uid == slot.uid) else {
            self.abandon(id, now_ms);
            return None;
        };
        if slot.wants_loading(now_ms) {
            let (client, id, uid, life) = (self.parts.client.clone(), id.clone(), slot.uid.clone(), slot.life);
            let sender = self.parts.sender.clone();
            self.tasks.spawn(async move {
                let result = store::load(&client, &id, &uid).await;
                let _ = sender.send(Input::Loaded(id, life, Box::new(result))).await;
            });
            return None;
        }
        match slot.links(&view.deployment, now_ms) {
            Links::Keep => {}
            Links::Drop => self.parts.brokers.deregister(id),
            Links::Resolve => {
                let life = slot.life;
                self.resolve(id, life, &view.deployment);
            }
        }
        let slot = self.slots.get_mut(id)?;
        let (plan, version) = slot.look(&view, &self.cluster, self.statuses >= 1.0, &self.parts.metrics, now_ms)?;
        let dark = slot.is_dark();
        if plan.iter().any(|a| matches!(a, Action::Status(_))) {
            self.statuses -= 1.0;
            slot.written_ms = now_ms;
        }
        if slot.wants_reports() {
            self.parts.brokers.nudge(id);
        }
        if let Some(snapshot) = slot.snapshot(&view) {
            self.decisions().insert(id.clone(), snapshot);
        }
        if plan.is_empty() {
            return None;
        }
        let control = self.parts.brokers.control(id);
        Some(Planned {
            dark,
            plan,
            target: Target { id: id.clone(), deployment_uid: view.deployment.uid.clone(), qworker_version: version, control },
        })
    }

    /// Has a list of actions done, or forgets it where nothing is left of it.
    fn begin(&mut self, planned: Planned, now_ms: u64) {
        let Planned { target, plan, .. } = planned;
        let (applier, sender, room) = (self.applier.clone(), self.parts.sender.clone(), Arc::clone(&self.room));
        let Some(slot) = self.slots.get_mut(&target.id) else { return };
        if plan.is_empty() {
            slot.applied(Outcome::default(), now_ms);
            return;
        }
        let life = slot.life;
        let task = self.tasks.spawn(async move {
            // A closed semaphore would mean that the loop is gone: then nobody waits for the outcome either.
            let Ok(_slot) = room.acquire().await else { return };
            let outcome = applier.run(&target, plan).await;
            let _ = sender.send(Input::Applied(target.id, life, outcome)).await;
        });
        slot.began(task.abort_handle());
    }

    fn resolve(&self, id: &WorkloadId, life: Life, deployment: &Arc<DeploymentRecord>) {
        let (client, id, sender) = (self.parts.client.clone(), id.clone(), self.parts.sender.clone());
        let deployment = Arc::clone(deployment);
        self.tasks.spawn(async move {
            let (Ok(config), Some(worker)) = (&deployment.config, &deployment.worker) else { return };
            let result = store::urls(&client, &id, config, worker).await.map_err(|e| match e {
                UrlError::Missing { .. } => Unreachable::Mistake(e.to_string()),
                UrlError::Read { .. } => Unreachable::Trouble(e.to_string()),
            });
            let _ = sender.send(Input::Resolved(id, life, result)).await;
        });
    }

    /// The workload is gone, or not ours any more: its queues on the broker and its QWorker go too.
    fn abandon(&mut self, id: &WorkloadId, now_ms: u64) {
        tracing::info!(workload = %id, "not managed any more");
        let uid = self.slots.remove(id).map(|slot| slot.uid).unwrap_or_default();
        let control = self.parts.brokers.control(id);
        self.parts.brokers.deregister(id);
        self.parts.metrics.forget(&id.to_string());
        self.decisions().remove(id);
        let client = self.parts.client.clone();
        let gone = id.clone();
        self.tasks.spawn(async move {
            if let Some(control) = control
                && !matches!(tokio::time::timeout(REMOVE, control.remove(&gone)).await, Ok(Ok(())))
            {
                tracing::warn!(workload = %gone, "its control queues could not be removed");
            }
            if let Err(error) = marks::take_back(&client, Some(&gone)).await {
                tracing::warn!(workload = %gone, %error, "marks on its pods could not all be taken back");
            }
            if let Err(error) = store::remove(&client, &gone, Some(&uid)).await {
                tracing::warn!(workload = %gone, ?error, "its QWorker could not be removed");
            }
        });
        // A namesake may be there already.
        self.adopt(id, now_ms);
    }

    fn housekeeping(&mut self, now_ms: u64) {
        let (memory, cpu) = self.parts.index.lock().largest_node();
        (self.cluster.node_memory, self.cluster.node_cpu_m) = (memory, cpu);
        if self.cluster.version.is_none() {
            let (client, sender) = (self.parts.client.clone(), self.parts.sender.clone());
            self.tasks.spawn(async move {
                if let Some(version) = store::cluster_version(&client).await {
                    let _ = sender.send(Input::Version(version)).await;
                }
            });
        }
        let orphans = self.parts.index.lock().orphans();
        self.orphans.retain(|id, _| orphans.contains(id));
        for id in orphans {
            let since = *self.orphans.entry(id.clone()).or_insert(now_ms);
            if now_ms >= since.saturating_add(ORPHAN_MS) {
                let client = self.parts.client.clone();
                self.tasks.spawn(async move {
                    // Nobody took its marks back: it was let go while no controller ran.
                    if let Err(error) = marks::take_back(&client, Some(&id)).await {
                        tracing::warn!(workload = %id, %error, "marks on its pods could not all be taken back");
                    }
                    if let Err(error) = store::remove(&client, &id, None).await {
                        tracing::warn!(workload = %id, ?error, "a left-over QWorker could not be removed");
                    }
                });
            }
        }
    }

    fn decisions(&self) -> std::sync::MutexGuard<'_, BTreeMap<WorkloadId, Snapshot>> {
        self.parts.decisions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bounds a raise to what was given; nothing given: it is asked for again at the next look, and not told before.
fn bound_raise(plan: &mut Vec<Action>, given: u32) {
    for action in plan.iter_mut() {
        if let Action::Scale { from, to, .. } = action {
            *to = (*to).min(from.saturating_add(given));
        }
    }
    let raised = |action: &Action| matches!(action, Action::Scale { from, to, .. } if to > from);
    if !plan.iter().any(raised) {
        plan.retain(|action| !matches!(action, Action::Scale { .. }) && !tells_of_scaling(action));
    }
}

fn raise(plan: &[Action]) -> u32 {
    plan.iter().find_map(|a| if let Action::Scale { from, to, .. } = a { to.checked_sub(*from) } else { None }).unwrap_or(0)
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
