//! The calm world: no misfortune, no new task, nothing lost, everything that can happen does, in turn. In: any state. Out: where it ends, and
//! whether that is where a fleet should end. This is how progress is checked from states that no fair schedule was chosen for.

use crate::intern::Waited;
use crate::may::Does;
use crate::property::Broken;
use crate::state::State;
use crate::world::World;
use qscaler_core::message::WorkerState;

/// Turns per pod until a fleet must have come to rest; three turns let every timer run out once, and a wave may take them all.
const TURNS_PER_POD: usize = 12;
/// Rounds without a timer until nothing changes any more.
const ROUNDS_MAX: usize = 200;

/// How it ended.
pub(crate) struct Calm {
    pub(crate) state: State,
    /// Pods created on the way.
    pub(crate) created: u32,
    /// Bits of [`Broken`].
    pub(crate) verdict: u16,
}

impl World {
    pub(crate) fn calm(&self, mut s: State) -> Calm {
        s.broken = 0;
        let mut created = 0;
        for turn in 0..TURNS_PER_POD * usize::from(self.setting.slots) {
            self.rest(&mut s, &mut created);
            if self.is_at_rest(&s) {
                return Calm { state: s.canonical(), created, verdict: 0 };
            }
            let naming: Vec<usize> = (0..s.pods.len()).collect();
            match turn % 3 {
                0 => {
                    s.queue.clear();
                    self.step(&mut s, Waited::Long, &naming, None);
                }
                // A lease is longer than the wait for more parked pods.
                1 => self.step(&mut s, Waited::Enough, &naming, None),
                _ => (0..s.pods.len()).for_each(|i| self.timer(&mut s, i)),
            }
        }
        let stuck = s.pods.iter().any(|pod| pod.api.deleted && !pod.gone);
        let verdict = if stuck { Broken::Stuck } else { Broken::Unsettled } as u16;
        Calm { state: s, created, verdict }
    }

    /// Everything that needs no timer.
    fn rest(&self, s: &mut State, created: &mut u32) {
        for _ in 0..ROUNDS_MAX {
            let before = s.clone();
            for i in 0..s.pods.len() {
                for what in Does::ALL {
                    if !s.pods[i].gone {
                        self.does(s, i, what);
                    }
                }
            }
            while let Some(i) = s.pods.iter().position(|pod| pod.listening && pod.hand.is_none() && pod.sidecar.is_some()) {
                if s.queue.is_empty() {
                    break;
                }
                self.token(s, 0, i);
            }
            self.late_write(s);
            self.replicaset_syncs(s);
            if self.may_create(s) {
                *created += 1;
                s.pods.push(self.new_pod(true));
            }
            if s.active() > s.followed {
                let order = |i: &usize| (s.pods[*i].api.ready, !s.pods[*i].api.marked);
                let victim = (0..s.pods.len()).filter(|i| s.pods[*i].is_active()).min_by_key(order);
                victim.into_iter().for_each(|i| self.delete(s, i));
            }
            self.observe_scale(s);
            self.observe_pods(s);
            let naming: Vec<usize> = (0..s.pods.len()).collect();
            self.step(s, Waited::No, &naming, None);
            if *s == before {
                return;
            }
        }
    }

    /// The wished size, all at work, nothing under way. Beside a rollout or a bare pod the count may stay above the wish, but nothing stays parked.
    fn is_at_rest(&self, s: &State) -> bool {
        let wish = s.wish.max(self.setting.min);
        let blocked = s.rollout || s.pods.iter().any(|pod| !pod.injected && pod.is_active());
        let size = if blocked { s.scale.spec >= wish } else { s.scale.spec == wish };
        let all_well = s.pods.iter().all(|pod| {
            let open = !pod.injected || self.known(pod).is_some_and(|known| known.state == WorkerState::Open);
            !pod.api.deleted && pod.api.ready && !pod.api.marked && pod.main.is_some() && open
        });
        size && s.active() == s.scale.spec && all_well && s.saved.1 == 0
    }
}
