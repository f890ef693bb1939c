//! What the framework, or the broker, has written down about this pod; and, of Redis list workers, whether their connections wait for a task. In:
//! `broker::activity`. Out: samples, and a gap where they never tell. Left to others: reading the books.
//!
//! How many connections of a worker wait while it has no task is learned: as many as ever waited at once. The annotation `concurrency` is a lower bound of
//! it, and no more: a worker with four loops of which three wait has a task, whatever anyone wrote. It is none where one connection waits for all that a
//! worker runs at once, whenever it has room (BullMQ): there the locks of the tasks in hand have to be others', too.
//!
//! A worker that is connected and has not asked for a task yet (it loads what it works with) is starting: neither busy nor idle.

use crate::busy::start::{Begin, Start};
use crate::gaps::Gaps;
use crate::gate::freeze::FrozenView;
use crate::gate::freeze::needed;
use crate::input::Input;
use crate::input::MainReceiver;
use crate::input::{Activity, tell};
use crate::worker::sockets::Watched;
use qscaler_broker::BrokerError;
use qscaler_broker::activity::{BlockedPops, Bookkeeping, Seen, Waiting};
use qscaler_core::framework::{Books, Framework};
use qscaler_core::message::{Busy, GapReason};
use qscaler_runtime::backoff::Backoff;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The books themselves are renewed every 5 to 10 s; one question in this time is one command for a pod's own entry.
const BOOKS_PERIOD: Duration = Duration::from_secs(2);
/// RabbitMQ renews its figures every 5 s, and each question lists all its connections.
const FIGURES_PERIOD: Duration = Duration::from_secs(5);
/// One short command each; often enough to see a task of a few seconds.
const POPS_PERIOD: Duration = Duration::from_secs(1);
/// A worker between two waits looks busy for a moment: only two looks in a row that say so are believed.
const BUSY_LOOKS: u32 = 2;

/// A source's end: where its samples and its gap go.
pub(super) struct SourceEnds {
    /// The worker.
    pub(super) main: MainReceiver,
    /// The driver.
    pub(super) inputs: mpsc::Sender<Input>,
    /// Where it says that it cannot tell.
    pub(super) gaps: Gaps,
    /// What to do then, in words for people.
    pub(super) mend: String,
    /// Until when that is no gap.
    pub(super) start: Start,
}

/// One answer of a source.
enum Answer {
    /// This is so.
    Known(Activity),
    /// This would be so if the worker had asked for a task already.
    Starting(Activity),
    /// Tasks run, and it cannot be told where: no fault of anyone's.
    Elsewhere,
    /// It does not know this worker.
    Unknown,
}

/// A source that is asked again and again; its failures are reported once.
struct Asked {
    ends: SourceEnds,
    begin: Begin,
    backoff: Backoff,
    complained: bool,
    /// Since when nothing was told of the worker that runs.
    silent_since: Option<Instant>,
    has_gap: bool,
}

impl Asked {
    fn new(ends: SourceEnds) -> Self {
        Self { ends, begin: Begin::default(), backoff: Backoff::reconnect(), complained: false, silent_since: None, has_gap: false }
    }

    /// Hands one answer on, and waits for the time of the next question. False: the driver is gone.
    async fn answer(&mut self, answer: Result<Answer, BrokerError>, period: Duration) -> bool {
        let worker = self.ends.main.borrow().as_ref().map(|main| main.incarnation);
        let there = worker.is_some();
        let answer = answer.map(|answer| self.begun(worker, answer));
        self.say(worker, &answer);
        let (activity, pause) = match answer {
            Ok(answer) => {
                self.backoff.reset();
                self.complained = false;
                let activity = match answer {
                    Answer::Known(activity) => activity,
                    Answer::Starting(_) | Answer::Elsewhere | Answer::Unknown => Activity::unknown(),
                };
                (activity, period)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::info!(%error, "whether the worker is busy is not known for now");
                }
                (Activity::unknown(), self.backoff.next_delay().max(period))
            }
        };
        if there && !tell(&self.ends.inputs, activity).await {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = self.ends.inputs.closed() => false,
        }
    }

    /// Once a worker has begun it does not start again, and one that never shows it has begun some time.
    fn begun(&mut self, worker: Option<u64>, answer: Answer) -> Answer {
        match (worker, answer) {
            (Some(worker), Answer::Starting(activity)) if self.begin.has(worker, false) => Answer::Known(activity),
            (Some(worker), answer @ Answer::Known(_)) => {
                self.begin.has(worker, true);
                answer
            }
            (_, answer) => answer,
        }
    }

    /// The gap, once nothing has been told for long enough; closed by the first word.
    fn say(&mut self, worker: Option<u64>, answer: &Result<Answer, BrokerError>) {
        let why = match answer {
            Ok(Answer::Unknown) => String::new(),
            Err(error) => format!(" ({error})"),
            // It is not told either, and nothing is wrong.
            Ok(Answer::Starting(_)) => {
                self.silent_since = None;
                return;
            }
            Ok(Answer::Known(_) | Answer::Elsewhere) => {
                self.silent_since = None;
                self.ends.start.told();
                if std::mem::take(&mut self.has_gap) {
                    self.ends.gaps.clear(GapReason::IdleUnknown);
                }
                return;
            }
        };
        let Some(worker) = worker else {
            self.silent_since = None;
            return;
        };
        let since = *self.silent_since.get_or_insert_with(Instant::now);
        if !self.has_gap && self.ends.start.is_gap(worker, since) {
            self.has_gap = true;
            self.ends.gaps.set(GapReason::IdleUnknown, format!("{}{why}", self.ends.mend));
        }
    }
}

/// Samples the books until the driver is gone. A frozen worker has no task: that was proved when it was frozen.
pub(super) async fn books(mut books: Bookkeeping, frozen: FrozenView, ends: SourceEnds) {
    let period = if books.is_amqp() { FIGURES_PERIOD } else { BOOKS_PERIOD };
    let mut asked = Asked::new(ends);
    loop {
        let answer = if frozen.is_frozen() { Ok(Answer::Known(Activity::only(Busy::Idle))) } else { read(&mut books).await };
        if !asked.answer(answer, period).await {
            return;
        }
    }
}

async fn read(books: &mut Bookkeeping) -> Result<Answer, BrokerError> {
    let seen = books.sample().await?;
    let processed = books.done();
    let known = |activity: Activity| Answer::Known(Activity { processed, ..activity });
    Ok(match seen {
        Seen::Busy(active) => known(Activity { active, ..Activity::only(Busy::Busy) }),
        Seen::Idle => known(Activity { active: Some(0), ..Activity::only(Busy::Idle) }),
        Seen::IdleAndTaking => known(Activity { active: Some(0), taking: true, ..Activity::only(Busy::Idle) }),
        Seen::IdleAndStarting => Answer::Starting(Activity { active: Some(0), ..Activity::only(Busy::Idle) }),
        Seen::Elsewhere(_) => Answer::Elsewhere,
        Seen::Unknown => Answer::Unknown,
    })
}

/// The worker's connections.
pub(super) struct Pops {
    pub(super) pops: BlockedPops,
    /// So many of them wait at least while nothing runs.
    pub(super) at_least: u32,
    /// Most connections that ever waited at once, for the gate.
    pub(super) most: Arc<AtomicUsize>,
    pub(super) frozen: FrozenView,
    pub(super) connections: Watched,
    /// Ports at which the broker listens.
    pub(super) broker_ports: BTreeSet<u16>,
}

/// So many connections of a worker wait at least while it has no task. One that waits while it has room (its locks tell whose the tasks are) has one connection
/// for all that it runs at once; of the others each loop has its own.
pub(super) fn waits_at_least(framework: &Framework, concurrency: u32) -> u32 {
    if matches!(framework.books, Books::Locks { .. }) { 1 } else { concurrency }
}

/// Samples the worker's connections until the driver is gone. A frozen worker waits for nothing, and has no task: that was proved when it was frozen.
pub(super) async fn pops(mut worker: Pops, ends: SourceEnds) {
    let main = ends.main.clone();
    let mut asked = Asked::new(ends);
    let mut looks = Looks::default();
    loop {
        looks.of(main.borrow().as_ref().map(|main| main.incarnation));
        if worker.frozen.is_frozen() {
            looks.busy = 0;
            if !asked.answer(Ok(Answer::Known(Activity::only(Busy::Idle))), POPS_PERIOD).await {
                return;
            }
            continue;
        }
        let answer = worker.look(&mut looks).await;
        if worker.frozen.is_frozen() {
            // Frozen while it was looked at: of a wait that was ended for the proof, the look would say busy.
            continue;
        }
        let Some(answer) = answer.transpose() else {
            // Looked at again soon, without a word.
            tokio::time::sleep(POPS_PERIOD / 4).await;
            continue;
        };
        if !asked.answer(answer, POPS_PERIOD).await {
            return;
        }
    }
}

impl Pops {
    /// None: busy by a first look, which proves nothing yet.
    async fn look(&mut self, looks: &mut Looks) -> Result<Option<Answer>, BrokerError> {
        let connections = self.connections.look(true);
        let (ports, to_broker) = (connections.others(), connections.others_to(&self.broker_ports));
        let seen = self.pops.sample(&ports).await?;
        let none_here = self.pops.none_here(&ports, &to_broker).await?;
        let answer = looks.look(seen, self.at_least);
        self.most.store(looks.most, Ordering::Relaxed);
        let is_idle = matches!(&answer, Some(Answer::Known(activity)) if activity.busy == Busy::Idle);
        // A worker that waits while it has room: idle once every task in hand is proved to be another's.
        Ok(if is_idle && none_here == Some(false) { Some(Answer::Elsewhere) } else { answer })
    }
}

/// What looks at one worker process have shown.
#[derive(Default)]
struct Looks {
    incarnation: Option<u64>,
    /// In a row that said busy.
    busy: u32,
    /// Most connections that ever waited at once.
    most: usize,
}

impl Looks {
    fn of(&mut self, incarnation: Option<u64>) {
        if self.incarnation != incarnation {
            *self = Self { incarnation, ..Self::default() };
        }
    }

    /// None: busy by a first look.
    fn look(&mut self, seen: Option<Waiting>, at_least: u32) -> Option<Answer> {
        let Some(seen) = seen else {
            self.busy = 0;
            return Some(Answer::Unknown);
        };
        self.most = self.most.max(seen.waiting);
        if seen.waiting >= needed(at_least, self.most, seen.connections) {
            self.busy = 0;
            return Some(Answer::Known(Activity::only(Busy::Idle)));
        }
        self.busy += 1;
        if self.most == 0 && seen.greeting == seen.connections {
            return Some(Answer::Starting(Activity::only(Busy::Busy)));
        }
        (self.busy >= BUSY_LOOKS).then(|| Answer::Known(Activity::only(Busy::Busy)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(answer: Option<Answer>) -> Option<Busy> {
        answer.map(|answer| match answer {
            Answer::Known(activity) => activity.busy,
            Answer::Starting(_) | Answer::Elsewhere | Answer::Unknown => Busy::Unknown,
        })
    }

    #[test]
    fn idle_is_believed_at_once_and_busy_by_the_second_look() {
        let seen = |waiting| Some(Waiting { connections: 3, waiting, greeting: 0 });
        let mut looks = Looks::default();
        assert_eq!(busy(looks.look(seen(1), 1)), Some(Busy::Idle));
        assert_eq!(busy(looks.look(seen(0), 1)), None);
        assert_eq!(busy(looks.look(seen(0), 1)), Some(Busy::Busy));
        assert_eq!(busy(looks.look(seen(1), 1)), Some(Busy::Idle));
        assert_eq!(busy(looks.look(None, 1)), Some(Busy::Unknown));
    }

    #[test]
    fn a_worker_is_idle_only_while_all_connections_wait_that_ever_did() {
        let seen = |connections, waiting| Some(Waiting { connections, waiting, greeting: 0 });
        let mut looks = Looks::default();
        assert_eq!(busy(looks.look(seen(5, 4), 1)), Some(Busy::Idle));
        assert_eq!(busy(looks.look(seen(5, 3), 1)), None);
        assert_eq!(busy(looks.look(seen(5, 3), 1)), Some(Busy::Busy));
        // One has gone for good: three are all there are.
        assert_eq!(busy(looks.look(seen(3, 3), 1)), Some(Busy::Idle));
        // Another process is another worker.
        looks.of(Some(7));
        assert_eq!(busy(looks.look(seen(5, 1), 1)), Some(Busy::Idle));
        // The annotation is a lower bound.
        assert_eq!(busy(looks.look(seen(5, 1), 2)), None);
    }

    #[test]
    fn one_connection_waits_for_all_that_a_bullmq_worker_runs_at_once() {
        let at_least = |worker: &str| waits_at_least(qscaler_core::framework::framework(worker).unwrap(), 10);
        assert_eq!((at_least("bullmq"), at_least("redis-loop")), (1, 10));
        let seen = Some(Waiting { connections: 2, waiting: 1, greeting: 1 });
        assert_eq!(busy(Looks::default().look(seen, at_least("bullmq"))), Some(Busy::Idle));
    }

    #[test]
    fn a_loop_that_is_connected_and_has_asked_for_no_task_yet_is_not_busy() {
        let seen = |waiting, greeting| Some(Waiting { connections: 2, waiting, greeting });
        let starts = |answer: Option<Answer>| matches!(answer, Some(Answer::Starting(_)));
        let mut looks = Looks::default();
        assert!(starts(looks.look(seen(0, 2), 1)) && starts(looks.look(seen(0, 2), 1)), "it loads what it works with");
        // Its first task was there already: it has never waited.
        looks.look(seen(0, 1), 1);
        assert_eq!(busy(looks.look(seen(0, 1), 1)), Some(Busy::Busy));
        // One that has waited once and is heard greeting has a task: it may look after its connection meanwhile.
        let mut looks = Looks::default();
        looks.look(seen(1, 1), 1);
        looks.look(seen(0, 2), 1);
        assert_eq!(busy(looks.look(seen(0, 2), 1)), Some(Busy::Busy));
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_starts_once_and_not_for_ever() {
        let idle = || Answer::Starting(Activity::only(Busy::Idle));
        let (main, inputs) = (tokio::sync::watch::channel(None).1, mpsc::channel(1).0);
        let start = Start::new(crate::worker::procs::ProcFs::at("/proc"), "");
        let mut asked = Asked::new(SourceEnds { main, inputs, gaps: Gaps::default(), mend: String::new(), start });
        let mut told = |worker| busy(Some(asked.begun(Some(worker), idle())));
        assert_eq!(told(1), Some(Busy::Unknown));
        tokio::time::sleep(Duration::from_millis(qscaler_core::drain::plan::SLOW_START_MS)).await;
        assert_eq!(told(1), Some(Busy::Idle), "it never showed that it has begun");
        assert_eq!(told(2), Some(Busy::Unknown), "another worker process");
        assert_eq!(busy(Some(asked.begun(Some(2), Answer::Known(Activity::only(Busy::Busy))))), Some(Busy::Busy));
        assert_eq!(busy(Some(asked.begun(Some(2), idle()))), Some(Busy::Idle), "it ends its consumer when it is told to leave");
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_never_tells_has_a_gap_within_a_minute_and_none_once_it_does() {
        let child = std::process::Command::new("true").spawn().unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        let (_keep, main) = tokio::sync::watch::channel(Some(Arc::new(crate::input::Main { pid: 1, incarnation: 1, pidfd })));
        let (inputs, mut driver) = mpsc::channel(64);
        tokio::spawn(async move { while driver.recv().await.is_some() {} });
        let gaps = Gaps::default();
        // Where the broker's port is not known every worker counts as connected.
        let start = Start::new(crate::worker::procs::ProcFs::at("/proc"), "");
        let mut asked = Asked::new(SourceEnds { main, inputs, gaps: gaps.clone(), mend: "say busy".to_owned(), start });
        let begin = Instant::now();
        while gaps.list().is_empty() {
            assert!(begin.elapsed() < Duration::from_secs(60));
            asked.answer(Ok(Answer::Unknown), POPS_PERIOD).await;
        }
        assert_eq!((gaps.list()[0].reason, gaps.list()[0].detail.as_str()), (GapReason::IdleUnknown, "say busy"));
        asked.answer(Ok(Answer::Elsewhere), POPS_PERIOD).await;
        assert!(gaps.list().is_empty());
        let mut child = child;
        child.wait().unwrap();
    }
}
