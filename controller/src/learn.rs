//! Flow 3 for one workload: reports and pod statuses go into the sizes, resizes come out. In: the workload, the view, reports. Out: what was
//! learned, and actions. Left to others: the sizes themselves (`sizing`), performing (`apply`).

use crate::bounds::size_bounds;
use crate::index::View;
use crate::plan::{Action, Notice};
use crate::sizing::Cluster;
use crate::workload::Workload;
use qscaler_core::config::{Paused, WorkerConfig};
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
                    tracing::debug!(workload = %self.id, pod = report.pod_name, %why, "report dropped");
                    continue;
                }
            };
            self.counters.drained += u64::from(taken.drained);
            if taken.cuts > 0 {
                self.counters.cut += u64::from(taken.cuts);
                let cause = report.cut.as_deref().unwrap_or("no cause was told");
                let words = match taken.cuts {
                    1 => format!("a running task in pod {} was cut: {cause}", report.pod_name),
                    several => format!("{several} running tasks in pod {} were cut; the last: {cause}", report.pod_name),
                };
                self.notices.push(Notice::warning(event::TASK_CUT, words));
            }
            if let (Some(pod), Some(sizing), Some(bounds)) = (pod, self.sizing.as_mut(), bounds.as_ref()) {
                match sizing.report(report, pod, bounds, cluster, now_ms) {
                    Ok(notice) => self.notices.extend(notice),
                    Err(why) => tracing::warn!(workload = %self.id, pod = report.pod_name, %why, "peaks not believed"),
                }
            }
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
        if config.dry_run || config.paused == Paused::All { Vec::new() } else { step.actions }
    }
}
