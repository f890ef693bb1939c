//! Comes in: rate forecasts and what became of them. Goes out: the wait that may stand by intent. Leaves to others: who leaves because of it.

use serde::{Deserialize, Serialize};

use super::latency::LatencyEstimate;
use super::numeric::{decay, within};
use super::service::ServiceEstimate;
use super::staffing::turnover;
use super::types::LawParams;

/// Half-life of the forecast error, seconds.
const ERROR_HALF_LIFE_S: f64 = 1200.0;
/// The standing wait leaves time for a pod start of this many mean latencies.
const START_MARGIN: f64 = 1.3;
/// and uses at most this share of what then remains.
const START_SHARE: f64 = 0.8;
/// Bound by forecast error: this share of the promise,
const ERROR_SHARE: f64 = 0.9;
/// less this many standard deviations of the error.
const ERROR_SIGMAS: f64 = 3.0;
/// A standing wait shorter than this many service times saves nothing.
const WORTH_SERVICES: f64 = 0.4;
/// A load below this keeps no queue: the last worker is a matter of the hold.
pub const LOAD_MIN: f64 = 0.7;
/// The least staffing relative to the load that turns over.
const LOAD_SHARE: f64 = 0.9;

/// Standard deviation of arrivals against the forecast over one start latency, in messages.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ForecastError {
    weight: f64,
    squares: f64,
    #[serde(skip)]
    open: Option<OpenForecast>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct OpenForecast {
    due_s: f64,
    expected: f64,
    arrived: f64,
}

impl ForecastError {
    /// Adds one tick's arrivals; closes the open forecast when due and opens the next.
    pub fn observe(&mut self, now_s: f64, arrived: f64, rate_per_s: f64, horizon_s: f64) {
        if let Some(open) = &mut self.open {
            open.arrived += arrived;
        }
        if let Some(open) = self.open.filter(|open| now_s >= open.due_s) {
            let keep = decay(horizon_s, ERROR_HALF_LIFE_S);
            self.weight = self.weight * keep + 1.0;
            self.squares = self.squares * keep + (open.arrived - open.expected).powi(2);
            self.open = None;
        }
        if self.open.is_none() {
            self.open = Some(OpenForecast { due_s: now_s + horizon_s, expected: rate_per_s * horizon_s, arrived: 0.0 });
        }
    }

    /// Drops the open forecast, after a gap in the figures.
    pub fn forget_open(&mut self) {
        self.open = None;
    }

    /// The deviation; that of a Poisson process until forecasts have been seen to fail.
    pub fn sigma(&self, rate_per_s: f64, horizon_s: f64) -> f64 {
        let poisson = rate_per_s * horizon_s;
        ((self.squares + poisson) / (self.weight + 1.0)).sqrt()
    }
}

/// The wait `w*` in seconds that is let stand, 0 for none:
/// `min(θ W, max(0.8 (W - 1.3 L - 2 tick), 0.9 W - 3 σ s / n))`, where it is above 0.4 s and the load is at least 0.7.
/// While messages wait a little, no worker is ever idle: the same work is done by fewer pods.
pub fn standing_wait(
    law: &LawParams,
    a: f64,
    sigma: f64,
    workers: f64,
    service: &ServiceEstimate,
    latency: &LatencyEstimate,
    max_wait_s: f64,
) -> f64 {
    let by_start = START_SHARE * (max_wait_s - START_MARGIN * latency.mean_s - 2.0 * law.tick_s);
    let by_error = ERROR_SHARE * max_wait_s - ERROR_SIGMAS * sigma * service.mean_s / workers.max(1.0);
    let wait = (law.wait_share * max_wait_s).min(by_start.max(by_error));
    if a >= LOAD_MIN && wait > WORTH_SERVICES * service.mean_s { wait } else { 0.0 }
}

/// Workers that keep the standing wait: `N / (1 + w* / s)`, at least 0.9 of the load that turns over within `τ`, at most what the rate asks.
pub fn staffed(law: &LawParams, by_rate: f64, in_system: f64, a: f64, wait_s: f64, service: &ServiceEstimate, latency: &LatencyEstimate) -> f64 {
    let keeps_wait = in_system / (1.0 + wait_s / service.mean_s);
    let floor = (LOAD_SHARE * a * turnover(latency.mean_s + law.tick_s, service.mean_s)).min(by_rate);
    within(keeps_wait, floor, by_rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: ServiceEstimate = ServiceEstimate { mean_s: 2.0, cv2: 1.0, sd_s: 2.0, hazard_per_s: 0.5 };
    const LATENCY: LatencyEstimate = LatencyEstimate { mean_s: 5.0, sd_s: 1.0 };

    #[test]
    fn a_wait_stands_only_where_the_promise_leaves_room() {
        let law = LawParams::default();
        assert!(standing_wait(&law, 20.0, 5.0, 20.0, &SERVICE, &LATENCY, 30.0) > 10.0);
        assert_eq!(standing_wait(&law, 20.0, 500.0, 20.0, &SERVICE, &LATENCY, 6.0), 0.0);
        assert_eq!(standing_wait(&law, 0.5, 0.0, 1.0, &SERVICE, &LATENCY, 30.0), 0.0);
        let long = ServiceEstimate { mean_s: 1200.0, cv2: 1.0, sd_s: 1200.0, hazard_per_s: 1.0 / 1200.0 };
        assert_eq!(standing_wait(&law, 20.0, 5.0, 20.0, &long, &LATENCY, 60.0), 0.0);
    }

    #[test]
    fn staffing_stays_between_the_floor_and_the_rate() {
        let law = LawParams::default();
        assert!((staffed(&law, 25.0, 0.0, 20.0, 10.0, &SERVICE, &LATENCY) - 17.1).abs() < 0.3);
        assert_eq!(staffed(&law, 25.0, 10_000.0, 20.0, 10.0, &SERVICE, &LATENCY), 25.0);
    }

    #[test]
    fn forecasts_that_fail_widen_the_error() {
        let mut error = ForecastError::default();
        let calm = error.sigma(10.0, 6.0);
        (0..600).for_each(|tick| error.observe(f64::from(tick), if tick % 60 < 30 { 20.0 } else { 0.0 }, 10.0, 6.0));
        assert!(error.sigma(10.0, 6.0) > 5.0 * calm);
    }
}
