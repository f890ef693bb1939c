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
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind};
use qscaler_broker_url::{AmqpUrl, Secret};
use std::future::Future;
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
pub(crate) struct Link {
    pub(crate) url: AmqpUrl,
    /// Shown in the management API.
    name: &'static str,
}

impl Link {
    pub(crate) fn new(url: AmqpUrl, name: &'static str) -> Self {
        Self { url, name }
    }

    /// A new connection, to the first address that takes one.
    pub(crate) async fn connect(&self, operation: &'static str) -> Result<Connection, BrokerError> {
        if self.url.tls.is_some() {
            crate::ensure_tls_provider();
        }
        let mut last = None;
        for address in &self.url.addresses {
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
                query: AMQPQueryString { heartbeat: Some(HEARTBEAT_S), ..AMQPQueryString::default() },
            };
            let properties = ConnectionProperties::default().with_connection_name(self.name.into());
            match timeout(CONNECT_TIMEOUT, Connection::connect_uri(uri, properties)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => {
                    let error = self.error(operation, &error);
                    if error.retry == Retry::AfterChange {
                        return Err(error);
                    }
                    last = Some(error);
                }
                Err(_) => last = Some(self.slow(operation)),
            }
        }
        Err(last.unwrap_or_else(|| self.slow(operation)))
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
        self.failed(operation, &error.to_string(), retry)
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
