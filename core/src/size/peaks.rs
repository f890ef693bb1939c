//! What a sidecar measured of its worker's container, and what that says about need.
//! In: [`Peaks`], one or two in a row. Out: the need in bytes, and the [`Observation`]s they amount to.
//! Left to others: reading the kernel (`sidecar`), believing the report (`plausible`).

use super::Observation;
use serde::{Deserialize, Serialize};

/// How much of the worker's container the sidecar may read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Access {
    /// The container's cgroup files and the processes' status.
    Full,
    /// The processes' status alone: the need is an upper bound where processes share pages.
    Processes,
    /// Nothing: no peaks will come.
    #[default]
    None,
}

/// Why less than everything can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AccessGap {
    /// The worker runs under another user or group than the sidecar.
    OtherUser,
    /// The same user, and refused all the same: the worker has capabilities that the sidecar has not, or a security module forbids it.
    Refused,
    /// The worker's root may be entered, and no cgroup files are there.
    NoCgroup,
    /// A cause that this version has no word for.
    #[serde(other)]
    Unknown,
}

impl AccessGap {
    /// The words for a sentence.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::OtherUser => "the sidecar runs under another user or group than the worker",
            Self::Refused => {
                "the kernel refuses it although the users are the same: the worker has more capabilities, or a security module forbids it"
            }
            Self::NoCgroup => "the worker's container shows no cgroup files",
            Self::Unknown => "the sidecar gives a cause that this version does not know",
        }
    }
}

/// The high-water marks of one container instance, as sent in reports and in the termination message.
///
/// Maxima count from the start of the container, or from the reporter's last reset where it resets between tasks. `None` is "not readable".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Peaks {
    /// `memory.peak` (v2) or `memory.max_usage_in_bytes` (v1): a true maximum, page cache included, so an upper bound of the need.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_peak: Option<u64>,
    /// Highest sampled use without file cache (`active_file + inactive_file` taken off): short spikes fall between samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_set_max: Option<u64>,
    /// Highest sum of `VmHWM` over the processes alive at one time: sees every spike, counts shared pages more than once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vmhwm_sum_max: Option<u64>,
    /// Highest sampled use without file cache plus what the processes alive then had given back since their own peaks (the sum of `VmHWM - VmRSS`):
    /// sees every spike too, and counts shared pages once. Not with `Access::Processes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spike_max: Option<u64>,
    /// `oom_kill` counter of the cgroup.
    pub oom_kills: u64,
    /// The memory limit at the last of those kills, bytes: the limit may have been raised since, and the maxima below it are the killed
    /// process's, not a task's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_limit: Option<u64>,
    /// CPU time used by the cgroup, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_usage_us: Option<u64>,
    /// The memory limit of the cgroup in bytes; none is "unlimited" or not readable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Tasks finished by this container instance, where busy and idle edges are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks_done: Option<u64>,
    /// Which container instance: the runtime's ID, see [`container_id`]. None where the runtime's control groups do not show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// When this container instance started, seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_s: Option<f64>,
    /// When the last sample was taken, seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampled_s: Option<f64>,
    /// Which of the above could be read.
    pub access: Access,
    /// Why not all of it; None where all can be read, or the reporter does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_gap: Option<AccessGap>,
}

/// Characters of a container's ID: 32 random bytes in hexadecimal, as containerd, CRI-O and Docker make them.
const CONTAINER_ID_CHARS: usize = 64;

/// The runtime's ID of a container, in lower-case hexadecimal, where `text` ends with it: the kubelet's name (`containerd://ID`), or the path of a control
/// group (`/kubepods/burstable/podUID/ID`, `/kubepods.slice/…/cri-containerd-ID.scope`).
#[must_use]
pub fn container_id(text: &str) -> Option<&str> {
    let last = text.trim_end().rsplit('/').next()?;
    let id = last.strip_suffix(".scope").unwrap_or(last).rsplit(['-', ':']).next()?;
    (id.len() == CONTAINER_ID_CHARS && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))).then_some(id)
}

/// The memory that the container needed, in bytes: `min(cgroup peak, max(working set, spikes), limit)`.
///
/// The cgroup peak counts page cache (a task that streams a file pins it at the limit), the working set misses spikes, spikes are an upper bound where
/// processes peak one after the other: each bounds the others. The VmHWM sum stands in for spikes where they are not known: it counts shared pages and
/// programs' own files, which are page cache, once per process. None when nothing was readable.
#[must_use]
pub fn need(peaks: &Peaks) -> Option<u64> {
    let seen = peaks.working_set_max.max(peaks.spike_max.or(peaks.vmhwm_sum_max));
    let upper = [peaks.cgroup_peak, seen, peaks.limit.filter(|&l| l > 0)].into_iter().flatten().min()?;
    (peaks.cgroup_peak.is_some() || seen.is_some()).then_some(upper)
}

/// A peak within this share of the limit, percent, in a container that has seen a kill, is that of the process that was killed.
const KILLED_PEAK_PERCENT: u64 = 99;

/// What a report adds to the estimate, given the one before it from the same container instance (None for the first).
///
/// OOM kills become one observation per report however many there were, since all hit the same limit; it comes first. `child` is said when the
/// container itself lives on (`container_exited` false): the kubelet shows nothing of such a kill. What a killed process had used is no
/// task's need: such a peak is left unknown (0), and the kill speaks for it.
#[must_use]
pub fn observations(previous: Option<&Peaks>, report: &Peaks, container_exited: bool, now_s: f64) -> Vec<Observation> {
    let mut out = Vec::new();
    let at_s = report.sampled_s.unwrap_or(now_s);
    let new_kill = report.oom_kills > previous.map_or(0, |p| p.oom_kills);
    let hit = report.oom_limit.or_else(|| limit_hit(report)).filter(|_| report.oom_kills > 0);
    if let (true, Some(limit_bytes)) = (new_kill, hit) {
        out.push(Observation::Oom { limit_bytes, child: !container_exited, at_s });
    }
    let tasks_before = previous.and_then(|p| p.tasks_done);
    let tasks = report.tasks_done.map_or(0, |done| done.saturating_sub(tasks_before.unwrap_or(0)));
    if let Some(memory_bytes) = need(report) {
        let risen = !new_kill && previous.and_then(need).is_some_and(|before| memory_bytes > before);
        let of_the_killed = !risen && hit.is_some_and(|l| memory_bytes >= l / 100 * KILLED_PEAK_PERCENT && memory_bytes <= l);
        out.push(Observation::Peak {
            memory_bytes: if of_the_killed { 0 } else { memory_bytes },
            cpu_millicores: cpu_millicores(previous, report, at_s),
            tasks: u32::try_from(tasks).unwrap_or(u32::MAX),
            limit_bytes: report.limit,
            pod_started_s: report.started_s.unwrap_or(at_s),
        });
    }
    out
}

/// The limit at a kill where the reporter does not say: a kill leaves the cgroup's peak at the limit, which may have been raised since.
fn limit_hit(report: &Peaks) -> Option<u64> {
    let limit = report.limit?;
    Some(report.cgroup_peak.map_or(limit, |peak| peak.min(limit)))
}

/// Shortest span over which CPU use is averaged: shorter ones measure the scheduler, not the task.
const CPU_SPAN_MIN_S: f64 = 1.0;

/// Mean CPU between two reports, or since the start of the container. None when a counter or a time is missing.
fn cpu_millicores(previous: Option<&Peaks>, report: &Peaks, at_s: f64) -> Option<u64> {
    let (used_before, since_s) = match previous {
        Some(p) => (p.cpu_usage_us?, p.sampled_s?),
        None => (0, report.started_s?),
    };
    let span_s = at_s - since_s;
    let used_us = report.cpu_usage_us?.checked_sub(used_before)?;
    (span_s >= CPU_SPAN_MIN_S).then(|| (used_us as f64 / span_s / 1000.0).ceil() as u64)
}
