//! Comes in: what was needed and who was idle, tick by tick. Goes out: how many workers are surplus. Leaves to others: which ones go, and how.

use std::collections::VecDeque;

/// Entries a window keeps at most: ten minutes at ten ticks a second. A start latency beyond that is a broken pod.
const ENTRIES_MAX: usize = 6000;

/// While messages wait, only pods spare for this long may leave, seconds: longer than figures lag (reports come every 5 s, RabbitMQ's figures are 4 to
/// 9 s old).
const SPARE_SPAN_S: f64 = 30.0;

/// The extreme of a value over the last seconds, in constant time per tick (a monotonic queue).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extreme {
    entries: VecDeque<(f64, f64)>,
}

impl Extreme {
    /// Adds `value` at `now_s` and gives the largest of the last `span_s` seconds.
    pub fn largest(&mut self, now_s: f64, value: f64, span_s: f64) -> f64 {
        while self.entries.back().is_some_and(|(_, last)| *last <= value) {
            self.entries.pop_back();
        }
        self.entries.push_back((now_s, value));
        while self.entries.len() > ENTRIES_MAX || self.entries.front().is_some_and(|(at, _)| now_s - at > span_s) {
            self.entries.pop_front();
        }
        self.entries.front().map_or(value, |(_, largest)| *largest)
    }

    /// Adds `value` at `now_s` and gives the smallest of the last `span_s` seconds.
    pub fn smallest(&mut self, now_s: f64, value: f64, span_s: f64) -> f64 {
        -self.largest(now_s, -value, span_s)
    }
}

/// What the law must have watched before it calls a worker surplus.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DownWindow {
    needs: Extreme,
    idles: Extreme,
    spares: Extreme,
    since_s: Option<f64>,
    queue_seen_s: Option<f64>,
    /// After a time without figures: how long to watch before anyone is surplus.
    watch_s: f64,
}

/// What may leave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Surplus {
    /// The most that was needed within the last start latency.
    pub need: f64,
    /// Workers idle throughout the idle window.
    pub idle: f64,
    /// The windows are full.
    pub watched: bool,
}

impl DownWindow {
    /// A window that starts after a time without figures. What the rate was before says little of what it is, so nobody is surplus until it has been
    /// seen for `watch_s`.
    pub fn after_gap(watch_s: f64) -> Self {
        Self { watch_s, ..Self::default() }
    }

    /// Adds one tick. `need_span_s` is the start latency: what was needed so lately could not be had back in time.
    pub fn observe(&mut self, now_s: f64, need: f64, idle: f64, need_span_s: f64, idle_span_s: f64) -> Surplus {
        let since = *self.since_s.get_or_insert(now_s);
        Surplus {
            need: self.needs.largest(now_s, need, need_span_s),
            idle: self.idles.smallest(now_s, idle, idle_span_s),
            watched: now_s - since >= idle_span_s.max(self.watch_s),
        }
    }

    /// Adds one tick's spare pods, those without which what waits still starts in time, and gives the fewest of the last half minute. Who looks idle
    /// while messages wait is a contradiction of figures, and it is not followed to and fro.
    pub fn spare(&mut self, now_s: f64, spare: f64) -> f64 {
        self.spares.smallest(now_s, spare, SPARE_SPAN_S)
    }

    /// Seconds since a message was last seen waiting; `None` before the first look. Used where nothing tells busy from idle.
    pub fn queue_empty_s(&mut self, now_s: f64, waiting: bool) -> f64 {
        let last = self.queue_seen_s.get_or_insert(now_s);
        if waiting {
            *last = now_s;
        }
        now_s - *last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_forgets_what_left_it() {
        let mut window = Extreme::default();
        assert_eq!(window.largest(0.0, 9.0, 5.0), 9.0);
        assert_eq!(window.largest(1.0, 3.0, 5.0), 9.0);
        assert_eq!(window.largest(5.0, 4.0, 5.0), 9.0);
        assert_eq!(window.largest(6.0, 1.0, 5.0), 4.0);
    }

    #[test]
    fn nobody_is_surplus_before_the_idle_window_is_full() {
        let mut window = DownWindow::default();
        assert!(!window.observe(0.0, 0.0, 3.0, 5.0, 5.0).watched);
        assert!(!window.observe(4.0, 0.0, 3.0, 5.0, 5.0).watched);
        let surplus = window.observe(5.0, 0.0, 2.0, 5.0, 5.0);
        assert!(surplus.watched && surplus.idle == 2.0);
    }
}
