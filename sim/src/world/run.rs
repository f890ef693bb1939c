//! Comes in: a workload, conditions, a policy. Goes out: what the run came to. Leaves to others: what each event does to the world.

use super::values::{Conditions, Outcome, Point};
use super::{Policy, World};
use crate::workload::Workload;

/// A run is given up at this many times its horizon: the policy never gets the work done.
const GIVE_UP: f64 = 2.0;

/// What to note beside the outcome, and when to stop early.
#[derive(Debug, Default)]
pub struct Watch<'a> {
    /// A point each so many seconds, into the list.
    pub points: Option<(f64, &'a mut Vec<Point>)>,
    /// Give up beyond so many pod-seconds.
    pub budget_pod_s: Option<f64>,
}

/// Runs a workload under a policy to its end: the horizon, or the last task.
pub fn run(workload: &Workload, conditions: Conditions, policy: &mut dyn Policy, mut watch: Watch<'_>) -> Outcome {
    let mut world = World::new(workload, conditions);
    world.start(workload.min_replicas);
    let mut next_task = 0usize;
    let mut wake_s = policy.first_wake_s();
    let mut note_s = 0.0;
    loop {
        let arrival_s = workload.tasks.get(next_task).map_or(f64::INFINITY, |task| task.at_s);
        let event_s = world.events.peek().map_or(f64::INFINITY, |event| event.at_s);
        let ready_s = world.next_ready_s();
        let next_s = event_s.min(ready_s).min(arrival_s).min(wake_s);
        let end = if world.finished < world.outcome.tasks { GIVE_UP * workload.horizon_s } else { workload.horizon_s };
        if let Some((every_s, points)) = &mut watch.points {
            while note_s <= next_s.min(end) {
                points.push(Point { at_s: note_s, backlog: world.ready_messages(), pods: world.alive, busy: world.busy_count });
                note_s += *every_s;
            }
        }
        if next_s >= end {
            world.now_s = world.now_s.max(end);
            break;
        }
        world.now_s = next_s;
        if event_s <= next_s {
            if let Some(event) = world.events.pop() {
                world.happen(event);
            }
        } else if ready_s <= next_s {
            world.ready();
        } else if arrival_s <= next_s {
            world.arrive(next_task as u32);
            next_task += 1;
        } else {
            wake_s = policy.wake(&mut world).max(next_s + 1e-6);
            if watch.budget_pod_s.is_some_and(|budget| world.outcome.pod_seconds > budget) {
                world.outcome.cut_short = true;
                break;
            }
        }
    }
    world.finish()
}
