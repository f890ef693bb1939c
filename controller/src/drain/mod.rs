//! Flow 2 for one workload: the wish and the facts go into the drain machine, its effects become actions. In: the workload, the view. Out:
//! actions. Left to others: the protocol (`core::drain::fleet`), performing (`apply`).

pub mod facts;
pub mod replace;
pub mod replacing;

use crate::act::plan::{Action, Notice, PodRef};
use crate::drain::facts::{Circumstances, conflict, fleet_facts};
use crate::observe::index::View;
use crate::observe::reports::is_parked;
use crate::show::injected::refused;
use crate::words::replicas;
use crate::workload::Workload;
use qscaler_api::Intent;
use qscaler_core::config::WorkerConfig;
use qscaler_core::drain::fleet::{FleetEffect, PERIOD_MS, desired, look_again};
use qscaler_core::names::event;
use qscaler_core::scale::blind;

impl Workload {
    /// The useful pods to ask for, by what was decided and what is there now.
    fn desired(&self, config: &WorkerConfig, view: &View, now_ms: u64) -> u32 {
        let parked = view.pods.iter().filter(|p| !p.terminating && is_parked(p, &self.intake, now_ms)).count();
        let target = self.decision.as_ref().map(|d| d.target);
        desired(config.raises(), target, self.fleet.useful(), view.deployment.spec_replicas, u32::try_from(parked).unwrap_or(u32::MAX))
    }

    /// Steps the drain. Returns when to look again.
    pub(crate) fn drain(&mut self, config: &WorkerConfig, view: &View, actions: &mut Vec<Action>, now_ms: u64) -> Option<u64> {
        self.watch_writers(view, now_ms);
        let refused = || view.refusal().filter(|_| config.owns_replicas()).map(|why| refused(&why));
        let conflict = self.other_writer(config, view, now_ms).or_else(refused);
        let waits_for_watch = self.scaled.as_ref().is_some_and(|echo| echo.is_awaited(&view.deployment.resource_version, now_ms));
        if config.only_explains() || waits_for_watch || self.decision.is_none() || self.broker.mistake.is_some() {
            return Some(now_ms.saturating_add(blind::PERIOD_MS));
        }
        let stale = self.broker.queues.is_some() || self.decision.as_ref().is_some_and(|d| d.hold.is_some());
        let facts = fleet_facts(view, &self.intake, Circumstances { conflict, data_stale: stale });
        if self.silent.wait(&facts, self.machine.intent().count > 0, self.reports_ms, now_ms) {
            return Some(now_ms.saturating_add(PERIOD_MS));
        }
        self.machine.keep_parked(self.decision.as_ref().is_some_and(|d| d.keep_parked));
        let step = self.machine.step(&facts, self.desired(config, view, now_ms), now_ms);
        for effect in &step.effects {
            self.effect(effect, view, actions, now_ms);
        }
        let wake = look_again(&step.phase, step.next_wake_ms, now_ms);
        (self.phase, self.blocked, self.not_raised) = (step.phase, step.blocked, step.not_raised);
        wake
    }

    /// Between the version that our write was made from and the write there was no other, so whatever is newer came after it.
    fn watch_writers(&mut self, view: &View, now_ms: u64) {
        let deployment = &view.deployment;
        if self.scaled.as_ref().is_some_and(|echo| echo.is_past(&deployment.resource_version)) {
            self.contest.saw(deployment.spec_replicas, deployment.replicas_writer.as_deref(), now_ms);
        }
    }

    /// Who else writes the replica count, as a sentence.
    pub(crate) fn other_writer(&self, config: &WorkerConfig, view: &View, now_ms: u64) -> Option<String> {
        if !config.owns_replicas() {
            return None;
        }
        conflict(&view.scalers).or_else(|| self.contest.conflict(now_ms))
    }

    /// A drain is under way: reports are wanted sooner than they come by themselves.
    #[must_use]
    pub fn wants_reports(&self) -> bool {
        self.machine.intent().count > 0 || self.fleet.parked > 0
    }

    fn effect(&mut self, effect: &FleetEffect, view: &View, actions: &mut Vec<Action>, now_ms: u64) {
        match effect {
            FleetEffect::SaveIntent(intent) => {
                let intent = Intent { epoch: intent.epoch.0, count: intent.count, issued_ms: intent.issued_ms, expires_ms: intent.expires_ms };
                actions.push(Action::SaveIntent(intent));
            }
            FleetEffect::Publish(message) => actions.push(Action::Publish(message.clone())),
            FleetEffect::Purge => actions.push(Action::Purge),
            FleetEffect::SetDeletionCost { pod_uid, pod_name, resource_version, cost } => {
                // While nothing is to be changed marks only come off, and `keep` takes them all.
                if self.config.as_ref().is_some_and(|c| c.changes_nothing()) || self.keep.is_echo(pod_uid, resource_version, now_ms) {
                    return;
                }
                let pod = PodRef { uid: pod_uid.clone(), name: pod_name.clone(), resource_version: resource_version.clone() };
                let marks = view.pods.iter().find(|p| *p.uid == **pod_uid).and_then(|p| p.marks.as_deref()).cloned().unwrap_or_default();
                actions.push(Action::SetCost { pod, cost: *cost, patch: marks.cost(*cost) });
            }
            FleetEffect::Scale { resource_version, from, to, reason } => {
                actions.push(Action::Scale { resource_version: resource_version.clone(), from: *from, to: *to });
                // Where the law wants no more than there are, it is the minimum or a replacement that raises, and the law's words are of another thing.
                let law = self.decision.as_ref().filter(|d| to < from || d.target > *from).map(|d| format!(": {}", d.reason));
                let minimum =
                    self.config.as_ref().filter(|c| to > from && *to == c.min_replicas).map(|c| format!(": min-replicas is {}", c.min_replicas));
                let kind = if to > from { event::SCALED_UP } else { event::SCALED_DOWN };
                let why = law.or(minimum).unwrap_or_default();
                self.notices.push(Notice::normal(kind, format!("{}: {reason}{why}", replicas(*from, *to))));
            }
        }
    }

    /// A person has ordered holds to end, by annotation on the pod.
    pub(crate) fn release(&mut self, view: &View, actions: &mut Vec<Action>, now_ms: u64) {
        let ordered: Vec<&str> = view.pods.iter().filter(|p| p.release && p.injected).map(|p| p.uid.as_ref()).collect();
        let messages = self.releases.due(&ordered, &self.uid, self.machine.intent().epoch, now_ms);
        actions.extend(messages.into_iter().map(Action::Publish));
    }
}

#[cfg(test)]
mod tests;
