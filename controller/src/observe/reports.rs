//! Reports of sidecars, believed only as far as the API server bears them out. In: reports from the control channel and last words from pod
//! statuses. Out: what each pod said last, tasks that ended, peaks, cuts. Left to others: carrying reports (`broker`), sizes (`sizing`).

use crate::observe::cluster::{KeyName, key_name};
use crate::observe::record::{PodRecord, Word};
use crate::words::shorten;
use qscaler_api::CountedCuts;
use qscaler_core::control_key::KEYS_MAX;
use qscaler_core::drain::fleet::is_fresh;
use qscaler_core::framework::Scheduler;
use qscaler_core::message::{AccessLevel, Busy, Epoch, GAPS_MAX, HoldGap, PodMs, Report, WorkerState};
use qscaler_core::scale::Completion;
use qscaler_core::workload::WorkloadUid;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Most tasks that one report may say have ended: reports come every few seconds, and no worker is faster.
const TASKS_PER_REPORT_MAX: u32 = 10_000;
/// Completions kept between two decisions.
const COMPLETIONS_MAX: usize = 10_000;
/// Most cuts that one report may add: it takes the end of a process for each.
const CUTS_PER_REPORT_MAX: u32 = 100;
/// A report from further in the future than clocks differ is not believed, milliseconds.
const CLOCK_SLACK_MS: u64 = 300_000;
/// Most bytes of one gap's words; sidecars keep to less.
const DETAIL_BYTES_MAX: usize = 500;

/// What a pod said last, as far as it is of use later: a hundred thousand of these are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Where its sidecar stands.
    pub state: WorkerState,
    /// Its wave.
    pub epoch: Epoch,
    /// Whether its worker has a task.
    pub busy: Busy,
    /// Since when, by our clock; None: not known.
    pub busy_since_ms: Option<u64>,
    /// Tasks running, where they are counted.
    pub active_tasks: Option<u32>,
    /// UID and GID of the worker's top process.
    pub worker_ids: Option<(u32, u32)>,
    /// When the report came in, by our clock.
    pub at_ms: u64,
    /// What its sidecar may do there.
    pub access: AccessLevel,
    /// In what its hold is less than whole, as it sees it.
    pub gaps: Box<[HoldGap]>,
    /// By which keys control messages must be signed there; empty: it believes unsigned ones.
    pub control_keys: Box<[KeyName]>,
    /// A scheduler that runs in the worker's container.
    pub scheduler: Option<Scheduler>,
    /// How far the pod's clock is ahead of ours, milliseconds; negative: behind, or the report was long on its way.
    pub skew_ms: i64,
    /// When the sidecar started, and the report's number since then: what is not above these is old.
    order: (PodMs, u64),
}

impl Heard {
    fn new(report: &Report, at_ms: u64) -> Self {
        Self {
            state: report.state,
            epoch: report.epoch,
            busy: report.busy,
            // How long ago it was is known by the pod's clock alone.
            busy_since_ms: (report.busy_since_ms > PodMs(0)).then(|| at_ms.saturating_sub(report.at_ms.since(report.busy_since_ms))),
            active_tasks: report.active_tasks,
            worker_ids: report.worker_ids,
            at_ms,
            access: report.access,
            gaps: report.gaps.iter().take(GAPS_MAX).cloned().map(bounded).collect(),
            control_keys: report.control_keys.iter().take(KEYS_MAX).filter_map(|name| key_name(name)).collect(),
            scheduler: report.scheduler,
            skew_ms: skew_ms(report, at_ms),
            order: order(report),
        }
    }
}

/// Words of a pod go into conditions that people read: not more of them than one can.
fn bounded(mut gap: HoldGap) -> HoldGap {
    shorten(&mut gap.detail, DETAIL_BYTES_MAX);
    gap
}

impl Heard {
    /// Whether control messages that are signed by this key (None: not signed) are refused there.
    #[must_use]
    pub fn refuses(&self, key: Option<KeyName>) -> bool {
        !self.control_keys.is_empty() && !key.is_some_and(|key| self.control_keys.contains(&key))
    }
}

fn skew_ms(report: &Report, now_ms: u64) -> i64 {
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    signed(report.at_ms.0).saturating_sub(signed(now_ms))
}

/// Tasks that run in a worker that says so; None when nothing says, or the worker is only being started.
fn running(state: WorkerState, busy: Busy, active_tasks: Option<u32>) -> Option<u32> {
    match (state, busy) {
        (WorkerState::Boot, _) | (_, Busy::Unknown) => None,
        (_, Busy::Busy) => Some(active_tasks.unwrap_or(1).max(1)),
        (_, Busy::Idle) => Some(0),
    }
}

fn order(report: &Report) -> (PodMs, u64) {
    (report.started_ms, report.sequence)
}

/// Highest epoch: what JSON's numbers carry exactly, and the API server stores.
const EPOCH_MAX: Epoch = Epoch(1 << 53);
/// Reports of a sidecar that has only just started, and clocks that are set back, are no reason to doubt the rest.
const SEQUENCE_SLACK: u64 = 10_000;
/// Most tasks that a pod runs at once.
const ACTIVE_TASKS_MAX: u32 = 100_000;

/// Numbers that no sidecar can say: believed, one such report would put every later one of its pod in the past, or outbid every wave to come.
fn is_absurd(report: &Report, now_ms: u64) -> bool {
    // No sidecar reports a thousand times a second.
    let sequence_max = report.at_ms.since(report.started_ms).saturating_add(SEQUENCE_SLACK);
    report.epoch > EPOCH_MAX
        || report.started_ms.0 > now_ms.saturating_add(CLOCK_SLACK_MS)
        || report.sequence > sequence_max
        || report.active_tasks.is_some_and(|tasks| tasks > ACTIVE_TASKS_MAX)
}

/// Why a report was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Names no pod of the workload.
    #[error("it names no pod of this workload")]
    NoSuchPod,
    /// Of a namesake that is gone.
    #[error("it is of another workload")]
    OtherWorkload,
    /// Older than one believed before.
    #[error("it is older than one that came before")]
    Old,
    /// From the future.
    #[error("it is from the future")]
    Future,
    /// It says what no sidecar can.
    #[error("its numbers cannot be")]
    Absurd,
}

impl Rejected {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::NoSuchPod, Self::OtherWorkload, Self::Old, Self::Future, Self::Absurd];

    /// As the metric has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoSuchPod => "no-such-pod",
            Self::OtherWorkload => "other-workload",
            Self::Old => "old",
            Self::Future => "future",
            Self::Absurd => "absurd",
        }
    }
}

/// What a believed report brings beside the pod's state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taken {
    /// Running tasks that were cut and not counted before.
    pub cuts: u32,
    /// The pod was parked and is now held or released: a drain that ended as it should.
    pub drained: bool,
    /// It has parked.
    pub parked: bool,
    /// It was parked and is back at work.
    pub resumed: bool,
    /// It ends: this is the first that says so.
    pub held: bool,
    /// Its hold is over, and took so long, milliseconds.
    pub held_ms: Option<u64>,
}

/// Tasks that workers have taken up, as their reports tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenUp {
    /// Seen to begin: by workers that told what they do before and after. None: no worker has told so.
    pub begun: Option<u32>,
    /// Found running in workers that told nothing before: just started, started again, or silent until now.
    pub found: u32,
}

/// Everything heard of one pod.
#[derive(Clone, Debug, Default)]
struct OfPod {
    /// What it said last.
    heard: Option<Heard>,
    /// It was parked once, and has neither gone nor gone back to work since.
    parked: bool,
    /// When it first said that it ends.
    held_since: Option<PodMs>,
    /// Instances of its sidecar whose last words were read.
    last_words: Vec<Box<str>>,
    /// Cuts counted, by the start of the sidecar: it says them in every report.
    cuts: BTreeMap<PodMs, u32>,
    /// How far its clock is ahead, where its reports are not believed for it, milliseconds.
    ahead_ms: Option<i64>,
}

/// Everything heard of one workload's pods.
#[derive(Clone, Debug, Default)]
pub struct Intake {
    /// By pod UID.
    pods: HashMap<Word, OfPod>,
    completions: Vec<Completion>,
    taken_up: TakenUp,
}

impl OfPod {
    /// A report that is believed.
    fn take(&mut self, report: &Report, now_ms: u64) -> Taken {
        self.ahead_ms = None;
        let mut taken = Taken { cuts: self.new_cuts(report), ..Taken::default() };
        match report.state {
            WorkerState::Parked => taken.parked = !std::mem::replace(&mut self.parked, true),
            WorkerState::Held | WorkerState::Released => {
                taken.drained = std::mem::take(&mut self.parked);
                self.hold(report, &mut taken);
            }
            WorkerState::Boot | WorkerState::Open | WorkerState::Closing => taken.resumed = std::mem::take(&mut self.parked),
        }
        self.heard = Some(Heard::new(report, now_ms));
        taken
    }

    /// The pod ends, or has ended.
    fn hold(&mut self, report: &Report, taken: &mut Taken) {
        let over = self.heard.as_ref().is_some_and(|h| h.state == WorkerState::Released);
        taken.held = self.held_since.is_none();
        let since = *self.held_since.get_or_insert(report.at_ms);
        if report.state == WorkerState::Released && !over {
            taken.held_ms = Some(report.at_ms.since(since));
        }
    }

    fn new_cuts(&mut self, report: &Report) -> u32 {
        // Sidecars of an earlier release only say that there was one.
        let told = report.cuts.max(u32::from(report.cut.is_some()));
        if told == 0 {
            return 0;
        }
        let counted = self.cuts.entry(report.started_ms).or_default();
        let new = told.saturating_sub(*counted);
        *counted = told.max(*counted);
        new.min(CUTS_PER_REPORT_MAX)
    }
}

impl Intake {
    /// Takes a report in; `pod` is the workload's pod of that UID, if there is one or was one lately.
    ///
    /// # Errors
    /// When it is not believed; it changes nothing then.
    pub fn take(&mut self, report: &Report, workload_uid: &WorkloadUid, pod: Option<&PodRecord>, now_ms: u64) -> Result<Taken, Rejected> {
        let checked = self.check(report, workload_uid, pod, now_ms);
        let uid: Word = pod.map_or_else(|| report.pod_uid.as_str().into(), |p| p.uid.clone());
        if let Err(why) = checked {
            if why == Rejected::Future {
                self.pods.entry(uid).or_default().ahead_ms = Some(skew_ms(report, now_ms));
            }
            return Err(why);
        }
        self.take_up(report, now_ms);
        if let Some(service) = report.service.filter(|s| s.mean_ms.is_finite() && s.mean_ms >= 0.0) {
            let tasks = service.tasks.min(TASKS_PER_REPORT_MAX) as usize;
            let room = COMPLETIONS_MAX.saturating_sub(self.completions.len());
            self.completions.extend(std::iter::repeat_n(Completion { service_s: service.mean_ms / 1000.0 }, tasks.min(room)));
        }
        Ok(self.pods.entry(uid).or_default().take(report, now_ms))
    }

    /// What the report says of tasks taken up since the one before. A worker that is started again says nothing of what it did before.
    fn take_up(&mut self, report: &Report, now_ms: u64) {
        let Some(now) = running(report.state, report.busy, report.active_tasks) else { return };
        let before = self.heard(&report.pod_uid).filter(|h| h.order.0 == report.started_ms && is_fresh(h.at_ms, now_ms));
        match before.and_then(|h| running(h.state, h.busy, h.active_tasks)) {
            Some(before) => {
                let ended = report.service.map_or(0, |s| s.tasks.min(TASKS_PER_REPORT_MAX));
                let begun = now.saturating_add(ended).saturating_sub(before).min(TASKS_PER_REPORT_MAX);
                self.taken_up.begun = Some(self.taken_up.begun.unwrap_or(0).saturating_add(begun));
            }
            None => self.taken_up.found = self.taken_up.found.saturating_add(now.min(TASKS_PER_REPORT_MAX)),
        }
    }

    /// Cuts counted of pods that may say them again: what the next life has to know.
    #[must_use]
    pub fn counted_cuts(&self) -> Vec<CountedCuts> {
        let one = |uid: &Word, started: &PodMs, count: &u32| CountedCuts { pod_uid: uid.to_string(), started_ms: started.0, count: *count };
        let mut counted: Vec<CountedCuts> =
            self.pods.iter().flat_map(|(uid, pod)| pod.cuts.iter().map(move |(started, n)| one(uid, started, n))).collect();
        // What has not changed is not to look like a change.
        counted.sort_unstable_by(|a, b| (&a.pod_uid, a.started_ms).cmp(&(&b.pod_uid, b.started_ms)));
        counted
    }

    /// With the cuts that an earlier life has counted.
    #[must_use]
    pub fn restore(counted: &[CountedCuts]) -> Self {
        let mut this = Self::default();
        for cuts in counted {
            this.pods.entry(cuts.pod_uid.as_str().into()).or_default().cuts.insert(PodMs(cuts.started_ms), cuts.count);
        }
        this
    }

    fn check(&self, report: &Report, workload_uid: &WorkloadUid, pod: Option<&PodRecord>, now_ms: u64) -> Result<(), Rejected> {
        if report.workload_uid.is_known() && report.workload_uid != *workload_uid {
            return Err(Rejected::OtherWorkload);
        }
        if !pod.is_some_and(|p| *p.uid == *report.pod_uid && *p.name == *report.pod_name) {
            return Err(Rejected::NoSuchPod);
        }
        if report.at_ms.0 > now_ms.saturating_add(CLOCK_SLACK_MS) {
            return Err(Rejected::Future);
        }
        if is_absurd(report, now_ms) {
            return Err(Rejected::Absurd);
        }
        match self.heard(&report.pod_uid) {
            Some(before) if order(report) <= before.order => Err(Rejected::Old),
            _ => Ok(()),
        }
    }

    /// The last words of pods that have not been read yet: the kubelet carried them, so no one else can have forged them.
    pub fn last_words<'a>(&mut self, pods: impl Iterator<Item = &'a Arc<PodRecord>>) -> Vec<Report> {
        let mut out = Vec::new();
        for pod in pods {
            let Some((instance, message)) = pod.last_words.as_deref() else { continue };
            let read = &mut self.pods.entry(pod.uid.clone()).or_default().last_words;
            if read.iter().any(|known| **known == **instance) {
                continue;
            }
            read.push(instance.as_str().into());
            if let Ok(report) = Report::decode(message.as_bytes())
                && *report.pod_uid == *pod.uid
            {
                out.push(report);
            }
        }
        out
    }

    /// Forgets pods that are gone.
    pub fn retain(&mut self, pods: &HashSet<&str>) {
        self.pods.retain(|uid, _| pods.contains(&**uid));
    }

    /// What the pod said last, if that still says something about now.
    #[must_use]
    pub fn fresh(&self, pod_uid: &str, now_ms: u64) -> Option<&Heard> {
        self.heard(pod_uid).filter(|h| is_fresh(h.at_ms, now_ms))
    }

    /// What the pod said last, however long ago.
    #[must_use]
    pub fn heard(&self, pod_uid: &str) -> Option<&Heard> {
        self.pods.get(pod_uid)?.heard.as_ref()
    }

    /// How far the clock of a pod is ahead whose reports are not believed for it, milliseconds.
    #[must_use]
    pub fn from_the_future(&self, pod_uid: &str) -> Option<i64> {
        self.pods.get(pod_uid)?.ahead_ms
    }

    /// The tasks that ended since the last call.
    pub fn take_completions(&mut self) -> Vec<Completion> {
        std::mem::take(&mut self.completions)
    }

    /// The tasks taken up since the last call.
    pub fn take_taken_up(&mut self) -> TakenUp {
        std::mem::take(&mut self.taken_up)
    }

    /// UID and GID of a worker's top process, from the newest report that knows them.
    #[must_use]
    pub fn worker_ids(&self) -> Option<(u32, u32)> {
        self.pods.values().filter_map(|pod| pod.heard.as_ref()).filter(|h| h.worker_ids.is_some()).max_by_key(|h| h.at_ms).and_then(|h| h.worker_ids)
    }

    /// Those of these pods whose workers have a task, as heard last.
    #[must_use]
    pub fn busy(&self, pods: &[Arc<PodRecord>]) -> usize {
        pods.iter().filter(|p| self.heard(&p.uid).is_some_and(|h| h.busy == Busy::Busy)).count()
    }
}

/// The pod said that it is parked, and said so lately.
pub(crate) fn is_parked(pod: &PodRecord, heard: &Intake, now_ms: u64) -> bool {
    heard.fresh(&pod.uid, now_ms).is_some_and(|h| h.state == WorkerState::Parked)
}

#[cfg(test)]
#[path = "reports_tests.rs"]
mod tests;
