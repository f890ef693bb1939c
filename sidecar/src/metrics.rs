//! The sidecar's own figures. In: counts from the driver and its neighbours. Out: Prometheus text. Left to others: everything that the
//! controller shows of a workload; no pod names here.

use qscaler_runtime::metrics::{Counter, Gauge, Registry};

/// Every figure.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
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
        let registry = Registry::default();
        let gauge = |name: &str, help: &str| registry.gauge(&format!("qscaler_sidecar_{name}"), help, &[]);
        let counter = |name: &str, help: &str| registry.counter(&format!("qscaler_sidecar_{name}_total"), help, &[]);
        Self {
            ready: gauge("ready", "1 while the readiness probe is answered with yes."),
            busy: gauge("busy", "1 while the worker has a task, 0 while it has none or nothing tells."),
            broker_up: gauge("broker_up", "1 while the connection for control messages stands."),
            hold_calls: counter("hold_calls", "Hold calls with the right token."),
            refused_calls: counter("refused_calls", "Hook calls with a wrong token."),
            signals: counter("signals", "Signals sent to the worker."),
            signal_failures: counter("signal_failures", "Signals that could not be sent."),
            control_messages: counter("control_messages", "Control messages taken."),
            given_back: counter("given_back", "Control tokens given back for another pod."),
            reports: counter("reports", "Reports published."),
            broker_errors: counter("broker_errors", "Failures of the connection for control messages."),
            cuts: counter("cut_tasks", "Tasks cut while held."),
            registry,
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
    fn the_names_that_dashboards_know_stay() {
        let metrics = Metrics::default();
        metrics.signals.add(3);
        let text = metrics.render();
        let names: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(' ').next()).collect();
        let expected = [
            "broker_errors_total",
            "broker_up",
            "busy",
            "control_messages_total",
            "cut_tasks_total",
            "given_back_total",
            "hold_calls_total",
            "ready",
            "refused_calls_total",
            "reports_total",
            "signal_failures_total",
            "signals_total",
        ];
        assert_eq!(names, expected.map(|name| format!("qscaler_sidecar_{name}")));
        assert!(text.contains("qscaler_sidecar_signals_total 3"));
    }
}
