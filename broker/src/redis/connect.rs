//! Sockets to Redis, and which Redis the Sentinels say is the master. In: a parsed URL. Out: a connected socket and the login for it. Left to others: the
//! protocol on it (`mod`).
//!
//! Sentinel client protocol: ask a Sentinel for the master's address, connect, check the server's role, else ask the next
//! (redis.io/docs/latest/develop/reference/sentinel-clients).

use qscaler_broker_url::{Address, Login, RedisUrl, Secret, Tls};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError, ServerErrorKind, Value, cmd};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server on the same continent answers a connect within a second; twice that leaves room for one lost packet.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether a server has asked for a client's certificate; see [`crate::tls::client`].
pub(crate) type Asked = Arc<AtomicBool>;

/// A TCP stream, with TLS on it or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(crate) fn failed(message: impl Into<String>) -> RedisError {
    RedisError::from(std::io::Error::other(message.into()))
}

fn invalid(message: String) -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, "TLS cannot be set up", message))
}

async fn socket(address: &Address, tls: Option<&Tls>, asked: &Asked) -> Result<Box<dyn Stream>, RedisError> {
    let connect = async {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        // Requests are small and each waits for its answer.
        stream.set_nodelay(true)?;
        Ok::<_, RedisError>(stream)
    };
    let stream = timeout(CONNECT_TIMEOUT, connect).await.map_err(|_| failed("the server did not answer in time"))??;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(address.host.clone()).map_err(|error| invalid(error.to_string()))?;
    let connector = tokio_rustls::TlsConnector::from(crate::tls::client(tls, asked).map_err(invalid)?);
    let silent = || failed("the server did not answer the TLS handshake in time; one without TLS waits like that: its URL begins with redis://");
    Ok(Box::new(timeout(CONNECT_TIMEOUT, connector.connect(name, stream)).await.map_err(|_| silent())??))
}

fn login(login: &Login, database: i64) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default().set_db(database).set_skip_set_lib_name();
    if let Some(user) = &login.user {
        info = info.set_username(user);
    }
    if let Some(password) = login.password.as_ref().map(Secret::expose) {
        info = info.set_password(password);
    }
    info
}

/// A socket to the server, the login not sent yet. Of several addresses the first that takes a connection; behind Sentinels the master.
pub(crate) async fn connect(url: &RedisUrl, asked: &Asked) -> Result<(Box<dyn Stream>, RedisConnectionInfo), RedisError> {
    let info = login(&url.login, url.database);
    let mut last = failed("no address");
    for address in &url.addresses {
        let connected = match url.sentinel {
            false => socket(address, url.tls.as_ref(), asked).await,
            true => by_sentinel(url, asked, address, &info).await,
        };
        match connected {
            Ok(stream) => return Ok((stream, info)),
            // What a certificate or a name is wrong with is wrong everywhere, and more than "the next one is away, too".
            Err(error) if super::is_wrong_until_changed(&error) => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn by_sentinel(url: &RedisUrl, asked: &Asked, sentinel: &Address, info: &RedisConnectionInfo) -> Result<Box<dyn Stream>, RedisError> {
    let own = url.sentinel_login != Login::default();
    let found = match master(url, asked, sentinel, &url.sentinel_login).await {
        // kombu gives the Sentinels' password elsewhere than in the URL; mostly it is the server's.
        Err(error) if !own && matches!(error.code(), Some("NOAUTH" | "WRONGPASS")) => master(url, asked, sentinel, &url.login).await,
        found => found,
    }?;
    if is_master(url, asked, &found, info).await? {
        return socket(&found, url.tls.as_ref(), asked).await;
    }
    Err(failed(format!("Sentinel {sentinel} calls {found} the master, which says that it is none: a failover is under way")))
}

async fn query(address: &Address, tls: Option<&Tls>, asked: &Asked, info: &RedisConnectionInfo, command: &redis::Cmd) -> Result<Value, RedisError> {
    let stream = socket(address, tls, asked).await?;
    let asking = async {
        let (mut connection, driver) = MultiplexedConnection::new_with_config(info, stream, AsyncConnectionConfig::new()).await?;
        tokio::select! {
            answer = connection.send_packed_command(command) => answer,
            () = driver => Err(failed("the server closed the connection")),
        }
    };
    timeout(CONNECT_TIMEOUT, asking).await.map_err(|_| failed("the server did not answer in time"))?
}

/// Where this Sentinel says that the master is.
async fn master(url: &RedisUrl, asked: &Asked, sentinel: &Address, as_whom: &Login) -> Result<Address, RedisError> {
    let (tls, info) = (url.tls.as_ref(), login(as_whom, 0));
    if let Some(name) = &url.master {
        let answer = query(sentinel, tls, asked, &info, cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name)).await?;
        let address: Option<(String, u16)> = redis::from_redis_value(answer)?;
        let unknown = || (ErrorKind::InvalidClientConfig, "the Sentinel watches no master of this name", name.clone());
        return address.map(|(host, port)| Address { host, port }).ok_or_else(|| unknown().into());
    }
    let answer = query(sentinel, tls, asked, &info, cmd("SENTINEL").arg("MASTERS")).await?;
    let mut all: Vec<std::collections::HashMap<String, String>> = redis::from_redis_value(answer)?;
    if let [_] = all.as_slice()
        && let Some(only) = all.pop()
        && let (Some(host), Some(port)) = (only.get("ip"), only.get("port").and_then(|p| p.parse().ok()))
    {
        return Ok(Address { host: host.clone(), port });
    }
    let names: Vec<&str> = all.iter().filter_map(|one| one.get("name").map(String::as_str)).collect();
    let words = format!(
        "it watches {}; name one: redis+sentinel://HOST:PORT/MASTER/DB in a Secret",
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    );
    Err((ErrorKind::InvalidClientConfig, "the Sentinel does not watch exactly one master", words).into())
}

/// Whether the server calls itself a master. A user without the right to ask is believed the Sentinel.
async fn is_master(url: &RedisUrl, asked: &Asked, address: &Address, info: &RedisConnectionInfo) -> Result<bool, RedisError> {
    match query(address, url.tls.as_ref(), asked, info, &cmd("ROLE")).await {
        Ok(Value::Array(answer)) => Ok(answer.first().is_none_or(|role| matches!(role, Value::BulkString(name) if name == b"master"))),
        Ok(Value::ServerError(error)) if matches!(error.kind(), Some(ServerErrorKind::NoPerm)) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => Ok(true),
        Ok(_) => Ok(true),
        Err(error) => Err(error),
    }
}
