//! Lengths of queues in Redis, and since when their oldest messages wait. In: queries, whose frameworks name the keys. Out: one sample each, from one pipeline for all of them, and a second one
//! where the first tells what to ask (members of `unacked`, sets found by a pattern, due jobs that may be running, times). Left to others: which keys a framework has
//! (`core::framework`).
//! A list, set or hash that does not exist is empty: Redis has no empty ones. A key of another type is an error of its queue, and names the key.

use super::answer::{Count, complaint, count};
use super::elsewhere::{self, Elsewhere};
use super::later::{self, Later};
use super::oldest::{self, Oldest};
use super::streams::{StreamFigures, stream};
use super::{RESPONSE_TIMEOUT, RedisLink};
use crate::unseen::Unseen;
use crate::{BrokerError, QueueQuery, QueueStats, now_ms};
use async_trait::async_trait;
use qscaler_broker_url::RedisUrl;
use qscaler_core::framework::{Key, KeyKind, glob_literal};
use qscaler_core::scale::QueueSample;
use redis::{Cmd, Value, cmd, pipe};
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Celery's `unacked` is read whole only up to this many entries: each holds its message. Beyond it, all of them count for each queue, which is
/// too many and never too few.
pub(crate) const CELERY_UNACKED_READ_MAX: u64 = 512;
/// Keys that one SCAN looks at: a fraction of a millisecond of the server's time, in which it does nothing else.
const SCAN_COUNT: usize = 1000;
/// SCANs per pattern and call. A larger database is swept over several calls.
const SCANS_MAX: usize = 8;
/// Sets of one pattern that are counted; there is one per worker.
const PATTERN_KEYS_MAX: usize = 10_000;
/// Due jobs that are asked for whether they run, oldest first, which is the order in which workers take them. What runs beyond that many counts as
/// waiting: too many wait then, and never too few.
const DUE_RUNNING_MAX: usize = 512;
const OPERATION: &str = "measuring queues";

/// See the module.
#[derive(Debug)]
pub(crate) struct RedisStats {
    link: RedisLink,
    patterns: Mutex<HashMap<String, Sweep>>,
    /// Queues of which nothing was ever seen, and what else was found of their name.
    unseen: Unseen<Elsewhere>,
    /// By queue: keys of work put aside that could not be read.
    unread: Mutex<HashMap<String, Arc<str>>>,
}

/// Which keys match a pattern, by SCANs that may take several calls.
#[derive(Clone, Debug, Default)]
struct Sweep {
    cursor: u64,
    /// Found by the sweep under way.
    finding: BTreeSet<String>,
    /// Found by the last whole sweep; None before the first one is through: unknown.
    known: Option<BTreeSet<String>>,
}

impl Sweep {
    fn scanned(&mut self, next: u64, keys: impl Iterator<Item = String>) {
        for key in keys {
            if self.finding.len() < PATTERN_KEYS_MAX {
                self.finding.insert(key);
            }
        }
        self.cursor = next;
        if next == 0 {
            self.known = Some(std::mem::take(&mut self.finding));
        }
    }

    fn keys(&self) -> Option<BTreeSet<String>> {
        self.known.as_ref().map(|known| known.union(&self.finding).cloned().collect())
    }
}

impl RedisStats {
    pub(crate) fn new(url: RedisUrl) -> Self {
        Self {
            link: RedisLink::new(url, RESPONSE_TIMEOUT),
            patterns: Mutex::new(HashMap::new()),
            unseen: Unseen::default(),
            unread: Mutex::default(),
        }
    }

    /// Moves the sweeps of these patterns on, by at most [`SCANS_MAX`] round trips for all of them together.
    async fn sweep(&self, patterns: &BTreeSet<String>) -> Result<HashMap<String, Option<BTreeSet<String>>>, BrokerError> {
        let mut sweeps: HashMap<String, Sweep> = {
            let kept = self.patterns.lock().unwrap_or_else(PoisonError::into_inner);
            patterns.iter().map(|p| (p.clone(), kept.get(p).cloned().unwrap_or_default())).collect()
        };
        let mut unfinished: Vec<String> = patterns.iter().cloned().collect();
        for _ in 0..SCANS_MAX {
            if unfinished.is_empty() {
                break;
            }
            let mut pipeline = pipe();
            for pattern in &unfinished {
                let cursor = sweeps.get(pattern).map_or(0, |s| s.cursor);
                pipeline.cmd("SCAN").arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_COUNT).arg("TYPE").arg("set");
            }
            let answers = self.link.run_all(OPERATION, &mut pipeline).await?;
            let mut still = Vec::new();
            for (pattern, answer) in unfinished.into_iter().zip(answers) {
                let (next, keys): (u64, Vec<String>) = redis::from_redis_value(answer).map_err(|error| self.link.error(OPERATION, &error.into()))?;
                if let Some(sweep) = sweeps.get_mut(&pattern) {
                    sweep.scanned(next, keys.into_iter());
                }
                if next != 0 {
                    still.push(pattern);
                }
            }
            unfinished = still;
        }
        let found = sweeps.iter().map(|(pattern, sweep)| (pattern.clone(), sweep.keys())).collect();
        // Patterns that nobody asks for any more are forgotten here.
        *self.patterns.lock().unwrap_or_else(PoisonError::into_inner) = sweeps;
        Ok(found)
    }
}

/// The commands that measure a key of this kind; several for a stream. None for kinds that need a second pipeline, and for work put aside.
fn commands(kind: KeyKind, key: &str, now_ms: u64) -> Vec<Cmd> {
    let one = |name: &str| {
        let mut command = cmd(name);
        command.arg(key);
        command
    };
    let two = |name: &str, sub: &str| {
        let mut command = cmd(name);
        command.arg(sub).arg(key);
        command
    };
    match kind {
        KeyKind::List => vec![one("LLEN")],
        KeyKind::SortedSet => vec![one("ZCARD")],
        KeyKind::Due { clock, running } => {
            let until = clock.due_until(now_ms);
            let (mut due, mut oldest) = (one("ZCOUNT"), one("ZRANGEBYSCORE"));
            due.arg("-inf").arg(&until);
            oldest.arg("-inf").arg(&until).arg("LIMIT").arg(0).arg(DUE_RUNNING_MAX);
            if running.is_some() { vec![due, oldest] } else { vec![due] }
        }
        KeyKind::Hash | KeyKind::CeleryUnacked => vec![one("HLEN")],
        KeyKind::Stream => vec![two("XINFO", "GROUPS"), two("XINFO", "STREAM"), one("XLEN")],
        KeyKind::SetPattern | KeyKind::DueOfAll { .. } | KeyKind::DueList => Vec::new(),
    }
}

/// Entries of Celery's `unacked` whose routing key is this queue, and how many of them are only kept until they are due. Values are JSON: message,
/// exchange, routing key. One that does not parse counts as held: too many is safe. A queue bound by another routing key than its name (Celery's default
/// is the name) is not seen here.
fn celery_unacked_of(queue: &str, values: &[Value], now_ms: u64) -> (u64, u64) {
    let (mut held, mut later) = (0, 0);
    for value in values {
        let Value::BulkString(bytes) = value else {
            held += 1;
            continue;
        };
        match serde_json::from_slice::<(Kept, serde::de::IgnoredAny, String)>(bytes) {
            Ok((_, _, routing_key)) if routing_key != queue => {}
            Ok((kept, _, _)) => {
                held += 1;
                later += u64::from(kept.due_ms().is_some_and(|due| due > now_ms));
            }
            Err(_) => held += 1,
        }
    }
    (held, later)
}

/// Of a message of Celery: until when its worker keeps it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Kept {
    headers: KeptHeaders,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KeptHeaders {
    /// ISO 8601; Celery writes the offset from UTC, and where it does not, it means UTC.
    eta: Option<String>,
}

impl Kept {
    /// Milliseconds since the epoch.
    fn due_ms(&self) -> Option<u64> {
        let eta = self.headers.eta.as_deref()?;
        let format = &time::format_description::well_known::Rfc3339;
        let at = time::OffsetDateTime::parse(eta, format).or_else(|_| time::OffsetDateTime::parse(&format!("{eta}Z"), format)).ok()?;
        u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
    }
}

/// The sum of what is known of these keys. Empty: the framework has no such key, so the figure is unknown. One unknown makes the sum unknown.
fn total(counts: Vec<Count>) -> Count {
    if counts.is_empty() {
        return Ok(None);
    }
    let mut sum = Some(0u64);
    for count in counts {
        sum = sum.zip(count?).map(|(a, b)| a.saturating_add(b));
    }
    Ok(sum)
}

/// Answers of the first pipeline by key, so that what several queues share is asked once.
type Plan = HashMap<Key, (usize, usize)>;

/// What is asked of times beside the lengths: by query and key, where its answers are in a pipeline.
type Times = HashMap<(usize, Key), (usize, usize)>;

fn waiting(query: &QueueQuery) -> Vec<Key> {
    query.framework.waiting_keys(&query.queue, &query.names)
}

fn later_of(query: &QueueQuery) -> Vec<Key> {
    query.framework.later_keys(&query.queue, &query.names)
}

fn working(query: &QueueQuery) -> Vec<Key> {
    query.framework.working_keys(&query.queue, &query.names)
}

#[async_trait]
impl QueueStats for RedisStats {
    async fn sample_each(&self, queries: &[QueueQuery]) -> Result<Vec<Result<QueueSample, BrokerError>>, BrokerError> {
        let mut pipeline = pipe();
        let mut plan = Plan::new();
        let mut patterns = BTreeSet::new();
        let now_ms = now_ms();
        let (mut later, mut heads) = (Plan::new(), Times::new());
        let mut add = |plan: &mut Plan, key: Key, commands: Vec<Cmd>| {
            let start = pipeline.len();
            plan.entry(key).or_insert_with(|| {
                commands.into_iter().for_each(|command| {
                    pipeline.add_command(command);
                });
                (start, pipeline.len())
            });
        };
        for query in queries {
            for key in waiting(query).into_iter().chain(working(query)) {
                if key.kind == KeyKind::SetPattern {
                    patterns.insert(key.name);
                    continue;
                }
                let commands = commands(key.kind, &key.name, now_ms);
                add(&mut plan, key, commands);
            }
            for key in later_of(query) {
                let commands = later::commands(&key, now_ms);
                add(&mut later, key, commands);
            }
        }
        for (i, query) in queries.iter().enumerate() {
            for key in waiting(query) {
                if let Some(command) = oldest::first(query, &key) {
                    heads.insert((i, key), (pipeline.len(), pipeline.len() + 1));
                    pipeline.add_command(command);
                }
            }
        }
        let answers = if pipeline.is_empty() { Vec::new() } else { self.link.run(OPERATION, &mut pipeline).await? };
        let found = if patterns.is_empty() { HashMap::new() } else { self.sweep(&patterns).await? };
        let mut look =
            Look { plan: &plan, later: &later, heads, answers: &answers, found: &found, second: HashMap::new(), times: HashMap::new(), now_ms };
        (look.second, look.times) = self.second(queries, &look).await?;
        let samples: Vec<Result<QueueSample, String>> = queries.iter().enumerate().map(|(i, query)| look.sample(i, query)).collect();
        self.remember(queries, &samples, &look);
        self.search(queries).await?;
        Ok(samples.into_iter().map(|sample| sample.map_err(|message| self.link.refused(OPERATION, message))).collect())
    }

    fn gap(&self, queries: &[QueueQuery]) -> Option<Arc<str>> {
        let unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |query: &QueueQuery| {
            let unread = unread.get(&query.queue).map(|what| format!("delayed and scheduled work is not counted: {what}"));
            let place = self.link.place();
            let unseen = self.unseen.is_overdue(&query.queue).then(|| self.unseen.found(&query.queue).unwrap_or_default().words(query, &place));
            [unread, unseen]
        };
        let words: Vec<String> = queries.iter().flat_map(of).flatten().collect();
        (!words.is_empty()).then(|| words.join("; ").into())
    }
}

impl RedisStats {
    /// What is to be said of these queues, from this look.
    fn remember(&self, queries: &[QueueQuery], samples: &[Result<QueueSample, String>], look: &Look<'_>) {
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        for (query, sample) in queries.iter().zip(samples) {
            match look.later(query).1 {
                Some(what) => drop(unread.insert(query.queue.clone(), what.into())),
                None => drop(unread.remove(&query.queue)),
            }
            let something = |s: &QueueSample| s.ready != Some(0) || s.unacked.is_some_and(|n| n > 0) || s.next_due_s.is_some();
            self.unseen.looked(&query.queue, sample.as_ref().map_or(true, something));
        }
    }

    /// Goes on with the search for keys of the first queue that is due for it; one SCAN a call.
    async fn search(&self, queries: &[QueueQuery]) -> Result<(), BrokerError> {
        let unfinished = |query: &&QueueQuery| self.unseen.is_overdue(&query.queue) && !self.unseen.found(&query.queue).is_some_and(|f| f.is_done());
        let Some(query) = queries.iter().find(unfinished) else { return Ok(()) };
        let mut found = self.unseen.found(&query.queue).unwrap_or_default();
        let mut pipeline = pipe();
        let pattern = format!("*{}*", glob_literal(&query.queue));
        pipeline.cmd("SCAN").arg(found.cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(elsewhere::SCAN_COUNT).arg("TYPE").arg("list");
        let answer = self.link.run(OPERATION, &mut pipeline).await?.pop();
        match answer.map(redis::from_redis_value::<(u64, Vec<String>)>) {
            Some(Ok((next, keys))) => found.took(next, keys),
            // This user may not look: done with it.
            _ => found.took(0, Vec::new()),
        }
        self.unseen.keep(&query.queue, found);
        Ok(())
    }

    /// Members of every small `unacked`, how many of arq's due jobs run, and sizes of every set that a pattern found, by key; and times.
    async fn second(
        &self,
        queries: &[QueueQuery],
        look: &Look<'_>,
    ) -> Result<(HashMap<String, Value>, HashMap<(usize, Key), Vec<Value>>), BrokerError> {
        let mut pipeline = pipe();
        let mut keys = Vec::new();
        for (Key { kind, name: key }, (start, end)) in look.plan {
            if let KeyKind::Due { running: Some(running), .. } = kind
                && let Some([_, Value::Array(oldest)]) = look.answers.get(*start..*end)
                && !oldest.is_empty()
            {
                let ids = oldest.iter().filter_map(|id| redis::from_redis_value::<Vec<u8>>(id.clone()).ok());
                pipeline.cmd("EXISTS").arg(ids.map(|id| [running.as_bytes(), &id].concat()).collect::<Vec<_>>());
                keys.push(key.clone());
            }
            let small =
                matches!(look.answers.get(*start), Some(Value::Int(n)) if u64::try_from(*n).is_ok_and(|n| n > 0 && n <= CELERY_UNACKED_READ_MAX));
            if *kind == KeyKind::CeleryUnacked && small {
                pipeline.cmd("HVALS").arg(key);
                keys.push(key.clone());
            }
        }
        for (key, (start, end)) in look.later {
            if let Some(command) = look.answers.get(*start..*end).and_then(|answers| later::second(key, answers)) {
                pipeline.add_command(command);
                keys.push(key.name.clone());
            }
        }
        for key in look.found.values().flatten().flatten() {
            pipeline.cmd("SCARD").arg(key);
            keys.push(key.clone());
        }
        let mut times = Times::new();
        for (i, query) in queries.iter().enumerate() {
            for key in waiting(query) {
                let start = pipeline.len();
                for command in oldest::second(query, &key, look.answers_of(&key), look.head(i, &key)) {
                    pipeline.add_command(command);
                }
                times.insert((i, key), (start, pipeline.len()));
            }
        }
        if pipeline.is_empty() {
            return Ok((HashMap::new(), HashMap::new()));
        }
        let answers = self.link.run(OPERATION, &mut pipeline).await?;
        let times = times.into_iter().map(|(key, (start, end))| (key, answers.get(start..end).unwrap_or_default().to_vec())).collect();
        Ok((keys.into_iter().zip(answers).collect(), times))
    }
}

/// All answers of one call.
struct Look<'a> {
    plan: &'a Plan,
    /// The same for work put aside.
    later: &'a Plan,
    now_ms: u64,
    answers: &'a [Value],
    found: &'a HashMap<String, Option<BTreeSet<String>>>,
    second: HashMap<String, Value>,
    /// Of the first pipeline: what says a time, or whose time is to be asked.
    heads: Times,
    times: HashMap<(usize, Key), Vec<Value>>,
}

impl Look<'_> {
    fn answers_of(&self, key: &Key) -> &[Value] {
        self.plan.get(key).and_then(|(start, end)| self.answers.get(*start..*end)).unwrap_or_default()
    }

    fn head(&self, query: usize, key: &Key) -> Option<&Value> {
        self.heads.get(&(query, key.clone())).and_then(|(start, _)| self.answers.get(*start))
    }

    /// Since when the oldest message waits, of those in the queue's own keys and those that are due.
    fn oldest(&self, i: usize, query: &QueueQuery, later: Later) -> Oldest {
        let of = |key: &Key| {
            let waiting = self.count(key, &query.queue).ok().flatten();
            let second = self.times.get(&(i, key.clone())).map_or(&[][..], Vec::as_slice);
            oldest::read(query.framework.age, key, waiting, self.head(i, key), second)
        };
        let due = match later.due {
            0 => Oldest::Nothing,
            _ => later.since_ms.map_or(Oldest::Unknown, Oldest::Since),
        };
        waiting(query).iter().map(of).fold(due, Oldest::and)
    }

    fn stream(&self, key: &Key) -> Result<StreamFigures, String> {
        match self.answers_of(key) {
            [groups, info, length] => stream(&key.name, groups, info, length),
            _ => Ok(StreamFigures::default()),
        }
    }

    /// None: this user may not look (then every due job counts as waiting).
    fn due_running(&self, key: &Key) -> Option<u64> {
        match (self.answers_of(key), self.second.get(&key.name)) {
            ([_, Value::Array(oldest)], None) if oldest.is_empty() => Some(0),
            (_, Some(Value::Int(running))) => u64::try_from(*running).ok(),
            _ => None,
        }
    }

    fn count(&self, key: &Key, queue: &str) -> Count {
        let name = &key.name;
        let first = self.answers_of(key).first();
        match key.kind {
            KeyKind::List | KeyKind::SortedSet | KeyKind::Hash | KeyKind::Due { running: None, .. } => count(name, first),
            KeyKind::Due { running: Some(_), .. } => Ok(count(name, first)?.map(|due| due.saturating_sub(self.due_running(key).unwrap_or(0)))),
            KeyKind::CeleryUnacked => match self.second.get(name) {
                Some(Value::Array(values)) => Ok(Some(celery_unacked_of(queue, values, self.now_ms).0)),
                Some(Value::ServerError(error)) => Err(complaint(name, error)),
                _ => count(name, first),
            },
            KeyKind::Stream => self.stream(key).map(|figures| figures.waiting),
            // Work put aside has commands of its own.
            KeyKind::DueOfAll { .. } | KeyKind::DueList => Ok(None),
            KeyKind::SetPattern => match self.found.get(name) {
                Some(Some(keys)) => {
                    let sizes: Vec<Count> = keys.iter().map(|key| count(key, self.second.get(key))).collect();
                    if sizes.is_empty() { Ok(Some(0)) } else { total(sizes) }
                }
                _ => Ok(None),
            },
        }
    }

    /// What is put aside for this queue; the error names the first key that cannot be read, beside what the others say.
    fn later(&self, query: &QueueQuery) -> (Later, Option<String>) {
        let mut sum = (Later::default(), None);
        for key in later_of(query) {
            let answers = self.later.get(&key).and_then(|(start, end)| self.answers.get(*start..*end)).unwrap_or_default();
            match later::read(&key, &query.queue, answers, self.second.get(&key.name), self.now_ms) {
                Ok(one) => sum.0 = sum.0.and(one),
                Err(error) => sum.1 = sum.1.or(Some(error)),
            }
        }
        sum
    }

    fn sample(&self, i: usize, query: &QueueQuery) -> Result<QueueSample, String> {
        let waiting = waiting(query);
        let ready: Vec<Count> = waiting.iter().map(|key| self.count(key, &query.queue)).collect();
        let mut unacked: Vec<Count> = working(query).iter().map(|key| self.count(key, &query.queue)).collect();
        let mut sample = QueueSample::default();
        // A stream tells both, what waits and what is in work; and so does a set in which running jobs stay.
        for key in &waiting {
            match key.kind {
                KeyKind::Stream => {
                    let figures = self.stream(key)?;
                    unacked.push(Ok(figures.pending));
                    (sample.published_total, sample.completed_total) = (figures.added, figures.done);
                }
                KeyKind::Due { running: Some(_), .. } => unacked.push(Ok(self.due_running(key))),
                _ => {}
            }
        }
        let kept = |key: &Key| match self.second.get(&key.name) {
            Some(Value::Array(values)) if key.kind == KeyKind::CeleryUnacked => Some(celery_unacked_of(&query.queue, values, self.now_ms).1),
            _ => None,
        };
        sample.unacked_later = working(query).iter().find_map(kept);
        let (later, _) = self.later(query);
        sample.ready = total(ready)?.map(|ready| ready.saturating_add(later.due));
        sample.next_due_s = later.next_ms.map(|at| at.saturating_sub(self.now_ms) as f64 / 1000.0);
        sample.unacked = total(unacked)?;
        sample.oldest_s = self.oldest(i, query, later).age_s(self.now_ms);
        Ok(sample)
    }
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
