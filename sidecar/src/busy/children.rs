//! A worker that forks one child per task (RQ, Resque): any child means busy, once it has reached its broker. In: `/proc`. Out: samples, and the time of each child
//! that has ended. Left to others: workers with a constant pool, which this would call busy for ever.

use crate::busy::start::Begin;
use crate::clock::wall_ms;
use crate::input::Input;
use crate::input::MainReceiver;
use crate::input::{Activity, tell};
use crate::worker::container::Container;
use crate::worker::procs::ProcFs;
use qscaler_core::framework::Signal;
use qscaler_core::message::{Busy, EndedTasks};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;

/// A scan costs about 0.1 ms for 10 processes: at this period a fiftieth of a percent of a core.
const PERIOD: Duration = Duration::from_millis(500);

/// Children by pid and start, with the moment they were first seen.
type Seen = BTreeMap<(i32, u64), u64>;

/// Whose children count.
pub(super) struct Workers {
    /// Where processes are looked up.
    pub(super) procs: ProcFs,
    /// Reads the worker's container.
    pub(super) container: Container,
    /// The framework's name.
    pub(super) framework: String,
    /// What its workers hear.
    pub(super) signals: Vec<Signal>,
    /// Whether they take tasks yet.
    pub(super) begin: Begin,
}

/// Samples until the driver is gone.
pub(super) async fn run(mut workers: Workers, main: MainReceiver, inputs: mpsc::Sender<Input>) {
    let mut seen = Seen::new();
    loop {
        let top = main.borrow().as_ref().map(|main| (main.pid, main.incarnation));
        match top {
            Some(top) => {
                if !tell(&inputs, sample(&mut workers, top, &mut seen, wall_ms())).await {
                    return;
                }
            }
            None => seen.clear(),
        }
        tokio::time::sleep(PERIOD).await;
        if inputs.is_closed() {
            return;
        }
    }
}

/// `top`: the container's top process, and what names it for ever.
fn sample(workers: &mut Workers, (top, incarnation): (i32, u64), seen: &mut Seen, now_ms: u64) -> Activity {
    let Ok(processes) = workers.procs.processes() else { return Activity::unknown() };
    let anew = !workers.begin.has(incarnation, false);
    let crew = workers.container.crew(top, &workers.framework, &workers.signals, anew);
    // Children of a worker that has not reached its broker yet are part of its start, and no tasks.
    if crew.workers.is_empty() || !workers.begin.has(incarnation, crew.connected) {
        return Activity::unknown();
    }
    let parents: Vec<i32> = crew.workers.iter().map(|id| id.pid).collect();
    let mut before = std::mem::take(seen);
    for child in processes.iter().filter(|p| parents.contains(&p.parent) && p.state != 'Z') {
        let key = (child.pid, child.start_ticks);
        seen.insert(key, before.remove(&key).unwrap_or(now_ms));
    }
    let ended: Vec<u64> = before.into_values().map(|since_ms| now_ms.saturating_sub(since_ms)).collect();
    let tasks = u32::try_from(ended.len()).unwrap_or(u32::MAX);
    let active = u32::try_from(seen.len()).unwrap_or(u32::MAX);
    Activity {
        busy: if active > 0 { Busy::Busy } else { Busy::Idle },
        active: Some(active),
        processed: None,
        ended: (tasks > 0).then(|| EndedTasks { tasks, mean_ms: ended.iter().sum::<u64>() as f64 / f64::from(tasks) }),
        taking: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeProc;

    fn rq(fake: &FakeProc) -> Workers {
        let container = Container::new(fake.procs(), 2, "redis://h");
        Workers { procs: fake.procs(), container, framework: "rq".to_owned(), signals: vec![Signal::Term], begin: Begin::default() }
    }

    /// A worker that has reached its broker.
    fn connected() -> FakeProc {
        let fake = FakeProc::new();
        fake.show_connection(6379);
        fake
    }

    #[test]
    fn any_child_means_busy_and_its_end_is_a_task() {
        let fake = connected();
        fake.add(30, 0, "rq", 5, Some("worker"), "/w");
        let mut seen = Seen::new();
        assert_eq!(sample(&mut rq(&fake), (30, 5), &mut seen, 0).busy, Busy::Idle);
        fake.add(31, 30, "rq", 6, Some("worker"), "/w");
        assert_eq!(sample(&mut rq(&fake), (30, 5), &mut seen, 1_000).active, Some(1));
        // Ended and followed at once by another: no idle moment, yet one task.
        fake.remove(31);
        fake.add(32, 30, "rq", 7, Some("worker"), "/w");
        let activity = sample(&mut rq(&fake), (30, 5), &mut seen, 3_000);
        assert_eq!((activity.busy, activity.ended), (Busy::Busy, Some(EndedTasks { tasks: 1, mean_ms: 2_000.0 })));
        fake.remove(32);
        assert_eq!(sample(&mut rq(&fake), (30, 5), &mut seen, 4_000).busy, Busy::Idle);
    }

    #[test]
    fn behind_a_shell_the_workers_children_count_and_not_the_worker() {
        let fake = connected();
        fake.add(30, 0, "sh", 5, Some("worker"), "/w");
        fake.add(31, 30, "rq", 6, Some("worker"), "/w");
        assert_eq!(sample(&mut rq(&fake), (30, 5), &mut Seen::new(), 0).busy, Busy::Idle);
    }

    #[test]
    fn of_two_workers_behind_a_shell_the_tasks_of_both_count() {
        let fake = connected();
        for (pid, parent, comm) in [(30, 0, "sh"), (31, 30, "rq"), (32, 30, "rq"), (33, 32, "rq")] {
            fake.add(pid, parent, comm, 5, Some("worker"), "/w");
        }
        assert_eq!(sample(&mut rq(&fake), (30, 5), &mut Seen::new(), 0).active, Some(1));
    }

    #[test]
    fn a_worker_that_has_not_reached_its_broker_yet_is_starting_whatever_it_forks() {
        let fake = FakeProc::new();
        fake.add(30, 0, "rq", 5, Some("worker"), "/w");
        let (mut workers, mut seen) = (rq(&fake), Seen::new());
        let mut busy = |now_ms| sample(&mut workers, (30, 5), &mut seen, now_ms);
        assert_eq!(busy(0), Activity::unknown(), "it imports");
        fake.add(31, 30, "ldconfig", 6, Some("worker"), "/w");
        assert_eq!(busy(500), Activity::unknown());
        fake.remove(31);
        assert_eq!(busy(1_000), Activity::unknown(), "what it started meanwhile was no task");
        fake.show_connection(6379);
        fake.add(32, 30, "rq", 7, Some("worker"), "/w");
        assert_eq!(busy(6_000).active, Some(1));
        // Its connection may go and come again: it has begun.
        fake.write("net/tcp", "header\n");
        assert_eq!(busy(7_000).active, Some(1));
    }

    #[test]
    fn a_worker_that_is_gone_is_unknown() {
        assert_eq!(sample(&mut rq(&connected()), (30, 5), &mut Seen::new(), 0), Activity::unknown());
    }
}
