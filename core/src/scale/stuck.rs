//! Comes in: ages of running tasks. Goes out: how many of them will not end in any time that matters. Leaves to others: what to do with such a pod.

use super::service::ServiceEstimate;

/// A task is stuck beyond this many mean service times,
const SERVICES: f64 = 20.0;
/// this many seconds,
const LEAST_S: f64 = 600.0;
/// and this many standard deviations.
const DEVIATIONS: f64 = 6.0;

/// Running tasks older than `max(20 s, 10 min, 6 sd)`. They count neither as load nor as capacity: their worker is lost to the queue, and
/// their age says nothing of what the next message needs.
pub fn stuck(ages_s: &[f64], service: &ServiceEstimate) -> u32 {
    let limit = (SERVICES * service.mean_s).max(LEAST_S).max(DEVIATIONS * service.sd_s);
    ages_s.iter().filter(|age| **age > limit).count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_far_beyond_the_rest_is_stuck() {
        let short = ServiceEstimate { mean_s: 2.0, cv2: 1.0, sd_s: 2.0, hazard_per_s: 0.5 };
        assert_eq!(stuck(&[1.0, 100.0, 599.0, 601.0], &short), 1);
        let long = ServiceEstimate { mean_s: 1200.0, cv2: 1.0, sd_s: 1200.0, hazard_per_s: 1.0 / 1200.0 };
        assert_eq!(stuck(&[10_000.0, 23_000.0, 25_000.0], &long), 1);
    }
}
