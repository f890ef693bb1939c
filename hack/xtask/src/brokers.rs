//! Redis and RabbitMQ servers for tests and the demo. In: nothing but the cache. Out: a folder of programs that start a server with
//! its own data, ports and name ([`Brokers::bin`]), and commands that do so. It leaves starting, waiting and ending to its callers.
//!
//! The programs are the machine's own where it has them, else Debian's, unpacked in the cache. Erlang and RabbitMQ name their own
//! install folders in scripts: those scripts are rewritten for the place where they are unpacked.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, Key};
use crate::step::Step;
use crate::{debian, exec};

const SERVER_SCRIPT: &str = include_str!("../../brokers/rabbitmq-server.sh");
const TOOL_SCRIPT: &str = include_str!("../../brokers/rabbitmqctl.sh");
const ENVIRONMENT: &str = include_str!("../../brokers/rabbitmq.env.in");
/// RabbitMQ's command line tools; all run through one script.
const TOOLS: [&str; 3] = ["rabbitmqctl", "rabbitmq-diagnostics", "rabbitmq-plugins"];
/// Where Debian's Erlang believes itself to be.
const ERLANG_HOME: &str = "/usr/lib/erlang";

/// The unpacked brokers.
#[derive(Clone, Debug)]
pub struct Brokers {
    bin: PathBuf,
}

/// How to start one Redis server.
#[derive(Clone, Debug)]
pub struct RedisOptions<'a> {
    /// Working and data folder; must exist.
    pub data: &'a Path,
    /// Address to listen on.
    pub bind: IpAddr,
    /// TCP port.
    pub port: u16,
}

/// How to start one RabbitMQ server. Every port must be free on `bind`.
#[derive(Clone, Debug)]
pub struct RabbitMqOptions<'a> {
    /// Data, configuration, log and cookie folder; made if missing.
    pub data: &'a Path,
    /// Erlang node name, such as `a@localhost`: one per server.
    pub node: &'a str,
    /// Address for AMQP, management and metrics.
    pub bind: IpAddr,
    /// AMQP port.
    pub amqp: u16,
    /// Management API port.
    pub management: u16,
    /// Metrics port.
    pub prometheus: u16,
    /// Erlang distribution port.
    pub distribution: u16,
    /// Port of this server's own port mapper, on loopback.
    pub epmd: u16,
    /// Further lines of `rabbitmq.conf`.
    pub extra_config: &'a str,
}

impl Brokers {
    /// Finds the brokers, or unpacks them; `<cache>/brokers` then leads to them.
    ///
    /// # Errors
    /// They are not on this machine and cannot be fetched; the message says what to install.
    pub fn ensure(cache: &Cache) -> Result<Self> {
        let found = Found::on_this_machine();
        let key = Key::new().with(SERVER_SCRIPT).with(TOOL_SCRIPT).with(ENVIRONMENT).with(format!("{found:?}")).finish();
        let folder = cache.once("brokers", &key, |folder| unpack(cache, &found, folder))?;
        let _lock = cache.lock("brokers")?;
        let stable = cache.path("brokers");
        if fs::read_link(&stable).ok().as_deref() != Some(&folder) {
            let _ = fs::remove_file(&stable);
            std::os::unix::fs::symlink(&folder, &stable).with_context(|| format!("cannot make the link {}", stable.display()))?;
        }
        Ok(Self { bin: stable.join("bin") })
    }

    /// The folder with `redis-server`, `redis-cli`, `rabbitmq-server`, `rabbitmqctl`, `rabbitmq-diagnostics` and `rabbitmq-plugins`.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// A command that runs a Redis server in the foreground, without persistence: its process is the server.
    pub fn redis(&self, options: &RedisOptions<'_>) -> Command {
        let mut command = Command::new(self.bin.join("redis-server"));
        command.args(["--save", "", "--appendonly", "no", "--protected-mode", "no", "--daemonize", "no"]);
        command.arg("--bind").arg(options.bind.to_string()).arg("--port").arg(options.port.to_string());
        command.arg("--dir").arg(options.data);
        command
    }

    /// A command that runs a RabbitMQ server in the foreground: its process is the server.
    pub fn rabbitmq(&self, options: &RabbitMqOptions<'_>) -> Command {
        let mut command = self.rabbitmq_tool("rabbitmq-server", options);
        command.env("RABBITMQ_NODE_IP_ADDRESS", options.bind.to_string());
        for (name, port) in [
            ("RABBITMQ_NODE_PORT", options.amqp),
            ("RABBITMQ_MANAGEMENT_PORT", options.management),
            ("RABBITMQ_PROMETHEUS_PORT", options.prometheus),
            ("RABBITMQ_DIST_PORT", options.distribution),
        ] {
            command.env(name, port.to_string());
        }
        command.env("RABBITMQ_EXTRA_CONFIG", options.extra_config);
        command
    }

    /// A command of RabbitMQ's tools (`rabbitmqctl` and so on) that speaks to the server with these options.
    pub fn rabbitmq_tool(&self, tool: &str, options: &RabbitMqOptions<'_>) -> Command {
        let mut command = Command::new(self.bin.join(tool));
        command.env("RABBITMQ_NODENAME", options.node).env("RABBITMQ_MNESIA_BASE", options.data);
        command.env("ERL_EPMD_PORT", options.epmd.to_string());
        command
    }
}

/// What the machine itself has. RabbitMQ's own scripts are looked for, not a distribution's wrappers: those insist on a system user.
#[derive(Clone, Debug, Default)]
struct Found {
    redis: Option<[PathBuf; 2]>,
    rabbitmq: Option<RabbitMq>,
}

#[derive(Clone, Debug)]
struct RabbitMq {
    sbin: PathBuf,
    erlang_bin: PathBuf,
}

impl Found {
    fn on_this_machine() -> Self {
        let redis = exec::which("redis-server").zip(exec::which("redis-cli")).map(|(server, cli)| [server, cli]);
        let rabbitmq = rabbitmq_sbin(Path::new("/"))
            .zip(exec::which("erl"))
            .and_then(|(sbin, erl)| Some(RabbitMq { sbin, erlang_bin: erl.parent()?.to_path_buf() }));
        Self { redis, rabbitmq }
    }
}

fn rabbitmq_sbin(root: &Path) -> Option<PathBuf> {
    let versions = fs::read_dir(root.join("usr/lib/rabbitmq/lib")).ok()?;
    let mut found: Vec<PathBuf> =
        versions.flatten().map(|entry| entry.path().join("sbin")).filter(|sbin| exec::is_program(&sbin.join("rabbitmq-server"))).collect();
    found.sort();
    found.pop()
}

fn unpack(cache: &Cache, found: &Found, folder: &Path) -> Result<()> {
    let step = Step::start("unpacking Redis and RabbitMQ");
    let root = folder.join("root");
    let mut packages = Vec::new();
    if found.redis.is_none() {
        packages.push("redis-server");
    }
    if found.rabbitmq.is_none() {
        packages.push("rabbitmq-server");
    }
    if !packages.is_empty() {
        debian::require(&packages.join(" or "), &packages.join(" and "))?;
        debian::unpack_with_needs(cache, &packages, &root)?;
    }
    let libraries = debian::library_folders(&root).iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":");
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;

    let redis = found.redis.clone().unwrap_or_else(|| ["redis-server", "redis-cli"].map(|name| root.join("usr/bin").join(name)));
    for (name, program) in ["redis-server", "redis-cli"].iter().zip(redis) {
        exec::write_program(&bin.join(name), &wrapper(&libraries, &program))?;
    }

    let rabbitmq = match found.rabbitmq.clone() {
        Some(rabbitmq) => rabbitmq,
        None => {
            let erlang = root.join(ERLANG_HOME.trim_start_matches('/'));
            move_erlang(&erlang)?;
            let sbin = rabbitmq_sbin(&root).context("the package rabbitmq-server has no RabbitMQ in usr/lib/rabbitmq/lib")?;
            RabbitMq { sbin, erlang_bin: erlang.join("bin") }
        }
    };
    let environment = ENVIRONMENT
        .replace("@ERLANG_BIN@", &rabbitmq.erlang_bin.display().to_string())
        .replace("@LIBRARIES@", &libraries)
        .replace("@RABBITMQ_SBIN@", &rabbitmq.sbin.display().to_string());
    fs::write(folder.join("rabbitmq.env"), environment).context("cannot write rabbitmq.env")?;
    exec::write_program(&bin.join("rabbitmq-server"), SERVER_SCRIPT)?;
    for tool in TOOLS {
        exec::write_program(&bin.join(tool), TOOL_SCRIPT)?;
    }
    step.done();
    Ok(())
}

/// A script that runs a program with libraries that were unpacked beside it.
pub(crate) fn wrapper(libraries: &str, program: &Path) -> String {
    format!("#!/bin/sh\nLD_LIBRARY_PATH='{libraries}' exec '{}' \"$@\"\n", program.display())
}

/// Rewrites the scripts of an unpacked Erlang that name [`ERLANG_HOME`].
fn move_erlang(erlang: &Path) -> Result<()> {
    let mut folders = vec![erlang.join("bin")];
    folders.extend(fs::read_dir(erlang).context("the package erlang-base has no usr/lib/erlang")?.flatten().map(|entry| entry.path().join("bin")));
    let mut moved = 0;
    for folder in folders {
        for name in ["erl", "start"] {
            let script = folder.join(name);
            let Ok(text) = fs::read_to_string(&script) else { continue };
            let there = moved_script(&text, erlang);
            if there != text {
                exec::write_program(&script, &there)?;
                moved += 1;
            }
        }
    }
    if moved == 0 {
        bail!("no script in {} names {ERLANG_HOME}: this release of Erlang finds its home another way", erlang.display());
    }
    Ok(())
}

fn moved_script(text: &str, erlang: &Path) -> String {
    text.replace(&format!("ROOTDIR={ERLANG_HOME}\n"), &format!("ROOTDIR='{}'\n", erlang.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erlang_s_scripts_are_moved_and_nothing_else_in_them() {
        let text = "# /usr/lib/erlang\nROOTDIR=/usr/lib/erlang\nBINDIR=\"$ROOTDIR/erts/bin\"\n";
        let moved = moved_script(text, Path::new("/c/root/usr/lib/erlang"));
        assert_eq!(moved, "# /usr/lib/erlang\nROOTDIR='/c/root/usr/lib/erlang'\nBINDIR=\"$ROOTDIR/erts/bin\"\n");
    }

    #[test]
    fn a_rabbitmq_command_names_every_port_and_its_own_data() {
        let brokers = Brokers { bin: "/c/brokers/bin".into() };
        let options = RabbitMqOptions {
            data: Path::new("/d"),
            node: "a@localhost",
            bind: [127, 0, 0, 1].into(),
            amqp: 1,
            management: 2,
            prometheus: 3,
            distribution: 4,
            epmd: 5,
            extra_config: "",
        };
        let command = brokers.rabbitmq(&options);
        let environment: Vec<String> =
            command.get_envs().filter_map(|(key, value)| Some(format!("{}={}", key.display(), value?.display()))).collect();
        for wanted in [
            "RABBITMQ_NODE_PORT=1",
            "RABBITMQ_MANAGEMENT_PORT=2",
            "RABBITMQ_PROMETHEUS_PORT=3",
            "RABBITMQ_DIST_PORT=4",
            "ERL_EPMD_PORT=5",
            "RABBITMQ_MNESIA_BASE=/d",
        ] {
            assert!(environment.iter().any(|set| set == wanted), "{wanted} is not in {environment:?}");
        }
    }
}
