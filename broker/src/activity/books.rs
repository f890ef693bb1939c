//! The books that frameworks keep in Redis of who works on what. In: the framework, the pod's host name. Out: whether that host's workers have
//! tasks. Left to others: frameworks that keep none (`blocked` looks at their connections).
//!
//! Two kinds. By host: Sidekiq, Asynq, Resque and RQ write down each worker process with its host; the entries of this host are searched for
//! once, and then read alone. Of all: Dramatiq, Arq and BullMQ only tell what the whole fleet has in hand; nothing in hand anywhere means idle
//! here too, something means that it is not known where.

use super::Seen;
use crate::redis::{Link, RESPONSE_TIMEOUT};
use crate::{BrokerError, Retry};
use qscaler_broker_url::RedisUrl;
use redis::{Cmd, FromRedisValue, Value, cmd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const OPERATION: &str = "reading the framework's books";
/// Sidekiq writes each process's figures every 10 s; after three of these they are the past.
const SIDEKIQ_BEAT_MAX: Duration = Duration::from_secs(30);
/// Worker processes of one host, at most: more is no pod.
const ENTRIES_MAX: usize = 64;

/// Which framework's books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framework {
    Sidekiq,
    Asynq,
    Resque,
    Rq,
    Dramatiq,
    Arq,
    BullMq,
}

/// The books of one framework on one Redis.
pub(super) struct Books {
    link: Link,
    framework: Framework,
    queues: Vec<String>,
    host: String,
    /// Names of this host's entries; empty: to be searched for.
    entries: Vec<String>,
}

impl Books {
    /// None: this framework keeps no books that tell.
    pub(super) fn new(url: RedisUrl, preset: &str, queues: &[String], host: &str) -> Option<Self> {
        let framework = match preset {
            "sidekiq" => Framework::Sidekiq,
            "asynq" => Framework::Asynq,
            "resque" => Framework::Resque,
            "rq" => Framework::Rq,
            "dramatiq" => Framework::Dramatiq,
            "arq" => Framework::Arq,
            "bullmq" => Framework::BullMq,
            _ => return None,
        };
        let link = Link::new(url, RESPONSE_TIMEOUT);
        Some(Self { link, framework, queues: queues.to_vec(), host: host.to_owned(), entries: Vec::new() })
    }

    pub(super) async fn sample(&mut self) -> Result<Seen, BrokerError> {
        match self.framework {
            Framework::Dramatiq => return self.dramatiq().await,
            Framework::Arq => return self.nothing_in(|queue| cmd("ZCARD").arg(queue).clone()).await,
            Framework::BullMq => return self.nothing_in(|queue| cmd("LLEN").arg(format!("bull:{queue}:active")).clone()).await,
            _ => {}
        }
        if self.entries.is_empty() {
            self.entries = self.search().await?;
        }
        let (mut active, mut taking) = (0, false);
        for entry in self.entries.clone() {
            match self.read(&entry).await? {
                Some((tasks, takes)) => {
                    active += tasks;
                    taking |= takes;
                }
                // That process has ended, or is silent: searched for again the next time.
                None => {
                    self.entries.clear();
                    return Ok(Seen::Unknown);
                }
            }
        }
        Ok(match Seen::from_active(active) {
            _ if self.entries.is_empty() => Seen::Unknown,
            Seen::Idle if taking => Seen::IdleAndTaking,
            seen => seen,
        })
    }

    /// The entries of this host.
    async fn search(&self) -> Result<Vec<String>, BrokerError> {
        let host = &self.host;
        let all: Vec<String> = match self.framework {
            Framework::Sidekiq => self.ask(cmd("SMEMBERS").arg("processes")).await?,
            Framework::Resque => self.ask(cmd("SMEMBERS").arg("resque:workers")).await?,
            // Scores are the moments until which the servers count as alive.
            Framework::Asynq => self.ask(cmd("ZRANGEBYSCORE").arg("asynq:servers").arg(seconds()).arg("+inf")).await?,
            Framework::Rq => self.rq_workers().await?,
            Framework::Dramatiq | Framework::Arq | Framework::BullMq => Vec::new(),
        };
        let own = all.into_iter().filter(|entry| match self.framework {
            Framework::Sidekiq | Framework::Resque => entry.split_once(':').is_some_and(|(of, _)| of == host),
            Framework::Asynq => entry.split_once('{').and_then(|(_, rest)| rest.split_once(':')).is_some_and(|(of, _)| of == host),
            _ => true,
        });
        Ok(own.take(ENTRIES_MAX).collect())
    }

    /// RQ names its workers at random, and keeps the host inside the entry.
    async fn rq_workers(&self) -> Result<Vec<String>, BrokerError> {
        let keys: Vec<String> = self.ask(cmd("SMEMBERS").arg("rq:workers")).await?;
        let mut pipeline = redis::pipe();
        keys.iter().for_each(|key| {
            pipeline.hget(key, "hostname");
        });
        if keys.is_empty() {
            return Ok(keys);
        }
        let hosts = self.link.run_all(OPERATION, &mut pipeline).await?;
        let is_own = |value: &Value| matches!(value, Value::BulkString(host) if host == self.host.as_bytes());
        Ok(keys.into_iter().zip(hosts).filter(|(_, host)| is_own(host)).map(|(key, _)| key).collect())
    }

    /// Tasks of one entry, and whether it says that it still takes some; None: it is gone, or too old to say anything.
    async fn read(&self, entry: &str) -> Result<Option<(u32, bool)>, BrokerError> {
        let tasks: Option<u32> = match self.framework {
            Framework::Sidekiq => {
                // All three are written at once, every 5 to 10 s: figures that say quiet were taken after the worker was told to be.
                let (busy, beat, quiet): (Option<u32>, Option<f64>, Option<String>) =
                    self.ask(cmd("HMGET").arg(entry).arg("busy").arg("beat").arg("quiet")).await?;
                let is_fresh = beat.is_some_and(|beat| seconds() - beat <= SIDEKIQ_BEAT_MAX.as_secs_f64());
                return Ok(busy.filter(|_| is_fresh).map(|busy| (busy, quiet.as_deref() != Some("true"))));
            }
            Framework::Asynq => {
                // The server's own key lives as long as its heartbeat; the hash of its tasks is absent while there are none.
                let alive: bool = self.ask(cmd("EXISTS").arg(entry)).await?;
                let tasks: u32 = self.ask(cmd("HLEN").arg(entry.replacen("asynq:servers:", "asynq:workers:", 1))).await?;
                alive.then_some(tasks)
            }
            Framework::Resque => {
                let alive: bool = self.ask(cmd("SISMEMBER").arg("resque:workers").arg(entry)).await?;
                let working: bool = self.ask(cmd("EXISTS").arg(format!("resque:worker:{entry}"))).await?;
                alive.then_some(u32::from(working))
            }
            _ => {
                let state: Option<String> = self.ask(cmd("HGET").arg(entry).arg("state")).await?;
                match state.as_deref() {
                    Some("idle" | "suspended") => Some(0),
                    Some("busy") => Some(1),
                    _ => None,
                }
            }
        };
        Ok(tasks.map(|tasks| (tasks, false)))
    }

    /// Every worker process has a set of what it has fetched per queue; the processes are members of a sorted set.
    async fn dramatiq(&self) -> Result<Seen, BrokerError> {
        let workers: Vec<String> = self.ask(cmd("ZRANGE").arg("dramatiq:__heartbeats__").arg(0).arg(-1)).await?;
        let mut pipeline = redis::pipe();
        for worker in &workers {
            for queue in &self.queues {
                pipeline.scard(format!("dramatiq:__acks__.{worker}.{queue}"));
            }
        }
        if workers.is_empty() {
            return Ok(Seen::Unknown);
        }
        let fetched = self.link.run_all(OPERATION, &mut pipeline).await?;
        Ok(if fetched.iter().all(|value| *value == Value::Int(0)) { Seen::Idle } else { Seen::Unknown })
    }

    async fn nothing_in(&self, command: impl Fn(&String) -> Cmd) -> Result<Seen, BrokerError> {
        for queue in &self.queues {
            let length: u64 = self.ask(&command(queue)).await?;
            if length > 0 {
                return Ok(Seen::Unknown);
            }
        }
        Ok(Seen::Idle)
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

fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
