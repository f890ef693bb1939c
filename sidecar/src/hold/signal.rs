//! Signals, to one process and never to a group. In: a process and a signal. Out: sent, or why not. Left to others: to whom, when, and that it is sent
//! once (`core::drain::plan`).

use crate::input::Main;
use crate::worker::procs::{ProcFs, ProcessStat, STOPPED};
use qscaler_core::drain::plan::ProcessId;
use qscaler_core::framework::Signal;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, kill_process, pidfd_open, pidfd_send_signal};

/// Why a signal was not sent.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refuses to send {signal} to process {pid}: run the sidecar as the worker's user")]
pub struct SignalError {
    /// The process.
    pub pid: i32,
    /// The signal.
    pub signal: &'static str,
    /// The kernel's word.
    #[source]
    pub source: Errno,
}

fn kernel_signal(signal: Signal) -> rustix::process::Signal {
    match signal {
        Signal::Term => rustix::process::Signal::TERM,
        Signal::Int => rustix::process::Signal::INT,
        Signal::Quit => rustix::process::Signal::QUIT,
        Signal::Tstp => rustix::process::Signal::TSTP,
        Signal::Usr1 => rustix::process::Signal::USR1,
        Signal::Usr2 => rustix::process::Signal::USR2,
    }
}

/// Sends a signal to this process alone; nothing where it is gone.
///
/// # Errors
/// When the kernel refuses.
pub fn send(procs: &ProcFs, to: ProcessId, signal: Signal) -> Result<(), SignalError> {
    deliver(procs, to, kernel_signal(signal), signal.name())
}

/// Stops this process for a while; no handler is asked.
///
/// # Errors
/// When the kernel refuses.
pub fn suspend(procs: &ProcFs, id: ProcessId) -> Result<(), SignalError> {
    deliver(procs, id, rustix::process::Signal::STOP, "SIGSTOP")
}

/// Lets this process go on.
///
/// # Errors
/// When the kernel refuses.
pub fn resume(procs: &ProcFs, id: ProcessId) -> Result<(), SignalError> {
    deliver(procs, id, rustix::process::Signal::CONT, "SIGCONT")
}

/// Ends this process at once.
///
/// # Errors
/// When the kernel refuses.
pub fn end(procs: &ProcFs, id: ProcessId) -> Result<(), SignalError> {
    deliver(procs, id, rustix::process::Signal::KILL, "SIGKILL")
}

fn deliver(procs: &ProcFs, to: ProcessId, number: rustix::process::Signal, name: &'static str) -> Result<(), SignalError> {
    let Some(pid) = Pid::from_raw(to.pid) else { return Ok(()) };
    let result = pidfd_open(pid, PidfdFlags::empty()).and_then(|handle| {
        // The handle names whoever has the number now: the same start time says that it is still the one looked at.
        if procs.process(to.pid).is_some_and(|now| now.start_ticks == to.start_ticks) { pidfd_send_signal(&handle, number) } else { Ok(()) }
    });
    match result {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(source) => Err(SignalError { pid: to.pid, signal: name, source }),
    }
}

/// Ends the container's top process at once; the runtime ends the rest of the container.
///
/// # Errors
/// When the kernel refuses.
pub fn kill(main: &Main) -> Result<(), SignalError> {
    match pidfd_send_signal(&main.pidfd, rustix::process::Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(source) => Err(SignalError { pid: main.pid, signal: "SIGKILL", source }),
    }
}

/// Stops a process, as SIGSTOP does: no handler is asked.
///
/// # Errors
/// When the kernel refuses.
pub fn stop(process: &ProcessStat) -> Result<(), SignalError> {
    let sent = Pid::from_raw(process.pid).map_or(Ok(()), |pid| kill_process(pid, rustix::process::Signal::STOP));
    match sent {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(source) => Err(SignalError { pid: process.pid, signal: "SIGSTOP", source }),
    }
}

/// Lets a stopped process go on; nothing where it is not stopped.
pub fn go_on(process: &ProcessStat) {
    if process.state == STOPPED
        && let Some(pid) = Pid::from_raw(process.pid)
        && let Err(error) = kill_process(pid, rustix::process::Signal::CONT)
    {
        tracing::warn!(pid = process.pid, %error, "cannot let the worker go on");
    }
}

/// Whether signals to this process would be allowed.
#[must_use]
pub fn may_signal(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}
