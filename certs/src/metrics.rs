//! The certificate keeper's metrics. In: when what expires, steps and failures. Out: one registry. Left to others: serving it.

use prometheus_client::encoding::EncodeLabelSet;
use qscaler_runtime::metrics::{Counter, Family, Gauge, Registry};
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Certificate {
    certificate: &'static str,
}

/// Gauges and counters of this process.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// When the webhook's certificate expires, seconds since the Unix epoch; 0: there is none.
    pub leaf: Gauge,
    /// The same of the authority that signs it.
    pub authority: Gauge,
    /// Certificates and bundles written.
    pub steps: Counter,
    /// Passes that failed.
    pub errors: Counter,
}

impl Metrics {
    /// Registers them all.
    #[must_use]
    pub fn new(mut registry: Registry) -> Self {
        let r = &mut registry;
        let expiry: Family<Certificate, Gauge> = r.add(
            "qscaler_certs_expiry_timestamp_seconds",
            "When the certificate (leaf, authority) expires, in seconds since the Unix epoch; 0: there is none",
            Family::default(),
        );
        Self {
            leaf: expiry.get_or_create_owned(&Certificate { certificate: "leaf" }),
            authority: expiry.get_or_create_owned(&Certificate { certificate: "authority" }),
            steps: r.add("qscaler_certs_steps", "Certificates and bundles written", Counter::default()),
            errors: r.add("qscaler_certs_errors", "Passes that failed", Counter::default()),
            registry: Arc::new(registry),
        }
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
    fn the_reference_page_has_these_metrics() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/metrics-certs.md");
        let about = "# Metrics of certs\n\nPort `admin`, path `/metrics`.";
        Metrics::new(Registry::default()).registry.check_reference(about, &page).unwrap_or_else(|e| panic!("{e}"));
    }
}
