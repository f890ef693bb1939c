//! Signals, to one process and never to a group. In: the worker's top process and a signal. Out: sent, or why not. Left to others: when, and
//! that it is sent once (`core::drain::worker`).

use crate::find::worker_below;
use crate::procs::{ProcFs, Process, STOPPED};
use crate::watch::Main;
use qscaler_core::framework::Signal;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, kill_process, pidfd_open, pidfd_send_signal};

/// Why a signal was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// The worker runs as another user, or the process is out of reach.
    #[error("the kernel refuses to send {signal} to process {pid}: run the sidecar as the worker's user")]
    Refused {
        /// The process.
        pid: i32,
        /// The signal.
        signal: &'static str,
        /// The kernel's word.
        #[source]
        source: Errno,
    },
    /// The processes cannot be listed.
    #[error("cannot list the processes")]
    List(#[from] std::io::Error),
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// To this process, which has a handler for it.
    Handled(i32),
    /// To this process, which has no handler: unless the kernel ignores it there, the process dies at once.
    Unhandled(i32),
    /// Not sent: this process has no handler for it yet, and it would stop there with whatever it has, deaf to what follows.
    NotYet(i32),
    /// The worker had left already.
    Gone,
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

/// Sends a signal to the worker: the container's top process, or its only child where that is a shell or an init program. A signal that stops who has
/// no handler for it (SIGTSTP; signal(7), "Standard signals") is held back from such a process.
///
/// # Errors
/// When the kernel refuses, or `/proc` cannot be read.
pub fn send(procs: &ProcFs, main: &Main, signal: Signal) -> Result<Sent, SignalError> {
    let processes = procs.processes()?;
    let Some(worker) = worker_below(&processes, main.pid) else { return Ok(Sent::Gone) };
    let number = kernel_signal(signal);
    let status = procs.status(worker.pid).unwrap_or_default();
    let is_in = |signals: u64| signals >> (number.as_raw() - 1) & 1 == 1;
    let handled = is_in(status.caught);
    if signal == Signal::Tstp && !handled && !is_in(status.ignored) {
        return Ok(Sent::NotYet(worker.pid));
    }
    let result = if worker.pid == main.pid {
        pidfd_send_signal(&main.pidfd, number)
    } else {
        let Some(pid) = Pid::from_raw(worker.pid) else { return Ok(Sent::Gone) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // The handle names whoever has the number now: the same start time says that it is still the one looked at.
            Ok(_) if procs.process(worker.pid).is_none_or(|now| now.start_ticks != worker.start_ticks) => return Ok(Sent::Gone),
            Ok(handle) => pidfd_send_signal(&handle, number),
            Err(errno) => Err(errno),
        }
    };
    match result {
        Ok(()) if handled => Ok(Sent::Handled(worker.pid)),
        Ok(()) => Ok(Sent::Unhandled(worker.pid)),
        Err(Errno::SRCH) => Ok(Sent::Gone),
        Err(source) => Err(SignalError::Refused { pid: worker.pid, signal: signal.name(), source }),
    }
}

/// Ends the container's top process at once; the runtime ends the rest of the container.
///
/// # Errors
/// When the kernel refuses.
pub fn kill(main: &Main) -> Result<(), SignalError> {
    match pidfd_send_signal(&main.pidfd, rustix::process::Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(source) => Err(SignalError::Refused { pid: main.pid, signal: "SIGKILL", source }),
    }
}

/// Stops a process, as SIGSTOP does: no handler is asked.
///
/// # Errors
/// When the kernel refuses.
pub fn stop(process: &Process) -> Result<(), SignalError> {
    let sent = Pid::from_raw(process.pid).map_or(Ok(()), |pid| kill_process(pid, rustix::process::Signal::STOP));
    match sent {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(source) => Err(SignalError::Refused { pid: process.pid, signal: "SIGSTOP", source }),
    }
}

/// Lets a stopped process go on; nothing where it is not stopped.
pub fn go_on(process: &Process) {
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
