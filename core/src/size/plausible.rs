//! Can this report be true? Reports come over a broker that others may write to, so they are believed only within physics.
//! In: a report and what the API server says of the pod. Out: yes, or the law it breaks. Left to others: counting and dropping.

use super::{Estimate, Peaks};

/// Slack over a limit, in percent: the kernel charges in batches and reads the counters one after the other.
const LIMIT_SLACK_PERCENT: u64 = 1;
/// Slack over a limit in bytes, the same reason for small containers.
const LIMIT_SLACK_BYTES: u64 = 1 << 20;
/// Slack on clocks of two machines, seconds.
const CLOCK_SLACK_S: f64 = 30.0;
/// Slack on CPU time, in percent: bursts are accounted a tick late.
const CPU_SLACK_PERCENT: u64 = 10;

/// What the controller knows for sure about the pod that a report names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeakFacts {
    /// A pod of this uid exists, or existed when its termination message was read.
    pub pod_exists: bool,
    /// The pod belongs to the workload whose estimate the report would change.
    pub belongs: bool,
    /// Highest memory limit the container has had, from spec and status; None when it has none.
    pub limit_bytes: Option<u64>,
    /// Memory of the node, where known.
    pub node_memory_bytes: Option<u64>,
    /// CPU of the node in millicores, where known.
    pub node_cpu_m: Option<u64>,
    /// Seconds since the pod started, by the API server's word.
    pub age_s: f64,
    /// The last believed report of the same container instance.
    pub previous: Option<Peaks>,
}

/// The law that a report breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Implausible {
    /// No such pod.
    #[error("the pod that it names does not exist")]
    NoSuchPod,
    /// Somebody else's pod.
    #[error("the pod that it names belongs to another workload")]
    OtherWorkload,
    /// More memory than the container can have had.
    #[error("a peak of {peak} bytes is above the container's limit of {limit}")]
    AboveLimit {
        /// As reported.
        peak: u64,
        /// As the API server says.
        limit: u64,
    },
    /// More memory than the machine has.
    #[error("a peak of {peak} bytes is above the node's memory of {node}")]
    AboveNode {
        /// As reported.
        peak: u64,
        /// As the API server says.
        node: u64,
    },
    /// A limit that the container never had.
    #[error("it speaks of a limit of {reported} bytes, the container's is {limit}")]
    WrongLimit {
        /// As reported.
        reported: u64,
        /// As the API server says.
        limit: u64,
    },
    /// A counter that went back without a new container.
    #[error("{counter} went back from {before} to {after} within one container")]
    WentBack {
        /// Name of the field.
        counter: &'static str,
        /// Last believed value.
        before: u64,
        /// Reported value.
        after: u64,
    },
    /// More CPU time than the node could give in the pod's life.
    #[error("{used_us} us of CPU is more than the node can have given, {possible_us} us")]
    TooMuchCpu {
        /// As reported.
        used_us: u64,
        /// Node CPU times age.
        possible_us: u64,
    },
}

/// The limit that a container may have come up to. A limit that is lowered in place lowers no peak: what was believed of this instance under a higher one, or is
/// in the estimate, stays believable, or every report after it would be refused, and kills with it. None: no limit is known.
#[must_use]
pub fn highest_limit(now: Option<u64>, previous: Option<&Peaks>, estimate: &Estimate) -> Option<u64> {
    let of_instance = previous.into_iter().flat_map(|p| [p.limit, p.cgroup_peak, p.working_set_max]);
    now.map(|now| of_instance.chain([estimate.highest_need()]).flatten().fold(now, u64::max))
}

/// Believes a report, or says which law it breaks.
///
/// # Errors
/// The first law broken, in the order: existence, belonging, memory, counters, CPU.
pub fn plausible(report: &Peaks, facts: &PeakFacts) -> Result<(), Implausible> {
    if !facts.pod_exists {
        return Err(Implausible::NoSuchPod);
    }
    if !facts.belongs {
        return Err(Implausible::OtherWorkload);
    }
    let measured = report.cgroup_peak.max(report.working_set_max);
    if let (Some(peak), Some(limit)) = (measured, facts.limit_bytes)
        && peak > with_slack(limit)
    {
        return Err(Implausible::AboveLimit { peak, limit });
    }
    if let (Some(reported), Some(limit)) = (report.limit, facts.limit_bytes)
        && reported > with_slack(limit)
    {
        return Err(Implausible::WrongLimit { reported, limit });
    }
    if let (Some(peak), Some(node)) = (measured.or(super::need(report)), facts.node_memory_bytes)
        && peak > with_slack(node)
    {
        return Err(Implausible::AboveNode { peak, node });
    }
    if let Some(before) = &facts.previous {
        monotonic("oomKills", Some(before.oom_kills), Some(report.oom_kills))?;
        monotonic("cpuUsageUs", before.cpu_usage_us, report.cpu_usage_us)?;
        monotonic("cgroupPeak", before.cgroup_peak, report.cgroup_peak)?;
        monotonic("tasksDone", before.tasks_done, report.tasks_done)?;
    }
    if let (Some(used_us), Some(node_cpu_m)) = (report.cpu_usage_us, facts.node_cpu_m) {
        let seconds = (facts.age_s + CLOCK_SLACK_S).max(0.0);
        let possible_us = (seconds * node_cpu_m as f64 * 1000.0) as u64;
        if used_us > percent_more(possible_us, CPU_SLACK_PERCENT) {
            return Err(Implausible::TooMuchCpu { used_us, possible_us });
        }
    }
    Ok(())
}

fn with_slack(limit: u64) -> u64 {
    percent_more(limit, LIMIT_SLACK_PERCENT).max(limit.saturating_add(LIMIT_SLACK_BYTES))
}

fn percent_more(value: u64, percent: u64) -> u64 {
    value.saturating_add(value / 100 * percent)
}

fn monotonic(counter: &'static str, before: Option<u64>, after: Option<u64>) -> Result<(), Implausible> {
    match (before, after) {
        (Some(before), Some(after)) if after < before => Err(Implausible::WentBack { counter, before, after }),
        _ => Ok(()),
    }
}
