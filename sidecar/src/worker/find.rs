//! Which process is the top of the worker's container. In: the processes of the pod. Out: that process. Left to others: who below it works
//! (`container`, `core::drain::plan`), reading `/proc` (`procs`), opening a handle to it (`watch`).
//!
//! Rules, each measured on a real cluster: a process belongs to the container whose termination log it has mounted, never to "the one that is
//! not mine" (other sidecars have no parent either); of those the oldest, since `kubectl exec` and exec hooks have no parent too.

use crate::worker::procs::{ProcFs, ProcessStat};

/// PID 1 of a shared namespace is the pod's sandbox: ending it ends the pod.
const SANDBOX: i32 = 1;
/// What the container runtime's own processes are called while they become a container's (runc, crun): they have its mounts already and are not the
/// program yet, nor its user.
const RUNTIME_INITS: &[&str] = &["runc:[", "crun:["];

/// The top process of the worker's container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Top {
    /// The process.
    pub process: ProcessStat,
    /// Its container instance.
    pub cgroup: String,
}

/// The top process of this container, or None when it is not there (yet) or cannot be told for certain. `own_pid` is the sidecar.
#[must_use]
pub fn top_of(procs: &ProcFs, processes: &[ProcessStat], container: &str, own_pid: i32) -> Option<Top> {
    if own_pid == SANDBOX {
        // The namespace is the sidecar's own.
        return None;
    }
    let is_program = |p: &ProcessStat| p.state != 'Z' && !RUNTIME_INITS.iter().any(|init| p.comm.starts_with(init));
    let mut tops: Vec<&ProcessStat> = processes.iter().filter(|p| p.parent == 0 && p.pid != SANDBOX && p.pid != own_pid && is_program(p)).collect();
    tops.sort_by_key(|p| (p.start_ticks, p.pid));
    let named: Vec<(&ProcessStat, Option<String>)> = tops.iter().map(|p| (*p, procs.container(p.pid))).collect();
    let found = match named.iter().find(|(_, name)| name.as_deref() == Some(container)) {
        Some((process, _)) => (*process).clone(),
        // The runtime shows such mounts: then the container is not running.
        None if procs.container(own_pid).is_some() || named.iter().any(|(_, name)| name.is_some()) => return None,
        None => only_other_container(procs, &tops, own_pid)?,
    };
    let cgroup = procs.cgroup(found.pid)?;
    Some(Top { process: found, cgroup })
}

/// Where no termination log is visible: the oldest process of the one other container; with more than one, nothing is certain.
fn only_other_container(procs: &ProcFs, tops: &[&ProcessStat], own_pid: i32) -> Option<ProcessStat> {
    let own = procs.cgroup(own_pid)?;
    let mut others = tops.iter().filter_map(|p| Some((procs.cgroup(p.pid)?, *p))).filter(|(cgroup, _)| *cgroup != own);
    let (first_cgroup, first) = others.next()?;
    others.all(|(cgroup, _)| cgroup == first_cgroup).then(|| first.clone())
}

/// A process and everything below it, parents before their children; zombies left out.
#[must_use]
pub fn family(processes: &[ProcessStat], top: i32) -> Vec<ProcessStat> {
    let living = || processes.iter().filter(|p| p.state != 'Z');
    let mut found: Vec<ProcessStat> = living().filter(|p| p.pid == top).cloned().collect();
    let mut at = 0;
    while let Some(parent) = found.get(at).map(|p| p.pid) {
        found.extend(living().filter(|p| p.parent == parent).cloned());
        at += 1;
    }
    found
}

/// The living children of a process.
#[must_use]
pub fn children(processes: &[ProcessStat], parent: i32) -> usize {
    processes.iter().filter(|p| p.parent == parent && p.state != 'Z').count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeProc;

    fn find(fake: &FakeProc, container: &str) -> Option<i32> {
        let procs = fake.procs();
        top_of(&procs, &procs.processes().unwrap(), container, 7).map(|top| top.process.pid)
    }

    fn pod() -> FakeProc {
        let fake = FakeProc::new();
        fake.add(1, 0, "pause", 10, None, "/pause");
        fake.add(7, 0, "qscaler-sidecar", 20, Some("qscaler-sidecar"), "/side");
        fake.add(15, 0, "envoy", 21, Some("istio-proxy"), "/mesh");
        fake.add(30, 0, "celery", 30, Some("worker"), "/w1");
        fake.add(31, 30, "celery", 31, Some("worker"), "/w1");
        fake
    }

    #[test]
    fn the_worker_is_found_by_its_containers_name() {
        assert_eq!(find(&pod(), "worker"), Some(30));
        assert_eq!(find(&pod(), "other"), None);
    }

    #[test]
    fn a_process_executed_into_the_container_is_not_the_worker() {
        let fake = pod();
        fake.add(29, 0, "sh", 99, Some("worker"), "/w1");
        assert_eq!(find(&fake, "worker"), Some(30));
    }

    #[test]
    fn what_the_runtime_runs_before_the_program_is_not_the_worker() {
        let fake = FakeProc::new();
        fake.add(1, 0, "pause", 10, None, "/pause");
        fake.add(7, 0, "qscaler-sidecar", 20, Some("qscaler-sidecar"), "/side");
        fake.add(30, 0, "runc:[2:INIT]", 30, Some("worker"), "/w1");
        assert_eq!(find(&fake, "worker"), None);
        fake.add(30, 0, "celery", 30, Some("worker"), "/w1");
        assert_eq!(find(&fake, "worker"), Some(30));
    }

    #[test]
    fn another_sidecar_is_never_taken_for_the_worker() {
        let fake = pod();
        fake.remove(30);
        fake.remove(31);
        assert_eq!(find(&fake, "worker"), None);
    }

    #[test]
    fn without_any_visible_mount_only_a_single_other_container_is_certain() {
        let fake = FakeProc::new();
        fake.add(1, 0, "pause", 10, None, "/pause");
        fake.add(7, 0, "qscaler-sidecar", 20, None, "/side");
        fake.add(30, 0, "celery", 30, None, "/w1");
        fake.add(33, 0, "bash", 40, None, "/w1");
        assert_eq!(find(&fake, "worker"), Some(30));
        fake.add(40, 0, "envoy", 25, None, "/mesh");
        assert_eq!(find(&fake, "worker"), None);
    }

    #[test]
    fn in_a_namespace_of_its_own_the_sidecar_sees_no_worker() {
        let fake = pod();
        let procs = fake.procs();
        assert_eq!(top_of(&procs, &procs.processes().unwrap(), "worker", 1), None);
    }

    #[test]
    fn a_family_is_a_process_and_all_below_it() {
        let process = |pid, parent, state| ProcessStat { pid, parent, comm: String::new(), state, start_ticks: 1, image: None };
        let all = [process(9, 5, 'S'), process(5, 0, 'S'), process(6, 5, 'Z'), process(7, 9, 'S'), process(8, 1, 'S')];
        assert_eq!(family(&all, 5).iter().map(|p| p.pid).collect::<Vec<_>>(), [5, 9, 7]);
        assert!(family(&all, 4).is_empty());
    }
}
