//! The user's configuration -> the law's. In: a checked configuration. Out: settings. Left to others: using them.

use qscaler_core::config::WorkerConfig;
use qscaler_core::scale::{LawParams, ScaleConfig};

/// The law is asked at least this often while there are no figures, milliseconds.
pub(crate) const LAW_PERIOD_MS: u64 = 1_000;

/// The law's configuration.
#[must_use]
pub fn scale_config(config: &WorkerConfig) -> ScaleConfig {
    ScaleConfig {
        messages_per_worker: config.messages_per_worker,
        concurrency: config.concurrency,
        acknowledges_early: config.framework().acknowledges_early,
        law: LawParams::optimized_for(config.optimize_for),
        ..ScaleConfig::new(config.min_replicas, config.max_replicas, config.max_wait_ms as f64 / 1000.0)
    }
}
