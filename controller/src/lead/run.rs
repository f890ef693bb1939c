//! The main loop: one task that owns the state of every workload. In: what watches, brokers and writers say, the clock. Out: lists of actions,
//! performed by tasks of their own, at most one per workload at a time. Left to others: deciding (`workload`), performing (`apply`).

use crate::act::apply::{Applier, Target};
use crate::act::evict::{IdleBooks, evict};
use crate::act::plan::{Action, ListOutcome};
use crate::act::qworker;
use crate::act::raise::{bound_raise, raise};
use crate::clock::{LoopClock, Reading};
use crate::input::{Input, Life, Unreachable};
use crate::lead::lease::Leadership;
use crate::lead::managed::{Links, Managed};
use crate::mark::sweep;
use crate::observe::brokers::Brokers;
use crate::observe::cluster::{Cluster, cluster_version, key_name};
use crate::observe::index::View;
use crate::observe::pools::{Pools, identities};
use crate::observe::record::DeploymentRecord;
use crate::observe::urls::{self, NoUrls, Urls};
use crate::observe::watch::SharedIndex;
use crate::show::fleet::SharedFleet;
use crate::show::metrics::Metrics;
use kube::Client;
use qscaler_broker::signing::Signer;
use qscaler_core::config::WorkerConfig;
use qscaler_core::replace::{Ask, Budget};
use qscaler_core::scale::budget::DarkBudget;
use qscaler_core::workload::{ControlAddress, WorkloadId};
use qscaler_runtime::ready::Readiness;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
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
/// Writes of statuses and checkpoints per second in the long run: bounds the load on the API server when thousands of workloads have new figures.
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

/// What the loop is made of.
pub struct Parts {
    /// The API server.
    pub client: Client,
    /// The same, through a client that never tries again by itself.
    pub evictions: Client,
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
    /// What is known of the fleet, for whoever asks this process.
    pub fleet: SharedFleet,
    /// This process's name in Events.
    pub instance: String,
    /// Nothing is decided before this.
    pub readiness: Readiness,
    /// Signs control messages.
    pub signer: Signer,
    /// Image of the sidecar that new pods get; None: not known, so no pod is replaced for its own.
    pub sidecar_image: Option<String>,
}

struct Loop {
    parts: Parts,
    applier: Applier,
    managed: HashMap<WorkloadId, Managed>,
    /// Who takes from the same queues.
    pools: Pools,
    orphans: HashMap<WorkloadId, u64>,
    /// Slots made so far.
    lives: u64,
    /// Pods that workloads without figures may ask for together.
    dark: DarkBudget,
    /// Pods that all workloads together may replace.
    replace: Budget,
    cluster: Cluster,
    clock: LoopClock,
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

/// Runs until shutdown. Inputs are taken from the start; nothing is decided before the caches are filled.
pub async fn run(parts: Parts, shutdown: CancellationToken) {
    let mut this = Loop::new(parts);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            _ = tick.tick() => {
                let now_ms = this.now_ms();
                this.turn(now_ms);
            }
            input = this.parts.inputs.recv() => {
                let Some(input) = input else { break };
                let now_ms = this.now_ms();
                this.hear(input, now_ms);
            }
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
        let mut clock = LoopClock::default();
        let now_ms = clock.read().now_ms;
        Self {
            applier: Applier::new(parts.client.clone(), &parts.instance, parts.leadership.clone()),
            managed: HashMap::new(),
            pools: Pools::default(),
            orphans: HashMap::new(),
            lives: 0,
            dark: DarkBudget::new(now_ms),
            replace: Budget::new(now_ms),
            cluster: Cluster::default(),
            clock,
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

    fn now_ms(&mut self) -> u64 {
        let reading = self.clock.read();
        self.at(reading)
    }

    /// The time of a reading. Where the wall clock was set, everything known of workloads has times of before: it starts over, as for a new leader.
    fn at(&mut self, reading: Reading) -> u64 {
        let Reading { now_ms, set_by_ms } = reading;
        if set_by_ms != 0 {
            tracing::warn!(set_by_ms, "the clock was set: every workload is read anew");
            (self.led, self.housekeeping_ms, self.turned_ms) = (false, now_ms, now_ms);
            (self.dark, self.replace) = (DarkBudget::new(now_ms), Budget::new(now_ms));
            self.orphans.clear();
        }
        now_ms
    }

    fn hear(&mut self, input: Input, now_ms: u64) {
        match input {
            Input::Changed(id) => {
                if let Some(managed) = self.managed.get_mut(&id) {
                    managed.hurry(now_ms.saturating_add(SETTLE_MS));
                } else {
                    self.adopt(&id, now_ms);
                }
            }
            Input::Sampled(id, result) => {
                let Some(managed) = self.managed.get_mut(&id) else { return };
                managed.sampled(result, now_ms);
            }
            Input::Reports(id, reports) => {
                let Some(managed) = self.managed.get_mut(&id) else { return };
                let view = if reports.reports.is_empty() { None } else { self.parts.index.lock().view(&id) };
                managed.reports(&reports, view.as_ref(), &self.cluster, now_ms);
            }
            Input::ControlFailed(id, problem) => {
                let Some(managed) = self.managed.get_mut(&id) else { return };
                managed.control_failed(problem, now_ms);
            }
            Input::Loaded(id, life, result) => {
                if let Some(managed) = self.managed.get_mut(&id).filter(|s| s.life == life) {
                    managed.loaded(*result, &id, now_ms);
                }
            }
            Input::Resolved(id, life, result) => self.resolved(&id, life, result, now_ms),
            Input::Applied(id, life, outcome) => {
                self.parts.metrics.applied(&outcome);
                if let Some(managed) = self.managed.get_mut(&id).filter(|s| s.life == life) {
                    managed.applied(outcome, now_ms);
                }
            }
            Input::Replaced(id, life, ask, tried) => {
                let view = self.parts.index.lock().view(&id);
                let managed = self.managed.get_mut(&id).filter(|s| s.life == life);
                let evicted = managed.zip(view).is_some_and(|(managed, view)| managed.tried(&ask, tried, &view, now_ms));
                if !evicted {
                    self.replace.give_back();
                }
            }
            Input::Version(version) => self.cluster.version = Some(version),
        }
    }

    fn resolved(&mut self, id: &WorkloadId, life: Life, result: Result<Urls, Unreachable>, now_ms: u64) {
        let Some(managed) = self.managed.get_mut(id).filter(|s| s.life == life) else { return };
        let queries = managed.queries();
        let address = ControlAddress::new(id, &managed.uid);
        let queues = result.as_ref().map(|urls| identities(id, &urls.queues, &queries)).unwrap_or_default();
        let register =
            |urls: Urls| self.parts.brokers.register(&address, &urls.queues, &urls.control, queries).map_err(|e| Unreachable::Mistake(e.to_string()));
        let result = result.and_then(register);
        match &result {
            Ok(()) => self.pools.join(id, queues),
            Err(_) => self.deregister(id),
        }
        let Some(managed) = self.managed.get_mut(id) else { return };
        managed.registered(result, now_ms);
        self.parts.metrics.connections.set(self.parts.brokers.connections() as f64);
    }

    /// It is not measured any more, and shares its queues with nobody.
    fn deregister(&mut self, id: &WorkloadId) {
        self.parts.brokers.deregister(id);
        self.pools.leave(id);
    }

    /// A workload that has no managed yet gets one, if it is ours.
    fn adopt(&mut self, id: &WorkloadId, now_ms: u64) {
        if !self.led {
            return;
        }
        let uid = self.parts.index.lock().view(id).map(|v| v.deployment.uid.clone());
        if let Some(uid) = uid {
            tracing::info!(workload = %id, "managed from now on");
            self.lives += 1;
            self.managed.insert(id.clone(), Managed::new(uid, Life(self.lives), now_ms));
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
            self.managed.drain().for_each(|(_, managed)| managed.end());
            self.parts.brokers.clear();
            self.pools.clear();
            self.parts.fleet.lock().leads(leads);
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
        self.cluster.control_key = self.parts.signer.public().as_deref().and_then(key_name);
        let elapsed_s = now_ms.saturating_sub(self.turned_ms) as f64 / 1000.0;
        self.statuses = (self.statuses + elapsed_s * STATUSES_PER_S).min(STATUSES_BURST);
        self.turned_ms = now_ms;
        // Whoever was written longest ago comes first: where there is room for a few, all have their turn.
        let mut due: Vec<(u64, WorkloadId)> =
            self.managed.iter().filter(|(_, s)| s.due_ms <= now_ms).map(|(id, s)| (s.written_ms, id.clone())).collect();
        due.sort_unstable();
        let mut planned: Vec<Planned> = due.into_iter().filter_map(|(_, id)| self.look(&id, now_ms)).collect();
        let mut dark: Vec<&mut Planned> = planned.iter_mut().filter(|p| p.dark && raise(&p.plan) > 0).collect();
        let asks: Vec<u32> = dark.iter().map(|p| raise(&p.plan)).collect();
        for (planned, given) in dark.iter_mut().zip(self.dark.share(&asks, now_ms)) {
            bound_raise(&mut planned.plan, given);
        }
        planned.into_iter().for_each(|p| self.begin(p, now_ms));
        self.parts.metrics.workloads.set(self.managed.len() as f64);
    }

    fn look(&mut self, id: &WorkloadId, now_ms: u64) -> Option<Planned> {
        let view = self.parts.index.lock().view(id);
        let managed = self.managed.get_mut(id)?;
        self.parts.metrics.lateness.observe(now_ms.saturating_sub(managed.due_ms) as f64 / 1000.0);
        managed.due_ms = now_ms.saturating_add(PERIOD_MS);
        let Some(view) = view.filter(|v| v.deployment.uid == managed.uid) else {
            self.abandon(id, now_ms);
            return None;
        };
        if managed.wants_loading(now_ms) {
            let (client, id, uid, life) = (self.parts.client.clone(), id.clone(), managed.uid.clone(), managed.life);
            let sender = self.parts.sender.clone();
            self.tasks.spawn(async move {
                let result = qworker::load(&client, &id, &uid).await;
                let _ = sender.send(Input::Loaded(id, life, Box::new(result))).await;
            });
            return None;
        }
        match managed.links(&view.deployment, now_ms) {
            Links::Keep => {}
            Links::Drop => self.deregister(id),
            Links::Resolve => {
                let life = managed.life;
                self.resolve(id, life, &view.deployment);
            }
        }
        let managed = self.managed.get_mut(id)?;
        managed.share(self.pools.of(id));
        let (plan, qworker) = managed.look(&view, &self.cluster, self.statuses >= 1.0, &self.parts.metrics, now_ms)?;
        let dark = managed.is_dark();
        let writes = plan.iter().filter(|a| matches!(a, Action::Status(_) | Action::Checkpoint(_))).count();
        if writes > 0 {
            self.statuses -= writes as f64;
            managed.written_ms = now_ms;
        }
        let may_replace = self.replace.has_room(now_ms);
        if let Some((ask, config)) = managed.replace(&view, self.parts.sidecar_image.as_deref(), may_replace, now_ms) {
            let life = managed.life;
            self.replace(id, life, ask, config, &view);
        }
        let managed = self.managed.get_mut(id)?;
        if managed.wants_reports() {
            self.parts.brokers.nudge(id);
        }
        if let Some(snapshot) = managed.snapshot(&view) {
            self.parts.fleet.lock().decided(id, snapshot, now_ms);
        }
        if let Some(shown) = self.parts.fleet.shows().then(|| managed.shown(&view, &self.cluster, now_ms)).flatten() {
            self.parts.fleet.lock().show(id, shown);
        }
        if plan.is_empty() {
            return None;
        }
        let control = self.parts.brokers.control(id);
        Some(Planned { dark, plan, target: Target { id: id.clone(), deployment_uid: view.deployment.uid.clone(), qworker, control } })
    }

    /// Has a list of actions done, or forgets it where nothing is left of it.
    fn begin(&mut self, planned: Planned, now_ms: u64) {
        let Planned { target, plan, .. } = planned;
        let (applier, sender, room) = (self.applier.clone(), self.parts.sender.clone(), Arc::clone(&self.room));
        let Some(managed) = self.managed.get_mut(&target.id) else { return };
        if plan.is_empty() {
            managed.applied(ListOutcome::default(), now_ms);
            return;
        }
        let life = managed.life;
        let task = self.tasks.spawn(async move {
            // A closed semaphore would mean that the loop is gone: then nobody waits for the outcome either.
            let Ok(_slot) = room.acquire().await else { return };
            let outcome = applier.run(&target, plan).await;
            let _ = sender.send(Input::Applied(target.id, life, outcome)).await;
        });
        managed.began(task.abort_handle());
    }

    /// Has a pod evicted if it is idle.
    fn replace(&mut self, id: &WorkloadId, life: Life, ask: Ask, config: Arc<WorkerConfig>, view: &View) {
        self.replace.take();
        let bare = view.pods.iter().find(|p| *p.uid == *ask.pod_uid).and_then(|p| p.bare.as_deref().cloned());
        let books = self.parts.brokers.url(id).zip(bare).map(|(url, bare)| IdleBooks { url, config, bare });
        let (client, leadership, sender) = (self.parts.evictions.clone(), self.parts.leadership.clone(), self.parts.sender.clone());
        let id = id.clone();
        self.tasks.spawn(async move {
            let tried = evict(&client, &leadership, &id.namespace, &ask, books).await;
            let _ = sender.send(Input::Replaced(id, life, ask, tried)).await;
        });
    }

    fn resolve(&self, id: &WorkloadId, life: Life, deployment: &Arc<DeploymentRecord>) {
        let (client, id, sender) = (self.parts.client.clone(), id.clone(), self.parts.sender.clone());
        let deployment = Arc::clone(deployment);
        self.tasks.spawn(async move {
            let (Ok(config), Some(worker)) = (&deployment.config, &deployment.worker) else { return };
            let result = urls::urls(&client, &id, config, worker).await.map_err(|e| match e {
                NoUrls::Missing { .. } => Unreachable::Mistake(e.to_string()),
                NoUrls::Read { .. } => Unreachable::Trouble(e.to_string()),
            });
            let _ = sender.send(Input::Resolved(id, life, result)).await;
        });
    }

    /// The workload is gone, or not ours any more: its queues on the broker and its QWorker go too.
    fn abandon(&mut self, id: &WorkloadId, now_ms: u64) {
        tracing::info!(workload = %id, "not managed any more");
        let uid = self.managed.remove(id).map(|managed| managed.uid).unwrap_or_default();
        let control = self.parts.brokers.control(id);
        self.deregister(id);
        self.parts.fleet.lock().forget(id);
        let client = self.parts.client.clone();
        let (gone, address) = (id.clone(), ControlAddress::new(id, &uid));
        self.tasks.spawn(async move {
            if let Some(control) = control
                && !matches!(tokio::time::timeout(REMOVE, control.remove(&address)).await, Ok(Ok(())))
            {
                tracing::warn!(workload = %gone, "its control queues could not be removed");
            }
            if let Err(error) = sweep::take_back(&client, Some(&gone)).await {
                tracing::warn!(workload = %gone, %error, "marks on its pods could not all be taken back");
            }
            if let Err(error) = qworker::remove(&client, &gone, Some(&uid)).await {
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
                if let Some(version) = cluster_version(&client).await {
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
                    if let Err(error) = sweep::take_back(&client, Some(&id)).await {
                        tracing::warn!(workload = %id, %error, "marks on its pods could not all be taken back");
                    }
                    if let Err(error) = qworker::remove(&client, &id, None).await {
                        tracing::warn!(workload = %id, ?error, "a left-over QWorker could not be removed");
                    }
                });
            }
        }
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
