//! Comes in: plain numbers. Goes out: the few functions of probability the law needs. Leaves to others: what they mean for a queue.

/// Standard normal distribution function. Abramowitz and Stegun 7.1.26, absolute error below 2e-7.
pub fn normal_cdf(x: f64) -> f64 {
    let z = x.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let poly = t * (0.254_829_592 + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let erf = 1.0 - poly * (-z * z).exp();
    if x >= 0.0 { 0.5 * (1.0 + erf) } else { 0.5 * (1.0 - erf) }
}

/// Standard normal quantile, by Acklam's rational approximation (relative error below 1.2e-9). `p` is clamped into `[1e-9, 1 - 1e-9]`.
pub fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] =
        [-39.696_830_286_653_76, 220.946_098_424_520_5, -275.928_510_446_968_7, 138.357_751_867_269, -30.664_798_066_147_16, 2.506_628_277_459_239];
    const B: [f64; 5] = [-54.476_098_798_224_06, 161.585_836_858_040_9, -155.698_979_859_886_6, 66.801_311_887_719_72, -13.280_681_552_885_72];
    const C: [f64; 6] = [
        -0.007_784_894_002_430_293,
        -0.322_396_458_041_136_5,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] = [0.007_784_695_709_041_462, 0.322_467_129_070_039_8, 2.445_134_137_142_996, 3.754_408_661_907_416];
    let horner = |c: &[f64], x: f64| c.iter().fold(0.0, |acc, k| acc * x + k);
    let p = if p.is_nan() { 0.5 } else { within(p, 1e-9, 1.0 - 1e-9) };
    let tail = |q: f64| horner(&C, q) / (horner(&D, q) * q + 1.0);
    if p < 0.024_25 {
        tail((-2.0 * p.ln()).sqrt())
    } else if p > 1.0 - 0.024_25 {
        -tail((-2.0 * (1.0 - p).ln()).sqrt())
    } else {
        let q = p - 0.5;
        let r = q * q;
        horner(&A, r) * q / (horner(&B, r) * r + 1.0)
    }
}

/// What is left of a weight after `elapsed` when it halves each `half_life` (same unit). 1 for no time, 0 for a half-life of zero.
pub fn decay(elapsed: f64, half_life: f64) -> f64 {
    if elapsed <= 0.0 {
        1.0
    } else if half_life <= 0.0 {
        0.0
    } else {
        (-std::f64::consts::LN_2 * elapsed / half_life).exp()
    }
}

/// `value` held between `low` and `high`. Unlike `clamp` it cannot panic: bounds that are computed may cross by a rounding error or be no numbers at
/// all. `high` wins where they cross, a bound that is no number does not bind, and a value that is none becomes `low`.
pub fn within(value: f64, low: f64, high: f64) -> f64 {
    value.max(low).min(high)
}

/// A finite, non-negative number, or `default`. Everything that arrives from outside passes through here.
pub fn sane(value: f64, default: f64) -> f64 {
    if value.is_finite() && value >= 0.0 { value } else { default }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantile_inverts_the_distribution() {
        for p in [0.001, 0.01, 0.05, 0.3, 0.5, 0.8, 0.95, 0.999] {
            assert!((normal_cdf(normal_quantile(p)) - p).abs() < 1e-6, "{p}");
        }
        assert!((normal_quantile(0.975) - 1.959_964).abs() < 1e-5);
    }

    #[test]
    fn bounds_that_cross_or_are_no_numbers_are_survived() {
        assert_eq!(within(5.0, 1.0, 3.0), 3.0);
        assert_eq!(within(0.0, 1.0, 3.0), 1.0);
        assert_eq!(within(2.0, 0.001, 0.000_999), 0.000_999);
        assert_eq!(within(2.0, f64::NAN, f64::NAN), 2.0);
        assert_eq!(within(f64::NAN, 1.0, 3.0), 1.0);
    }

    #[test]
    fn decay_halves_once_per_half_life() {
        assert_eq!(decay(0.0, 5.0), 1.0);
        assert!((decay(5.0, 5.0) - 0.5).abs() < 1e-12);
        assert!((decay(15.0, 5.0) - 0.125).abs() < 1e-12);
        assert_eq!(decay(1.0, 0.0), 0.0);
    }

    #[test]
    fn numbers_that_make_no_sense_are_replaced() {
        assert_eq!(sane(f64::NAN, 3.0), 3.0);
        assert_eq!(sane(-1.0, 3.0), 3.0);
        assert_eq!(sane(f64::INFINITY, 3.0), 3.0);
        assert_eq!(sane(0.0, 3.0), 0.0);
    }
}
