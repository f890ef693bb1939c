//! The controller's driver and the API around it, with an oracle that counts for itself. In: a state. Out: the state after a step of the fleet
//! machine, cut off by a crash wherever one wishes.

use crate::intern::{NOW_MS, Seen, Sight, Waited};
use crate::mutation::Mutation;
use crate::property::Broken;
use crate::setting::Around;
use crate::state::{Pod, State};
use crate::world::World;
use qscaler_core::drain::fleet::{FleetEffect, FleetFacts, PARKED_COST, PodFacts, ReportFacts, SetFacts};
use qscaler_core::message::{Busy, ControlKind, Epoch, WorkerState};

fn wide(n: u8) -> u32 {
    u32::from(n)
}

fn narrow(n: u32) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}

fn narrow_epoch(n: u64) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}

/// Which name each pod goes by in this step: `naming[i]` of pod `i`.
pub(crate) fn namings(pods: usize) -> Vec<Vec<usize>> {
    let first: Vec<usize> = (0..pods).collect();
    if pods > 4 {
        return vec![first.clone(), first.into_iter().rev().collect()];
    }
    let mut all = vec![vec![]];
    for _ in 0..pods {
        all = all
            .into_iter()
            .flat_map(|part: Vec<usize>| (0..pods).filter(|n| !part.contains(n)).map(|n| [part.clone(), vec![n]].concat()).collect::<Vec<_>>())
            .collect();
    }
    all
}

fn is_parked(pod: &Pod) -> bool {
    pod.heard.is_some_and(|heard| heard.state == WorkerState::Parked)
}

impl World {
    pub(crate) fn enqueue(&self, s: &mut State, epoch: u8) {
        // A token more than there may be pods changes nothing: the queue of a model must end somewhere.
        if s.queue.len() < usize::from(self.setting.slots) && self.setting.around == Around::Fleet {
            s.queue.push(epoch);
        }
    }

    /// What the controller looks at, as small as it can be.
    pub(crate) fn sight(&self, s: &State, naming: &[usize]) -> Sight {
        let mut pods: Vec<Seen> = s
            .pods
            .iter()
            .zip(naming)
            .filter_map(|(pod, name)| pod.view.map(|api| Seen { name: *name, api, injected: pod.injected, heard: pod.heard }))
            .collect();
        pods.sort_by_key(|seen| seen.name);
        Sight { scale: s.view, rollout: s.rollout, pods }
    }

    fn facts(&self, sight: &Sight) -> FleetFacts {
        let believes = self.setting.mutation == Some(Mutation::EchoIgnored);
        let facts = |seen: &Seen| {
            let parked = believes && seen.heard.is_some_and(|heard| heard.state == WorkerState::Parked);
            PodFacts {
                uid: seen.name.to_string(),
                name: String::new(),
                resource_version: String::new(),
                created_ms: 0,
                ready: seen.api.ready && !parked,
                scheduled: true,
                unschedulable: false,
                pending: false,
                started: true,
                terminating: seen.api.deleted,
                injected: seen.injected || self.setting.mutation == Some(Mutation::BarePodIgnored),
                sidecar_started: true,
                sidecar_ready: seen.api.sidecar_ready && !parked,
                deletion_cost: if seen.api.marked { PARKED_COST } else { 0 },
                report: seen.heard.map(|h| ReportFacts { state: h.state, epoch: Epoch(u64::from(h.epoch)), busy: h.busy, at_ms: NOW_MS }),
                cost_ours: false,
                gapped: false,
                node_cordoned: false,
                set_uid: String::new(),
            }
        };
        FleetFacts {
            resource_version: String::new(),
            generation_observed: true,
            spec_replicas: wide(sight.scale.spec),
            status_replicas: wide(sight.scale.status),
            rs_ready_replicas: if believes { 0 } else { wide(sight.scale.ready) },
            // Who is of which version makes no difference here: all pods of the model have a worker.
            sets: (0..1 + u32::from(sight.rollout && self.setting.mutation != Some(Mutation::RolloutIgnored)))
                .map(|i| SetFacts { spec_replicas: if i == 0 { wide(sight.scale.spec) } else { 0 }, ..SetFacts::default() })
                .collect(),
            max_surge: None,
            max_unavailable: wide(self.setting.max_unavailable),
            pods: sight.pods.iter().map(facts).collect(),
            conflict: None,
            data_stale: false,
            out_of_sync: None,
            leader: true,
        }
    }

    /// Names make a difference only where several pods are alike to the controller and one of them is chosen.
    pub(crate) fn needs_namings(&self, s: &State) -> bool {
        s.pods.iter().filter(|pod| is_parked(pod)).count() > 1
    }

    /// What the fleet machine says now, and the machine after it.
    pub(crate) fn decide(&self, s: &State, waited: Waited, naming: &[usize]) -> (u32, Vec<FleetEffect>) {
        let (next, step) = self.machines.step(s.fleet, waited, s.wish, self.sight(s, naming), |sight| self.facts(sight));
        let mut effects = step.effects.clone();
        match self.setting.mutation {
            Some(Mutation::LowerUnparked) if s.view.spec > s.wish => {
                effects.push(FleetEffect::Scale { resource_version: String::new(), from: wide(s.view.spec), to: wide(s.wish), reason: String::new() })
            }
            Some(Mutation::TokensFirst) => effects.sort_by_key(|effect| !matches!(effect, FleetEffect::Publish(_))),
            Some(Mutation::MarkStays) => effects.retain(|effect| !matches!(effect, FleetEffect::SetDeletionCost { cost: None, .. })),
            _ => {}
        }
        (next, effects)
    }

    /// Performs the first `until` effects of a step, fewer than all being a crash, and stops at the first that is refused.
    pub(crate) fn step(&self, s: &mut State, waited: Waited, naming: &[usize], until: Option<usize>) {
        let (next, effects) = self.decide(s, waited, naming);
        s.fleet = next;
        for effect in effects.iter().take(until.unwrap_or(usize::MAX)) {
            if !self.perform_fleet(s, effect, naming) {
                break;
            }
        }
        let Some(until) = until else { return };
        if let Some(FleetEffect::Scale { from, to, .. }) = effects.get(until)
            && s.view_new
        {
            s.late = Some((narrow(*from), narrow(*to), true));
        }
        self.crash_controller(s);
    }

    /// The write of a controller that is no more arrives.
    pub(crate) fn late_write(&self, s: &mut State) {
        let Some((_, to, newest)) = s.late.take() else { return };
        if newest || self.setting.mutation == Some(Mutation::OldLeaderWrites) {
            if !newest && to != s.scale.spec {
                s.break_(Broken::OldWriter);
            }
            self.set_spec(s, to);
        }
    }

    /// Every write of the scale makes older versions void; whoever raises the count takes a decrement back.
    pub(crate) fn set_spec(&self, s: &mut State, spec: u8) {
        if spec > s.scale.spec {
            s.pods.iter_mut().for_each(|pod| pod.spent = false);
        }
        s.scale.spec = spec;
        self.scale_written(s);
    }

    fn scale_written(&self, s: &mut State) {
        s.view_new = false;
        s.late = s.late.map(|(from, to, _)| (from, to, false));
    }

    pub(crate) fn crash_controller(&self, s: &mut State) {
        s.fleet = self.machines.restored(s.saved);
        s.pods.iter_mut().for_each(|pod| pod.heard = None);
    }

    fn perform_fleet(&self, s: &mut State, effect: &FleetEffect, naming: &[usize]) -> bool {
        let find = |uid: &str| naming.iter().position(|name| name.to_string() == uid);
        match effect {
            FleetEffect::SaveIntent(intent) => s.saved = (narrow_epoch(intent.epoch.0), narrow(intent.count)),
            FleetEffect::Purge => s.queue.clear(),
            FleetEffect::Publish(message) if message.kind == ControlKind::SigkillQueue => {
                let epoch = narrow_epoch(message.epoch.0);
                if epoch > s.saved.0 {
                    s.break_(Broken::Intent);
                }
                self.enqueue(s, epoch);
            }
            FleetEffect::Publish(message) => {
                if let Some(i) = message.target.as_deref().and_then(find) {
                    s.pods[i].resume = Some(narrow_epoch(message.epoch.0));
                }
            }
            FleetEffect::SetDeletionCost { pod_uid, cost, .. } => {
                let Some(pod) = find(pod_uid).map(|i| &mut s.pods[i]).filter(|pod| !pod.gone && pod.view_new) else { return false };
                pod.api.marked = cost.is_some();
                pod.view_new = false;
            }
            FleetEffect::Scale { from, to, .. } => return self.write_scale(s, narrow(*from), narrow(*to)),
        }
        true
    }

    fn write_scale(&self, s: &mut State, from: u8, to: u8) -> bool {
        let blind = self.setting.mutation == Some(Mutation::BlindScale);
        if !s.view_new && !blind {
            return false;
        }
        let to = if blind { s.scale.spec.saturating_sub(from).saturating_add(to) } else { to };
        if to < s.scale.spec {
            self.judge_decrement(s, to);
        }
        self.set_spec(s, to);
        true
    }

    /// The oracle: counts from the same views, in its own way.
    fn judge_decrement(&self, s: &mut State, to: u8) {
        let fall = s.scale.spec - to;
        let viewed: Vec<&Pod> = s.pods.iter().filter(|pod| pod.view.is_some_and(|api| !api.deleted)).collect();
        let active = u8::try_from(viewed.len()).unwrap_or(u8::MAX);
        let parked = viewed.iter().filter(|pod| is_parked(pod)).count();
        let echoed = viewed.iter().filter(|pod| is_parked(pod) && pod.view.is_some_and(|api| !api.ready && !api.sidecar_ready)).count();
        let no_task = |pod: &&&Pod| pod.heard.is_none_or(|heard| heard.state == WorkerState::Boot || heard.busy == Busy::Idle);
        let starting = viewed.iter().filter(|pod| !is_parked(pod) && pod.view.is_some_and(|api| !api.ready)).filter(no_task).count();
        let unborn = s.view.spec.saturating_sub(active.max(s.view.status));
        let (parked, echoed, starting) = (narrow(parked as u32), narrow(echoed as u32), narrow(starting as u32));
        if fall > parked + starting + unborn || to < s.wish.max(self.setting.min) || !s.view_new {
            s.break_(Broken::Decrement);
        }
        if fall > starting + unborn {
            let settled = s.view.spec == s.view.status && s.view.spec == active;
            let twice = s.pods.iter().any(|pod| pod.spent && !pod.api.deleted && pod.view.is_some() && is_parked(pod));
            if !settled || twice {
                s.break_(Broken::Decrement);
            }
            if fall > starting + unborn + echoed {
                s.break_(Broken::Echo);
            }
            s.pods.iter_mut().filter(|pod| is_parked(pod)).for_each(|pod| pod.spent = true);
        }
        // A pod that was never created may be let go whatever is under way.
        if (s.rollout || viewed_bare(s)) && fall > unborn {
            s.break_(Broken::BlockedDecrement);
        }
    }

    // === the API and the ReplicaSet ===

    pub(crate) fn observe_scale(&self, s: &mut State) {
        s.view = s.scale;
        s.view_new = true;
    }

    pub(crate) fn observe_pods(&self, s: &mut State) {
        s.pods.retain(|pod| !pod.gone);
        for pod in &mut s.pods {
            pod.view = Some(pod.api);
            pod.view_new = true;
        }
    }

    pub(crate) fn replicaset_syncs(&self, s: &mut State) {
        s.followed = s.scale.spec;
        let status = s.active();
        let ready = s.pods.iter().filter(|pod| pod.is_active() && pod.api.ready).count();
        let ready = narrow(ready as u32);
        if (s.scale.status, s.scale.ready) != (status, ready) {
            (s.scale.status, s.scale.ready) = (status, ready);
            self.scale_written(s);
        }
        if status == s.scale.spec {
            s.pods.iter_mut().for_each(|pod| pod.spent = false);
        }
    }
}

fn viewed_bare(s: &State) -> bool {
    s.pods.iter().any(|pod| !pod.injected && pod.view.is_some_and(|api| !api.deleted))
}
