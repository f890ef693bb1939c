//! Redis: connections and errors that the three parts of this adapter share. In: a parsed URL. Out: a connection that is made when first needed and
//! again after any error, and [`BrokerError`]s that say whether to retry. Left to others: the commands (`stats`, `sender`, `receiver`).
//!
//! Rights (Redis ACL) of each part; `SELECT` too where the database is not 0:
//! - figures: `%R~<keys of the queues>` with `llen zcard zcount hlen hvals scard scan xinfo|groups xinfo|stream xlen`; for arq also
//!   `%R~arq:in-progress:*` with `zrangebyscore exists`, without which its running jobs count as waiting;
//! - controller: `~qscaler:*` with `xadd xtrim xgroup|create xreadgroup xack xdel pexpire del`;
//! - sidecar: `~qscaler:ctl:<ns>/<name> ~qscaler:ctl:<ns>/<name>:* ~qscaler:reports:<ns>/<name>` with
//!   `xadd xack xdel xreadgroup xautoclaim xgroup|create pexpire`.

pub(crate) mod keys;
pub(crate) mod receiver;
pub(crate) mod sender;
pub(crate) mod stats;

use crate::{BrokerError, Retry};
use qscaler_broker_url::{Address, Login, RedisUrl, Secret};
use redis::aio::MultiplexedConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisConnectionInfo, RedisError, ServerErrorKind, TlsMode,
};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// A server on the same continent answers a connect within a second; twice that leaves room for one lost packet.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Sentinels are asked one after the other, each with its own connect, then the master's role is checked.
const SENTINEL_TIMEOUT: Duration = Duration::from_secs(6);
/// A call that takes longer than this has a server that hangs: the decision loop must learn of it before its figures are stale.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection to one Redis.
#[derive(Debug)]
pub(crate) struct Link {
    url: RedisUrl,
    response_timeout: Duration,
    connection: Mutex<Option<Live>>,
}

struct Live {
    generation: u64,
    connection: MultiplexedConnection,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Link {
    pub(crate) fn new(url: RedisUrl, response_timeout: Duration) -> Self {
        Self { url, response_timeout, connection: Mutex::new(None) }
    }

    pub(crate) fn place(&self) -> String {
        self.url.place()
    }

    /// The live connection, or a new one, and its number: it grows with each new one.
    pub(crate) async fn connection(&self, operation: &'static str) -> Result<(MultiplexedConnection, u64), BrokerError> {
        let mut slot = self.connection.lock().await;
        if let Some(live) = slot.as_ref() {
            return Ok((live.connection.clone(), live.generation));
        }
        let connection = self.connect().await.map_err(|error| self.error(operation, &error))?;
        let generation = next_generation();
        *slot = Some(Live { generation, connection: connection.clone() });
        Ok((connection, generation))
    }

    /// Runs a pipeline; the answers of its commands one by one, errors of single commands among them. A broken connection is forgotten.
    pub(crate) async fn run(&self, operation: &'static str, pipeline: &mut redis::Pipeline) -> Result<Vec<redis::Value>, BrokerError> {
        let (mut connection, generation) = self.connection(operation).await?;
        match pipeline.ignore_errors().query_async::<Vec<redis::Value>>(&mut connection).await {
            Ok(values) => {
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

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        if self.url.tls.is_some() {
            crate::ensure_tls_provider();
        }
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(Some(self.response_timeout));
        let elapsed = || RedisError::from((ErrorKind::Io, "the server did not answer in time"));
        let Some(master) = self.master() else {
            let client = self.client()?;
            return timeout(CONNECT_TIMEOUT, client.get_multiplexed_async_connection_with_config(&config)).await.map_err(|_| elapsed())?;
        };
        let mut client = self.sentinels(&master)?;
        timeout(SENTINEL_TIMEOUT, client.get_async_connection_with_config(&config)).await.map_err(|_| elapsed())?
    }

    /// A connection of its own for subscriptions.
    pub(crate) async fn subscriber(&self, operation: &'static str) -> Result<redis::aio::PubSub, BrokerError> {
        if self.url.tls.is_some() {
            crate::ensure_tls_provider();
        }
        let connect = async {
            let client = match self.master() {
                Some(master) => self.sentinels(&master)?.async_get_client().await?,
                None => self.client()?,
            };
            client.get_async_pubsub().await
        };
        let connected = timeout(SENTINEL_TIMEOUT, connect).await.map_err(|_| RedisError::from((ErrorKind::Io, "the server did not answer in time")));
        connected.and_then(|result| result).map_err(|error| self.error(operation, &error))
    }

    fn master(&self) -> Option<String> {
        self.url.sentinel.then(|| self.url.master.clone().unwrap_or_default())
    }

    fn sentinels(&self, master: &str) -> Result<SentinelClient, RedisError> {
        let addresses: Vec<ConnectionAddr> = self.url.addresses.iter().map(|a| self.address(a)).collect();
        let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?.set_client_to_redis_db(self.url.database);
        if self.url.tls.is_some() {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure).set_client_to_sentinel_tls_mode(TlsMode::Secure);
        }
        let Login { user, password } = &self.url.login;
        if let Some(user) = user {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = password {
            builder = builder.set_client_to_redis_password(password.expose());
        }
        let Login { user, password } = &self.url.sentinel_login;
        if let Some(user) = user {
            builder = builder.set_client_to_sentinel_username(user);
        }
        if let Some(password) = password {
            builder = builder.set_client_to_sentinel_password(password.expose());
        }
        builder.build()
    }

    fn client(&self) -> Result<Client, RedisError> {
        let address =
            self.url.addresses.first().map(|a| self.address(a)).ok_or_else(|| RedisError::from((ErrorKind::InvalidClientConfig, "no address")))?;
        let mut login = RedisConnectionInfo::default().set_db(self.url.database).set_skip_set_lib_name();
        if let Some(user) = &self.url.login.user {
            login = login.set_username(user);
        }
        if let Some(password) = self.url.login.password.as_ref().map(Secret::expose) {
            login = login.set_password(password);
        }
        Client::open(address.into_connection_info()?.set_redis_settings(login))
    }

    fn address(&self, address: &Address) -> ConnectionAddr {
        let (host, port) = (address.host.clone(), address.port);
        if self.url.tls.is_some() {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        }
    }

    /// What a user reads, without the password.
    pub(crate) fn error(&self, operation: &'static str, error: &RedisError) -> BrokerError {
        let retry = if is_wrong_until_changed(error) { Retry::AfterChange } else { Retry::Later };
        BrokerError { operation, place: self.place(), message: self.url.scrub(&error.to_string()), retry }
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
    matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig | ErrorKind::Server(ServerErrorKind::NoPerm))
        || matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM" | "WRONGTYPE" | "MOVED" | "CROSSSLOT"))
}

/// A server that has become a replica, or lost its master, will not change its mind: the next call shall find the new master.
fn needs_new_connection(kind: Option<ServerErrorKind>) -> bool {
    matches!(kind, Some(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading))
}
