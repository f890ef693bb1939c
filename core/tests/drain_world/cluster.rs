//! The cluster around the pods: API with history, ReplicaSet controller, broker, and the driver of the fleet machine.

use super::pod::{Did, Pod};
use super::rng::Rng;
use qscaler_core::drain::fleet::{FleetEffect, FleetFacts, FleetMachine, FleetSettings, FleetStep, IntentRecord, PodFacts, ReportFacts, SetFacts};
use qscaler_core::drain::worker::WorkerEvent;
use qscaler_core::message::{Busy, ControlKind, ControlMessage, WorkerState};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(crate) const TICK_MS: u64 = 50;
/// How far back a cache may look.
const LAG_MS_MAX: u64 = 600;

/// How bad the world is: chances per million and tick.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chaos {
    pub(crate) lose: u64,
    pub(crate) double: u64,
    pub(crate) delay_ms: u64,
    pub(crate) lag_ms: u64,
    pub(crate) crash_sidecar: u64,
    pub(crate) crash_controller: u64,
    pub(crate) crash_worker: u64,
    pub(crate) liveness: u64,
    pub(crate) evict: u64,
    pub(crate) kubelet: u64,
    /// Chance that the ReplicaSet takes any victim rather than the first in its order.
    pub(crate) odd_victim: u64,
}

/// The API at one moment.
#[derive(Clone, Debug, Default)]
struct Snapshot {
    at_ms: u64,
    spec: u32,
    version: u64,
    pods: Vec<PodFacts>,
}

pub(crate) struct World {
    pub(crate) now_ms: u64,
    pub(crate) chaos: Chaos,
    pub(crate) rng: Rng,
    pub(crate) pods: Vec<Pod>,
    pub(crate) spec: u32,
    pub(crate) desired: u32,
    pub(crate) backlog: u64,
    pub(crate) has_gate: bool,
    pub(crate) max_unavailable: u32,
    /// Pods whose node takes no more pods.
    pub(crate) cordoned: BTreeSet<String>,
    pub(crate) last: Option<FleetStep>,
    pub(crate) wrong_victims: u64,
    pub(crate) created: u64,
    pub(crate) done: u64,
    pub(crate) cut: u64,
    pub(crate) signals: u64,
    settings: FleetSettings,
    fleet: FleetMachine,
    saved: Option<IntentRecord>,
    version: u64,
    history: VecDeque<Snapshot>,
    /// The ReplicaSet controller waits until its cache shows its own last write.
    rs_wrote_ms: u64,
    rs_seen: (u32, u32),
    queue: Vec<(u64, ControlMessage)>,
    to_pods: Vec<(u64, ControlMessage)>,
    to_controller: Vec<(u64, String, ReportFacts)>,
    reports: BTreeMap<String, ReportFacts>,
}

impl World {
    pub(crate) fn new(seed: u64, replicas: u32, has_gate: bool, chaos: Chaos) -> Self {
        let settings = FleetSettings {
            workload_uid: "workload".into(),
            min_replicas: 0,
            max_replicas: 1_000,
            token_ttl_ms: 20_000,
            lease_ms: 30_000,
            echo_timeout_ms: 10_000,
            gather_ms: 2_000,
            paused_down: false,
            protect: false,
        };
        let mut world = Self {
            now_ms: 1_000_000,
            chaos,
            rng: Rng(seed),
            pods: Vec::new(),
            spec: replicas,
            desired: replicas,
            backlog: 0,
            has_gate,
            max_unavailable: (replicas / 4).max(1),
            cordoned: BTreeSet::new(),
            last: None,
            wrong_victims: 0,
            created: 0,
            done: 0,
            cut: 0,
            signals: 0,
            fleet: FleetMachine::new(settings.clone()),
            settings,
            saved: None,
            version: 1,
            history: VecDeque::new(),
            rs_wrote_ms: 0,
            rs_seen: (0, 0),
            queue: Vec::new(),
            to_pods: Vec::new(),
            to_controller: Vec::new(),
            reports: BTreeMap::new(),
        };
        for _ in 0..replicas {
            world.create();
        }
        world.run_ms(8_000);
        world.created = 0;
        world
    }

    pub(crate) fn run_ms(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            self.tick();
        }
    }

    /// Runs until the fleet has exactly the wished pods, all of them useful, and nothing is under way. Virtual milliseconds it took.
    pub(crate) fn settle(&mut self, ms_max: u64) -> Option<u64> {
        let start = self.now_ms;
        while self.now_ms < start + ms_max {
            self.tick();
            let active: Vec<&Pod> = self.pods.iter().filter(|pod| pod.deleted_ms.is_none()).collect();
            let useful = active.iter().all(|pod| pod.ready && pod.sidecar_ready && pod.cost == 0);
            if self.spec == self.desired && active.len() == self.desired as usize && useful {
                return Some(self.now_ms - start);
            }
        }
        None
    }

    pub(crate) fn tasks_running(&self) -> u64 {
        self.pods.iter().filter(|pod| pod.worker.as_ref().is_some_and(|worker| worker.task_ends_ms.is_some())).count() as u64
    }

    fn create(&mut self) {
        let uid = format!("{:016x}", self.rng.next());
        self.created += 1;
        let pod = Pod::new(uid, self.has_gate, self.now_ms, &mut self.rng);
        self.pods.push(pod);
    }

    fn tick(&mut self) {
        self.now_ms += TICK_MS;
        self.misfortune();
        self.deliver();
        for i in 0..self.pods.len() {
            let did = self.pods[i].tick(self.now_ms, &mut self.backlog, &mut self.rng);
            did.into_iter().for_each(|did| self.carry(i, did));
        }
        let (gone, alive) = std::mem::take(&mut self.pods).into_iter().partition(|pod| pod.gone);
        self.pods = alive;
        gone.iter().for_each(|pod: &Pod| {
            self.done += pod.done;
            self.cut += pod.cut;
            self.signals += pod.signals;
        });
        self.remember();
        self.replicaset();
        if self.now_ms.is_multiple_of(100) {
            self.controller();
        }
    }

    pub(crate) fn total_done(&self) -> u64 {
        self.done + self.pods.iter().map(|pod| pod.done).sum::<u64>()
    }

    pub(crate) fn total_cut(&self) -> u64 {
        self.cut + self.pods.iter().map(|pod| pod.cut).sum::<u64>()
    }

    fn misfortune(&mut self) {
        let (chaos, now_ms) = (self.chaos.clone(), self.now_ms);
        for i in 0..self.pods.len() {
            if self.rng.chance(chaos.crash_sidecar)
                && let Some(token) = self.pods[i].crash_sidecar(now_ms)
            {
                self.queue.push((now_ms, token));
            }
            if self.rng.chance(chaos.crash_worker) {
                let at_work = self.pods[i].worker.as_ref().is_some_and(|worker| worker.task_ends_ms.is_some());
                if !at_work {
                    self.pods[i].end_worker(now_ms);
                }
            }
            if self.rng.chance(chaos.liveness) {
                self.pods[i].liveness(now_ms, &mut self.rng);
            }
            if self.rng.chance(chaos.evict) {
                self.pods[i].delete(now_ms, &mut self.rng);
            }
            if self.rng.chance(chaos.kubelet) {
                self.pods[i].kubelet_restarts(now_ms, &mut self.rng);
            }
        }
        if self.rng.chance(chaos.crash_controller) {
            self.fleet = FleetMachine::restore(self.settings.clone(), self.saved);
            self.reports.clear();
        }
    }

    // === broker ===

    fn copies(&mut self) -> u64 {
        if self.rng.chance(self.chaos.lose) { 0 } else { 1 + u64::from(self.rng.chance(self.chaos.double)) }
    }

    fn delay(&mut self) -> u64 {
        self.now_ms + 10 + self.rng.between(0, self.chaos.delay_ms + 1)
    }

    fn carry(&mut self, pod: usize, did: Did) {
        match did {
            Did::Ack => {}
            Did::GiveBack => {
                if let Some(token) = self.pods[pod].token.take() {
                    self.queue.push((self.now_ms + TICK_MS, token));
                }
            }
            Did::Report(state, epoch, busy) => {
                let uid = self.pods[pod].uid.clone();
                let report = ReportFacts { state, epoch, busy, at_ms: self.now_ms };
                for _ in 0..self.copies() {
                    let at = self.delay();
                    self.to_controller.push((at, uid.clone(), report.clone()));
                }
            }
        }
    }

    fn deliver(&mut self) {
        let now_ms = self.now_ms;
        let tokens = std::mem::take(&mut self.queue);
        for (at, token) in tokens {
            let meant = |pod: &Pod| token.target.as_ref().is_none_or(|target| *target == pod.uid);
            let takes = |pod: &Pod| pod.listening && pod.token.is_none() && meant(pod);
            let free: Vec<usize> = (0..self.pods.len()).filter(|i| takes(&self.pods[*i])).collect();
            if at > now_ms || free.is_empty() {
                self.queue.push((at, token));
                continue;
            }
            let chosen = free[self.rng.between(0, free.len() as u64) as usize];
            self.pods[chosen].token = Some(token.clone());
            self.pods[chosen].send(WorkerEvent::Token(token), now_ms);
        }
        self.queue.retain(|(_, token)| token.expires_ms > now_ms);
        for (at, message) in std::mem::take(&mut self.to_pods) {
            if at > now_ms {
                self.to_pods.push((at, message));
            } else if let Some(pod) = self.pods.iter_mut().find(|pod| Some(&pod.uid) == message.target.as_ref() && pod.sidecar.is_some()) {
                pod.send(WorkerEvent::Resume(message), now_ms);
            }
        }
        for (at, uid, report) in std::mem::take(&mut self.to_controller) {
            if at > now_ms {
                self.to_controller.push((at, uid, report));
            } else if self.reports.get(&uid).is_none_or(|known| known.at_ms <= report.at_ms) {
                self.reports.insert(uid, report);
            }
        }
    }

    // === API and ReplicaSet ===

    fn remember(&mut self) {
        let facts = |pod: &Pod| PodFacts {
            uid: pod.uid.clone(),
            name: pod.uid.clone(),
            resource_version: pod.version.to_string(),
            created_ms: pod.created_ms,
            ready: pod.ready,
            scheduled: true,
            unschedulable: false,
            pending: false,
            started: pod.sidecar.is_some(),
            terminating: pod.deleted_ms.is_some(),
            injected: true,
            sidecar_started: pod.sidecar.is_some(),
            sidecar_ready: pod.sidecar_ready,
            deletion_cost: pod.cost,
            report: None,
            node_cordoned: self.cordoned.contains(&pod.uid),
            cost_ours: false,
            gapped: false,
            set_uid: String::new(),
        };
        let pods = self.pods.iter().map(facts).collect();
        self.history.push_back(Snapshot { at_ms: self.now_ms, spec: self.spec, version: self.version, pods });
        if self.history.len() > (LAG_MS_MAX / TICK_MS) as usize {
            self.history.pop_front();
        }
    }

    /// The API as a cache shows it: some time ago.
    fn cached(&mut self) -> Snapshot {
        let lag = self.rng.between(0, self.chaos.lag_ms.min(LAG_MS_MAX - TICK_MS) + 1);
        let seen = self.history.iter().rev().find(|snapshot| snapshot.at_ms + lag <= self.now_ms);
        seen.or(self.history.front()).cloned().unwrap_or_default()
    }

    fn replicaset(&mut self) {
        let view = self.cached();
        if view.at_ms <= self.rs_wrote_ms {
            return;
        }
        let mut active: Vec<&PodFacts> = view.pods.iter().filter(|pod| !pod.terminating).collect();
        self.rs_seen = (active.len() as u32, active.iter().filter(|pod| pod.ready).count() as u32);
        if active.len() < view.spec as usize {
            for _ in active.len()..view.spec as usize {
                self.create();
            }
            self.rs_wrote_ms = self.now_ms;
            return;
        }
        active.sort_by_key(|pod| (pod.ready, pod.deletion_cost, std::cmp::Reverse(pod.created_ms)));
        let doomed = active.len() - view.spec as usize;
        let odd = self.rng.chance(self.chaos.odd_victim);
        let mut victims: Vec<String> = active.iter().map(|pod| pod.uid.clone()).collect();
        if odd {
            victims.rotate_left(self.rng.between(0, active.len().max(1) as u64) as usize);
        }
        for uid in victims.into_iter().take(doomed) {
            let now_ms = self.now_ms;
            if let Some(pod) = self.pods.iter_mut().find(|pod| pod.uid == uid && pod.deleted_ms.is_none()) {
                let at_work = pod.worker.as_ref().is_some_and(|worker| worker.task_ends_ms.is_some());
                self.wrong_victims += u64::from(at_work);
                pod.delete(now_ms, &mut self.rng);
            }
            self.rs_wrote_ms = self.now_ms;
        }
    }

    // === the fleet machine's driver ===

    fn controller(&mut self) {
        let view = self.cached();
        let mut pods = view.pods;
        pods.iter_mut().for_each(|pod| pod.report = self.reports.get(&pod.uid).cloned());
        let facts = FleetFacts {
            resource_version: view.version.to_string(),
            generation_observed: true,
            spec_replicas: view.spec,
            status_replicas: self.rs_seen.0,
            rs_ready_replicas: self.rs_seen.1,
            sets: vec![SetFacts { spec_replicas: view.spec, ..SetFacts::default() }],
            max_surge: None,
            max_unavailable: self.max_unavailable,
            pods,
            conflict: None,
            data_stale: false,
            out_of_sync: None,
            leader: true,
        };
        let step = self.fleet.step(&facts, self.desired, self.now_ms);
        self.check(&facts, &step);
        for effect in &step.effects {
            if !self.perform(effect) {
                break;
            }
        }
        self.last = Some(step);
    }

    /// I8: no decrease by more than the pods that are parked or not started, and never below the wish.
    fn check(&self, facts: &FleetFacts, step: &FleetStep) {
        for effect in &step.effects {
            let FleetEffect::Scale { from, to, .. } = effect else { continue };
            if to >= from {
                continue;
            }
            let parked = |pod: &&PodFacts| pod.report.as_ref().is_some_and(|report| report.state == WorkerState::Parked);
            let starting = |pod: &&PodFacts| {
                !pod.ready && pod.report.as_ref().is_none_or(|report| report.state == WorkerState::Boot || report.busy == Busy::Idle)
            };
            let active = facts.pods.iter().filter(|pod| !pod.terminating).count() as u32;
            let spare = facts.pods.iter().filter(|pod| !pod.terminating && (parked(pod) || starting(pod))).count() as u32;
            assert!(from - to <= spare + from.saturating_sub(active), "{step:?} {facts:?}");
            assert!(*to >= self.desired, "{step:?}");
        }
    }

    fn perform(&mut self, effect: &FleetEffect) -> bool {
        match effect {
            FleetEffect::SaveIntent(intent) => self.saved = Some(*intent),
            FleetEffect::Purge => self.queue.clear(),
            FleetEffect::Publish(message) => {
                for _ in 0..self.copies() {
                    let at = self.delay();
                    match message.kind {
                        ControlKind::SigkillQueue => self.queue.push((at, message.clone())),
                        _ => self.to_pods.push((at, message.clone())),
                    }
                }
            }
            FleetEffect::SetDeletionCost { pod_uid, resource_version, cost, .. } => {
                let Some(pod) = self.pods.iter_mut().find(|pod| pod.uid == *pod_uid && pod.version.to_string() == *resource_version) else {
                    return false;
                };
                pod.cost = cost.unwrap_or(0);
                pod.version += 1;
            }
            FleetEffect::Scale { resource_version, to, .. } => {
                if self.version.to_string() != *resource_version {
                    return false;
                }
                self.spec = *to;
                self.version += 1;
            }
        }
        true
    }
}
