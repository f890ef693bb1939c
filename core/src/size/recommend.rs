//! The number and its sentence. In: an [`Estimate`], bounds, what the container has now. Out: a [`Recommendation`].
//! Left to others: applying it to new pods (`webhook`) and running ones (`resize`).

use super::estimate::{ceil_mib, with_percent};
use super::{CONFIDENT_SAMPLES, ContainerResources, Estimate, IGNORE_PERCENT, SizeBounds, SizeCap};
use crate::units::MIB;
use serde::{Deserialize, Serialize};

/// Share of CPU samples that the request covers. CPU beyond the request is still given when the node has it.
const CPU_QUANTILE: f64 = 0.95;

/// How much experience is behind a recommendation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Confidence {
    /// Nothing seen yet.
    #[default]
    None,
    /// Fewer than [`CONFIDENT_SAMPLES`] samples under this template: sizes only go up.
    Learning,
    /// Enough.
    Confident,
}

/// What a container should have, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Recommendation {
    /// Memory request and limit to set now, bytes; None is "leave as it is".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Where memory is heading: differs from `memory_bytes` on the way down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_target_bytes: Option<u64>,
    /// A running container with less than this needs more at once, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_min_bytes: Option<u64>,
    /// CPU request to set now, millicores; None is "leave as it is". A CPU limit is never recommended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_request_m: Option<u64>,
    /// Memory that the target would save per pod, bytes; negative is "needs more". None when the container has no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saving_memory_bytes: Option<i64>,
    /// CPU that the request would save per pod, millicores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saving_cpu_m: Option<i64>,
    /// The sentence: inputs, rule, and the cap that won.
    pub reason: String,
    /// The cap that won, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capped: Option<SizeCap>,
    /// Answers an OOM kill: not to be slowed by a rate cap.
    pub after_oom: bool,
    /// How much is behind it.
    pub confidence: Confidence,
    /// Samples behind it, those of templates before included.
    pub samples: u64,
    /// When it will change by itself (the next step down), seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_change_s: Option<f64>,
}

impl Estimate {
    /// What the container should have now. `current` is what it has: the template's resources for new pods, a pod's for running ones.
    #[must_use]
    pub fn recommend(&self, bounds: &SizeBounds, current: &ContainerResources, now_s: f64) -> Recommendation {
        let cpu = self.recommend_cpu(bounds, current);
        let mut out = Recommendation {
            cpu_request_m: cpu.filter(|&c| !close(c, current.cpu_request_m)),
            saving_cpu_m: cpu.and_then(|c| difference(current.cpu_request_m, c)),
            samples: self.all_samples(),
            confidence: self.confidence(),
            ..Recommendation::default()
        };
        let (Some(wanted), Some(level)) = (self.wanted(), self.level(bounds, now_s)) else {
            out.capped = self.cap(bounds, 0);
            out.reason = match &out.capped {
                Some(cap) => {
                    format!("{} OOM kills at {}, the cap by {}, and no task seen that fits", cap.ooms_at_cap, mib(cap.at_bytes), cap.source.words())
                }
                None => "no peak seen yet: sizes stay as they are".to_owned(),
            };
            return out;
        };
        let target = bounds.clamp_memory(wanted);
        let least = self.least(bounds);
        out.memory_target_bytes = Some(target);
        out.memory_min_bytes = Some(least);
        out.saving_memory_bytes = difference(current.memory_limit, target);
        out.capped = self.cap(bounds, wanted);
        out.after_oom = self.oom_floor().is_some_and(|floor| ceil_mib(floor) >= wanted);
        let mut words = self.source_words(wanted);
        let (memory, verdict) = self.step(bounds, current.memory_limit, least, level, target);
        out.memory_bytes = memory;
        // The next step is taken once it is worth a write.
        out.next_change_s = memory.map(worth_down).filter(|&m| m >= target).and_then(|m| self.reaches(m, now_s));
        if let Some(cap) = &out.capped {
            words.push_str(&format!("; capped at {} by {}", mib(cap.at_bytes), cap.source.words()));
            if cap.ooms_at_cap > 0 {
                words.push_str(&format!(", {} OOM kills there", cap.ooms_at_cap));
            }
        }
        out.reason = format!("{words}; {verdict}");
        out
    }

    fn confident(&self) -> bool {
        self.samples() >= CONFIDENT_SAMPLES
    }

    fn confidence(&self) -> Confidence {
        match self.all_samples() {
            0 => Confidence::None,
            _ if self.confident() => Confidence::Confident,
            _ => Confidence::Learning,
        }
    }

    /// The size below which a container is raised at once: half the margin over the highest need is left, or the answer to a kill.
    /// Between this and the target a raise is not worth a write.
    fn least(&self, bounds: &SizeBounds) -> u64 {
        let real = self.highest_need().map_or(0, |max| with_percent(max, self.margin_percent() / 2));
        bounds.clamp_memory(ceil_mib(real.max(self.oom_floor().unwrap_or(0))))
    }

    /// What to set, and the last words of the sentence.
    fn step(&self, bounds: &SizeBounds, current: Option<u64>, least: u64, level: u64, target: u64) -> (Option<u64>, String) {
        let Some(current) = current else {
            return if self.confident() {
                (Some(level), format!("set to {}", mib(level)))
            } else {
                (None, format!("no limit set, and {} of {CONFIDENT_SAMPLES} samples seen: left without one", self.samples()))
            };
        };
        let allowed = bounds.clamp_memory(current);
        if allowed < least {
            (Some(level), format!("up from {} to {}", mib(current), mib(level)))
        } else if allowed != current {
            (Some(allowed), format!("moved from {} to {} to keep the bounds", mib(current), mib(allowed)))
        } else if level > worth_down(current) {
            let why = if target >= level { "the difference is below" } else { "the next step down is not due, or below" };
            (Some(current), format!("stays at {}: {why} {IGNORE_PERCENT} %", mib(current)))
        } else if !self.confident() {
            (Some(current), format!("stays at {}: {} of {CONFIDENT_SAMPLES} samples seen before it may shrink", mib(current), self.samples()))
        } else if level > target {
            (Some(level), format!("down from {} to {} on the way to {}", mib(current), mib(level), mib(target)))
        } else {
            (Some(level), format!("down from {} to {}", mib(current), mib(level)))
        }
    }

    fn cap(&self, bounds: &SizeBounds, wanted: u64) -> Option<SizeCap> {
        let (at_bytes, source) = bounds.memory_cap()?;
        let ooms_at_cap = self.oom().filter(|o| ceil_mib(o.limit_bytes) >= at_bytes).map_or(0, |o| o.hits_at_cap);
        let wanted_bytes = if ooms_at_cap > 0 { wanted.max(super::grow_after_oom(at_bytes)) } else { wanted };
        (wanted_bytes > at_bytes).then_some(SizeCap { source, at_bytes, wanted_bytes, ooms_at_cap })
    }

    fn source_words(&self, wanted: u64) -> String {
        let need = self.highest_need();
        match (self.oom(), self.oom_floor()) {
            (Some(oom), Some(floor)) if ceil_mib(floor) >= wanted => {
                let what = if oom.child { "a process was OOM-killed" } else { "OOM-killed" };
                format!("{what} {} times at {}: half more, at least 100 MiB more, is {}", oom.hits, mib(oom.limit_bytes), mib(wanted))
            }
            _ => format!(
                "highest need of the last {} tasks {} + {} % is {}",
                self.window().tasks(),
                need.map_or_else(|| "unknown".to_owned(), mib),
                self.margin_percent(),
                mib(wanted)
            ),
        }
    }

    fn recommend_cpu(&self, bounds: &SizeBounds, current: &ContainerResources) -> Option<u64> {
        let wanted = bounds.clamp_cpu(self.cpu().quantile(CPU_QUANTILE)?);
        let request = current.cpu_limit_m.map_or(wanted, |limit| wanted.min(limit));
        // As with memory: without enough experience a request only goes up.
        let may = self.confident() || current.cpu_request_m.is_some_and(|c| request > c);
        may.then_some(request)
    }
}

/// The largest size whose difference from `current` is worth a write downwards, in whole MiB.
pub(super) fn worth_down(current: u64) -> u64 {
    ceil_mib(current - current / 100 * IGNORE_PERCENT).min(current)
}

/// Not worth a write.
fn close(value: u64, current: Option<u64>) -> bool {
    current.is_some_and(|c| value.abs_diff(c) <= c / 100 * IGNORE_PERCENT)
}

fn difference(current: Option<u64>, wanted: u64) -> Option<i64> {
    let signed = |v: u64| i64::try_from(v).ok();
    signed(current?)?.checked_sub(signed(wanted)?)
}

/// MiB for people, one decimal where it is not whole.
pub(super) fn mib(bytes: u64) -> String {
    if bytes.is_multiple_of(MIB) { format!("{} MiB", bytes / MIB) } else { format!("{:.1} MiB", bytes as f64 / MIB as f64) }
}
