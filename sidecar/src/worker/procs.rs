//! `/proc`, read and parsed. In: the folder (`/proc`, or a made-up one in tests). Out: processes, their container by the kubelet's
//! termination-log mount, their ids and high-water marks. Left to others: which of them is the worker (`find`), who ends it (`signal`).
//! Everything read here except `root` is readable across user ids.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// `USER_HZ`: the unit of start times in `/proc/PID/stat`; fixed at 100 in the kernel's ABI on every architecture that runs containers.
pub const TICKS_PER_SECOND: u64 = 100;

/// The state of a process that SIGSTOP has stopped.
pub const STOPPED: char = 'T';

/// One process, as `/proc/PID/stat` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// Its number in this PID namespace.
    pub pid: i32,
    /// Its parent's; 0: a container's top process, or one that was executed into a container.
    pub parent: i32,
    /// Name of the executable, cut to 15 bytes.
    pub comm: String,
    /// `R`, `S`, `Z` and so on.
    pub state: char,
    /// Start, in ticks since boot: with the pid it names a process for ever.
    pub start_ticks: u64,
    /// Where its code and its stack begin: the same in its forks, another after an exec. None: the kernel does not say.
    pub image: Option<(u64, u64)>,
}

/// What `/proc/PID/status` adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Effective user and group.
    pub ids: (u32, u32),
    /// Highest resident size, bytes.
    pub vm_hwm: u64,
    /// Resident size now, bytes.
    pub vm_rss: u64,
    /// Bit n-1: signal n has a handler.
    pub caught: u64,
    /// Bit n-1: signal n is ignored.
    pub ignored: u64,
    /// Bit n-1: signal n is blocked.
    pub blocked: u64,
}

/// A proc file system.
#[derive(Clone, Debug)]
pub struct ProcFs {
    root: PathBuf,
}

impl ProcFs {
    /// The one at this folder; `/proc` outside tests.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A path below a process's folder.
    #[must_use]
    pub fn path(&self, pid: i32, name: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(name)
    }

    /// The numbers of all processes, in no order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn pids(&self) -> io::Result<Vec<i32>> {
        let names = fs::read_dir(&self.root)?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(names.collect())
    }

    /// All processes that could be read; one that ends meanwhile is left out.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn processes(&self) -> io::Result<Vec<ProcessStat>> {
        Ok(self.pids()?.into_iter().filter_map(|pid| self.process(pid)).collect())
    }

    /// One process; None: it is gone.
    #[must_use]
    pub fn process(&self, pid: i32) -> Option<ProcessStat> {
        parse_stat(&self.text(pid, "stat")?)
    }

    /// Ids, memory mark and handlers; None: it is gone.
    #[must_use]
    pub fn status(&self, pid: i32) -> Option<Status> {
        Some(parse_status(&self.text(pid, "status")?))
    }

    /// The words of its command line; None: it is gone.
    #[must_use]
    pub fn command_line(&self, pid: i32) -> Option<Vec<String>> {
        Some(self.text(pid, "cmdline")?.split('\0').map(str::to_owned).collect())
    }

    /// The container of a process by the kubelet's termination-log mount; None: no such mount is visible there.
    #[must_use]
    pub fn container(&self, pid: i32) -> Option<String> {
        container_in(&self.text(pid, "mountinfo")?).map(str::to_owned)
    }

    /// `/proc/PID/cgroup`: the same text for processes of one container instance, another for any other.
    #[must_use]
    pub fn cgroup(&self, pid: i32) -> Option<String> {
        self.text(pid, "cgroup")
    }

    /// Seconds since boot; None: not readable.
    #[must_use]
    pub fn uptime_s(&self) -> Option<f64> {
        let text = fs::read_to_string(self.root.join("uptime")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    }

    /// Inodes of the sockets of the process that asks.
    #[must_use]
    pub fn own_sockets(&self) -> BTreeSet<u64> {
        let inode = |entry: fs::DirEntry| socket_in(fs::read_link(entry.path()).ok()?.to_str()?);
        fs::read_dir(self.root.join("self/fd")).into_iter().flatten().filter_map(|entry| inode(entry.ok()?)).collect()
    }

    /// What stands behind each descriptor of a process, and whether it can be read and written. None: not ours to read.
    #[must_use]
    pub fn descriptors(&self, pid: i32) -> Option<Vec<(String, bool, bool)>> {
        use std::os::unix::fs::MetadataExt;
        let entry = |entry: io::Result<fs::DirEntry>| -> Option<(String, bool, bool)> {
            let path = entry.ok()?.path();
            let link = fs::read_link(&path).ok()?.to_str()?.to_owned();
            // The link's own mode says how it was opened (proc(5), "/proc/pid/fd").
            let mode = fs::symlink_metadata(&path).ok()?.mode();
            Some((link, mode & 0o400 != 0, mode & 0o200 != 0))
        };
        let folder = fs::read_dir(self.path(pid, "fd")).ok()?;
        Some(folder.filter_map(entry).collect())
    }

    /// Whether this assignment stands in a process's environment, as it was at its start; false also where that is not ours to read.
    #[must_use]
    pub fn has_variable(&self, pid: i32, assignment: &str) -> bool {
        fs::read(self.path(pid, "environ")).is_ok_and(|bytes| bytes.split(|byte| *byte == 0).any(|entry| entry == assignment.as_bytes()))
    }

    /// Up to `most` of a process's arguments; empty: it has none, or is gone.
    #[must_use]
    pub fn arguments(&self, pid: i32, most: usize) -> Vec<String> {
        let text = self.text(pid, "cmdline").unwrap_or_default();
        text.split('\0')
            .take(most)
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .skip_while(String::is_empty)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect()
    }

    fn text(&self, pid: i32, name: &str) -> Option<String> {
        // Command names and paths need not be UTF-8; nothing that matters here is outside ASCII.
        fs::read(self.path(pid, name)).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// How many threads a process has; 0: it is gone.
    #[must_use]
    pub fn threads(&self, pid: i32) -> usize {
        fs::read_dir(self.path(pid, "task")).map_or(0, |threads| threads.count())
    }

    /// Whether every thread of this process has stopped.
    #[must_use]
    pub fn is_stopped(&self, pid: i32) -> bool {
        let Ok(threads) = fs::read_dir(self.path(pid, "task")) else { return false };
        let state = |stat: PathBuf| fs::read_to_string(stat).ok().and_then(|text| parse_stat(&text)).map(|thread| thread.state);
        // A thread that is gone runs no more either.
        threads.flatten().all(|thread| state(thread.path().join("stat")).is_none_or(|state| state == STOPPED || state == 'Z'))
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// Parses `/proc/PID/stat`. The name stands in parentheses and may itself hold spaces and parentheses.
#[must_use]
pub fn parse_stat(text: &str) -> Option<ProcessStat> {
    let (open, close) = (text.find('(')?, text.rfind(')')?);
    let comm = text.get(open + 1..close)?.to_owned();
    let rest: Vec<&str> = text.get(close + 1..)?.split_whitespace().collect();
    Some(ProcessStat {
        pid: text[..open].trim().parse().ok()?,
        comm,
        state: rest.first()?.chars().next()?,
        parent: rest.get(1)?.parse().ok()?,
        // Field 22 of the line, the 20th behind the name.
        start_ticks: rest.get(19)?.parse().ok()?,
        // Fields 26 and 28. Without the right to read them the kernel gives 1 and 0 (fs/proc/array.c).
        image: rest
            .get(23)
            .zip(rest.get(25))
            .and_then(|(code, stack)| Some((code.parse().ok()?, stack.parse().ok()?)))
            .filter(|(code, stack)| *code > 1 && *stack > 1),
    })
}

/// Parses `/proc/PID/status`. Kernel threads and zombies have no memory lines: 0.
#[must_use]
pub fn parse_status(text: &str) -> Status {
    let mut status = Status::default();
    let bytes = |kib: Option<&str>| kib.and_then(|w| w.parse::<u64>().ok()).unwrap_or(0) * 1024;
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let mut words = value.split_whitespace();
        match key {
            "Uid" => status.ids.0 = words.nth(1).and_then(|w| w.parse().ok()).unwrap_or(0),
            "Gid" => status.ids.1 = words.nth(1).and_then(|w| w.parse().ok()).unwrap_or(0),
            "VmHWM" => status.vm_hwm = bytes(words.next()),
            "VmRSS" => status.vm_rss = bytes(words.next()),
            "SigCgt" => status.caught = words.next().and_then(|w| u64::from_str_radix(w, 16).ok()).unwrap_or(0),
            "SigBlk" => status.blocked = words.next().and_then(|w| u64::from_str_radix(w, 16).ok()).unwrap_or(0),
            "SigIgn" => status.ignored = words.next().and_then(|w| u64::from_str_radix(w, 16).ok()).unwrap_or(0),
            _ => {}
        }
    }
    status
}

/// The container's name in `/proc/PID/mountinfo`: the kubelet mounts each container's termination log from
/// `<kubelet folder>/pods/<pod uid>/containers/<name>/<hash>`, which is the mount's root field (the fourth), relative to its file system.
#[must_use]
pub fn container_in(mountinfo: &str) -> Option<&str> {
    mountinfo.lines().find_map(|line| {
        let root = line.split(' ').nth(3)?;
        let mut parts = root.rsplit('/');
        let (hash, name, containers, _uid, pods) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hash = hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        (containers == "containers" && pods == "pods" && is_hash && !name.is_empty()).then_some(name)
    })
}

/// The inode in what a descriptor of a socket is a link to: `socket:[INODE]`.
#[must_use]
pub fn socket_in(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = "71 (a) b (c) S 0 71 71 0 -1 4194560 4113 0 0 0 3 1 0 0 20 0 1 0 22917 6131712 1189 18446744073709551615 1 1 0";
        let process = parse_stat(line).unwrap();
        assert_eq!((process.pid, process.parent, process.comm.as_str(), process.state, process.start_ticks), (71, 0, "a) b (c", 'S', 22917));
        assert_eq!(parse_stat(""), None);
        assert_eq!(parse_stat("1 (x"), None);
    }

    #[test]
    fn status_gives_effective_ids_and_marks() {
        let text = "Name:\tcelery\nUid:\t1000\t1001\t1000\t1000\nGid:\t1000\t1002\t1000\t1000\nVmHWM:\t   53240 kB\nVmRSS:\t   40960 kB\nSigBlk:\t0000000000000200\nSigIgn:\t0000000001001000\nSigCgt:\t0000000000004a02\n";
        let status = parse_status(text);
        assert_eq!(
            status,
            Status { ids: (1001, 1002), vm_hwm: 53240 * 1024, vm_rss: 40960 * 1024, caught: 0x4a02, ignored: 0x0100_1000, blocked: 0x200 }
        );
    }

    #[test]
    fn the_container_is_read_from_the_termination_log_mount() {
        let containerd = "653 601 0:66 / / rw,relatime - overlay overlay rw\n\
            700 653 254:0 /var/lib/kubelet/pods/5f0f2bd1-4f43-4d9e-ae60-1d0c5bb9f0a1/etc-hosts /etc/hosts rw - ext4 /dev/vda rw\n\
            701 664 254:0 /var/lib/kubelet/pods/5f0f2bd1-4f43-4d9e-ae60-1d0c5bb9f0a1/containers/worker/7c9f3a1e /dev/termination-log rw - ext4 /dev/vda rw\n";
        assert_eq!(container_in(containerd), Some("worker"));
        let own_file_system = "701 664 259:1 /pods/5f0f2bd1/containers/qscaler-sidecar/00aa11bb /var/log/end rw - xfs /dev/nvme1n1 rw\n";
        assert_eq!(container_in(own_file_system), Some("qscaler-sidecar"));
        for not_one in
            ["", "701 664 259:1 / /dev/termination-log rw", "1 2 0:1 /pods/u/volumes/x/00aa11bb /m rw", "1 2 0:1 /pods/u/containers/w/nothash! /m rw"]
        {
            assert_eq!(container_in(not_one), None, "{not_one}");
        }
    }

    #[test]
    fn a_variable_of_a_process_is_found_whole() {
        let mut child = std::process::Command::new("sleep").arg("600").env("REMAP_SIGTERM", "SIGQUIT").spawn().unwrap();
        let (procs, pid) = (ProcFs::at("/proc"), i32::try_from(child.id()).unwrap());
        // In the middle of its exec it has none.
        let begin = std::time::Instant::now();
        while fs::read(procs.path(pid, "environ")).unwrap().is_empty() && begin.elapsed().as_secs() < 60 {
            std::thread::yield_now();
        }
        assert!(procs.has_variable(pid, "REMAP_SIGTERM=SIGQUIT") && !procs.has_variable(pid, "REMAP_SIGTERM=SIG"));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_real_proc_shows_this_process() {
        let procs = ProcFs::at("/proc");
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(procs.processes().unwrap().iter().any(|p| p.pid == pid));
        assert!(procs.status(pid).unwrap().vm_hwm > 0);
        assert!(procs.uptime_s().unwrap() > 0.0);
    }
}
