//! Comes in: tasks, pods that take time to start, orders from a policy. Goes out: what became of every task and what the pods cost.
//! Leaves to others: every choice of how many pods. First in, first out; one task per pod; the pod idle for longest takes the next.

mod pod;
mod run;
mod values;

pub use run::{Watch, run};
pub use values::{Conditions, Outcome, Point};

use std::collections::{BinaryHeap, VecDeque};

use crate::crowd::Crowd;
use crate::rng::Rng;
use crate::workload::{Task, Workload};
use pod::{Event, Kind, Leaving, Pod, PodState};

/// How many pods, when: a scaler under test.
pub trait Policy {
    /// First time it wants to look, seconds.
    fn first_wake_s(&self) -> f64;
    /// Looks and orders; returns the next time it wants to look.
    fn wake(&mut self, world: &mut World<'_>) -> f64;
}

/// Broker, pods and clock of one run.
pub struct World<'a> {
    tasks: &'a [Task],
    conditions: Conditions,
    /// Fewest pods a policy should have.
    pub min_replicas: u32,
    /// Most pods a policy may have.
    pub max_replicas: u32,
    shared_capacity: Option<f64>,
    max_wait_s: f64,
    now_s: f64,
    rng: Rng,
    queue: VecDeque<u32>,
    idle: VecDeque<u32>,
    pods: Vec<Pod>,
    /// Pods that are neither leaving nor gone.
    serving: Vec<u32>,
    /// Pods leaving after their task, and parked ones.
    drained: Vec<u32>,
    keep_parked: bool,
    events: BinaryHeap<Event>,
    crowd: Crowd,
    idle_count: u32,
    starting_count: u32,
    busy_count: u32,
    serving_busy: u32,
    arrived: u64,
    finished: usize,
    alive: u32,
    alive_since_s: f64,
    completions: Vec<f64>,
    latencies: Vec<f64>,
    begun: u32,
    outcome: Outcome,
}

impl<'a> World<'a> {
    fn new(workload: &'a Workload, conditions: Conditions) -> Self {
        Self {
            tasks: &workload.tasks,
            conditions,
            min_replicas: workload.min_replicas,
            max_replicas: workload.max_replicas,
            shared_capacity: workload.shared_capacity,
            max_wait_s: workload.max_wait_s,
            now_s: 0.0,
            rng: Rng::new(conditions.seed, 0x70d5),
            queue: VecDeque::new(),
            idle: VecDeque::new(),
            pods: Vec::new(),
            serving: Vec::new(),
            drained: Vec::new(),
            keep_parked: false,
            events: BinaryHeap::new(),
            crowd: Crowd::new(conditions.start_at_full_speed),
            idle_count: 0,
            starting_count: 0,
            busy_count: 0,
            serving_busy: 0,
            arrived: 0,
            finished: 0,
            alive: 0,
            alive_since_s: 0.0,
            completions: Vec::new(),
            latencies: Vec::new(),
            begun: 0,
            outcome: Outcome { tasks: workload.tasks.len(), waits_s: vec![f32::INFINITY; workload.tasks.len()], ..Outcome::default() },
        }
    }

    /// Now, seconds.
    pub fn now_s(&self) -> f64 {
        self.now_s
    }

    /// Whether the broker tells its figures now.
    pub fn broker_answers(&self) -> bool {
        !self.conditions.outage.is_some_and(|(from, to)| (from..to).contains(&self.now_s))
    }

    /// Messages waiting.
    pub fn ready_messages(&self) -> u32 {
        self.queue.len() as u32
    }

    /// Messages being worked on, in leaving pods too.
    pub fn unacked_messages(&self) -> u32 {
        self.busy_count
    }

    /// Messages ever arrived.
    pub fn published_total(&self) -> u64 {
        self.arrived
    }

    /// Pods neither leaving nor gone: what a Deployment's replica count means.
    pub fn replicas(&self) -> u32 {
        self.serving.len() as u32
    }

    /// Of [`Self::replicas`], those able to work.
    pub fn ready_pods(&self) -> u32 {
        self.replicas() - self.starting_count
    }

    /// Of [`Self::replicas`], those at work.
    pub fn busy_pods(&self) -> u32 {
        self.serving_busy
    }

    /// Pods that leave after their task and can be called back.
    pub fn drained_pods(&self) -> u32 {
        self.drained.len() as u32
    }

    /// Ages of starting pods, seconds.
    pub fn starting_ages_s(&self) -> Vec<f64> {
        self.in_state(PodState::Starting).map(|pod| self.now_s - pod.created_s).collect()
    }

    /// Ages of running tasks in pods that aren't leaving, seconds.
    pub fn busy_ages_s(&self) -> Vec<f64> {
        self.in_state(PodState::Busy).map(|pod| self.now_s - pod.started_s).collect()
    }

    fn in_state(&self, state: PodState) -> impl Iterator<Item = &Pod> {
        self.serving.iter().map(|pod| &self.pods[*pod as usize]).filter(move |pod| pod.state == state)
    }

    /// Service times of tasks ended since the last call.
    pub fn take_completions(&mut self) -> Vec<f64> {
        std::mem::take(&mut self.completions)
    }

    /// Tasks begun since the last call.
    pub fn take_begun(&mut self) -> u32 {
        std::mem::take(&mut self.begun)
    }

    /// Start latencies of pods ready since the last call.
    pub fn take_latencies(&mut self) -> Vec<f64> {
        std::mem::take(&mut self.latencies)
    }

    /// Creates pods, up to the most there may be.
    pub fn start(&mut self, count: u32) {
        for _ in 0..count.min(self.max_replicas.saturating_sub(self.replicas())) {
            self.create();
        }
    }

    /// Creates pods that are ready at once, as no cluster can: for what is compared with, not for a scaler.
    pub fn start_ready(&mut self, count: u32) {
        for _ in 0..count.min(self.max_replicas.saturating_sub(self.replicas())) {
            let pod = self.create();
            self.started();
            self.pods[pod as usize].ready_s = self.now_s;
            self.free(pod);
        }
    }

    fn create(&mut self) -> u32 {
        let latency = self.rng.lognormal(self.conditions.start_s, self.conditions.start_cv);
        let pod = self.pods.len() as u32;
        let uid = self.rng.next_u64();
        self.pods.push(Pod {
            state: PodState::Starting,
            leaving: Leaving::No,
            created_s: self.now_s,
            ready_s: f64::INFINITY,
            task: 0,
            started_s: 0.0,
            ends_s: 0.0,
            uid,
            place: self.serving.len() as u32,
        });
        self.serving.push(pod);
        self.crowd.begin(self.now_s, pod, latency);
        self.starting_count += 1;
        self.count_alive(1);
        self.outcome.starts += 1;
        pod
    }

    /// Lets pods go without cutting a task: starting ones first (the youngest), then idle ones, then busy ones after their task.
    pub fn drain(&mut self, count: u32) {
        let mut left = count.min(self.replicas());
        if left > 0 && self.starting_count > 0 {
            let mut starting: Vec<u32> = self.serving.iter().copied().filter(|pod| self.pods[*pod as usize].state == PodState::Starting).collect();
            starting.sort_unstable_by(|a, b| b.cmp(a));
            for pod in starting.into_iter().take(left as usize) {
                self.started();
                self.leave_serving(pod);
                self.gone(pod);
                left -= 1;
            }
        }
        while left > 0 && self.idle_count > 0 {
            let Some(pod) = self.take_idle() else { break };
            self.leave_serving(pod);
            self.park(pod);
            left -= 1;
        }
        while left > 0 {
            let Some(pod) = self.serving.last().copied() else { break };
            self.leave_serving(pod);
            self.serving_busy -= 1;
            self.pods[pod as usize].leaving = Leaving::Drained;
            self.drained.push(pod);
            left -= 1;
        }
    }

    /// Calls back pods that were to leave after their task; returns how many there were.
    pub fn undrain(&mut self, count: u32) -> u32 {
        let mut called = 0;
        while called < count {
            let Some(pod) = self.drained.pop() else { break };
            self.pods[pod as usize].leaving = Leaving::No;
            self.pods[pod as usize].place = self.serving.len() as u32;
            self.serving.push(pod);
            if self.pods[pod as usize].state == PodState::Parked {
                self.free(pod);
            } else {
                self.serving_busy += 1;
            }
            called += 1;
        }
        called
    }

    /// Deletes pods as a ReplicaSet does: those not ready first, then by ready time in logarithmic buckets, youngest first, at random within one.
    /// A busy pod has `grace_s` to finish; what is not finished then is cut and delivered again.
    pub fn kill(&mut self, count: u32, grace_s: f64) {
        let now = self.now_s;
        let mut victims: Vec<(bool, i32, u64, u32)> = self
            .serving
            .iter()
            .map(|id| {
                let pod = &self.pods[*id as usize];
                let ready = pod.state != PodState::Starting;
                let age = if ready { now - pod.ready_s } else { now - pod.created_s };
                (ready, (age * 1e9).max(1.0).log2() as i32, pod.uid, *id)
            })
            .collect();
        victims.sort_unstable();
        for (_, _, _, id) in victims.into_iter().take(count as usize) {
            self.leave_serving(id);
            match self.pods[id as usize].state {
                PodState::Starting => {
                    self.started();
                    self.gone(id);
                }
                PodState::Idle => {
                    self.idle_count -= 1;
                    self.gone(id);
                }
                PodState::Busy => {
                    self.serving_busy -= 1;
                    self.pods[id as usize].leaving = Leaving::Terminating;
                    if self.pods[id as usize].ends_s - now > grace_s {
                        self.events.push(Event { at_s: now + grace_s, kind: Kind::Killed, pod: id });
                    }
                }
                PodState::Parked | PodState::Gone => {}
            }
        }
    }

    /// From now on pods that have parked stay at hand, or (false) go.
    pub fn keep_parked(&mut self, keep: bool) {
        self.keep_parked = keep;
        if !keep && !self.drained.is_empty() {
            let (parked, busy) = self.drained.iter().partition(|pod| self.pods[**pod as usize].state == PodState::Parked);
            self.drained = busy;
            let parked: Vec<u32> = parked;
            parked.into_iter().for_each(|pod| self.gone(pod));
        }
    }

    /// Takes an idle pod out of work: it goes at once, or is kept.
    fn park(&mut self, pod: u32) {
        if self.keep_parked {
            self.pods[pod as usize].state = PodState::Parked;
            self.pods[pod as usize].leaving = Leaving::Drained;
            self.drained.push(pod);
        } else {
            self.gone(pod);
        }
    }

    fn leave_serving(&mut self, pod: u32) {
        let place = self.pods[pod as usize].place as usize;
        self.serving.swap_remove(place);
        if let Some(moved) = self.serving.get(place) {
            self.pods[*moved as usize].place = place as u32;
        }
    }

    fn gone(&mut self, pod: u32) {
        self.pods[pod as usize].state = PodState::Gone;
        self.count_alive(-1);
    }

    fn count_alive(&mut self, change: i32) {
        self.outcome.pod_seconds += f64::from(self.alive) * (self.now_s - self.alive_since_s);
        self.alive_since_s = self.now_s;
        self.alive = self.alive.saturating_add_signed(change);
    }

    fn take_idle(&mut self) -> Option<u32> {
        while let Some(pod) = self.idle.pop_front() {
            if self.pods[pod as usize].state == PodState::Idle {
                self.idle_count -= 1;
                return Some(pod);
            }
        }
        None
    }

    fn begin(&mut self, pod: u32, task: u32) {
        self.busy_count += 1;
        let crowd = self.shared_capacity.map_or(1.0, |capacity| (f64::from(self.busy_count) / capacity).max(1.0));
        let ends_s = self.now_s + self.tasks[task as usize].service_s * crowd;
        let slot = &mut self.pods[pod as usize];
        slot.state = PodState::Busy;
        self.begun += 1;
        slot.task = task;
        slot.started_s = self.now_s;
        slot.ends_s = ends_s;
        self.serving_busy += 1;
        self.outcome.waits_s[task as usize] = (self.now_s - self.tasks[task as usize].at_s) as f32;
        self.events.push(Event { at_s: ends_s, kind: Kind::Ends, pod });
    }

    fn free(&mut self, pod: u32) {
        if let Some(task) = self.queue.pop_front() {
            self.begin(pod, task);
        } else {
            self.pods[pod as usize].state = PodState::Idle;
            self.idle.push_back(pod);
            self.idle_count += 1;
        }
    }

    fn arrive(&mut self, task: u32) {
        self.arrived += 1;
        match self.take_idle() {
            Some(pod) => self.begin(pod, task),
            None => self.queue.push_back(task),
        }
    }

    /// One pod less is starting.
    fn started(&mut self) {
        self.starting_count -= 1;
        self.crowd.end(self.now_s);
    }

    /// When the next pod will be ready.
    fn next_ready_s(&mut self) -> f64 {
        let pods = &self.pods;
        self.crowd.next_s(|pod| pods[pod as usize].state == PodState::Starting)
    }

    fn ready(&mut self) {
        if let Some(pod) = self.crowd.take() {
            self.started();
            self.pods[pod as usize].ready_s = self.now_s;
            self.latencies.push(self.now_s - self.pods[pod as usize].created_s);
            self.free(pod);
        }
    }

    fn happen(&mut self, event: Event) {
        let id = event.pod;
        let (state, leaving) = (self.pods[id as usize].state, self.pods[id as usize].leaving);
        match (event.kind, state) {
            (Kind::Ends, PodState::Busy) => {
                self.busy_count -= 1;
                self.finished += 1;
                self.outcome.last_task_s = self.now_s;
                self.completions.push(self.now_s - self.pods[id as usize].started_s);
                match leaving {
                    Leaving::No => {
                        self.serving_busy -= 1;
                        self.free(id);
                    }
                    Leaving::Drained => {
                        self.drained.retain(|pod| *pod != id);
                        self.park(id);
                    }
                    Leaving::Terminating => self.gone(id),
                }
            }
            (Kind::Killed, PodState::Busy) => {
                self.busy_count -= 1;
                self.outcome.interrupted += 1;
                self.outcome.lost_seconds += self.now_s - self.pods[id as usize].started_s;
                self.gone(id);
                let task = self.pods[id as usize].task;
                self.outcome.waits_s[task as usize] = f32::INFINITY;
                match self.take_idle() {
                    Some(pod) => self.begin(pod, task),
                    None => self.queue.push_front(task),
                }
            }
            _ => {}
        }
    }

    fn finish(mut self) -> Outcome {
        self.outcome.last_pod_s = if self.alive > 0 { f64::INFINITY } else { self.alive_since_s };
        self.count_alive(0);
        let limit = self.max_wait_s as f32;
        self.outcome.missed = self.outcome.waits_s.iter().filter(|wait| **wait > limit).count();
        self.outcome
    }
}
