//! The machine: one `step` from facts to effects. In: facts, the wished number of useful pods, the time. Out: effects and where the drain stands.
//! Left to others: counting pods (`count`), marks where another scaler owns the count (`protect`).

use super::blocked::{Blocked, blocked};
use super::count::{Census, Fresh, count, fresh, is_parked, is_quiet};
use super::protect::{Edges, set_cost};
use super::replace::{Replacements, leaving};
use super::rollout::{Full, lowest_without_workers};
use super::{FleetEffect, FleetFacts, FleetSettings, FleetStep, IntentRecord, PARKED_COST, Phase, PodFacts, RECHECK_MS};
use crate::message::{Busy, ControlKind, ControlMessage, Epoch, VERSION, WorkerState};

/// Left-over costs removed per step: bounds the load on the API server.
const CLEANUPS_MAX: usize = 10;
/// A report whose epoch is further ahead than this is not believed: at a wave a second that would be waves of eleven days that nobody has saved,
/// and a number near the end of its range would leave none for the waves to come.
const EPOCH_JUMP_MAX: u64 = 1_000_000;

/// The controller's half of the drain for one workload. See the module for its rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FleetMachine {
    settings: FleetSettings,
    /// The newest wave; `count` is 0 when none is open.
    intent: IntentRecord,
    /// Tokens of an earlier life may be in the queue.
    leftovers: bool,
    /// Since when only the ReplicaSet's echo is missing.
    echo_since_ms: Option<u64>,
    edges: Edges,
    replacements: Replacements,
    full: Full,
    /// Those who park stay at hand.
    keeps_parked: bool,
}

/// The step under construction.
struct Draft<'a> {
    facts: &'a FleetFacts,
    census: Census<'a>,
    target: u32,
    now_ms: u64,
    effects: Vec<FleetEffect>,
}

impl FleetMachine {
    /// For a workload without history.
    #[must_use]
    pub fn new(settings: FleetSettings) -> Self {
        Self {
            settings,
            intent: IntentRecord::default(),
            leftovers: false,
            echo_since_ms: None,
            edges: Edges::default(),
            replacements: Replacements::default(),
            full: Full::default(),
            keeps_parked: false,
        }
    }

    /// After a start or a change of leader, from the saved intent. Tokens of its wave are not trusted: the next wave has a higher number.
    #[must_use]
    pub fn restore(settings: FleetSettings, intent: Option<IntentRecord>) -> Self {
        let mut machine = Self::new(settings);
        if let Some(intent) = intent {
            machine.intent = IntentRecord { count: 0, ..intent };
            machine.leftovers = intent.count > 0;
        }
        machine
    }

    /// New settings, the same wave.
    pub fn set_settings(&mut self, settings: FleetSettings) {
        self.settings = settings;
    }

    /// From now on the count is not lowered: a short trial of fewer pods, after which those who parked are likely to be called back.
    pub fn keep_parked(&mut self, keep: bool) {
        self.keeps_parked = keep;
    }

    /// The newest wave.
    #[must_use]
    pub fn intent(&self) -> IntentRecord {
        self.intent
    }

    /// After a write of the intent, or of a token of its wave, that was refused or whose fate is not known: the wave's tokens are not trusted, and
    /// the next one has a higher number than both what was saved (`saved`) and what was tried.
    pub fn distrust(&mut self, saved: Option<IntentRecord>) {
        let known = self.intent;
        self.intent = IntentRecord { epoch: known.epoch.max(saved.map_or(Epoch(0), |s| s.epoch)), ..IntentRecord::default() };
        self.leftovers |= known.count > 0 || saved.is_some_and(|s| s.count > 0);
        self.echo_since_ms = None;
    }

    /// Pods that are there on top of what is wanted, until they have taken over from pods on cordoned nodes.
    #[must_use]
    pub fn replacements(&self) -> u32 {
        self.replacements.count()
    }

    /// For the model checker, which has no clock: whatever is waited for has taken its time, and with `tokens` those of the wave are dead too.
    #[cfg(feature = "model")]
    pub fn let_time_pass(&mut self, tokens: bool) {
        self.intent.issued_ms = 0;
        if tokens {
            self.intent.expires_ms = 0;
        }
        self.echo_since_ms = self.echo_since_ms.map(|_| 0);
    }

    /// What to do now so that `desired_useful` pods are ready or starting, not parked and not terminating.
    pub fn step(&mut self, facts: &FleetFacts, desired_useful: u32, now_ms: u64) -> FleetStep {
        let census = Census::new(facts, now_ms);
        let mut target = desired_useful.min(self.settings.max_replicas).max(self.settings.min_replicas);
        let blocked = blocked(&self.settings, facts, now_ms);
        if blocked.is_none() && !self.settings.protect {
            let most = self.settings.max_replicas.max(target);
            target = self.replacements.wanted(facts, &census, target, self.intent.count > 0, now_ms).min(most);
        }
        let mut not_raised = None;
        if let Some((room, why)) = self.full.room(facts, now_ms) {
            let room = room.max(self.settings.min_replicas);
            if target > room {
                not_raised = Some(format!("{target} pods are wanted and {room} are asked for: {why}"));
                target = room;
            }
        }
        let mut draft = Draft { facts, census, target, now_ms, effects: Vec::new() };
        let phase = if !facts.leader {
            self.echo_since_ms = None;
            Phase::Idle
        } else if self.settings.protect || facts.conflict.is_some() {
            self.stand_by(&mut draft)
        } else {
            self.drive(&mut draft, blocked.as_ref())
        };
        let blocked = blocked.map(|b| b.reason().to_owned());
        let phase = match &blocked {
            Some(reason) if phase == Phase::Idle && (!facts.leader || facts.conflict.is_some() || draft.wants_less()) => {
                Phase::Blocked { reason: reason.clone() }
            }
            _ => phase,
        };
        let next_wake_ms = self.next_wake(&phase, now_ms);
        let (parked, useful) = (count(&draft.census.parked), draft.census.useful());
        FleetStep { phase, blocked, not_raised, parked, useful, next_wake_ms, effects: draft.effects }
    }

    fn next_wake(&self, phase: &Phase, now_ms: u64) -> Option<u64> {
        let recheck = now_ms.saturating_add(RECHECK_MS);
        let gathered = self.intent.issued_ms.saturating_add(self.settings.gather_ms);
        match phase {
            Phase::Idle if !self.settings.protect => None,
            Phase::Asking if gathered > now_ms => Some(recheck.min(gathered)),
            _ => Some(recheck),
        }
    }

    /// Somebody else owns the count: every parked pod goes back to work.
    fn stand_by(&mut self, draft: &mut Draft<'_>) -> Phase {
        self.echo_since_ms = None;
        self.close_wave(draft);
        let resumed = self.resume(draft, u32::MAX);
        if self.settings.protect && draft.facts.conflict.is_none() {
            draft.effects.extend(self.edges.step(draft.facts, draft.now_ms));
        } else {
            draft.remove_leftover_costs();
        }
        if resumed > 0 { Phase::Resuming } else { Phase::Idle }
    }

    fn drive(&mut self, draft: &mut Draft<'_>, blocked: Option<&Blocked>) -> Phase {
        // A status that was lost must not bring numbers back that sidecars have seen already: they would drop them.
        let believed = self.intent.epoch.after(EPOCH_JUMP_MAX);
        let seen = draft.facts.pods.iter().filter_map(|pod| fresh(pod, draft.now_ms)).map(|report| report.epoch).filter(|epoch| *epoch <= believed);
        self.intent.epoch = self.intent.epoch.max(seen.max().unwrap_or_default());
        let phase = self.raise_or_lower(draft, blocked);
        draft.remove_leftover_costs();
        phase
    }

    fn raise_or_lower(&mut self, draft: &mut Draft<'_>, blocked: Option<&Blocked>) -> Phase {
        let missing = draft.target.saturating_sub(draft.census.expected);
        if missing > 0 {
            return self.raise(draft, missing);
        }
        if self.leftovers {
            self.close_wave(draft);
        }
        let fresh = Fresh::of(draft.facts);
        if let (Some(fresh), None) = (fresh, blocked) {
            return self.lower(draft, fresh);
        }
        self.echo_since_ms = None;
        self.close_wave(draft);
        match (fresh, blocked) {
            (Some(fresh), Some(Blocked::Workers(reason))) if !self.keeps_parked => draft.let_go_without_workers(fresh, reason),
            _ => Phase::Idle,
        }
    }

    // === up ===

    fn raise(&mut self, draft: &mut Draft<'_>, missing: u32) -> Phase {
        self.echo_since_ms = None;
        self.close_wave(draft);
        if draft.facts.spec_replicas < draft.target {
            let reason = format!("{} useful pods wanted, {} expected", draft.target, draft.census.expected);
            draft.raise_to(draft.target, reason);
        }
        if self.resume(draft, missing) > 0 { Phase::Resuming } else { Phase::Settling }
    }

    /// Puts up to `wanted` parked pods back to work, those with a task first. The cost goes before the message: a pod that works again must not
    /// carry the mark. Repeated every step until the pod says that it is open.
    fn resume(&self, draft: &mut Draft<'_>, wanted: u32) -> u32 {
        let chosen: Vec<&PodFacts> = draft.census.parked.iter().rev().copied().take(wanted as usize).collect();
        for pod in &chosen {
            if pod.deletion_cost == PARKED_COST {
                draft.effects.push(set_cost(pod, None));
            }
            // What a pod says of itself alone may be as high as it likes: the message is for it alone.
            let seen = pod.report.as_ref().map_or(Epoch(0), |report| report.epoch);
            let epoch = self.intent.epoch.max(seen);
            let message = self.message(ControlKind::Resume, epoch, Some(pod.uid.clone()), draft.now_ms);
            draft.effects.push(FleetEffect::Publish(message));
        }
        count(&chosen)
    }

    // === down ===

    fn lower(&mut self, draft: &mut Draft<'_>, fresh: Fresh<'_>) -> Phase {
        let facts = draft.facts;
        let census = draft.census.clone();
        let surplus = census.expected.saturating_sub(draft.target);
        // Pods that were never created go at once: no pod is touched.
        let unborn = surplus.min(census.unborn);
        if unborn > 0 && !self.keeps_parked {
            draft.lower_by(fresh, unborn, format!("{unborn} pods not created yet are not needed any more"));
            return Phase::Lowering;
        }
        let settled = facts.status_replicas == facts.spec_replicas && census.active == facts.spec_replicas;
        let cancelled = if census.unsteady > 0 { 0 } else { surplus.min(census.starting) };
        let to_park = surplus - surplus.min(census.starting);
        let parked = count(&census.parked);
        if to_park == 0 || self.intent.expires_ms <= draft.now_ms {
            self.close_wave(draft);
        }
        let marked = draft.mark_parked();
        if !settled {
            self.echo_since_ms = None;
            return if surplus == 0 && parked == 0 { Phase::Idle } else { Phase::Settling };
        }
        let gathering = self.intent.count > parked && (parked == 0 || draft.now_ms < self.intent.issued_ms.saturating_add(self.settings.gather_ms));
        // A starting pod that stays wanted, or one that is at work and not ready, would be taken in place of a parked one.
        let in_the_way = census.unsteady > 0 || census.starting > cancelled;
        let ready_to_lower = !gathering && !in_the_way && marked && parked > 0;
        let quiet = if ready_to_lower { self.echoed(draft) } else { None };
        if !ready_to_lower {
            self.echo_since_ms = None;
        }
        let total = cancelled + quiet.unwrap_or(0);
        if total > 0 && self.keeps_parked {
            return Phase::Settling;
        }
        if total > 0 {
            if quiet.is_some() {
                self.close_wave(draft);
            }
            let reason = format!(
                "{} useful pods wanted, {} there; {} parked and {cancelled} starting pods go",
                draft.target,
                census.useful(),
                total - cancelled
            );
            draft.lower_by(fresh, total, reason);
            self.replacements.lowered(total);
            return Phase::Lowering;
        }
        if ready_to_lower {
            return Phase::Echo;
        }
        if gathering {
            return Phase::Asking;
        }
        if parked > 0 {
            return Phase::Marking;
        }
        if to_park > 0 && census.unsteady == 0 && self.ask(draft, to_park) {
            return Phase::Asking;
        }
        if surplus > 0 { Phase::Settling } else { Phase::Idle }
    }

    /// How many parked pods may be lowered by now: those that the API shows as not ready, once the ReplicaSet's count shows it too or its time is up.
    fn echoed(&mut self, draft: &Draft<'_>) -> Option<u32> {
        let since = *self.echo_since_ms.get_or_insert(draft.now_ms);
        let quiet = draft.census.parked.iter().filter(|pod| is_quiet(pod)).count();
        let all = quiet == draft.census.parked.len() && draft.facts.rs_ready_replicas <= draft.census.ready;
        let late = draft.now_ms >= since.saturating_add(self.settings.echo_timeout_ms);
        (quiet > 0 && (all || late)).then(|| u32::try_from(quiet).unwrap_or(u32::MAX))
    }

    /// Opens a wave: idle pods on nodes that are being emptied are named, and, where a pod's hold is less
    /// than whole, those that are better; for the others whoever is free comes. Those that replace a busy pod of
    /// such a node stay until it is free. False: nobody can be asked now.
    fn ask(&mut self, draft: &mut Draft<'_>, to_park: u32) -> bool {
        let bound = if draft.target == 0 { to_park } else { draft.facts.max_unavailable.max(1) };
        let leaving = leaving(draft.facts, draft.now_ms);
        let is_free = |pod: &&PodFacts| fresh(pod, draft.now_ms).is_some_and(|report| report.state == WorkerState::Open && report.busy == Busy::Idle);
        let mut named: Vec<String> = leaving.iter().filter(|pod| is_free(pod)).map(|pod| pod.uid.clone()).take(to_park.min(bound) as usize).collect();
        let kept = self.replacements.count().min(count(&leaving));
        let mut anyone = to_park.saturating_sub(kept.max(count(&named))).min(bound - count(&named));
        if draft.facts.pods.iter().any(|pod| pod.gapped && !pod.terminating) {
            let better = |pod: &&PodFacts| !pod.gapped && !pod.terminating && pod.injected && !named.contains(&pod.uid);
            let free: Vec<&PodFacts> = draft.facts.pods.iter().filter(better).filter(|pod| is_free(pod)).take(anyone as usize).collect();
            if !free.is_empty() {
                anyone = 0;
                named.extend(free.into_iter().map(|pod| pod.uid.clone()));
            }
        }
        let wave = count(&named) + anyone;
        if wave == 0 {
            return false;
        }
        self.intent = IntentRecord {
            epoch: self.intent.epoch.next(),
            count: wave,
            issued_ms: draft.now_ms,
            expires_ms: draft.now_ms.saturating_add(self.settings.token_ttl_ms),
        };
        draft.effects.push(FleetEffect::SaveIntent(self.intent));
        for target in named.into_iter().map(Some).chain(std::iter::repeat_n(None, anyone as usize)) {
            let message = self.message(ControlKind::SigkillQueue, self.intent.epoch, target, draft.now_ms);
            draft.effects.push(FleetEffect::Publish(message));
        }
        true
    }

    /// Ends the wave, if one is open. Tokens still in the queue go; one that is in a worker's hands parks it, and that pod is resumed or used.
    fn close_wave(&mut self, draft: &mut Draft<'_>) {
        if self.intent.count == 0 && !self.leftovers {
            return;
        }
        self.leftovers = false;
        // A higher number, so that a resumed pod takes no token of this wave.
        self.intent = IntentRecord { epoch: self.intent.epoch.next(), ..IntentRecord::default() };
        draft.effects.extend([FleetEffect::SaveIntent(self.intent), FleetEffect::Purge]);
    }

    fn message(&self, kind: ControlKind, epoch: Epoch, target: Option<String>, now_ms: u64) -> ControlMessage {
        ControlMessage {
            version: VERSION,
            kind,
            workload_uid: self.settings.workload_uid.clone(),
            epoch,
            issued_ms: now_ms,
            expires_ms: now_ms.saturating_add(self.settings.token_ttl_ms),
            lease_ms: self.settings.lease_ms,
            target,
        }
    }
}

impl Draft<'_> {
    /// Something should go, were it not blocked.
    fn wants_less(&self) -> bool {
        self.census.expected > self.target || !self.census.parked.is_empty()
    }

    /// Whatever is in the way of pods at work, those that never had a worker may go, as far as the Deployment controller takes no other for them.
    fn let_go_without_workers(&mut self, fresh: Fresh<'_>, reason: &str) -> Phase {
        let spec = fresh.facts().spec_replicas;
        let Some(to) = lowest_without_workers(fresh, self.target, self.now_ms) else { return Phase::Idle };
        self.lower_by(fresh, spec - to, format!("{} pods whose worker never ran are not needed ({reason})", spec - to));
        Phase::Lowering
    }

    fn raise_to(&mut self, to: u32, reason: String) {
        self.scale(self.facts, to.max(self.facts.spec_replicas), reason);
    }

    fn lower_by(&mut self, fresh: Fresh<'_>, by: u32, reason: String) {
        self.scale(fresh.facts(), fresh.facts().spec_replicas.saturating_sub(by), reason);
    }

    fn scale(&mut self, facts: &FleetFacts, to: u32, reason: String) {
        self.effects.push(FleetEffect::Scale { resource_version: facts.resource_version.clone(), from: facts.spec_replicas, to, reason });
    }

    /// Marks each parked pod; true when all carry the mark already.
    fn mark_parked(&mut self) -> bool {
        let unmarked: Vec<FleetEffect> =
            self.census.parked.iter().filter(|pod| pod.deletion_cost != PARKED_COST).map(|pod| set_cost(pod, Some(PARKED_COST))).collect();
        let all = unmarked.is_empty();
        self.effects.extend(unmarked);
        all
    }

    /// A pod that works again must not carry the mark. One that nothing is heard of, and that is not ready, may still be parked.
    fn remove_leftover_costs(&mut self) {
        if Fresh::of(self.facts).is_none() {
            return;
        }
        let left_over = |pod: &&PodFacts| {
            let known = fresh(pod, self.now_ms).is_some() || (pod.ready && pod.sidecar_ready);
            // Those of a time when another owned the count are left over, too.
            let ours = pod.cost_ours || pod.deletion_cost == PARKED_COST;
            !pod.terminating && ours && !is_parked(pod, self.now_ms) && known
        };
        let writes: Vec<FleetEffect> = self.facts.pods.iter().filter(left_over).take(CLEANUPS_MAX).map(|pod| set_cost(pod, None)).collect();
        self.effects.extend(writes);
    }
}
