//! The books that frameworks keep in Redis of who works on what. In: the framework, which says where they stand; the pod's host name. Out: whether
//! that host's workers have tasks. Left to others: frameworks that keep none (`blocked` looks at their connections).
//!
//! Two kinds. By process: each worker process is written down with its host; the entries of this host are searched for once, and then read alone. Of
//! all: only what the whole fleet has in hand is known; nothing in hand anywhere means idle here too, something means that it is not known where.

use super::{Seen, Whose};
use crate::clock::since_epoch;
use crate::redis::stats::RedisStats;
use crate::redis::{RESPONSE_TIMEOUT, RedisLink};
use crate::{BrokerError, QueueQuery, QueueStats, Retry};
use qscaler_broker_url::RedisUrl;
use qscaler_core::framework::{Books as Shape, Framework, HostIn, KeyNames, Listed, Processes, Tasks};
use redis::{Cmd, FromRedisValue, Value, cmd};

const OPERATION: &str = "reading the framework's books";
/// Worker processes of one host, at most: more is no pod.
const ENTRIES_MAX: usize = 64;

/// The books of one framework on one Redis.
pub(super) struct PodBooks {
    link: RedisLink,
    kind: Kind,
}

enum Kind {
    Processes(ByProcess),
    Fleet {
        stats: Box<RedisStats>,
        queries: Vec<QueueQuery>,
    },
    FleetAcks {
        /// A sorted set of the fleet's processes.
        processes: String,
        /// Before a process' name, in the name of its set of a queue.
        acks: String,
        queues: Vec<String>,
    },
}

/// The entries of one host.
struct ByProcess {
    shape: Processes,
    framework: &'static Framework,
    names: KeyNames,
    host: String,
    /// Names of this host's entries; empty: to be searched for.
    entries: Vec<String>,
    /// Tasks that they say have ended, by the last look.
    done: Option<u64>,
}

/// What an entry says.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    tasks: u32,
    /// It says that it still takes some.
    takes: bool,
    /// Tasks ended so far, where it counts them.
    done: Option<u64>,
}

impl PodBooks {
    /// None: this framework keeps no books that tell.
    pub(super) fn new(url: RedisUrl, whose: &Whose<'_>, host: &str) -> Option<Self> {
        let framework = whose.framework;
        let named = |template: &str| framework.book_name(template, whose.names);
        let kind = match framework.books {
            Shape::None => return None,
            Shape::Processes(shape) => {
                Kind::Processes(ByProcess { shape, framework, names: whose.names.clone(), host: host.to_owned(), entries: Vec::new(), done: None })
            }
            Shape::Fleet | Shape::Locks { .. } => {
                let query = |queue: &String| QueueQuery { queue: queue.clone(), framework, names: whose.names.clone() };
                Kind::Fleet { stats: Box::new(RedisStats::new(url.clone())), queries: whose.queues.iter().map(query).collect() }
            }
            Shape::FleetAcks { processes, acks } => Kind::FleetAcks { processes: named(processes), acks: named(acks), queues: whose.queues.to_vec() },
        };
        Some(Self { link: RedisLink::new(url, RESPONSE_TIMEOUT), kind })
    }

    /// Tasks that this host's workers say have ended, by the last look; None: they do not count them.
    pub(super) fn done(&self) -> Option<u64> {
        match &self.kind {
            Kind::Processes(processes) => processes.done,
            _ => None,
        }
    }

    pub(super) async fn sample(&mut self) -> Result<Seen, BrokerError> {
        let desk = Desk { link: &self.link };
        match &mut self.kind {
            Kind::Processes(processes) => processes.sample(&desk).await,
            Kind::Fleet { stats, queries } => {
                let samples = stats.sample(queries).await?;
                let in_hand: Option<u64> = samples.iter().map(|sample| sample.unacked).sum();
                Ok(if in_hand == Some(0) { Seen::Idle } else { Seen::Elsewhere(in_hand) })
            }
            Kind::FleetAcks { processes, acks, queues } => desk.fetched(processes, acks, queues).await,
        }
    }
}

impl ByProcess {
    async fn sample(&mut self, desk: &Desk<'_>) -> Result<Seen, BrokerError> {
        self.done = None;
        if self.entries.is_empty() {
            self.entries = self.search(desk).await?;
        }
        let mut sum = Entry { done: Some(0), ..Entry::default() };
        for entry in self.entries.clone() {
            match self.read(desk, &entry).await? {
                Some(one) => {
                    sum.tasks += one.tasks;
                    sum.takes |= one.takes;
                    sum.done = sum.done.zip(one.done).map(|(all, one)| all + one);
                }
                // That process has ended, or is silent: searched for again the next time.
                None => {
                    self.entries.clear();
                    return Ok(Seen::Unknown);
                }
            }
        }
        self.done = sum.done;
        Ok(match sum {
            _ if self.entries.is_empty() => Seen::Unknown,
            Entry { tasks: 0, takes: true, .. } => Seen::IdleAndTaking,
            Entry { tasks, .. } => Seen::from_active(tasks),
        })
    }

    fn named(&self, template: &str) -> String {
        self.framework.book_name(template, &self.names)
    }

    /// The entries of this host.
    async fn search(&self, desk: &Desk<'_>) -> Result<Vec<String>, BrokerError> {
        let all: Vec<String> = match self.shape.listed {
            Listed::Set(key) => desk.ask(cmd("SMEMBERS").arg(self.named(key))).await?,
            Listed::AliveUntil(key) => desk.ask(cmd("ZRANGEBYSCORE").arg(self.named(key)).arg(since_epoch().as_secs_f64()).arg("+inf")).await?,
        };
        let is_host = |name: Option<&str>| name == Some(self.host.as_str());
        let own: Vec<String> = match self.shape.host {
            HostIn::Name => all.into_iter().filter(|entry| is_host(entry.split_once(':').map(|(host, _)| host))).collect(),
            HostIn::NameInBraces => {
                let host = |entry: &str| entry.split_once('{').and_then(|(_, rest)| rest.split_once(':')).map(|(host, _)| host.to_owned());
                all.into_iter().filter(|entry| is_host(host(entry).as_deref())).collect()
            }
            HostIn::Field(field) => desk.with_field(all, field, &self.host).await?,
        };
        Ok(own.into_iter().take(ENTRIES_MAX).collect())
    }

    /// None: it is gone, or too old to say anything.
    async fn read(&self, desk: &Desk<'_>, entry: &str) -> Result<Option<Entry>, BrokerError> {
        let working = |tasks: u32| Entry { tasks, ..Entry::default() };
        Ok(match self.shape.tasks {
            Tasks::Beat { busy, beat, quiet, age_max_s } => {
                // All three are written at once: figures that say quiet were taken after the worker was told to be.
                let (busy, beat, quiet): (Option<u32>, Option<f64>, Option<String>) =
                    desk.ask(cmd("HMGET").arg(entry).arg(busy).arg(beat).arg(quiet)).await?;
                let is_fresh = beat.is_some_and(|beat| since_epoch().as_secs_f64() - beat <= age_max_s as f64);
                busy.filter(|_| is_fresh).map(|tasks| Entry { tasks, takes: quiet.as_deref() != Some("true"), done: None })
            }
            Tasks::HashBeside { from, to } => {
                let alive: bool = desk.ask(cmd("EXISTS").arg(entry)).await?;
                let tasks: u32 = desk.ask(cmd("HLEN").arg(entry.replacen(from, to, 1))).await?;
                alive.then(|| working(tasks))
            }
            Tasks::KeyWhileBusy(before) => {
                let Listed::Set(list) = self.shape.listed else { return Ok(None) };
                let alive: bool = desk.ask(cmd("SISMEMBER").arg(self.named(list)).arg(entry)).await?;
                let busy: bool = desk.ask(cmd("EXISTS").arg(format!("{}{entry}", self.named(before)))).await?;
                alive.then(|| working(u32::from(busy)))
            }
            Tasks::State { field, idle, busy, done } => {
                let values: Vec<Option<String>> = desk.ask(cmd("HMGET").arg(entry).arg(field).arg(done)).await?;
                let (state, counts) = values.split_first().map_or((None, &[][..]), |(state, counts)| (state.as_deref(), counts));
                let done = counts.iter().map(|count| count.as_ref().map_or(Some(0), |count| count.parse::<u64>().ok())).sum();
                match state {
                    Some(state) if idle.contains(&state) => Some(Entry { done, ..working(0) }),
                    Some(state) if busy.contains(&state) => Some(Entry { done, ..working(1) }),
                    _ => None,
                }
            }
        })
    }
}

/// Where books are read.
struct Desk<'a> {
    link: &'a RedisLink,
}

impl Desk<'_> {
    /// Those of these hashes of which this field has this value.
    async fn with_field(&self, keys: Vec<String>, field: &str, wanted: &str) -> Result<Vec<String>, BrokerError> {
        if keys.is_empty() {
            return Ok(keys);
        }
        let mut pipeline = redis::pipe();
        keys.iter().for_each(|key| {
            pipeline.hget(key, field);
        });
        let values = self.link.run_all(OPERATION, &mut pipeline).await?;
        let is_wanted = |value: &Value| matches!(value, Value::BulkString(value) if value == wanted.as_bytes());
        Ok(keys.into_iter().zip(values).filter(|(_, value)| is_wanted(value)).map(|(key, _)| key).collect())
    }

    /// Every worker process has a set of what it has fetched per queue; the processes are members of a sorted set.
    async fn fetched(&self, processes: &str, acks: &str, queues: &[String]) -> Result<Seen, BrokerError> {
        let workers: Vec<String> = self.ask(cmd("ZRANGE").arg(processes).arg(0).arg(-1)).await?;
        let mut pipeline = redis::pipe();
        for worker in &workers {
            for queue in queues {
                pipeline.scard(format!("{acks}{worker}.{queue}"));
            }
        }
        if workers.is_empty() {
            return Ok(Seen::Unknown);
        }
        let fetched = self.link.run_all(OPERATION, &mut pipeline).await?;
        Ok(if fetched.iter().all(|value| *value == Value::Int(0)) { Seen::Idle } else { Seen::Elsewhere(None) })
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, BrokerError> {
        let mut values = self.link.run_all(OPERATION, redis::pipe().add_command(command.clone())).await?;
        let value = values.pop().unwrap_or(Value::Nil);
        T::from_redis_value(value).map_err(|error| BrokerError {
            operation: OPERATION,
            place: self.link.place(),
            message: error.to_string(),
            retry: Retry::AfterChange,
        })
    }
}
