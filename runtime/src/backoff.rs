//! Exponential backoff with jitter. In: bounds and a factor, then one call per failure. Out: how long to wait, always within the bounds. Left
//! to others: what is tried again, and when it has worked ([`Backoff::reset`]).

use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Longest `max` that may be asked for: who waits longer than a day wants a timer.
pub const MAX: Duration = Duration::from_secs(24 * 3600);
/// First wait of [`Backoff::reconnect`]: a broker that only restarts its connection is back by then.
const RECONNECT_MIN: Duration = Duration::from_millis(200);
/// Longest wait of [`Backoff::reconnect`]: an outage is noticed to be over within half a minute.
const RECONNECT_MAX: Duration = Duration::from_secs(30);
/// Growth of [`Backoff::reconnect`].
const RECONNECT_FACTOR: f64 = 2.0;

/// A sequence of waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    factor: f64,
    ceiling: Duration,
}

/// Why bounds were refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("backoff from {min:?} to {max:?} by {factor} is impossible; valid: 0 < min <= max <= 24 h and a finite factor of at least 1")]
pub struct InvalidBackoff {
    /// As given.
    pub min: Duration,
    /// As given.
    pub max: Duration,
    /// As given.
    pub factor: f64,
}

impl Backoff {
    /// Waits between `min` and `max` that grow by `factor`.
    ///
    /// # Errors
    /// When `min` is zero or above `max`, `max` is above a day, or `factor` is below 1 or not finite.
    pub fn new(min: Duration, max: Duration, factor: f64) -> Result<Self, InvalidBackoff> {
        if min.is_zero() || min > max || max > MAX || !factor.is_finite() || factor < 1.0 {
            return Err(InvalidBackoff { min, max, factor });
        }
        Ok(Self { min, max, factor, ceiling: min })
    }

    /// What this project uses towards brokers and the API server: 0.2 s to 30 s, doubling.
    #[must_use]
    pub fn reconnect() -> Self {
        Self { min: RECONNECT_MIN, max: RECONNECT_MAX, factor: RECONNECT_FACTOR, ceiling: RECONNECT_MIN }
    }

    /// The next wait, with the thread's random numbers.
    pub fn next_delay(&mut self) -> Duration {
        self.next_with(fastrand::f64())
    }

    /// The next wait, `unit` in 0..1 being the jitter: uniform between half the ceiling (at least `min`) and the ceiling. The ceiling starts
    /// at `min * factor`, so that even the first waits of many clients differ, and grows by `factor` up to `max`.
    pub fn next_with(&mut self, unit: f64) -> Duration {
        debug_assert!((0.0..=1.0).contains(&unit), "jitter {unit} is outside 0..1");
        self.ceiling = grow(self.ceiling, self.factor, self.max);
        let low = self.min.max(self.ceiling / 2);
        (low + (self.ceiling - low).mul_f64(unit.clamp(0.0, 1.0))).max(self.min).min(self.max)
    }

    /// It worked: the next failure starts from the beginning.
    pub fn reset(&mut self) {
        self.ceiling = self.min;
    }

    /// Waits once. False when the process shuts down, before or during the wait.
    pub async fn wait(&mut self, shutdown: &CancellationToken) -> bool {
        let delay = self.next_delay();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => false,
            () = tokio::time::sleep(delay) => true,
        }
    }
}

/// `ceiling * factor`, at most `max`, without ever leaving what a Duration can hold.
fn grow(ceiling: Duration, factor: f64, max: Duration) -> Duration {
    let seconds = ceiling.as_secs_f64() * factor;
    if seconds >= max.as_secs_f64() { max } else { Duration::from_secs_f64(seconds).max(ceiling).min(max) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum_and_a_reset_starts_over() {
        let mut backoff = Backoff::new(millis(100), millis(1000), 2.0).unwrap();
        let waits: Vec<_> = (0..5).map(|_| backoff.next_with(1.0)).collect();
        assert_eq!(waits, [millis(200), millis(400), millis(800), millis(1000), millis(1000)]);
        backoff.reset();
        assert_eq!(backoff.next_with(1.0), millis(200));
    }

    #[test]
    fn impossible_bounds_are_refused() {
        for (min, max, factor) in [(0, 10, 2.0), (11, 10, 2.0), (1, 10, 0.9), (1, 10, f64::NAN), (1, 10, f64::INFINITY), (1, 90_000_000, 2.0)] {
            assert!(Backoff::new(millis(min), millis(max), factor).is_err(), "{min} {max} {factor}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_ends_the_wait() {
        let token = CancellationToken::new();
        let mut backoff = Backoff::reconnect();
        assert!(backoff.wait(&token).await);
        token.cancel();
        assert!(!backoff.wait(&token).await);
    }

    proptest! {
        #[test]
        fn every_wait_is_within_the_bounds(min in 1_u64..10_000, extra in 0_u64..10_000_000, factor in 1.0_f64..1e9, units in prop::collection::vec(0.0_f64..1.0, 1..80)) {
            let (min, max) = (millis(min), millis(min + extra));
            let mut backoff = Backoff::new(min, max, factor).unwrap();
            for unit in units {
                let wait = backoff.next_with(unit);
                prop_assert!(min <= wait && wait <= max, "{wait:?}");
            }
        }

        #[test]
        fn equal_jitter_never_waits_less_than_the_time_before(factor in 1.0_f64..4.0, unit in 0.0_f64..1.0) {
            let mut backoff = Backoff::new(millis(50), millis(60_000), factor).unwrap();
            let waits: Vec<_> = (0..40).map(|_| backoff.next_with(unit)).collect();
            prop_assert!(waits.windows(2).all(|w| w[0] <= w[1] + Duration::from_nanos(2)), "{waits:?}");
        }
    }
}
