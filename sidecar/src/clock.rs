//! The wall clock, which is for what crosses machines alone: times in messages. In: the system's clock. Out: milliseconds since the Unix epoch. Left to
//! others: every duration, which is measured by the monotonic clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch that never step back.
#[derive(Debug, Default)]
pub struct WallClock {
    last_ms: u64,
}

impl WallClock {
    /// Now.
    pub fn now_ms(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        self.last_ms = self.last_ms.max(now);
        self.last_ms
    }
}

/// Now, seconds, as records of use have it.
#[must_use]
pub fn wall_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// Now, as messages count time.
#[must_use]
pub fn wall_ms() -> u64 {
    WallClock::default().now_ms()
}
