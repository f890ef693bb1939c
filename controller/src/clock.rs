//! The clocks. In: the system's wall clock and its monotonic one. Out: the time that the loop decides by; now, as objects of Kubernetes have it. Left to
//! others: what follows where the wall clock was set (`lead::run`). The wall clock is for what crosses machines: times of objects, messages and Events.

use k8s_openapi::jiff::Timestamp;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The two clocks may differ by this much before the wall clock counts as set, milliseconds: more than reading both of them ever takes, and short beside
/// everything that is decided by them.
const SET_MS: u64 = 1_000;

/// The time that the loop decides by: milliseconds since the Unix epoch as the wall clock had it at first, and from then on the monotonic clock's, so that
/// nothing is due an hour late because somebody has set the clock back by an hour.
#[derive(Clone, Copy, Debug)]
pub struct LoopClock {
    from_ms: u64,
    since: Instant,
}

/// One reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// By how much the wall clock was set since the reading before, milliseconds; 0: not at all. From then on time goes on from what it shows now.
    pub set_by_ms: i64,
}

impl Default for LoopClock {
    fn default() -> Self {
        Self { from_ms: now_ms(), since: Instant::now() }
    }
}

impl LoopClock {
    /// Now.
    pub fn read(&mut self) -> Reading {
        let before = Instant::now();
        let wall_ms = now_ms();
        self.follow(before, wall_ms, Instant::now())
    }

    /// The wall clock was read between two instants; a process may stand still between any two of the three.
    fn follow(&mut self, before: Instant, wall_ms: u64, after: Instant) -> Reading {
        let at = |instant: Instant| self.from_ms.saturating_add(u64::try_from((instant - self.since).as_millis()).unwrap_or(u64::MAX));
        let (earliest, latest) = (at(before), at(after));
        if wall_ms.saturating_add(SET_MS) >= earliest && wall_ms <= latest.saturating_add(SET_MS) {
            return Reading { now_ms: latest, set_by_ms: 0 };
        }
        (self.from_ms, self.since) = (wall_ms, after);
        Reading { now_ms: wall_ms, set_by_ms: i64::try_from(i128::from(wall_ms) - i128::from(latest)).unwrap_or(i64::MAX) }
    }
}

/// The wall clock, milliseconds since the Unix epoch.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Now, as objects of Kubernetes have it.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn time_runs_by_the_monotonic_clock_until_the_wall_clock_is_set() {
        let since = Instant::now();
        let mut clock = LoopClock { from_ms: 10_000_000, since };
        let mut at = |before_ms: u64, wall_ms, after_ms: u64| {
            let reading = clock.follow(since + Duration::from_millis(before_ms), wall_ms, since + Duration::from_millis(after_ms));
            (reading.now_ms, reading.set_by_ms)
        };
        assert_eq!(at(500, 10_000_510, 501), (10_000_501, 0), "a little off: nobody has set it");
        assert_eq!(at(1_000, 10_000_000, 1_000), (10_001_000, 0));
        assert_eq!(at(1_000, 10_007_000, 9_000), (10_009_000, 0), "the process stood still between the readings");
        assert_eq!(at(10_000, 6_400_000, 10_000), (6_400_000, -3_610_000), "set back by an hour");
        assert_eq!(at(12_000, 6_402_000, 12_000), (6_402_000, 0), "and it goes on from there");
        assert_eq!(at(13_000, 20_000_000, 13_000), (20_000_000, 13_597_000), "set ahead");
    }
}
