//! A made-up `/proc` for tests. In: processes. Out: a folder that reads like the kernel's. Left to others: what is done with it.

use crate::procs::ProcFs;
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
        fs::write(path.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        fs::write(path.join("mountinfo"), mountinfo(container)).unwrap();
        fs::write(path.join("status"), "Name:\tx\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nVmHWM:\t    1024 kB\n").unwrap();
    }

    /// A real process, shown as the top process of a container.
    pub(crate) fn add_real(&self, pid: i32, container: &str, cgroup: &str) {
        let path = self.path(pid);
        fs::create_dir_all(&path).unwrap();
        let real = ProcFs::at("/proc").process(pid).unwrap();
        let fields = "0 ".repeat(17);
        fs::write(path.join("stat"), format!("{pid} ({}) S 0 {fields}{} 0 0\n", real.comm, real.start_ticks)).unwrap();
        fs::write(path.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        fs::write(path.join("mountinfo"), mountinfo(Some(container))).unwrap();
        symlink(format!("/proc/{pid}/status"), path.join("status")).unwrap();
        symlink(format!("/proc/{pid}/root"), path.join("root")).unwrap();
    }

    pub(crate) fn remove(&self, pid: i32) {
        fs::remove_dir_all(self.path(pid)).unwrap();
    }
}

fn mountinfo(container: Option<&str>) -> String {
    container.map_or(String::new(), |name| {
        format!("701 664 254:0 /var/lib/kubelet/pods/u-1/containers/{name}/7c9f3a1e /dev/termination-log rw - ext4 /dev/vda rw\n")
    })
}
