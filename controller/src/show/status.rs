//! A workload's conditions and status from what was decided. In: the workload after a look. Out: its conditions, and a status write when one is
//! due. Left to others: the decisions (`workload`), the rhythm of writes (`status`).

use crate::act::plan::Action;
use crate::due::WriteRoom;
use crate::observe::cluster::Cluster;
use crate::observe::index::View;
use crate::show::conditions::Holds;
use crate::show::hold_effective::{KnownOfHolds, judge};
use crate::show::injected;
use crate::show::status_writer::Digest;
use crate::show::stuck::{self, Stuck, Wish};
use crate::show::tally::SizeFigures;
use crate::size::bounds::size_bounds;
use crate::size::sizing::Sizing;
use crate::words::time;
use crate::workload::Workload;
use qscaler_api::{ContainerSize, Counters, Intent, QWorkerStatus, Resources, WorkerIds};
use qscaler_core::config::{Paused, Scaling, Vertical, WorkerConfig};
use qscaler_core::drain::fleet::Phase;
use qscaler_core::message::Epoch;
use qscaler_core::names::condition::{self, REASON_FAILED_CREATE};
use qscaler_core::replace::Stands;
use qscaler_core::scale::{Rule, ScaleDecision};
use qscaler_core::size::SizeBounds;
use qscaler_core::units::Bytes;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The working container's size, without what only the next life needs.
#[derive(Default)]
struct Sized {
    size: Option<ContainerSize>,
    /// What new pods get, bytes.
    memory: Option<u64>,
}

impl Sized {
    fn figures(&self) -> SizeFigures {
        let size = self.size.as_ref();
        let (current, recommended) = (size.and_then(|s| s.current.as_ref()), size.and_then(|s| s.recommended.as_ref()));
        SizeFigures {
            memory: current.and_then(|r| r.memory_bytes),
            memory_recommended: recommended.and_then(|r| r.memory_bytes),
            cpu_m: current.and_then(|r| r.cpu_request_millicores),
            cpu_recommended_m: recommended.and_then(|r| r.cpu_request_millicores),
        }
    }
}

/// One workload's last decision, for `/debug/decisions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// `namespace/name`.
    pub workload: String,
    /// The law's decision.
    pub decision: Option<qscaler_core::scale::ScaleDecision>,
    /// Where the drain stands.
    pub phase: String,
    /// Why nothing may be lowered.
    pub blocked: Option<String>,
    /// `spec.replicas`.
    pub replicas: u32,
    /// Parked pods.
    pub parked: u32,
}

impl Workload {
    /// Sets the conditions, and writes the status when it is due.
    pub(crate) fn finish(
        &mut self,
        view: &View,
        config: Option<(&WorkerConfig, &SizeBounds)>,
        saving: WriteRoom,
        actions: &mut Vec<Action>,
        now_ms: u64,
    ) {
        if let Some((config, _)) = config {
            self.ready_condition(view, now_ms);
            self.broker_condition(view, now_ms);
            self.conflict_condition(view, config, now_ms);
            self.shared_condition(view, now_ms);
            self.scheduler_condition(view, config, now_ms);
            self.scaling_condition(view, config, now_ms);
            self.injected_condition(view, config, now_ms);
            self.hold_condition(view, config, now_ms);
            self.up_to_date_condition(view, now_ms);
        }
        let sized = self.sized(view, config, now_ms);
        self.sized = sized.figures();
        let digest = self.digest(view, config.is_some(), &sized);
        let kept = self.checkpoint(saving, now_ms);
        // A kill is answered by a new size, which new pods read in the status.
        let urgent = kept.is_some() && self.sizing.as_ref().is_some_and(Sizing::is_urgent);
        if self.writer.is_due(digest, urgent, saving.room, now_ms) {
            let status = self.status(view, config.map(|(config, _)| config), sized);
            self.pending_status = Some((digest, status.sizes.keys().cloned().collect()));
            actions.push(Action::Status(self.writer.patch(&status, saving.apart)));
        }
        actions.extend(kept.map(|kept| Action::Checkpoint(Box::new(kept))));
    }

    /// Everything that the status says, in two numbers.
    fn digest(&self, view: &View, valid: bool, sized: &Sized) -> Digest {
        let (mut state, mut figures) = (DefaultHasher::new(), DefaultHasher::new());
        let decision = self.decision.as_ref();
        let terminating = view.pods.iter().filter(|p| p.terminating).count();
        (view.deployment.generation, view.deployment.spec_replicas, valid, self.fleet.ready, self.fleet.parked, terminating).hash(&mut state);
        (decision.map(|d| (d.target, d.rule.name(), d.inputs.backlog == Some(0))), self.decided_ms, self.fleet.useful()).hash(&mut state);
        (self.machine.intent(), self.intake.worker_ids(), self.unheld).hash(&mut state);
        let counters = self.counted();
        (counters.scaled_up, counters.scaled_down, counters.drained, counters.cut, counters.oom_kills, counters.resized).hash(&mut state);
        counters.malformed_messages.hash(&mut figures);
        if let Some(size) = &sized.size {
            let resources = |r: &Option<Resources>| r.as_ref().map(|r| (r.memory_bytes, r.cpu_request_millicores));
            (&size.template_hash, resources(&size.recommended), resources(&size.current), sized.memory).hash(&mut state);
            (&size.reason, &size.measured).hash(&mut figures);
        }
        if let Some(decision) = decision {
            let inputs = &decision.inputs;
            // Rates are written with two decimals.
            let rate = |r: f64| (r * 100.0).round() as i64;
            (inputs.backlog, inputs.in_flight, rate(inputs.rate_in), rate(inputs.rate_out), &decision.reason).hash(&mut figures);
        }
        self.intake.busy(&view.pods).hash(&mut figures);
        self.conditions.digest(&mut state, &mut figures);
        Digest { state: state.finish(), figures: figures.finish() }
    }

    fn counted(&self) -> Counters {
        let mut counters = self.counters.clone();
        counters.oom_kills = self.sizing.as_ref().map_or(counters.oom_kills, Sizing::oom_kills);
        counters
    }

    /// A broker URL that cannot be had is a mistake of the configuration like any other.
    fn ready_condition(&mut self, view: &View, now_ms: u64) {
        match self.broker.mistake.clone() {
            Some(mistake) => self.set(view, condition::READY, false, "InvalidConfig", mistake, now_ms),
            None => self.set(view, condition::READY, true, "Managed", "the annotations are valid", now_ms),
        }
    }

    fn broker_condition(&mut self, view: &View, now_ms: u64) {
        if self.broker.mistake.is_some() {
            return;
        }
        let problem = self.broker.queues.clone().or_else(|| self.broker.control.as_ref().map(|c| format!("control channel: {c}")));
        match (problem, self.broker.gap.clone()) {
            (Some(problem), _) => self.set(view, condition::BROKER_REACHABLE, false, "Failing", problem, now_ms),
            (None, Some(gap)) => self.set(view, condition::BROKER_REACHABLE, true, "AnswersInPart", format!("the broker answers, but {gap}"), now_ms),
            (None, None) if self.broker.answered => self.set(view, condition::BROKER_REACHABLE, true, "Answers", "the broker answers", now_ms),
            (None, None) => {}
        }
    }

    fn conflict_condition(&mut self, view: &View, config: &WorkerConfig, now_ms: u64) {
        let writer = self.other_writer(config, view, now_ms);
        let (reason, problem) = match (writer, self.other_sizer.clone()) {
            (Some(writer), _) => (if view.scalers.is_empty() { "OtherWriter" } else { "OtherScaler" }, Some(writer)),
            (None, Some((reason, sizer))) => (reason, Some(sizer)),
            (None, None) => ("None", None),
        };
        let holds = problem.is_some();
        self.set(view, condition::CONFLICT, holds, reason, problem.map_or(Cow::Borrowed("no other writer"), Cow::Owned), now_ms);
    }

    fn scaling_condition(&mut self, view: &View, config: &WorkerConfig, now_ms: u64) {
        let refused = self.lasting.uncreated(view.failure.is_some(), now_ms);
        if let Some(failure) = view.failure.as_ref().filter(|_| refused) {
            let words = injected::not_created(failure);
            let words = self.not_raised.as_ref().map_or(words.clone(), |why| format!("{words}; {why}"));
            self.set(view, condition::SCALING, false, REASON_FAILED_CREATE, words, now_ms);
            return self.scale_down_condition(view, config, now_ms);
        }
        let (holds, reason, message) = if config.dry_run {
            (false, "DryRun", "dry-run: decided and explained, nothing is changed")
        } else if config.paused != Paused::No {
            (config.paused != Paused::All, "Paused", "paused by annotation")
        } else if config.scaling == Scaling::Protect {
            (true, "Protect", "another owns the replica count; tasks are kept whole")
        } else if self.other_writer(config, view, now_ms).is_some() {
            (false, "Conflict", "another writes the replica count")
        } else if view.refusal().is_some() {
            (false, "Refused", "pods cannot have the sidecar, so the replicas are left alone: condition Injected says why")
        } else if self.broker.mistake.is_some() {
            (false, "InvalidConfig", "the broker is not known, so the workload is left alone")
        } else if self.broker.queues.is_some() {
            (false, "Holding", "the broker does not answer, so nothing is lowered")
        } else {
            (true, "Managed", "replicas follow the queue")
        };
        match self.not_raised.clone().filter(|_| holds) {
            Some(why) => self.set(view, condition::SCALING, true, "NoRoom", why, now_ms),
            None => self.set(view, condition::SCALING, holds, reason, message, now_ms),
        }
        self.scale_down_condition(view, config, now_ms);
    }

    fn scale_down_condition(&mut self, view: &View, config: &WorkerConfig, now_ms: u64) {
        let limited = self.decision.as_ref().is_some_and(|d| d.cap == Some(qscaler_core::scale::Cap::Downstream));
        let (reason, message) = if limited {
            ("SharedBottleneck", "more pods have made every task slower, so what they share is the bottleneck")
        } else {
            ("None", "more pods do more")
        };
        self.set(view, condition::DOWNSTREAM_LIMITED, limited, reason, message, now_ms);
        let blocked = match &self.phase {
            Phase::Blocked { reason } => Some(reason.clone()),
            _ => None,
        };
        let lasts = self.lasting.blocked(blocked.is_some(), now_ms);
        let (holds, reason, text) = match (blocked, self.hangs(view, config, now_ms)) {
            (Some(blocked), _) if lasts => (true, "Blocked", Cow::Owned(blocked)),
            (None, Some(stuck)) => (true, stuck.reason, Cow::Owned(stuck.message)),
            _ if self.wishes_fewer() => (false, "UnderWay", Cow::Borrowed("fewer pods are wanted, and they leave as they fall idle")),
            _ => (false, "None", Cow::Borrowed("nothing is in the way")),
        };
        self.set(view, condition::SCALE_DOWN_BLOCKED, holds, reason, text, now_ms);
    }

    /// Fewer pods are wanted, or would be were they not busy with nothing that waits.
    fn wishes_fewer(&self) -> bool {
        let all_busy = |d: &ScaleDecision| d.rule == Rule::Busy && d.inputs.backlog == Some(0);
        self.decision.as_ref().is_some_and(|d| d.hold.is_none() && (d.target < self.fleet.useful() || all_busy(d)))
    }

    /// What a scale-down that is wished for since minutes hangs in.
    fn hangs(&mut self, view: &View, config: &WorkerConfig, now_ms: u64) -> Option<Stuck> {
        let acts = !config.dry_run && config.scaling == Scaling::Managed && !matches!(config.paused, Paused::All | Paused::ScaleDown);
        let for_ms = self.lasting.fewer(acts && self.wishes_fewer(), self.counters.scaled_down, now_ms);
        let empty = self.broker.messages.0 == Some(0);
        let no_message = empty && self.broker.messages.1 == Some(0);
        let wish = Wish { for_ms, empty, no_message, max_task_ms: config.max_task_duration_ms };
        stuck::hangs(view, &self.intake, &self.phase, wish, now_ms)
    }

    fn injected_condition(&mut self, view: &View, config: &WorkerConfig, now_ms: u64) {
        let told = self.conditions.complaint(condition::INJECTED);
        let verdict = injected::remember(injected::judge(view, now_ms), told, config.share_processes.is_some(), view, now_ms);
        self.set(view, condition::INJECTED, verdict.holds, verdict.reason, verdict.message, now_ms);
    }

    fn up_to_date_condition(&mut self, view: &View, now_ms: u64) {
        let Some(step) = self.replacing.step.clone() else { return };
        let (holds, reason) = match step.stands {
            Stands::UpToDate if view.pods.iter().all(|p| p.terminating) => {
                return self.set(view, condition::UP_TO_DATE, Holds::Unknown, "NoPods", "there is no pod", now_ms);
            }
            Stands::UpToDate => (true, "UpToDate"),
            Stands::Replacing => (false, condition::REASON_REPLACING),
            Stands::Paused => (false, condition::REASON_PAUSED),
            Stands::Budget => (false, "DisruptionBudget"),
            Stands::LeftAlone => (false, "LeftAlone"),
            Stands::Fruitless => (false, "NoBetterPod"),
            Stands::Refused => (false, "EvictionFails"),
        };
        self.set(view, condition::UP_TO_DATE, holds, reason, step.words, now_ms);
    }

    /// A hold that is being made is not told of; one that was told of is told of until it is whole.
    fn hold_condition(&mut self, view: &View, config: &WorkerConfig, now_ms: u64) {
        let known = KnownOfHolds {
            listening_ms: self.lasting.listening_ms(),
            share_processes: config.share_processes != Some(false),
            control_key: self.control_key,
        };
        let verdict = judge(view, &self.intake, known, now_ms);
        let bad = verdict.holds == Holds::False;
        self.unsigned = verdict.unsigned;
        if self.lasting.unheld(bad, now_ms) || !bad {
            (self.unheld, self.unheld_pods) = (verdict.unheld, verdict.pods);
            self.set(view, condition::HOLD_EFFECTIVE, verdict.holds, verdict.reason, verdict.message, now_ms);
        }
    }

    fn status(&self, view: &View, config: Option<&WorkerConfig>, sized: Sized) -> QWorkerStatus {
        let decision = self.decision.as_ref();
        let inputs = decision.map(|d| &d.inputs);
        let int = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        let rate = |r: Option<f64>| r.map_or_else(String::new, |r| format!("{r:.2}"));
        let desired = decision.map_or(view.deployment.spec_replicas, |d| d.target);
        let would = |c: &WorkerConfig| c.dry_run && desired != self.fleet.useful();
        let intent = self.machine.intent();
        QWorkerStatus {
            observed_generation: view.deployment.generation,
            queue: config.map(|c| c.queues.join(",")).unwrap_or_default(),
            backlog: inputs.and_then(|i| i.backlog).map(|b| i64::try_from(b).unwrap_or(i64::MAX)),
            in_flight: inputs.and_then(|i| i.in_flight).map(|b| i64::try_from(b).unwrap_or(i64::MAX)),
            rate_in: rate(inputs.filter(|i| i.backlog.is_some()).map(|i| i.rate_in)),
            rate_out: rate(inputs.filter(|i| i.backlog.is_some()).map(|i| i.rate_out)),
            replicas: int(view.deployment.spec_replicas),
            desired: int(desired),
            ready: int(self.fleet.ready),
            busy: i32::try_from(self.intake.busy(&view.pods)).unwrap_or(i32::MAX),
            parked: int(self.fleet.parked),
            unheld: int(self.unheld),
            unheld_pods: self.unheld_pods.clone(),
            terminating: i32::try_from(view.pods.iter().filter(|p| p.terminating).count()).unwrap_or(i32::MAX),
            memory: sized.memory.map_or_else(String::new, |b| Bytes(b).ceil_mib().to_string()),
            reason: decision.map_or_else(|| "no figures yet".to_owned(), |d| d.reason.clone()),
            rule: decision.map(|d| d.rule.name().to_owned()).unwrap_or_default(),
            decided_at: time(self.decided_ms).0.to_string(),
            would_do: config.filter(|c| would(c)).map(|_| format!("useful pods {} -> {desired}", self.fleet.useful())),
            conditions: self.conditions.list(),
            intent: (intent.epoch > Epoch(0)).then_some(Intent {
                epoch: intent.epoch.0,
                count: intent.count,
                issued_ms: intent.issued_ms,
                expires_ms: intent.expires_ms,
            }),
            sizes: self.size_status(sized.size),
            worker_ids: self.intake.worker_ids().map(|(uid, gid)| WorkerIds { uid: i64::from(uid), gid: i64::from(gid) }).or(self.known_ids()),
            counters: self.counted(),
            // What only the next life needs is not for people: the checkpoint has it.
            learned: None,
            counted_cuts: Vec::new(),
        }
    }

    /// The working container's size now; nothing while the annotations are wrong.
    fn sized(&self, view: &View, config: Option<(&WorkerConfig, &SizeBounds)>, now_ms: u64) -> Sized {
        let (Some(sizing), Some(worker), Some((config, bounds))) = (self.sizing.as_ref(), view.deployment.worker.as_ref(), config) else {
            return Sized::default();
        };
        let recommendation = sizing.recommendation(bounds, &worker.resources, now_ms as f64 / 1000.0);
        let applied = config.vertical != Vertical::Off;
        let current = worker.resources.memory_limit.or(worker.resources.memory_request);
        let memory = recommendation.memory_bytes.filter(|_| applied).or(current);
        Sized { size: Some(sizing.status(config, &recommendation, &worker.resources)), memory }
    }

    /// What is said of sizes. While the annotations are wrong, what was known before stays.
    fn size_status(&self, size: Option<ContainerSize>) -> BTreeMap<String, ContainerSize> {
        let said = |size: ContainerSize| ContainerSize { estimate: None, ..size };
        let Some(sizing) = self.sizing.as_ref() else {
            return self.known_sizes().iter().map(|(container, size)| (container.clone(), said(size.clone()))).collect();
        };
        let before = || self.known_sizes().get(sizing.container()).cloned().unwrap_or_default();
        let size = ContainerSize { template_hash: sizing.template_hash().to_owned(), ..size.unwrap_or_else(before) };
        [(sizing.container().to_owned(), said(size))].into()
    }

    /// What is remembered of sizes: likewise.
    pub(crate) fn saved_sizes(&self) -> BTreeMap<String, ContainerSize> {
        let Some(sizing) = self.sizing.as_ref() else { return self.known_sizes().clone() };
        let kept = ContainerSize { template_hash: sizing.template_hash().to_owned(), estimate: sizing.learned(), ..ContainerSize::default() };
        [(sizing.container().to_owned(), kept)].into()
    }

    /// The status as it is now, whether it is due to be written or not: for the page.
    #[must_use]
    pub fn status_now(&self, view: &View, cluster: &Cluster, now_ms: u64) -> QWorkerStatus {
        let config = self.config.as_deref();
        let bounds = config.map(|config| size_bounds(config, view, cluster));
        self.status(view, config, self.sized(view, config.zip(bounds.as_ref()), now_ms))
    }

    /// The last decision, for `/debug/decisions` and the page.
    #[must_use]
    pub fn snapshot(&self, view: &View) -> Snapshot {
        Snapshot {
            workload: self.id.to_string(),
            decision: self.decision.clone(),
            phase: format!("{:?}", self.phase),
            blocked: self.blocked.clone(),
            replicas: view.deployment.spec_replicas,
            parked: self.fleet.parked,
        }
    }
}
