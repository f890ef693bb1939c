//! Machines as numbers. In: a machine's number and what happens to it. Out: its next number and its effects, computed once. The clock stands
//! still at [`NOW_MS`]; a timer that fires is handed its own deadline.

use crate::hash::FxMap;
use crate::setting::{Setting, WorkerKind};
use crate::state::{Api, Heard, Id, Scale};
use qscaler_core::config::DeadlinePolicy;
use qscaler_core::drain::fleet::{FleetFacts, FleetMachine, FleetSettings, FleetStep, IntentRecord};
use qscaler_core::drain::worker::{QUIET_SETTLE_MS, Telling, WorkerEffect, WorkerEvent, WorkerMachine, WorkerSettings};
use qscaler_core::framework::Signal;
use qscaler_core::message::{Busy, ControlKind, ControlMessage, Epoch, VERSION, WorkerState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The only moment there is.
pub(crate) const NOW_MS: u64 = 1_000_000;
/// Told apart from every other deadline by its size.
const TASK_MS_MAX: u64 = 1_000_000_000;
const WORKLOAD: &str = "workload";
/// Every pod's own name for itself.
const SELF: &str = "pod";

/// What happens to a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    MainSeen(u8),
    MainExited(u8),
    /// Evidence; `late`: younger than the first of two signals by enough.
    Busy(Busy, bool),
    Token(u8),
    Resume(u8),
    Hold,
    OwnHook,
    Terminated,
    GateClosed,
    /// The kernel refuses to signal the worker, whom the kubelet's own TERM reaches.
    Refused,
    Claimed,
    Timer,
}

/// What a sidecar's machine says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) state: WorkerState,
    pub(crate) epoch: u8,
    pub(crate) busy: Busy,
    pub(crate) ending: bool,
    /// A timer is set.
    pub(crate) timer: bool,
    /// That timer is the longest task's time.
    pub(crate) task_timer: bool,
}

/// What a machine does next: its number then, and its effects.
type Next<K, V> = FxMap<K, (Id, Arc<V>)>;

struct Sidecars {
    all: Vec<WorkerMachine>,
    ids: FxMap<WorkerMachine, Id>,
    known: Vec<Known>,
    next: Next<(Id, Input), [WorkerEffect]>,
}

struct Fleets {
    all: Vec<FleetMachine>,
    ids: FxMap<FleetMachine, Id>,
    next: Next<(Id, Waited, u8, Sight), FleetStep>,
}

/// One pod as the controller sees it, under the name it goes by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    pub(crate) name: usize,
    pub(crate) api: Api,
    pub(crate) injected: bool,
    pub(crate) heard: Option<Heard>,
}

/// All that the controller sees.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sight {
    pub(crate) scale: Scale,
    pub(crate) rollout: bool,
    pub(crate) pods: Vec<Seen>,
}

/// How long the controller has waited before a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Waited {
    No,
    /// As long as it waits for more parked pods or for an echo.
    Enough,
    /// Longer than a token lives.
    Long,
}

/// All machines of one exploration.
pub(crate) struct Machines {
    sidecars: Mutex<Sidecars>,
    fleets: Mutex<Fleets>,
    fleet_settings: FleetSettings,
    /// A sidecar that has just started.
    pub(crate) started: (Id, Arc<[WorkerEffect]>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn small(n: u64) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}

impl Sidecars {
    fn id(&mut self, machine: WorkerMachine) -> Id {
        if let Some(id) = self.ids.get(&machine) {
            return *id;
        }
        let id = Id::try_from(self.all.len()).unwrap_or(Id::MAX);
        let deadline = machine.next_deadline();
        self.known.push(Known {
            state: machine.state(),
            epoch: small(machine.epoch().0),
            busy: machine.busy(),
            ending: machine.is_ending(),
            timer: deadline.is_some(),
            task_timer: deadline.is_some_and(|at| at >= TASK_MS_MAX),
        });
        self.all.push(machine.clone());
        self.ids.insert(machine, id);
        id
    }
}

impl Fleets {
    fn id(&mut self, machine: FleetMachine) -> Id {
        if let Some(id) = self.ids.get(&machine) {
            return *id;
        }
        let id = Id::try_from(self.all.len()).unwrap_or(Id::MAX);
        self.all.push(machine.clone());
        self.ids.insert(machine, id);
        id
    }
}

fn message(kind: ControlKind, epoch: u8, target: Option<String>) -> ControlMessage {
    ControlMessage {
        version: VERSION,
        kind,
        workload_uid: WORKLOAD.into(),
        epoch: Epoch(u64::from(epoch)),
        issued_ms: NOW_MS,
        expires_ms: NOW_MS + 60_000,
        lease_ms: 30_000,
        target,
    }
}

fn effects(machine: &mut WorkerMachine) -> Arc<[WorkerEffect]> {
    std::iter::from_fn(|| machine.next_effect()).collect()
}

impl Machines {
    pub(crate) fn new(setting: &Setting) -> Self {
        let signals = match setting.worker {
            WorkerKind::OneSignal => vec![Signal::Term],
            WorkerKind::QuietThenTerm => vec![Signal::Tstp, Signal::Term],
        };
        let worker_settings = WorkerSettings {
            pod_uid: SELF.to_owned(),
            workload_uid: WORKLOAD.into(),
            signals,
            has_gate: setting.gate,
            kill_behind_gate: false,
            max_task_duration_ms: TASK_MS_MAX,
            deadline_policy: if setting.cut { DeadlinePolicy::Cut } else { DeadlinePolicy::Wait },
            patience_ms: 10_000,
            give_back_ms: 20_000,
        };
        let mut sidecars = Sidecars { all: Vec::new(), ids: FxMap::default(), known: Vec::new(), next: FxMap::default() };
        let mut machine = WorkerMachine::new(worker_settings, NOW_MS);
        let first = effects(&mut machine);
        let started = (sidecars.id(machine), first);
        let fleet_settings = FleetSettings {
            workload_uid: WORKLOAD.into(),
            min_replicas: u32::from(setting.min),
            max_replicas: u32::MAX,
            token_ttl_ms: 20_000,
            lease_ms: 30_000,
            echo_timeout_ms: 10_000,
            gather_ms: 2_000,
            paused_down: false,
            protect: false,
        };
        let mut fleets = Fleets { all: Vec::new(), ids: FxMap::default(), next: FxMap::default() };
        fleets.id(FleetMachine::new(fleet_settings.clone()));
        Self { sidecars: Mutex::new(sidecars), fleets: Mutex::new(fleets), fleet_settings, started }
    }

    pub(crate) fn known(&self, id: Id) -> Known {
        lock(&self.sidecars).known[id as usize]
    }

    /// Whether this event makes any difference.
    pub(crate) fn changes(&self, id: Id, input: Input) -> bool {
        let (next, effects) = self.handle(id, input);
        next != id || !effects.is_empty()
    }

    pub(crate) fn handle(&self, id: Id, input: Input) -> (Id, Arc<[WorkerEffect]>) {
        let mut sidecars = lock(&self.sidecars);
        if let Some(next) = sidecars.next.get(&(id, input)) {
            return next.clone();
        }
        let mut machine = sidecars.all[id as usize].clone();
        let (event, now_ms) = match input {
            Input::MainSeen(n) => (WorkerEvent::MainSeen { incarnation: u64::from(n) }, NOW_MS),
            Input::MainExited(n) => (WorkerEvent::MainExited { incarnation: u64::from(n) }, NOW_MS),
            Input::Busy(busy, late) => (WorkerEvent::Busy(busy), if late { NOW_MS + QUIET_SETTLE_MS } else { NOW_MS }),
            Input::Token(epoch) => (WorkerEvent::Token(message(ControlKind::SigkillQueue, epoch, None)), NOW_MS),
            Input::Resume(epoch) => (WorkerEvent::Resume(message(ControlKind::Resume, epoch, Some(SELF.to_owned()))), NOW_MS),
            Input::Hold => (WorkerEvent::HoldCalled, NOW_MS),
            Input::OwnHook => (WorkerEvent::OwnHookCalled, NOW_MS),
            Input::Terminated => (WorkerEvent::Terminated, NOW_MS),
            Input::GateClosed => (WorkerEvent::GateClosed, NOW_MS),
            Input::Refused => (WorkerEvent::Telling(Telling::Refused { kubelet_reaches: true }), NOW_MS),
            Input::Claimed => (WorkerEvent::ClaimReported, NOW_MS),
            Input::Timer => (WorkerEvent::GateOpened, machine.next_deadline().unwrap_or(NOW_MS)),
        };
        if input == Input::Timer {
            machine.on_timeout(now_ms)
        } else {
            machine.handle(event, now_ms)
        }
        let effects = effects(&mut machine);
        let next = (sidecars.id(machine), effects);
        sidecars.next.insert((id, input), next.clone());
        next
    }

    /// A controller that has just started, from the saved intent.
    pub(crate) fn restored(&self, (epoch, count): (u8, u8)) -> Id {
        let saved = IntentRecord { epoch: Epoch(u64::from(epoch)), count: u32::from(count), issued_ms: 0, expires_ms: 0 };
        lock(&self.fleets).id(FleetMachine::restore(self.fleet_settings.clone(), Some(saved)))
    }

    pub(crate) fn step(&self, id: Id, waited: Waited, wish: u8, sight: Sight, facts: impl Fn(&Sight) -> FleetFacts) -> (Id, Arc<FleetStep>) {
        let mut fleets = lock(&self.fleets);
        let key = (id, waited, wish, sight);
        if let Some(next) = fleets.next.get(&key) {
            return next.clone();
        }
        let mut machine = fleets.all[id as usize].clone();
        match waited {
            Waited::No => {}
            Waited::Enough => machine.let_time_pass(false),
            Waited::Long => machine.let_time_pass(true),
        }
        let step = Arc::new(machine.step(&facts(&key.3), u32::from(wish), NOW_MS));
        let next = (fleets.id(machine), step);
        fleets.next.insert(key, next.clone());
        next
    }

    /// The wave of the fleet machine and how many it asked for.
    pub(crate) fn intent(&self, id: Id) -> IntentRecord {
        lock(&self.fleets).all[id as usize].intent()
    }
}
