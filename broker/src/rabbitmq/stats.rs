//! Depths of queues in RabbitMQ. In: queue names. Out: ready messages, fresh, by passive declare; unacknowledged ones and counters from the
//! management API, at most [`MANAGEMENT_EVERY`] old or unknown. Left to others: the API itself (`management`).
//! A queue that does not exist holds nothing: workers that have not started yet will make it. Its passive declare costs a channel, so it is asked
//! again only after [`MISSING_AGAIN`].

use super::management::{self, Api, QueueFigures};
use super::{AmqpLink, is_missing, is_refused, names};
use crate::unseen::Unseen;
use crate::{BrokerError, QueueQuery, QueueStats, now_ms};
use async_trait::async_trait;
use futures::stream::{self, StreamExt};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use qscaler_broker_url::AmqpUrl;
use qscaler_core::scale::QueueSample;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How often the management API is asked: the server renews its statistics no faster.
const MANAGEMENT_EVERY: Duration = Duration::from_secs(5);
/// Older figures of the API are unknown: two missed rounds.
const MANAGEMENT_KEPT: Duration = Duration::from_secs(15);
/// How long a queue that did not exist is taken not to exist.
const MISSING_AGAIN: Duration = Duration::from_secs(1);
/// Channels that declare side by side, so that the round trips of many queues overlap.
const CHANNELS_MAX: usize = 16;
const OPERATION: &str = "measuring queues";

/// See the module.
#[derive(Debug)]
pub(crate) struct RabbitStats {
    link: AmqpLink,
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
    api: Result<Arc<Api>, String>,
    management: tokio::sync::Mutex<ManagementCache>,
    missing: Mutex<HashMap<String, Instant>>,
    /// Why the API gave no figures when it was asked last.
    gap: Mutex<Option<Arc<str>>>,
    /// Queues that have never been there.
    unseen: Unseen<()>,
}

#[derive(Debug)]
struct Session {
    connection: Connection,
    channels: Mutex<Vec<Channel>>,
}

type Fetched = Result<HashMap<String, QueueFigures>, String>;

#[derive(Debug, Default)]
struct ManagementCache {
    figures: HashMap<String, QueueFigures>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
    fetching: Option<JoinHandle<Fetched>>,
}

/// What a passive declare says of a queue.
enum Depth {
    Ready(u64),
    Missing,
    Refused(BrokerError),
}

impl RabbitStats {
    pub(crate) fn new(url: AmqpUrl) -> Self {
        Self {
            api: Api::new(&url).map(Arc::new),
            link: AmqpLink::new(url, "qscaler figures"),
            session: tokio::sync::Mutex::new(None),
            management: tokio::sync::Mutex::new(ManagementCache::default()),
            missing: Mutex::new(HashMap::new()),
            gap: Mutex::new(None),
            unseen: Unseen::default(),
        }
    }

    async fn session(&self) -> Result<Arc<Session>, BrokerError> {
        let mut slot = self.session.lock().await;
        if let Some(session) = slot.as_ref().filter(|session| session.connection.status().connected()) {
            return Ok(Arc::clone(session));
        }
        *slot = None;
        let session = Arc::new(Session { connection: self.link.connect(OPERATION).await?, channels: Mutex::new(Vec::new()) });
        *slot = Some(Arc::clone(&session));
        Ok(session)
    }

    async fn forget(&self, session: &Arc<Session>) {
        let mut slot = self.session.lock().await;
        if slot.as_ref().is_some_and(|live| Arc::ptr_eq(live, session)) {
            *slot = None;
        }
    }

    async fn depth(&self, session: &Session, queue: &str) -> Result<Depth, BrokerError> {
        let name = match names::short(&self.link, OPERATION, queue) {
            Ok(name) => name,
            Err(error) => return Ok(Depth::Refused(error)),
        };
        let idle = session.channels.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let channel = match idle.filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            None => self.link.channel(OPERATION, &session.connection).await?,
        };
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match self.link.raw(channel.queue_declare(name, passive, FieldTable::default())).await {
            Ok(found) => {
                session.channels.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
                Ok(Depth::Ready(u64::from(found.message_count())))
            }
            Err(Some(error)) if is_missing(&error) => Ok(Depth::Missing),
            Err(Some(error)) if is_refused(&error) => Ok(Depth::Refused(self.link.error(OPERATION, &error))),
            // The channel was closed for a reason of this queue's own (an exclusive one, say); the connection lives.
            Err(Some(error)) if error.is_amqp_soft_error() => Ok(Depth::Refused(self.link.error(OPERATION, &error))),
            Err(error) => Err(self.link.either(OPERATION, error.as_ref())),
        }
    }

    async fn depths(&self, queues: &BTreeSet<String>) -> Result<HashMap<String, Depth>, BrokerError> {
        let session = self.session().await?;
        let now = Instant::now();
        let known_missing: BTreeSet<String> = {
            let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
            missing.retain(|_, since| now.duration_since(*since) < MISSING_AGAIN);
            missing.keys().cloned().collect()
        };
        let session_ref = &session;
        let depths: Vec<Result<(String, Depth), BrokerError>> = stream::iter(queues.iter().cloned())
            .map(|queue| {
                let known_missing = known_missing.contains(&queue);
                async move {
                    let depth = if known_missing { Depth::Missing } else { self.depth(session_ref, &queue).await? };
                    if matches!(depth, Depth::Missing) && !known_missing {
                        self.missing.lock().unwrap_or_else(PoisonError::into_inner).insert(queue.clone(), now);
                    }
                    Ok((queue, depth))
                }
            })
            .buffer_unordered(CHANNELS_MAX)
            .collect()
            .await;
        let depths: Result<HashMap<String, Depth>, BrokerError> = depths.into_iter().collect();
        if depths.is_err() {
            self.forget(&session).await;
        }
        depths
    }

    /// The API's figures and their age; empty when they are unknown. Asked in a task of its own: only the very first call waits for it.
    async fn counters(&self, queues: &BTreeSet<String>) -> (HashMap<String, QueueFigures>, f64) {
        let mut cache = self.management.lock().await;
        let due = cache.tried.is_none_or(|at| at.elapsed() >= MANAGEMENT_EVERY);
        if cache.fetching.is_none() && due {
            cache.tried = Some(Instant::now());
            let (url, names) = (self.link.url.clone(), queues.iter().cloned().collect::<Vec<_>>());
            let api = self.api.clone();
            cache.fetching = Some(tokio::spawn(async move { management::fetch(&*api?, &url, &names).await }));
        }
        let first = cache.fetched.is_none() && self.api_gap().is_none();
        if let Some(task) = cache.fetching.as_mut().filter(|task| first || task.is_finished()) {
            let fetched = task.await.unwrap_or_else(|error| Err(error.to_string()));
            cache.fetching = None;
            let problem = cache.take(fetched);
            // A round that was missed is no gap: the figures before it still count.
            self.told(problem.filter(|_| cache.age().is_none()));
        }
        match cache.age() {
            Some(age) => (cache.figures.clone(), age.as_secs_f64()),
            None => (HashMap::new(), 0.0),
        }
    }

    fn api_gap(&self) -> Option<Arc<str>> {
        self.gap.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn told(&self, problem: Option<String>) {
        let place = self.link.url.management.place();
        let mut gap = self.gap.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            None => *gap = None,
            Some(problem) => {
                let words =
                    format!("RabbitMQ's management API at {place} gives no figures ({problem}): unacknowledged messages and rates are unknown");
                if gap.is_none() {
                    tracing::warn!("{words}");
                }
                *gap = Some(words.into());
            }
        }
    }
}

impl ManagementCache {
    /// Gives back why there are no new figures.
    fn take(&mut self, fetched: Fetched) -> Option<String> {
        match fetched {
            Ok(figures) => {
                (self.figures, self.fetched) = (figures, Some(Instant::now()));
                None
            }
            Err(problem) => Some(problem),
        }
    }

    /// Of figures that still count.
    fn age(&self) -> Option<Duration> {
        self.fetched.map(|at| at.elapsed()).filter(|age| *age <= MANAGEMENT_KEPT)
    }
}

fn sample(depth: &Depth, figures: QueueFigures, age_s: f64, now_ms: u64) -> Result<QueueSample, BrokerError> {
    let QueueFigures { ready, unacked, published, completed, head_s } = figures;
    let known = ready.or(unacked).or(published).is_some();
    let age_s = if known { age_s } else { 0.0 };
    let waited_s = head_s.map(|at| now_ms.saturating_sub(at.saturating_mul(1000)) as f64 / 1000.0);
    let sample = |ready| QueueSample {
        ready,
        unacked,
        published_total: published,
        completed_total: completed,
        oldest_s: waited_s.filter(|_| ready != Some(0)),
        age_s,
        ..QueueSample::default()
    };
    match depth {
        Depth::Ready(fresh) => Ok(sample(Some(*fresh))),
        Depth::Missing => Ok(QueueSample { ready: Some(0), unacked: Some(0), ..QueueSample::default() }),
        // RabbitMQ 4.3 wants the right `configure` for a passive declare: the API's ready count, somewhat older, does as well.
        Depth::Refused(_) if ready.is_some() => Ok(sample(ready)),
        Depth::Refused(error) => Err(error.clone()),
    }
}

#[async_trait]
impl QueueStats for RabbitStats {
    async fn sample_each(&self, queries: &[QueueQuery]) -> Result<Vec<Result<QueueSample, BrokerError>>, BrokerError> {
        let queues: BTreeSet<String> = queries.iter().map(|query| query.queue.clone()).collect();
        let depths = self.depths(&queues).await?;
        let (counters, age_s) = self.counters(&queues).await;
        let now_ms = now_ms();
        for (queue, depth) in &depths {
            self.unseen.looked(queue, !matches!(depth, Depth::Missing));
        }
        let of = |query: &QueueQuery| match depths.get(&query.queue) {
            Some(depth) => sample(depth, counters.get(&query.queue).copied().unwrap_or_default(), age_s, now_ms),
            None => Ok(QueueSample::default()),
        };
        Ok(queries.iter().map(of).collect())
    }

    fn gap(&self, queries: &[QueueQuery]) -> Option<Arc<str>> {
        let missing = |query: &QueueQuery| {
            self.unseen.is_overdue(&query.queue).then(|| {
                let (queue, place) = (&query.queue, self.link.url.place());
                format!("the queue {queue:?} does not exist in the virtual host {:?} of {place}: it counts as empty", self.link.url.vhost)
            })
        };
        let words: Vec<String> = self.api_gap().iter().map(ToString::to_string).chain(queries.iter().filter_map(missing)).collect();
        (!words.is_empty()).then(|| words.join("; ").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Retry;

    const API: QueueFigures = QueueFigures { ready: Some(9), unacked: Some(2), published: Some(30), completed: Some(19), head_s: Some(7) };

    fn refused() -> Depth {
        Depth::Refused(BrokerError { operation: OPERATION, place: "amqp://h".into(), message: "refused".into(), retry: Retry::AfterChange })
    }

    #[test]
    fn the_fresh_ready_count_wins_over_the_api_s() {
        let got = sample(&Depth::Ready(4), API, 3.0, 9_500).unwrap();
        assert_eq!(
            got,
            QueueSample {
                ready: Some(4),
                unacked: Some(2),
                published_total: Some(30),
                completed_total: Some(19),
                oldest_s: Some(2.5),
                age_s: 3.0,
                ..QueueSample::default()
            }
        );
    }

    #[test]
    fn nothing_waits_that_has_an_age_once_the_queue_is_empty() {
        assert_eq!(sample(&Depth::Ready(0), API, 3.0, 9_500).unwrap().oldest_s, None);
    }

    #[test]
    fn without_the_api_what_is_in_work_is_unknown_and_not_zero() {
        let got = sample(&Depth::Ready(4), QueueFigures::default(), 3.0, 9_500).unwrap();
        assert_eq!(got, QueueSample { ready: Some(4), ..QueueSample::default() });
    }

    #[test]
    fn a_refused_declare_falls_back_to_the_api_and_is_an_error_without_it() {
        assert_eq!(sample(&refused(), API, 3.0, 9_500).unwrap().ready, Some(9));
        assert_eq!(sample(&refused(), QueueFigures::default(), 3.0, 9_500).unwrap_err().retry, Retry::AfterChange);
    }

    #[test]
    fn a_queue_that_does_not_exist_is_empty() {
        let got = sample(&Depth::Missing, QueueFigures::default(), 0.0, 9_500).unwrap();
        assert_eq!((got.ready, got.unacked, got.published_total), (Some(0), Some(0), None));
    }
}
