//! Redis: connections and errors that the three parts of this adapter share. In: a parsed URL. Out: a connection that is made when first needed and
//! again after any error, and [`BrokerError`]s that say whether to retry. Left to others: the commands (`stats`, `sender`, `receiver`).
//!
//! Rights (Redis ACL) of each part; `SELECT` too where the database is not 0:
//! - figures: `%R~<keys of the queues>` with `llen zcard zcount hlen hvals scard scan xinfo|groups xinfo|stream xlen`; for arq also
//!   `%R~arq:in-progress:*` with `zrangebyscore exists`, without which its running jobs count as waiting; for the age of the oldest
//!   message, which is unknown without them: `lindex`, of RQ also `%R~rq:job:*` with `hmget`, of BullMQ `%R~bull:<queue>:*` with `zrange hmget`, of
//!   Asynq `%R~asynq:{<queue>}:t:*` with `hmget`, of a stream `xrange`;
//! - controller: `~qscaler:*` with `xadd xtrim xgroup|create xreadgroup xpending xack xdel pexpire del`;
//! - sidecar: `~qscaler:ctl:<ns>/<name> ~qscaler:ctl:<ns>/<name>:* ~qscaler:reports:<ns>/<name> ~qscaler:reports:<ns>/<name>:*` with
//!   `xadd xack xdel xreadgroup xpending xautoclaim xgroup|create pexpire` (`xpending` is needed only when an entry is too long).

mod answer;
mod connect;
mod elsewhere;
mod guard;
pub(crate) mod keys;
mod later;
mod oldest;
mod oversized;
pub(crate) mod receiver;
pub(crate) mod sender;
pub(crate) mod stats;
mod streams;

use crate::{BrokerError, Retry};
use guard::Guarded;
use qscaler_broker_url::RedisUrl;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisError, ServerErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// For everything that a connection takes: several addresses or Sentinels are asked one after the other, each with its own limit, then the login.
const CONNECT_ALL_TIMEOUT: Duration = Duration::from_secs(6);
/// A call that takes longer than this has a server that hangs: the decision loop must learn of it before its figures are stale.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection to one Redis.
#[derive(Debug)]
pub(crate) struct RedisLink {
    url: RedisUrl,
    response_timeout: Duration,
    /// Longest value of an answer; see [`guard`].
    value_length_max: u64,
    tripped: Arc<AtomicBool>,
    /// The server has asked for a client's certificate, and has answered nothing since.
    asked: connect::Asked,
    connection: Mutex<Option<Live>>,
}

/// The task that moves a connection's bytes; it ends with this, so that a connection that is given up takes no message any more.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Clone)]
struct Live {
    generation: u64,
    connection: MultiplexedConnection,
    _driver: Arc<Driver>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl RedisLink {
    pub(crate) fn new(url: RedisUrl, response_timeout: Duration) -> Self {
        Self::bounded(url, response_timeout, u64::MAX)
    }

    /// The same, where no value of an answer may be longer: the connection fails before such a value is read.
    pub(crate) fn bounded(url: RedisUrl, response_timeout: Duration, value_length_max: u64) -> Self {
        Self { url, response_timeout, value_length_max, tripped: Arc::default(), asked: Arc::default(), connection: Mutex::new(None) }
    }

    pub(crate) fn place(&self) -> String {
        self.url.place()
    }

    /// Whether a value was too long since the last call.
    pub(crate) fn tripped(&self) -> bool {
        self.tripped.swap(false, Ordering::Relaxed)
    }

    /// The live connection, or a new one.
    async fn connection(&self, operation: &'static str) -> Result<Live, BrokerError> {
        let mut slot = self.connection.lock().await;
        if let Some(live) = slot.as_ref() {
            return Ok(live.clone());
        }
        let (connection, driver) = self.connect().await.map_err(|error| self.error(operation, &error))?;
        let live = Live { generation: next_generation(), connection, _driver: Arc::new(driver) };
        *slot = Some(live.clone());
        Ok(live)
    }

    /// Runs a pipeline; the answers of its commands one by one, errors of single commands among them. A broken connection is forgotten.
    pub(crate) async fn run(&self, operation: &'static str, pipeline: &mut redis::Pipeline) -> Result<Vec<redis::Value>, BrokerError> {
        let Live { mut connection, generation, _driver } = self.connection(operation).await?;
        match pipeline.ignore_errors().query_async::<Vec<redis::Value>>(&mut connection).await {
            Ok(values) => {
                self.asked.store(false, Ordering::Relaxed);
                if let Some(redis::Value::ServerError(error)) =
                    values.iter().find(|v| matches!(v, redis::Value::ServerError(e) if needs_new_connection(e.kind())))
                {
                    let error = RedisError::from(error.clone());
                    self.forget(generation).await;
                    return Err(self.error(operation, &error));
                }
                Ok(values)
            }
            Err(error) => {
                self.forget(generation).await;
                Err(self.error(operation, &error))
            }
        }
    }

    /// Runs a pipeline of which every command must succeed.
    pub(crate) async fn run_all(&self, operation: &'static str, pipeline: &mut redis::Pipeline) -> Result<Vec<redis::Value>, BrokerError> {
        let values = self.run(operation, pipeline).await?;
        for value in &values {
            if let redis::Value::ServerError(error) = value {
                return Err(self.error(operation, &RedisError::from(error.clone())));
            }
        }
        Ok(values)
    }

    /// Drops the connection of this number, unless a newer one is there already.
    pub(crate) async fn forget(&self, generation: u64) {
        let mut slot = self.connection.lock().await;
        if slot.as_ref().is_some_and(|live| live.generation == generation) {
            *slot = None;
        }
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, Driver), RedisError> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(self.response_timeout));
        let elapsed = || connect::failed("the server did not answer in time");
        let connecting = async {
            let (stream, login) = connect::connect(&self.url, &self.asked).await?;
            let stream = Guarded::new(stream, self.value_length_max, Arc::clone(&self.tripped));
            let (connection, driver) = MultiplexedConnection::new_with_config(&login, stream, config).await?;
            Ok((connection, Driver(tokio::spawn(driver))))
        };
        timeout(CONNECT_ALL_TIMEOUT, connecting).await.map_err(|_| elapsed())?
    }

    /// A connection of its own for subscriptions.
    pub(crate) async fn subscriber(&self, operation: &'static str) -> Result<redis::aio::PubSub, BrokerError> {
        let connect = async {
            let (stream, login) = connect::connect(&self.url, &self.asked).await?;
            redis::aio::PubSub::new(&login, stream).await
        };
        let connected = timeout(CONNECT_ALL_TIMEOUT, connect).await.map_err(|_| connect::failed("the server did not answer in time"));
        connected.and_then(|result| result).map_err(|error| self.error(operation, &error))
    }

    /// What a user reads, without the password.
    pub(crate) fn error(&self, operation: &'static str, error: &RedisError) -> BrokerError {
        let text = error.to_string();
        let certificate = crate::tls::explain(&text, self.url.tls.as_ref(), self.asked.load(Ordering::Relaxed));
        let retry = if certificate.is_some() || is_wrong_until_changed(error) { Retry::AfterChange } else { Retry::Later };
        BrokerError { operation, place: self.place(), message: self.url.scrub(&certificate.unwrap_or(text)), retry }
    }

    /// An error in the project's own words.
    pub(crate) fn refused(&self, operation: &'static str, message: String) -> BrokerError {
        BrokerError { operation, place: self.place(), message: self.url.scrub(&message), retry: Retry::AfterChange }
    }
}

/// Every connection of this process has another number, so that one of an older link is never taken for one of a newer.
fn next_generation() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn is_wrong_until_changed(error: &RedisError) -> bool {
    is_certificate(error)
        || matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig | ErrorKind::Server(ServerErrorKind::NoPerm))
        || matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM" | "WRONGTYPE" | "MOVED" | "CROSSSLOT"))
}

/// A certificate that one side does not accept: as rustls says it.
fn is_certificate(error: &RedisError) -> bool {
    let text = error.to_string();
    text.contains("invalid peer certificate") || text.contains("received fatal alert: ")
}

/// A server that has become a replica, or lost its master, will not change its mind: the next call shall find the new master.
fn needs_new_connection(kind: Option<ServerErrorKind>) -> bool {
    matches!(kind, Some(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading))
}
