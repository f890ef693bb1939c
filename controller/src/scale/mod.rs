//! Flow 1 for one workload: figures and pods go into the law, a decision comes out. In: the workload, the view. Out: the decision, kept in the workload.
//! Left to others: the law itself (`core::scale`), acting on it (`drain`, which owns the replica count).

pub mod sample;

use crate::observe::index::View;
use crate::scale::sample::fleet_sample;
use crate::workload::Workload;
use qscaler_core::config::WorkerConfig;
use qscaler_core::scale::blind::Figures;
use qscaler_core::scale::pool::{Member, Takes};
use qscaler_core::scale::{FleetSample, ScaleConfig, decide};

impl Workload {
    /// Asks the law when there are new figures, or when there are none for too long.
    pub(crate) fn law(&mut self, config: &WorkerConfig, view: &View, now_ms: u64) -> Option<&'static str> {
        let samples = match self.samples.take() {
            Some(samples) => samples,
            None => {
                let figures = Figures { failing: self.broker.queues.is_some(), good_ms: self.broker.good_ms, asked_ms: self.law_ms };
                figures.instead(config.queues.len(), now_ms)?
            }
        };
        self.law_ms = now_ms;
        let mut fleet = fleet_sample(view, &mut self.intake, &mut self.starts, config.tells(), now_ms);
        fleet.broker_down = self.broker.queues.is_some() && self.broker.control.is_some();
        let fleet = fleet.without_replacements(self.machine.replacements());
        let (cfg, now_s) = (ScaleConfig::of(config), now_ms as f64 / 1000.0);
        let decision = match self.pool.clone() {
            Some(pool) => {
                let left_alone = view.refusal().is_some() || self.other_writer(config, view, now_ms).is_some();
                let member = Member { cfg, takes: Takes::of(config, left_alone), fleet: fleet.clone() };
                pool.lock().decide(&self.id, member, &samples, &mut self.learned, now_s)?
            }
            None => decide(&cfg, &mut self.learned, &samples, &fleet, now_s),
        };
        if self.decision.as_ref().is_none_or(|d| (d.target, d.rule) != (decision.target, decision.rule)) {
            self.decided_ms = now_ms;
        }
        self.tally.decided(&decision.inputs, &fleet);
        let rule = decision.rule.name();
        self.law_learned |= decision.teaches(self.decision.as_ref());
        self.decision = Some(decision);
        // Only the counts are looked at again.
        self.fleet = FleetSample { completions: Vec::new(), started_latencies_s: Vec::new(), busy_ages_s: Vec::new(), ..fleet };
        Some(rule)
    }
}

#[cfg(test)]
mod tests;
