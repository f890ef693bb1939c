//! One workload's place in the main loop: loading its QWorker, resolving its broker, one list of actions at a time. In: what the loop hears.
//! Out: what is due. Left to others: decisions (`workload`), tasks (`run`).

use crate::act::known::Known;
use crate::act::plan::{Action, Failure, ListOutcome};
use crate::act::qworker::Loaded;
use crate::due::WriteRoom;
use crate::input::{Life, Measured, Unreachable};
use crate::observe::cluster::Cluster;
use crate::observe::index::View;
use crate::observe::pools::SharedPool;
use crate::observe::record::{DeploymentRecord, WorkerTemplate};
use crate::show::fleet::Shown;
use crate::show::metrics::{Metrics, WorkloadMetrics};
use crate::show::status::Snapshot;
use crate::show::tally::Totals;
use crate::workload::Workload;
use qscaler_broker::{QueueQuery, Reports};
use qscaler_core::config::{BrokerRef, WorkerConfig};
use qscaler_core::replace::{Ask, Tried};
use qscaler_core::workload::{WorkloadId, WorkloadUid};
use std::sync::Arc;
use tokio::task::AbortHandle;

/// A failed load or lookup is tried again after this, milliseconds.
const RETRY_MS: u64 = 3_000;
/// Secrets rotate: a URL that works is looked up again this often, milliseconds.
const RESOLVE_MS: u64 = 300_000;
/// One whose broker fails, this often: the password may be new.
const RESOLVE_FAILING_MS: u64 = 30_000;
/// After an OOM kill the workload is looked at this often, and its reports are fetched each time: the next kill shall not wait for its second, milliseconds.
const WATCHFUL_MS: u64 = 250;
/// A list of actions that has not ended by then never will (its task is gone), milliseconds.
const APPLY_MAX_MS: u64 = 120_000;

/// What a URL is looked up from.
#[derive(Clone, Debug, PartialEq)]
struct Source {
    broker: BrokerRef,
    control: Option<BrokerRef>,
    worker: WorkerTemplate,
    queries: Vec<QueueQuery>,
}

/// What to do about the workload's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Nothing.
    Keep,
    /// Close them: the configuration is wrong.
    Drop,
    /// Look the URLs up.
    Resolve,
}

/// The place.
#[derive(Debug)]
pub struct Managed {
    /// UID of the Deployment.
    pub uid: WorkloadUid,
    /// Which life of the workload in this process it is.
    pub life: Life,
    /// When its status was last written; 0: not in this life.
    pub written_ms: u64,
    /// The list of actions under way.
    task: Option<AbortHandle>,
    /// When it is looked at next.
    pub due_ms: u64,
    workload: Option<Workload>,
    known: Known,
    loading: bool,
    load_after_ms: u64,
    applying_since: Option<u64>,
    source: Option<Source>,
    /// The version of the Deployment that `source` was read from.
    linked_version: String,
    resolving: bool,
    resolve_after_ms: u64,
    failing: bool,
    totals: Totals,
    series: Option<WorkloadMetrics>,
    news: bool,
    /// Kills may follow the one that was heard of a moment ago.
    watchful: bool,
}

impl Managed {
    /// For a workload just found.
    #[must_use]
    pub fn new(uid: WorkloadUid, life: Life, now_ms: u64) -> Self {
        Self {
            uid,
            life,
            written_ms: 0,
            task: None,
            due_ms: now_ms,
            workload: None,
            known: Known::default(),
            loading: false,
            load_after_ms: now_ms,
            applying_since: None,
            source: None,
            linked_version: String::new(),
            resolving: false,
            resolve_after_ms: now_ms,
            failing: false,
            totals: Totals::default(),
            series: None,
            news: false,
            watchful: false,
        }
    }

    /// Looked at no later than this.
    pub fn hurry(&mut self, at_ms: u64) {
        self.due_ms = self.due_ms.min(at_ms);
    }

    /// True once whenever the QWorker has to be read; nothing else can be done before.
    pub fn wants_loading(&mut self, now_ms: u64) -> bool {
        let wants = self.known.version.is_empty();
        let start = wants && !self.loading && now_ms >= self.load_after_ms;
        self.loading |= start;
        start
    }

    /// The QWorker was read.
    pub fn loaded(&mut self, result: Result<Loaded, Failure>, id: &WorkloadId, now_ms: u64) {
        self.loading = false;
        match result {
            Ok(loaded) => {
                self.known = loaded.known;
                // After a conflict what we know is newer than what is saved, but for the wave.
                if let Some(workload) = self.workload.as_mut() {
                    workload.unwritten(loaded.status.intent.as_ref());
                } else {
                    let workload = Workload::restore(id.clone(), self.uid.clone(), loaded.status, now_ms);
                    self.totals = workload.totals();
                    self.workload = Some(workload);
                }
                self.due_ms = now_ms;
            }
            Err(failure) => {
                tracing::warn!(workload = %id, ?failure, "the QWorker could not be read or made; tried again");
                self.load_after_ms = now_ms.saturating_add(RETRY_MS);
            }
        }
    }

    /// What to do about the connections.
    pub fn links(&mut self, deployment: &DeploymentRecord, now_ms: u64) -> Links {
        if self.resolving || (self.linked_version == deployment.resource_version && now_ms < self.resolve_after_ms) {
            return Links::Keep;
        }
        let (Ok(config), Some(worker)) = (&deployment.config, &deployment.worker) else {
            return if self.source.take().is_some() { Links::Drop } else { Links::Keep };
        };
        let source =
            Source { broker: config.broker.clone(), control: config.control_broker.clone(), worker: worker.clone(), queries: queries(config) };
        self.linked_version.clone_from(&deployment.resource_version);
        if self.source.as_ref() == Some(&source) && now_ms < self.resolve_after_ms {
            return Links::Keep;
        }
        self.source = Some(source);
        self.resolving = true;
        Links::Resolve
    }

    /// The queues to measure.
    #[must_use]
    pub fn queries(&self) -> Vec<QueueQuery> {
        self.source.as_ref().map(|s| s.queries.clone()).unwrap_or_default()
    }

    /// The URLs were found and the connections made, or not and why.
    pub fn registered(&mut self, result: Result<(), Unreachable>, now_ms: u64) {
        self.resolving = false;
        let wait = match &result {
            Ok(()) if self.failing => RESOLVE_FAILING_MS,
            Ok(()) => RESOLVE_MS,
            Err(_) => RETRY_MS,
        };
        self.resolve_after_ms = now_ms.saturating_add(wait);
        if let (Err(problem), Some(workload)) = (result, self.workload.as_mut()) {
            match problem {
                Unreachable::Mistake(problem) => workload.mistaken(problem),
                Unreachable::Trouble(problem) => workload.unmeasured(problem),
            }
            self.due_ms = now_ms;
        }
    }

    /// The queues were measured, or not and why.
    pub fn sampled(&mut self, result: Result<Measured, String>, now_ms: u64) {
        let failing = result.is_err();
        if failing && !self.failing {
            self.resolve_after_ms = self.resolve_after_ms.min(now_ms.saturating_add(RESOLVE_FAILING_MS));
        }
        self.failing = failing;
        let Some(workload) = self.workload.as_mut() else { return };
        match result {
            Ok(measured) => {
                workload.sampled(measured.queues, now_ms);
                workload.partly(measured.gap);
            }
            Err(problem) => workload.unmeasured(problem),
        }
        self.due_ms = now_ms;
    }

    /// Who takes from its queues too.
    pub fn share(&mut self, pool: Option<SharedPool>) {
        if let Some(workload) = self.workload.as_mut() {
            workload.share(pool);
        }
    }

    /// Reports were fetched. Where there are none no view is needed.
    pub fn reports(&mut self, reports: &Reports, view: Option<&View>, cluster: &Cluster, now_ms: u64) {
        let Some(workload) = self.workload.as_mut() else { return };
        workload.malformed(reports.malformed);
        if let Some(view) = view {
            workload.reports(&reports.reports, view, cluster, now_ms);
        }
        workload.fetched(now_ms);
        if !reports.reports.is_empty() {
            self.due_ms = now_ms;
        }
    }

    /// The control channel failed.
    pub fn control_failed(&mut self, problem: String, now_ms: u64) {
        if let Some(workload) = self.workload.as_mut() {
            workload.unfetched(problem);
            self.due_ms = now_ms;
        }
    }

    /// Decides. None while a list of actions is under way or the QWorker is not read.
    pub fn look(&mut self, view: &View, cluster: &Cluster, room: bool, metrics: &Metrics, now_ms: u64) -> Option<(Vec<Action>, Known)> {
        if self.applying_since.is_some_and(|since| now_ms < since.saturating_add(APPLY_MAX_MS)) || self.known.version.is_empty() {
            return None;
        }
        if self.applying_since.take().is_some() {
            // Its fate is not known: it is ended before another begins, and the wave starts over.
            self.end();
            if let Some(workload) = self.workload.as_mut() {
                workload.unwritten(None);
            }
        }
        let workload = self.workload.as_mut()?;
        let plan = workload.look(view, cluster, WriteRoom { room, apart: !self.known.checkpoint.is_empty() }, now_ms);
        if let Some(wake_ms) = plan.wake_ms {
            self.due_ms = self.due_ms.min(wake_ms.max(now_ms + 1));
        }
        self.watchful = workload.sizing.as_ref().is_some_and(|sizing| sizing.expects_kills(now_ms));
        if self.watchful {
            self.hurry(now_ms.saturating_add(WATCHFUL_MS));
        }
        let workload = self.workload.as_mut()?;
        let series = self.series.get_or_insert_with(|| metrics.workload(&workload.id.to_string()));
        plan.decided.into_iter().for_each(|rule| metrics.decided(rule));
        series.seen(workload, view.deployment.spec_replicas);
        series.tallied(&workload.tally.take());
        let now = workload.totals();
        series.counted(self.totals, now);
        self.totals = now;
        self.news = plan.decided.is_some();
        if !plan.actions.is_empty() {
            self.applying_since = Some(now_ms);
        }
        Some((plan.actions, self.known.clone()))
    }

    /// The pod to replace now if it is idle, and the configuration by which it works; asked for after a look.
    pub fn replace(&mut self, view: &View, sidecar_image: Option<&str>, may_ask: bool, now_ms: u64) -> Option<(Ask, Arc<WorkerConfig>)> {
        let workload = self.workload.as_mut()?;
        let ask = workload.replace(view, sidecar_image, may_ask, now_ms)?;
        Some((ask, workload.config.clone()?))
    }

    /// What became of a try to replace a pod. True: it is being evicted.
    pub fn tried(&mut self, ask: &Ask, tried: Tried, view: &View, now_ms: u64) -> bool {
        self.workload.as_mut().is_some_and(|workload| workload.tried(ask, tried, view, now_ms))
    }

    /// A list of actions is under way in this task.
    pub fn began(&mut self, task: AbortHandle) {
        self.task = Some(task);
    }

    /// Ends the list of actions under way, if there is one.
    pub fn end(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }

    /// Its queues cannot be measured now.
    #[must_use]
    pub fn is_dark(&self) -> bool {
        self.workload.as_ref().is_some_and(|w| w.broker.queues.is_some())
    }

    /// Reports are wanted sooner than they come by themselves.
    #[must_use]
    pub fn wants_reports(&self) -> bool {
        self.watchful || self.workload.as_ref().is_some_and(Workload::wants_reports)
    }

    /// The last decision, if the last look has made one.
    #[must_use]
    pub fn snapshot(&self, view: &View) -> Option<Snapshot> {
        self.workload.as_ref().filter(|_| self.news).map(|w| w.snapshot(view))
    }

    /// What the page shows of it after a look.
    #[must_use]
    pub fn shown(&self, view: &View, cluster: &Cluster, now_ms: u64) -> Option<Shown> {
        let workload = self.workload.as_ref()?;
        Some(Shown::new(workload.status_now(view, cluster, now_ms), workload.config.as_deref()))
    }

    /// The list of actions has ended.
    pub fn applied(&mut self, outcome: ListOutcome, now_ms: u64) {
        self.applying_since = None;
        if let Some(version) = &outcome.qworker_version {
            self.known.version.clone_from(version);
        }
        if let Some(version) = &outcome.checkpoint_version {
            self.known.checkpoint.clone_from(version);
        }
        if matches!(outcome.failed, Some(Failure::Changed { qworker: true } | Failure::Gone)) {
            self.known.version.clear();
            self.load_after_ms = now_ms;
        }
        if let Some(workload) = self.workload.as_mut() {
            workload.applied(&outcome, now_ms);
        }
        // A failure waits for the regular look; success may have made the next step possible.
        if outcome.failed.is_none() {
            self.due_ms = self.due_ms.min(now_ms.saturating_add(RETRY_MS / 10));
        }
    }
}

fn queries(config: &WorkerConfig) -> Vec<QueueQuery> {
    let query = |queue: &String| QueueQuery { queue: queue.clone(), framework: config.framework(), names: config.key_names.clone() };
    config.queues.iter().map(query).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{deployment, deployment_record, with};
    use serde_json::json;

    #[test]
    fn urls_are_looked_up_at_first_after_a_change_and_now_and_then_but_not_at_each_look() {
        let (mut managed, first) = (Managed::new("dep".into(), Life(1), 0), deployment(1, &[]));
        let record = |value: &serde_json::Value| deployment_record(value).unwrap();
        assert_eq!(managed.links(&record(&first), 0), Links::Resolve);
        assert_eq!(managed.links(&record(&first), 10), Links::Keep, "one lookup at a time");
        managed.registered(Ok(()), 20);
        let scaled = with(with(first.clone(), "/spec/replicas", json!(9)), "/metadata/resourceVersion", json!("101"));
        assert_eq!(managed.links(&record(&scaled), 30), Links::Keep, "nothing that a URL hangs on has changed");
        let moved = with(
            with(scaled.clone(), "/spec/template/spec/containers/0/env/0/value", json!("redis://new/0")),
            "/metadata/resourceVersion",
            json!("102"),
        );
        assert_eq!(managed.links(&record(&moved), 40), Links::Resolve);
        managed.registered(Ok(()), 50);
        assert_eq!(
            (managed.links(&record(&moved), 50 + RESOLVE_MS - 1), managed.links(&record(&moved), 50 + RESOLVE_MS)),
            (Links::Keep, Links::Resolve)
        );
        managed.registered(Err(Unreachable::Mistake("no Secret".into())), 60 + RESOLVE_MS);
        assert_eq!(managed.links(&record(&moved), 60 + RESOLVE_MS + RETRY_MS), Links::Resolve);
        managed.registered(Ok(()), 70 + RESOLVE_MS);
        let wrong = with(deployment(1, &[("worker", "celeri")]), "/metadata/resourceVersion", json!("103"));
        assert_eq!((managed.links(&record(&wrong), 80 + RESOLVE_MS), managed.links(&record(&wrong), 90 + RESOLVE_MS)), (Links::Drop, Links::Keep));
        assert_eq!(managed.links(&record(&with(moved, "/metadata/resourceVersion", json!("104"))), 100 + RESOLVE_MS), Links::Resolve);
    }
}
