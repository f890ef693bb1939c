//! What every QScaler process needs around its work: logs, a shutdown that drains first, readiness, admin endpoints, backoff, metrics.
//! In: listeners, closures and signals of the process. Out: tokens, text and HTTP answers. Left to others: every decision, Kubernetes and
//! the brokers; small on purpose, since the sidecar carries it into every worker pod.

pub mod admin;
pub mod backoff;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod ready;
pub mod serve;
pub mod shutdown;

pub use tokio_util::sync::CancellationToken;
