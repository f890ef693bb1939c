//! The one task that owns the drain machine. In: everything that happens in the pod, as [`Input`]s through one bounded channel. Out: the
//! machine's effects, carried out. It decides nothing: that is `core::drain::worker`; and it waits for nobody: every effect is a system call,
//! or a word left for a task that does wait.

use crate::busy::Activity;
use crate::control::{Mailbox, Settle};
use crate::gate::GateSwitch;
use crate::metrics::Metrics;
use crate::procs::ProcFs;
use crate::report::{Reporter, write_termination};
use crate::server::Hooks;
use crate::signal::{self, Sent};
use crate::watch::MainReceiver;
use qscaler_core::drain::worker::{WorkerEffect, WorkerEvent, WorkerMachine};
use qscaler_core::framework::Signal;
use qscaler_core::message::{Busy, Report, WorkerState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Room for inputs that wait for the driver: it is never busy for longer than a scan of `/proc`, and the sources are a handful of tasks.
pub const INPUTS_MAX: usize = 64;
/// How often a report goes out even though nothing has changed: the controller takes a pod that was silent for several of these for unknown.
pub const REPORT_PERIOD: Duration = Duration::from_secs(5);
/// The pod's end waits for the sidecar's: the last report has this long to arrive. The termination message carries it as well.
const LAST_REPORT_WAIT: Duration = Duration::from_millis(300);

/// Between two looks at a worker that has no handler yet for the signal that would quiet it.
const HANDLER_LOOK: Duration = Duration::from_millis(250);

/// What the driver takes in.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// For the machine.
    Worker(WorkerEvent),
    /// A sample of the worker's activity.
    Activity(Activity),
    /// A process was killed for want of memory.
    OomKill,
    /// This report has arrived.
    Published(Box<Report>),
}

/// Milliseconds since the Unix epoch that never step back.
#[derive(Debug, Default)]
struct WallClock {
    last_ms: u64,
}

impl WallClock {
    fn now_ms(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        self.last_ms = self.last_ms.max(now);
        self.last_ms
    }
}

/// Now, as messages count time.
#[must_use]
pub fn wall_ms() -> u64 {
    WallClock::default().now_ms()
}

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
    /// The worker that runs now has been sent a signal.
    pub told: bool,
    /// A signal that waits for its handler, and when it is tried again.
    pub held_back: Option<(Signal, Instant)>,
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
        loop {
            if self.perform(&mut clock) {
                self.leave(&mut inputs, &mut clock).await;
                return;
            }
            let now_ms = clock.now_ms();
            let timer = self.machine.next_deadline().map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now_ms)));
            let again = self.held_back.map_or(report_due, |(_, at)| at.min(report_due));
            let timer_due = timer.map_or(again, |timer| again.min(Instant::now() + timer));
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => self.take(input, &mut clock),
                    // Every source is gone: only in tests.
                    None => return,
                },
                () = tokio::time::sleep_until(timer_due) => self.machine.on_timeout(clock.now_ms()),
            }
            if let Some((signal, _)) = self.held_back.filter(|(_, at)| *at <= Instant::now()) {
                self.signal(signal, &mut clock);
            }
            if report_due <= Instant::now() {
                report_due = Instant::now() + REPORT_PERIOD;
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
                        self.told = false;
                        self.held_back = None;
                    }
                    WorkerEvent::MainExited { .. } => self.held_back = None,
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
                let outdated = (self.told || self.held_back.is_some()) && activity.taking && activity.busy == Busy::Idle;
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
                WorkerEffect::Signal(signal) => self.signal(signal, clock),
                WorkerEffect::AnswerHolds | WorkerEffect::AnswerHelpers => self.hooks.answer_holds(),
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

    fn signal(&mut self, number: Signal, clock: &mut WallClock) {
        let main = self.main.borrow().clone();
        let sent = match &main {
            Some(main) => signal::send(&self.procs, main, number).map(Some),
            None => Ok(None),
        };
        // The next signal takes the place of one that still waits.
        self.held_back = None;
        match sent {
            Ok(Some(Sent::NotYet(pid))) => {
                tracing::debug!(pid, signal = number.name(), "the worker has no handler for this signal yet");
                self.held_back = Some((number, Instant::now() + HANDLER_LOOK));
            }
            Ok(Some(sent)) => {
                self.told = true;
                self.metrics.signals.inc();
                tracing::info!(signal = number.name(), ?sent, "told the worker to leave");
                if let Sent::Unhandled(pid) = sent {
                    tracing::warn!(pid, signal = number.name(), "the worker has no handler for this signal: a running task is cut");
                }
            }
            Ok(None) => self.signal_failed("the worker's process is not visible", clock),
            Err(error) => self.signal_failed(&error.to_string(), clock),
        }
    }

    fn kill(&mut self, clock: &mut WallClock) {
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
