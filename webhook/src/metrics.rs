//! The webhook's metrics. In: decisions and durations. Out: one registry. Left to others: serving it.

use qscaler_runtime::metrics::{Counter, Gauge, Histogram, Registry};
use std::time::Duration;

/// From a quarter of a millisecond, where most calls end, to the API server's patience.
const SECONDS: &[f64] = &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.3, 1.0, 3.0];

/// All metrics of the process.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Seconds from a request's head to its answer, of pods.
    pods: Histogram,
    /// The same, of workloads.
    workloads: Histogram,
    /// Requests that were none.
    pub bad_requests: Counter,
    /// Open TLS connections.
    pub connections: Gauge,
    /// Failed or late handshakes.
    pub handshake_failures: Counter,
    /// Certificates loaded since the start.
    pub certificates_loaded: Counter,
    /// Certificates that could not be used.
    pub certificates_refused: Counter,
    /// When the served leaf expires, seconds since the Unix epoch; 0 before there is one.
    pub certificate_expiry: Gauge,
    /// 1: a call as the API server makes it is trusted, by the last look; 0: not.
    pub trusted: Gauge,
}

impl Metrics {
    /// Registers them all.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        let seconds = |kind| registry.histogram("qscaler_webhook_seconds", "Time from a request to its answer.", &[("kind", kind)], SECONDS);
        Self {
            pods: seconds("pods"),
            workloads: seconds("workloads"),
            bad_requests: registry.counter("qscaler_webhook_bad_requests_total", "Requests that were no AdmissionReview.", &[]),
            connections: registry.gauge("qscaler_webhook_connections", "Open TLS connections.", &[]),
            handshake_failures: registry.counter("qscaler_webhook_handshake_failures_total", "TLS handshakes that failed or took too long.", &[]),
            certificates_loaded: registry.counter("qscaler_webhook_certificates_loaded_total", "Certificates taken into use.", &[]),
            certificates_refused: registry.counter("qscaler_webhook_certificates_refused_total", "Certificates that could not be used.", &[]),
            certificate_expiry: registry.gauge("qscaler_webhook_certificate_expiry_timestamp_seconds", "When the served certificate expires.", &[]),
            trusted: registry.gauge("qscaler_webhook_trusted", "1: the published caBundle trusts the served certificate.", &[]),
            registry,
        }
    }

    /// One pod was decided about.
    pub fn pod(&self, outcome: &str, took: Duration) {
        self.registry.counter("qscaler_webhook_pods_total", "Pods decided about, by outcome.", &[("outcome", outcome)]).inc();
        self.pods.observe(took.as_secs_f64());
    }

    /// One workload was looked at.
    pub fn workload(&self, warned: bool, took: Duration) {
        let outcome = if warned { "warned" } else { "silent" };
        self.registry.counter("qscaler_webhook_workloads_total", "Workloads looked at, by outcome.", &[("outcome", outcome)]).inc();
        self.workloads.observe(took.as_secs_f64());
    }

    /// The Prometheus text.
    #[must_use]
    pub fn text(&self) -> String {
        self.registry.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn these_are_the_metrics() {
        let metrics = Metrics::new(Registry::default());
        metrics.pod("injected", Duration::from_millis(1));
        metrics.workload(true, Duration::from_millis(1));
        let text = metrics.text();
        let names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert_eq!(
            names,
            [
                "qscaler_webhook_bad_requests_total counter",
                "qscaler_webhook_certificate_expiry_timestamp_seconds gauge",
                "qscaler_webhook_certificates_loaded_total counter",
                "qscaler_webhook_certificates_refused_total counter",
                "qscaler_webhook_connections gauge",
                "qscaler_webhook_handshake_failures_total counter",
                "qscaler_webhook_pods_total counter",
                "qscaler_webhook_seconds histogram",
                "qscaler_webhook_trusted gauge",
                "qscaler_webhook_workloads_total counter",
            ]
        );
    }
}
