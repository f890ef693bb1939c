//! Comes in: nothing. Goes out: the values that enter and leave [`super::decide`]. Leaves to others: every rule.

use serde::{Deserialize, Serialize};

use super::numeric::{sane, within};
use crate::config::OptimizeFor;

/// Shortest and longest time that is believed of anything, seconds: a millisecond, so that nothing is divided by zero, and thirty days, the longest
/// duration that any setting takes.
pub(super) const TIME_MIN_S: f64 = 0.001;
/// See [`TIME_MIN_S`].
pub(super) const TIME_MAX_S: f64 = 30.0 * 86_400.0;

/// The constants of the law. One default set serves all workloads; the user states a wait, a minimum and a maximum.
#[derive(Debug, Clone, PartialEq)]
pub struct LawParams {
    /// How often the caller decides, seconds.
    pub tick_s: f64,
    /// Weight of a late message against a pod-second: one percent of late messages is worth ten percent of pods.
    pub miss_weight: f64,
    /// Share of messages that may wait longer than the aimed-at part of `max_wait_s` in the steady state.
    pub miss_probability: f64,
    /// The part of `max_wait_s` that is aimed at; the rest is reserve for what the forecast misses.
    pub wait_share: f64,
    /// Short window of the arrival rate, seconds: how soon a change of rate is believed.
    pub rate_window_s: f64,
    /// Long window of the arrival rate, seconds.
    pub rate_long_window_s: f64,
    /// Least half-life of the smoothed arrival rate, seconds.
    pub rate_half_life_s: f64,
    /// Width of the Poisson bands that the smoothed rate must stay in, standard deviations.
    pub rate_z: f64,
    /// A worker counts as surplus when it was idle for this long, seconds.
    pub idle_window_s: f64,
    /// Pods requested in one tick at most, so that one wrong figure can't fill a cluster in one write.
    pub start_burst: u32,
    /// Share of busy workers that may be asked, per tick, to leave after their task while messages wait by intent.
    pub standing_leave_share: f64,
    /// Half-life of what is learned about how often each level of load returns, seconds.
    pub hold_half_life_s: f64,
    /// A figure older than this is unknown, seconds. RabbitMQ's own statistics are 4 to 9 s old in good health.
    pub stale_after_s: f64,
    /// Share of replicas added, once, when the figures have gone stale under load.
    pub stale_boost: f64,
    /// Where nothing tells busy from idle: the queue must have been empty this long before a worker counts as idle, seconds.
    pub blind_idle_s: f64,
}

impl Default for LawParams {
    fn default() -> Self {
        Self {
            tick_s: 1.0,
            miss_weight: 10.0,
            miss_probability: 0.05,
            wait_share: 0.5,
            rate_window_s: 10.0,
            rate_long_window_s: 60.0,
            rate_half_life_s: 60.0,
            rate_z: 2.0,
            idle_window_s: 5.0,
            start_burst: 100,
            standing_leave_share: 0.05,
            hold_half_life_s: 3600.0,
            stale_after_s: 15.0,
            stale_boost: 0.25,
            blind_idle_s: 60.0,
        }
    }
}

impl LawParams {
    /// The constants for what the user would rather have. Where an idle pod is weighed against a late message, the message counts four times as much for
    /// `latency` and a tenth for `cost`; for `latency` a message is also aimed to start within half the time.
    #[must_use]
    pub fn optimized_for(choice: OptimizeFor) -> Self {
        let balanced = Self::default();
        match choice {
            OptimizeFor::Latency => Self { miss_weight: 4.0 * balanced.miss_weight, wait_share: 0.5 * balanced.wait_share, ..balanced },
            OptimizeFor::Balanced => balanced,
            OptimizeFor::Cost => Self { miss_weight: 0.1 * balanced.miss_weight, ..balanced },
        }
    }
}

/// What the user promises and allows for one workload.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleConfig {
    /// Fewest replicas; 0 is allowed.
    pub min_replicas: u32,
    /// Most replicas. Where it is below `min_replicas`, `max_replicas` wins.
    pub max_replicas: u32,
    /// The goal: no message should wait longer than this, seconds, above 0.
    pub max_wait_s: f64,
    /// A fixed number of messages per pod that replaces rate, service time and backlog rules: `ceil((ready + in flight) / this)`.
    /// No floor by rate remains, since that would need the service time this setting replaces.
    pub messages_per_worker: Option<u32>,
    /// Tasks one pod runs at once, at least 1.
    pub concurrency: u32,
    /// Service time believed until tasks have been seen, seconds.
    pub service_time_hint_s: f64,
    /// Start latency believed until pods have been seen to start, seconds.
    pub start_latency_hint_s: f64,
    /// Most tasks that can run at once whatever the number of pods (partitions of a log, a licence); `None` for no such limit.
    pub max_parallel: Option<u32>,
    /// Messages are acknowledged before their task runs (Celery's default), so that running tasks are known from the workers alone. What
    /// [`super::observe::Acks`] sees takes its place.
    pub acknowledges_early: bool,
    /// The constants of the law.
    pub law: LawParams,
}

impl ScaleConfig {
    /// The defaults for one workload: 1 task per pod, hints of 10 s.
    pub fn new(min_replicas: u32, max_replicas: u32, max_wait_s: f64) -> Self {
        Self {
            min_replicas,
            max_replicas,
            max_wait_s,
            messages_per_worker: None,
            concurrency: 1,
            service_time_hint_s: 10.0,
            start_latency_hint_s: 10.0,
            max_parallel: None,
            acknowledges_early: false,
            law: LawParams::default(),
        }
    }

    /// The same with times that can be reckoned with: from a millisecond to thirty days, which is what settings take.
    pub(super) fn bounded(&self) -> Self {
        let time = |value_s: f64, default_s: f64| within(sane(value_s, default_s), TIME_MIN_S, TIME_MAX_S);
        Self {
            max_wait_s: time(self.max_wait_s, 30.0),
            service_time_hint_s: time(self.service_time_hint_s, 10.0),
            start_latency_hint_s: time(self.start_latency_hint_s, 10.0),
            ..self.clone()
        }
    }
}

/// One queue as last seen. `None` is unknown, which is never the same as 0.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueueSample {
    /// Messages that wait and that no consumer holds.
    pub ready: Option<u64>,
    /// Messages held by consumers and not acknowledged: running or prefetched (prefetched only, with [`ScaleConfig::acknowledges_early`]).
    pub unacked: Option<u64>,
    /// Messages ever published to the queue; a smaller figure than before is a new start of the counter.
    pub published_total: Option<u64>,
    /// Messages ever finished; a smaller figure than before is a new start of the counter.
    pub completed_total: Option<u64>,
    /// Of `unacked`, messages that their consumer only keeps until they are due (Celery's eta and countdown): they neither run nor wait for anyone, but
    /// some worker has to keep them. `None` where the broker does not tell.
    pub unacked_later: Option<u64>,
    /// Seconds until the next message that was put aside (delayed, scheduled, to be retried) is due; those that are due count in `ready`. `None`: there is
    /// none, or the broker does not tell.
    pub next_due_s: Option<f64>,
    /// Age of the message that has waited longest, seconds, where the broker or the framework knows when it was sent. `None`: nobody tells, or nothing
    /// waits.
    pub oldest_s: Option<f64>,
    /// How old these figures are, seconds.
    pub age_s: f64,
}

/// One task that ended, as its worker reported it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Completion {
    /// Seconds from taking the message to being done with it.
    pub service_s: f64,
}

/// The pods of one workload as last seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FleetSample {
    /// `spec.replicas` of the Deployment. It counts parked pods and not terminating ones.
    pub spec_replicas: u32,
    /// Pods that are Ready, not parked, and not terminating.
    pub ready: u32,
    /// Age in seconds of each pod that exists, is scheduled (or may soon be), and isn't Ready yet.
    pub starting: Vec<f64>,
    /// Pods whose worker has run before and is being started again (a crash, a failed probe): useful again soon, but no starts to learn from.
    pub restarting: u32,
    /// Pods the scheduler could not place.
    pub pending_unschedulable: u32,
    /// Pods that take no more work and wait to leave.
    pub parked: u32,
    /// Pods with a deletion timestamp.
    pub terminating: u32,
    /// Tasks running now in the pods counted by `ready`, from the workers' own reports; `None` where no pod tells.
    pub busy: Option<u32>,
    /// Pods counted by `ready` that tell nothing, while others do: just started, or silent.
    pub untold: u32,
    /// Age in seconds of each pod counted by `ready` that was started lately and has not told anything yet, though its worker will: Ready comes before the
    /// worker can take work. Such a pod is on its way, as one of [`Self::starting`] is, and may have taken a message all the same.
    pub settling: Vec<f64>,
    /// Age in seconds of each running task that is known; may be empty.
    pub busy_ages_s: Vec<f64>,
    /// Reports cannot come from any worker: the broker that carries them does not answer either.
    pub broker_down: bool,
    /// Tasks that workers were seen to begin since the sample before this: by workers that told what they do before and after. `None` where no worker
    /// tells.
    pub begun: Option<u32>,
    /// Tasks found running in workers that told nothing before (just started, silent until now): nobody saw them begin, so they are no arrivals.
    pub found: u32,
    /// Tasks that ended since the sample before this, from the workers' own reports; may be empty.
    pub completions: Vec<Completion>,
    /// Start latency in seconds (created to first able to take work: Ready, and heard where workers tell) of pods that got so far since the sample before.
    pub started_latencies_s: Vec<f64>,
}

impl FleetSample {
    /// Pods asked for that don't exist yet: quota, or a write too fresh to be seen.
    pub fn uncreated(&self) -> u32 {
        self.spec_replicas.saturating_sub(self.seen().saturating_add(self.parked))
    }

    /// Pods that work or will: ready, starting, unschedulable, or asked for and not created. This is what a target is compared with.
    pub fn useful(&self) -> u32 {
        self.seen().saturating_add(self.uncreated())
    }

    /// Pods that exist, neither parked nor terminating.
    fn seen(&self) -> u32 {
        self.ready.saturating_add(self.starting.len() as u32).saturating_add(self.restarting).saturating_add(self.pending_unschedulable)
    }
}

/// The rule that set the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Arrival rate times service time, with the margin that keeps waits short.
    Rate,
    /// Messages waiting now would not be started in time by the pods there are.
    Backlog,
    /// Messages may wait a while, so fewer pods work without pause.
    Standing,
    /// Load of this height returns so often that keeping idle pods is cheaper than starting them again.
    LearnedHold,
    /// `messages-per-worker`.
    LengthTarget,
    /// Idle pods above what was needed lately leave.
    ScaleDown,
    /// There are more pods than needed, and none has been idle long enough to leave.
    Busy,
    /// The figures are unknown or stale.
    Unknown,
    /// Nothing waits and nothing runs.
    Idle,
}

impl Rule {
    /// Stable name, used in status, metrics and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Backlog => "backlog",
            Self::Standing => "standing",
            Self::LearnedHold => "learned-hold",
            Self::LengthTarget => "length-target",
            Self::ScaleDown => "scale-down",
            Self::Busy => "busy",
            Self::Unknown => "unknown",
            Self::Idle => "idle",
        }
    }
}

/// The bound that cut the rule's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cap {
    /// `min-replicas` raised it.
    MinReplicas,
    /// `max-replicas` cut it.
    MaxReplicas,
    /// The number of pods that may be asked for in one tick.
    StartBurst,
    /// Pods that start at once slow each other down: so many at a time are ready sooner.
    Ramp,
    /// No more pods than there are tasks.
    Tasks,
    /// `max_parallel`: more workers would find nothing to take.
    Parallel,
    /// What the workers share (a database, an API) is the bottleneck: more of them make every task slower.
    Downstream,
}

impl Cap {
    /// Stable name, used in status, metrics and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::MinReplicas => "min-replicas",
            Self::MaxReplicas => "max-replicas",
            Self::StartBurst => "start-burst",
            Self::Ramp => "ramp",
            Self::Tasks => "tasks",
            Self::Parallel => "parallel",
            Self::Downstream => "downstream",
        }
    }
}

/// Why a decision changes nothing, or only adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldReason {
    /// No queue is configured, or a length is missing.
    BacklogUnknown,
    /// A length is older than `stale_after_s`.
    BacklogStale,
    /// The law has not watched for long enough (after a start, or a gap) to call any worker surplus.
    WarmingUp,
}

impl HoldReason {
    /// Stable name, used in status, metrics and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::BacklogUnknown => "backlog-unknown",
            Self::BacklogStale => "backlog-stale",
            Self::WarmingUp => "warming-up",
        }
    }
}

/// Why idle pods wait for load to return.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Waits {
    /// What one of them saves when the load returns, in pod-seconds: its start, and the messages that would be late.
    pub worth_s: f64,
    /// What its waiting costs until then, in pod-seconds: the mean time in which such load has returned.
    pub every_s: f64,
    /// Seconds that the load may still stay away before they leave.
    pub left_s: f64,
}

/// What a decision was made from, for status and metrics.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inputs {
    /// Messages waiting, prefetched but not running ones included; `None` when unknown.
    pub backlog: Option<u64>,
    /// Tasks running; `None` when unknown.
    pub in_flight: Option<u64>,
    /// Arrivals per second.
    pub rate_in: f64,
    /// Completions per second.
    pub rate_out: f64,
    /// Learned mean service time, seconds.
    pub service_s: f64,
    /// Learned mean start latency, seconds.
    pub start_latency_s: f64,
    /// Offered load: arrivals per second times service time, in tasks running at once.
    pub offered_load: f64,
    /// Pods that work or will.
    pub useful: u32,
    /// Pods not Ready yet, and Ready ones whose worker takes no tasks yet as far as is known.
    pub starting: u32,
    /// Pods the scheduler could not place.
    pub unschedulable: u32,
    /// Parked pods.
    pub parked: u32,
    /// Tasks that run far longer than any other: neither load nor capacity.
    pub stuck: u32,
    /// The most recent arrivals came as one batch, which says nothing of the rate.
    pub batch: bool,
    /// Wait in seconds that is let stand by intent; 0 when none is.
    pub standing_wait_s: f64,
    /// What idle pods that wait for load to return are worth and cost; `None` where none does.
    pub waits: Option<Waits>,
    /// Messages that busy workers have taken already and work on before anything else, while others wait at the broker.
    pub prefetched: u64,
    /// Pods that start at a time, where more at once would come later; `None` where the target is not bound by it.
    pub ramp: Option<u32>,
    /// Seconds until the next message that was put aside is due; `None`: there is none, or nobody tells.
    pub next_due_s: Option<f64>,
    /// Messages that have come since the decision before.
    pub arrived: f64,
    /// Messages that have become late since then: they wait longer than `max_wait_s`. First in, first out is assumed.
    pub late: f64,
    /// How long the message that is next has waited, seconds, by the order in which messages came; where it came before the last `max_wait_s`, that.
    pub waited_s: f64,
    /// The same where the broker or the framework knows; `None`: nobody tells.
    pub oldest_s: Option<f64>,
    /// Age of the oldest figure used, seconds.
    pub age_s: f64,
}

/// The outcome: a number and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScaleDecision {
    /// Pods that should be useful: ready or on their way, **not** counting parked and terminating ones.
    /// Compare it with [`FleetSample::useful`]: above, resume parked pods first and set `spec.replicas = target + parked that stay`;
    /// below, ask `useful - target` idle workers to leave, and lower `spec.replicas` only as they have parked.
    pub target: u32,
    /// One sentence: inputs, rule, the cap that won, what would change it.
    pub reason: String,
    /// The rule that set the target.
    pub rule: Rule,
    /// The bound that cut the rule's wish, if one did.
    pub cap: Option<Cap>,
    /// What was known.
    pub inputs: Inputs,
    /// Seconds until the next decision is due.
    pub next_wake_s: f64,
    /// Set when the decision may not lower.
    pub hold: Option<HoldReason>,
    /// Pods that park for this decision do so for a short trial: don't lower `spec.replicas` for them yet, they are likely to be called back.
    #[serde(default)]
    pub keep_parked: bool,
}
