//! Comes in: how many pods were starting, and how long those that came took. Goes out: how many should start at once. Leaves to others: how many are wished.
//!
//! Where nodes are few, pods that start together share processors and image pulls: twenty at once are all ready late, where a few at a time are ready one
//! after the other within the same span. So start latency is learned by the number that start side by side, and where that is better pods are asked for in
//! a ramp. Until it is known to be, all are asked for at once.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::numeric::{decay, sane, within};

/// Classes of n: 1, 2 to 3, 4 to 7 and so on, so that one large burst does not drown what single starts have shown.
const CLASSES: usize = 12;
/// Half-life of a class, in its own starts.
const OWN_HALF_LIFE: f64 = 10.0;
/// The same in the starts of other classes: what has not been seen for long is forgotten, and tried again.
const OTHERS_HALF_LIFE: f64 = 100.0;
/// A class of less weight, in starts, is not known.
const KNOWN_MIN: f64 = 0.25;
/// A ramp must bring pods within this share of the mean time that all at once would take. What chance makes of latencies with a deviation of 0.3 of their mean
/// stays above it.
const WORTH: f64 = 0.75;
/// A window whose starts take up to so many times what the quickest take is not crowded, and twice as many are tried.
const UNCROWDED: f64 = 1.2;
/// Bursts of so many pods and more are compared with
const PROBE_MIN: f64 = 8.0;
/// so few,
const PROBE: u32 = 2;
/// for this share of the time that the burst took.
const PROBE_SHARE: f64 = 0.25;
/// Entries of the look back: ten minutes at one a second. A start that took longer is a broken pod's.
const ENTRIES_MAX: usize = 600;
/// Without a look for this long, seconds, nobody knows how many were starting.
const GAP_S: f64 = 10.0;

/// One class of n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Class {
    weight: f64,
    n: f64,
    latency_s: f64,
}

/// Start latency by the number of pods that start at once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Crowding {
    classes: Vec<Class>,
    /// When, and the sum over time of pods starting until then.
    #[serde(skip)]
    seen: VecDeque<(f64, f64)>,
    #[serde(skip)]
    last: u32,
    /// Since when a few pods have been starting to be compared with many.
    #[serde(skip)]
    probe_s: Option<f64>,
    /// That has been done, and showed nothing.
    probed: bool,
}

impl Crowding {
    /// One look: pods starting now, and the latencies of those that became Ready since the last.
    pub fn observe(&mut self, now_s: f64, starting: u32, started_s: &[f64]) {
        if self.seen.back().is_some_and(|(last_s, _)| !(0.0..GAP_S).contains(&(now_s - last_s))) {
            self.seen.clear();
        }
        let (last_s, sum) = self.seen.back().copied().unwrap_or((now_s, 0.0));
        self.seen.push_back((now_s, sum + (now_s - last_s) * f64::from(self.last)));
        self.last = starting;
        while self.seen.len() > ENTRIES_MAX {
            self.seen.pop_front();
        }
        for latency_s in started_s {
            if let Some(n) = self.beside(now_s, *latency_s) {
                self.started(n, *latency_s);
            }
        }
    }

    /// Mean number of pods starting in the `latency_s` before `now_s`, the one in question included; `None` where that was not watched throughout.
    fn beside(&self, now_s: f64, latency_s: f64) -> Option<f64> {
        let (end_s, end) = self.seen.back().copied()?;
        let from_s = now_s - sane(latency_s, f64::INFINITY);
        let (begin_s, begin) = self.seen[self.seen.partition_point(|(at_s, _)| *at_s <= from_s).checked_sub(1)?];
        (end_s > begin_s).then(|| ((end - begin) / (end_s - begin_s)).max(1.0))
    }

    fn started(&mut self, n: f64, latency_s: f64) {
        let at = (n.log2() as usize).min(CLASSES - 1);
        if self.classes.len() <= at {
            self.classes.resize(at + 1, Class::default());
        }
        let others = decay(1.0, OTHERS_HALF_LIFE);
        self.classes.iter_mut().for_each(|class| class.weight = sane(class.weight, 0.0) * others);
        let class = &mut self.classes[at];
        let before = class.weight / others * decay(1.0, OWN_HALF_LIFE);
        let mean = |old: f64, new: f64| (sane(old, 0.0) * before + new) / (before + 1.0);
        *class = Class { weight: before + 1.0, n: mean(class.n, n), latency_s: mean(class.latency_s, latency_s) };
    }

    fn known(&self) -> impl Iterator<Item = (f64, f64)> {
        self.classes.iter().filter(|class| class.weight >= KNOWN_MIN && class.n >= 1.0).map(|class| (class.n, sane(class.latency_s, 0.0)))
    }

    /// What to expect, seconds, of one of `n` that start at once: between two known classes on the line between them, beyond the largest on the line from the
    /// smallest to it where that rises. `None` before two classes are known.
    fn latency_s(&self, n: f64) -> Option<f64> {
        let mut known = self.known();
        let (first, mut below) = known.next().map(|first| (first, first))?;
        let mut classes = 1;
        for above in known {
            if n <= above.0 {
                let share = within((n - below.0) / (above.0 - below.0).max(f64::MIN_POSITIVE), 0.0, 1.0);
                return Some(below.1 + share * (above.1 - below.1));
            }
            (below, classes) = (above, classes + 1);
        }
        let rise = ((below.1 - first.1) / (below.0 - first.0).max(1.0)).max(0.0);
        (classes > 1).then(|| below.1 + (n - below.0).max(0.0) * rise)
    }

    /// How many of `wished` pods should be starting at one time; `None` for all of them.
    pub fn at_once(&mut self, now_s: f64, wished: u32) -> Option<u32> {
        self.probe(now_s, wished).or_else(|| self.ramp(wished))
    }

    /// Where only large bursts have been seen there is nothing to compare them with. Once, a few pods go first, for a quarter of what many have taken: ready by
    /// then, they have shown that many are in each other's way; if not, the rest has lost that little.
    fn probe(&mut self, now_s: f64, wished: u32) -> Option<u32> {
        let (n, took_s) = self.known().next()?;
        if self.probed || self.known().count() > 1 || n < PROBE_MIN || wished <= PROBE {
            return None;
        }
        let since_s = *self.probe_s.get_or_insert(now_s);
        self.probed = !(0.0..PROBE_SHARE * took_s).contains(&(now_s - since_s));
        (!self.probed).then_some(PROBE)
    }

    /// With W of N at a time they come in N / W waves, each after the latency
    /// L(W) of its size, in the mean after `L(W) (1 + N / W) / 2`.
    fn ramp(&self, wished: u32) -> Option<u32> {
        let all = f64::from(wished);
        let mean_s = |window: f64| self.latency_s(window).map(|latency_s| 0.5 * latency_s * (1.0 + all / window));
        let bound_s = WORTH * mean_s(all)?;
        let windows = (0..CLASSES).map(|class| f64::from(1u32 << class)).chain(self.known().map(|(n, _)| n.round())).filter(|window| *window < all);
        let (window, best_s) = windows.filter_map(|window| mean_s(window).map(|mean_s| (window, mean_s))).min_by(|a, b| a.1.total_cmp(&b.1))?;
        if best_s > bound_s {
            return None;
        }
        let quickest_s = self.known().map(|(_, latency_s)| latency_s).fold(f64::INFINITY, f64::min);
        let tried = |n: f64| self.known().any(|(known, _)| known.log2() as u32 == n.log2() as u32);
        let more = tried(window) && !tried(2.0 * window) && self.latency_s(window)? <= UNCROWDED * quickest_s;
        let window = if more { 2.0 * window } else { window };
        (window < all).then_some(window as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(starts: &[(f64, f64, u32)]) -> Crowding {
        let mut crowding = Crowding::default();
        starts.iter().for_each(|(n, latency_s, times)| (0..*times).for_each(|_| crowding.started(*n, *latency_s)));
        crowding
    }

    #[test]
    fn starts_that_slow_each_other_down_are_spread() {
        let few_nodes = learned(&[(2.0, 6.0, 2), (20.0, 42.0, 20)]);
        let window = few_nodes.ramp(20).expect("twenty at once take seven times as long");
        assert!((3..11).contains(&window), "{window}");
        assert!(few_nodes.ramp(60).is_some_and(|window| window < 30), "what is known of twenty holds for sixty");
        assert_eq!(few_nodes.ramp(2), None);
    }

    #[test]
    fn starts_that_do_not_slow_each_other_down_are_asked_for_at_once() {
        assert_eq!(learned(&[(1.0, 30.0, 2), (20.0, 33.0, 20), (60.0, 29.0, 60)]).ramp(100), None);
        assert_eq!(learned(&[(1.0, 4.0, 1), (10.0, 4.0, 1), (20.0, 7.0, 20)]).ramp(20), None, "as chance has it");
        assert_eq!(learned(&[(20.0, 42.0, 40)]).ramp(100), None, "nothing to compare it with");
        assert_eq!(Crowding::default().ramp(100), None);
    }

    #[test]
    fn one_burst_does_not_drown_what_single_starts_have_shown() {
        assert!(learned(&[(1.0, 6.0, 2), (60.0, 120.0, 100)]).ramp(60).is_some());
    }

    #[test]
    fn a_burst_that_was_slow_once_is_tried_again_after_many_starts() {
        let once = [(1.0, 6.0, 2), (20.0, 300.0, 20)];
        assert!(learned(&once).ramp(20).is_some());
        let since = [once[0], once[1], (5.0, 6.0, 600)];
        assert_eq!(learned(&since).ramp(20), None);
    }

    #[test]
    fn a_window_that_is_not_crowded_grows() {
        let window = learned(&[(1.0, 6.0, 2), (20.0, 300.0, 20), (4.0, 6.0, 4)]).ramp(20);
        assert_eq!(window, Some(8));
    }

    #[test]
    fn where_only_bursts_have_been_seen_a_few_go_first_once() {
        let mut bursts = learned(&[(20.0, 40.0, 20)]);
        assert_eq!((bursts.at_once(100.0, 20), bursts.at_once(109.0, 20)), (Some(2), Some(2)));
        let mut shown = bursts.clone();
        shown.started(2.0, 6.0);
        assert!(shown.at_once(109.0, 18).is_some_and(|window| (2..10).contains(&window)), "ready in time: the rest comes in a ramp");
        assert_eq!((bursts.at_once(110.0, 20), bursts.at_once(500.0, 20)), (None, None), "not ready in time: all at once, and no second trial");
        assert_eq!(Crowding::default().at_once(0.0, 20), None, "nothing is known");
    }

    #[test]
    fn the_number_beside_a_start_is_the_mean_over_it() {
        let mut crowding = Crowding::default();
        for second in 0..60 {
            let starting = if (10..30).contains(&second) { 20 } else { 0 };
            let started = if second == 30 { vec![20.0; 20] } else { Vec::new() };
            crowding.observe(f64::from(second), starting, &started);
        }
        let class = crowding.classes.iter().find(|class| class.weight > 0.0).expect("twenty were seen to start");
        assert!((class.n - 20.0).abs() < 1.0 && (class.latency_s - 20.0).abs() < 1e-9, "{class:?}");
        assert_eq!(crowding.beside(59.0, 400.0), None, "not watched");
    }
}
