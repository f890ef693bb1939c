//! A cluster in a box: mount, net, pid, uts and ipc namespaces that hold every daemon and every pod. In: the parts and a folder. Out: a
//! handle to a cluster that serves pods, services and DNS. The kernel ends all of it with the box's first process; what namespaces do
//! not hold (control groups, files) is removed by the box's keeper (`hack/cluster/init.c`), or by the next `up` or `down` of that name.

use std::fs::{self, File};
use std::io::PipeReader;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::parts::Parts;
use super::pki::Pki;
use super::process::Process;
use super::render::{self, Settings};
use super::{Place, UpOptions, cgroup};
use crate::cache::Cache;
use crate::exec::{self, wait_for};
use crate::images::{self, Image, Profile};
use crate::step::Step;

/// Limit for each stage of starting: many times what it takes on an idle machine, since a loaded one is slow, not broken.
const STAGE_LIMIT: Duration = Duration::from_secs(180);
/// Limit for a box to end: the kernel has many processes to end and the keeper many files to remove.
const END_LIMIT: Duration = Duration::from_secs(60);
/// How often a stage is looked at; one look starts a kubectl.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// Lines of a daemon's log that an error shows.
const LOG_LINES: usize = 12;

/// A box that is up.
#[derive(Debug)]
pub struct BoxHandle {
    pids: Pids,
    ctr: PathBuf,
    /// The box ends when this, its only reader, is closed.
    _tie: Option<PipeReader>,
}

/// The processes outside and at the head of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pids {
    keeper: i32,
    first: i32,
}

impl BoxHandle {
    /// The box in this folder, if it is up.
    pub fn find(folder: &Path) -> Option<Self> {
        let pids = Pids::read(folder)?;
        let ctr = fs::read_to_string(folder.join("ctr")).ok()?.into();
        pids.first_lives(folder).then_some(Self { pids, ctr, _tie: None })
    }

    /// Process id of the box's first process, as seen on this machine.
    pub fn first_process(&self) -> i32 {
        self.pids.first
    }

    /// Brings an OCI archive into the box's containerd.
    ///
    /// # Errors
    /// containerd refuses it.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let mut command = Command::new(&self.ctr);
        // Through the box's root: its socket is on a mount that this process does not see.
        command.args(["--address", &format!("/proc/{}/root/run/containerd/containerd.sock", self.pids.first)]);
        command.args(["--namespace", "k8s.io", "images", "import"]).arg(archive);
        exec::output(&mut command).map(drop)
    }

    /// Starts a program in the box's network, and for [`Place::Box`] among its processes and mounts too.
    ///
    /// # Errors
    /// The box is gone, or the program cannot be started.
    pub fn spawn(&self, command: &mut Command, place: Place) -> Result<Process> {
        let open = |kind: &str| {
            let path = format!("/proc/{}/ns/{kind}", self.pids.first);
            File::open(&path).with_context(|| format!("the box is gone: no {path}"))
        };
        let (network, processes, mounts) = (open("net")?, open("pid")?, open("mnt")?);
        if command.get_current_dir().is_none() {
            // Entering mounts loses the working directory.
            command.current_dir(std::env::current_dir().context("this process has no working directory")?);
        }
        // Namespaces belong to a thread: one that is thrown away enters them, and its child stays there.
        let child = std::thread::scope(|scope| {
            let entered = scope.spawn(|| {
                enter(&network, LinkNameSpaceType::Network)?;
                if place == Place::Box {
                    own_working_directory()?;
                    enter(&processes, LinkNameSpaceType::ProcessID)?;
                    // For /proc: a program looks itself up there by the number that it has in the box.
                    enter(&mounts, LinkNameSpaceType::Mount)?;
                }
                command.spawn().with_context(|| format!("cannot run {}", exec::shown(command)))
            });
            entered.join().unwrap_or_else(|_| bail!("the thread that enters the box ended"))
        })?;
        Process::watch(child)
    }
}

fn enter(namespace: &File, kind: LinkNameSpaceType) -> Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(kind)).with_context(|| format!("cannot enter the box's {kind:?} namespace"))
}

/// Gives this thread a working directory and root of its own; without, the kernel lets no thread change its mounts.
#[expect(deprecated, reason = "its replacement is unsafe for what it does to file descriptors, and this call leaves those alone")]
fn own_working_directory() -> Result<()> {
    rustix::thread::unshare(UnshareFlags::FS).context("cannot part this thread's working directory from the others'")
}

impl Pids {
    fn read(folder: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(folder.join("box.pid")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_whitespace().map(str::parse);
        let (keeper, first) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        (numbers.next().is_none() && keeper > 1 && first > 1).then_some(Self { keeper, first })
    }

    fn first_lives(self, folder: &Path) -> bool {
        belongs(self.first, folder)
    }

    fn keeper_lives(self, folder: &Path) -> bool {
        belongs(self.keeper, folder)
    }
}

/// Whether the process is there and is this box's: its command line names the folder. A number used again by another process does not.
fn belongs(pid: i32, folder: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let wanted = format!("{}/", folder.display());
    line.split(|byte| *byte == 0).any(|word| word.starts_with(wanted.as_bytes()))
}

/// Starts a box and answers once pods, services and DNS work in it.
///
/// # Errors
/// This process may not, or a daemon does not start: the message names its log, and nothing of the box is left but the logs.
pub fn up(cache: &Cache, parts: &Parts, name: &str, folder: &Path, options: &UpOptions) -> Result<BoxHandle> {
    if !rustix::process::geteuid().is_root() {
        bail!("a box needs root, for its namespaces and control groups: run as root, or install Docker and kind and add --cluster kind");
    }
    down(folder)?;
    let mut archives = images::build(cache, &[Image::Pause, Image::Coredns], Profile::default())?;
    archives.extend(options.images.iter().cloned());
    let step = Step::start(format!("starting the cluster {name}"));
    let started = start(parts, name, folder, options, &archives);
    match started {
        Ok(handle) => {
            step.done();
            Ok(handle)
        }
        Err(error) => {
            drop(step);
            let error = error.context(format!("the logs are in {}", folder.join("log").display()));
            match end(folder) {
                Ok(()) => Err(error),
                Err(also) => Err(error.context(format!("and it could not be ended: {also:#}"))),
            }
        }
    }
}

fn start(parts: &Parts, name: &str, folder: &Path, options: &UpOptions, archives: &[PathBuf]) -> Result<BoxHandle> {
    // A socket keeps the network it was made in: this one is the machine's, and a relay in the box answers on it. The API has the same
    // port in the box, so one kubeconfig serves both sides.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on loopback")?;
    let node = format!("qscaler-{name}");
    let settings = Settings { dir: folder.to_path_buf(), node, port: listener.local_addr()?.port(), cni: parts.cni.clone() };
    write_files(parts, &settings)?;
    cgroup::create(&settings.node)?;
    let tie = launch(parts, folder, listener, options.tied)?;
    let pids = Pids::read(folder).context("the box wrote no process ids")?;
    let handle = BoxHandle { pids, ctr: parts.node.join("ctr"), _tie: tie };
    std::thread::scope(|scope| {
        let imports = scope.spawn(|| {
            import_all(&handle, folder, archives)?;
            fs::write(folder.join("run/imported"), "").context("cannot tell the box that its images are there")
        });
        wait_ready(parts, &settings, &handle)?;
        imports.join().unwrap_or_else(|_| bail!("the thread that brings images in ended"))
    })?;
    let mut dns = kubectl(parts, folder);
    dns.args(["--namespace=kube-system", "wait", "--for=condition=Available", "deployment/coredns"]).arg(timeout());
    exec::output(&mut dns).context("DNS does not come up")?;
    Ok(handle)
}

fn write_files(parts: &Parts, settings: &Settings) -> Result<()> {
    let dir = &settings.dir;
    for sub in ["conf", "cni", "log", "run", "etcd", "containerd", "kubelet", "var-lib", "var-log"] {
        fs::create_dir_all(dir.join(sub)).with_context(|| format!("cannot make {}/{sub}", dir.display()))?;
    }
    let write = |file: &str, text: &str| fs::write(dir.join(file), text).with_context(|| format!("cannot write {}/{file}", dir.display()));
    for (file, template) in [
        ("setup.sh", render::SETUP),
        ("cleanup.sh", render::CLEANUP),
        ("conf/containerd.toml", render::CONTAINERD),
        ("cni/10-box.conflist", render::CNI),
        ("conf/kubelet.yaml", render::KUBELET),
        ("conf/proxy.yaml", render::PROXY),
        ("conf/audit.yaml", render::AUDIT),
        ("conf/system.yaml", render::SYSTEM),
    ] {
        write(file, &settings.fill(template)?)?;
    }
    // Pods ask the cluster's DNS; names outside it do not resolve in a box.
    write("conf/resolv.conf", "")?;
    write("ctr", &parts.node.join("ctr").display().to_string())?;
    let pki = Pki::create(&dir.join("pki"), &settings.node, render::HOST_IP, render::SERVICE_IP)?;
    for (file, client) in [
        ("kubeconfig", "admin"),
        ("conf/controllers.kubeconfig", "controllers"),
        ("conf/scheduler.kubeconfig", "scheduler"),
        ("conf/node.kubeconfig", "node"),
        ("conf/proxy.kubeconfig", "proxy"),
    ] {
        write(file, &pki.kubeconfig(client, &settings.node, settings.port)?)?;
    }
    Ok(())
}

fn launch(parts: &Parts, folder: &Path, listener: TcpListener, tied: bool) -> Result<Option<PipeReader>> {
    let log = File::create(folder.join("log/box.log")).context("cannot make the box's log")?;
    let (tie, stdout) = if tied {
        let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
        (Some(reader), Stdio::from(writer))
    } else {
        (None, Stdio::from(log.try_clone()?))
    };
    let path = format!("{}:{}:/usr/sbin:/usr/bin:/sbin:/bin", parts.kubernetes.display(), parts.node.display());
    let mut command = Command::new(&parts.init);
    command.arg("box").arg(folder.join("box.pid")).arg(folder.join("cleanup.sh")).arg("/bin/sh").arg(folder.join("setup.sh"));
    command.env_clear().env("PATH", path).env("HOME", folder.join("run")).env("LANG", "C.UTF-8").current_dir("/");
    command.env("QSCALER_PATIENCE", exec::patience().to_string());
    command.stdin(Stdio::from(OwnedFd::from(listener))).stdout(stdout).stderr(log);
    let status = command.status().with_context(|| format!("cannot run {}", parts.init.display()))?;
    if !status.success() {
        bail!("the box did not start:\n{}", log_end(folder, "box"));
    }
    Ok(tie)
}

fn import_all(handle: &BoxHandle, folder: &Path, archives: &[PathBuf]) -> Result<()> {
    let socket = PathBuf::from(format!("/proc/{}/root/run/containerd/containerd.sock", handle.pids.first));
    wait_for("containerd", STAGE_LIMIT, LOOK_EVERY, || {
        alive(handle, folder)?;
        Ok(socket.exists().then_some(()))
    })
    .with_context(|| log_end(folder, "containerd"))?;
    archives.iter().try_for_each(|archive| handle.import(archive))
}

fn wait_ready(parts: &Parts, settings: &Settings, handle: &BoxHandle) -> Result<()> {
    let folder = &settings.dir;
    // Only a look at a file: on a slow machine every kubectl takes from the daemons what they need to start.
    wait_for("the start of the daemons", STAGE_LIMIT, LOOK_EVERY, || {
        alive(handle, folder)?;
        Ok(folder.join("run/started").exists().then_some(()))
    })
    .with_context(|| log_end(folder, "kube-apiserver"))?;
    let until_answered = |what: &str, arguments: &[&str]| {
        let mut last = None;
        let answered = wait_for(what, STAGE_LIMIT, LOOK_EVERY, || {
            alive(handle, folder)?;
            last = exec::output(kubectl(parts, folder).args(arguments)).err();
            Ok(last.is_none().then_some(()))
        });
        answered.with_context(|| format!("{}\n{}", last.map(|error| error.to_string()).unwrap_or_default(), log_end(folder, "kube-apiserver")))
    };
    until_answered("the API", &["get", "--raw", "/readyz"])?;
    // The system's own namespaces come a moment after the API is ready.
    let system = folder.join("conf/system.yaml").display().to_string();
    until_answered("the system's objects", &["apply", "--server-side", "--validate=false", "--filename", &system])?;
    let node = format!("node/{}", settings.node);
    for (what, arguments, log) in [
        ("the node's registration", ["wait", "--for=create", &node, ""], "kubelet"),
        ("the node", ["wait", "--for=condition=Ready", &node, ""], "kubelet"),
        ("the default service account", ["wait", "--for=create", "serviceaccount/default", "--namespace=default"], "kube-controller-manager"),
    ] {
        let mut command = kubectl(parts, folder);
        command.args(arguments.iter().filter(|word| !word.is_empty())).arg(timeout());
        exec::output(&mut command).with_context(|| format!("{what} does not come up:\n{}", log_end(folder, log)))?;
    }
    Ok(())
}

fn timeout() -> String {
    format!("--timeout={}s", (STAGE_LIMIT * exec::patience()).as_secs())
}

fn kubectl(parts: &Parts, folder: &Path) -> Command {
    let mut command = Command::new(parts.kubernetes.join("kubectl"));
    command.env("KUBECONFIG", folder.join("kubeconfig")).env("KUBECACHEDIR", folder.join("run/kubectl"));
    command
}

fn alive(handle: &BoxHandle, folder: &Path) -> Result<()> {
    if handle.pids.first_lives(folder) {
        return Ok(());
    }
    bail!("the box ended by itself:\n{}", log_end(folder, "box"))
}

fn log_end(folder: &Path, daemon: &str) -> String {
    let path = folder.join(format!("log/{daemon}.log"));
    let text = fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    format!("the end of {}:\n{}", path.display(), exec::last_lines(&text, LOG_LINES))
}

/// Ends the box in this folder, if there is one, and removes the folder.
///
/// # Errors
/// It does not end in [`END_LIMIT`], or its folder cannot be removed.
pub fn down(folder: &Path) -> Result<()> {
    end(folder)?;
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).with_context(|| format!("cannot remove {}", folder.display())),
        _ => Ok(()),
    }
}

/// Ends the box and removes what it left outside its namespaces; its logs stay.
fn end(folder: &Path) -> Result<()> {
    let cleanup = folder.join("cleanup.sh");
    if let Some(pids) = Pids::read(folder) {
        if pids.first_lives(folder) {
            // It may end by itself meanwhile.
            let _ = Pid::from_raw(pids.first).map(|pid| kill_process(pid, Signal::KILL));
        }
        wait_for("the end of the box", END_LIMIT, Duration::from_millis(20), || {
            Ok((!pids.first_lives(folder) && !pids.keeper_lives(folder)).then_some(()))
        })?;
    }
    // Still there: the keeper was killed before it could clean up, or there never was a box.
    if cleanup.exists() {
        exec::output(Command::new("/bin/sh").arg(&cleanup))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_s_process_ids_are_two_numbers_and_nothing_else() {
        assert_eq!(Pids::parse("12 34\n"), Some(Pids { keeper: 12, first: 34 }));
        for bad in ["", "12", "12 x", "1 34", "12 0", "12 34 56", "-1 34"] {
            assert_eq!(Pids::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn another_process_with_the_same_number_is_not_the_box_s() {
        assert!(!belongs(i32::try_from(std::process::id()).unwrap(), Path::new("/cache/clusters/a")));
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("100").arg0_of(folder.path()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // A program that has just been started has no command line yet for a moment: the kernel lets its parent go on before it is written.
        wait_for("its command line", STAGE_LIMIT, Duration::from_millis(1), || Ok(belongs(pid, folder.path()).then_some(()))).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!belongs(pid, folder.path()));
    }

    #[test]
    fn ending_what_never_was_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        down(&folder.path().join("none")).unwrap();
    }

    trait Arg0 {
        fn arg0_of(&mut self, folder: &Path) -> &mut Self;
    }

    impl Arg0 for Command {
        fn arg0_of(&mut self, folder: &Path) -> &mut Self {
            use std::os::unix::process::CommandExt;
            self.arg0(folder.join("box.pid"))
        }
    }
}
