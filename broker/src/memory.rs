//! A broker in memory: a fake for tests and simulation, which passes the same suite as the real ones. In: tasks put and taken by a test, faults
//! switched on and off, a clock. Out: the three traits. Left to others: everything about real servers.

use crate::signing::{self, PublicKeys, Signer};
use crate::{BrokerError, ControlReceiver, ControlSender, Delivery, DeliveryHandle, QueueQuery, QueueStats, Reports, Retry, now_ms};
use async_trait::async_trait;
use qscaler_core::message::{ControlMessage, Report};
use qscaler_core::scale::QueueSample;
use qscaler_core::workload::ControlAddress;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Reports kept per workload: the oldest go first, as in the real ones.
const REPORTS_MAX: usize = 10_000;

type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The broker. Clones are the same broker.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
    signer: Signer,
}

struct Shared {
    state: Mutex<State>,
    /// Something has come that a receiver may wait for.
    news: Notify,
    clock: Clock,
}

#[derive(Debug, Default)]
struct State {
    fault: Option<Retry>,
    tasks: HashMap<String, Tasks>,
    unacked_known: bool,
    control: HashMap<ControlAddress, VecDeque<Item>>,
    directed: HashMap<(ControlAddress, String), VecDeque<Item>>,
    reports: HashMap<ControlAddress, VecDeque<Vec<u8>>>,
    next: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tasks {
    ready: u64,
    unacked: u64,
    published: u64,
    completed: u64,
}

#[derive(Clone, Debug)]
struct Item {
    number: u64,
    body: Vec<u8>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("state", &*self.lock()).finish_non_exhaustive()
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty broker on the clock of the wall.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(now_ms))
    }

    /// An empty broker on another clock, in milliseconds since the Unix epoch: it decides which messages are dead.
    #[must_use]
    pub fn with_clock(clock: Clock) -> Self {
        let state = State { unacked_known: true, ..State::default() };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), news: Notify::new(), clock }), signer: Signer::default() }
    }

    /// The same broker, to which messages go signed.
    #[must_use]
    pub fn signing(&self, signer: Signer) -> Self {
        Self { signer, ..self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on every call fails this way; None: works again.
    pub fn fail(&self, how: Option<Retry>) {
        self.lock().fault = how;
        self.shared.news.notify_waiters();
    }

    /// Whether the number of tasks in work is told.
    pub fn tell_unacked(&self, known: bool) {
        self.lock().unacked_known = known;
    }

    /// Puts tasks on a queue.
    pub fn put_tasks(&self, queue: &str, count: u64) {
        let mut state = self.lock();
        let tasks = state.tasks.entry(queue.to_owned()).or_default();
        tasks.ready += count;
        tasks.published += count;
    }

    /// A worker takes up to `count` tasks; the number that it got.
    pub fn take_tasks(&self, queue: &str, count: u64) -> u64 {
        let mut state = self.lock();
        let tasks = state.tasks.entry(queue.to_owned()).or_default();
        let got = count.min(tasks.ready);
        tasks.ready -= got;
        tasks.unacked += got;
        got
    }

    /// Up to `count` tasks in work are finished.
    pub fn finish_tasks(&self, queue: &str, count: u64) {
        let mut state = self.lock();
        let tasks = state.tasks.entry(queue.to_owned()).or_default();
        let done = count.min(tasks.unacked);
        tasks.unacked -= done;
        tasks.completed += done;
    }

    /// Up to `count` tasks in work come back to the queue: their worker died.
    pub fn return_tasks(&self, queue: &str, count: u64) {
        let mut state = self.lock();
        let tasks = state.tasks.entry(queue.to_owned()).or_default();
        let back = count.min(tasks.unacked);
        tasks.unacked -= back;
        tasks.ready += back;
    }

    /// Puts bytes on the workload's control queue as they are.
    pub fn put_control(&self, address: &ControlAddress, body: &[u8]) {
        let mut state = self.lock();
        let item = state.item(body.to_vec());
        state.control.entry(address.clone()).or_default().push_back(item);
        drop(state);
        self.shared.news.notify_waiters();
    }

    /// Puts bytes on the workload's report queue as they are.
    pub fn put_report(&self, address: &ControlAddress, body: &[u8]) {
        let mut state = self.lock();
        let reports = state.reports.entry(address.clone()).or_default();
        reports.push_back(body.to_vec());
        if reports.len() > REPORTS_MAX {
            reports.pop_front();
        }
    }

    /// A sidecar's end. Dropping it is its death: what it had taken and not acknowledged goes back.
    #[must_use]
    pub fn receiver(&self, address: &ControlAddress, pod_uid: &str) -> MemoryReceiver {
        let (memory, address, pod_uid) = (self.clone(), address.clone(), pod_uid.to_owned());
        MemoryReceiver { memory, address, pod_uid, keys: None, held: HashMap::new(), malformed: 0 }
    }

    fn check(&self, operation: &'static str) -> Result<MutexGuard<'_, State>, BrokerError> {
        let state = self.lock();
        match state.fault {
            None => Ok(state),
            Some(retry) => Err(BrokerError { operation, place: "memory".to_owned(), message: "switched off by the test".to_owned(), retry }),
        }
    }
}

impl State {
    fn item(&mut self, body: Vec<u8>) -> Item {
        self.next += 1;
        Item { number: self.next, body }
    }
}

#[async_trait]
impl QueueStats for Memory {
    async fn sample_each(&self, queries: &[QueueQuery]) -> Result<Vec<Result<QueueSample, BrokerError>>, BrokerError> {
        let state = self.check("measuring queues")?;
        let sample = |query: &QueueQuery| {
            let tasks = state.tasks.get(&query.queue).copied().unwrap_or_default();
            Ok(QueueSample {
                ready: Some(tasks.ready),
                unacked: state.unacked_known.then_some(tasks.unacked),
                published_total: Some(tasks.published),
                completed_total: Some(tasks.completed),
                ..QueueSample::default()
            })
        };
        Ok(queries.iter().map(sample).collect())
    }
}

#[async_trait]
impl ControlSender for Memory {
    async fn declare(&self, address: &ControlAddress) -> Result<(), BrokerError> {
        let mut state = self.check("declaring control and report queues")?;
        state.control.entry(address.clone()).or_default();
        state.reports.entry(address.clone()).or_default();
        Ok(())
    }

    async fn publish(&self, address: &ControlAddress, message: &ControlMessage) -> Result<(), BrokerError> {
        let mut state = self.check("sending a control message")?;
        let item = state.item(self.signer.seal(message));
        match &message.target {
            Some(pod) => state.directed.entry((address.clone(), pod.clone())).or_default().push_back(item),
            None => state.control.entry(address.clone()).or_default().push_back(item),
        }
        drop(state);
        self.shared.news.notify_waiters();
        Ok(())
    }

    async fn purge(&self, address: &ControlAddress) -> Result<(), BrokerError> {
        self.check("dropping control messages")?.control.entry(address.clone()).or_default().clear();
        Ok(())
    }

    async fn reports(&self, address: &ControlAddress, max: usize) -> Result<Reports, BrokerError> {
        let mut state = self.check("reading reports")?;
        let waiting = state.reports.entry(address.clone()).or_default();
        let mut taken = Reports::default();
        for body in waiting.drain(..max.min(waiting.len())) {
            match Report::decode(&body) {
                Ok(report) => taken.reports.push(report),
                Err(_) => taken.malformed += 1,
            }
        }
        Ok(taken)
    }

    async fn remove(&self, address: &ControlAddress) -> Result<(), BrokerError> {
        let mut state = self.check("removing control and report queues")?;
        state.control.remove(address);
        state.reports.remove(address);
        Ok(())
    }
}

/// A sidecar's end of a [`Memory`].
#[derive(Debug)]
pub struct MemoryReceiver {
    memory: Memory,
    address: ControlAddress,
    pod_uid: String,
    keys: Option<Arc<PublicKeys>>,
    /// Taken and neither acknowledged nor given back, and whether it was directed.
    held: HashMap<u64, (Item, bool)>,
    malformed: u64,
}

impl MemoryReceiver {
    /// The same end in a pod that was given these keys.
    #[must_use]
    pub fn verifying(mut self, keys: Arc<PublicKeys>) -> Self {
        self.keys = Some(keys);
        self
    }

    fn try_take(&mut self, shared: bool) -> Result<Option<Delivery>, BrokerError> {
        let memory = self.memory.clone();
        let mut state = memory.check("waiting for control messages")?;
        let now = (memory.shared.clock)();
        loop {
            let own = state.directed.get_mut(&(self.address.clone(), self.pod_uid.clone())).and_then(VecDeque::pop_front);
            let found = match own {
                Some(item) => Some((item, true)),
                None if shared => state.control.get_mut(&self.address).and_then(VecDeque::pop_front).map(|item| (item, false)),
                None => None,
            };
            let Some((item, directed)) = found else { return Ok(None) };
            match signing::open(&item.body, self.keys.as_deref()) {
                Ok((message, seal)) if message.expires_ms > now => {
                    let number = item.number;
                    self.held.insert(number, (item, directed));
                    return Ok(Some(Delivery { message, seal, handle: DeliveryHandle::Memory(number) }));
                }
                Ok(_) => {}
                Err(_) => self.malformed += 1,
            }
        }
    }

    fn put_back(&self, item: Item, directed: bool) {
        let mut state = self.memory.lock();
        if directed {
            state.directed.entry((self.address.clone(), self.pod_uid.clone())).or_default().push_front(item);
        } else {
            state.control.entry(self.address.clone()).or_default().push_front(item);
        }
        drop(state);
        self.memory.shared.news.notify_waiters();
    }
}

#[async_trait]
impl ControlReceiver for MemoryReceiver {
    async fn take(&mut self, shared: bool, wait: Duration) -> Result<Option<Delivery>, BrokerError> {
        let deadline = Instant::now() + wait;
        let hub = Arc::clone(&self.memory.shared);
        loop {
            // Listening before looking: news between the two are not missed.
            let mut news = std::pin::pin!(hub.news.notified());
            news.as_mut().enable();
            if let Some(delivery) = self.try_take(shared)? {
                return Ok(Some(delivery));
            }
            if timeout_at(deadline, news).await.is_err() {
                return Ok(None);
            }
        }
    }

    async fn ack(&mut self, delivery: Delivery) -> Result<(), BrokerError> {
        drop(self.memory.check("acknowledging a control message")?);
        if let DeliveryHandle::Memory(number) = delivery.handle {
            self.held.remove(&number);
        }
        Ok(())
    }

    async fn give_back(&mut self, delivery: Delivery) -> Result<(), BrokerError> {
        drop(self.memory.check("giving a control message back")?);
        if let DeliveryHandle::Memory(number) = delivery.handle
            && let Some((item, directed)) = self.held.remove(&number)
        {
            self.put_back(item, directed);
        }
        Ok(())
    }

    async fn report(&mut self, report: &Report) -> Result<(), BrokerError> {
        drop(self.memory.check("sending a report")?);
        self.memory.put_report(&self.address, &report.encode());
        Ok(())
    }

    fn malformed(&self) -> u64 {
        self.malformed
    }
}

impl Drop for MemoryReceiver {
    fn drop(&mut self) {
        for (_, (item, directed)) in std::mem::take(&mut self.held) {
            self.put_back(item, directed);
        }
    }
}
