//! Metrics of the controller. In: what was decided and done. Out: series in the Prometheus format. Left to others: serving them. Labels name
//! workloads, never pods: workloads are few, pods come and go.

use crate::act::plan::{Action, Done, Failure, Outcome};
use qscaler_api::Counters;
use qscaler_core::cut::CutCause;
use qscaler_core::scale::ScaleDecision;
use qscaler_runtime::metrics::{Counter, Gauge, Histogram, Registry};

/// Buckets of lateness, seconds: the target is 0.15 at ten thousand workloads.
const LATENESS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Everything that is counted.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// How late a workload was looked at.
    pub lateness: Histogram,
    /// This controller leads.
    pub leader: Gauge,
    /// Workloads managed.
    pub workloads: Gauge,
    /// Connections to brokers.
    pub connections: Gauge,
    /// Lists of actions that ended early, conflicts left out.
    pub errors: Counter,
    /// Writes refused because the object had changed.
    pub conflicts: Counter,
    /// Measurements and calls that a broker failed.
    pub broker_errors: Counter,
    /// Waves of drains opened.
    pub waves: Counter,
    /// Running pods resized in place.
    pub resizes: Counter,
    /// Resizes that the API server refused.
    pub refusals: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::default();
        Self {
            lateness: registry.histogram("qscaler_loop_lateness_seconds", "How late a workload was looked at.", &[], LATENESS),
            leader: registry.gauge("qscaler_leader", "1 while this controller holds the Lease.", &[]),
            workloads: registry.gauge("qscaler_workloads", "Workloads with annotations of QScaler.", &[]),
            connections: registry.gauge("qscaler_broker_connections", "Open connections to brokers.", &[]),
            errors: registry.counter("qscaler_reconcile_errors_total", "Lists of actions that ended early, conflicts left out.", &[]),
            conflicts: registry.counter("qscaler_write_conflicts_total", "Writes refused because the object had changed.", &[]),
            broker_errors: registry.counter("qscaler_broker_errors_total", "Calls that a broker failed.", &[]),
            waves: registry.counter("qscaler_drain_waves_total", "Waves of drains opened.", &[]),
            resizes: registry.counter("qscaler_resizes_total", "Running pods resized in place.", &[]),
            refusals: registry.counter("qscaler_resize_refusals_total", "Resizes that the API server refused.", &[]),
            registry,
        }
    }
}

/// Totals of one workload since the controller started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Drained pods.
    pub drained: u64,
    /// Tasks cut, by cause in the order of [`CutCause::ALL`].
    pub cuts: [u64; CutCause::ALL.len()],
    /// OOM kills.
    pub oom_kills: u64,
    /// Messages that did not parse.
    pub malformed: u64,
}

/// Tasks cut by cause, as a status counts them.
#[must_use]
pub fn cuts_by(counters: &Counters) -> [u64; CutCause::ALL.len()] {
    CutCause::ALL.map(|cause| counters.cut_by.get(cause.name()).copied().unwrap_or(0))
}

impl Metrics {
    /// Everything as text.
    #[must_use]
    pub fn text(&self) -> String {
        self.registry.text()
    }

    /// The series of one workload, to be kept with it: finding them costs more than setting them.
    #[must_use]
    pub fn workload(&self, workload: &str) -> WorkloadMetrics {
        let labels = [("workload", workload)];
        let gauge = |name: &str, help: &str| self.registry.gauge(name, help, &labels);
        let counter = |name: &str, help: &str| self.registry.counter(name, help, &labels);
        WorkloadMetrics {
            replicas: gauge("qscaler_replicas", "spec.replicas of the Deployment."),
            parked: gauge("qscaler_parked", "Parked pods."),
            unheld: gauge("qscaler_unheld_pods", "Pods whose hold is less than whole; condition HoldEffective says why."),
            desired: gauge("qscaler_desired", "Useful pods wished for."),
            backlog: gauge("qscaler_backlog_messages", "Messages that wait; NaN while unknown."),
            in_flight: gauge("qscaler_in_flight_messages", "Messages taken and not finished; NaN while unknown."),
            drained: counter("qscaler_drained_total", "Pods that were drained before their end."),
            cuts: CutCause::ALL.map(|cause| {
                let labels = [("workload", workload), ("cause", cause.name())];
                self.registry.counter("qscaler_tasks_cut_total", "Running tasks that were cut, by cause.", &labels)
            }),
            oom_kills: counter("qscaler_oom_kills_total", "OOM kills of containers and processes."),
            malformed: counter("qscaler_malformed_messages_total", "Reports that did not parse."),
        }
    }

    /// The law has decided by this rule.
    pub fn decided(&self, rule: &str) {
        self.registry.counter("qscaler_decisions_total", "Decisions, by the rule that made them.", &[("rule", rule)]).inc();
    }

    /// A list of actions has ended.
    pub fn applied(&self, outcome: &Outcome) {
        for (action, done) in &outcome.done {
            match (action, done) {
                (Action::SaveIntent(intent), _) if intent.count > 0 => self.waves.inc(),
                (Action::Resize { .. }, Done::Yes) => self.resizes.inc(),
                (Action::Resize { .. }, Done::Refused(..)) => self.refusals.inc(),
                _ => {}
            }
        }
        match outcome.failed {
            Some(Failure::Changed { .. }) => self.conflicts.inc(),
            Some(Failure::Gone | Failure::Other(_)) => self.errors.inc(),
            Some(Failure::NotLeader) | None => {}
        }
    }

    /// The workload is gone.
    pub fn forget(&self, workload: &str) {
        self.registry.forget("workload", workload);
    }
}

/// The series of one workload.
#[derive(Clone, Debug)]
pub struct WorkloadMetrics {
    replicas: Gauge,
    parked: Gauge,
    unheld: Gauge,
    desired: Gauge,
    backlog: Gauge,
    in_flight: Gauge,
    drained: Counter,
    cuts: [Counter; CutCause::ALL.len()],
    oom_kills: Counter,
    malformed: Counter,
}

impl WorkloadMetrics {
    /// The law has decided.
    pub fn decided(&self, decision: &ScaleDecision, replicas: u32, parked: u32) {
        let known = |n: Option<u64>| n.map_or(f64::NAN, |n| n as f64);
        self.replicas.set(f64::from(replicas));
        self.parked.set(f64::from(parked));
        self.desired.set(f64::from(decision.target));
        self.backlog.set(known(decision.inputs.backlog));
        self.in_flight.set(known(decision.inputs.in_flight));
    }

    /// So many pods are not held whole.
    pub fn unheld(&self, pods: u32) {
        self.unheld.set(f64::from(pods));
    }

    /// Totals have moved.
    pub fn counted(&self, before: Totals, now: Totals) {
        self.drained.add(now.drained.saturating_sub(before.drained));
        for (counter, (now, before)) in self.cuts.iter().zip(now.cuts.iter().zip(before.cuts)) {
            counter.add(now.saturating_sub(before));
        }
        self.oom_kills.add(now.oom_kills.saturating_sub(before.oom_kills));
        self.malformed.add(now.malformed.saturating_sub(before.malformed));
    }
}
