//! Which pods of one workload are not as a new one would be, and what keeps their tasks whole. In: the view, reports, the annotations. Out: candidates, and
//! what the engine wants tried. Left to others: when and which (`core::replace`), proving and evicting (`evict`), saying where it stands (`summary`).

use crate::act::plan::{Notice, PodRef};
use crate::drain::facts::{Circumstances, fleet_facts, worker_has_run};
use crate::drain::replacing::Replacing;
use crate::observe::index::View;
use crate::observe::record::PodRecord;
use crate::workload::Workload;
use qscaler_core::config::WorkerConfig;
use qscaler_core::drain::fleet::is_fresh;
use qscaler_core::names::event;
use qscaler_core::replace::{Ask, BareWorker, Candidate, Cause, Hindrances, Net, Sidecar, Stands, Step, Tried, hindrance, remaps_term};
use qscaler_inject::GRACE_MARGIN_S;
use std::sync::Arc;

impl Workload {
    /// The pod to try now, if there is one. `sidecar_image`: what new pods get; None: not known. `may_ask`: there is room for one more in the cluster.
    pub(crate) fn replace(&mut self, view: &View, sidecar_image: Option<&str>, may_ask: bool, now_ms: u64) -> Option<Ask> {
        let Some(config) = self.config.clone() else {
            self.replacing = Replacing::default();
            return None;
        };
        let candidates = self.candidates(&config, view, sidecar_image, now_ms);
        // Nearly always there is nothing to be replaced.
        if candidates.is_empty() && self.replacing.step.as_ref().is_some_and(Step::is_up_to_date) {
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
            let note = format!("pod {} is replaced while it is idle: it {}", ask.pod_name, ask.cause.words());
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
            unwanted: config.keep_pods,
            fruitless: view.deployment.refusal.is_some(),
            webhook_away: view.webhook_away,
            writer: self.other_writer(config, view, now_ms),
            others_leave: self.machine.intent().count > 0 || self.fleet.parked > 0 || self.machine.replacements() > 0,
        })
    }

    fn candidates(&mut self, config: &Arc<WorkerConfig>, view: &View, sidecar_image: Option<&str>, now_ms: u64) -> Vec<Candidate> {
        let mut out = Vec::new();
        for pod in view.pods.iter().filter(|p| !p.terminating) {
            let heard = self.intake.heard(&pod.uid).filter(|h| is_fresh(h.at_ms, now_ms));
            let cause = if pod.injected {
                Cause::of_injected(&Sidecar {
                    access: heard.map(|h| h.access),
                    user_known: heard.is_some_and(|h| h.worker_ids.is_some()),
                    user_given: pod.sidecar_uid.is_some(),
                    signs: self.control_key.is_some(),
                    refuses: heard.is_some_and(|h| h.refuses(self.control_key)),
                    image: pod.made.as_deref().map(|made| made.image.as_ref()),
                    new_image: sidecar_image,
                    old_words: self.replacing.has_old_words(pod, config, view, &self.uid),
                })
            } else {
                Cause::of_bare(pod.created_ms, now_ms)
            };
            let Some(cause) = cause else { continue };
            let net = match pod.bare.as_deref() {
                Some(bare) => Net::of_bare(config, bare_worker(pod, view, &bare.shells), GRACE_MARGIN_S),
                None => Net::of_held(config, self.intake.heard(&pod.uid).map(|h| (h.access, h.gaps.as_ref()))),
            };
            out.push(Candidate { uid: pod.uid.to_string(), cause, net });
        }
        out
    }
}

/// What the pod template shows of a worker that has no hold.
fn bare_worker(pod: &PodRecord, view: &View, shells: &[Arc<str>]) -> BareWorker {
    let worker = view.deployment.worker.as_ref();
    let is_worker = |name: &str| worker.is_none_or(|w| w.container == name);
    let shell = shells.iter().any(|name| is_worker(name));
    let remapped = worker.is_some_and(|w| w.env.iter().any(|env| remaps_term(&env.name, env.value.as_deref())));
    BareWorker { ran: worker_has_run(pod, view), shell, remapped }
}

#[cfg(test)]
#[path = "replace_tests.rs"]
mod tests;
