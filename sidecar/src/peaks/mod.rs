//! The highest use of every plain container of the pod. In: `/proc` and, where allowed, each container's cgroup files through
//! `/proc/PID/root`. Out: `core::size::Peaks` by container name. Left to others: what they mean (`core::size`).
//!
//! Several figures, since each alone misleads: the cgroup's own peak (page cache included), the sampled use without file cache (misses spikes), the same
//! and what living processes have given back since their own peaks (an upper bound), the sum of `VmHWM` of the living processes (counts shared pages
//! twice), and the count of OOM kills, which is looked at more often and told at once. The files stay open: they can be read once more in the moment
//! after the container's end, before the runtime removes its cgroup.

pub mod cgroup;

use crate::clock::wall_s;
use crate::input::Input;
use crate::peaks::cgroup::CgroupFiles;
use crate::worker::procs::{ProcFs, TICKS_PER_SECOND, parse_status};
use qscaler_core::size::{Access, AccessGap, Peaks, container_id};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// One sample costs about 15 µs a process: at this period 10 processes stay far below a thousandth of a core.
pub const SAMPLE_PERIOD: Duration = Duration::from_secs(1);
/// The count of OOM kills is looked at this often: some frameworks give the killed task back within a second, to die at the same limit again.
const KILL_PERIOD: Duration = Duration::from_millis(200);
/// More processes are not looked at one by one: the cgroup figures cover them.
const PROCESSES_MAX: usize = 1024;
/// A pod rarely has more; the message to the controller stays small.
const CONTAINERS_MAX: usize = 16;
/// A process is looked at anew in its first samples: the runtime moves it to its container after its start.
const SETTLED_AFTER: u8 = 3;
/// `/proc/PID/status` has about 1.4 KiB.
const STATUS_BYTES: usize = 4096;

/// A process under observation.
struct Tracked {
    status: File,
    cgroup: Arc<str>,
    samples: u8,
}

/// Of the living processes of a container, bytes.
#[derive(Clone, Copy, Default)]
struct Sum {
    /// Their `VmHWM`.
    marks: u64,
    /// How much less they have now, each.
    given_back: u64,
}

/// One container instance.
struct Container {
    cgroup: Arc<str>,
    top: i32,
    /// Names the top process for ever, with its number.
    start_ticks: u64,
    files: Option<CgroupFiles>,
    ended: bool,
    /// Use without file cache just before its processes were looked at.
    before: Option<u64>,
    peaks: Peaks,
}

/// Samples all containers of the pod but the sidecar's own.
pub struct Sampler {
    procs: ProcFs,
    own_pid: i32,
    own_container: String,
    tracked: HashMap<i32, Tracked>,
    containers: BTreeMap<String, Container>,
    cgroups: HashMap<String, Arc<str>>,
}

/// The sampler, shared by the task that samples, the one that sees the worker end, and the driver; never held across a wait.
#[derive(Clone)]
pub struct SharedSampler(Arc<Mutex<Sampler>>);

impl SharedSampler {
    /// Of these processes, except those of the sidecar's own container.
    #[must_use]
    pub fn new(procs: ProcFs, own_pid: i32, own_container: &str) -> Self {
        let sampler = Sampler {
            procs,
            own_pid,
            own_container: own_container.to_owned(),
            tracked: HashMap::new(),
            containers: BTreeMap::new(),
            cgroups: HashMap::new(),
        };
        Self(Arc::new(Mutex::new(sampler)))
    }

    /// For one use.
    pub fn lock(&self) -> MutexGuard<'_, Sampler> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one sample between the regular ones: before the worker is ended, when nothing can be read any more a moment later. True: a process was killed for
    /// want of memory since the last look.
    pub fn sample_now(&self) -> bool {
        self.lock().sample(wall_s())
    }

    /// Samples until the driver is gone, and tells it of every OOM kill at once.
    pub async fn run(self, inputs: mpsc::Sender<Input>) {
        let mut timer = tokio::time::interval(KILL_PERIOD);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut due = Instant::now();
        loop {
            timer.tick().await;
            let killed = if Instant::now() >= due {
                due = Instant::now() + SAMPLE_PERIOD - KILL_PERIOD / 2;
                self.lock().sample(wall_s())
            } else {
                self.lock().look_for_kills(wall_s())
            };
            if killed && inputs.send(Input::OomKill).await.is_err() {
                return;
            }
        }
    }
}

impl Sampler {
    /// A new instance of this container has started.
    pub fn begin(&mut self, name: &str, top: i32, cgroup: &str, start_ticks: u64) {
        let cgroup = self.intern(cgroup);
        let started_s = self.procs.uptime_s().map(|up| wall_s() - up + start_ticks as f64 / TICKS_PER_SECOND as f64);
        let peaks = Peaks { started_s, ..Peaks::default() };
        let container = Container { cgroup, top, start_ticks, files: None, ended: false, before: None, peaks };
        if self.containers.len() < CONTAINERS_MAX || self.containers.contains_key(name) {
            self.containers.insert(name.to_owned(), container);
        }
    }

    /// The container has just ended: one last look at its files.
    pub fn finish(&mut self, name: &str) {
        if let Some(container) = self.containers.get_mut(name) {
            container.read(&self.procs, self.own_pid, None, wall_s());
            container.ended = true;
        }
    }

    /// The peaks so far, of the last instance of each container.
    #[must_use]
    pub fn peaks(&self) -> BTreeMap<String, Peaks> {
        self.containers.iter().map(|(name, container)| (name.clone(), container.peaks.clone())).collect()
    }

    /// How much of this container can be read.
    #[must_use]
    pub fn access(&self, name: &str) -> Access {
        self.containers.get(name).map_or(Access::None, |container| container.peaks.access)
    }

    /// Reads the figures of those containers alone in which a process was killed since the last look. True: there is one.
    pub fn look_for_kills(&mut self, now_s: f64) -> bool {
        let mut killed = false;
        for container in self.containers.values_mut().filter(|container| !container.ended) {
            let kills = container.files.as_mut().and_then(CgroupFiles::oom_kills);
            if kills.is_some_and(|kills| kills > container.peaks.oom_kills) {
                killed |= container.read(&self.procs, self.own_pid, None, now_s);
            }
        }
        killed
    }

    /// Takes one sample. True: a process was killed since the last look.
    pub fn sample(&mut self, now_s: f64) -> bool {
        let Ok(pids) = self.procs.pids() else { return false };
        let own_pid = self.own_pid;
        for pid in pids.into_iter().filter(|pid| *pid != own_pid).take(PROCESSES_MAX) {
            self.look_at(pid);
        }
        for container in self.containers.values_mut().filter(|container| !container.ended) {
            container.before = container.files.as_mut().and_then(CgroupFiles::working_set);
        }
        let mut sums: HashMap<Arc<str>, Sum> = HashMap::new();
        let mut buffer = [0u8; STATUS_BYTES];
        self.tracked.retain(|_, tracked| match tracked.status.read_at(&mut buffer, 0) {
            // A process that has ended reads as an error, or as nothing.
            Ok(length) if length > 0 => {
                let status = parse_status(&String::from_utf8_lossy(&buffer[..length]));
                let sum = sums.entry(Arc::clone(&tracked.cgroup)).or_default();
                sum.marks += status.vm_hwm;
                sum.given_back += status.vm_hwm.saturating_sub(status.vm_rss);
                tracked.samples = tracked.samples.saturating_add(1);
                true
            }
            _ => false,
        });
        let mut killed = false;
        for container in self.containers.values_mut().filter(|container| !container.ended) {
            killed |= container.read(&self.procs, own_pid, sums.get(&container.cgroup).copied(), now_s);
        }
        let (tracked, containers) = (&self.tracked, &self.containers);
        self.cgroups.retain(|_, cgroup| tracked.values().any(|t| t.cgroup == *cgroup) || containers.values().any(|c| c.cgroup == *cgroup));
        killed
    }

    /// Takes a process into observation, and its container where it is that container's top process.
    fn look_at(&mut self, pid: i32) {
        if self.tracked.get(&pid).is_some_and(|tracked| tracked.samples >= SETTLED_AFTER) {
            return;
        }
        let Some(text) = self.procs.cgroup(pid) else { return };
        let cgroup = self.intern(&text);
        match self.tracked.get_mut(&pid) {
            Some(tracked) => tracked.cgroup = Arc::clone(&cgroup),
            None => {
                let Ok(status) = File::open(self.procs.path(pid, "status")) else { return };
                self.tracked.insert(pid, Tracked { status, cgroup: Arc::clone(&cgroup), samples: 0 });
            }
        }
        if self.containers.values().any(|container| container.cgroup == cgroup) {
            return;
        }
        let Some(process) = self.procs.process(pid).filter(|process| process.parent == 0 && pid != 1) else { return };
        let Some(name) = self.procs.container(pid).filter(|name| *name != self.own_container) else { return };
        // What is executed into a container (a probe, `kubectl exec`) shows its name before the runtime has moved it there: the top process is the oldest.
        let known = self.containers.get(&name).filter(|known| !known.ended && known.has_top(&self.procs));
        if known.is_none_or(|known| process.start_ticks < known.start_ticks) {
            self.begin(&name, pid, &text, process.start_ticks);
        }
    }

    fn intern(&mut self, cgroup: &str) -> Arc<str> {
        if let Some(known) = self.cgroups.get(cgroup) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(cgroup);
        self.cgroups.insert(cgroup.to_owned(), Arc::clone(&new));
        new
    }
}

impl Container {
    /// Its top process is still there.
    fn has_top(&self, procs: &ProcFs) -> bool {
        procs.process(self.top).is_some_and(|process| process.start_ticks == self.start_ticks)
    }

    /// True: a process was killed since the last reading.
    fn read(&mut self, procs: &ProcFs, own_pid: i32, sum: Option<Sum>, now_s: f64) -> bool {
        let peaks = &mut self.peaks;
        if let Some(sum) = sum.filter(|sum| sum.marks > 0) {
            peaks.vmhwm_sum_max = peaks.vmhwm_sum_max.max(Some(sum.marks));
            peaks.sampled_s = Some(now_s);
            if peaks.access == Access::None {
                peaks.access = Access::Processes;
            }
        }
        if self.files.is_none() {
            // Refused while the runtime still sets the container up; so it is tried again.
            self.files = CgroupFiles::open(&procs.path(self.top, "root/sys/fs/cgroup"));
            peaks.access_gap = if self.files.is_some() { None } else { peaks.access_gap.or_else(|| gap(procs, own_pid, self.top)) };
        }
        if peaks.instance.is_none() {
            // While the runtime sets the container up, its top process is in no control group of the container's.
            peaks.instance = procs.cgroup(self.top).as_deref().and_then(instance_of).map(str::to_owned);
        }
        // After the end the files fail one by one: the last sample stays.
        let Some(reading) = self.files.as_mut().and_then(CgroupFiles::read) else { return false };
        peaks.access = Access::Full;
        peaks.sampled_s = Some(now_s);
        peaks.cgroup_peak = peaks.cgroup_peak.max(reading.peak);
        peaks.working_set_max = peaks.working_set_max.max(reading.working_set);
        // The lower of before and after: what a process takes between two looks at it is not both used and given back.
        let used = self.before.take().zip(reading.working_set).map(|(before, after)| before.min(after));
        peaks.spike_max = peaks.spike_max.max(used.zip(sum).map(|(used, sum)| used + sum.given_back)).max(peaks.working_set_max);
        let oom_kills = reading.oom_kills.unwrap_or(0);
        let killed = oom_kills > peaks.oom_kills;
        if killed {
            peaks.oom_kills = oom_kills;
            // Changed since the sample before? Up is the answer to a kill, down is its cause: the lower one was hit.
            peaks.oom_limit = [peaks.limit, reading.limit].into_iter().flatten().min();
        }
        peaks.cpu_usage_us = peaks.cpu_usage_us.max(reading.cpu_usage_us);
        // As the runtime removes the control group its files fail one by one: a limit that cannot be read any more is still what it was.
        peaks.limit = reading.limit.or(peaks.limit);
        killed
    }
}

/// The container instance's ID in `/proc/PID/cgroup`: of version 1 the memory controller's line, else that of version 2.
fn instance_of(text: &str) -> Option<&str> {
    let path = |controllers: fn(&str) -> bool| {
        text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':')).find(|(of, _)| controllers(of)).map(|(_, path)| path)
    };
    container_id(path(|of| of.split(',').any(|one| one == "memory")).or_else(|| path(str::is_empty))?)
}

/// Why a container's cgroup files cannot be opened; None: its top process is gone.
fn gap(procs: &ProcFs, own_pid: i32, top: i32) -> Option<AccessGap> {
    match std::fs::read_link(procs.path(top, "root")) {
        Ok(_) => Some(AccessGap::NoCgroup),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let same = procs.status(top)?.ids == procs.status(own_pid)?.ids;
            Some(if same { AccessGap::Refused } else { AccessGap::OtherUser })
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests;
