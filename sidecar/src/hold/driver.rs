//! The one task that owns the drain machine. In: everything that happens in the pod, as [`Input`]s through one bounded channel. Out: the
//! machine's effects, carried out. It decides nothing: that is `core::drain::worker`; and it waits for nobody: every effect is a system call,
//! or a word left for a task that does wait.

use crate::clock::WallClock;
use crate::gaps::Gaps;
use crate::gate::GateSwitch;
use crate::hold::server::Hooks;
use crate::hold::signal;
use crate::input::Activity;
use crate::input::Input;
use crate::input::MainReceiver;
use crate::line::control::{Mailbox, Settle};
use crate::line::report::{Reporter, write_termination};
use crate::metrics::Metrics;
use crate::worker::container::Container;
use crate::worker::procs::ProcFs;
use qscaler_core::drain::plan::{HoldAction, HoldPlan, Holder};
use qscaler_core::drain::worker::{WorkerEffect, WorkerEvent, WorkerMachine};
use qscaler_core::framework::Scheduler;
use qscaler_core::message::{Busy, GapReason, Report, WorkerState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Room for inputs that wait for the driver: it is never busy for longer than a scan of `/proc`, and the sources are a handful of tasks.
pub const INPUTS_MAX: usize = 64;
/// How often a report goes out even though nothing has changed: the controller takes a pod that was silent for several of these for unknown.
pub const REPORT_PERIOD: Duration = Duration::from_secs(5);
/// The pod's end waits for the sidecar's: the last report has this long to arrive. The termination message carries it as well.
const LAST_REPORT_WAIT: Duration = Duration::from_millis(300);

/// Between two looks at the container's processes while it is held: a worker that was started again is told before it can have a task, for even small
/// interpreters need longer to start and connect.
const HELD_LOOK: Duration = Duration::from_millis(250);
/// The same where a supervisor starts a worker again the moment that one has left.
const RESTLESS_LOOK: Duration = Duration::from_millis(25);

/// Everything the driver moves.
pub struct Driver {
    /// Decides.
    pub machine: WorkerMachine,
    /// Where processes are looked up.
    pub procs: ProcFs,
    /// The worker.
    pub main: MainReceiver,
    /// Readiness and holds.
    pub hooks: Arc<Hooks>,
    /// The line to the controller.
    pub mailbox: Arc<Mailbox>,
    /// The gate, where the framework has one.
    pub gate: Option<GateSwitch>,
    /// Builds reports.
    pub reporter: Reporter,
    /// Figures.
    pub metrics: Metrics,
    /// Reads the processes of the worker's container.
    pub processes: Container,
    /// Who of them was told what.
    pub holder: Holder,
    /// The plan as it was last said in the log.
    pub said: String,
    /// What of the hold is less than whole.
    pub gaps: Gaps,
    /// The sidecar's own user.
    pub own_uid: u32,
    /// The worker's container.
    pub container: String,
    /// Where the kubelet looks for the last words.
    pub termination_log: PathBuf,
}

impl Driver {
    /// Runs until the machine says Exit. The caller sends [`WorkerEvent::Terminated`] on SIGTERM.
    pub async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        let mut clock = WallClock::default();
        let mut report_due = Instant::now() + REPORT_PERIOD;
        let mut look_due = Instant::now();
        loop {
            if self.perform(&mut clock) {
                self.leave(&mut inputs, &mut clock).await;
                return;
            }
            let now_ms = clock.now_ms();
            let timer = self.machine.next_deadline().map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now_ms)));
            let again = if self.holder.is_held() { look_due.min(report_due) } else { report_due };
            let timer_due = timer.map_or(again, |timer| again.min(Instant::now() + timer));
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => self.take(input, &mut clock),
                    // Every source is gone: only in tests.
                    None => return,
                },
                () = tokio::time::sleep_until(timer_due) => self.machine.on_timeout(clock.now_ms()),
            }
            if self.holder.is_held() && look_due <= Instant::now() {
                look_due = Instant::now() + if self.holder.is_restless() { RESTLESS_LOOK } else { HELD_LOOK };
                self.look(&mut clock);
            }
            if report_due <= Instant::now() {
                report_due = Instant::now() + REPORT_PERIOD;
                self.plan();
                self.report(false, &mut clock);
            }
        }
    }

    fn take(&mut self, input: Input, clock: &mut WallClock) {
        match input {
            Input::Worker(event) => {
                let before = self.machine.state();
                match event {
                    WorkerEvent::MainSeen { .. } => {
                        self.reporter.meter.restart();
                        self.reporter.activity = Activity::unknown();
                        self.holder = self.holder.again();
                        self.plan();
                    }
                    WorkerEvent::MainExited { .. } => {
                        self.holder = self.holder.again();
                        self.gaps.clear(GapReason::SidecarRestarted);
                    }
                    // First of all: the grace may be spent.
                    WorkerEvent::Terminated => self.last_words(clock),
                    _ => {}
                }
                self.machine.handle(event, clock.now_ms());
                if self.machine.state() != before {
                    tracing::info!(?before, now = ?self.machine.state(), "the worker's state has changed");
                }
            }
            Input::Activity(activity) => {
                let now_ms = clock.now_ms();
                // Figures from before the worker took the word that it is to take no more do not say that it is idle now.
                let outdated = self.holder.is_held() && activity.taking && activity.busy == Busy::Idle;
                let activity = if outdated { Activity::unknown() } else { activity };
                self.metrics.busy.set(if activity.busy == Busy::Busy { 1.0 } else { 0.0 });
                self.reporter.meter.observe(&activity, now_ms);
                self.machine.handle(WorkerEvent::Busy(activity.busy), now_ms);
                self.reporter.activity = activity;
            }
            // The answer to a kill is a larger limit: the sooner it is told, the fewer follow.
            Input::OomKill => self.report(false, clock),
            Input::Published(report) => {
                self.reporter.delivered(&report);
                if report.state == WorkerState::Parked {
                    self.machine.handle(WorkerEvent::ClaimReported, clock.now_ms());
                }
            }
        }
    }

    /// Carries out what the machine says. True: it said Exit.
    fn perform(&mut self, clock: &mut WallClock) -> bool {
        while let Some(effect) = self.machine.next_effect() {
            tracing::debug!(?effect, state = ?self.machine.state(), "effect");
            match effect {
                WorkerEffect::ListenShared(listen) => self.mailbox.listen(listen),
                WorkerEffect::Ack => self.mailbox.settle(Settle::Ack),
                WorkerEffect::GiveBack => self.mailbox.settle(Settle::GiveBack),
                WorkerEffect::Report => self.report(false, clock),
                WorkerEffect::SetReady(ready) => self.hooks.set_ready(ready),
                WorkerEffect::CloseGate => self.switch_gate(true),
                WorkerEffect::OpenGate => self.switch_gate(false),
                WorkerEffect::Signal(_) => {
                    self.holder.release();
                    if self.main.borrow().is_none() {
                        self.signal_failed("the worker's process is not visible", clock);
                    }
                    self.look(clock);
                }
                WorkerEffect::AnswerHolds => self.hooks.answer_holds(),
                WorkerEffect::AnswerHelpers => self.hooks.answer_helpers(),
                WorkerEffect::KillMain => self.kill(clock),
                WorkerEffect::CountCut(cause) => {
                    tracing::warn!(cause, "a task is cut");
                    self.metrics.cuts.inc();
                    self.reporter.add_cut(cause);
                }
                WorkerEffect::Exit => return true,
            }
        }
        false
    }

    fn switch_gate(&self, closed: bool) {
        if let Some(gate) = &self.gate {
            gate.switch(closed);
        }
    }

    /// One look at a container that is held, and what follows from it.
    fn look(&mut self, clock: &mut WallClock) {
        let Some(main) = self.main.borrow().clone() else { return };
        let processes = self.processes.processes(main.pid);
        for action in self.holder.look(&processes, main.pid, clock.now_ms()) {
            tracing::info!(?action, "the hold");
            if matches!(action, HoldAction::Kill(_) | HoldAction::Signal(..)) {
                self.measure(clock);
            }
            let done = match action {
                HoldAction::Suspend(id) => signal::suspend(&self.procs, id),
                HoldAction::Resume(id) => signal::resume(&self.procs, id),
                HoldAction::Kill(id) => signal::end(&self.procs, id),
                HoldAction::Signal(id, number) => {
                    self.metrics.signals.inc();
                    signal::send(&self.procs, id, number)
                }
                HoldAction::Say(telling) => {
                    self.machine.handle(WorkerEvent::Telling(telling), clock.now_ms());
                    Ok(())
                }
                HoldAction::Left => {
                    self.machine.handle(WorkerEvent::WorkersLeft, clock.now_ms());
                    Ok(())
                }
            };
            if let Err(error) = done {
                tracing::warn!(%error, "the hold cannot do what it should");
                self.metrics.signal_failures.inc();
            }
        }
    }

    /// Makes the plan of what a hold would do now, and says in what it is less than whole.
    fn plan(&mut self) {
        let Some(main) = self.main.borrow().clone() else { return };
        let processes = self.processes.processes(main.pid);
        self.reporter.scheduler = processes.iter().find_map(|process| Scheduler::of_command(process.argv.iter().map(String::as_str)));
        let Some(plan) = self.holder.plan(&processes, main.pid) else { return };
        self.reporter.worker = plan.workers.first().map(|worker| worker.id.pid);
        let text = plan.to_string();
        if text != self.said {
            tracing::info!(plan = text, "the hold plan");
            self.said = text;
        }
        let gaps = plan.gaps(self.own_uid);
        for reason in HoldPlan::GAPS {
            match gaps.iter().find(|(found, _)| found == reason) {
                Some((_, detail)) => self.gaps.set(*reason, detail.clone()),
                None => self.gaps.clear(*reason),
            }
        }
    }

    /// What ends now may be gone in a moment, its control group with it: what it has used since the last sample is read before.
    fn measure(&mut self, clock: &mut WallClock) {
        if self.reporter.sample_now() {
            self.report(false, clock);
        }
    }

    fn kill(&mut self, clock: &mut WallClock) {
        self.measure(clock);
        let main = self.main.borrow().clone();
        match main.as_deref().map(signal::kill) {
            Some(Ok(())) => tracing::warn!("killed the worker"),
            Some(Err(error)) => self.signal_failed(&error.to_string(), clock),
            None => self.signal_failed("the worker's process is not visible", clock),
        }
    }

    fn signal_failed(&mut self, why: &str, clock: &mut WallClock) {
        tracing::warn!(why, "cannot signal the worker: the rest is the kubelet's");
        self.metrics.signal_failures.inc();
        self.machine.handle(WorkerEvent::SignalFailed, clock.now_ms());
    }

    fn build(&mut self, last: bool, clock: &mut WallClock) -> Report {
        let main = self.main.borrow().as_ref().map(|main| main.pid);
        self.reporter.build(&self.machine, main, last, clock.now_ms())
    }

    fn report(&mut self, last: bool, clock: &mut WallClock) {
        let report = self.build(last, clock);
        self.mailbox.report(report);
    }

    fn last_words(&mut self, clock: &mut WallClock) {
        let report = self.build(true, clock);
        write_termination(&self.termination_log, &report, &self.container);
    }

    async fn leave(&mut self, inputs: &mut mpsc::Receiver<Input>, clock: &mut WallClock) {
        let report = self.build(true, clock);
        write_termination(&self.termination_log, &report, &self.container);
        let sequence = report.sequence;
        self.mailbox.report(report);
        if self.metrics.broker_up.get() == 0.0 {
            return;
        }
        let arrived = async {
            while let Some(input) = inputs.recv().await {
                if matches!(&input, Input::Published(report) if report.sequence >= sequence) {
                    return;
                }
            }
        };
        if tokio::time::timeout(LAST_REPORT_WAIT, arrived).await.is_err() {
            tracing::warn!("the last report did not arrive in time; the termination message carries it");
        }
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
