//! Processes of containers, as the node sees them. In: a container's id from a pod's status. Out: its first process, or its end by SIGKILL. It works
//! inside the cluster's box, whose process namespace holds those of all pods.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;

/// Kills the first process of this container (`containerd://…`); gives its number.
///
/// # Errors
/// It is not there, or may not be killed.
pub fn kill(container_id: &str) -> Result<i32> {
    let pid = find(Path::new("/proc"), container_id)?;
    kill_process(Pid::from_raw(pid).context("no process id")?, Signal::KILL).with_context(|| format!("cannot kill {pid}"))?;
    Ok(pid)
}

/// The oldest process whose control group carries the container's id: a container's first process starts before all that it starts.
fn find(proc: &Path, container_id: &str) -> Result<i32> {
    let id = container_id.rsplit('/').next().unwrap_or_default();
    ensure!(!id.is_empty(), "the container has no id yet");
    let numbers = std::fs::read_dir(proc)?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let of_container = numbers.filter(|pid| std::fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).is_ok_and(|text| text.contains(id)));
    let oldest = of_container.filter_map(|pid| Some((started(&proc.join(pid.to_string()))?, pid))).min();
    Ok(oldest.with_context(|| format!("no process of container {id}"))?.1)
}

/// Field 22 of `stat`: when it started, in ticks since the boot.
fn started(folder: &Path) -> Option<u64> {
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    // The name, in parentheses, may hold anything; 19 fields lie between it and the start.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_process_of_the_container_is_found() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, group, start) in [(7, "/kubepods/pod1/aaa", 500), (9, "/kubepods/pod1/aaa", 400), (3, "/kubepods/pod1/bbb", 100)] {
            let folder = proc.path().join(pid.to_string());
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("cgroup"), format!("4:memory:{group}\n")).unwrap();
            let zeros = "0 ".repeat(18);
            std::fs::write(folder.join("stat"), format!("{pid} (a ) b) S {zeros}{start} 0")).unwrap();
        }
        assert_eq!(find(proc.path(), "containerd://aaa").unwrap(), 9);
        assert!(find(proc.path(), "containerd://ccc").is_err());
        assert!(find(proc.path(), "").is_err());
    }
}
