//! The wall clock, which is for what crosses machines: expiry of certificates and renewal of the Lease. In: the system's clock. Out: now. Left to others: what
//! is too old.

use k8s_openapi::jiff::Timestamp;

/// Seconds since the Unix epoch.
pub(crate) fn now_s() -> i64 {
    Timestamp::now().as_second()
}
