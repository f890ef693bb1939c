//! Comes in: pods that begin to start, and leave. Goes out: which of them is ready next, and when. Leaves to others: what a pod is.
//!
//! Nodes start so many pods at full speed; more of them share it equally, as they share processors and image pulls. So twenty at once are all ready at
//! about the same late moment, where three at a time would have been ready one after the other within the same span (processor sharing; Kleinrock).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A time that sorts, and a pod.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Due(f64, u32);

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0).then(self.1.cmp(&other.1))
    }
}

/// Pods that start side by side. All of them are served alike, so one clock of service given to each serves them all.
#[derive(Debug, Default)]
pub struct Crowd {
    /// So many start at full speed; infinite: nothing is shared.
    at_full_speed: f64,
    /// Pods starting now.
    count: u32,
    /// Seconds at full speed that each pod starting since 0 has been given, until `at_s`.
    given_s: f64,
    at_s: f64,
    /// When, on the clock of `given_s`, each is ready; pods that left meanwhile are still in it.
    due: BinaryHeap<Reverse<Due>>,
}

impl Crowd {
    /// Nobody starts; `at_full_speed` above 0.
    pub fn new(at_full_speed: f64) -> Self {
        Self { at_full_speed, ..Self::default() }
    }

    fn speed(&self) -> f64 {
        (self.at_full_speed / f64::from(self.count.max(1))).min(1.0)
    }

    fn go_to(&mut self, now_s: f64) {
        self.given_s += (now_s - self.at_s) * self.speed();
        self.at_s = now_s;
    }

    /// A pod begins; alone it would take `alone_s`.
    pub fn begin(&mut self, now_s: f64, pod: u32, alone_s: f64) {
        self.go_to(now_s);
        self.count += 1;
        self.due.push(Reverse(Due(self.given_s + alone_s, pod)));
    }

    /// A pod that was starting is no more: it is ready, or was given up.
    pub fn end(&mut self, now_s: f64) {
        self.go_to(now_s);
        self.count = self.count.saturating_sub(1);
    }

    /// When the next pod is ready, if nothing changes until then; infinite without one. Pods for which `starting` is false are forgotten.
    pub fn next_s(&mut self, starting: impl Fn(u32) -> bool) -> f64 {
        while self.due.peek().is_some_and(|Reverse(Due(_, pod))| !starting(*pod)) {
            self.due.pop();
        }
        self.due.peek().map_or(f64::INFINITY, |Reverse(Due(due_s, _))| self.at_s + ((due_s - self.given_s) / self.speed()).max(0.0))
    }

    /// Takes the pod that is ready next.
    pub fn take(&mut self) -> Option<u32> {
        self.due.pop().map(|Reverse(Due(_, pod))| pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When each of `count` pods that begin `apart_s` after each other is ready.
    fn ready(at_full_speed: f64, count: u32, apart_s: f64) -> Vec<f64> {
        let (mut crowd, mut begun, mut ready) = (Crowd::new(at_full_speed), 0, vec![f64::INFINITY; count as usize]);
        loop {
            let next_s = crowd.next_s(|pod| ready[pod as usize].is_infinite());
            let begin_s = if begun < count { f64::from(begun) * apart_s } else { f64::INFINITY };
            if begin_s <= next_s && begin_s.is_finite() {
                crowd.begin(begin_s, begun, 6.0);
                begun += 1;
            } else if let Some(pod) = crowd.take().filter(|_| next_s.is_finite()) {
                crowd.end(next_s);
                ready[pod as usize] = next_s;
            } else {
                return ready;
            }
        }
    }

    #[test]
    fn twenty_at_once_are_all_late_and_a_ramp_has_its_first_at_once() {
        assert!(ready(3.0, 20, 0.0).iter().all(|at_s| (*at_s - 40.0).abs() < 1e-9));
        let ramp = ready(3.0, 20, 2.0);
        assert!((ramp[0] - 6.0).abs() < 1e-9 && ramp.iter().all(|at_s| *at_s < 45.0), "{ramp:?}");
    }

    #[test]
    fn few_pods_or_endless_nodes_are_not_slowed() {
        assert!(ready(3.0, 3, 0.0).iter().all(|at_s| (*at_s - 6.0).abs() < 1e-9));
        assert!(ready(f64::INFINITY, 50, 0.0).iter().all(|at_s| (*at_s - 6.0).abs() < 1e-9));
    }
}
