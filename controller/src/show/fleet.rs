//! What is known of the whole fleet, for whoever asks this process. In: what the looks at its workloads came to. Out: the last decisions as JSON
//! (`/debug/decisions`), and, where the page is served, the fleet as JSON (`/fleet.json`) from the same decisions and statuses. Left to others: HTTP (`page`,
//! `runtime::admin`), what a status says (`status`).

use crate::show::status::Snapshot;
use crate::words::time;
use k8s_openapi::jiff::Timestamp;
use qscaler_api::QWorkerStatus;
use qscaler_core::config::WorkerConfig;
use qscaler_core::names::condition;
use qscaler_core::workload::WorkloadId;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Workloads in one answer: what a person can look through, and a browser shows without delay. Those with trouble come first.
pub const WORKLOADS_MAX: usize = 300;
/// Earlier decisions kept for each workload, each a few hundred bytes.
pub const RECENT_MAX: usize = 10;

/// The fleet, shared between the loop that writes it and the servers that read it.
#[derive(Clone, Debug, Default)]
pub struct SharedFleet {
    shows: bool,
    fleet: Arc<Mutex<Fleet>>,
}

impl SharedFleet {
    /// Also keeps what the page shows: statuses, and the decisions before the last.
    #[must_use]
    pub fn for_page() -> Self {
        Self { shows: true, fleet: Arc::new(Mutex::new(Fleet { shows: true, ..Fleet::default() })) }
    }

    /// Whether what the page shows is wanted.
    #[must_use]
    pub fn shows(&self) -> bool {
        self.shows
    }

    /// The fleet, for a moment.
    pub fn lock(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of every workload that this process manages.
#[derive(Debug, Default)]
pub struct Fleet {
    shows: bool,
    leads: bool,
    workloads: BTreeMap<WorkloadId, Entry>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    decision: Option<Arc<Snapshot>>,
    shown: Option<Arc<Shown>>,
    recent: VecDeque<Arc<Earlier>>,
}

/// What one look at a workload shows beside its decision.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    status: QWorkerStatus,
    limits: Option<Limits>,
    trouble: Vec<Trouble>,
}

impl Shown {
    /// Of this status, under this configuration; None: it has mistakes.
    #[must_use]
    pub fn new(status: QWorkerStatus, config: Option<&WorkerConfig>) -> Self {
        let limits =
            config.map(|c| Limits { min_replicas: c.min_replicas, max_replicas: c.max_replicas, max_wait_seconds: c.max_wait_ms as f64 / 1000.0 });
        let troubles = status.conditions.iter().filter(|c| condition::is_trouble(&c.type_, &c.status, &c.reason));
        let trouble = troubles.map(|c| Trouble {
            condition: c.type_.clone(),
            reason: c.reason.clone(),
            message: c.message.clone(),
            since: c.last_transition_time.0.to_string(),
        });
        Self { limits, trouble: trouble.collect(), status }
    }
}

/// What the user allows and wants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Limits {
    min_replicas: u32,
    max_replicas: u32,
    max_wait_seconds: f64,
}

/// A condition that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Trouble {
    condition: String,
    reason: String,
    message: String,
    /// RFC 3339.
    since: String,
}

/// A decision as it was when target or rule changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Earlier {
    /// RFC 3339.
    at: String,
    target: u32,
    rule: &'static str,
    reason: String,
}

/// The answer of `/fleet.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    version: &'a str,
    /// RFC 3339.
    at: String,
    leads: bool,
    /// Why the process is not ready; absent: it is.
    not_ready: Option<String>,
    /// Workloads managed.
    workloads: usize,
    /// Of those, with trouble.
    troubled: usize,
    /// Those that were asked for.
    found: usize,
    /// At most [`WORKLOADS_MAX`] of them, by name.
    shown: Vec<Row<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    namespace: &'a str,
    name: &'a str,
    /// As `/debug/decisions` has it.
    decision: Option<&'a Snapshot>,
    #[serde(flatten)]
    shown: &'a Shown,
    /// The newest first.
    recent: Vec<&'a Earlier>,
}

impl Fleet {
    /// Whether this process leads. What it knew before is forgotten either way: it is not true any more, or will be told anew.
    pub fn leads(&mut self, leads: bool) {
        self.leads = leads;
        self.workloads.clear();
    }

    /// The law has decided.
    pub fn decided(&mut self, id: &WorkloadId, snapshot: Snapshot, now_ms: u64) {
        let entry = self.workloads.entry(id.clone()).or_default();
        if let (true, Some(decision)) = (self.shows, snapshot.decision.as_ref()) {
            let rule = decision.rule.name();
            if entry.recent.front().is_none_or(|last| (last.target, last.rule) != (decision.target, rule)) {
                let at = time(now_ms).0.to_string();
                entry.recent.push_front(Arc::new(Earlier { at, target: decision.target, rule, reason: decision.reason.clone() }));
                entry.recent.truncate(RECENT_MAX);
            }
        }
        entry.decision = Some(Arc::new(snapshot));
    }

    /// What a look has shown.
    pub fn show(&mut self, id: &WorkloadId, shown: Shown) {
        if self.shows {
            self.workloads.entry(id.clone()).or_default().shown = Some(Arc::new(shown));
        }
    }

    /// A workload is not managed any more.
    pub fn forget(&mut self, id: &WorkloadId) {
        self.workloads.remove(id);
    }

    /// The last decisions, as JSON.
    #[must_use]
    pub fn decisions(&self) -> String {
        serde_json::to_string(&self.workloads.values().filter_map(|w| w.decision.as_deref()).collect::<Vec<_>>()).unwrap_or_default()
    }
}

/// The fleet as JSON: workloads whose `namespace/name` contains `find`. `not_ready`: why the process is not ready. `now`: by the wall clock, as the page shows it.
#[must_use]
pub fn json(fleet: &SharedFleet, find: &str, not_ready: Option<String>, now: Timestamp) -> String {
    // The loop waits for this lock: words are made of it outside.
    let (leads, workloads, troubled, mut found) = {
        let fleet = fleet.lock();
        let troubled = fleet.workloads.values().filter(|w| w.troubled()).count();
        let found: Vec<(WorkloadId, Entry)> = fleet
            .workloads
            .iter()
            .filter(|(id, w)| w.shown.is_some() && id.to_string().contains(find))
            .map(|(id, w)| (id.clone(), w.clone()))
            .collect();
        (fleet.leads, fleet.workloads.len(), troubled, found)
    };
    let count = found.len();
    if count > WORKLOADS_MAX {
        found.sort_by_key(|(_, w)| !w.troubled());
        found.truncate(WORKLOADS_MAX);
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
    let told = Told {
        version: env!("CARGO_PKG_VERSION"),
        at: now.to_string(),
        leads,
        not_ready,
        workloads,
        troubled,
        found: count,
        shown: found.iter().filter_map(row).collect(),
    };
    serde_json::to_string(&told).unwrap_or_default()
}

fn row((id, entry): &(WorkloadId, Entry)) -> Option<Row<'_>> {
    Some(Row {
        namespace: &id.namespace,
        name: &id.name,
        decision: entry.decision.as_deref(),
        shown: entry.shown.as_deref()?,
        recent: entry.recent.iter().map(AsRef::as_ref).collect(),
    })
}

impl Entry {
    fn troubled(&self) -> bool {
        self.shown.as_ref().is_some_and(|s| !s.trouble.is_empty())
    }
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
