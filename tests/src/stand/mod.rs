//! What a cluster test stands on: the cluster (named by KUBECONFIG, with QScaler installed) and the brokers of this run, reachable from pods at
//! QSCALER_HOST_IP. In: the environment that `cargo xtask test e2e` and `cargo xtask demo` set. Out: one `Stand` per process. Left to others: fleets
//! (`fleet`), what became of tasks (`ledger`).

pub mod burst;
pub mod cuts;
pub mod fleet;
pub mod framework;
pub mod kubectl;
pub mod ledger;

use crate::servers::{RabbitServer, RedisServer};
use anyhow::{Context, Result};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::OnceCell;

/// Where QScaler is installed.
pub const SYSTEM_NAMESPACE: &str = "qscaler-system";
/// RabbitMQ's usual ports: the network is the cluster's own, so they are free, and the defaults are tested. On other ports no part of QScaler would find
/// the management API.
const RABBITMQ_PORTS: [u16; 5] = [5672, 15672, 15692, 25672, 4370];
/// Part of the broker's URL, and so of what must be in no log.
const PASSWORD: &str = "correct-horse-battery";

/// Where a fleet's tasks wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerKind {
    /// Redis lists.
    Redis,
    /// AMQP queues.
    RabbitMq,
}

impl BrokerKind {
    /// As arguments and reports name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::RabbitMq => "rabbitmq",
        }
    }
}

/// The cluster and the brokers.
pub struct Stand {
    /// Where pods reach this process's servers.
    pub host: String,
    redis: Mutex<RedisServer>,
    rabbitmq: Mutex<Option<RabbitServer>>,
    ledger: Mutex<RedisServer>,
}

static STAND: OnceCell<Stand> = OnceCell::const_new();

impl Stand {
    /// The stand of this process, made at the first call. The servers are of its process group, which `cargo xtask` ends with it.
    ///
    /// # Errors
    /// The environment is not that of a cluster test, or a server does not start.
    pub async fn get() -> Result<&'static Self> {
        STAND.get_or_try_init(|| async { Self::start() }).await
    }

    fn start() -> Result<Self> {
        let host = std::env::var("QSCALER_HOST_IP").context("QSCALER_HOST_IP is not set: run `cargo xtask test e2e`")?;
        let bind: IpAddr = host.parse().context("QSCALER_HOST_IP")?;
        // The broker keeps its data, for those who restart it.
        let (redis, ledger) = (RedisServer::start_persistent_at(bind, Some(PASSWORD))?, RedisServer::start_at(bind, None)?);
        Ok(Self { host, redis: Mutex::new(redis), rabbitmq: Mutex::new(None), ledger: Mutex::new(ledger) })
    }

    /// A client of the API server for the calling test: it lives and dies with that test's runtime, so no two tests may share one.
    ///
    /// # Errors
    /// The cluster of KUBECONFIG cannot be talked to.
    pub async fn client(&self) -> Result<kube::Client> {
        // The first of several tests to come here wins; an error only says that another was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        kube::Client::try_default().await.context("the cluster of KUBECONFIG")
    }

    /// The broker's URL as a worker gets it. RabbitMQ is started at the first call.
    ///
    /// # Errors
    /// It does not start.
    pub fn broker_url(&self, kind: BrokerKind) -> Result<String> {
        Ok(match kind {
            BrokerKind::Redis => lock(&self.redis).url(0),
            BrokerKind::RabbitMq => {
                let mut rabbitmq = lock(&self.rabbitmq);
                if rabbitmq.is_none() {
                    let bind: IpAddr = self.host.parse()?;
                    *rabbitmq = Some(RabbitServer::start_on(bind, RABBITMQ_PORTS)?);
                }
                rabbitmq.as_ref().map(RabbitServer::url).unwrap_or_default()
            }
        })
    }

    /// The Redis broker's URL with a database of one's own. Celery's workers hear all others of their database, so that many fleets in one are slow.
    #[must_use]
    pub fn redis_url(&self, database: u32) -> String {
        lock(&self.redis).url(database)
    }

    /// Ends the broker's process, starts it again on the same port with its data after this outage, and gives the old and the new process id. Every
    /// fleet of this process meets it.
    ///
    /// # Errors
    /// It does not start, or never ran.
    pub fn restart_broker(&self, kind: BrokerKind, outage: Duration) -> Result<(u32, u32)> {
        let pids = match kind {
            BrokerKind::Redis => {
                let mut redis = lock(&self.redis);
                let before = redis.pid();
                redis.stop();
                std::thread::sleep(outage);
                redis.restart()?;
                before.zip(redis.pid())
            }
            BrokerKind::RabbitMq => {
                let mut rabbitmq = lock(&self.rabbitmq);
                let rabbitmq = rabbitmq.as_mut().context("RabbitMQ was never started")?;
                let before = rabbitmq.pid();
                rabbitmq.stop();
                std::thread::sleep(outage);
                rabbitmq.restart()?;
                before.zip(rabbitmq.pid())
            }
        };
        pids.context("the broker did not run")
    }

    /// RabbitMQ's version, as its management API tells.
    ///
    /// # Errors
    /// It does not run, or does not answer.
    pub async fn rabbitmq_version(&self) -> Result<String> {
        let management = lock(&self.rabbitmq).as_ref().map(RabbitServer::management).context("RabbitMQ was never started")?;
        let authority = management.trim_start_matches("http://").to_owned();
        let mut stream = tokio::net::TcpStream::connect(&authority).await?;
        // guest:guest, the server's default.
        let request = format!("GET /api/overview HTTP/1.0\r\nHost: {authority}\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let overview: serde_json::Value = serde_json::from_str(body).context("RabbitMQ's management API")?;
        Ok(overview["rabbitmq_version"].as_str().unwrap_or("?").to_owned())
    }

    /// The ledger's URL.
    #[must_use]
    pub fn ledger_url(&self) -> String {
        lock(&self.ledger).url(0)
    }

    /// The lines of one fleet's ledger.
    ///
    /// # Errors
    /// Its server does not answer.
    pub async fn ledger_lines(&self, key: &str) -> Result<Vec<String>> {
        let command = lock(&self.ledger).cli(0);
        let output = tokio::process::Command::from(command).args(["LRANGE", key, "0", "-1"]).output().await?;
        anyhow::ensure!(output.status.success(), "redis-cli: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).lines().filter(|l| !l.is_empty()).map(str::to_owned).collect())
    }

    /// What must be in no log, status or event.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        vec![PASSWORD.to_owned()]
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
