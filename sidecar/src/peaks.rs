//! The highest use of every plain container of the pod. In: `/proc` and, where allowed, each container's cgroup files through
//! `/proc/PID/root`. Out: `core::size::Peaks` by container name. Left to others: what they mean (`core::size`).
//!
//! Several figures, since each alone misleads: the cgroup's own peak (page cache included), the sampled use without file cache (misses spikes), the same
//! and what living processes have given back since their own peaks (an upper bound), the sum of `VmHWM` of the living processes (counts shared pages
//! twice), and the count of OOM kills, which is looked at more often and told at once. The files stay open: they can be read once more in the moment
//! after the container's end, before the runtime removes its cgroup.

use crate::cgroup::CgroupFiles;
use crate::driver::Input;
use crate::procs::{ProcFs, TICKS_PER_SECOND, parse_status};
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

fn wall_s() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
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
mod tests {
    use super::*;
    use crate::testing::FakeProc;
    use std::fs;

    fn status(fake: &FakeProc, pid: i32, kib: u64) {
        fs::write(fake.path(pid).join("status"), format!("Uid:\t1\t1\t1\t1\nVmHWM:\t{kib} kB\n")).unwrap();
    }

    fn pod() -> (FakeProc, SharedSampler) {
        let fake = FakeProc::new();
        fs::write(fake.path(1).parent().unwrap().join("uptime"), "1000.00 900.0\n").unwrap();
        fake.add(1, 0, "pause", 1, None, "/pause");
        fake.add(7, 0, "side", 2, Some("qscaler-sidecar"), "/side");
        fake.add(30, 0, "celery", 3, Some("worker"), "/w");
        fake.add(31, 30, "celery", 3, Some("worker"), "/w");
        let sampler = SharedSampler::new(fake.procs(), 7, "qscaler-sidecar");
        (fake, sampler)
    }

    #[test]
    fn the_marks_of_living_processes_are_summed_and_the_highest_sum_stays() {
        let (fake, sampler) = pod();
        status(&fake, 30, 1000);
        status(&fake, 31, 500);
        sampler.lock().sample(1.0);
        status(&fake, 31, 200);
        sampler.lock().sample(2.0);
        let peaks = sampler.lock().peaks();
        assert_eq!(peaks.keys().collect::<Vec<_>>(), ["worker"]);
        assert_eq!(peaks["worker"].vmhwm_sum_max, Some(1500 * 1024));
        assert_eq!(peaks["worker"].access, Access::Processes);
        assert_eq!(peaks["worker"].sampled_s, Some(2.0));
    }

    #[test]
    fn a_process_on_its_way_into_a_container_does_not_take_the_place_of_its_top_process() {
        let (fake, sampler) = pod();
        for second in 1..=4 {
            sampler.lock().sample(f64::from(second));
        }
        let before = sampler.lock().peaks()["worker"].clone();
        // As runc shows it for some milliseconds: the container's files, but not its control group yet.
        fake.add(40, 0, "runc:[2:INIT]", 99, Some("worker"), "/system");
        sampler.lock().sample(5.0);
        fake.remove(40);
        status(&fake, 30, 9000);
        sampler.lock().sample(6.0);
        let after = sampler.lock().peaks()["worker"].clone();
        assert_eq!((after.started_s, after.sampled_s), (before.started_s, Some(6.0)));
        assert!(after.vmhwm_sum_max > before.vmhwm_sum_max, "{after:?}");
    }

    #[test]
    fn the_top_process_is_found_though_another_one_was_seen_first() {
        let (fake, sampler) = pod();
        fake.remove(30);
        fake.add(40, 0, "runc:[2:INIT]", 99, Some("worker"), "/system");
        for second in 1..=4 {
            sampler.lock().sample(f64::from(second));
        }
        fake.add(30, 0, "celery", 3, Some("worker"), "/w");
        sampler.lock().sample(5.0);
        fake.remove(40);
        status(&fake, 30, 9000);
        for second in 6..=7 {
            sampler.lock().sample(f64::from(second));
        }
        let seen = sampler.lock().peaks()["worker"].clone();
        assert_eq!(seen.sampled_s, Some(7.0));
        assert!(seen.vmhwm_sum_max >= Some(9000 * 1024), "{seen:?}");
    }

    #[test]
    fn the_cgroup_files_are_read_as_soon_as_they_can_be_opened_and_once_more_at_the_end() {
        let (fake, sampler) = pod();
        sampler.lock().sample(1.0);
        let files = fake.path(30).join("root/sys/fs/cgroup");
        fs::create_dir_all(&files).unwrap();
        for (name, text) in [
            ("memory.current", "300\n"),
            ("memory.peak", "400\n"),
            ("memory.max", "1000\n"),
            ("memory.stat", "anon 100\nactive_file 20\ninactive_file 30\n"),
            ("memory.events", "oom 1\noom_kill 0\n"),
            ("cpu.stat", "usage_usec 77\n"),
        ] {
            fs::write(files.join(name), text).unwrap();
        }
        sampler.lock().sample(2.0);
        let before = sampler.lock().peaks().remove("worker").unwrap();
        assert_eq!((before.cgroup_peak, before.working_set_max, before.limit, before.cpu_usage_us), (Some(400), Some(250), Some(1000), Some(77)));
        fs::write(files.join("memory.peak"), "999\n").unwrap();
        fs::write(files.join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
        fs::write(files.join("memory.max"), "2000\n").unwrap();
        sampler.lock().finish("worker");
        let after = sampler.lock().peaks().remove("worker").unwrap();
        assert_eq!((after.cgroup_peak, after.oom_kills, after.access), (Some(999), 1, Access::Full));
        assert_eq!((after.limit, after.oom_limit), (Some(2000), Some(1000)));
    }

    #[test]
    fn a_limit_that_fails_in_the_last_look_is_still_known() {
        let (fake, sampler) = pod();
        cgroup(&fake, 100, 0, 0, 160);
        sampler.lock().sample(1.0);
        // The group is half gone: its limit cannot be read, its use can.
        fs::write(fake.path(30).join("root/sys/fs/cgroup/memory.max"), "").unwrap();
        sampler.lock().finish("worker");
        assert_eq!(sampler.lock().peaks()["worker"].limit, Some(160 << 20));
    }

    /// The worker's cgroup, version 2, with these figures in MiB.
    fn cgroup(fake: &FakeProc, used: u64, file: u64, kills: u64, limit: u64) {
        let files = fake.path(30).join("root/sys/fs/cgroup");
        fs::create_dir_all(&files).unwrap();
        for (name, text) in [
            ("memory.current", format!("{}\n", (used + file) << 20)),
            ("memory.peak", format!("{}\n", limit << 20)),
            ("memory.max", format!("{}\n", limit << 20)),
            ("memory.stat", format!("anon 1\nactive_file {}\ninactive_file 0\n", file << 20)),
            ("memory.events", format!("oom 1\noom_kill {kills}\n")),
        ] {
            fs::write(files.join(name), text).unwrap();
        }
    }

    fn sizes(fake: &FakeProc, pid: i32, mark_mib: u64, now_mib: u64) {
        let text = format!("Uid:\t1\t1\t1\t1\nVmHWM:\t{} kB\nVmRSS:\t{} kB\n", mark_mib << 10, now_mib << 10);
        fs::write(fake.path(pid).join("status"), text).unwrap();
    }

    #[test]
    fn a_full_page_cache_and_pages_that_a_forked_process_shares_are_no_need() {
        let (fake, sampler) = pod();
        // A program of 45 MiB and its fork: 12 MiB of each are the program's files, which are page cache, and most of the rest is shared. The cache fills
        // the limit of 128 MiB.
        let need = || qscaler_core::size::need(&sampler.lock().peaks()["worker"]).unwrap() >> 20;
        sizes(&fake, 30, 47, 45);
        sizes(&fake, 31, 41, 40);
        cgroup(&fake, 40, 88, 0, 128);
        sampler.lock().sample(1.0);
        sampler.lock().sample(2.0);
        let peaks = sampler.lock().peaks().remove("worker").unwrap();
        assert_eq!((peaks.vmhwm_sum_max, peaks.working_set_max, peaks.spike_max), (Some(88 << 20), Some(40 << 20), Some(43 << 20)));
        assert_eq!(need(), 43);
        // The fork takes 60 MiB and gives them back between two looks.
        sizes(&fake, 31, 100, 40);
        sampler.lock().sample(3.0);
        assert_eq!(need(), 102);
        // It takes and gives back without end: what it has taken at the one look and given back at the other is not there twice.
        cgroup(&fake, 100, 28, 0, 128);
        sizes(&fake, 31, 100, 100);
        sampler.lock().sample(4.0);
        assert_eq!(need(), 102);
    }

    #[test]
    fn a_killed_process_is_told_of_once_and_with_the_limit_that_was_hit() {
        let (fake, sampler) = pod();
        cgroup(&fake, 40, 0, 0, 96);
        assert!(!sampler.lock().sample(1.0) && !sampler.lock().look_for_kills(1.2));
        cgroup(&fake, 40, 0, 1, 96);
        assert!(sampler.lock().look_for_kills(1.4) && !sampler.lock().look_for_kills(1.6));
        let peaks = sampler.lock().peaks().remove("worker").unwrap();
        assert_eq!((peaks.oom_kills, peaks.oom_limit, peaks.sampled_s), (1, Some(96 << 20), Some(1.4)));
        cgroup(&fake, 40, 0, 2, 196);
        assert!(sampler.lock().sample(2.0) && !sampler.lock().sample(3.0));
        assert_eq!(sampler.lock().peaks()["worker"].oom_kills, 2);
    }

    #[test]
    fn why_the_cgroup_files_cannot_be_read_is_said_until_they_can() {
        let (fake, sampler) = pod();
        status(&fake, 30, 1000);
        let gap = || sampler.lock().peaks()["worker"].access_gap;
        // No root to look at: the process may be about to end, so nothing is said.
        sampler.lock().sample(1.0);
        assert_eq!(gap(), None);
        let files = fake.path(30).join("root");
        std::os::unix::fs::symlink("/nowhere", &files).unwrap();
        sampler.lock().sample(2.0);
        assert_eq!(gap(), Some(AccessGap::NoCgroup));
        fs::remove_file(&files).unwrap();
        fs::create_dir_all(files.join("sys/fs/cgroup")).unwrap();
        fs::write(files.join("sys/fs/cgroup/memory.current"), "1\n").unwrap();
        sampler.lock().sample(3.0);
        assert_eq!((gap(), sampler.lock().access("worker")), (None, Access::Full));
    }

    #[test]
    fn a_container_says_its_id_as_soon_as_its_top_process_is_in_its_control_group() {
        let (id, node) = ("0a".repeat(32), "ff".repeat(32));
        let v1 = |path: &str| format!("12:pids:/other\n11:cpu,memory:{path}\n0::/docker/{node}\n");
        for (text, expected) in [
            (format!("0::/../cri-containerd-{id}.scope\n"), Some(&*id)),
            (format!("0::/kubepods/besteffort/pod1/{id}\n"), Some(&*id)),
            (v1(&format!("/docker/{node}/kubepods/burstable/pod1/{id}")), Some(&*id)),
            (v1("/"), None),
            ("0::/system.slice\n".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(instance_of(&text), expected, "{text}");
        }
        let (fake, sampler) = pod();
        status(&fake, 30, 1000);
        sampler.lock().sample(1.0);
        assert_eq!(sampler.lock().peaks()["worker"].instance, None);
        fs::write(fake.path(30).join("cgroup"), format!("0::/../{id}\n")).unwrap();
        sampler.lock().sample(2.0);
        assert_eq!(sampler.lock().peaks()["worker"].instance.as_deref(), Some(&*id));
    }

    #[test]
    fn a_new_instance_starts_from_nothing() {
        let (fake, sampler) = pod();
        status(&fake, 30, 1000);
        sampler.lock().sample(1.0);
        fake.remove(30);
        fake.remove(31);
        fake.add(40, 0, "celery", 50, Some("worker"), "/w2");
        status(&fake, 40, 10);
        sampler.lock().sample(2.0);
        assert_eq!(sampler.lock().peaks()["worker"].vmhwm_sum_max, Some(10 * 1024));
        assert!(sampler.lock().peaks()["worker"].started_s.is_some());
    }

    #[test]
    fn a_real_container_instance_of_one_process_can_be_sampled() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let fake = FakeProc::new();
        fake.add_real(pid, "worker", "/w");
        let sampler = SharedSampler::new(fake.procs(), 7, "qscaler-sidecar");
        // A process that has been forked and does not run its program yet has next to nothing.
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        let mut seen = None;
        while seen.is_none_or(|bytes| bytes < 100_000) && std::time::Instant::now() < deadline {
            sampler.lock().sample(1.0);
            seen = sampler.lock().peaks().remove("worker").and_then(|peaks| peaks.vmhwm_sum_max);
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen.is_some_and(|bytes| bytes >= 100_000), "{seen:?}");
    }
}
