//! Comes in: a workload and the start latency. Goes out: what perfect knowledge would pay, and miss. Leaves to others: comparing anyone with it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::workload::Workload;

/// The offline optimum with every task started at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Optimum {
    /// Pod-seconds, start-up included.
    pub pod_seconds: f64,
    /// Share of tasks that wait too long even so: the limit of pods, or of what they share, is too low.
    pub miss: f64,
}

/// A time that sorts.
#[derive(Debug, Clone, Copy, PartialEq)]
struct At(f64);

impl Eq for At {}

impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for At {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Tasks start at once, first in first out on the most pods there may be (or as many as what they share bears). A pod that ends a task is kept for a
/// later one if the gap is below the start latency, else it goes and another starts: cost `min(gap, L)`. Taking the pod freed last is optimal,
/// since that cost is concave in the gap. O(n log n).
pub fn optimum(workload: &Workload, start_s: f64) -> Optimum {
    let servers = workload.shared_capacity.map_or(workload.max_replicas, |capacity| (capacity as u32).min(workload.max_replicas)) as usize;
    let mut running: BinaryHeap<Reverse<At>> = BinaryHeap::new();
    let (mut starts, mut ends) = (Vec::with_capacity(workload.tasks.len()), Vec::with_capacity(workload.tasks.len()));
    let (mut late, mut work) = (0usize, 0.0);
    for task in &workload.tasks {
        let mut start = task.at_s;
        if running.len() >= servers
            && let Some(Reverse(At(free))) = running.pop()
        {
            start = start.max(free);
        }
        running.push(Reverse(At(start + task.service_s)));
        starts.push(start);
        ends.push(start + task.service_s);
        late += usize::from(start - task.at_s > workload.max_wait_s);
        work += task.service_s;
    }
    starts.sort_unstable_by(f64::total_cmp);
    ends.sort_unstable_by(f64::total_cmp);
    let (mut freed, mut ended, mut links) = (Vec::new(), 0usize, 0.0);
    for start in starts {
        while ends.get(ended).is_some_and(|end| *end <= start) {
            freed.push(ends[ended]);
            ended += 1;
        }
        links += freed.pop().map_or(start_s, |end| (start - end).min(start_s));
    }
    Optimum { pod_seconds: work + links, miss: late as f64 / workload.tasks.len().max(1) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::workload::Task;

    fn workload(tasks: Vec<Task>) -> Workload {
        Workload { name: "test".to_owned(), tasks, max_wait_s: 1.0, min_replicas: 0, max_replicas: 1000, horizon_s: 100.0, shared_capacity: None }
    }

    #[test]
    fn a_short_gap_is_bridged_and_a_long_one_is_not() {
        let task = |at_s| Task { at_s, service_s: 1.0 };
        assert_eq!(optimum(&workload(vec![task(0.0), task(3.0)]), 5.0).pod_seconds, 2.0 + 5.0 + 2.0);
        assert_eq!(optimum(&workload(vec![task(0.0), task(30.0)]), 5.0).pod_seconds, 2.0 + 5.0 + 5.0);
    }

    /// Cheapest way to link ends to later starts, by trying them all.
    fn cheapest(starts: &[f64], ends: &mut Vec<f64>, start_s: f64) -> f64 {
        let Some((first, rest)) = starts.split_first() else { return 0.0 };
        let mut best = start_s + cheapest(rest, ends, start_s);
        for at in 0..ends.len() {
            if ends[at] <= *first {
                let end = ends.remove(at);
                best = best.min((first - end).min(start_s) + cheapest(rest, ends, start_s));
                ends.insert(at, end);
            }
        }
        best
    }

    #[test]
    fn the_greedy_choice_is_the_cheapest_of_all() {
        let mut rng = Rng::new(3, 3);
        for _ in 0..40 {
            let mut tasks: Vec<Task> = (0..6).map(|_| Task { at_s: rng.between(0.0, 20.0), service_s: rng.between(0.5, 6.0) }).collect();
            tasks.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
            let starts: Vec<f64> = tasks.iter().map(|task| task.at_s).collect();
            let mut ends: Vec<f64> = tasks.iter().map(|task| task.at_s + task.service_s).collect();
            let work: f64 = tasks.iter().map(|task| task.service_s).sum();
            let expected = work + cheapest(&starts, &mut ends, 3.0);
            assert!((optimum(&workload(tasks), 3.0).pod_seconds - expected).abs() < 1e-9);
        }
    }
}
