//! Flow 3: peaks and OOM kills -> [`Estimate`] -> [`Recommendation`] -> [`ResizePlan`].
//!
//! In: what the sidecars measured ([`Peaks`]), what the kubelet says of a pod ([`ResizeFacts`]), the user's bounds, the time.
//! Out: values that say what to set, why, and which bound won. Left to others: reading, writing, waiting, and carrying the estimate (it is
//! kept in the QWorker status). Memory is in bytes, CPU in thousandths of a core, time in seconds since the epoch, given by the caller.
//!
//! One file per question:
//! - `peaks`: how much did the container need? `plausible`: can this report be true?
//! - `window`: the highest need of the last 1000 tasks or 8 days. `cpu`: the percentile of CPU use.
//! - `estimate`: what is remembered, and how an OOM kill changes it. `kills`: which kills are in it already. `bounds`: who may cap. `share`: what the surroundings leave to each pod. `recommend`: the number and its sentence.
//! - `pod`: what is known of a pod and of the cluster. `resize`: what to do with it now. `rate`: how many of those at once.
//!
//! Nothing here ever evicts or restarts a pod: the largest thing a plan can say is "new pods only".

mod bounds;
mod cpu;
mod estimate;
mod kills;
mod peaks;
mod plausible;
mod pod;
mod qos;
mod rate;
mod recommend;
mod resize;
mod share;
mod window;

pub use bounds::{CapSource, OuterBound, SizeBounds, SizeCap};
pub use cpu::CpuHistogram;
pub use estimate::{Estimate, Observation, OomRecord, grow_after_oom};
pub use kills::{Kills, OomSeen, SavedKills, expects_kills};
pub use peaks::{Access, AccessGap, Peaks, container_id, need, observations};
pub use plausible::{Implausible, PeakFacts, highest_limit, plausible};
pub use pod::{ClusterVersion, ContainerResources, InProgress, Pending, PendingReason, PodPhase, QosClass, RefusalCause, ResizeFacts, ResizeRefusal};
pub use rate::RateCap;
pub use recommend::{Confidence, Recommendation};
pub use resize::{ResizePatch, ResizePlan, WaitState, plan_resize};
pub use share::{LimitRange, Quota, Surroundings};
pub use window::Window;

/// Seconds in a day.
pub const DAY_S: f64 = 86_400.0;
/// Tasks that the memory window always covers: the next of N exchangeable tasks beats their maximum with chance 1/(N+1), so 1000 gives
/// about one overrun per 1000 tasks before any margin.
pub const WINDOW_TASKS: u64 = 1000;
/// Days that the memory window always covers: a weekly burst is still known when it returns, with a day to spare.
pub const WINDOW_S: f64 = 8.0 * DAY_S;
/// Memory margin over the highest need, in percent.
pub const MARGIN_PERCENT: u64 = 15;
/// Memory margin while fewer than [`CONFIDENT_SAMPLES`] were seen, in percent.
pub const MARGIN_YOUNG_PERCENT: u64 = 30;
/// Samples from which the estimate is trusted: the margin narrows, and sizes may go down.
pub const CONFIDENT_SAMPLES: u64 = 30;
/// The most that a size goes down in one day, in percent of the size.
pub const DOWN_PERCENT_PER_DAY: u64 = 10;
/// Smaller changes than this, in percent of the present size, are not worth a write.
pub const IGNORE_PERCENT: u64 = 10;
/// An OOM kill raises the limit that was hit by half ...
pub const OOM_GROWTH_PERCENT: u64 = 150;
/// ... and by no less than 100 MiB, so that small workers do not climb in many kills.
pub const OOM_GROWTH_MIN_BYTES: u64 = 100 << 20;
/// OOM kills at the cap after which no limit can be the answer: growth is given up and the task class is named.
pub const OOMS_AT_CAP_TO_GIVE_UP: u32 = 3;
/// No container is made smaller than this: the runtime itself needs some MiB to start one.
pub const MIN_MEMORY_BYTES: u64 = 16 << 20;
/// No CPU request is made smaller than this: below it cgroup weights round to nothing.
pub const MIN_CPU_M: u64 = 10;
