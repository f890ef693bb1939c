//! The webhook's metrics. In: decisions and durations. Out: one registry. Left to others: serving it.

use prometheus_client::encoding::EncodeLabelSet;
use qscaler_runtime::metrics::{Counter, Family, Gauge, Histogram, Registry};
use std::sync::Arc;
use std::time::Duration;

/// From a quarter of a millisecond, where most calls end, to the API server's patience.
const SECONDS: [f64; 12] = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.3, 1.0, 3.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// All metrics of the process.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    pods: Family<Outcome, Counter>,
    workloads: Family<Outcome, Counter>,
    pod_seconds: Histogram,
    workload_seconds: Histogram,
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
    pub fn new(mut registry: Registry) -> Self {
        let r = &mut registry;
        let seconds: Family<Kind, Histogram, fn() -> Histogram> = r.add(
            "qscaler_webhook_seconds",
            "Time from a request to its answer, by what was asked about (pods, workloads)",
            Family::new_with_constructor(|| Histogram::new(SECONDS)),
        );
        Self {
            pod_seconds: seconds.get_or_create_owned(&Kind { kind: "pods" }),
            workload_seconds: seconds.get_or_create_owned(&Kind { kind: "workloads" }),
            pods: r.add("qscaler_webhook_pods", "Pods decided about, by outcome: injected, or why not", Family::default()),
            workloads: r.add("qscaler_webhook_workloads", "Workloads looked at, by outcome (warned, silent)", Family::default()),
            bad_requests: r.add("qscaler_webhook_bad_requests", "Requests that were no AdmissionReview", Counter::default()),
            connections: r.add("qscaler_webhook_connections", "Open TLS connections", Gauge::default()),
            handshake_failures: r.add("qscaler_webhook_handshake_failures", "TLS handshakes that failed or took too long", Counter::default()),
            certificates_loaded: r.add("qscaler_webhook_certificates_loaded", "Certificates taken into use", Counter::default()),
            certificates_refused: r.add("qscaler_webhook_certificates_refused", "Certificates that could not be used", Counter::default()),
            certificate_expiry: r.add(
                "qscaler_webhook_certificate_expiry_timestamp_seconds",
                "When the served certificate expires, in seconds since the Unix epoch; 0: none is served",
                Gauge::default(),
            ),
            trusted: r.add("qscaler_webhook_trusted", "1: the published caBundle trusts the served certificate", Gauge::default()),
            registry: Arc::new(registry),
        }
    }

    /// One pod was decided about.
    pub fn pod(&self, outcome: &str, took: Duration) {
        self.pods.get_or_create(&Outcome { outcome: outcome.to_owned() }).inc();
        self.pod_seconds.observe(took.as_secs_f64());
    }

    /// One workload was looked at.
    pub fn workload(&self, warned: bool, took: Duration) {
        let outcome = if warned { "warned" } else { "silent" };
        self.workloads.get_or_create(&Outcome { outcome: outcome.to_owned() }).inc();
        self.workload_seconds.observe(took.as_secs_f64());
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
    use std::path::Path;

    #[test]
    fn the_reference_page_has_these_metrics() {
        let metrics = Metrics::new(Registry::default());
        metrics.pod("injected", Duration::from_millis(1));
        metrics.workload(true, Duration::from_millis(1));
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/metrics-webhook.md");
        metrics.registry.check_reference("# Metrics of the webhook\n\nPort `admin`, path `/metrics`.", &page).unwrap_or_else(|e| panic!("{e}"));
    }
}
