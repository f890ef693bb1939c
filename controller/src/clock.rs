//! The wall clock, which is for what crosses machines: times of objects, messages and Events. In: the system's clock. Out: now. Left to others: the loop
//! reads it once for each decision and gives it to all that decide; every bound on a wait is measured by the monotonic clock.

use k8s_openapi::jiff::Timestamp;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Now, as objects of Kubernetes have it.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::now()
}
