//! The controller's metrics, per workload and for itself. In: what was decided, tallied and done. Out: Prometheus text. Left to others: serving it, measuring calls
//! (`calls`). Labels name workloads, never pods; what is known of a workload goes with it.

use crate::act::plan::{Action, Done, Failure, ListOutcome};
use crate::observe::calls::Calls;
use crate::observe::reports::Rejected;
use crate::show::tally::{DrainEnd, Tally, Totals};
use crate::workload::Workload;
use prometheus_client::encoding::EncodeLabelSet;
use qscaler_core::cut::CutCause;
use qscaler_core::scale::{Cap, ScaleDecision};
use qscaler_runtime::metrics::{Amount, Counter, Family, Gauge, Histogram, Registry};
use std::sync::Arc;

/// Lateness, seconds: the target is 0.15 at ten thousand workloads.
const LATENESS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Tasks, seconds: of each workload, so there are few.
const TASK: [f64; 7] = [0.1, 1.0, 10.0, 60.0, 300.0, 1_800.0, 3_600.0];
/// Pods' starts and holds, seconds.
const POD: [f64; 10] = [1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1_800.0, 3_600.0];

type Buckets = fn() -> Histogram;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    workload: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cut {
    workload: Arc<str>,
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Drain {
    workload: Arc<str>,
    end: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectedReport {
    workload: Arc<str>,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Capped {
    workload: Arc<str>,
    cap: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Problem {
    workload: Arc<str>,
    condition: &'static str,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRule {
    rule: &'static str,
}

/// Everything that is counted.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    families: Arc<Families>,
    /// How late a workload was looked at.
    pub lateness: Histogram,
    /// This controller leads.
    pub leader: Gauge,
    /// Workloads managed.
    pub workloads: Gauge,
    /// Connections to brokers.
    pub connections: Gauge,
    /// Control messages are signed.
    pub signing: Gauge,
    /// Calls of brokers and of the API server.
    pub calls: Calls,
    errors: Counter,
    conflicts: Counter,
    waves: Counter,
    resizes: Counter,
    refusals: Counter,
    decisions: Family<ByRule, Counter>,
    starts: Histogram,
    holds: Histogram,
}

/// What there is of every workload.
#[derive(Debug)]
struct Families {
    /// In the order of [`GAUGES`].
    gauges: [Family<Of, Gauge>; GAUGES.len()],
    oldest: Family<Of, Gauge>,
    tasks: Family<Of, Histogram, Buckets>,
    arrived: Family<Of, Amount>,
    late: Family<Of, Amount>,
    cuts: Family<Cut, Counter>,
    drains: Family<Drain, Counter>,
    parked: Family<Of, Counter>,
    added: Family<Of, Counter>,
    removed: Family<Of, Counter>,
    oom_kills: Family<Of, Counter>,
    malformed: Family<Of, Counter>,
    rejected: Family<RejectedReport, Counter>,
    capped: Family<Capped, Gauge>,
    problems: Family<Problem, Gauge>,
}

/// What a workload's gauges are read from after a look.
struct Seen<'a> {
    workload: &'a Workload,
    decision: Option<&'a ScaleDecision>,
    replicas: u32,
}

fn known(n: Option<u64>) -> f64 {
    n.map_or(f64::NAN, |n| n as f64)
}

fn input(seen: &Seen<'_>, of: impl Fn(&qscaler_core::scale::Inputs) -> f64) -> f64 {
    seen.decision.map_or(f64::NAN, |d| of(&d.inputs))
}

fn setting(seen: &Seen<'_>, of: impl Fn(&qscaler_core::config::WorkerConfig) -> f64) -> f64 {
    seen.workload.config.as_deref().map_or(f64::NAN, of)
}

type Reading = (&'static str, &'static str, fn(&Seen<'_>) -> f64);

/// A workload's gauges: what is not known is NaN.
const GAUGES: [Reading; 26] = [
    ("qscaler_replicas", "spec.replicas of the Deployment", |s| f64::from(s.replicas)),
    ("qscaler_desired", "The target: useful pods wished for; NaN before the first decision", |s| {
        s.decision.map_or(f64::NAN, |d| f64::from(d.target))
    }),
    ("qscaler_min_replicas", "Annotation min-replicas", |s| setting(s, |c| f64::from(c.min_replicas))),
    ("qscaler_max_replicas", "Annotation max-replicas", |s| setting(s, |c| f64::from(c.max_replicas))),
    ("qscaler_max_wait_seconds", "Annotation max-wait: no message should wait longer", |s| setting(s, |c| c.max_wait_ms as f64 / 1_000.0)),
    ("qscaler_ready_pods", "Pods that are Ready and not parked", |s| f64::from(s.workload.fleet.ready)),
    ("qscaler_busy_tasks", "Tasks that run, as the workers' sidecars tell; NaN where nobody tells", |s| known(s.workload.fleet.busy.map(u64::from))),
    ("qscaler_starting_pods", "Pods that are not Ready yet, and Ready ones whose workers are not known to take tasks yet", |s| {
        input(s, |i| f64::from(i.starting))
    }),
    ("qscaler_unschedulable_pods", "Pods that the scheduler finds no node for", |s| input(s, |i| f64::from(i.unschedulable))),
    ("qscaler_parked", "Parked pods", |s| f64::from(s.workload.fleet.parked)),
    ("qscaler_terminating_pods", "Pods that end, held until their task is done", |s| f64::from(s.workload.fleet.terminating)),
    ("qscaler_unheld_pods", "Pods whose hold is less than whole; condition HoldEffective says why", |s| f64::from(s.workload.unheld)),
    ("qscaler_unsigned_pods", "Pods whose sidecar was given no key, so that it believes unsigned control messages", |s| {
        f64::from(s.workload.unsigned)
    }),
    ("qscaler_backlog_messages", "Messages that wait; NaN while unknown", |s| known(s.decision.and_then(|d| d.inputs.backlog))),
    ("qscaler_in_flight_messages", "Messages taken and not finished; NaN while unknown", |s| known(s.decision.and_then(|d| d.inputs.in_flight))),
    ("qscaler_arrival_rate", "Messages per second that come, as the law estimates it", |s| input(s, |i| i.rate_in)),
    ("qscaler_completion_rate", "Messages per second that are done, smoothed", |s| input(s, |i| i.rate_out)),
    ("qscaler_waited_seconds", "How long the next message has waited by the order in which messages came; at most max-wait", |s| {
        input(s, |i| i.waited_s)
    }),
    ("qscaler_service_time_seconds", "Mean time of a task, as learned", |s| input(s, |i| i.service_s)),
    ("qscaler_start_latency_seconds", "Mean time from a pod's creation to its first task, as learned", |s| input(s, |i| i.start_latency_s)),
    ("qscaler_offered_load", "Arrivals per second times service time: tasks that run at once in the long run", |s| input(s, |i| i.offered_load)),
    ("qscaler_figures_age_seconds", "Age of the oldest figure that the last decision was made from", |s| input(s, |i| i.age_s)),
    ("qscaler_memory_bytes", "Memory limit (else request) of the working container in the template; NaN: none", |s| known(s.workload.sized.memory)),
    ("qscaler_recommended_memory_bytes", "Memory that the working container should get; NaN: nothing known yet", |s| {
        known(s.workload.sized.memory_recommended)
    }),
    ("qscaler_cpu_request_cores", "CPU request of the working container in the template; NaN: none", |s| known(s.workload.sized.cpu_m) / 1_000.0),
    ("qscaler_recommended_cpu_request_cores", "CPU that the working container should request; NaN: nothing known yet", |s| {
        known(s.workload.sized.cpu_recommended_m) / 1_000.0
    }),
];

impl Families {
    fn new(r: &mut Registry) -> Self {
        Self {
            gauges: GAUGES.map(|(name, help, _)| r.add(name, help, Family::default())),
            oldest: r.add(
                "qscaler_oldest_message_age_seconds",
                "How long the oldest message has waited, where the broker or the framework knows; absent where nobody does",
                Family::default(),
            ),
            tasks: r.add(
                "qscaler_task_seconds",
                "Tasks that ended, by how long they took; of several between two reports of a worker the mean",
                Family::new_with_constructor(|| Histogram::new(TASK)),
            ),
            arrived: r.add("qscaler_messages_arrived", "Messages that came, as counted or estimated from the broker's figures", Family::default()),
            late: r.add("qscaler_messages_late", "Messages that waited longer than max-wait, first in first out assumed", Family::default()),
            cuts: r.add("qscaler_tasks_cut", "Running tasks that were cut, by cause", Family::default()),
            drains: r.add(
                "qscaler_drains",
                "Ends of drains: removed (parked, then gone), resumed (parked, then back at work), wrong-victim (another pod went, held until its task was done)",
                Family::default(),
            ),
            parked: r.add("qscaler_pods_parked", "Pods that took a message to leave, and parked", Family::default()),
            added: r.add("qscaler_replicas_added", "Replicas added", Family::default()),
            removed: r.add("qscaler_replicas_removed", "Replicas removed", Family::default()),
            oom_kills: r.add("qscaler_oom_kills", "OOM kills of containers and processes", Family::default()),
            malformed: r.add("qscaler_malformed_messages", "Reports that did not parse", Family::default()),
            rejected: r.add(
                "qscaler_rejected_reports",
                "Reports that parsed and were not believed, by why: of no pod or of another Deployment, older than one before (also what a broker delivers twice), from the future (clocks), or with numbers that cannot be",
                Family::default(),
            ),
            capped: r.add("qscaler_capped", "1 while this bound cuts the law's wish; absent otherwise", Family::default()),
            problems: r.add("qscaler_problem", "1 while this condition of the QWorker is not as it should be, by its reason; absent otherwise", Family::default()),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let r = &mut registry;
        Self {
            lateness: r.add("qscaler_loop_lateness_seconds", "How late a workload was looked at", Histogram::new(LATENESS)),
            leader: r.add("qscaler_leader", "1 while this controller holds the Lease", Gauge::default()),
            workloads: r.add("qscaler_workloads", "Workloads with annotations of QScaler", Gauge::default()),
            connections: r.add("qscaler_broker_connections", "Open connections to brokers", Gauge::default()),
            signing: r.add(
                "qscaler_control_messages_signed",
                "1 while this controller has the key by which control messages are signed",
                Gauge::default(),
            ),
            calls: Calls::new(r),
            errors: r.add("qscaler_reconcile_errors", "Lists of actions that ended early, conflicts left out", Counter::default()),
            conflicts: r.add("qscaler_write_conflicts", "Writes refused because the object had changed", Counter::default()),
            waves: r.add("qscaler_drain_waves", "Waves of drains opened", Counter::default()),
            resizes: r.add("qscaler_resizes", "Running pods resized in place", Counter::default()),
            refusals: r.add("qscaler_resize_refusals", "Resizes that the API server refused", Counter::default()),
            decisions: r.add("qscaler_decisions", "Decisions, by the rule that made them", Family::default()),
            starts: r.add("qscaler_pod_start_seconds", "Starts of pods, from creation to Ready", Histogram::new(POD)),
            holds: r.add("qscaler_hold_seconds", "Holds of ending pods, from the kubelet's call to the worker's end", Histogram::new(POD)),
            families: Arc::new(Families::new(r)),
            registry: Arc::new(registry),
        }
    }
}

impl Metrics {
    /// Everything as text.
    #[must_use]
    pub fn text(&self) -> String {
        self.registry.text()
    }

    /// The series of one workload, to be kept with it: finding them costs more than setting them, and they are gone when this is dropped.
    #[must_use]
    pub fn workload(&self, workload: &str) -> WorkloadMetrics {
        let (of, families) = (Of { workload: workload.into() }, Arc::clone(&self.families));
        let f = &families;
        let counter = |family: &Family<Of, Counter>| family.get_or_create_owned(&of);
        WorkloadMetrics {
            gauges: f.gauges.each_ref().map(|family| family.get_or_create_owned(&of)),
            tasks: f.tasks.get_or_create_owned(&of),
            arrived: f.arrived.get_or_create_owned(&of),
            late: f.late.get_or_create_owned(&of),
            cuts: CutCause::ALL.map(|cause| f.cuts.get_or_create_owned(&Cut { workload: of.workload.clone(), cause: cause.name() })),
            drains: DrainEnd::ALL.map(|end| f.drains.get_or_create_owned(&Drain { workload: of.workload.clone(), end: end.name() })),
            parked: counter(&f.parked),
            added: counter(&f.added),
            removed: counter(&f.removed),
            oom_kills: counter(&f.oom_kills),
            malformed: counter(&f.malformed),
            rejected: Rejected::ALL.map(|why| f.rejected.get_or_create_owned(&RejectedReport { workload: of.workload.clone(), reason: why.name() })),
            starts: self.starts.clone(),
            holds: self.holds.clone(),
            cap: None,
            problems: Vec::new(),
            families,
            of,
        }
    }

    /// The law has decided by this rule.
    pub fn decided(&self, rule: &'static str) {
        self.decisions.get_or_create(&ByRule { rule }).inc();
    }

    /// A list of actions has ended.
    pub fn applied(&self, outcome: &ListOutcome) {
        for (action, done) in &outcome.done {
            match (action, done) {
                (Action::SaveIntent(intent), _) if intent.count > 0 => {
                    self.waves.inc();
                }
                (Action::Resize { .. }, Done::Yes) => {
                    self.resizes.inc();
                }
                (Action::Resize { .. }, Done::Refused(..)) => {
                    self.refusals.inc();
                }
                _ => {}
            }
        }
        match outcome.failed {
            Some(Failure::Changed { .. }) => {
                self.conflicts.inc();
            }
            Some(Failure::Gone | Failure::Other(_)) => {
                self.errors.inc();
            }
            Some(Failure::NotLeader) | None => {}
        }
    }
}

/// The series of one workload; dropping it removes them.
#[derive(Debug)]
pub struct WorkloadMetrics {
    families: Arc<Families>,
    of: Of,
    gauges: [Gauge; GAUGES.len()],
    tasks: Histogram,
    arrived: Amount,
    late: Amount,
    cuts: [Counter; CutCause::ALL.len()],
    drains: [Counter; DrainEnd::ALL.len()],
    parked: Counter,
    added: Counter,
    removed: Counter,
    oom_kills: Counter,
    malformed: Counter,
    rejected: [Counter; Rejected::ALL.len()],
    starts: Histogram,
    holds: Histogram,
    cap: Option<Cap>,
    problems: Vec<Problem>,
}

impl WorkloadMetrics {
    /// The workload after a look.
    pub(crate) fn seen(&mut self, workload: &Workload, replicas: u32) {
        let decision = workload.decision.as_ref();
        let seen = Seen { workload, decision, replicas };
        for (gauge, (.., read)) in self.gauges.iter().zip(GAUGES) {
            gauge.set(read(&seen));
        }
        if let Some(age_s) = decision.and_then(|d| d.inputs.oldest_s) {
            self.families.oldest.get_or_create(&self.of).set(age_s);
        } else {
            self.families.oldest.remove(&self.of);
        }
        self.capped(decision.and_then(|d| d.cap));
        self.troubled(workload);
    }

    fn capped(&mut self, cap: Option<Cap>) {
        let series = |cap: Cap| Capped { workload: self.of.workload.clone(), cap: cap.name() };
        if cap != self.cap {
            if let Some(old) = self.cap {
                self.families.capped.remove(&series(old));
            }
            if let Some(new) = cap {
                self.families.capped.get_or_create(&series(new)).set(1.0);
            }
            self.cap = cap;
        }
    }

    fn troubled(&mut self, workload: &Workload) {
        let same = workload.conditions.troubles().eq(self.problems.iter().map(|p| (p.condition, p.reason.as_str())));
        if same {
            return;
        }
        let old = std::mem::take(&mut self.problems);
        let problem =
            |(condition, reason): (&'static str, &str)| Problem { workload: self.of.workload.clone(), condition, reason: reason.to_owned() };
        self.problems = workload.conditions.troubles().map(problem).collect();
        for gone in old.iter().filter(|p| !self.problems.contains(p)) {
            self.families.problems.remove(gone);
        }
        for problem in &self.problems {
            self.families.problems.get_or_create(problem).set(1.0);
        }
    }

    /// What has happened since the last look.
    pub(crate) fn tallied(&self, tally: &Tally) {
        // Estimates may be anything, and a counter takes no less than nothing.
        let more = |n: f64| if n.is_finite() { n.max(0.0) } else { 0.0 };
        self.arrived.inc_by(more(tally.arrived));
        self.late.inc_by(more(tally.late));
        tally.tasks_s.iter().for_each(|s| self.tasks.observe(*s));
        tally.starts_s.iter().for_each(|s| self.starts.observe(*s));
        tally.holds_s.iter().for_each(|s| self.holds.observe(*s));
        self.parked.inc_by(tally.parked);
        for (counter, n) in self.drains.iter().zip(tally.drains).chain(self.rejected.iter().zip(tally.rejected)) {
            counter.inc_by(n);
        }
    }

    /// Totals have moved.
    pub fn counted(&self, before: Totals, now: Totals) {
        for (counter, now, before) in [
            (&self.added, now.added, before.added),
            (&self.removed, now.removed, before.removed),
            (&self.oom_kills, now.oom_kills, before.oom_kills),
            (&self.malformed, now.malformed, before.malformed),
        ] {
            counter.inc_by(now.saturating_sub(before));
        }
        for (counter, (now, before)) in self.cuts.iter().zip(now.cuts.iter().zip(before.cuts)) {
            counter.inc_by(now.saturating_sub(before));
        }
    }
}

impl Drop for WorkloadMetrics {
    fn drop(&mut self) {
        let (f, of) = (&self.families, &self.of);
        for family in &f.gauges {
            family.remove(of);
        }
        for family in [&f.parked, &f.added, &f.removed, &f.oom_kills, &f.malformed] {
            family.remove(of);
        }
        f.arrived.remove(of);
        f.late.remove(of);
        f.oldest.remove(of);
        f.tasks.remove(of);
        for cause in CutCause::ALL {
            f.cuts.remove(&Cut { workload: of.workload.clone(), cause: cause.name() });
        }
        for end in DrainEnd::ALL {
            f.drains.remove(&Drain { workload: of.workload.clone(), end: end.name() });
        }
        for why in Rejected::ALL {
            f.rejected.remove(&RejectedReport { workload: of.workload.clone(), reason: why.name() });
        }
        if let Some(cap) = self.cap {
            f.capped.remove(&Capped { workload: of.workload.clone(), cap: cap.name() });
        }
        for problem in &self.problems {
            f.problems.remove(problem);
        }
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
