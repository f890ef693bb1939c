//! Reports to the controller. In: what the machine, the meter and the sampler know. Out: `core::message::Report`, and the same as a termination
//! message that the kubelet carries when the broker cannot. Left to others: publishing (`control`), when (`core::drain::worker`).

use crate::busy::service::ServiceMeter;
use crate::config::Settings;
use crate::gaps::Gaps;
use crate::hold::signal::may_signal;
use crate::input::Activity;
use crate::peaks::SharedSampler;
use crate::worker::procs::ProcFs;
use qscaler_broker::signing::PublicKeys;
use qscaler_core::drain::worker::WorkerMachine;
use qscaler_core::framework::Scheduler;
use qscaler_core::message::{AccessLevel, PodMs, Report, VERSION};
use qscaler_core::size::Access;
use std::path::Path;

/// The kubelet keeps this much of a termination message.
pub const TERMINATION_BYTES_MAX: usize = 4096;

/// Builds reports.
pub struct Reporter {
    settings: Settings,
    procs: ProcFs,
    sampler: SharedSampler,
    gaps: Gaps,
    started_ms: u64,
    sequence: u64,
    /// Tasks and their time.
    pub meter: ServiceMeter,
    /// The last sample of activity.
    pub activity: Activity,
    /// The process that works, where the plan knows it: its user is the one that matters, not that of a script above it.
    pub worker: Option<i32>,
    /// A scheduler among the processes of the worker's container.
    pub scheduler: Option<Scheduler>,
    cuts: u32,
    cut: Option<String>,
}

impl Reporter {
    /// No report yet.
    #[must_use]
    pub fn new(settings: Settings, procs: ProcFs, sampler: SharedSampler, gaps: Gaps, now_ms: u64) -> Self {
        let (meter, activity) = (ServiceMeter::default(), Activity::unknown());
        Self { settings, procs, sampler, gaps, started_ms: now_ms, sequence: 0, meter, activity, worker: None, scheduler: None, cuts: 0, cut: None }
    }

    /// A task was cut: said in every report from now on, since who takes one may be gone before it has counted.
    pub fn add_cut(&mut self, cause: String) {
        self.cuts = self.cuts.saturating_add(1);
        self.cut = Some(cause);
    }

    /// The report of this moment. `main` is the worker's top process.
    pub fn build(&mut self, machine: &WorkerMachine, main: Option<i32>, last: bool, now_ms: u64) -> Report {
        self.sequence += 1;
        let config = &self.settings.config;
        let mut peaks = self.sampler.lock().peaks();
        if let Some(peaks) = peaks.get_mut(&config.container) {
            peaks.tasks_done = self.meter.tasks_done();
        }
        Report {
            version: VERSION,
            workload: config.workload.clone(),
            workload_uid: config.workload_uid.clone(),
            pod_uid: self.settings.pod_uid.clone(),
            pod_name: self.settings.pod_name.clone(),
            sequence: self.sequence,
            started_ms: PodMs(self.started_ms),
            at_ms: PodMs(now_ms),
            state: machine.state(),
            epoch: machine.epoch(),
            busy: machine.busy(),
            busy_since_ms: PodMs(machine.busy_since_ms()),
            active_tasks: self.activity.active,
            processed_total: self.activity.processed,
            service: self.meter.service(),
            peaks,
            template_hash: config.template_hash.clone(),
            access: self.access(main),
            worker_ids: main
                .and_then(|main| self.procs.status(self.worker.unwrap_or(main)).or_else(|| self.procs.status(main)))
                .map(|status| status.ids),
            cuts: self.cuts,
            cut: self.cut.clone(),
            last,
            gaps: self.gaps.list(),
            control_keys: self.settings.control_keys.as_deref().map(PublicKeys::names).unwrap_or_default(),
            scheduler: self.scheduler,
        }
    }

    fn access(&self, main: Option<i32>) -> AccessLevel {
        let Some(pid) = main else { return AccessLevel::None };
        match (may_signal(self.worker.unwrap_or(pid)), self.sampler.lock().access(&self.settings.config.container)) {
            (true, Access::Full) => AccessLevel::Full,
            (true, _) => AccessLevel::SignalOnly,
            (false, _) => AccessLevel::ReadOnly,
        }
    }

    /// Takes a sample now. True: a process was killed for want of memory since the last look.
    pub fn sample_now(&self) -> bool {
        self.sampler.sample_now()
    }

    /// This report has arrived: what it said need not be said again.
    pub fn delivered(&mut self, report: &Report) {
        if let Some(service) = &report.service {
            self.meter.delivered(service);
        }
    }
}

/// The report in at most [`TERMINATION_BYTES_MAX`]: of the other containers' peaks, and then of the worker's, as much is left out as must be.
#[must_use]
pub fn termination_message(report: &Report, container: &str) -> Vec<u8> {
    let mut report = report.clone();
    let full = report.encode();
    if full.len() <= TERMINATION_BYTES_MAX {
        return full;
    }
    report.peaks.retain(|name, _| name == container);
    report.cut = report.cut.map(|cause| cause.chars().take(200).collect());
    let shorter = report.encode();
    if shorter.len() <= TERMINATION_BYTES_MAX {
        return shorter;
    }
    report.peaks.clear();
    let mut shortest = report.encode();
    // Names alone cannot fill it: Kubernetes bounds each at 253 bytes.
    shortest.truncate(TERMINATION_BYTES_MAX);
    shortest
}

/// Writes the termination message. A failure is logged: nothing else carries it then.
pub fn write_termination(path: &Path, report: &Report, container: &str) {
    if let Err(error) = std::fs::write(path, termination_message(report, container)) {
        tracing::warn!(%error, path = %path.display(), "cannot write the termination message");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::good;
    use qscaler_core::config::DeadlinePolicy;
    use qscaler_core::drain::worker::WorkerSettings;
    use qscaler_core::message::{Busy, EndedTasks, WorkerState};
    use qscaler_core::size::Peaks;

    fn machine() -> WorkerMachine {
        let settings = WorkerSettings {
            pod_uid: "p".to_owned(),
            workload_uid: Default::default(),
            signals: Vec::new(),
            has_gate: false,
            kill_behind_gate: false,
            max_task_duration_ms: 1,
            deadline_policy: DeadlinePolicy::Wait,
            patience_ms: 1,
            give_back_ms: 1,
        };
        WorkerMachine::new(settings, 5)
    }

    fn reporter() -> Reporter {
        let procs = ProcFs::at("/proc");
        let sampler = SharedSampler::new(procs.clone(), 1, "qscaler-sidecar");
        Reporter::new(Settings::read(&good()), procs, sampler, Gaps::default(), 7)
    }

    #[test]
    fn a_report_says_who_and_where_and_its_number_rises() {
        let mut reporter = reporter();
        let own = i32::try_from(std::process::id()).unwrap();
        let first = reporter.build(&machine(), Some(own), false, 9);
        assert_eq!(
            (first.pod_uid.as_str(), first.started_ms, first.at_ms, first.state, first.busy),
            ("p-uid", PodMs(7), PodMs(9), WorkerState::Boot, Busy::Unknown)
        );
        assert_eq!(first.access, AccessLevel::SignalOnly);
        assert!(first.worker_ids.is_some());
        let second = reporter.build(&machine(), None, true, 9);
        assert_eq!((second.sequence, second.access, second.last), (2, AccessLevel::None, true));
        assert_eq!(Report::decode(&second.encode()).unwrap(), second);
        assert!(second.control_keys.is_empty(), "it was given none");
        reporter.settings.control_keys = Some(PublicKeys::read(&"A".repeat(43)).into());
        assert_eq!(reporter.build(&machine(), None, true, 9).control_keys, ["AAAAAAAA"]);
    }

    #[test]
    fn times_that_have_arrived_are_not_said_again_and_cuts_always_are() {
        let mut reporter = reporter();
        reporter.add_cut("why".to_owned());
        reporter.meter.observe(&Activity { ended: Some(EndedTasks { tasks: 1, mean_ms: 3.0 }), ..Activity::unknown() }, 1);
        let report = reporter.build(&machine(), None, false, 1);
        assert!(report.cuts == 1 && report.service.is_some());
        assert_eq!(reporter.build(&machine(), None, false, 2).service, report.service);
        reporter.delivered(&report);
        reporter.add_cut("why else".to_owned());
        let next = reporter.build(&machine(), None, false, 3);
        assert_eq!((next.cuts, next.cut.as_deref(), next.service), (2, Some("why else"), None));
    }

    #[test]
    fn the_termination_message_fits_whatever_the_pod_has() {
        let mut report = reporter().build(&machine(), None, true, 1);
        let peaks = Peaks { cgroup_peak: Some(u64::MAX), vmhwm_sum_max: Some(u64::MAX), ..Peaks::default() };
        report.peaks = (0..100).map(|i| (format!("container-{i}"), peaks.clone())).collect();
        report.peaks.insert("worker".to_owned(), peaks);
        let message = termination_message(&report, "worker");
        assert!(message.len() <= TERMINATION_BYTES_MAX);
        let read = Report::decode(&message).unwrap();
        assert_eq!(read.peaks.keys().collect::<Vec<_>>(), ["worker"]);
    }
}
