//! What may happen. In: a state. Out: every action that the world's rules allow next. Left to others: doing it (`act`).

use crate::control::namings;
use crate::intern::Waited;
use crate::setting::{Around, Misfortune};
use crate::state::State;
use crate::world::World;
use qscaler_core::message::WorkerState;

/// What happens in a pod without anybody's ill luck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Does {
    StartSidecar,
    StartMain,
    Notice,
    Finish,
    Quiets,
    Leave,
    GateActs,
    CallHold,
    CallOwn,
    Evidence,
    Claim,
    Resume,
    Term,
    Gone,
    Probe,
    Hear,
}

impl Does {
    pub(crate) const ALL: [Self; 16] = [
        Self::StartSidecar,
        Self::StartMain,
        Self::Notice,
        Self::Finish,
        Self::Quiets,
        Self::Leave,
        Self::GateActs,
        Self::CallHold,
        Self::CallOwn,
        Self::Evidence,
        Self::Claim,
        Self::Resume,
        Self::Term,
        Self::Gone,
        Self::Probe,
        Self::Hear,
    ];
}

impl Does {
    /// What is done at once where the fleet is looked at. A first start takes its time all the same.
    pub(crate) const AT_ONCE: [Self; 12] = [
        Self::StartSidecar,
        Self::StartMain,
        Self::Notice,
        Self::Quiets,
        Self::Leave,
        Self::GateActs,
        Self::CallOwn,
        Self::CallHold,
        Self::Evidence,
        Self::Claim,
        Self::Term,
        Self::Gone,
    ];
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Pod(usize, Does),
    TakeTask(usize),
    Timer(usize),
    LoseResume(usize),
    /// The n-th token of the queue to a pod.
    Token(usize, usize),
    LoseToken(usize),
    /// From anybody: a token or a resume of this wave.
    AnyToken(usize, u8),
    AnyResume(usize, u8),
    ReplicaSetSyncs,
    Create,
    DeleteVictim(usize),
    ObserveScale,
    ObservePods,
    /// A step under this naming; cut off by a crash after so many effects.
    Step(Waited, Vec<usize>, Option<usize>),
    LateWrite,
    Wish(u8),
    Bad(Misfortune, usize),
}

impl World {
    pub(crate) fn may(&self, s: &State, actions: &mut Vec<Action>) {
        if s.broken != 0 {
            return;
        }
        for (i, pod) in s.pods.iter().enumerate().filter(|(_, pod)| !pod.gone) {
            actions.extend(Does::ALL.into_iter().filter(|what| self.can(s, i, *what)).map(|what| Action::Pod(i, what)));
            if self.setting.tasks && self.may_take(pod) {
                actions.push(Action::TakeTask(i));
            }
            if self.known(pod).is_some_and(|known| known.timer) {
                actions.push(Action::Timer(i));
            }
        }
        match self.setting.around {
            Around::Anybody => self.anybody(s, actions),
            Around::Fleet => self.fleet(s, actions),
        }
        if s.misfortunes_left > 0 {
            for bad in self.setting.may {
                actions.extend((0..s.pods.len().max(1)).filter(|i| self.is_possible(s, *bad, *i)).map(|i| Action::Bad(*bad, i)));
            }
        }
    }

    fn is_possible(&self, s: &State, bad: Misfortune, i: usize) -> bool {
        if matches!(bad, Misfortune::ControllerCrash | Misfortune::Rollout | Misfortune::BarePod | Misfortune::Person | Misfortune::TokenDoubled) {
            return i == 0
                && match bad {
                    Misfortune::BarePod => self.may_create(s),
                    Misfortune::TokenDoubled => !s.queue.is_empty(),
                    _ => true,
                };
        }
        let Some(pod) = s.pods.get(i).filter(|pod| !pod.gone) else { return false };
        match bad {
            Misfortune::SidecarCrash => pod.sidecar.is_some(),
            Misfortune::WorkerCrash => pod.main.is_some_and(|main| !main.task),
            Misfortune::LivenessKill => pod.main.is_some() && !pod.api.deleted && !pod.liveness_kill && pod.injected,
            Misfortune::Evict => !pod.api.deleted,
            Misfortune::HooksAgain => pod.api.deleted && pod.hold_waits,
            Misfortune::GraceSpent => pod.api.deleted && pod.main.is_some() && pod.hold_waits && pod.known == pod.incarnation,
            _ => true,
        }
    }

    fn anybody(&self, s: &State, actions: &mut Vec<Action>) {
        for (i, pod) in s.pods.iter().enumerate().filter(|(_, pod)| !pod.gone) {
            if pod.is_active() {
                actions.push(Action::DeleteVictim(i));
            }
            for epoch in (1..=self.setting.epochs).filter(|_| pod.sidecar.is_some()) {
                actions.push(Action::AnyResume(i, epoch));
                if pod.hand.is_none() {
                    actions.push(Action::AnyToken(i, epoch));
                }
            }
        }
    }

    fn fleet(&self, s: &State, actions: &mut Vec<Action>) {
        for (i, pod) in s.pods.iter().enumerate().filter(|(_, pod)| !pod.gone) {
            if pod.resume.is_some() {
                actions.push(Action::LoseResume(i));
            }
            if s.active() > s.followed && pod.is_active() {
                actions.push(Action::DeleteVictim(i));
            }
        }
        for n in (0..s.queue.len()).filter(|n| *n == 0 || s.queue[*n] != s.queue[*n - 1]) {
            actions.push(Action::LoseToken(n));
            actions.extend((0..s.pods.len()).filter(|i| s.pods[*i].sidecar.is_some()).map(|i| Action::Token(n, i)));
        }
        actions.extend([Action::ReplicaSetSyncs, Action::ObserveScale, Action::ObservePods]);
        if self.may_create(s) {
            actions.push(Action::Create);
        }
        if s.late.is_some() {
            actions.push(Action::LateWrite);
        }
        self.steps(s, actions);
        if s.wishes_left > 0 {
            actions.extend(self.setting.wanted.iter().filter(|wish| **wish != s.wish).map(|wish| Action::Wish(*wish)));
        }
    }

    fn steps(&self, s: &State, actions: &mut Vec<Action>) {
        let pods = s.pods.len();
        let namings = if self.needs_namings(s) { namings(pods) } else { vec![(0..pods).collect()] };
        let crash = s.misfortunes_left > 0 && self.setting.may.contains(&Misfortune::ControllerCrash);
        let mut all = vec![Waited::No];
        if self.machines.intent(s.fleet).count > 0 || s.pods.iter().any(|pod| pod.heard.is_some_and(|h| h.state == WorkerState::Parked)) {
            all.extend([Waited::Enough, Waited::Long]);
        }
        for naming in namings {
            for waited in &all {
                actions.push(Action::Step(*waited, naming.clone(), None));
                if crash {
                    let effects = self.decide(s, *waited, &naming).1.len();
                    actions.extend((0..effects).map(|until| Action::Step(*waited, naming.clone(), Some(until))));
                }
            }
        }
    }
}
