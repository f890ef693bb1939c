//! The wall clock, which is for what crosses machines alone. In: the system's clock. Out: now, as messages and frameworks' books count it. Left to others:
//! every bound on a wait, which is measured by the monotonic clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Since the Unix epoch.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Milliseconds since the Unix epoch: messages carry the hour at which they die.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}
