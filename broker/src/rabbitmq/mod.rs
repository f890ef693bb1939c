//! RabbitMQ: connections, errors and the names that the parts of this adapter share. In: a parsed URL. Out: a connection that is made when first
//! needed and again after any error, and [`BrokerError`]s that say whether to retry. Left to others: the operations (`stats`, `sender`, `receiver`)
//! and the management API (`management`).
//!
//! Rights (configure, write, read) of each part:
//! - figures: `^$ ^$ ^$` and the tag `management`; from RabbitMQ 4.3 on a passive declare needs `configure` on the queue, and without it the ready
//!   count comes from the management API too;
//! - controller: `^qscaler(\..*)?$` three times;
//! - sidecar: `^qscaler\.ctl\..*`, `^qscaler(\.ctl\..*)?$`, `^qscaler(\.ctl\..*)?$`: it publishes to the exchange `qscaler` and to no other.

pub(crate) mod management;
pub(crate) mod names;
pub(crate) mod receiver;
pub(crate) mod sender;
pub(crate) mod stats;

use crate::{BrokerError, Retry};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::tcp::{AsyncTcpStream, RustlsConnector};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism};
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind};
use qscaler_broker_url::{Address, AmqpUrl, Secret};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// TCP, TLS and the handshake of AMQP, which takes five round trips, per address.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A call that takes longer than this has a server that hangs (an alarm blocks publishers): the caller must learn of it before figures are stale.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Seconds. A peer that is gone without a word is noticed within two of these; the server's default is 60.
const HEARTBEAT_S: u16 = 10;

/// Makes connections to one RabbitMQ.
#[derive(Debug)]
pub(crate) struct AmqpLink {
    pub(crate) url: AmqpUrl,
    /// Shown in the management API.
    name: &'static str,
    /// The server has asked for a client's certificate, and no connection has worked since.
    asked: Arc<AtomicBool>,
}

impl AmqpLink {
    pub(crate) fn new(url: AmqpUrl, name: &'static str) -> Self {
        Self { url, name, asked: Arc::default() }
    }

    /// A new connection, to the first address that takes one.
    pub(crate) async fn connect(&self, operation: &'static str) -> Result<Connection, BrokerError> {
        let mut last = None;
        for address in &self.url.addresses {
            match timeout(CONNECT_TIMEOUT, self.connect_to(operation, address)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) if error.retry == Retry::AfterChange => return Err(error),
                Ok(Err(error)) => last = Some(error),
                Err(_) => last = Some(self.slow(operation)),
            }
        }
        Err(last.unwrap_or_else(|| self.slow(operation)))
    }

    async fn connect_to(&self, operation: &'static str, address: &Address) -> Result<Connection, BrokerError> {
        let uri = AMQPUri {
            scheme: if self.url.tls.is_some() { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: self.url.login.user.clone().unwrap_or_default(),
                    password: self.url.login.password.as_ref().map(Secret::expose).unwrap_or_default().to_owned(),
                },
                host: address.host.clone(),
                port: address.port,
            },
            vhost: self.url.vhost.clone(),
            query: AMQPQueryString {
                heartbeat: Some(HEARTBEAT_S),
                auth_mechanism: self.url.external.then_some(SASLMechanism::External),
                ..AMQPQueryString::default()
            },
        };
        // Tried by us and not by lapin, which would go on trying on a thread of its own when nobody waits for it any more.
        let runtime = lapin::runtime::default_runtime().map_err(|error| self.error(operation, &error))?;
        let connect = async {
            let found: Vec<_> = tokio::net::lookup_host((address.host.as_str(), address.port)).await?.collect();
            AsyncTcpStream::connect(&runtime, found).await
        };
        let mut stream = connect.await.map_err(|error| self.failed(operation, &error.to_string(), Retry::Later))?;
        if let Some(tls) = &self.url.tls {
            let config = crate::tls::client(tls, &self.asked).map_err(|problem| self.failed(operation, &problem, Retry::AfterChange))?;
            let handshake = stream.into_rustls(&RustlsConnector::from(config), &address.host).await;
            stream = handshake.map_err(|error| self.explained(operation, &error.to_string(), Retry::Later))?;
        }
        let stream = std::sync::Mutex::new(Some(stream));
        let once = async move |_, _| {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            stream.ok_or_else(|| lapin::Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionAborted)))
        };
        let properties =
            ConnectionProperties::default().with_connection_name(self.name.into()).configure_backoff(|backoff| backoff.with_max_times(0));
        let connection = Connection::connector(uri, runtime, once, properties).await.map_err(|error| self.error(operation, &error))?;
        self.asked.store(false, Ordering::Relaxed);
        Ok(connection)
    }

    /// Runs one call against the time limit.
    pub(crate) async fn call<T>(&self, operation: &'static str, call: impl Future<Output = lapin::Result<T>>) -> Result<T, BrokerError> {
        match timeout(RESPONSE_TIMEOUT, call).await {
            Ok(result) => result.map_err(|error| self.error(operation, &error)),
            Err(_) => Err(self.slow(operation)),
        }
    }

    /// The same where the caller wants to know which error it was. None: too slow.
    pub(crate) async fn raw<T>(&self, call: impl Future<Output = lapin::Result<T>>) -> Result<T, Option<lapin::Error>> {
        timeout(RESPONSE_TIMEOUT, call).await.map_err(|_| None)?.map_err(Some)
    }

    pub(crate) async fn channel(&self, operation: &'static str, connection: &Connection) -> Result<Channel, BrokerError> {
        self.call(operation, connection.create_channel()).await
    }

    /// What a user reads, without the password.
    pub(crate) fn error(&self, operation: &'static str, error: &lapin::Error) -> BrokerError {
        let retry = if is_wrong_until_changed(error) { Retry::AfterChange } else { Retry::Later };
        self.explained(operation, &error.to_string(), retry)
    }

    /// The same, in better words where a certificate is the cause.
    fn explained(&self, operation: &'static str, message: &str, retry: Retry) -> BrokerError {
        match crate::tls::explain(message, self.url.tls.as_ref(), self.asked.load(Ordering::Relaxed)) {
            Some(words) => self.failed(operation, &words, Retry::AfterChange),
            None => self.failed(operation, message, retry),
        }
    }

    pub(crate) fn slow(&self, operation: &'static str) -> BrokerError {
        self.failed(operation, "the server did not answer in time", Retry::Later)
    }

    pub(crate) fn either(&self, operation: &'static str, error: Option<&lapin::Error>) -> BrokerError {
        error.map_or_else(|| self.slow(operation), |error| self.error(operation, error))
    }

    /// An error in the project's own words.
    pub(crate) fn failed(&self, operation: &'static str, message: &str, retry: Retry) -> BrokerError {
        BrokerError { operation, place: self.url.place(), message: self.url.scrub(message), retry }
    }
}

fn soft(error: &lapin::Error) -> Option<&AMQPSoftError> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(soft) => Some(soft),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    }
}

/// A queue or an exchange that does not exist.
pub(crate) fn is_missing(error: &lapin::Error) -> bool {
    matches!(soft(error), Some(AMQPSoftError::NOTFOUND))
}

/// A missing right.
pub(crate) fn is_refused(error: &lapin::Error) -> bool {
    matches!(soft(error), Some(AMQPSoftError::ACCESSREFUSED))
}

fn is_wrong_until_changed(error: &lapin::Error) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(error) => matches!(
            error.kind(),
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED | AMQPSoftError::PRECONDITIONFAILED) | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
        ),
        ErrorKind::AuthProviderError(_) | ErrorKind::InvalidProtocolVersion(_) => true,
        _ => false,
    }
}
