//! Connections to brokers: one for queue figures and one for control messages per distinct URL, whatever the number of workloads. In: URLs and
//! what each workload wants measured. Out: samples, reports and problems, as inputs of the main loop. Left to others: what they mean.

use crate::input::{Input, Measured};
use crate::observe::addresses::BothAddresses;
use crate::observe::resolve::SecretUrl;
use futures::StreamExt;
use qscaler_broker::signing::Signer;
use qscaler_broker::{BrokerError, ControlSender, QueueQuery, QueueStats, Retry};
use qscaler_core::scale::QueueSample;
use qscaler_core::workload::{ControlAddress, WorkloadId};
use qscaler_runtime::backoff::Backoff;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// How often queues are measured and reports fetched.
const PERIOD: Duration = Duration::from_secs(1);
/// How soon reports that a drain waits for are fetched: bounds what a nudge in every look costs.
const NUDGE: Duration = Duration::from_millis(150);
/// A broker that has not answered by then has failed this time.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Reports of one workload taken at once; the rest waits a second.
const REPORTS_MAX: usize = 1_000;
/// Workloads of one batch: far more than most clusters have, and few enough to be decided about within a hundredth of a second.
const BATCH: usize = 250;
/// Workloads whose reports are fetched at the same time over one connection.
const CONCURRENT: usize = 16;
/// Where only a person can help (credentials, rights), that person should not wait for long afterwards.
const AFTER_CHANGE: Duration = Duration::from_secs(15);

/// How to open a broker; replaced in tests.
#[derive(Clone)]
pub struct Opener {
    /// Queue figures.
    pub stats: Open<dyn QueueStats>,
    /// Control channel.
    pub control: Open<dyn ControlSender>,
}

/// From a URL to a broker.
pub type Open<T> = Arc<dyn Fn(&str) -> Result<Arc<T>, BrokerError> + Send + Sync>;

impl Opener {
    /// Whatever the URL, with control messages signed by the key that the signer has at that moment.
    #[must_use]
    pub fn new(signer: Signer) -> Self {
        Self {
            stats: Arc::new(qscaler_broker::open_stats),
            control: Arc::new(move |url| Ok(Arc::new(BothAddresses::new(qscaler_broker::open_control(url, signer.clone())?)))),
        }
    }

    /// Only to these hosts, where there are any: names, addresses, or `*.DOMAIN` for what is below a domain. Cases do not matter.
    #[must_use]
    pub fn limited(hosts: Vec<String>, signer: Signer) -> Self {
        let Self { stats, control } = Self::new(signer);
        if hosts.is_empty() {
            return Self { stats, control };
        }
        let hosts: Arc<[String]> = hosts.iter().map(|host| host.trim().to_ascii_lowercase()).collect();
        let allowed = Arc::clone(&hosts);
        Self {
            stats: Arc::new(move |url| check_hosts(url, &allowed).and_then(|()| stats(url))),
            control: Arc::new(move |url| check_hosts(url, &hosts).and_then(|()| control(url))),
        }
    }
}

/// What is no URL is left to whoever opens it: he says what is wrong with it.
fn check_hosts(url: &str, allowed: &[String]) -> Result<(), BrokerError> {
    let Ok(url) = qscaler_broker_url::parse(url) else { return Ok(()) };
    let Some(host) = url.hosts().into_iter().find(|host| !is_allowed(host, allowed)) else { return Ok(()) };
    Err(BrokerError {
        operation: "connecting",
        place: url.place(),
        message: format!("{host} is none of the hosts that this installation allows for brokers (chart value brokerHosts): {}", allowed.join(", ")),
        retry: Retry::AfterChange,
    })
}

fn is_allowed(host: &str, allowed: &[String]) -> bool {
    // A name with the root's dot is the same name.
    let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
    allowed.iter().any(|one| match one.strip_prefix("*.") {
        Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => host == one.trim_matches(['[', ']']).trim_end_matches('.'),
    })
}

type Queries = BTreeMap<WorkloadId, Vec<QueueQuery>>;

/// All connections.
pub struct Brokers {
    opener: Opener,
    inputs: mpsc::Sender<Input>,
    stats: HashMap<SecretUrl, Lane<Queries>>,
    control: HashMap<SecretUrl, ControlLane>,
    places: HashMap<WorkloadId, Place>,
}

/// Where a workload's queues and control messages are.
#[derive(Clone, PartialEq, Eq)]
struct Place {
    queues: SecretUrl,
    control: SecretUrl,
    address: ControlAddress,
}

struct Lane<T> {
    members: watch::Sender<T>,
    stop: CancellationToken,
}

struct ControlLane {
    lane: Lane<BTreeSet<ControlAddress>>,
    nudges: Arc<Nudges>,
    sender: Arc<dyn ControlSender>,
}

impl<T> Drop for Lane<T> {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Brokers {
    /// None yet.
    #[must_use]
    pub fn new(opener: Opener, inputs: mpsc::Sender<Input>) -> Self {
        Self { opener, inputs, stats: HashMap::new(), control: HashMap::new(), places: HashMap::new() }
    }

    /// From now on the workload's queues are measured and its reports fetched.
    ///
    /// # Errors
    /// When a URL is not valid.
    pub fn register(
        &mut self,
        address: &ControlAddress,
        queues: &SecretUrl,
        control: &SecretUrl,
        queries: Vec<QueueQuery>,
    ) -> Result<(), BrokerError> {
        let id = &address.workload;
        let place = Place { queues: queues.clone(), control: control.clone(), address: address.clone() };
        self.deregister_unless(id, Some(&place));
        if !self.stats.contains_key(queues) {
            let broker = (self.opener.stats)(queues.expose())?;
            let (members, receiver) = watch::channel(Queries::new());
            let stop = CancellationToken::new();
            tokio::spawn(measure(broker, receiver, self.inputs.clone(), stop.clone()));
            self.stats.insert(queues.clone(), Lane { members, stop });
        }
        if !self.control.contains_key(control) {
            let sender = (self.opener.control)(control.expose())?;
            let (members, receiver) = watch::channel(BTreeSet::new());
            let stop = CancellationToken::new();
            let nudges = Arc::new(Nudges::default());
            tokio::spawn(fetch(Arc::clone(&sender), Wanted { members: receiver, nudges: Arc::clone(&nudges) }, self.inputs.clone(), stop.clone()));
            self.control.insert(control.clone(), ControlLane { lane: Lane { members, stop }, nudges, sender });
        }
        self.places.insert(id.clone(), place);
        if let Some(lane) = self.stats.get(queues) {
            lane.members.send_if_modified(|m| m.insert(id.clone(), queries.clone()).as_ref() != Some(&queries));
        }
        if let Some(lane) = self.control.get(control) {
            lane.lane.members.send_if_modified(|m| m.insert(address.clone()));
        }
        Ok(())
    }

    /// The workload is not measured any more. Connections that nobody needs are closed.
    pub fn deregister(&mut self, id: &WorkloadId) {
        self.deregister_unless(id, None);
    }

    fn deregister_unless(&mut self, id: &WorkloadId, stays: Option<&Place>) {
        let Some(place) = self.places.get(id).cloned() else { return };
        if stays == Some(&place) {
            return;
        }
        self.places.remove(id);
        let Place { queues, control, address } = place;
        if let Some(lane) = self.stats.get(&queues) {
            lane.members.send_if_modified(|m| m.remove(id).is_some());
            if lane.members.borrow().is_empty() {
                self.stats.remove(&queues);
            }
        }
        if let Some(lane) = self.control.get(&control) {
            lane.lane.members.send_if_modified(|m| m.remove(&address));
            if lane.lane.members.borrow().is_empty() {
                self.control.remove(&control);
            }
        }
    }

    /// The workload's control channel, if it is registered.
    #[must_use]
    pub fn control(&self, id: &WorkloadId) -> Option<Arc<dyn ControlSender>> {
        let place = self.places.get(id)?;
        self.control.get(&place.control).map(|lane| Arc::clone(&lane.sender))
    }

    /// The URL of the broker that has the workload's queues, if it is registered.
    #[must_use]
    pub fn url(&self, id: &WorkloadId) -> Option<SecretUrl> {
        self.places.get(id).map(|place| place.queues.clone())
    }

    /// Fetches the workload's reports soon, and not only when its second is over: a drain waits for them.
    pub fn nudge(&self, id: &WorkloadId) {
        if let Some(lane) = self.places.get(id).and_then(|place| self.control.get(&place.control)) {
            lane.nudges.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
            lane.nudges.wake.notify_one();
        }
    }

    /// Closes everything.
    pub fn clear(&mut self) {
        self.stats.clear();
        self.control.clear();
        self.places.clear();
    }

    /// Open connections: queue figures and control channels.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.stats.len() + self.control.len()
    }
}

/// Waits for the next second, or after a failure for the back-off. False: stop.
async fn pause(next: &mut tokio::time::Interval, backoff: &mut Backoff, failed: Option<Retry>, stop: &CancellationToken) -> bool {
    match failed {
        None => {
            backoff.reset();
            tokio::select! {
                () = stop.cancelled() => false,
                _ = next.tick() => true,
            }
        }
        Some(Retry::Later) => {
            let goes_on = backoff.wait(stop).await;
            next.reset_immediately();
            goes_on
        }
        Some(Retry::AfterChange) => {
            next.reset_at(Instant::now() + AFTER_CHANGE);
            tokio::select! {
                () = stop.cancelled() => false,
                _ = next.tick() => true,
            }
        }
    }
}

/// Longer waits would only make a broker that is back be seen late; a failed call every five seconds costs nobody anything.
fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(200), Duration::from_secs(5), 2.0).unwrap_or_else(|_| Backoff::reconnect())
}

fn every_second() -> tokio::time::Interval {
    let mut interval = tokio::time::interval(PERIOD);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn late(operation: &'static str) -> BrokerError {
    let message = format!("no answer within {} s", TIMEOUT.as_secs());
    BrokerError { operation, place: "the broker".to_owned(), message, retry: Retry::Later }
}

/// Splits a round into batches that are spread over the second, so that thousands of workloads are not all due at one instant.
fn batches<T>(all: Vec<T>) -> Vec<(Duration, Vec<T>)> {
    let count = all.len().div_ceil(BATCH).max(1);
    let size = all.len().div_ceil(count).max(1);
    let mut all = all.into_iter();
    let gap = PERIOD / u32::try_from(count).unwrap_or(u32::MAX);
    (0..count).map(|n| (gap * u32::try_from(n).unwrap_or(u32::MAX), all.by_ref().take(size).collect())).collect()
}

/// Measures all queues of one broker every second, a batch in one call.
async fn measure(broker: Arc<dyn QueueStats>, mut members: watch::Receiver<Queries>, inputs: mpsc::Sender<Input>, stop: CancellationToken) {
    let (mut next, mut backoff, mut failed) = (every_second(), backoff(), None);
    while pause(&mut next, &mut backoff, failed, &stop).await {
        let mut broken: Option<BrokerError> = None;
        let begin = Instant::now();
        let now: Vec<_> = members.borrow_and_update().clone().into_iter().collect();
        for (after, batch) in batches(now) {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(begin + after) => {}
            }
            let all: Vec<QueueQuery> = batch.iter().flat_map(|(_, queries)| queries).cloned().collect();
            // A broker that failed the last batch is not asked again before the back-off: its other workloads hear the same.
            let answer = match broken.take() {
                Some(error) => Err(error),
                None if all.is_empty() => Ok(Vec::new()),
                None => tokio::time::timeout(TIMEOUT, broker.sample_each(&all)).await.unwrap_or_else(|_| Err(late("measuring queues"))),
            };
            for input in measured(batch, &answer, |queries| broker.gap(queries)) {
                let sent = tokio::select! {
                    () = stop.cancelled() => return,
                    sent = inputs.send(input) => sent,
                };
                if sent.is_err() {
                    return;
                }
            }
            broken = answer.err();
        }
        failed = broken.map(|error| error.retry);
    }
}

/// One input per workload of a batch.
fn measured(
    batch: Vec<(WorkloadId, Vec<QueueQuery>)>,
    answer: &Result<Vec<Result<QueueSample, BrokerError>>, BrokerError>,
    gap: impl Fn(&[QueueQuery]) -> Option<Arc<str>>,
) -> Vec<Input> {
    let mut results = answer.as_ref().map(|all| all.iter());
    let one = |(id, queries): (WorkloadId, Vec<QueueQuery>)| {
        let result = match &mut results {
            Ok(results) => {
                let mine: Result<Vec<_>, &BrokerError> = results.by_ref().take(queries.len()).map(|r| r.as_ref().cloned()).collect();
                mine.map_err(ToString::to_string)
            }
            Err(error) => Err(error.to_string()),
        };
        let result = result.and_then(|s| if s.len() == queries.len() { Ok(s) } else { Err("the broker gave too few figures".to_owned()) });
        Input::Sampled(id, result.map(|queues| Measured { queues, gap: gap(&queries) }))
    };
    batch.into_iter().map(one).collect()
}

/// Whose reports are fetched: all every second, and the nudged ones in between.
struct Wanted {
    members: watch::Receiver<BTreeSet<ControlAddress>>,
    nudges: Arc<Nudges>,
}

/// Workloads whose reports are wanted soon.
#[derive(Default)]
struct Nudges {
    ids: Mutex<BTreeSet<WorkloadId>>,
    wake: Notify,
}

impl Wanted {
    /// Waits for the next round, and says whose reports to fetch in it. None: stop.
    async fn next(
        &mut self,
        next: &mut tokio::time::Interval,
        backoff: &mut Backoff,
        failed: Option<Retry>,
        stop: &CancellationToken,
    ) -> Option<BTreeSet<ControlAddress>> {
        let members = self.members.clone();
        let all = || members.borrow().clone();
        if failed.is_some() {
            return pause(next, backoff, failed, stop).await.then(all);
        }
        tokio::select! {
            goes_on = pause(next, backoff, None, stop) => goes_on.then(all),
            () = self.nudges.wake.notified() => {
                tokio::time::sleep(NUDGE).await;
                let nudged = std::mem::take(&mut *self.nudges.ids.lock().unwrap_or_else(PoisonError::into_inner));
                Some(all().into_iter().filter(|address| nudged.contains(&address.workload)).collect())
            }
        }
    }
}

/// Fetches the reports of all workloads on one control channel.
async fn fetch(broker: Arc<dyn ControlSender>, mut wanted: Wanted, inputs: mpsc::Sender<Input>, stop: CancellationToken) {
    let (mut next, mut backoff, mut failed) = (every_second(), backoff(), None);
    let mut declared: BTreeSet<ControlAddress> = BTreeSet::new();
    while let Some(now) = wanted.next(&mut next, &mut backoff, failed, &stop).await {
        let all = wanted.members.borrow().clone();
        declared.retain(|address| all.contains(address));
        let mut broken: Option<BrokerError> = None;
        let begin = Instant::now();
        for (after, batch) in batches(now.into_iter().collect()) {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(begin + after) => {}
            }
            let answers = match &broken {
                // As for measuring: not asked again before the back-off.
                Some(error) => batch.into_iter().map(|address| Input::ControlFailed(address.workload, error.to_string())).collect(),
                None => fetch_batch(&broker, batch, &mut declared, &mut broken).await,
            };
            for input in answers {
                let sent = tokio::select! {
                    () = stop.cancelled() => return,
                    sent = inputs.send(input) => sent,
                };
                if sent.is_err() {
                    return;
                }
            }
        }
        failed = broken.map(|error| error.retry);
    }
}

/// One call per workload, some of them at the same time. When none of them works the broker is `broken`; one alone says nothing of the others.
async fn fetch_batch(
    broker: &Arc<dyn ControlSender>,
    batch: Vec<ControlAddress>,
    declared: &mut BTreeSet<ControlAddress>,
    broken: &mut Option<BrokerError>,
) -> Vec<Input> {
    let (mut out, mut changes, mut first) = (Vec::new(), Vec::new(), None);
    let known = &*declared;
    let calls = batch.into_iter().map(|address| async move {
        let call = async {
            if !known.contains(&address) {
                broker.declare(&address).await?;
            }
            broker.reports(&address, REPORTS_MAX).await
        };
        let answer = tokio::time::timeout(TIMEOUT, call).await.unwrap_or_else(|_| Err(late("fetching reports")));
        (address, answer)
    });
    let mut answers = Box::pin(futures::stream::iter(calls).buffer_unordered(CONCURRENT));
    while let Some((address, answer)) = answers.next().await {
        changes.push((address.clone(), answer.is_ok()));
        out.push(match answer {
            Ok(reports) => Input::Reports(address.workload, reports),
            Err(error) => {
                let input = Input::ControlFailed(address.workload, error.to_string());
                first.get_or_insert(error);
                input
            }
        });
    }
    drop(answers);
    if changes.iter().all(|(_, works)| !works) {
        *broken = first;
    }
    for (address, works) in changes {
        if works {
            declared.insert(address);
        } else {
            declared.remove(&address);
        }
    }
    out
}

#[cfg(test)]
#[path = "brokers_tests.rs"]
mod tests;
