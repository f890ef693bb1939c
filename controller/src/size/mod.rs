//! Flow 3 for one workload: reports and pod statuses go into the sizes, resizes come out. In: the workload, the view, reports. Out: what was
//! learned, and actions. Left to others: the sizes themselves (`sizing`), performing (`apply`).

pub mod bounds;
pub mod sizing;

use crate::act::plan::{Action, Notice};
use crate::observe::cluster::Cluster;
use crate::observe::index::View;
use crate::size::bounds::size_bounds;
use crate::size::sizing::Sizing;
use crate::workload::Workload;
use qscaler_core::config::WorkerConfig;
use qscaler_core::cut::CutCause;
use qscaler_core::message::Report;
use qscaler_core::names::{condition, event};
use qscaler_core::size::SizeBounds;
use std::borrow::Cow;

impl Workload {
    /// Reports came in.
    pub fn reports(&mut self, reports: &[Report], view: &View, cluster: &Cluster, now_ms: u64) {
        let bounds = self.config.as_ref().map(|config| size_bounds(config, view, cluster));
        for report in reports {
            let pod = view.pods.iter().chain(&view.finished).find(|p| *p.uid == *report.pod_uid).map(AsRef::as_ref);
            let taken = match self.intake.take(report, &self.uid, pod, now_ms) {
                Ok(taken) => taken,
                Err(why) => {
                    self.tally.rejected(why);
                    tracing::debug!(workload = %self.id, pod = report.pod_name, %why, "report dropped");
                    continue;
                }
            };
            self.counters.drained += u64::from(taken.drained);
            self.tally.took(&taken, now_ms);
            let container = self.sizing.as_ref().map(Sizing::container);
            let cuts = self.cuts.reported(report, container, taken.cuts, now_ms);
            if cuts > 0 {
                let words = report.cut.as_deref().unwrap_or_default();
                let cause = CutCause::of_words(words);
                self.cut(cause, cuts, &report.pod_name, if words.is_empty() { cause.sentence() } else { words });
            }
            if let (Some(pod), Some(sizing), Some(bounds)) = (pod, self.sizing.as_mut(), bounds.as_ref()) {
                match sizing.report(report, pod, bounds, cluster, now_ms) {
                    Ok(notice) => self.notices.extend(notice),
                    Err(why) => tracing::warn!(workload = %self.id, pod = report.pod_name, %why, "peaks not believed"),
                }
            }
        }
    }

    /// Running tasks in a pod were cut.
    fn cut(&mut self, cause: CutCause, tasks: u32, pod: &str, words: &str) {
        self.counters.cut += u64::from(tasks);
        *self.counters.cut_by.entry(cause.name().to_owned()).or_default() += u64::from(tasks);
        let words = match tasks {
            1 => format!("a running task in pod {pod} was cut: {words}"),
            several => format!("{several} running tasks in pod {pod} were cut; the last: {words}"),
        };
        self.notices.push(Notice::warning(event::TASK_CUT, words));
    }

    /// Tasks that were cut by what no sidecar could tell of.
    pub(crate) fn untold_cuts(&mut self, view: &View, now_ms: u64) {
        let container = self.sizing.as_ref().map(Sizing::container);
        for cut in self.cuts.look(view.pods.iter().chain(&view.finished), container, now_ms) {
            self.cut(cut.cause, 1, &cut.pod, cut.cause.sentence());
        }
    }

    /// What the pods' statuses say of sizes.
    pub(crate) fn sizes(&mut self, bounds: &SizeBounds, view: &View, cluster: &Cluster, now_ms: u64) {
        let last_words = self.intake.last_words(view.pods.iter().chain(&view.finished));
        self.reports(&last_words, view, cluster, now_ms);
        let Some(sizing) = self.sizing.as_mut() else { return };
        if let Some(newest) = view.pods.iter().filter(|p| !p.terminating).max_by_key(|p| p.created_ms) {
            sizing.template(&newest.template_hash);
        }
        self.notices.extend(sizing.kubelet(view.pods.iter().chain(&view.finished), bounds, now_ms));
    }

    /// What to do with running pods.
    pub(crate) fn resize(&mut self, config: &WorkerConfig, bounds: &SizeBounds, view: &View, cluster: &Cluster, now_ms: u64) -> Vec<Action> {
        let Some(sizing) = self.sizing.as_mut() else { return Vec::new() };
        let step = sizing.step(config, bounds, view, &self.intake, cluster, now_ms);
        let deferred = step.deferred.is_some();
        self.set(
            view,
            condition::RESIZE_DEFERRED,
            deferred,
            if deferred { "Waiting" } else { "None" },
            step.deferred.map_or(Cow::Borrowed("no resize waits"), Cow::Owned),
            now_ms,
        );
        let capped = step.capped.is_some();
        self.set(
            view,
            condition::MEMORY_CAPPED,
            capped,
            if capped { "AtCap" } else { "None" },
            step.capped.map_or(Cow::Borrowed("no cap holds memory back"), Cow::Owned),
            now_ms,
        );
        self.other_sizer = step.conflict;
        if config.changes_nothing() { Vec::new() } else { step.actions }
    }
}

#[cfg(test)]
mod tests;
