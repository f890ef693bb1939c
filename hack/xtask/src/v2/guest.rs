//! A guest: Debian's user-mode Linux, a kernel that is a plain process, on this machine's files. In: a plan of what to run there. Out: the command
//! whose process is the guest, and its end. It needs no virtualization. The guest reads this machine's root, writes to memory and to a disk of its own, and
//! has no network; `out` in its folder is the one place where both write. It leaves what runs there to [`super::inside`].
//!
//! The guest's processes are processes of this machine too. They are in a process namespace of their own, and its first process is killed with this
//! one, however this one ends: nothing of the guest outlives the command.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::inside::Plan;
use crate::cache::{Cache, Key};
use crate::cluster::process::Process;
use crate::step::Step;
use crate::{debian, exec, interrupt};

/// The kernel with its modules, and what loads them.
const PACKAGES: [&str; 2] = ["user-mode-linux", "kmod"];
/// The guest's memory: Kubernetes takes 2 GiB, and with 3 the kernel killed the API server; the rest is for pods and for files that are in use. Only what is
/// used is taken from the machine.
const MEMORY: &str = "6G";
/// The guest's disk, on which the cluster's folder is: containers write there as they do on a real node, through the page cache. (What is written to a file
/// system in memory counts as use that no kernel can reclaim.) Only what is written takes room.
const DISK: &str = "16G";
/// The guest lives once: no journal, and nothing is zeroed beforehand.
const DISK_OPTIONS: [&str; 7] = ["-t", "ext4", "-q", "-O", "^has_journal", "-E", "nodiscard,lazy_itable_init=1"];
/// Raised when the code here changes what is made of the packages.
const RECIPE: &str = "1";
/// Between two looks whether Ctrl-C was pressed: a person does not notice it.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const INIT: &str = include_str!("../../../cluster/v2/init.sh");
const BOOT: &str = include_str!("../../../cluster/v2/boot.sh");

/// The unpacked kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    program: PathBuf,
    modprobe: PathBuf,
}

/// A guest that can be started once.
#[derive(Debug)]
pub struct Guest {
    kernel: Kernel,
    cache: PathBuf,
    folder: PathBuf,
    /// Against a second guest of that name.
    _lock: fs::File,
}

/// Finds or unpacks the kernel.
///
/// # Errors
/// It cannot be had here.
pub fn kernel(cache: &Cache) -> Result<Kernel> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("user-mode Linux runs on x86-64 alone: on this machine run `cargo xtask test e2e` under a kernel with control groups version 2");
    }
    let key = PACKAGES.iter().fold(Key::new().with(RECIPE), |key, name| key.with(name)).finish();
    let folder = cache.once("user-mode-linux", &key, |folder| {
        debian::require("user-mode-linux", "user-mode-linux")?;
        let step = Step::start("unpacking user-mode Linux");
        let root = folder.join("root");
        debian::unpack_with_needs(cache, &PACKAGES, &root)?;
        // Where modprobe looks, below a folder that it is told.
        fs::create_dir_all(root.join("lib"))?;
        symlink(root.join("usr/lib/uml/modules"), root.join("lib/modules")).context("cannot link the kernel's modules")?;
        // One program for all its names: it looks at how it was called.
        let kmod = ["bin/kmod", "usr/bin/kmod"].map(|file| root.join(file)).into_iter().find(|file| file.is_file());
        let called = folder.join("bin/modprobe");
        fs::create_dir_all(folder.join("bin"))?;
        symlink(kmod.context("the package kmod has no program kmod")?, &called).context("cannot link kmod")?;
        let libraries = debian::library_folders(&root).iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":");
        let script = format!("#!/bin/sh\nLD_LIBRARY_PATH='{libraries}' exec '{}' -d '{}' \"$@\"\n", called.display(), root.display());
        exec::write_program(&folder.join("modprobe"), &script)?;
        step.done();
        Ok(())
    })?;
    Ok(Kernel { program: folder.join("root/usr/bin/linux.uml"), modprobe: folder.join("modprobe") })
}

impl Guest {
    /// Writes the guest's folder: what runs there is the cluster with these images, and in it these tests of the test program.
    ///
    /// # Errors
    /// It cannot be written, or a guest of that name is up.
    pub fn create(cache: &Cache, kernel: Kernel, name: &str, archives: &[PathBuf], program: &Path, tests: Vec<String>) -> Result<Self> {
        let lock = cache.lock(&format!("guest-{name}"))?;
        let folder = cache.path("guests").join(name);
        clear(&folder)?;
        for sub in ["out", "tmp", "uml"] {
            fs::create_dir_all(folder.join(sub)).with_context(|| format!("cannot make {}/{sub}", folder.display()))?;
        }
        fs::create_dir_all(cache.path("clusters"))?;
        exec::output(Command::new(mke2fs()?).args(DISK_OPTIONS).arg(folder.join("disk")).arg(DISK)).context("the guest's disk")?;
        // Copies: the originals may be built anew while the guest runs them.
        let own = std::env::current_exe().context("this program does not know its own file")?;
        for (from, to) in [(own.as_path(), "xtask"), (program, "tests")] {
            fs::copy(from, folder.join(to)).with_context(|| format!("cannot copy {}", from.display()))?;
        }
        let plan = Plan { archives: archives.to_vec(), program: folder.join("tests"), logs: folder.join("out/log"), tests };
        let words: Vec<String> = plan.arguments().iter().map(|word| format!("'{word}'")).collect();
        exec::write_program(&folder.join("init.sh"), INIT)?;
        exec::write_program(&folder.join("boot.sh"), BOOT)?;
        symlink(&kernel.modprobe, folder.join("modprobe")).context("cannot link modprobe")?;
        fs::write(folder.join("run.sh"), format!("exec '{}/xtask' test v2-inside {}\n", folder.display(), words.join(" ")))?;
        Ok(Self { kernel, cache: cache.path(""), folder, _lock: lock })
    }

    /// The command whose process is the guest. Its output is the guest's, its exit status that of the tests.
    #[must_use]
    pub fn command(&self) -> Command {
        let folder = self.folder.display();
        let mut command = Command::new("setpriv");
        // A session of its own: the kernel shares processors out among sessions, and the terminal's signals do not go there.
        command.args([
            "--pdeathsig",
            "KILL",
            "--",
            "taskset",
            "--cpu-list",
            &processor(),
            "setsid",
            "unshare",
            "--net",
            "--pid",
            "--mount-proc",
            "--fork",
            "--kill-child",
            "--",
        ]);
        command.arg("/bin/sh").arg(self.folder.join("boot.sh")).arg(&self.kernel.program);
        // The root is this machine's, and may only be read. The console is the output; the kernel itself is quiet.
        command.args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "con=null", "con0=null,fd:1", "quiet", "loglevel=1"]);
        command.arg(format!("mem={MEMORY}")).arg(format!("ubd0={folder}/disk")).arg(format!("uml_dir={folder}/uml/")).arg("umid=guest");
        command.arg(format!("init={folder}/init.sh"));
        // What the kernel does not know becomes its first process's environment.
        command.arg(format!("GUEST={folder}")).arg(format!("CACHE={}", self.cache.display()));
        command.env("GUEST", &self.folder);
        command
    }

    /// After its process has ended: removes its folder. After a failure the guest's logs stay.
    ///
    /// # Errors
    /// Something of it cannot be removed.
    pub fn end(self, well: bool) -> Result<()> {
        let logs = self.folder.join("out/log");
        if well || !logs.exists() {
            return clear(&self.folder);
        }
        println!("the logs of the guest's cluster are in {}", logs.display());
        for entry in fs::read_dir(&self.folder)?.flatten().filter(|entry| entry.file_name() != "out") {
            remove(&entry.path())?;
        }
        Ok(())
    }
}

/// The program that makes the disk's file system. It is a required package of Debian, in a folder that is not always in `PATH`.
fn mke2fs() -> Result<PathBuf> {
    let usual = ["/usr/sbin/mke2fs", "/sbin/mke2fs"].map(PathBuf::from).into_iter().find(|file| exec::is_program(file));
    exec::which("mke2fs").or(usual).context("there is no program mke2fs: install e2fsprogs")
}

/// Starts a guest's command. Ctrl-C ends it: the terminal's signal itself does not reach its session.
///
/// # Errors
/// It cannot be started.
pub fn start(command: &mut Command) -> Result<Process> {
    let started = command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let pid = i32::try_from(started.id()).ok().and_then(Pid::from_raw).context("the guest has no process id")?;
    let process = Process::watch(started)?;
    // By a handle that is this process's alone: a number may be another's later.
    let handle = pidfd_open(pid, PidfdFlags::empty()).context("cannot watch the guest")?;
    std::thread::spawn(move || {
        while !interrupt::seen() {
            std::thread::sleep(LOOK_EVERY);
        }
        // It may have ended meanwhile.
        let _ = pidfd_send_signal(&handle, Signal::KILL);
    });
    Ok(process)
}

/// The last of the processors that this process may use. The guest has one, and its processes hand it to each other at every system call: that is
/// twice as fast on one processor as across two.
fn processor() -> String {
    let allowed = rustix::thread::sched_getaffinity(None).ok();
    let last = allowed.and_then(|set| (0..rustix::thread::CpuSet::MAX_CPU).rev().find(|cpu| set.is_set(*cpu)));
    last.unwrap_or(0).to_string()
}

fn clear(folder: &Path) -> Result<()> {
    if folder.exists() { remove(folder) } else { Ok(()) }
}

fn remove(path: &Path) -> Result<()> {
    let kind = fs::symlink_metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    let removed = if kind.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(at: &Path) -> Guest {
        let lock = fs::File::create(at.join("lock")).unwrap();
        let kernel = Kernel { program: "/k/linux.uml".into(), modprobe: "/k/modprobe".into() };
        Guest { kernel, cache: "/c".into(), folder: at.join("guest"), _lock: lock }
    }

    #[test]
    fn the_machine_s_root_is_read_only_and_the_guest_dies_with_its_parent() {
        let folder = tempfile::tempdir().unwrap();
        let line = exec::shown(&guest(folder.path()).command());
        assert!(line.starts_with("setpriv --pdeathsig KILL -- taskset ") && line.contains(" --kill-child "), "{line}");
        assert!(line.contains(" ro ") && line.contains(" --net ") && line.contains(" CACHE=/c"), "{line}");
    }

    #[test]
    fn after_a_failure_the_logs_stay_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for (well, left) in [(true, 0), (false, 1)] {
            let guest = guest(folder.path());
            let at = guest.folder.clone();
            fs::create_dir_all(at.join("out/log")).unwrap();
            fs::write(at.join("xtask"), "").unwrap();
            guest.end(well).unwrap();
            assert_eq!(fs::read_dir(&at).map_or(0, Iterator::count), left);
        }
    }
}
