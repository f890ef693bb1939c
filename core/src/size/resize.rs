//! What to do with one running pod now. In: a [`Recommendation`], [`ResizeFacts`], the [`ClusterVersion`], the time. Out: a [`ResizePlan`].
//! Left to others: the patch itself, and the fleet's rate cap (`rate`).
//!
//! Rules: up at any time, also in the middle of a task. Down only on an idle pod, only where the API allows and the kubelet checks it
//! (1.34+), and only when use is well below the new limit: on cgroup v2 a limit below use is an OOM kill. A pending decrease on a pod that has
//! become busy is taken back. Pods that are leaving are never resized: in a hold a resize is accepted and never done. Deferred and infeasible
//! are states with an age. Nothing evicts, nothing restarts.

use super::qos::keeps_class;
use super::recommend::{mib, worth_down};
use super::{ClusterVersion, ContainerResources, IGNORE_PERCENT, PendingReason, PodPhase, QosClass, Recommendation, RefusalCause, ResizeFacts};

/// A decrease needs use below this share of the new limit, percent: what a worker's next allocation may add before it is measured.
const DOWN_USE_PERCENT: u64 = 80;
/// No decrease on younger pods: their use has not been seen yet, seconds.
const DOWN_AGE_MIN_S: f64 = 60.0;
/// One pod is not resized more often than this but to answer an OOM kill, seconds.
const RESIZE_INTERVAL_S: f64 = 60.0;
/// A deferred resize is worth a condition after this, seconds (the VPA gives up on in-place after the same time).
const DEFERRED_OVERDUE_S: f64 = 300.0;
/// A resize in progress is worth a condition after this, seconds: actuation takes well under a second, status a sync more.
const IN_PROGRESS_OVERDUE_S: f64 = 60.0;
/// A refusal that may pass (quota, conflict) is tried again after this, seconds.
const REFUSAL_RETRY_S: f64 = 300.0;

/// What a patch sets. Memory is request and limit both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResizePatch {
    /// Bytes, for request and limit.
    pub memory_bytes: Option<u64>,
    /// Millicores, for the request.
    pub cpu_request_m: Option<u64>,
}

impl ResizePatch {
    /// The container's resources after the patch.
    #[must_use]
    pub fn apply(&self, to: &ContainerResources) -> ContainerResources {
        ContainerResources {
            memory_request: self.memory_bytes.or(to.memory_request),
            memory_limit: self.memory_bytes.or(to.memory_limit),
            cpu_request_m: self.cpu_request_m.or(to.cpu_request_m),
            cpu_limit_m: to.cpu_limit_m,
        }
    }
}

/// What a pod waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitState {
    /// Room on the node: the kubelet tries again by itself.
    Deferred,
    /// The kubelet is at it.
    InProgress,
    /// The API server refused, and may not next time.
    Refused,
    /// This pod was resized a moment ago.
    RateCapped,
}

/// What to do with one pod. `reason` is a sentence for status, events and logs.
#[derive(Clone, Debug, PartialEq)]
pub enum ResizePlan {
    /// Nothing to do.
    None {
        /// Why.
        reason: String,
    },
    /// Patch `pods/resize` upwards.
    Up {
        /// What to set.
        patch: ResizePatch,
        /// Answers an OOM kill: the fleet's rate cap does not hold it.
        urgent: bool,
        /// Why.
        reason: String,
    },
    /// Patch `pods/resize` downwards.
    Down {
        /// What to set.
        patch: ResizePatch,
        /// Why.
        reason: String,
    },
    /// Look again at `until_s`, or when the pod changes.
    Wait {
        /// Seconds since the epoch.
        until_s: f64,
        /// For what.
        state: WaitState,
        /// Since when, seconds since the epoch.
        since_s: f64,
        /// So long that it is worth the condition `ResizeDeferred`.
        overdue: bool,
        /// Why.
        reason: String,
    },
    /// Patch the spec back to what is in force: it asks for what will not come.
    RollBack {
        /// The resources in force.
        to: ContainerResources,
        /// What was asked for in vain, bytes. When the node cannot ever hold it, the caller keeps it as a [`super::ResizeRefusal`].
        refused_memory: u64,
        /// It was infeasible (keep the refusal), not just unwanted now.
        infeasible: bool,
        /// Why.
        reason: String,
    },
    /// This pod cannot be resized; pods made from now on have the new size.
    NewPodsOnly {
        /// Why.
        reason: String,
    },
    /// Somebody else sizes this pod: stand back.
    Conflict {
        /// Who.
        writer: String,
    },
}

fn none(reason: impl Into<String>) -> ResizePlan {
    ResizePlan::None { reason: reason.into() }
}

fn new_pods(reason: impl Into<String>) -> ResizePlan {
    ResizePlan::NewPodsOnly { reason: reason.into() }
}

/// Decides what to do with one pod now.
#[must_use]
pub fn plan_resize(rec: &Recommendation, pod: &ResizeFacts, version: ClusterVersion, now_s: f64) -> ResizePlan {
    impossible(pod, version)
        .or_else(|| pending(rec, pod, now_s))
        .or_else(|| unsettled(rec, pod, now_s))
        .unwrap_or_else(|| change(rec, pod, version, now_s))
}

/// What rules a resize of this pod out.
fn impossible(pod: &ResizeFacts, version: ClusterVersion) -> Option<ResizePlan> {
    if let Some(writer) = &pod.other_writer {
        return Some(ResizePlan::Conflict { writer: writer.clone() });
    }
    if pod.terminating || pod.held {
        return Some(none("the pod is leaving: a resize now would never be done"));
    }
    if pod.phase != PodPhase::Running {
        return Some(none("the pod is not running"));
    }
    if !version.has_resize() {
        return Some(new_pods(format!("Kubernetes {version} cannot resize running pods, 1.33 can")));
    }
    if pod.refusal.is_some_and(|r| r.cause == RefusalCause::NoSubresource) {
        return Some(new_pods("the cluster has no pods/resize (feature InPlacePodVerticalScaling is off)"));
    }
    if pod.memory_resize_restarts {
        return Some(new_pods("the container's resizePolicy is RestartContainer, and a restart would cut a task"));
    }
    (pod.qos == QosClass::BestEffort).then(|| new_pods("a BestEffort pod cannot gain resources"))
}

/// A resize that the kubelet has not accepted.
fn pending(rec: &Recommendation, pod: &ResizeFacts, now_s: f64) -> Option<ResizePlan> {
    let pending = pod.pending.as_ref()?;
    let asked = pod.spec.memory_limit.unwrap_or(0);
    let back = in_force(pod).filter(|s| s.memory_limit != pod.spec.memory_limit || s.cpu_request_m != pod.spec.cpu_request_m);
    if !pending.current {
        let until_s = now_s + IN_PROGRESS_OVERDUE_S;
        return Some(wait(WaitState::InProgress, now_s, until_s, false, "the kubelet has not looked at the last change yet".to_owned()));
    }
    match (pending.reason, back) {
        (PendingReason::Infeasible, Some(to)) => {
            let reason = format!("the node can never hold {}: the spec is put back ({})", mib(asked), pending.message);
            Some(ResizePlan::RollBack { to, refused_memory: asked, infeasible: true, reason })
        }
        (PendingReason::Infeasible, None) => Some(new_pods(format!("the node can never hold the size asked for ({})", pending.message))),
        (PendingReason::Deferred, Some(to)) if no_longer_wanted(rec, &to) => {
            let reason = format!("{} is no longer needed and is still deferred: the spec is put back", mib(asked));
            Some(ResizePlan::RollBack { to, refused_memory: asked, infeasible: false, reason })
        }
        (PendingReason::Deferred, _) => {
            let age_s = (now_s - pending.since_s).max(0.0);
            let overdue = age_s >= DEFERRED_OVERDUE_S;
            let until_s = if overdue { now_s + DEFERRED_OVERDUE_S } else { pending.since_s + DEFERRED_OVERDUE_S };
            let reason = format!("deferred for {age_s:.0} s: {} does not fit the node now ({})", mib(asked), pending.message);
            Some(wait(WaitState::Deferred, pending.since_s, until_s, overdue, reason))
        }
    }
}

/// The resources in force, where the kubelet has said them in full: a limit cannot be taken away, so one without is nothing to go back to.
fn in_force(pod: &ResizeFacts) -> Option<ContainerResources> {
    pod.status.filter(|s| s.memory_limit.is_some() || pod.spec.memory_limit.is_none())
}

fn no_longer_wanted(rec: &Recommendation, has: &ContainerResources) -> bool {
    match (rec.memory_min_bytes, has.memory_limit) {
        (Some(least), Some(limit)) => limit >= least,
        _ => false,
    }
}

/// A resize that is accepted and not yet in force.
fn unsettled(rec: &Recommendation, pod: &ResizeFacts, now_s: f64) -> Option<ResizePlan> {
    let differs = in_force(pod).filter(|s| s.memory_limit != pod.spec.memory_limit);
    if pod.in_progress.is_none() && differs.is_none() {
        return None;
    }
    let asked = pod.spec.memory_limit.unwrap_or(u64::MAX);
    if let Some(to) = differs.filter(|s| s.memory_limit.is_some_and(|l| l > asked)) {
        let failed = pod.in_progress.as_ref().is_some_and(|p| p.error);
        let unsafe_now = !pod.idle || !well_below(pod.usage_bytes, asked);
        if failed || unsafe_now {
            let why = if failed { "the kubelet could not do it" } else { "the pod is no longer idle, or uses too much" };
            let reason = format!("the decrease to {} is taken back: {why}", mib(asked));
            return Some(ResizePlan::RollBack { to, refused_memory: asked, infeasible: false, reason });
        }
    }
    if rec.after_oom && rec.memory_min_bytes.is_some_and(|least| least > asked) {
        return None; // Another kill: more is asked for at once.
    }
    let since_s = pod.in_progress.as_ref().map(|p| p.since_s).or(pod.last_resize_s).unwrap_or(now_s);
    let age_s = (now_s - since_s).max(0.0);
    let said = pod.in_progress.as_ref().map_or("no word from the kubelet", |p| p.message.as_str());
    let reason = format!("resize in progress for {age_s:.0} s ({said})");
    Some(wait(WaitState::InProgress, since_s, now_s + IN_PROGRESS_OVERDUE_S, age_s >= IN_PROGRESS_OVERDUE_S, reason))
}

fn wait(state: WaitState, since_s: f64, until_s: f64, overdue: bool, reason: String) -> ResizePlan {
    ResizePlan::Wait { until_s, state, since_s, overdue, reason }
}

/// The settled pod against the recommendation.
fn change(rec: &Recommendation, pod: &ResizeFacts, version: ClusterVersion, now_s: f64) -> ResizePlan {
    let least = rec.memory_min_bytes.unwrap_or(0);
    let wanted = rec.memory_bytes.map(|m| m.max(least));
    let cpu = cpu_change(rec, pod);
    let (up, memory) = match (wanted, pod.spec.memory_limit) {
        (Some(wanted), Some(has)) if has < least => (true, Some(wanted.max(has))),
        (Some(wanted), Some(has)) if wanted < has && wanted <= worth_down(has) => (false, Some(wanted)),
        // A first limit on a container without one is a decrease from infinity.
        (Some(wanted), None) => (false, Some(wanted)),
        _ => (false, None),
    };
    if up {
        // Resources of one patch are atomic: more CPU must not keep the memory waiting.
        let patch = ResizePatch { memory_bytes: memory, cpu_request_m: cpu.filter(|&c| Some(c) < pod.spec.cpu_request_m) };
        return finish(rec, pod, patch, true, now_s);
    }
    let mut held_back = None;
    let memory = memory.filter(|&m| {
        held_back = down_blocked(pod, version, m);
        held_back.is_none()
    });
    let patch = ResizePatch { memory_bytes: memory, cpu_request_m: cpu };
    match (patch.memory_bytes, patch.cpu_request_m) {
        (None, None) => none(held_back.unwrap_or_else(|| "the pod has the recommended size".to_owned())),
        (None, Some(c)) => finish(rec, pod, patch, Some(c) > pod.spec.cpu_request_m, now_s),
        (Some(_), _) => finish(rec, pod, patch, false, now_s),
    }
}

/// The CPU request to set, where one is set now and may move alone.
fn cpu_change(rec: &Recommendation, pod: &ResizeFacts) -> Option<u64> {
    let has = pod.spec.cpu_request_m?;
    let wanted = pod.spec.cpu_limit_m.map_or(rec.cpu_request_m?, |limit| limit.min(rec.cpu_request_m.unwrap_or(limit)));
    let worth = wanted.abs_diff(has) > has / 100 * IGNORE_PERCENT;
    (worth && rec.cpu_request_m.is_some() && pod.qos != QosClass::Guaranteed).then_some(wanted)
}

/// Why memory may not go down to `to` now.
fn down_blocked(pod: &ResizeFacts, version: ClusterVersion, to: u64) -> Option<String> {
    let to_words = mib(to);
    if !version.has_memory_decrease() || pod.refusal.is_some_and(|r| r.cause == RefusalCause::Decrease) {
        Some(format!("the cluster ({version}) does not lower memory limits of running pods: new pods have {to_words}"))
    } else if !pod.idle {
        Some(format!("{to_words} is enough, but the pod is busy: it goes down between tasks"))
    } else if pod.age_s < DOWN_AGE_MIN_S {
        Some(format!("{to_words} is enough, but the pod has only just started"))
    } else if !well_below(pod.usage_bytes, to) {
        Some(format!("{to_words} is enough, but the pod's use is not known to be below {DOWN_USE_PERCENT} % of it"))
    } else {
        None
    }
}

fn well_below(usage: Option<u64>, limit: u64) -> bool {
    usage.is_some_and(|u| u < limit / 100 * DOWN_USE_PERCENT)
}

/// The last gates: refusals, the pod's own rate, the QoS class.
fn finish(rec: &Recommendation, pod: &ResizeFacts, patch: ResizePatch, up: bool, now_s: f64) -> ResizePlan {
    let urgent = up && rec.after_oom && patch.memory_bytes.is_some();
    let asked = patch.memory_bytes.or(pod.spec.memory_limit).unwrap_or(0);
    if let Some(refusal) = pod.refusal.filter(|r| up && asked >= r.wanted_memory) {
        if refusal.cause == RefusalCause::NodeCapacity {
            return new_pods(format!("this pod's node can never hold {}", mib(asked)));
        }
        let until_s = refusal.at_s + REFUSAL_RETRY_S;
        if now_s < until_s {
            let reason = format!("the API server refused {} ({}): tried again later", mib(refusal.wanted_memory), cause_words(refusal.cause));
            return wait(WaitState::Refused, refusal.at_s, until_s, true, reason);
        }
    }
    if let Err(why) = keeps_class(pod, &patch.apply(&pod.spec)) {
        return new_pods(why);
    }
    if let Some(last_s) = pod.last_resize_s.filter(|&l| !urgent && now_s < l + RESIZE_INTERVAL_S) {
        let reason = format!("resized {:.0} s ago: one pod is resized once in {RESIZE_INTERVAL_S:.0} s", (now_s - last_s).max(0.0));
        return wait(WaitState::RateCapped, last_s, last_s + RESIZE_INTERVAL_S, false, reason);
    }
    let reason = rec.reason.clone();
    if up { ResizePlan::Up { patch, urgent, reason } } else { ResizePlan::Down { patch, reason } }
}

fn cause_words(cause: RefusalCause) -> &'static str {
    match cause {
        RefusalCause::NodeCapacity => "more than the node has",
        RefusalCause::Quota => "the ResourceQuota is used up",
        RefusalCause::LimitRange => "outside the LimitRange",
        RefusalCause::Decrease => "memory limits may not go down",
        RefusalCause::NoSubresource => "no pods/resize",
        RefusalCause::Other => "see the controller's log",
    }
}
