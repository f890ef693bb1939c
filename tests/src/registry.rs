//! A registry with a login, as a company has one: Debian's `docker-registry` on loopback. In: its program, a port's address. Out: a running registry, ended by its pid when
//! dropped, and the file that `docker login` would leave. Left to others: what is pushed to it and pulled from it.

use anyhow::{Context, Result, bail};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

use crate::servers::free_port;

/// Who may push and pull.
pub const USER: &str = "someone";
/// The password.
pub const PASSWORD: &str = "let-me-in";
/// User and password as `htpasswd -B` writes them, at the lowest cost.
const HTPASSWD: &str = "someone:$2b$04$HMQrvK8wBRK6GXWfWUKhLuNQim5KSh/UhGhXSnNBqZRflWe5bWtd2\n";
/// User and password as `docker login` keeps them.
pub const BASIC: &str = "c29tZW9uZTpsZXQtbWUtaW4=";
/// How long it may take to listen on a busy machine.
const READY: Duration = Duration::from_secs(60);
/// Between two looks whether it does.
const POLL: Duration = Duration::from_millis(100);

/// The registry, by HTTP: what is on loopback Helm, crane and containerd may ask so.
pub struct Registry {
    folder: TempDir,
    server: Child,
    host: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Both may fail only when it has ended already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Registry {
    /// Starts one.
    ///
    /// # Errors
    /// The program does not start, or does not listen.
    pub fn start(program: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let host = format!("127.0.0.1:{}", free_port(IpAddr::V4(Ipv4Addr::LOCALHOST))?);
        let at = folder.path().display();
        fs::write(folder.path().join("htpasswd"), HTPASSWD)?;
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {at}/data}}}}\nhttp: {{addr: \"{host}\"}}\n\
             auth: {{htpasswd: {{realm: qscaler, path: {at}/htpasswd}}}}\n"
        );
        fs::write(folder.path().join("config.yml"), config)?;
        let log = fs::File::create(folder.path().join("log"))?;
        let mut command = Command::new(program);
        command.arg("serve").arg(folder.path().join("config.yml")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut registry = Self { server: command.spawn().with_context(|| format!("{} cannot be started", program.display()))?, folder, host };
        let begin = Instant::now();
        while TcpStream::connect(&registry.host).is_err() {
            let ended = registry.server.try_wait()?;
            if ended.is_some() || begin.elapsed() > READY {
                bail!("the registry does not listen ({ended:?}): {}", fs::read_to_string(registry.path("log")).unwrap_or_default());
            }
            std::thread::sleep(POLL);
        }
        Ok(registry)
    }

    /// `HOST:PORT`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// A file in its own folder, which ends with it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What `docker login` leaves behind, or where nobody is logged in: a folder for `DOCKER_CONFIG`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn docker_login(&self, is_in: bool) -> Result<PathBuf> {
        let folder = self.path("docker");
        fs::create_dir_all(&folder)?;
        let auths = if is_in { format!("{{\"{}\": {{\"auth\": \"{BASIC}\"}}}}", self.host) } else { "{}".to_owned() };
        fs::write(folder.join("config.json"), format!("{{\"auths\": {auths}}}"))?;
        Ok(folder)
    }
}
