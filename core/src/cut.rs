//! Why a running task was cut: a bounded set of causes, for counters and metrics. In: a cause as a sidecar words it, or what the kubelet shows of the end
//! of a container. Out: the cause. Left to others: whether a task ran (`controller::cuts`), the words for people.

/// Exit code of a process ended by SIGKILL: 128 and the signal's number.
const EXIT_SIGKILL: i32 = 137;
/// The lowest exit code that a signal's end gives, SIGHUP's.
const EXIT_SIGNAL_MIN: i32 = 129;
/// The highest one in use, SIGSYS's.
const EXIT_SIGNAL_MAX: i32 = 159;
/// The kubelet's clock and the API server's differ by no more, and a container is killed a moment before the pod's end is noted; milliseconds.
const GRACE_SLACK_MS: u64 = 2_000;

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CutCause {
    /// It ran longer than `max-task-duration`, and `drain-deadline-policy` is `cut`.
    Deadline,
    /// A person ended the hold.
    Release,
    /// The pod's grace was over, and the kubelet killed what was left.
    GraceOver,
    /// The worker got the kubelet's own signal in its task, since the hold was less than whole.
    NotHeld,
    /// A process was killed for want of memory.
    OutOfMemory,
    /// The worker was killed by something else: a person, a liveness probe, the node.
    Killed,
    /// The pod was deleted without grace.
    Forced,
    /// Another, as the sidecar words it.
    Other,
}

/// The end of the working container's instance, as the kubelet shows it. Times in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerEnd {
    /// Its exit code.
    pub exit_code: i32,
    /// It was killed for want of memory.
    pub oom: bool,
    /// When.
    pub at_ms: u64,
    /// When the pod's grace ends; None: nobody has deleted the pod.
    pub deadline_ms: Option<u64>,
    /// The sidecar could see and signal the worker.
    pub held: bool,
}

impl CutCause {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Deadline, Self::Release, Self::GraceOver, Self::NotHeld, Self::OutOfMemory, Self::Killed, Self::Forced, Self::Other];

    /// Stable name, as metrics and the status have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Release => "release",
            Self::GraceOver => "grace-over",
            Self::NotHeld => "not-held",
            Self::OutOfMemory => "out-of-memory",
            Self::Killed => "killed",
            Self::Forced => "forced",
            Self::Other => "other",
        }
    }

    /// For people, after "a running task was cut: ".
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Deadline => "longer than max-task-duration",
            Self::Release => "released by order",
            Self::GraceOver => "the pod's grace ended, and the kubelet killed the worker: max-task-duration must be longer than the longest task",
            Self::NotHeld => "the kubelet's own signal ended the worker, since its hold is less than whole: condition HoldEffective says why",
            Self::OutOfMemory => "a process of its container was killed for want of memory",
            Self::Killed => "its container was killed (a person, a failing liveness probe, the node)",
            Self::Forced => "its pod was deleted without grace (--force, or its node is gone)",
            Self::Other => "no cause was told",
        }
    }

    /// The cause that a sidecar has put into words (`core::drain::worker`): every release has its own, and what is not known is still counted.
    #[must_use]
    pub fn of_words(words: &str) -> Self {
        let says = |part: &str| words.contains(part);
        if says("max-task-duration") || says("deadline") {
            Self::Deadline
        } else if says("released") {
            Self::Release
        } else if says("grace") {
            Self::GraceOver
        } else if says("refuses to signal") || says("handler") || says("not visible") || says("signal") {
            Self::NotHeld
        } else {
            Self::Other
        }
    }

    /// Why a task that ran at this end of its container was cut; None: the worker left by itself, or by the hold's own signal, which a sidecar that
    /// could send it accounts for.
    #[must_use]
    pub fn of_end(end: &ContainerEnd) -> Option<Self> {
        if end.oom {
            return Some(Self::OutOfMemory);
        }
        if end.exit_code == EXIT_SIGKILL {
            let over = end.deadline_ms.is_some_and(|deadline| end.at_ms.saturating_add(GRACE_SLACK_MS) >= deadline);
            return Some(if over { Self::GraceOver } else { Self::Killed });
        }
        let signalled = (EXIT_SIGNAL_MIN..=EXIT_SIGNAL_MAX).contains(&end.exit_code);
        (signalled && !end.held && end.deadline_ms.is_some()).then_some(Self::NotHeld)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sidecars_say_has_a_cause_and_what_is_not_known_is_counted_all_the_same() {
        for (words, cause) in [
            ("longer than max-task-duration", CutCause::Deadline),
            ("released by order", CutCause::Release),
            ("the pod's grace ended", CutCause::GraceOver),
            ("the pod's grace ended; whether a task ran is not known", CutCause::GraceOver),
            ("the kernel refuses to signal the worker", CutCause::NotHeld),
            ("", CutCause::Other),
            ("of a later release", CutCause::Other),
        ] {
            assert_eq!(CutCause::of_words(words), cause, "{words}");
        }
    }

    #[test]
    fn the_end_of_a_container_says_what_cut_its_task() {
        let end = ContainerEnd { exit_code: 0, oom: false, at_ms: 100_000, deadline_ms: Some(3_700_000), held: true };
        for (end, cause) in [
            (end, None),
            (ContainerEnd { exit_code: 1, ..end }, None),
            (ContainerEnd { exit_code: 143, ..end }, None),
            (ContainerEnd { exit_code: 143, held: false, ..end }, Some(CutCause::NotHeld)),
            (ContainerEnd { exit_code: 130, held: false, ..end }, Some(CutCause::NotHeld)),
            (ContainerEnd { exit_code: 143, held: false, deadline_ms: None, ..end }, None),
            (ContainerEnd { exit_code: 0, held: false, ..end }, None),
            (ContainerEnd { exit_code: 255, held: false, ..end }, None),
            (ContainerEnd { exit_code: 137, ..end }, Some(CutCause::Killed)),
            (ContainerEnd { exit_code: 137, deadline_ms: None, ..end }, Some(CutCause::Killed)),
            (ContainerEnd { exit_code: 137, deadline_ms: Some(101_000), ..end }, Some(CutCause::GraceOver)),
            (ContainerEnd { exit_code: 137, oom: true, ..end }, Some(CutCause::OutOfMemory)),
        ] {
            assert_eq!(CutCause::of_end(&end), cause, "{end:?}");
        }
    }
}
