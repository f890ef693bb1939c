//! Every action of the world, done. In: a state and an action. Out: the state after it. Left to others: which actions there are (`may`).

use crate::hash::fingerprint;
use crate::intern::Input;
use crate::may::{Action, Does};
use crate::mutation::Mutation;
use crate::property::{Broken, properties};
use crate::setting::{Around, Misfortune};
use crate::state::{Heard, Main, Quiet, Scale, State};
use crate::world::World;
use qscaler_core::message::{Busy, WorkerState};
use stateright::{Model, Property};

impl World {
    /// The fleet settled at its first size, all idle.
    pub(crate) fn start(&self) -> State {
        let replicas = self.setting.replicas;
        let scale = Scale { spec: replicas, status: 0, ready: 0 };
        let state = State {
            pods: (0..replicas).map(|_| self.new_pod(true)).collect(),
            scale,
            followed: replicas,
            view: scale,
            view_new: false,
            rollout: false,
            queue: Vec::new(),
            fleet: 0,
            saved: (0, 0),
            late: None,
            wish: replicas,
            wishes_left: self.setting.wishes,
            misfortunes_left: self.setting.misfortunes,
            broken: 0,
        };
        self.calm(state).state
    }

    /// Whether it would change anything.
    pub(crate) fn can(&self, s: &State, i: usize, what: Does) -> bool {
        let pod = &s.pods[i];
        let running = pod.sidecar.is_some();
        match what {
            Does::StartSidecar => !running && pod.injected && !pod.api.deleted && !pod.gone,
            Does::StartMain => self.may_start_main(pod),
            Does::Notice => running && pod.known != pod.running(),
            Does::Finish => pod.main.is_some_and(|main| main.task),
            Does::Quiets => pod.main.is_some_and(|main| main.quiet == Quiet::Asked),
            Does::Leave => pod.main.is_some_and(|main| main.leaving && !main.task),
            Does::GateActs => pod.gate_asked,
            Does::CallHold => pod.hold_call,
            Does::CallOwn => pod.own_call,
            Does::Evidence => {
                let input = |main| Input::Busy(self.evidence(main), main.quiet == Quiet::Settled);
                pod.known == pod.running() && pod.main.is_some_and(|main| pod.sidecar.is_some_and(|id| self.machines.changes(id, input(main))))
            }
            Does::Claim => pod.hand.is_some() && self.known(pod).is_some_and(|k| k.state == WorkerState::Parked),
            Does::Resume => running && pod.resume.is_some(),
            Does::Term => {
                let called = pod.hold_waits || pod.hold_call || pod.own_call;
                running && pod.api.deleted && pod.main.is_none() && !pod.liveness_kill && !called
            }
            Does::Gone => pod.api.deleted && !running && pod.main.is_none() && !pod.gone,
            Does::Probe | Does::Hear => !pod.gone,
        }
    }

    /// Does it, if it can be done.
    pub(crate) fn does(&self, s: &mut State, i: usize, what: Does) {
        if !self.can(s, i, what) {
            return;
        }
        let pod = s.pods[i];
        match what {
            Does::StartSidecar => self.start_sidecar(s, i),
            Does::StartMain => self.start_main(s, i),
            Does::Notice => {
                let now = pod.running();
                s.pods[i].known = now;
                self.feed(s, i, if now == 0 { Input::MainExited(pod.known) } else { Input::MainSeen(now) });
            }
            Does::Finish | Does::Quiets => {
                if let Some(main) = &mut s.pods[i].main {
                    main.task &= what != Does::Finish;
                    main.quiet = if what == Does::Quiets { Quiet::Settled } else { main.quiet };
                }
            }
            Does::Leave => s.pods[i].main = None,
            Does::GateActs => {
                (s.pods[i].gate_asked, s.pods[i].gate_closed) = (false, true);
                self.feed(s, i, Input::GateClosed);
            }
            Does::CallHold => self.deliver_hold(s, i),
            Does::CallOwn => {
                s.pods[i].own_call = false;
                self.feed(s, i, Input::OwnHook);
            }
            Does::Evidence => {
                if let Some(main) = pod.main {
                    self.feed(s, i, Input::Busy(self.evidence(main), main.quiet == Quiet::Settled));
                }
            }
            Does::Claim => self.feed(s, i, Input::Claimed),
            Does::Resume => {
                if let Some(epoch) = s.pods[i].resume.take() {
                    self.feed(s, i, Input::Resume(epoch));
                }
            }
            Does::Term => self.feed(s, i, Input::Terminated),
            Does::Gone => s.pods[i] = self.ghost(&pod),
            Does::Probe => self.probe(s, i),
            Does::Hear => {
                if let Some(known) = self.known(&pod) {
                    s.pods[i].heard = Some(Heard { state: known.state, epoch: known.epoch, busy: known.busy });
                }
            }
        }
    }

    fn evidence(&self, main: Main) -> Busy {
        match (self.setting.evidence, main.task) {
            (false, _) => Busy::Unknown,
            (true, true) => Busy::Busy,
            (true, false) => Busy::Idle,
        }
    }

    pub(crate) fn timer(&self, s: &mut State, i: usize) {
        let Some(known) = self.known(&s.pods[i]) else { return };
        if !known.timer {
            return;
        }
        // Where nothing tells busy from idle, the longest task's time is over when no task is there any more.
        let too_early = known.task_timer && !self.setting.cut && s.pods[i].main.is_some_and(|main| main.task);
        let no_lease = self.setting.mutation == Some(Mutation::NoLease) && known.state == WorkerState::Parked;
        if !too_early && !no_lease {
            if known.task_timer || known.busy == Busy::Unknown {
                // The worker is found, and evidence comes where there is any, far more often than patience or the longest task takes.
                self.does(s, i, Does::Notice);
                self.does(s, i, Does::Evidence);
            }
            self.feed(s, i, Input::Timer);
        }
    }

    pub(crate) fn token(&self, s: &mut State, n: usize, i: usize) {
        let pod = &s.pods[i];
        if pod.sidecar.is_some() && pod.hand.is_none() {
            let epoch = s.queue.remove(n);
            s.pods[i].hand = Some(epoch);
            self.feed(s, i, Input::Token(epoch));
        }
    }

    pub(crate) fn may_create(&self, s: &State) -> bool {
        s.active() < s.followed && s.pods.len() < usize::from(self.setting.slots)
    }

    fn misfortune(&self, s: &mut State, bad: Misfortune, i: usize) {
        s.misfortunes_left -= 1;
        match bad {
            Misfortune::SidecarCrash => self.crash_sidecar(s, i),
            Misfortune::WorkerCrash => s.pods[i].main = None,
            Misfortune::LivenessKill => (s.pods[i].liveness_kill, s.pods[i].hold_call) = (true, true),
            Misfortune::Evict => self.delete(s, i),
            Misfortune::HooksAgain => (s.pods[i].hold_call, s.pods[i].own_call) = (true, true),
            Misfortune::GraceSpent => self.grace_spent(s, i),
            Misfortune::NodeDies => {
                s.pods[i].api.deleted = true;
                s.pods[i] = self.ghost(&s.pods[i]);
            }
            Misfortune::TokenDoubled => {
                if let Some(epoch) = s.queue.first().copied() {
                    self.enqueue(s, epoch);
                }
            }
            Misfortune::ControllerCrash => self.crash_controller(s),
            Misfortune::Rollout => s.rollout = !s.rollout,
            Misfortune::BarePod => s.pods.push(self.new_pod(false)),
            Misfortune::Person => {
                let spec = if s.scale.spec > s.wish { s.scale.spec - 1 } else { s.scale.spec + 1 };
                self.set_spec(s, spec);
            }
        }
    }

    fn act(&self, s: &mut State, action: &Action) {
        match action {
            Action::Pod(i, what) => self.does(s, *i, *what),
            Action::TakeTask(i) => {
                if let Some(main) = &mut s.pods[*i].main {
                    main.task = true;
                }
            }
            Action::Timer(i) => self.timer(s, *i),
            Action::LoseResume(i) => s.pods[*i].resume = None,
            Action::Token(n, i) => self.token(s, *n, *i),
            Action::LoseToken(n) => {
                s.queue.remove(*n);
            }
            Action::AnyToken(i, epoch) => {
                s.pods[*i].hand = Some(*epoch);
                self.feed(s, *i, Input::Token(*epoch));
            }
            Action::AnyResume(i, epoch) => self.feed(s, *i, Input::Resume(*epoch)),
            Action::ReplicaSetSyncs => self.replicaset_syncs(s),
            Action::Create => s.pods.push(self.new_pod(true)),
            Action::DeleteVictim(i) => self.delete(s, *i),
            Action::ObserveScale => self.observe_scale(s),
            Action::ObservePods => self.observe_pods(s),
            Action::Step(waited, naming, until) => {
                s.misfortunes_left -= u8::from(until.is_some());
                self.step(s, *waited, naming, *until);
            }
            Action::LateWrite => self.late_write(s),
            Action::Wish(wish) => {
                s.wish = *wish;
                s.wishes_left -= 1;
            }
            Action::Bad(bad, i) => self.misfortune(s, *bad, *i),
        }
        self.look(s);
    }
}

impl World {
    /// What needs no decision is done at once.
    fn hurry(&self, s: &mut State) {
        for i in 0..s.pods.len() {
            // Each of these follows from one before it in a pod's life, which is short.
            for _ in 0..Does::AT_ONCE.len() {
                let before = s.pods[i];
                Does::AT_ONCE.into_iter().filter(|what| *what != Does::StartMain || before.incarnation > 0).for_each(|what| self.does(s, i, what));
                if s.pods[i] == before {
                    break;
                }
            }
        }
        self.look(s);
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let start = self.start();
        let mut states = vec![start.clone()];
        for wish in self.setting.wanted.iter().filter(|wish| **wish < self.setting.replicas) {
            // Fresh caches and no misfortune: the wave must create nothing.
            let calm = self.calm(State { wish: *wish, ..start.clone() });
            states[0].broken |= calm.verdict;
            if calm.created > 0 {
                states[0].break_(Broken::Churn);
            }
        }
        states
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        self.may(s, actions);
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut s = before.clone();
        self.act(&mut s, &action);
        if self.setting.around == Around::Fleet {
            self.hurry(&mut s);
        }
        let mut s = s.canonical();
        if s == *before {
            return None;
        }
        if s.broken == 0 && fingerprint(&s).is_multiple_of(self.setting.calm_every) {
            s.broken |= self.calm(s.clone()).verdict;
        }
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties()
    }

    fn within_boundary(&self, s: &State) -> bool {
        s.saved.0 <= self.setting.epochs
    }
}
