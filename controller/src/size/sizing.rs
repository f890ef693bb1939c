//! Flow 3 for one workload: what its pods needed -> what they should have. In: believed reports, OOM kills as the kubelet shows them, bounds.
//! Out: the recommendation for new pods, resizes of running ones, what to tell the user. Left to others: the arithmetic (`core::size`), doing it.

use crate::act::echo::Echo;
use crate::act::plan::{Action, Notice, PodRef};
use crate::observe::cluster::Cluster;
use crate::observe::index::View;
use crate::observe::record::{ContainerRecord, PodRecord, Word};
use crate::observe::reports::Intake;
use qscaler_api::{ContainerSize, Resources, Saving};
use qscaler_core::config::WorkerConfig;
use qscaler_core::message::{Busy, Report, WorkerState};
use qscaler_core::names::{annotation, condition, event};
use qscaler_core::size::{
    self, Access, ContainerResources, Estimate, Implausible, Kills, Observation, PeakFacts, Peaks, RateCap, Recommendation, RefusalCause, ResizePlan,
    ResizeRefusal, SavedKills, SizeBounds,
};
use qscaler_core::units::{Bytes, Millicores};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// What one look says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SizingStep {
    /// What to do.
    pub actions: Vec<Action>,
    /// Resizes that have waited for too long, as a sentence.
    pub deferred: Option<String>,
    /// Memory is at its cap and tasks die, as a sentence.
    pub capped: Option<String>,
    /// Another writer sizes the pods: the condition's reason, and a sentence.
    pub conflict: Option<(&'static str, String)>,
}

/// What the next life needs, as it is read.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Saved {
    #[serde(flatten)]
    estimate: Estimate,
    #[serde(flatten)]
    kills: SavedKills,
}

/// The same, as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToSave<'a> {
    #[serde(flatten)]
    estimate: &'a Estimate,
    #[serde(flatten)]
    kills: SavedKills,
}

/// What was done to a pod last.
#[derive(Clone, Debug)]
struct Resized {
    echo: Echo,
    /// The limit before, bytes.
    before: Option<u64>,
}

/// The sizes of one workload's working container.
#[derive(Clone, Debug)]
pub struct Sizing {
    container: String,
    template_hash: String,
    estimate: Estimate,
    /// The kills that are in it.
    kills: Kills,
    /// Since when this life goes on from what an earlier one saved; 0: there was nothing.
    since_s: f64,
    peaks: HashMap<Word, Peaks>,
    refusals: HashMap<String, ResizeRefusal>,
    resized: HashMap<String, Resized>,
    rate: RateCap,
    /// When the latest kill was heard of, milliseconds.
    killed_ms: u64,
    /// A kill is in the estimate that no status write has begun with.
    urgent: bool,
    /// A status write with a kill has begun and was not heard to have ended well.
    writing: bool,
    changed: bool,
}

impl Sizing {
    /// From what an earlier life saved, if it did.
    #[must_use]
    pub fn restore(container: &str, saved: Option<&ContainerSize>, now_s: f64) -> Self {
        let known: Option<Saved> = saved.and_then(|s| s.estimate.clone()).and_then(|e| serde_json::from_value(e).ok());
        let since_s = if known.is_some() { now_s } else { 0.0 };
        let known = known.unwrap_or_default();
        Self {
            container: container.to_owned(),
            template_hash: saved.map(|s| s.template_hash.clone()).unwrap_or_default(),
            kills: Kills::restore(known.kills),
            since_s,
            estimate: known.estimate,
            peaks: HashMap::new(),
            refusals: HashMap::new(),
            resized: HashMap::new(),
            rate: RateCap::of_resizes(now_s),
            killed_ms: 0,
            urgent: false,
            writing: false,
            changed: false,
        }
    }

    /// The container it is about.
    #[must_use]
    pub fn container(&self) -> &str {
        &self.container
    }

    /// `pod-template-hash` that the estimate belongs to.
    #[must_use]
    pub fn template_hash(&self) -> &str {
        &self.template_hash
    }

    /// OOM kills ever seen.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        self.estimate.oom_kills()
    }

    /// Whether anything was learned since it was saved.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    /// It was saved.
    pub fn saved(&mut self) {
        (self.changed, self.writing) = (false, false);
    }

    /// True after an OOM kill, until it has been saved: at once, and before anything is done about it. Who asks writes; one write at a time.
    pub fn take_urgent(&mut self) -> bool {
        self.writing |= std::mem::take(&mut self.urgent);
        self.writing
    }

    /// The same, without asking for it.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.writing
    }

    /// Folds a report in, if it can be true. Returns the Event of an OOM kill of a single process.
    ///
    /// # Errors
    /// The law of physics that it breaks; it changes nothing then.
    pub fn report(
        &mut self,
        report: &Report,
        pod: &PodRecord,
        bounds: &SizeBounds,
        cluster: &Cluster,
        now_ms: u64,
    ) -> Result<Option<Notice>, Implausible> {
        let (Some(peaks), Some(container)) = (report.peaks.get(&self.container), pod.container(&self.container)) else { return Ok(None) };
        self.follow_template(&pod.template_hash);
        if *pod.template_hash != *self.template_hash {
            return Ok(None);
        }
        let before = self.peaks.get(&pod.uid).filter(|p| p.started_s == peaks.started_s).cloned();
        let facts = PeakFacts {
            pod_exists: true,
            belongs: true,
            limit_bytes: size::highest_limit(
                container.spec.memory_limit.max(container.status.and_then(|s| s.memory_limit)),
                before.as_ref(),
                &self.estimate,
            ),
            node_memory_bytes: cluster.node_memory,
            node_cpu_m: cluster.node_cpu_m,
            age_s: now_ms.saturating_sub(pod.started_ms.unwrap_or(pod.created_ms)) as f64 / 1000.0,
            previous: before.clone(),
        };
        size::plausible(peaks, &facts)?;
        let now_s = now_ms as f64 / 1000.0;
        let mut notice = None;
        let (known, new_kill) = self.kills.sidecar(&pod.uid, peaks, now_s);
        let before = before.or_else(|| self.counted_before(known, peaks));
        for observation in size::observations(before.as_ref(), peaks, false, now_s) {
            if let Observation::Oom { limit_bytes, .. } = observation {
                if !new_kill {
                    continue;
                }
                notice = Some(self.kill_notice(pod, limit_bytes, true, now_ms));
            }
            self.estimate.observe(&observation, bounds, now_s);
            self.changed = true;
        }
        self.peaks.insert(pod.uid.clone(), peaks.clone());
        Ok(notice)
    }

    /// Folds in the OOM kills that the kubelet shows. Returns their Events.
    pub fn kubelet<'a>(&mut self, pods: impl Iterator<Item = &'a Arc<PodRecord>>, bounds: &SizeBounds, now_ms: u64) -> Vec<Notice> {
        let mut notices = Vec::new();
        for pod in pods {
            let Some(container) = pod.container(&self.container) else { continue };
            for oom in &container.ooms {
                let limit = self.hit_limit(pod, container, oom.at_ms);
                if limit == 0 || !self.kills.kubelet(&pod.uid, oom, pod.terminating) {
                    continue;
                }
                self.follow_template(&pod.template_hash);
                let observation = Observation::Oom { limit_bytes: limit, child: oom.child, at_s: oom.at_ms as f64 / 1000.0 };
                self.estimate.observe(&observation, bounds, now_ms as f64 / 1000.0);
                notices.push(self.kill_notice(pod, limit, oom.child, now_ms));
            }
        }
        notices
    }

    /// What an earlier life had counted of this container instance, as the report before the first one: `known` kills, and the tasks that it has ended by now,
    /// or each new life would take them for new experience.
    fn counted_before(&self, known: Option<u64>, peaks: &Peaks) -> Option<Peaks> {
        let older = peaks.started_s.is_some_and(|started_s| started_s < self.since_s);
        let oom_kills = known.unwrap_or(0).min(peaks.oom_kills);
        (older || known.is_some()).then(|| Peaks { oom_kills, tasks_done: peaks.tasks_done.filter(|_| older), ..Peaks::default() })
    }

    /// The limit at which the container was killed: the one in force, unless it was raised after the kill; 0: unknown.
    fn hit_limit(&self, pod: &PodRecord, container: &ContainerRecord, at_ms: u64) -> u64 {
        let before = self.resized.get(&*pod.uid).filter(|r| r.echo.at_ms() > at_ms).and_then(|r| r.before);
        before.or_else(|| container.memory_limit()).or_else(|| self.peaks.get(&pod.uid).and_then(|p| p.limit)).unwrap_or(0)
    }

    /// A kill was heard of a moment ago: more may follow.
    #[must_use]
    pub fn expects_kills(&self, now_ms: u64) -> bool {
        size::expects_kills(self.killed_ms, now_ms)
    }

    fn kill_notice(&mut self, pod: &PodRecord, limit: u64, child: bool, now_ms: u64) -> Notice {
        (self.urgent, self.changed, self.killed_ms) = (true, true, now_ms);
        let what = if child { "a process of container" } else { "container" };
        let note = format!("{what} {} in pod {} was OOM-killed at its limit of {}", self.container, pod.name, Bytes(limit).ceil_mib());
        Notice::warning(event::OOM_KILLED, note)
    }

    /// A new template starts with what the old one knew.
    fn follow_template(&mut self, hash: &str) {
        if self.template_hash.is_empty() {
            self.template_hash = hash.to_owned();
        }
    }

    /// The template that new pods are made from now.
    pub fn template(&mut self, hash: &str) {
        if !hash.is_empty() && hash != self.template_hash {
            if !self.template_hash.is_empty() {
                self.estimate = Estimate::with_prior(&self.estimate);
            }
            self.template_hash = hash.to_owned();
            self.changed = true;
        }
    }

    /// What new pods should have.
    #[must_use]
    pub fn recommendation(&self, bounds: &SizeBounds, template: &ContainerResources, now_s: f64) -> Recommendation {
        self.estimate.recommend(bounds, template, now_s)
    }

    /// The part of the status that people and the webhook read, without what the next life needs.
    #[must_use]
    pub fn status(&self, config: &WorkerConfig, recommendation: &Recommendation, template: &ContainerResources) -> ContainerSize {
        let saving = Saving { memory_bytes: recommendation.saving_memory_bytes, cpu_request_millicores: recommendation.saving_cpu_m };
        let known = recommendation.memory_bytes.is_some() || recommendation.cpu_request_m.is_some();
        ContainerSize {
            template_hash: self.template_hash.clone(),
            estimate: None,
            recommended: known
                .then_some(Resources { memory_bytes: recommendation.memory_bytes, cpu_request_millicores: recommendation.cpu_request_m }),
            current: Some(Resources {
                memory_bytes: template.memory_limit.or(template.memory_request),
                cpu_request_millicores: template.cpu_request_m,
            }),
            saving: (known && saving != Saving::default()).then_some(saving),
            measured: self.measured(config),
            reason: recommendation.reason.clone(),
        }
    }

    /// How much the sidecars may read, and why not more.
    fn measured(&self, config: &WorkerConfig) -> String {
        if config.share_processes == Some(false) {
            return format!("nothing: the pods do not share their processes ({}=false)", annotation::SHARE_PROCESSES);
        }
        let pods = self.peaks.len();
        let full = self.peaks.values().filter(|p| p.access == Access::Full).count();
        let gap = self.peaks.values().find_map(|p| p.access_gap).map_or(String::new(), |gap| format!(": {}", gap.words()));
        match (pods, full) {
            (0, _) => "nothing yet: no pod has reported".to_owned(),
            (pods, full) if pods == full => "cgroup and processes".to_owned(),
            (_, 0) => format!("processes alone, so what they share counts more than once and single kills are not seen{gap}"),
            _ => format!("cgroup and processes, in some pods processes alone{gap}"),
        }
    }

    /// What the next life needs; costs more than the rest, so it is added only where it is written.
    #[must_use]
    pub fn learned(&self) -> Option<serde_json::Value> {
        let saved = ToSave { estimate: &self.estimate, kills: self.kills.saved() };
        let mut value = serde_json::to_value(saved).ok()?;
        // The status is written as a merge patch: what is no more has to be said, or it would be back in the next life.
        for key in ["oom", "anchor"] {
            value.as_object_mut()?.entry(key).or_insert(serde_json::Value::Null);
        }
        Some(value)
    }

    /// What to do with the running pods now.
    pub fn step(&mut self, config: &WorkerConfig, bounds: &SizeBounds, view: &View, heard: &Intake, cluster: &Cluster, now_ms: u64) -> SizingStep {
        let now_s = now_ms as f64 / 1000.0;
        let mut out = SizingStep::default();
        if let Some(cap) = view.deployment.worker.as_ref().and_then(|w| self.recommendation(bounds, &w.resources, now_s).capped)
            && cap.ooms_at_cap > 0
        {
            let (at, wanted) = (Bytes(cap.at_bytes).ceil_mib(), Bytes(cap.wanted_bytes).ceil_mib());
            out.capped = Some(format!(
                "tasks of queue {} were OOM-killed {} times at {at}, the most that {} allow; {wanted} would be tried next",
                config.queues.join(", "),
                cap.ooms_at_cap,
                cap.source.words()
            ));
        }
        if let (Some(sizer), true) = (&view.sizer, config.sizes_pods()) {
            out.conflict = Some((condition::REASON_OTHER_SIZER, format!("{sizer} also sizes these pods, so their sizes are left to it")));
        }
        let Some(version) = cluster.version.filter(|_| config.sizes_running_pods()) else { return out };
        let mut overdue = Vec::new();
        let mut foreign: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for pod in &view.pods {
            let Some(container) = pod.container(&self.container) else { continue };
            if self.resized.get(&*pod.uid).is_some_and(|r| r.echo.is_awaited(&pod.resource_version, now_ms)) {
                continue;
            }
            let facts = self.pod_facts(pod, container, view, heard, now_ms);
            let recommendation = self.estimate.recommend(bounds, &container.spec, now_s);
            let plan = size::plan_resize(&recommendation, &facts, version, now_s);
            let (to, reason) = match plan {
                ResizePlan::Up { patch, urgent, reason } if urgent || self.rate.take(now_s) => (patch.apply(&container.spec), reason),
                ResizePlan::Down { patch, reason } if self.rate.take(now_s) => (patch.apply(&container.spec), reason),
                ResizePlan::RollBack { to, refused_memory, infeasible, reason } => {
                    if infeasible {
                        self.refusals.insert(
                            pod.uid.to_string(),
                            ResizeRefusal { cause: RefusalCause::NodeCapacity, wanted_memory: refused_memory, at_s: now_s },
                        );
                    }
                    (to, reason)
                }
                ResizePlan::Wait { overdue: true, reason, .. } => {
                    overdue.push(format!("pod {}: {reason}", pod.name));
                    continue;
                }
                ResizePlan::Conflict { writer } => {
                    foreign.entry(writer).or_default().push(&pod.name);
                    continue;
                }
                _ => continue,
            };
            out.actions.push(Action::Resize { pod: PodRef::new(pod), container: self.container.clone(), from: container.spec, to, reason });
        }
        if let (Some((writer, pods)), None) = (foreign.first_key_value(), &out.conflict) {
            let first = pods.first().copied().unwrap_or_default();
            let others = if pods.len() > 1 { format!(" and {} more", pods.len() - 1) } else { String::new() };
            let text = format!("{writer} has set the resources of pod {first}{others}: left alone until replaced");
            out.conflict = Some((condition::REASON_PODS_RESIZED, text));
        }
        if let Some((first, rest)) = overdue.split_first() {
            let others = if rest.is_empty() { String::new() } else { format!(" (and {} more pods)", rest.len()) };
            out.deferred = Some(format!("{first}{others}"));
        }
        out
    }

    fn pod_facts(&self, pod: &PodRecord, container: &ContainerRecord, view: &View, heard: &Intake, now_ms: u64) -> size::ResizeFacts {
        let report = heard.heard(&pod.uid);
        let leaving = |s: WorkerState| matches!(s, WorkerState::Parked | WorkerState::Held | WorkerState::Released);
        size::ResizeFacts {
            phase: pod.phase,
            terminating: pod.terminating,
            held: report.is_some_and(|r| leaving(r.state)),
            idle: view.out_of_sync.is_none() && heard.fresh(&pod.uid, now_ms).is_some_and(|r| r.busy == Busy::Idle),
            qos: pod.qos,
            others_guaranteed: pod.inits_guaranteed && pod.containers.iter().all(|c| c.name == container.name || c.is_guaranteed()),
            memory_resize_restarts: container.memory_resize_restarts,
            spec: container.spec,
            status: container.status,
            pending: pod.pending.as_deref().cloned(),
            in_progress: pod.in_progress.as_deref().cloned(),
            refusal: self.refusals.get(&*pod.uid).copied(),
            other_writer: view.sizer.clone().or_else(|| pod.other_sizer.as_deref().map(str::to_owned)),
            usage_bytes: self.peaks.get(&pod.uid).and_then(|p| p.working_set_max.or(p.vmhwm_sum_max)),
            last_resize_s: self.resized.get(&*pod.uid).map(|r| r.echo.at_ms() as f64 / 1000.0),
            age_s: now_ms.saturating_sub(pod.started_ms.unwrap_or(pod.created_ms)) as f64 / 1000.0,
        }
    }

    /// A resize was accepted.
    pub fn resized(&mut self, pod: &PodRef, from: &ContainerResources, now_ms: u64) {
        self.resized.insert(pod.uid.clone(), Resized { echo: Echo::new(&pod.resource_version, now_ms), before: from.memory_limit });
        self.refusals.remove(&pod.uid);
    }

    /// A resize was refused.
    pub fn refused(&mut self, pod: &PodRef, wanted: &ContainerResources, cause: RefusalCause, now_ms: u64) {
        let refusal = ResizeRefusal { cause, wanted_memory: wanted.memory_limit.unwrap_or(0), at_s: now_ms as f64 / 1000.0 };
        self.refusals.insert(pod.uid.clone(), refusal);
    }

    /// Forgets pods that are gone.
    pub fn retain(&mut self, pods: &HashSet<&str>) {
        self.peaks.retain(|uid, _| pods.contains(&**uid));
        self.refusals.retain(|uid, _| pods.contains(uid.as_str()));
        self.resized.retain(|uid, _| pods.contains(uid.as_str()));
        self.kills.retain(pods);
    }
}

/// The resizes that were done, told once per change however many pods it was made in: eight pods of one workload are one piece of news.
#[must_use]
pub fn resize_notices<'a>(done: impl Iterator<Item = &'a Action>) -> Vec<Notice> {
    let mut told: BTreeMap<String, (Vec<&PodRef>, &str)> = BTreeMap::new();
    for action in done {
        let Action::Resize { pod, container, from, to, reason } = action else { continue };
        told.entry(format!("container {container}: {}", changes(from, to))).or_insert_with(|| (Vec::new(), reason.as_str())).0.push(pod);
    }
    let notice = |(what, (pods, why)): (String, (Vec<&PodRef>, &str))| match pods.as_slice() {
        [pod] => Notice::normal(event::RESIZED, format!("{what} in pod {}: {why}", pod.name)),
        pods => Notice::normal(event::RESIZED, format!("{what} in {} pods: {why}", pods.len())),
    };
    told.into_iter().map(notice).collect()
}

/// What differs, for people.
fn changes(from: &ContainerResources, to: &ContainerResources) -> String {
    let memory = |r: &ContainerResources| r.memory_limit.map_or_else(|| "none".to_owned(), |b| Bytes(b).ceil_mib().to_string());
    let cpu = |r: &ContainerResources| r.cpu_request_m.map_or_else(|| "none".to_owned(), |m| Millicores(m).to_string());
    let pair = |what: &str, before: String, after: String| (before != after).then(|| format!("{what} {before} -> {after}"));
    let all = [pair("memory", memory(from), memory(to)), pair("cpu request", cpu(from), cpu(to))];
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "sizing_tests.rs"]
mod tests;
