//! A made-up `/proc` for tests. In: processes. Out: a folder that reads like the kernel's. Left to others: what is done with it.

use crate::worker::procs::ProcFs;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

/// A folder that reads like `/proc`; removed when dropped.
pub(crate) struct FakeProc {
    folder: tempfile::TempDir,
}

impl FakeProc {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn procs(&self) -> ProcFs {
        ProcFs::at(self.folder.path())
    }

    pub(crate) fn path(&self, pid: i32) -> PathBuf {
        self.folder.path().join(pid.to_string())
    }

    /// A process that does not exist.
    pub(crate) fn add(&self, pid: i32, parent: i32, comm: &str, start: u64, container: Option<&str>, cgroup: &str) {
        let path = self.path(pid);
        fs::create_dir_all(&path).unwrap();
        let fields = "0 ".repeat(17);
        fs::write(path.join("stat"), format!("{pid} ({comm}) S {parent} {fields}{start} 0 0\n")).unwrap();
        fs::write(path.join("cmdline"), format!("{comm}\0")).unwrap();
        fs::write(path.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        fs::write(path.join("mountinfo"), mountinfo(container)).unwrap();
        fs::write(path.join("status"), "Name:\tx\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nVmHWM:\t    1024 kB\n").unwrap();
    }

    /// A file of this text, below the folder.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// An established connection of the pod to this port, and no other.
    pub(crate) fn show_connection(&self, remote: u16) {
        let row = format!("   0: 0100007F:B3B2 0100007F:{remote:04X} 01 00000000:00000000 00:00000000 00000000  1000        0 4242 1\n");
        self.write("net/tcp", &format!("header\n{row}"));
    }

    /// A real process, shown as the top process of a container.
    pub(crate) fn add_real(&self, pid: i32, container: &str, cgroup: &str) {
        self.add_real_child(pid, 0, container, cgroup);
    }

    /// Shows the connections of real processes, and an uptime by which they are older than they are by this much.
    pub(crate) fn show_system(&self, older: std::time::Duration) {
        symlink("/proc/net", self.folder.path().join("net")).unwrap();
        let uptime_s = ProcFs::at("/proc").uptime_s().unwrap() + older.as_secs_f64();
        fs::write(self.folder.path().join("uptime"), format!("{uptime_s:.2} 0.00\n")).unwrap();
    }

    /// A real process, shown below another one.
    pub(crate) fn add_real_child(&self, pid: i32, parent: i32, container: &str, cgroup: &str) {
        let Some(real) = ProcFs::at("/proc").process(pid) else { return };
        // Seen whole or not at all.
        let path = self.folder.path().join(format!("new-{pid}"));
        fs::create_dir_all(&path).unwrap();
        let (fields, (code, stack)) = ("0 ".repeat(17), real.image.unwrap_or_default());
        let state = real.state;
        fs::write(path.join("stat"), format!("{pid} ({}) {state} {parent} {fields}{} 0 0 0 {code} 0 {stack}\n", real.comm, real.start_ticks))
            .unwrap();
        symlink(format!("/proc/{pid}/cmdline"), path.join("cmdline")).unwrap();
        symlink(format!("/proc/{pid}/fd"), path.join("fd")).unwrap();
        fs::write(path.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        fs::write(path.join("mountinfo"), mountinfo(Some(container))).unwrap();
        symlink(format!("/proc/{pid}/status"), path.join("status")).unwrap();
        symlink(format!("/proc/{pid}/root"), path.join("root")).unwrap();
        fs::rename(path, self.path(pid)).unwrap();
    }

    /// Follows the processes of this real session, whose leader is the top process of a container, until it is dropped.
    pub(crate) async fn mirror(self: std::sync::Arc<Self>, leader: i32, container: String, cgroup: String) {
        let real = ProcFs::at("/proc");
        let session = |pid: i32| -> Option<i32> {
            let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            text.rsplit_once(')')?.1.split_whitespace().nth(3)?.parse().ok()
        };
        let mut shown = std::collections::BTreeSet::new();
        loop {
            let living: Vec<_> =
                real.processes().unwrap_or_default().into_iter().filter(|p| p.state != 'Z' && session(p.pid) == Some(leader)).collect();
            for process in living.iter().filter(|p| !shown.contains(&p.pid)) {
                let is_known = process.pid == leader || living.iter().any(|p| p.pid == process.parent);
                // Detached: to whoever reaps orphans here.
                let parent = if process.pid == leader {
                    0
                } else if is_known {
                    process.parent
                } else {
                    1
                };
                self.add_real_child(process.pid, parent, &container, &cgroup);
            }
            shown.retain(|pid| {
                let lives = living.iter().any(|p| p.pid == *pid);
                if !lives {
                    self.remove(*pid);
                }
                lives
            });
            shown.extend(living.iter().map(|p| p.pid).filter(|pid| self.path(*pid).exists()));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn remove(&self, pid: i32) {
        let gone = self.folder.path().join(format!("gone-{pid}"));
        fs::rename(self.path(pid), &gone).unwrap();
        fs::remove_dir_all(gone).unwrap();
    }
}

fn mountinfo(container: Option<&str>) -> String {
    container.map_or(String::new(), |name| {
        format!("701 664 254:0 /var/lib/kubelet/pods/u-1/containers/{name}/7c9f3a1e /dev/termination-log rw - ext4 /dev/vda rw\n")
    })
}
