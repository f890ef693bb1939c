//! What the framework, or the broker, has written down about this pod; and, of Redis list workers, whether their connections wait for a task. In:
//! `broker::activity`. Out: samples. Left to others: reading the books.

use super::{Activity, tell};
use crate::driver::Input;
use crate::freeze::FrozenView;
use crate::procs::ProcFs;
use crate::watch::MainReceiver;
use qscaler_broker::BrokerError;
use qscaler_broker::activity::{BlockedPops, Bookkeeping, Seen, Waiting};
use qscaler_core::message::Busy;
use qscaler_runtime::backoff::Backoff;
use std::time::Duration;
use tokio::sync::mpsc;

/// The books themselves are renewed every 5 to 10 s; one question in this time is one command for a pod's own entry.
const BOOKS_PERIOD: Duration = Duration::from_secs(2);
/// One short command each; often enough to see a task of a few seconds.
const POPS_PERIOD: Duration = Duration::from_secs(1);
/// A worker between two waits looks busy for a moment: only two looks in a row that say so are believed.
const BUSY_LOOKS: u32 = 2;

/// A source that is asked again and again; its failures are reported once.
struct Asked {
    main: MainReceiver,
    inputs: mpsc::Sender<Input>,
    backoff: Backoff,
    complained: bool,
}

impl Asked {
    fn new(main: MainReceiver, inputs: mpsc::Sender<Input>) -> Self {
        Self { main, inputs, backoff: Backoff::reconnect(), complained: false }
    }

    /// Hands one answer on, and waits for the time of the next question. False: the driver is gone.
    async fn answer(&mut self, answer: Result<Activity, BrokerError>, period: Duration) -> bool {
        let (activity, pause) = match answer {
            Ok(activity) => {
                self.backoff.reset();
                self.complained = false;
                (activity, period)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::info!(%error, "whether the worker is busy is not known for now");
                }
                (Activity::unknown(), self.backoff.next_delay().max(period))
            }
        };
        let there = self.main.borrow().is_some();
        if there && !tell(&self.inputs, activity).await {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = self.inputs.closed() => false,
        }
    }
}

/// Samples the books until the driver is gone. A frozen worker has no task: that was proved when it was frozen.
pub(super) async fn books(mut books: Bookkeeping, frozen: FrozenView, main: MainReceiver, inputs: mpsc::Sender<Input>) {
    let mut asked = Asked::new(main, inputs);
    loop {
        if frozen.is_frozen() {
            if !asked.answer(Ok(Activity::only(Busy::Idle)), BOOKS_PERIOD).await {
                return;
            }
            continue;
        }
        let answer = books.sample().await.map(|seen| match seen {
            Seen::Busy(active) => Activity { active, ..Activity::only(Busy::Busy) },
            Seen::Idle => Activity { active: Some(0), ..Activity::only(Busy::Idle) },
            Seen::IdleAndTaking => Activity { active: Some(0), taking: true, ..Activity::only(Busy::Idle) },
            Seen::Unknown => Activity::unknown(),
        });
        if !asked.answer(answer, BOOKS_PERIOD).await {
            return;
        }
    }
}

/// Samples the worker's connections until the driver is gone. `concurrency` of them wait while nothing runs. A
/// frozen worker waits for nothing, and has no task: that was proved when it was frozen.
pub(super) async fn pops(
    mut pops: BlockedPops,
    concurrency: u32,
    frozen: FrozenView,
    procs: ProcFs,
    main: MainReceiver,
    inputs: mpsc::Sender<Input>,
) {
    let mut asked = Asked::new(main, inputs);
    let mut looks = 0;
    loop {
        if frozen.is_frozen() {
            looks = 0;
            if !asked.answer(Ok(Activity::only(Busy::Idle)), POPS_PERIOD).await {
                return;
            }
            continue;
        }
        let answer = pops.sample(&procs.others_ports()).await.map(|seen| look(seen, concurrency, &mut looks));
        if frozen.is_frozen() {
            // Frozen while it was looked at: of a wait that was ended for the proof, the look would say busy.
            continue;
        }
        if let Ok(None) = answer {
            // Looked at again soon, without a word.
            tokio::time::sleep(POPS_PERIOD / 4).await;
            continue;
        }
        if !asked.answer(answer.map(|activity| activity.unwrap_or_else(Activity::unknown)), POPS_PERIOD).await {
            return;
        }
    }
}

/// None: busy by a first look, which proves nothing yet.
fn look(seen: Option<Waiting>, concurrency: u32, looks: &mut u32) -> Option<Activity> {
    let Some(seen) = seen else {
        *looks = 0;
        return Some(Activity::unknown());
    };
    let waiting = u32::try_from(seen.waiting).unwrap_or(u32::MAX);
    if waiting >= concurrency {
        *looks = 0;
        return Some(Activity::only(Busy::Idle));
    }
    *looks += 1;
    (*looks >= BUSY_LOOKS).then(|| Activity::only(Busy::Busy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_believed_at_once_and_busy_by_the_second_look() {
        let seen = |waiting| Some(Waiting { connections: 3, waiting });
        let mut looks = 0;
        assert_eq!(look(seen(1), 1, &mut looks), Some(Activity::only(Busy::Idle)));
        assert_eq!(look(seen(0), 1, &mut looks), None);
        assert_eq!(look(seen(0), 1, &mut looks), Some(Activity::only(Busy::Busy)));
        assert_eq!(look(seen(1), 1, &mut looks), Some(Activity::only(Busy::Idle)));
        assert_eq!(look(None, 1, &mut looks), Some(Activity::unknown()));
    }

    #[test]
    fn a_worker_of_several_tasks_is_idle_only_while_all_wait() {
        let mut looks = 5;
        assert_eq!(look(Some(Waiting { connections: 4, waiting: 3 }), 4, &mut looks), Some(Activity::only(Busy::Busy)));
        assert_eq!(look(Some(Waiting { connections: 4, waiting: 4 }), 4, &mut looks), Some(Activity::only(Busy::Idle)));
    }
}
