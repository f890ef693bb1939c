//! Real brokers, started by the tests that need them. In: an address to listen on. Out: a running server with its URL, ended by its pid when dropped.
//! The programs are those that `cargo xtask brokers` found or unpacked. Left to others: what is asked of them.

use anyhow::{Context, Result, bail};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server that is not ready after this long is broken: RabbitMQ takes 5 s on an idle machine, ten times that on a busy one.
const START_MAX: Duration = Duration::from_secs(120);
/// Between two looks whether it is ready.
const POLL: Duration = Duration::from_millis(100);

/// The folder with the brokers' programs.
///
/// # Errors
/// They are not there.
pub fn bin() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = || {
        variable("QSCALER_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|p| p.join("qscaler")))
            .or_else(|| variable("HOME").map(|p| p.join(".cache/qscaler")))
    };
    let bin = variable("QSCALER_BROKERS_BIN").or_else(|| cache().map(|c| c.join("brokers/bin"))).context("no HOME, no QSCALER_CACHE")?;
    if !bin.join("redis-server").exists() {
        bail!("no brokers in {}: run `cargo xtask brokers path` once", bin.display());
    }
    Ok(bin)
}

/// A free TCP port on this address. Another process may take it before the server does: then the server does not start, and says so.
///
/// # Errors
/// There is none.
pub fn free_port(bind: IpAddr) -> Result<u16> {
    Ok(TcpListener::bind((bind, 0))?.local_addr()?.port())
}

/// A child process that is killed, by its pid, when dropped.
struct Server(Option<Child>);

impl Server {
    fn kill(&mut self) {
        if let Some(mut child) = self.0.take() {
            // Both may fail only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn wait_ready(name: &str, log: &Path, server: &mut Server, ready: impl Fn() -> bool) -> Result<()> {
    let begin = Instant::now();
    loop {
        let ended = server.0.as_mut().map(Child::try_wait).transpose()?.flatten();
        if ended.is_some() || begin.elapsed() > START_MAX {
            bail!("{name} did not start ({ended:?}):\n{}", std::fs::read_to_string(log).unwrap_or_default());
        }
        if ready() {
            return Ok(());
        }
        std::thread::sleep(POLL);
    }
}

fn start(name: &str, log: &Path, mut command: Command) -> Result<Server> {
    let out = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    Ok(Server(Some(command.spawn().with_context(|| format!("{name} cannot be started"))?)))
}

/// Files of a server that speaks TLS.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Authority that clients' certificates must be signed by.
    pub ca: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whether clients must show a certificate.
    pub clients: bool,
}

/// A Redis server, without persistence unless it is asked for.
pub struct RedisServer {
    bin: PathBuf,
    data: TempDir,
    bind: IpAddr,
    port: u16,
    password: Option<String>,
    persistent: bool,
    tls: Option<TlsFiles>,
    server: Server,
}

impl RedisServer {
    /// Starts one on loopback, without a password.
    ///
    /// # Errors
    /// It does not start.
    pub fn start() -> Result<Self> {
        Self::start_at(IpAddr::V4(Ipv4Addr::LOCALHOST), None)
    }

    /// Starts one on this address.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_at(bind: IpAddr, password: Option<&str>) -> Result<Self> {
        Self::start_with(bind, password, false, None)
    }

    /// Starts one on loopback that speaks nothing but TLS.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_tls(password: Option<&str>, tls: TlsFiles) -> Result<Self> {
        Self::start_with(IpAddr::V4(Ipv4Addr::LOCALHOST), password, false, Some(tls))
    }

    /// Starts one on this address that keeps its data when it is started again: its log of writes is written before each answer, so that nothing
    /// that a client was told is lost with the process.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_persistent_at(bind: IpAddr, password: Option<&str>) -> Result<Self> {
        Self::start_with(bind, password, true, None)
    }

    fn start_with(bind: IpAddr, password: Option<&str>, persistent: bool, tls: Option<TlsFiles>) -> Result<Self> {
        let mut redis = Self {
            bin: bin()?,
            data: tempfile::tempdir()?,
            bind,
            port: free_port(bind)?,
            password: password.map(str::to_owned),
            persistent,
            tls,
            server: Server(None),
        };
        redis.restart()?;
        Ok(redis)
    }

    /// Its process; None while it is stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.0.as_ref().map(Child::id)
    }

    /// Ends it and starts it again on the same port; empty, unless it is persistent.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        let mut command = Command::new(self.bin.join("redis-server"));
        let log_of_writes = if self.persistent { "yes" } else { "no" };
        command.args(["--save", "", "--appendonly", log_of_writes, "--protected-mode", "no", "--databases", "64"]);
        command.arg("--bind").arg(self.bind.to_string()).arg("--dir").arg(self.data.path());
        if let Some(tls) = &self.tls {
            command.args(["--port", "0", "--tls-auth-clients", if tls.clients { "yes" } else { "no" }]).arg("--tls-port").arg(self.port.to_string());
            command.arg("--tls-ca-cert-file").arg(&tls.ca).arg("--tls-cert-file").arg(&tls.certificate).arg("--tls-key-file").arg(&tls.key);
        } else {
            command.arg("--port").arg(self.port.to_string());
        }
        if let Some(password) = &self.password {
            command.args(["--requirepass", password]);
        }
        let log = self.data.path().join("log");
        self.server = start("redis-server", &log, command)?;
        let address = (self.bind, self.port);
        wait_ready("redis-server", &log, &mut self.server, || TcpStream::connect(address).is_ok())
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.server.kill();
    }

    /// `redis://[:password@]host:port/db`, with TLS `rediss://`.
    #[must_use]
    pub fn url(&self, db: u32) -> String {
        let user = self.password.as_ref().map_or(String::new(), |p| format!(":{p}@"));
        format!("redis{}://{user}{}:{}/{db}", if self.tls.is_some() { "s" } else { "" }, self.bind, self.port)
    }

    /// A `redis-cli` that speaks to it, and fails where the server answers with an error. The password goes by the environment: in a URL without a
    /// user's name it is refused.
    #[must_use]
    pub fn cli(&self, db: u32) -> Command {
        let mut command = Command::new(self.bin.join("redis-cli"));
        command.arg("-h").arg(self.bind.to_string()).arg("-p").arg(self.port.to_string()).arg("-n").arg(db.to_string());
        command.args(["-e", "--raw"]).stdin(Stdio::null());
        if let Some(password) = &self.password {
            command.env("REDISCLI_AUTH", password);
        }
        command
    }
}

/// A Redis Sentinel that watches one master.
pub struct Sentinel {
    _data: TempDir,
    address: String,
    _server: Server,
}

impl Sentinel {
    /// Starts one on loopback that knows `master` by this name.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(master: &RedisServer, name: &str) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let port = free_port(master.bind)?;
        let mut config =
            format!("bind {}\nport {port}\ndir {}\nsentinel monitor {name} {} {} 1\n", master.bind, data.path().display(), master.bind, master.port);
        if let Some(password) = &master.password {
            config.push_str(&format!("sentinel auth-pass {name} {password}\n"));
        }
        let file = data.path().join("sentinel.conf");
        std::fs::write(&file, config)?;
        let mut command = Command::new(master.bin.join("redis-server"));
        command.arg(&file).arg("--sentinel");
        let log = data.path().join("out");
        let mut server = start("redis-server --sentinel", &log, command)?;
        let address = (master.bind, port);
        wait_ready("redis-server --sentinel", &log, &mut server, || TcpStream::connect(address).is_ok())?;
        Ok(Self { _data: data, address: format!("{}:{port}", master.bind), _server: server })
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

/// A RabbitMQ server with the management plugin; user and password `guest`.
pub struct RabbitServer {
    bin: PathBuf,
    data: TempDir,
    bind: IpAddr,
    /// AMQP, management, metrics, distribution, port mapper.
    ports: [u16; 5],
    /// Further lines of its configuration.
    config: String,
    server: Server,
}

impl RabbitServer {
    /// Starts one on loopback.
    ///
    /// # Errors
    /// It does not start.
    pub fn start() -> Result<Self> {
        Self::start_at(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// Starts one on this address.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_at(bind: IpAddr) -> Result<Self> {
        Self::start_on(bind, Self::free_ports(bind)?)
    }

    /// Starts one on this address and these ports: AMQP, management, metrics, distribution, port mapper.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_on(bind: IpAddr, ports: [u16; 5]) -> Result<Self> {
        Self::start_with(bind, ports, "")
    }

    /// Starts one on loopback with further lines of `rabbitmq.conf`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_configured(config: &str) -> Result<Self> {
        let bind = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self::start_with(bind, Self::free_ports(bind)?, config)
    }

    fn start_with(bind: IpAddr, ports: [u16; 5], config: &str) -> Result<Self> {
        let config = format!("collect_statistics_interval = 1000\n{config}");
        let mut rabbit = Self { bin: bin()?, data: tempfile::tempdir()?, bind, ports, config, server: Server(None) };
        rabbit.restart()?;
        Ok(rabbit)
    }

    fn free_ports(bind: IpAddr) -> Result<[u16; 5]> {
        let mut ports = [0; 5];
        // Taken together, so that no two are the same.
        let held: Vec<TcpListener> = (0..5).map(|_| TcpListener::bind((bind, 0))).collect::<Result<_, _>>()?;
        for (port, listener) in ports.iter_mut().zip(&held) {
            *port = listener.local_addr()?.port();
        }
        Ok(ports)
    }

    fn command(&self, program: &str) -> Command {
        let [amqp, management, metrics, distribution, mapper] = self.ports.map(|p| p.to_string());
        let mut command = Command::new(self.bin.join(program));
        command
            .env("RABBITMQ_NODENAME", format!("test{amqp}@localhost"))
            .env("RABBITMQ_MNESIA_BASE", self.data.path())
            .env("RABBITMQ_NODE_IP_ADDRESS", self.bind.to_string())
            .env("RABBITMQ_NODE_PORT", amqp)
            .env("RABBITMQ_MANAGEMENT_PORT", management)
            .env("RABBITMQ_PROMETHEUS_PORT", metrics)
            .env("RABBITMQ_DIST_PORT", distribution)
            .env("ERL_EPMD_PORT", mapper)
            .env("RABBITMQ_EXTRA_CONFIG", &self.config);
        command
    }

    /// Ends it and starts it again on the same ports; durable queues and persistent messages are kept.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        let log = self.data.path().join("out");
        self.server = start("rabbitmq-server", &log, self.command("rabbitmq-server"))?;
        let (amqp, management) = ((self.bind, self.ports[0]), (self.bind, self.ports[1]));
        wait_ready("rabbitmq-server", &log, &mut self.server, || TcpStream::connect(amqp).is_ok() && TcpStream::connect(management).is_ok())
    }

    /// Its process; None while it is stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.0.as_ref().map(Child::id)
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.server.kill();
    }

    /// `amqp://guest:guest@host:port/%2f`, as a worker gets it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@{}:{}/%2f", self.bind, self.ports[0])
    }

    /// Base URL of the management API, without user and password.
    #[must_use]
    pub fn management(&self) -> String {
        format!("http://{}:{}", self.bind, self.ports[1])
    }
}
