//! Kubernetes clusters on this machine. In: a name and a kind. Out: a [`Cluster`]: its kubeconfig, kubectl, images brought in, programs
//! run beside its node, its end. It leaves what runs in the cluster to its callers.
//!
//! Three kinds: `box`, made by this project from programs in the cache, in namespaces of its own ([`boxed`]); `kind`, where Docker and
//! kind exist; and `current`, whatever the user's kubeconfig leads to ([`external`]).

pub mod boxed;
pub mod cgroup;
pub mod external;
pub mod parts;
pub mod pki;
pub mod process;
pub mod render;

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::exec;
use boxed::BoxHandle;
use process::Process;

/// A name becomes a host name and a control group: this many characters keep both short.
const LONGEST_NAME: usize = 24;

const NO_KUBECONFIG: &str = "no kubeconfig: set KUBECONFIG to a file that exists, or make ~/.kube/config";

/// How a cluster is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Flavor {
    /// Kubernetes in namespaces of its own on this machine; needs root and Debian's packages, nothing else
    Box,
    /// kind, in Docker
    Kind,
    /// The cluster of the current kubeconfig; it is neither made nor ended
    Current,
}

impl Flavor {
    /// As arguments name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Box => "box",
            Self::Kind => "kind",
            Self::Current => "current",
        }
    }

    /// The best kind that this machine can have.
    ///
    /// # Errors
    /// None: the message says what to install.
    pub fn choose() -> Result<Self> {
        let root = rustix::process::geteuid().is_root();
        let kind = exec::which("kind").is_some() && exec::which("docker").is_some();
        match (root && exec::which("apt-get").is_some(), kind) {
            (true, _) => Ok(Self::Box),
            (false, true) => Ok(Self::Kind),
            (false, false) => bail!("no local cluster can be had: run as root on Debian or Ubuntu, or install Docker and kind"),
        }
    }
}

/// What a new cluster gets.
#[derive(Clone, Debug, Default)]
pub struct UpOptions {
    /// Image archives to bring in besides the cluster's own.
    pub images: Vec<PathBuf>,
    /// The box ends when this process does, however it ends.
    pub tied: bool,
}

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the cluster's network; it lives as long as it likes.
    Network,
    /// In the cluster's network, among its processes and with its mounts (`/run`, `/var/lib` and `/var/log` are the box's): it ends with
    /// the cluster.
    Box,
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    flavor: Flavor,
    folder: PathBuf,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    handle: Option<BoxHandle>,
}

impl Cluster {
    /// Makes a cluster, or attaches to it if it is up already.
    ///
    /// # Errors
    /// A part is missing, or a component does not start; the message names its log.
    pub fn up(cache: &Cache, name: &str, flavor: Flavor, options: &UpOptions) -> Result<Self> {
        check_name(name)?;
        let _lock = cache.lock(&format!("cluster-{name}"))?;
        if let Some(cluster) = Self::find(cache, name, flavor)? {
            for image in &options.images {
                cluster.import_image(image)?;
            }
            return Ok(cluster);
        }
        let folder = folder(cache, name);
        match flavor {
            Flavor::Box => {
                let parts = parts::Parts::ensure(cache)?;
                let handle = boxed::up(cache, &parts, name, &folder, options)?;
                Ok(Self::of_box(name, folder, &parts, handle))
            }
            Flavor::Kind => {
                external::kind_up(name, &folder)?;
                let cluster = Self::find(cache, name, flavor)?.context("kind made a cluster and does not list it")?;
                for image in &options.images {
                    cluster.import_image(image)?;
                }
                Ok(cluster)
            }
            Flavor::Current => bail!(NO_KUBECONFIG),
        }
    }

    /// Attaches to a cluster that is up.
    ///
    /// # Errors
    /// There is none of that name and kind.
    pub fn attach(cache: &Cache, name: &str, flavor: Flavor) -> Result<Self> {
        check_name(name)?;
        Self::find(cache, name, flavor)?.with_context(|| match flavor {
            Flavor::Current => NO_KUBECONFIG.to_owned(),
            _ => format!("the cluster {name} is not up: start it with `cargo xtask cluster up --name {name}`"),
        })
    }

    fn find(cache: &Cache, name: &str, flavor: Flavor) -> Result<Option<Self>> {
        let folder = folder(cache, name);
        match flavor {
            Flavor::Box => {
                let Some(handle) = BoxHandle::find(&folder) else { return Ok(None) };
                let parts = parts::Parts::ensure(cache)?;
                Ok(Some(Self::of_box(name, folder, &parts, handle)))
            }
            Flavor::Kind | Flavor::Current => {
                let found = if flavor == Flavor::Kind { external::kind_kubeconfig(name, &folder)? } else { external::current_kubeconfig() };
                let Some(kubeconfig) = found else { return Ok(None) };
                let kubectl = match exec::which("kubectl") {
                    Some(kubectl) => kubectl,
                    None => parts::kubernetes(cache)?.join("kubectl"),
                };
                Ok(Some(Self { name: name.to_owned(), flavor, folder, kubeconfig, kubectl, handle: None }))
            }
        }
    }

    fn of_box(name: &str, folder: PathBuf, parts: &parts::Parts, handle: BoxHandle) -> Self {
        let kubeconfig = folder.join("kubeconfig");
        Self { name: name.to_owned(), flavor: Flavor::Box, folder, kubeconfig, kubectl: parts.kubernetes.join("kubectl"), handle: Some(handle) }
    }

    /// Ends the cluster of that name, if there is one, and removes what is left of an earlier one. Another's cluster (`current`) is left alone.
    ///
    /// # Errors
    /// Something of it does not end.
    pub fn down(cache: &Cache, name: &str, flavor: Flavor) -> Result<()> {
        check_name(name)?;
        let _lock = cache.lock(&format!("cluster-{name}"))?;
        match flavor {
            Flavor::Box => boxed::down(&folder(cache, name)),
            Flavor::Kind => external::kind_down(name, &folder(cache, name)),
            Flavor::Current => Ok(()),
        }
    }

    /// Names of this machine's boxes, and whether each is up; one that is not left its logs.
    pub fn boxes(cache: &Cache) -> Vec<(String, bool)> {
        let entries = fs::read_dir(cache.path("clusters")).into_iter().flatten().flatten();
        let mut boxes: Vec<(String, bool)> =
            entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, BoxHandle::find(&entry.path()).is_some()))).collect();
        boxes.sort();
        boxes
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster's kind.
    pub fn flavor(&self) -> Flavor {
        self.flavor
    }

    /// A kubeconfig that works from this machine and, for a box, inside it too. The path is the same for every cluster of that name.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The folder with the daemons' logs; only a box has one.
    pub fn logs(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// kubectl with arguments, speaking to this cluster.
    pub fn kubectl<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", &self.kubeconfig).args(arguments);
        if self.handle.is_some() {
            command.env("KUBECACHEDIR", self.folder.join("run/kubectl"));
        }
        command
    }

    /// The address at which pods reach programs started by [`Cluster::spawn_inside`].
    ///
    /// # Errors
    /// The cluster is another's, or Docker does not tell.
    pub fn host_ip(&self) -> Result<IpAddr> {
        match self.flavor {
            Flavor::Box => render::HOST_IP.parse().context("the box's address is no address"),
            Flavor::Kind => external::kind_gateway(),
            Flavor::Current => {
                bail!("pods of an existing cluster cannot be told how to reach this machine: give the brokers' addresses yourself")
            }
        }
    }

    /// Brings an OCI archive into the node, so that pods run it without a registry (`imagePullPolicy: Never` or `IfNotPresent`).
    ///
    /// # Errors
    /// The archive is refused, or the cluster is another's.
    pub fn import_image(&self, archive: &Path) -> Result<()> {
        match (&self.handle, self.flavor) {
            (Some(handle), _) => handle.import(archive),
            (None, Flavor::Kind) => external::kind_import(&self.name, archive),
            (None, _) => {
                bail!("images cannot be brought into the current cluster: push {} to a registry that it pulls from", archive.display())
            }
        }
    }

    /// Starts a program in the cluster's network; the answer's process is the program itself. Beside kind or another's cluster it runs on this machine.
    ///
    /// # Errors
    /// It cannot be started, or the box is gone.
    pub fn spawn_inside(&self, command: &mut Command, place: Place) -> Result<Process> {
        match &self.handle {
            Some(handle) => handle.spawn(command, place),
            None => Process::watch(command.spawn().with_context(|| format!("cannot run {}", exec::shown(command)))?),
        }
    }

    /// Makes an address in the cluster's network, such as `10.77.0.1:6379` or a service's, reachable on this machine's loopback until
    /// the answer is dropped.
    ///
    /// # Errors
    /// The cluster is no box, or a port cannot be had.
    pub fn forward(&self, target: SocketAddr) -> Result<Forward> {
        let Some(handle) = &self.handle else { bail!("only a box needs and has forwards: use kubectl port-forward") };
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).context("no free port on loopback")?;
        let local = listener.local_addr()?;
        let relay = self.kubectl.with_file_name("relay");
        let mut command = Command::new(relay);
        command.arg(target.to_string()).stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Forward { local, relay: handle.spawn(&mut command, Place::Box)? })
    }

    /// Process id of the box's first process, for `nsenter`.
    pub fn first_process(&self) -> Option<i32> {
        self.handle.as_ref().map(BoxHandle::first_process)
    }
}

/// A port on loopback that leads into a box; closed when dropped.
#[derive(Debug)]
pub struct Forward {
    local: SocketAddr,
    relay: Process,
}

impl Forward {
    /// Where to connect to on this machine.
    pub fn address(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // It may have ended with its box already.
        let _ = self.relay.kill();
    }
}

fn folder(cache: &Cache, name: &str) -> PathBuf {
    cache.path("clusters").join(name)
}

fn check_name(name: &str) -> Result<()> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-');
    anyhow::ensure!(good, "cluster name {name:?}: 1 to {LONGEST_NAME} lower-case letters, digits and inner dashes are wanted");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_host_name_is_refused_with_what_would_be_valid() {
        for good in ["dev", "e2e-1", "a"] {
            check_name(good).unwrap();
        }
        for bad in ["", "-a", "a-", "A", "a/b", "..", "a b", &"a".repeat(25)] {
            let error = check_name(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")) && error.contains("lower-case"), "{error}");
        }
    }
}
