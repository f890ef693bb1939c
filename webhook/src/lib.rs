//! The admission webhook: pod in, patch out; workload in, warnings out. It reads, and never writes. In: AdmissionReviews over TLS, and watches of
//! Deployments, QWorkers and namespaces. Out: AdmissionReview answers; a pod is never refused. Left to others: what is
//! injected (`inject`), the certificate (`certs`),
//! pods that came up without us (`controller`).

pub mod admission;
pub mod args;
pub mod bounded;
pub mod control_keys;
pub mod decide;
pub mod dial;
pub mod guests;
pub mod intake;
pub mod memory;
pub mod metrics;
pub mod run;
pub mod server;
pub mod tls;
pub mod variables;
pub mod world;
