//! Comes in: offered load, service time, start latency, what is in the system. Goes out: how many workers the rate asks for.
//! Leaves to others: backlog that is there already.

use super::latency::LatencyEstimate;
use super::numeric::{normal_cdf, normal_quantile};
use super::service::ServiceEstimate;
use super::types::LawParams;

/// Above this load the square-root rule of Halfin and Whitt replaces the exact recursion (error below one worker, and constant cost).
const EXACT_LOAD_MAX: f64 = 400.0;
/// cv² is capped here in the decay of waits: the heavy-traffic formula overrates rare enormous tasks.
const WAIT_CV2_MAX: f64 = 4.0;

/// Probability that an arrival must wait with `c` workers and offered load `a` (Erlang C, by the stable recursion of Erlang B).
pub fn erlang_c(c: u32, a: f64) -> f64 {
    if a <= 0.0 {
        return 0.0;
    }
    if f64::from(c) <= a {
        return 1.0;
    }
    let blocked = (1..=c).fold(1.0, |b, k| a * b / (f64::from(k) + a * b));
    from_erlang_b(blocked, f64::from(c), a)
}

fn from_erlang_b(b: f64, c: f64, a: f64) -> f64 {
    b / (1.0 - a / c * (1.0 - b))
}

/// Least number of workers for which the share of messages that wait longer than `wait_s` stays within `share`:
/// `ErlangC(c, a) exp(-2 (c - a) wait / (s (1 + cv²))) <= share` (Erlang; Allen and Cunneen for general service times). At most `limit`.
pub fn workers_for_wait(a: f64, service: &ServiceEstimate, wait_s: f64, share: f64, limit: u32) -> u32 {
    if a <= 0.0 {
        return 0;
    }
    let slope = 2.0 * wait_s.max(0.0) / (service.mean_s * (1.0 + service.cv2.min(WAIT_CV2_MAX)));
    if a > EXACT_LOAD_MAX {
        return large_fleet(a, slope, share, limit);
    }
    let mut blocked = 1.0;
    for c in 1..=limit {
        blocked = a * blocked / (f64::from(c) + a * blocked);
        let spare = f64::from(c) - a;
        if spare > 0.0 && from_erlang_b(blocked, f64::from(c), a) * (-spare * slope).exp() <= share {
            return c;
        }
    }
    limit
}

/// Share of messages that wait longer than `wait_s` where one worker serves a load of `a`: see [`workers_for_wait`].
pub fn late_with_one(a: f64, service: &ServiceEstimate, wait_s: f64) -> f64 {
    let slope = 2.0 * wait_s.max(0.0) / (service.mean_s * (1.0 + service.cv2.min(WAIT_CV2_MAX)));
    if a >= 1.0 { 1.0 } else { a.max(0.0) * (-(1.0 - a) * slope).exp() }
}

/// The same by `c = a + b sqrt(a)` and `P(wait) = 1 / (1 + b Φ(b) / φ(b))` (Halfin and Whitt), bisected on `b`.
fn large_fleet(a: f64, slope: f64, share: f64, limit: u32) -> u32 {
    let late = |b: f64| {
        let density = (-0.5 * b * b).exp() / (2.0 * std::f64::consts::PI).sqrt();
        (-b * a.sqrt() * slope).exp() / (1.0 + b * normal_cdf(b) / density)
    };
    let (mut low, mut high) = (0.0, 8.0);
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if late(middle) <= share { high = middle } else { low = middle }
    }
    ((a + high * a.sqrt()).ceil() as u32).max(1).min(limit)
}

/// What there is to do, and who does it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Arrivals per second times service time.
    pub offered: f64,
    /// Messages waiting and tasks running.
    pub in_system: f64,
    /// Ready workers, or the offered load where that is more.
    pub workers: f64,
    /// Most workers there may be.
    pub limit: u32,
}

/// What the rate asks for, in workers, not rounded.
///
/// Short tasks are staffed by Erlang for the aimed-at wait. Long ones by a forecast over `τ = L + tick`: of the `n` tasks now in the system the
/// share `1 - w`, `w = 1 - exp(-τ / s)`, still runs then, and `a w` have come: mean `m = N (1 - w) + a w`, variance `v = a w + N w (1 - w)`.
/// `z` weighs an idle worker against a late message: `Φ⁻¹(exp(-L / (L + V)))` with the value `V` of having one more in time.
pub fn by_rate(law: &LawParams, load: &Load, service: &ServiceEstimate, latency: &LatencyEstimate, max_wait_s: f64) -> f64 {
    let Load { offered: a, in_system, workers, limit } = *load;
    let wait = law.wait_share * max_wait_s;
    let erlang = f64::from(workers_for_wait(a, service, wait, law.miss_probability, limit));
    let horizon = latency.mean_s + law.tick_s;
    let turned_over = turnover(horizon, service.mean_s);
    let mean = in_system * (1.0 - turned_over) + a * turned_over;
    let variance = a * turned_over + in_system * turned_over * (1.0 - turned_over);
    let value =
        law.miss_weight * (service.mean_s + latency.mean_s) * latency.exceeds(max_wait_s - law.tick_s) * (-workers * wait / service.mean_s).exp();
    let z = normal_quantile((-latency.mean_s / (latency.mean_s + value)).exp());
    let forecast = (mean + z * variance.sqrt()).max(0.0);
    turned_over * erlang + (1.0 - turned_over) * erlang.min(forecast)
}

/// Share of running tasks that end within `horizon_s`.
pub fn turnover(horizon_s: f64, service_s: f64) -> f64 {
    1.0 - (-horizon_s / service_s).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(mean_s: f64, cv2: f64) -> ServiceEstimate {
        ServiceEstimate { mean_s, cv2, sd_s: mean_s * cv2.sqrt(), hazard_per_s: 1.0 / mean_s }
    }

    #[test]
    fn erlang_c_matches_the_tables() {
        for (c, a, expected) in [(1, 0.5, 0.5), (2, 1.0, 1.0 / 3.0), (10, 8.0, 0.409_2), (3, 2.0, 0.444_4)] {
            assert!((erlang_c(c, a) - expected).abs() < 1e-3, "{c} {a} {}", erlang_c(c, a));
        }
        assert_eq!(erlang_c(3, 3.0), 1.0);
        assert_eq!(erlang_c(3, 0.0), 0.0);
    }

    #[test]
    fn the_square_root_rule_joins_the_exact_one() {
        for share in [0.02, 0.05, 0.2] {
            let exact = workers_for_wait(400.0, &service(1.0, 1.0), 0.0, share, 10_000);
            let large = large_fleet(400.0, 0.0, share, 10_000);
            assert!(exact.abs_diff(large) <= 1, "{share}: {exact} {large}");
        }
    }

    #[test]
    fn longer_allowed_waits_need_fewer_workers() {
        let tight = workers_for_wait(20.0, &service(2.0, 1.0), 0.1, 0.05, 1000);
        let loose = workers_for_wait(20.0, &service(2.0, 1.0), 15.0, 0.05, 1000);
        assert!(loose == 21 && tight > 24, "{loose} {tight}");
    }

    #[test]
    fn no_load_needs_nobody_and_the_limit_holds() {
        assert_eq!(workers_for_wait(0.0, &service(2.0, 1.0), 1.0, 0.05, 10), 0);
        assert_eq!(workers_for_wait(50.0, &service(2.0, 1.0), 1.0, 0.05, 10), 10);
        assert_eq!(workers_for_wait(5000.0, &service(2.0, 1.0), 1.0, 0.05, 10), 10);
    }

    #[test]
    fn long_tasks_are_staffed_by_what_runs_now() {
        let latency = LatencyEstimate { mean_s: 5.0, sd_s: 1.0 };
        let wish =
            by_rate(&LawParams::default(), &Load { offered: 13.0, in_system: 8.0, workers: 8.0, limit: 100 }, &service(1200.0, 1.0), &latency, 60.0);
        assert!((7.5..8.5).contains(&wish), "{wish}");
    }
}
