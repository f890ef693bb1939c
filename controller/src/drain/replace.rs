//! Which pods of one workload are not as a new one would be, and what keeps their tasks whole. In: the view, reports, the annotations. Out: candidates, and
//! what the engine wants tried. Left to others: when and which (`core::replace`), proving and evicting (`evict`), saying where it stands (`summary`).

use crate::act::plan::{Notice, PodRef};
use crate::drain::facts::{Circumstances, fleet_facts};
use crate::drain::replacing::Replacing;
use crate::observe::index::View;
use crate::observe::record::{ContainerRecord, PodRecord};
use crate::observe::reports::Heard;
use crate::workload::Workload;
use qscaler_core::config::{Paused, WorkerConfig};
use qscaler_core::drain::fleet::is_fresh;
use qscaler_core::framework::{Promise, Signal};
use qscaler_core::message::{AccessLevel, GapReason};
use qscaler_core::names::event;
use qscaler_core::replace::{Ask, Candidate, Cause, Net, Stands, Tried};
use qscaler_inject::GRACE_MARGIN_S;
use std::sync::Arc;

/// A pod without sidecar that is this young may be of a time at which the webhook was asked again; milliseconds.
const BARE_AGE_MS: u64 = 2_000;

impl Workload {
    /// The pod to try now, if there is one. `sidecar_image`: what new pods get; None: not known. `may_ask`: there is room for one more in the cluster.
    pub(crate) fn replace(&mut self, view: &View, sidecar_image: Option<&str>, may_ask: bool, now_ms: u64) -> Option<Ask> {
        let Some(config) = self.config.clone() else {
            self.replacing = Replacing::default();
            return None;
        };
        let candidates = self.candidates(&config, view, sidecar_image, now_ms);
        // Nearly always there is nothing to be replaced.
        if candidates.is_empty() && self.replacing.step.as_ref().is_some_and(|step| step.stands == Stands::UpToDate) {
            return None;
        }
        let facts = fleet_facts(view, &self.intake, Circumstances::default());
        let hindrance = self.hindrance(&config, view, now_ms);
        let step = self.replacing.engine.step(&facts, &candidates, hindrance, may_ask, now_ms);
        let ask = step.ask.clone();
        self.replacing.step = Some(step);
        ask
    }

    /// What became of a try. True: the pod is being evicted.
    pub(crate) fn tried(&mut self, ask: &Ask, tried: Tried, view: &View, now_ms: u64) -> bool {
        let evicted = tried == Tried::Evicted;
        if evicted {
            let why = match ask.cause {
                Cause::Bare => "had no sidecar",
                Cause::WrongUser => "had a sidecar that could not signal its worker",
                Cause::OldConfiguration => "was made with other annotations",
                Cause::OldSidecar => "had another sidecar than new pods get",
            };
            let note = format!("pod {} is replaced while it is idle: it {why}", ask.pod_name);
            let pod = view.pods.iter().find(|p| *p.uid == *ask.pod_uid).map(|p| PodRef::new(p));
            let notice = Notice::normal(event::REPLACED, note);
            self.notices.extend(pod.map(|pod| Notice { pod: Some(pod), ..notice.clone() }));
            self.notices.push(notice);
        }
        tracing::debug!(workload = %self.id, pod = ask.pod_name, ?tried, "tried to replace");
        let facts = fleet_facts(view, &self.intake, Circumstances::default());
        self.replacing.engine.tried(&ask.pod_uid, tried, &facts, now_ms);
        evicted
    }

    /// Why nothing may be replaced whatever the pods do.
    fn hindrance(&self, config: &WorkerConfig, view: &View, now_ms: u64) -> Option<(Stands, String)> {
        if config.dry_run || config.paused == Paused::All {
            return Some((Stands::Paused, "none is replaced: dry-run or paused by annotation".to_owned()));
        }
        if view.deployment.refusal.is_some() {
            return Some((
                Stands::Fruitless,
                "none is replaced, since new pods cannot have the sidecar either: condition Injected says why".to_owned(),
            ));
        }
        if let Some(writer) = self.other_writer(config, view, now_ms) {
            return Some((Stands::Paused, format!("none is replaced: {writer}")));
        }
        let drains = self.machine.intent().count > 0 || self.fleet.parked > 0 || self.machine.replacements() > 0;
        drains.then(|| (Stands::Replacing, "none is replaced while other pods leave".to_owned()))
    }

    fn candidates(&mut self, config: &Arc<WorkerConfig>, view: &View, sidecar_image: Option<&str>, now_ms: u64) -> Vec<Candidate> {
        let mut out = Vec::new();
        for pod in view.pods.iter().filter(|p| !p.terminating) {
            let heard = self.intake.heard(&pod.uid).filter(|h| is_fresh(h.at_ms, now_ms));
            let cause = if pod.injected {
                injected_cause(pod, heard, sidecar_image).or_else(|| self.replacing.has_old_words(pod, config, view, &self.uid))
            } else {
                (now_ms >= pod.created_ms.saturating_add(BARE_AGE_MS)).then_some(Cause::Bare)
            };
            let Some(cause) = cause else { continue };
            let net = match pod.bare.as_deref() {
                Some(_) if !worker_has_run(pod, view) => Net::NoWorker,
                Some(bare) => bare_net(config, view, &bare.shells),
                None => held_net(config, self.intake.heard(&pod.uid)),
            };
            out.push(Candidate { uid: pod.uid.to_string(), cause, net });
        }
        out
    }
}

fn injected_cause(pod: &PodRecord, heard: Option<&Heard>, sidecar_image: Option<&str>) -> Option<Cause> {
    // New pods get the worker's UID by what was learned; where the spec names another, they do not.
    if heard.is_some_and(|h| h.access == AccessLevel::ReadOnly && h.worker_ids.is_some()) && pod.sidecar_uid.is_none() {
        return Some(Cause::WrongUser);
    }
    let image = &pod.made.as_deref()?.image;
    sidecar_image.filter(|new| **new != **image).map(|_| Cause::OldSidecar)
}

fn worker_has_run(pod: &PodRecord, view: &View) -> bool {
    match view.deployment.worker.as_ref().and_then(|w| pod.container(&w.container)) {
        Some(container) => container.has_run(),
        None => pod.containers.iter().any(ContainerRecord::has_run),
    }
}

/// On the kubelet's own SIGTERM the worker finishes the task in hand and leaves.
fn finishes_on_term(config: &WorkerConfig) -> bool {
    config.framework().promise == Promise::FinishThenExit && matches!(config.signals.as_slice(), [] | [Signal::Term])
}

fn bare_net(config: &WorkerConfig, view: &View, shells: &[Arc<str>]) -> Net {
    const MEND: &str = "replace it while nothing is sent to the queue: kubectl rollout restart, or a deletion of the pod";
    if !finishes_on_term(config) {
        return Net::None(format!("a {} worker without a hold may lose a task that comes to it in the moment of its SIGTERM; {MEND}", config.worker));
    }
    let worker = view.deployment.worker.as_ref();
    let is_worker = |name: &str| worker.is_none_or(|w| w.container == name);
    if shells.iter().any(|name| is_worker(name)) {
        return Net::None(format!(
            "its command is a shell that does not pass SIGTERM on, so that its worker would be killed at the end of its grace; {MEND}"
        ));
    }
    let remapped = |env: &k8s_openapi::api::core::v1::EnvVar| env.name == "REMAP_SIGTERM" && env.value.as_deref() != Some("SIGTERM");
    if worker.is_some_and(|w| w.env.iter().any(remapped)) {
        return Net::None(format!("REMAP_SIGTERM makes SIGTERM cut a task that comes in the last moment; {MEND}"));
    }
    let grace_s = config.max_task_duration_ms.div_ceil(1000).saturating_add(GRACE_MARGIN_S);
    Net::Grace(Some(u32::try_from(grace_s).unwrap_or(u32::MAX)))
}

fn held_net(config: &WorkerConfig, heard: Option<&Heard>) -> Net {
    let whole = heard.is_none_or(|h| h.gaps.is_empty() && matches!(h.access, AccessLevel::Full | AccessLevel::SignalOnly));
    if whole {
        return Net::Held;
    }
    let cuts = heard.is_some_and(|h| h.gaps.iter().any(|gap| gap.reason == GapReason::SignalCuts));
    if finishes_on_term(config) && !cuts {
        // Its own grace is long enough since its injection.
        return Net::Grace(None);
    }
    Net::None(
        "its hold is less than whole (condition HoldEffective), and its worker does not finish its task on SIGTERM: replace it while nothing is sent to the queue (kubectl rollout restart)"
            .to_owned(),
    )
}

#[cfg(test)]
#[path = "replace_tests.rs"]
mod tests;
