//! A file that the worker makes while it has a task. In: its path in the worker's file system. Out: samples. Left to others: making it.

use crate::input::Input;
use crate::input::MainReceiver;
use crate::input::{Activity, tell};
use crate::worker::procs::ProcFs;
use qscaler_core::message::Busy;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;

/// One lookup in a directory cache.
const PERIOD: Duration = Duration::from_millis(500);

/// Samples until the driver is gone.
pub(super) async fn run(procs: ProcFs, path: String, main: MainReceiver, inputs: mpsc::Sender<Input>) {
    loop {
        let top = main.borrow().as_ref().map(|main| main.pid);
        if let Some(top) = top
            && !tell(&inputs, Activity::only(sample(&procs.path(top, "root"), &path))).await
        {
            return;
        }
        tokio::time::sleep(PERIOD).await;
        if inputs.is_closed() {
            return;
        }
    }
}

/// Looks the path up as the worker would: links in it stay below its root.
fn sample(root: &Path, path: &str) -> Busy {
    let Ok(root) = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else { return Busy::Unknown };
    match openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(_) => Busy::Busy,
        Err(Errno::NOENT) => Busy::Idle,
        Err(_) => Busy::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_file_says_busy_its_absence_idle_and_no_access_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(sample(folder.path(), "/run/busy"), Busy::Idle);
        std::fs::create_dir(folder.path().join("run")).unwrap();
        assert_eq!(sample(folder.path(), "/run/busy"), Busy::Idle);
        std::fs::write(folder.path().join("run/busy"), "").unwrap();
        assert_eq!(sample(folder.path(), "/run/busy"), Busy::Busy);
        assert_eq!(sample(&folder.path().join("none"), "/run/busy"), Busy::Unknown);
    }

    #[test]
    fn an_absolute_link_means_a_place_in_the_workers_file_system() {
        let folder = tempfile::tempdir().unwrap();
        symlink("/etc", folder.path().join("var")).unwrap();
        assert_eq!(sample(folder.path(), "/var/passwd"), Busy::Idle);
    }
}
