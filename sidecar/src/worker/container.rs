//! The processes of the worker's container, as the hold plan wants them. In: `/proc`, the broker's URL. Out: values for `core::drain::plan`. Left to
//! others: who of them works (`core::drain::plan`), signals (`signal`).
//!
//! A process belongs to the container by its control group; where groups cannot be told apart, by the kubelet's termination-log mount; where that is
//! not shown either, by its parents. Descriptors, environment and memory image can be read of processes of the same user alone.

use crate::hold::signal::may_signal;
use crate::worker::find::family;
use crate::worker::procs::{ProcFs, ProcessStat, TICKS_PER_SECOND, socket_in};
use crate::worker::sockets::{Connections, Watched};
use qscaler_core::drain::plan::{self, Descriptors, ProcessId, in_same_container};
use qscaler_core::framework::Signal;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Arguments kept of a process: what runs stands in the first few.
const ARGUMENTS_MAX: usize = 12;
/// Celery's setting that makes SIGTERM a cold shutdown.
const REMAPS_TERM: &str = "REMAP_SIGTERM=SIGQUIT";
/// SIGTERM (15) and SIGQUIT (3), as bits of SigCgt.
const TERM_AND_QUIT: u64 = 1 << 14 | 1 << 2;
/// Of Sentinels the masters' port is not known: Redis's own.
const REDIS_PORT: u16 = 6379;

/// After a socket has come, the connections are wanted anew for this long: it may be on its way to the broker still.
const SETTLING: Duration = Duration::from_secs(1);

/// Reads containers.
#[derive(Clone, Debug)]
pub struct Container {
    procs: ProcFs,
    own_pid: i32,
    ports: BTreeSet<u16>,
    connections: Watched,
    /// The sockets of the container at the last look, and when one of them was new.
    sockets: BTreeSet<u64>,
    new_at: Option<Instant>,
}

/// Who works in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crew {
    /// The processes that work, told or not.
    pub workers: Vec<ProcessId>,
    /// Its processes have a connection to the broker; true also where the broker's port is not known.
    pub connected: bool,
}

/// What a process has open, as its links say: sockets and pipes by inode, and whether they can be read and written.
type Open = Vec<(String, bool, bool)>;

impl Container {
    /// Of the pod in which `own_pid` is the sidecar; `broker` is the worker's URL.
    #[must_use]
    pub fn new(procs: ProcFs, own_pid: i32, broker: &str) -> Self {
        let connections = Watched::new(procs.clone());
        Self { procs, own_pid, ports: ports(broker), connections, sockets: BTreeSet::new(), new_at: None }
    }

    /// The living processes of the container whose top process this is.
    #[must_use]
    pub fn processes(&mut self, top: i32) -> Vec<plan::Process> {
        let Ok(all) = self.procs.processes() else { return Vec::new() };
        let open: Vec<(ProcessStat, Option<Open>)> = self
            .members(&all, top)
            .into_iter()
            .map(|process| {
                let open = self.procs.descriptors(process.pid);
                (process, open)
            })
            .collect();
        let links = open.iter().filter_map(|(_, open)| open.as_ref()).flatten();
        let is_settling = self.is_settling(links.filter_map(|(link, _, _)| socket_in(link)).collect());
        let connections = self.connections.look(is_settling).clone();
        let uptime_ms = self.procs.uptime_s().map(|s| s * 1000.0);
        open.into_iter().filter_map(|(process, open)| self.value(&process, open, &connections, uptime_ms)).collect()
    }

    /// Whether one of these sockets of the container is new, or was a moment ago.
    fn is_settling(&mut self, sockets: BTreeSet<u64>) -> bool {
        if !sockets.is_subset(&self.sockets) {
            self.new_at = Some(Instant::now());
        }
        self.sockets = sockets;
        self.new_at.is_some_and(|at| at.elapsed() < SETTLING)
    }

    /// The processes of that container that work, told or not; `anew`: whether it has reached the broker is wanted as of now.
    #[must_use]
    pub fn crew(&mut self, top: i32, framework: &str, signals: &[Signal], anew: bool) -> Crew {
        if anew {
            self.new_at = Some(Instant::now());
        }
        let processes = self.processes(top);
        let reached = |process: &plan::Process| process.descriptors.as_ref().is_some_and(|found| !found.broker.is_empty());
        // Another user's processes show no descriptors: then the pod's connections have to tell.
        let hidden = processes.iter().any(|process| process.descriptors.is_none());
        let connected =
            self.ports.is_empty() || processes.iter().any(reached) || (hidden && !self.connections.look(false).others_to(&self.ports).is_empty());
        let plan = plan::plan(&processes, top, framework, signals, plan::Before::NOTHING);
        Crew { workers: plan.map(|plan| plan.workers.iter().map(|worker| worker.id).collect()).unwrap_or_default(), connected }
    }

    /// As [`Self::processes`], as `/proc` shows them.
    #[must_use]
    pub fn of_top(&self, all: &[ProcessStat], top: i32) -> Vec<ProcessStat> {
        self.members(all, top)
    }

    fn members(&self, all: &[ProcessStat], top: i32) -> Vec<ProcessStat> {
        let living = |process: &&ProcessStat| !matches!(process.state, 'Z' | 'X');
        let own = self.procs.cgroup(self.own_pid);
        if let Some(group) = self.procs.cgroup(top).filter(|group| Some(group) != own.as_ref()) {
            let is_member = |process: &&ProcessStat| self.procs.cgroup(process.pid).is_some_and(|theirs| in_same_container(&group, &theirs));
            return all.iter().filter(living).filter(is_member).cloned().collect();
        }
        if let Some(name) = self.procs.container(top) {
            let is_member = |process: &&ProcessStat| self.procs.container(process.pid).as_ref() == Some(&name);
            return all.iter().filter(living).filter(is_member).cloned().collect();
        }
        family(all, top)
    }

    fn value(&self, process: &ProcessStat, open: Option<Open>, connections: &Connections, uptime_ms: Option<f64>) -> Option<plan::Process> {
        let status = self.procs.status(process.pid)?;
        let started_ms = process.start_ticks as f64 * 1000.0 / TICKS_PER_SECOND as f64;
        Some(plan::Process {
            id: ProcessId { pid: process.pid, start_ticks: process.start_ticks },
            parent: process.parent,
            comm: process.comm.clone(),
            argv: self.procs.arguments(process.pid, ARGUMENTS_MAX),
            image: process.image,
            caught: status.caught,
            ignored: status.ignored,
            blocked: status.blocked,
            uid: status.ids.0,
            permitted: may_signal(process.pid),
            // A float becomes an integer by saturation: a clock that lies gives 0 or much, never a panic.
            age_ms: uptime_ms.map(|now_ms| (now_ms - started_ms) as u64),
            descriptors: open.map(|open| self.descriptors(open, connections)),
            // Asked of who could act on it alone: an environment may be long.
            remaps_term: status.caught & TERM_AND_QUIT == TERM_AND_QUIT && self.procs.has_variable(process.pid, REMAPS_TERM),
        })
    }

    fn descriptors(&self, open: Open, connections: &Connections) -> Descriptors {
        let mut found = Descriptors::default();
        for (link, reads, writes) in open {
            let pipe = || link.strip_prefix("pipe:[")?.strip_suffix(']')?.parse::<u64>().ok();
            if let Some(socket) = socket_in(&link)
                && let Some(port) = connections.remote(socket)
            {
                found.connected = true;
                if self.ports.contains(&port) {
                    found.broker.insert(socket);
                }
            } else if let Some(pipe) = pipe() {
                if reads {
                    found.reads.insert(pipe);
                }
                if writes {
                    found.writes.insert(pipe);
                }
            }
        }
        found
    }
}

/// The ports at which a broker of this URL listens; several servers are separated by commas or semicolons. None known: by a process's connections
/// nobody works.
pub(crate) fn ports(url: &str) -> BTreeSet<u16> {
    let mut found = BTreeSet::new();
    let mut scheme = "";
    for part in url.split(';') {
        let rest = part.split_once("://").map_or(part, |(before, rest)| {
            scheme = before;
            rest
        });
        let usual: &[u16] = match scheme {
            "amqp" | "pyamqp" => &[5672],
            "amqps" => &[5671],
            "redis" | "rediss" | "valkey" | "valkeys" => &[REDIS_PORT],
            scheme if scheme.contains("sentinel") => &[26379],
            _ => &[],
        };
        if scheme.contains("sentinel") {
            found.insert(REDIS_PORT);
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
        for host in hosts.split(',') {
            match host.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()) {
                Some(port) => {
                    found.insert(port);
                }
                None => found.extend(usual),
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeProc;
    use std::process::{Command, Stdio};

    fn pids(container: &mut Container, top: i32) -> Vec<i32> {
        let mut pids: Vec<i32> = container.processes(top).iter().map(|process| process.id.pid).collect();
        pids.sort_unstable();
        pids
    }

    #[test]
    fn ports_are_those_of_every_server_of_the_url() {
        for (url, expected) in [
            ("redis://h/0", vec![6379]),
            ("rediss://u:p%40:1@h:7000/0?x=1:2", vec![7000]),
            ("amqp://u:p@h1:5672,h2//v", vec![5672]),
            ("amqps://[::1]:5699/v", vec![5699]),
            ("redis+sentinel://h1:26379,h2:26380/m/0", vec![6379, 26379, 26380]),
            ("sentinel://h1:1;sentinel://h2:2", vec![1, 2, 6379]),
            ("kafka://h", vec![]),
        ] {
            assert_eq!(ports(url).into_iter().collect::<Vec<_>>(), expected, "{url}");
        }
    }

    #[test]
    fn a_process_belongs_by_its_group_else_by_its_mount_else_by_its_parents() {
        let fake = FakeProc::new();
        fake.add(7, 0, "qscaler-sidecar", 20, None, "/side");
        fake.add(30, 0, "sh", 30, None, "/w1");
        fake.add(31, 1, "celery", 31, None, "/w1/own");
        fake.add(40, 0, "envoy", 25, None, "/mesh");
        let mut container = Container::new(fake.procs(), 7, "redis://h");
        assert_eq!(pids(&mut container, 30), [30, 31], "detached from its parent");
        let fake = FakeProc::new();
        fake.add(7, 0, "qscaler-sidecar", 20, Some("side"), "/");
        fake.add(30, 0, "sh", 30, Some("worker"), "/");
        fake.add(31, 1, "celery", 31, Some("worker"), "/");
        fake.add(40, 0, "envoy", 25, Some("mesh"), "/");
        let mut container = Container::new(fake.procs(), 7, "redis://h");
        assert_eq!(pids(&mut container, 30), [30, 31]);
        let fake = FakeProc::new();
        fake.add(7, 0, "qscaler-sidecar", 20, None, "/");
        fake.add(30, 0, "sh", 30, None, "/");
        fake.add(31, 30, "celery", 31, None, "/");
        fake.add(40, 0, "envoy", 25, None, "/");
        let mut container = Container::new(fake.procs(), 7, "redis://h");
        assert_eq!(pids(&mut container, 30), [30, 31]);
    }

    #[test]
    fn a_real_process_shows_its_connection_its_pipes_and_the_image_that_a_fork_shares() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; (trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done); exit");
        let mut child = Command::new("bash").args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let (fake, top) = (FakeProc::new(), i32::try_from(child.id()).unwrap());
        fake.show_system(std::time::Duration::from_secs(1));
        fake.add_real(top, "worker", "/w");
        let fork = ProcFs::at("/proc").processes().unwrap().into_iter().find(|process| process.parent == top).unwrap();
        fake.add_real_child(fork.pid, top, "worker", "/w");
        let processes = Container::new(fake.procs(), 2, &format!("redis://h:{port}")).processes(top);
        let of = |pid: i32| processes.iter().find(|process| process.id.pid == pid).unwrap();
        let (upper, lower) = (of(top), of(fork.pid));
        assert!(upper.image.is_some() && upper.image == lower.image, "{:?} {:?}", upper.image, lower.image);
        let descriptors = upper.descriptors.as_ref().unwrap();
        assert!(descriptors.connected && descriptors.broker.len() == 1 && !descriptors.writes.is_empty(), "{descriptors:?}");
        assert_eq!(lower.descriptors.as_ref().unwrap().broker, descriptors.broker, "inherited");
        assert_eq!(upper.argv[0], "bash");
        assert!(upper.age_ms.is_some_and(|age_ms| age_ms < plan::STARTING_MS) && upper.permitted);
        rustix::process::kill_process(rustix::process::Pid::from_raw(fork.pid).unwrap(), rustix::process::Signal::KILL).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
