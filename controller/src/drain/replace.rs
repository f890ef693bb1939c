//! Which pods of one workload are not as a new one would be, and what keeps their tasks whole. In: the view, reports, the annotations. Out: candidates, and
//! what the engine wants tried. Left to others: when and which (`core::replace`), proving and evicting (`evict`), saying where it stands (`summary`).

use crate::act::plan::{Notice, PodRef};
use crate::drain::facts::{Circumstances, fleet_facts};
use crate::drain::replacing::Replacing;
use crate::observe::cluster::KeyName;
use crate::observe::index::View;
use crate::observe::record::{ContainerRecord, PodRecord};
use crate::observe::reports::Heard;
use crate::workload::Workload;
use qscaler_core::config::WorkerConfig;
use qscaler_core::drain::fleet::is_fresh;
use qscaler_core::message::{AccessLevel, GapReason};
use qscaler_core::names::event;
use qscaler_core::replace::{Ask, Candidate, Cause, Hindrances, Net, Stands, Tried, hindrance};
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
                Cause::OtherKey => "was given another key than control messages are signed by",
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
        hindrance(&Hindrances {
            changes_nothing: config.changes_nothing(),
            fruitless: view.deployment.refusal.is_some(),
            writer: self.other_writer(config, view, now_ms),
            others_leave: self.machine.intent().count > 0 || self.fleet.parked > 0 || self.machine.replacements() > 0,
        })
    }

    fn candidates(&mut self, config: &Arc<WorkerConfig>, view: &View, sidecar_image: Option<&str>, now_ms: u64) -> Vec<Candidate> {
        let mut out = Vec::new();
        for pod in view.pods.iter().filter(|p| !p.terminating) {
            let heard = self.intake.heard(&pod.uid).filter(|h| is_fresh(h.at_ms, now_ms));
            let cause = if pod.injected {
                injected_cause(pod, heard, self.control_key, sidecar_image).or_else(|| self.replacing.has_old_words(pod, config, view, &self.uid))
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

fn injected_cause(pod: &PodRecord, heard: Option<&Heard>, control_key: Option<KeyName>, sidecar_image: Option<&str>) -> Option<Cause> {
    // New pods get the worker's UID by what was learned; where the spec names another, they do not.
    if heard.is_some_and(|h| h.access == AccessLevel::ReadOnly && h.worker_ids.is_some()) && pod.sidecar_uid.is_none() {
        return Some(Cause::WrongUser);
    }
    // A pod without a key is as good as it was; one that believes nobody is not. Nor is it while there is no key to sign by, but then a new pod is no better.
    if control_key.is_some() && heard.is_some_and(|h| h.refuses(control_key)) {
        return Some(Cause::OtherKey);
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

/// What the pod template shows of a worker that has no hold.
fn bare_net(config: &WorkerConfig, view: &View, shells: &[Arc<str>]) -> Net {
    let worker = view.deployment.worker.as_ref();
    let is_worker = |name: &str| worker.is_none_or(|w| w.container == name);
    let remapped = |env: &k8s_openapi::api::core::v1::EnvVar| env.name == "REMAP_SIGTERM" && env.value.as_deref() != Some("SIGTERM");
    let shell = shells.iter().any(|name| is_worker(name));
    Net::of_bare(config, shell, worker.is_some_and(|w| w.env.iter().any(remapped)), GRACE_MARGIN_S)
}

fn held_net(config: &WorkerConfig, heard: Option<&Heard>) -> Net {
    let Some(heard) = heard else { return Net::Held };
    let signals = matches!(heard.access, AccessLevel::Full | AccessLevel::SignalOnly);
    Net::of_held(config, signals && heard.gaps.is_empty(), heard.gaps.iter().any(|gap| gap.reason == GapReason::SignalCuts))
}

#[cfg(test)]
#[path = "replace_tests.rs"]
mod tests;
