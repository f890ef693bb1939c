//! Comes in: how long the figures have been unknown, who works. Goes out: a target that never lowers. Leaves to others: saying so to the user.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::rise::Rises;
use super::types::LawParams;
use super::wish::count;

/// Seconds of one count of arrivals.
const BLOCK_S: f64 = 60.0;
/// Counts a trend is taken from.
const BLOCKS: usize = 10;
/// Counts below which there is no trend.
const BLOCKS_MIN: usize = 3;
/// A load is met with a reserve of this many standard deviations of the number of tasks at once (for Poisson arrivals the root of the load): one
/// moment in 700 has more. Seen figures are met with less, since what is wrong then is seen and mended in a second.
const RESERVE_DEVIATIONS: f64 = 3.0;
/// The trend is carried on compounding, since a morning starts slowly, and to at most this many times the fleet that was there: a trend is not the future.
const GROWTH_MAX: f64 = 4.0;
/// A fleet at rest keeps one pod while blind where a message is to be expected within this time, seconds: twice an outage of ten minutes.
const REST_S: f64 = 1200.0;

/// With figures gone for less than this, seconds, nothing is added: a look that failed, a management API that was busy, a failover of the broker. They
/// come back more often than the load has grown by then.
const RESERVE_AFTER_S: f64 = 15.0;
/// The same while no worker can be heard either: then it is the broker that is down, most likely for all, and pods could not take a message before it
/// is back. After this long it may be the way to it alone that is broken.
const RESERVE_AFTER_OUTAGE_S: f64 = 120.0;

/// How the arrival rate has been changing: counts of the last ten minutes, and the straight line through them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trend {
    blocks: VecDeque<f64>,
    open: f64,
    open_s: f64,
}

impl Trend {
    /// `arrived` messages within `dt_s` seconds.
    pub fn observe(&mut self, dt_s: f64, arrived: f64) {
        self.open += arrived;
        self.open_s += dt_s;
        if self.open_s >= BLOCK_S {
            self.blocks.push_back(self.open / self.open_s);
            (self.open, self.open_s) = (0.0, 0.0);
            if self.blocks.len() > BLOCKS {
                self.blocks.pop_front();
            }
        }
    }

    /// After a gap the counts before it say nothing of the trend.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Growth per second of the arrival rate, as a share of what it is now (least squares); 0 when it doesn't grow.
    pub fn growth_per_s(&self) -> f64 {
        let count = self.blocks.len();
        if count < BLOCKS_MIN {
            return 0.0;
        }
        let middle = 0.5 * (count as f64 - 1.0);
        let mean = self.blocks.iter().sum::<f64>() / count as f64;
        let (mut rise, mut spread) = (0.0, 0.0);
        for (at, rate) in self.blocks.iter().enumerate() {
            let distance = at as f64 - middle;
            rise += distance * (rate - mean);
            spread += distance * distance;
        }
        let slope = rise / spread / BLOCK_S;
        let now = mean + slope * (middle + 0.5) * BLOCK_S;
        if slope > 0.0 && now > 0.0 { slope / now } else { 0.0 }
    }
}

/// What was known of a workload when its figures went away.
#[derive(Debug, Clone, Copy)]
pub struct LastKnown<'a> {
    /// Pods that the rate kept at work; 0 for a fleet at rest.
    pub load: f64,
    /// Growth of the load, by [`Trend`].
    pub growth_per_s: f64,
    /// By how much it has been seen to rise.
    pub rises: &'a Rises,
    /// Arrivals per second.
    pub rate_per_s: f64,
    /// The workers cannot be heard either.
    pub broker_down: bool,
    /// Start latency, seconds: a pod for then has to be asked for now.
    pub latency_s: f64,
}

/// Memory of a time without figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Blind {
    /// Replicas to hold since the figures went away.
    hold: u32,
    /// When they did, and how many replicas there were.
    since_s: Option<f64>,
    before: f64,
}

impl Blind {
    /// The target while the figures are unknown: every useful pod stays, parked ones come back, and a fleet at work gets a reserve after some seconds, since load may
    /// grow unseen and idle pods are cheap against late messages. For the load `a` it is the most of
    ///
    /// - a quarter more than there was;
    /// - `b + 3 sqrt(b)` for `b = a exp(growth t)`, at most four times what there was: the trend goes on;
    /// - `b + 3 sqrt(b)` for `b` = `a` and the largest rise ever seen within `t + L`: what it did before it may do again.
    ///
    /// A fleet at rest gets one pod where a message has to be expected within `REST_S`, and no more: a broker that is down for all would start
    /// a pod for every workload otherwise.
    pub fn target(&mut self, law: &LawParams, now_s: f64, all: u32, known: &LastKnown<'_>) -> u32 {
        let since_s = *self.since_s.get_or_insert(now_s);
        let blind_s = (now_s - since_s).max(0.0);
        if self.hold == 0 {
            // While a queue is worked off there may be fewer pods than the load needs for good.
            self.before = f64::from(all).max(known.load);
        }
        let after_s = if known.broker_down { RESERVE_AFTER_OUTAGE_S } else { RESERVE_AFTER_S };
        if blind_s < after_s {
            // What was there comes back or stays, and no more.
        } else if known.load > 0.0 {
            let reserved = |load: f64| load + RESERVE_DEVIATIONS * load.sqrt();
            let grown = known.load * (known.growth_per_s * blind_s).exp();
            let risen = known.rises.reach(known.load, blind_s + known.latency_s + law.tick_s);
            let wished = (self.before * (1.0 + law.stale_boost)).max(reserved(grown).min(self.before * GROWTH_MAX)).max(reserved(risen));
            self.hold = self.hold.max(count(wished.ceil()));
        } else if known.rate_per_s * REST_S >= 1.0 {
            self.hold = self.hold.max(1);
        }
        self.hold = self.hold.max(all);
        self.hold
    }

    /// The figures are back.
    pub fn end(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(load: f64, growth_per_s: f64, rises: &Rises) -> LastKnown<'_> {
        LastKnown { load, growth_per_s, rises, rate_per_s: 0.0, broker_down: false, latency_s: 5.0 }
    }

    #[test]
    fn the_quarter_is_added_once() {
        let (law, mut blind, calm) = (LawParams::default(), Blind::default(), Rises::default());
        assert_eq!(blind.target(&law, 0.0, 12, &known(7.0, 0.0, &calm)), 12);
        assert_eq!(blind.target(&law, 14.0, 12, &known(7.0, 0.0, &calm)), 12, "a failover of ten seconds starts nobody");
        assert_eq!(blind.target(&law, 15.0, 12, &known(7.0, 0.0, &calm)), 15);
        assert_eq!(blind.target(&law, 16.0, 15, &known(7.0, 0.0, &calm)), 15);
        assert_eq!(blind.target(&law, 600.0, 8, &known(7.0, 0.0, &calm)), 15);
        blind.end();
        assert_eq!(blind.target(&law, 601.0, 8, &known(0.0, 0.0, &calm)), 8);
    }

    #[test]
    fn a_broker_that_is_down_for_all_is_no_reason_for_pods_that_could_not_work() {
        let (law, mut blind, calm) = (LawParams::default(), Blind::default(), Rises::default());
        let down = LastKnown { broker_down: true, ..known(40.0, 0.0, &calm) };
        assert_eq!([0.0, 5.0, 60.0, 119.0].map(|now_s| blind.target(&law, now_s, 48, &down)), [48; 4]);
        assert_eq!(blind.target(&law, 120.0, 48, &down), 60, "for so long it may be the way to it that is broken");
    }

    #[test]
    fn growth_is_carried_on_within_a_bound() {
        let (law, mut blind, calm) = (LawParams::default(), Blind::default(), Rises::default());
        blind.target(&law, 0.0, 100, &known(90.0, 0.001, &calm));
        assert_eq!(blind.target(&law, 16.0, 100, &known(90.0, 0.001, &calm)), 125);
        assert_eq!(blind.target(&law, 600.0, 125, &known(90.0, 0.001, &calm)), 203);
        assert_eq!(blind.target(&law, 86_400.0, 203, &known(90.0, 0.001, &calm)), 400);
    }

    #[test]
    fn a_rise_seen_before_is_allowed_for_step_by_step() {
        let (law, mut blind, mut hills) = (LawParams::default(), Blind::default(), Rises::default());
        (0..7200).for_each(|second| hills.observe(1.0, 10.0 - 9.0 * (f64::from(second) / 573.0).cos()));
        let targets = [0.0, 20.0, 120.0, 300.0, 600.0].map(|now_s| blind.target(&law, now_s, 2, &known(1.0, 0.0, &hills)));
        assert!(targets[0] <= 6 && targets.is_sorted() && (9..=24).contains(&targets[4]), "{targets:?}");
    }

    #[test]
    fn a_fleet_at_rest_gets_one_pod_where_messages_come_now_and_then() {
        let (law, calm) = (LawParams::default(), Rises::default());
        let at_rest = |rate_per_s| {
            let (mut blind, known) = (Blind::default(), LastKnown { rate_per_s, ..known(0.0, 0.0, &calm) });
            blind.target(&law, 0.0, 0, &known);
            blind.target(&law, 30.0, 0, &known)
        };
        assert_eq!((at_rest(1.0 / 240.0), at_rest(1.0 / 86_400.0)), (1, 0));
    }

    #[test]
    fn the_trend_is_that_of_the_last_minutes() {
        let mut trend = Trend::default();
        (0..1200).for_each(|second| trend.observe(1.0, 5.0 + 0.005 * f64::from(second)));
        assert!((trend.growth_per_s() - 0.005 / 11.0).abs() < 2e-5, "{}", trend.growth_per_s());
        (0..1200).for_each(|_| trend.observe(1.0, 5.0));
        assert_eq!(trend.growth_per_s(), 0.0);
        trend.forget();
        assert_eq!(trend.growth_per_s(), 0.0);
    }
}
