//! The sidecar's own figures. In: counts from the driver and its neighbours. Out: Prometheus text. Left to others: everything that the
//! controller shows of a workload; no pod names here.

use qscaler_runtime::metrics::{Counter, Gauge, Registry};
use std::sync::Arc;

/// Every figure.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// 1 while the readiness probe is answered with yes.
    pub ready: Gauge,
    /// 1 while the worker has a task.
    pub busy: Gauge,
    /// 1 while the connection for control messages stands.
    pub broker_up: Gauge,
    /// Hold calls with the right token.
    pub hold_calls: Counter,
    /// Hook calls with a wrong token.
    pub refused_calls: Counter,
    /// Signals sent to the worker.
    pub signals: Counter,
    /// Signals that could not be sent.
    pub signal_failures: Counter,
    /// Control messages taken.
    pub control_messages: Counter,
    /// Control messages refused for their signature.
    pub refused_messages: Counter,
    /// Control tokens given back for another pod.
    pub given_back: Counter,
    /// Reports published.
    pub reports: Counter,
    /// Failures of the connection for control messages.
    pub broker_errors: Counter,
    /// Tasks cut while held.
    pub cuts: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let r = &mut registry;
        Self {
            ready: r.add("qscaler_sidecar_ready", "1 while the readiness probe is answered with yes", Gauge::default()),
            busy: r.add("qscaler_sidecar_busy", "1 while the worker has a task, 0 while it has none or nothing tells", Gauge::default()),
            broker_up: r.add("qscaler_sidecar_broker_up", "1 while the connection for control messages stands", Gauge::default()),
            hold_calls: r.add("qscaler_sidecar_hold_calls", "Hold calls with the right token", Counter::default()),
            refused_calls: r.add("qscaler_sidecar_refused_calls", "Hook calls with a wrong token", Counter::default()),
            signals: r.add("qscaler_sidecar_signals", "Signals sent to the worker", Counter::default()),
            signal_failures: r.add("qscaler_sidecar_signal_failures", "Signals that could not be sent", Counter::default()),
            control_messages: r.add("qscaler_sidecar_control_messages", "Control messages taken", Counter::default()),
            refused_messages: r.add(
                "qscaler_sidecar_refused_messages",
                "Control messages that were not signed by a key that this pod was given, and so not believed",
                Counter::default(),
            ),
            given_back: r.add("qscaler_sidecar_given_back", "Control tokens given back for another pod", Counter::default()),
            reports: r.add("qscaler_sidecar_reports", "Reports published", Counter::default()),
            broker_errors: r.add("qscaler_sidecar_broker_errors", "Failures of the connection for control messages", Counter::default()),
            cuts: r.add("qscaler_sidecar_cut_tasks", "Tasks cut while held", Counter::default()),
            registry: Arc::new(registry),
        }
    }
}

impl Metrics {
    /// Prometheus text.
    #[must_use]
    pub fn render(&self) -> String {
        self.registry.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_page_has_these_metrics() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/metrics-sidecar.md");
        let about = "# Metrics of the sidecar\n\nPort 14191 of every injected pod, path `/metrics`. What concerns a workload is in the controller's metrics as well, without names of pods.";
        Metrics::default().registry.check_reference(about, &page).unwrap_or_else(|e| panic!("{e}"));
    }
}
