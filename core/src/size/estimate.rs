//! What is remembered of one container under one pod template: the memory window, the last OOM kill that still matters, CPU use, and the
//! level from which sizes step down. In: [`Observation`]s. Out: a target and a level in bytes (read by `recommend`).
//! Left to others: the key (container name and template hash), storage (QWorker status), believing reports (`plausible`).

use super::{
    CONFIDENT_SAMPLES, CpuHistogram, DAY_S, DOWN_PERCENT_PER_DAY, MARGIN_PERCENT, MARGIN_YOUNG_PERCENT, OOM_GROWTH_MIN_BYTES, OOM_GROWTH_PERCENT,
    OOMS_AT_CAP_TO_GIVE_UP, SizeBounds, WINDOW_S, WINDOW_TASKS, Window,
};
use crate::units::MIB;
use serde::{Deserialize, Serialize};

/// One thing that was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Observation {
    /// A high-water mark.
    Peak {
        /// The need, bytes (see [`super::need`]); 0 is "unknown", as when the peak is that of a process that was OOM-killed.
        memory_bytes: u64,
        /// Mean CPU over the same span, where known.
        cpu_millicores: Option<u64>,
        /// Tasks finished since the container's report before; 0 is "unknown".
        tasks: u32,
        /// The limit that was in force, where there was one.
        limit_bytes: Option<u64>,
        /// When the container started.
        pod_started_s: f64,
    },
    /// An OOM kill.
    Oom {
        /// The limit that was hit; 0 is "unknown", and changes no size.
        limit_bytes: u64,
        /// A process died and the container lived on.
        child: bool,
        /// When.
        at_s: f64,
    },
}

/// The highest limit at which a kill happened, until a task has passed it or the window has.
///
/// The answer to it is in force from the kill on. When several answers in a row have been in vain (no task was seen to use what they gave),
/// they are taken back: such a task is poison, and the others should not pay for it, with nodes full of pods at the cap. At the cap that is
/// at once, since no larger answer exists. The limit reached stays in memory, so that the next kill goes on from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OomRecord {
    /// The limit that was hit, bytes.
    pub limit_bytes: u64,
    /// Kills at this limit.
    pub hits: u32,
    /// Answers given in a row (less than an hour apart), none proven by a task that used them.
    pub in_vain: u32,
    /// Kills where the limit could not grow any more.
    pub hits_at_cap: u32,
    /// The last of them was a process, not the container.
    pub child: bool,
    /// Time of the last of them.
    pub at_s: f64,
    /// Tasks seen since the last of them.
    pub tasks_since: u64,
    /// The answer is not in force any more.
    pub taken_back: bool,
}

/// A size in force at a time; sizes step down from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Anchor {
    bytes: u64,
    at: f64,
}

/// A report whose number of tasks is unknown counts as one sample at most this often, or once per newly started container: otherwise an idle
/// worker's reports would soon look like much experience.
const UNKNOWN_SAMPLE_S: f64 = 600.0;
/// Answers in vain after which they are taken back: 3 steps are more than three times the size, and no task was seen to use it.
const IN_VAIN_MAX: u32 = 3;
/// They are taken back no sooner than this after the last kill: brokers redeliver within an hour (Celery's Redis visibility timeout) ...
const IN_VAIN_S: f64 = 3600.0;
/// ... and after this many tasks, among which the killed one should have been.
const IN_VAIN_TASKS: u64 = 30;

/// Everything remembered; as JSON under 4 KiB. Unknown fields are ignored and missing ones are empty, so versions can be mixed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Estimate {
    /// Highest needs.
    window: Window,
    /// The kill that still matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    oom: Option<OomRecord>,
    /// All kills ever seen.
    oom_kills: u64,
    /// CPU use.
    cpu: CpuHistogram,
    /// Where the way down starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    anchor: Option<Anchor>,
    /// Samples under this template.
    samples: u64,
    /// Samples carried over from templates before.
    prior_samples: u64,
    /// When a report with an unknown number of tasks last counted as a sample.
    unknown_s: f64,
}

/// The limit that answers a kill at `limit_bytes`: half more, at least 100 MiB more.
#[must_use]
pub fn grow_after_oom(limit_bytes: u64) -> u64 {
    (limit_bytes.saturating_mul(OOM_GROWTH_PERCENT) / 100).max(limit_bytes.saturating_add(OOM_GROWTH_MIN_BYTES))
}

impl Estimate {
    /// A fresh estimate for a new template, starting from what the old one knew. What was needed stays needed until the window has passed;
    /// only the trust to shrink has to be earned again.
    #[must_use]
    pub fn with_prior(old: &Self) -> Self {
        Self { anchor: None, samples: 0, prior_samples: old.samples.saturating_add(old.prior_samples), ..old.clone() }
    }

    /// Folds one observation in. `bounds` are those in force now: they tell whether a kill happened at the cap.
    pub fn observe(&mut self, observation: &Observation, bounds: &SizeBounds, now_s: f64) {
        let (held, stepped) = (self.proven_level(bounds, now_s), self.stepped(now_s));
        let start;
        match *observation {
            Observation::Peak { memory_bytes, cpu_millicores, tasks, limit_bytes, pod_started_s } => {
                self.count(tasks, pod_started_s, now_s);
                self.window.add(memory_bytes, u64::from(tasks), now_s);
                if let Some(cpu) = cpu_millicores {
                    self.cpu.add(cpu, tasks, now_s);
                }
                self.settle_oom(memory_bytes, tasks, limit_bytes, now_s);
                start = limit_bytes;
            }
            Observation::Oom { limit_bytes, child, at_s } => {
                self.oom_kills = self.oom_kills.saturating_add(1);
                self.record_oom(limit_bytes, child, at_s, bounds);
                start = Some(limit_bytes).filter(|&l| l > 0);
            }
        }
        self.move_anchor(held, stepped, start, bounds, now_s);
    }

    /// Samples under this template.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Samples under this template and those before it.
    #[must_use]
    pub fn all_samples(&self) -> u64 {
        self.samples.saturating_add(self.prior_samples)
    }

    /// OOM kills ever seen.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        self.oom_kills
    }

    /// The kill that still decides, if one does.
    #[must_use]
    pub fn oom(&self) -> Option<&OomRecord> {
        self.oom.as_ref()
    }

    /// Highest need in the window, bytes.
    #[must_use]
    pub fn highest_need(&self) -> Option<u64> {
        self.window.max()
    }

    /// The memory window.
    #[must_use]
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// The CPU histogram.
    #[must_use]
    pub fn cpu(&self) -> &CpuHistogram {
        &self.cpu
    }

    /// The margin in force, percent.
    #[must_use]
    pub fn margin_percent(&self) -> u64 {
        if self.all_samples() < CONFIDENT_SAMPLES { MARGIN_YOUNG_PERCENT } else { MARGIN_PERCENT }
    }

    /// Kills at the cap have shown that no allowed limit is enough for some task: it is to be named. A raised cap ends that.
    #[must_use]
    pub fn given_up(&self, bounds: &SizeBounds) -> bool {
        self.oom.is_some_and(|o| o.hits_at_cap >= OOMS_AT_CAP_TO_GIVE_UP && at_cap(o.limit_bytes, bounds))
    }

    /// What the last kill asks for, bytes, uncapped; None without one, or once taken back.
    #[must_use]
    pub(super) fn oom_floor(&self) -> Option<u64> {
        self.oom.filter(|o| !o.taken_back).map(|o| grow_after_oom(o.limit_bytes))
    }

    /// Highest need and margin, bytes, uncapped, in whole MiB.
    fn proven(&self) -> Option<u64> {
        self.window.max().map(|max| ceil_mib(with_percent(max, self.margin_percent())))
    }

    /// Where the size is heading, bytes, uncapped: `max(highest need x (1 + margin), answer to the last kill)`, in whole MiB.
    #[must_use]
    pub(super) fn wanted(&self) -> Option<u64> {
        self.proven().max(self.oom_floor().map(ceil_mib))
    }

    /// The size in force at `now_s`, bytes, within bounds: the target, or a step of at most 10 % a day on the way down to it.
    #[must_use]
    pub(super) fn level(&self, bounds: &SizeBounds, now_s: f64) -> Option<u64> {
        let answer = self.oom_floor().map(|floor| bounds.clamp_memory(ceil_mib(floor)));
        self.proven_level(bounds, now_s).max(answer)
    }

    /// The same without the answer to a kill.
    fn proven_level(&self, bounds: &SizeBounds, now_s: f64) -> Option<u64> {
        let stepped = self.stepped(now_s).map(ceil_mib);
        self.proven().max(stepped).map(|bytes| bounds.clamp_memory(bytes))
    }

    /// The anchor after stepping down until `now_s`, bytes, unbounded. The way down starts with the trust to go it.
    fn stepped(&self, now_s: f64) -> Option<u64> {
        self.anchor.map(|a| if self.samples >= CONFIDENT_SAMPLES { stepped_down(a.bytes, now_s - a.at) } else { a.bytes })
    }

    /// When the level will have come down to `bytes` if nothing new is seen; None when it never gets there or already is.
    #[must_use]
    pub(super) fn reaches(&self, bytes: u64, now_s: f64) -> Option<f64> {
        let anchor = self.anchor.filter(|a| bytes > 0 && a.bytes > bytes && self.samples >= CONFIDENT_SAMPLES)?;
        let days = (anchor.bytes as f64 / bytes as f64).ln() / -(1.0 - DOWN_PERCENT_PER_DAY as f64 / 100.0).ln();
        let at_s = anchor.at + days * DAY_S;
        (at_s > now_s).then_some(at_s)
    }

    fn count(&mut self, tasks: u32, pod_started_s: f64, now_s: f64) {
        if tasks > 0 {
            self.samples = self.samples.saturating_add(u64::from(tasks));
        } else if self.samples == 0 || pod_started_s > self.unknown_s || now_s - self.unknown_s >= UNKNOWN_SAMPLE_S {
            self.samples = self.samples.saturating_add(1);
            self.unknown_s = now_s.floor();
        }
    }

    fn record_oom(&mut self, limit_bytes: u64, child: bool, at_s: f64, bounds: &SizeBounds) {
        if limit_bytes == 0 || self.window.max().is_some_and(|need| need > limit_bytes) {
            return; // A task has succeeded above this limit: the pod was too small, which is known.
        }
        let given_up = self.given_up(bounds);
        let record = self.oom.get_or_insert_default();
        let in_vain = if at_s - record.at_s <= IN_VAIN_S { record.in_vain } else { 0 };
        if record.taken_back {
            if given_up && in_vain > 0 {
                return; // No allowed limit helped within the hour: another try would fill the nodes for nothing.
            }
            // The same again, as far as anyone can tell: go on from the limit reached before.
            record.taken_back = false;
            record.in_vain = IN_VAIN_MAX;
            record.limit_bytes = record.limit_bytes.max(limit_bytes);
        } else if limit_bytes > record.limit_bytes {
            *record = OomRecord { limit_bytes, in_vain: in_vain.saturating_add(1), ..OomRecord::default() };
        } else if limit_bytes < record.limit_bytes {
            return; // A pod that has not got the new limit yet: already answered.
        }
        record.hits = record.hits.saturating_add(u32::from(limit_bytes == record.limit_bytes));
        record.child = child;
        record.at_s = at_s;
        record.tasks_since = 0;
        if at_cap(limit_bytes, bounds) {
            record.hits_at_cap = record.hits_at_cap.saturating_add(1);
            record.taken_back = record.hits_at_cap >= OOMS_AT_CAP_TO_GIVE_UP;
        }
    }

    /// The answer to a kill leaves when a task has succeeded above the limit that was hit, or with the window. It is taken back when it was in
    /// vain. Either way at once: it was a guess, and what tasks were seen to need is in the window.
    fn settle_oom(&mut self, memory_bytes: u64, tasks: u32, limit_bytes: Option<u64>, now_s: f64) {
        let Some(record) = &mut self.oom else { return };
        record.tasks_since = record.tasks_since.saturating_add(u64::from(tasks.max(1)));
        let age_s = now_s - record.at_s;
        // A peak of a task that still runs may rise: where ends of tasks are not known, an hour is waited for.
        let ended = tasks > 0 || age_s > IN_VAIN_S;
        let passed = ended && memory_bytes > record.limit_bytes && limit_bytes.is_none_or(|l| l > record.limit_bytes);
        let old = record.tasks_since >= WINDOW_TASKS && age_s > WINDOW_S;
        if passed || old {
            self.oom = None;
        } else if record.in_vain >= IN_VAIN_MAX && record.tasks_since >= IN_VAIN_TASKS && age_s > IN_VAIN_S {
            record.taken_back = true;
        }
    }

    /// The way down starts where the size was when the target, or the lack of trust, last held it up. `held` is the level before this
    /// observation, `stepped` what the steps alone had come down to, `start` the limit in force.
    fn move_anchor(&mut self, held: Option<u64>, stepped: Option<u64>, start: Option<u64>, bounds: &SizeBounds, now_s: f64) {
        let Some(target) = self.proven().map(|w| bounds.clamp_memory(w)).or(start) else { return };
        let Some(stepped) = stepped else {
            let bytes = held.max(start).unwrap_or(0).max(target);
            self.anchor = Some(Anchor { bytes, at: now_s });
            return;
        };
        let held_up = held.filter(|&h| h > bounds.clamp_memory(ceil_mib(stepped))).unwrap_or(0);
        let bytes = target.max(held_up).max(stepped);
        if bytes > stepped || self.samples < CONFIDENT_SAMPLES {
            self.anchor = Some(Anchor { bytes, at: now_s });
        }
    }
}

/// No limit above this one is allowed.
fn at_cap(limit_bytes: u64, bounds: &SizeBounds) -> bool {
    bounds.memory_cap().is_some_and(|(cap, _)| ceil_mib(limit_bytes) >= cap)
}

/// `bytes` after `elapsed_s` of stepping down.
fn stepped_down(bytes: u64, elapsed_s: f64) -> u64 {
    let factor = (1.0 - DOWN_PERCENT_PER_DAY as f64 / 100.0).powf((elapsed_s / DAY_S).max(0.0));
    (bytes as f64 * factor) as u64
}

/// `bytes` and `percent` more, rounded up.
pub(super) fn with_percent(bytes: u64, percent: u64) -> u64 {
    let more = u128::from(bytes) * u128::from(100 + percent);
    u64::try_from(more.div_ceil(100)).unwrap_or(u64::MAX)
}

/// The next whole MiB.
pub(super) fn ceil_mib(bytes: u64) -> u64 {
    bytes.div_ceil(MIB).saturating_mul(MIB)
}
