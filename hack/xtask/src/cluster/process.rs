//! A program that runs inside a box. In: a started child. Out: its end, its output, signals to it. It is reaped at once when it ends,
//! whoever waits for it: the kernel keeps a box's last process until every process of the box has been reaped, so one that nobody
//! waits for would keep the box from ending. A program that leads a process group of its own takes what is left of the group with it.

use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpgid, kill_process, kill_process_group, waitid};

use crate::interrupt;

/// How often it is looked whether Ctrl-C was pressed.
const INTERRUPT_POLL: Duration = Duration::from_millis(200);
/// A program that has something to clean up has this long after Ctrl-C.
const INTERRUPT_GRACE: Duration = Duration::from_secs(10);

/// A program started by [`super::Cluster::spawn_inside`]. Dropping it leaves the program running.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    end: Arc<End>,
    /// The program's standard input, if it was piped.
    pub stdin: Option<ChildStdin>,
    /// The program's standard output, if it was piped.
    pub stdout: Option<ChildStdout>,
    /// The program's standard error, if it was piped.
    pub stderr: Option<ChildStderr>,
}

#[derive(Debug, Default)]
struct End {
    status: Mutex<Option<ExitStatus>>,
    ended: Condvar,
}

impl End {
    fn lock(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        // The guarded value is a plain one: a thread that panicked left it whole.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// Takes over a child.
    ///
    /// # Errors
    /// Its process id is not one.
    pub fn watch(mut child: Child) -> Result<Self> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("the child has no process id")?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let end = Arc::new(End::default());
        let told = Arc::clone(&end);
        std::thread::spawn(move || {
            // First only look: the number stays the program's own until it is reaped, and that happens under the lock that signals take.
            while waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).is_err_and(|error| error == rustix::io::Errno::INTR) {}
            let mut status = told.lock();
            if getpgid(Some(pid)).is_ok_and(|group| group == pid) {
                // It may have left nothing.
                let _ = kill_process_group(pid, Signal::KILL);
            }
            *status = child.wait().ok();
            drop(status);
            told.ended.notify_all();
        });
        Ok(Self { pid, end, stdin, stdout, stderr })
    }

    /// Its process id, as seen on this machine.
    pub fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends a signal; nothing happens if it has ended.
    ///
    /// # Errors
    /// This process may not.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let status = self.end.lock();
        if status.is_none() {
            kill_process(self.pid, signal).with_context(|| format!("cannot send {signal:?} to process {}", self.id()))?;
        }
        Ok(())
    }

    /// Kills it and waits for its end.
    ///
    /// # Errors
    /// This process may not.
    pub fn kill(&self) -> Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        Ok(self.wait())
    }

    /// How it ended, if it has.
    pub fn try_wait(&self) -> Option<ExitStatus> {
        *self.end.lock()
    }

    /// Waits for its end.
    pub fn wait(&self) -> ExitStatus {
        let mut status = self.end.lock();
        loop {
            if let Some(ended) = *status {
                return ended;
            }
            status = self.end.ended.wait(status).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for its end; after Ctrl-C it is asked to end, and killed when it has not within [`INTERRUPT_GRACE`]: not every Ctrl-C reaches the whole process group.
    pub fn wait_or_interrupt(&self) -> ExitStatus {
        self.wait_while(interrupt::seen)
    }

    fn wait_while(&self, interrupted: impl Fn() -> bool) -> ExitStatus {
        loop {
            if let Some(status) = self.wait_at_most(INTERRUPT_POLL) {
                return status;
            }
            if interrupted() {
                let asked = self.signal(Signal::INT);
                let status = asked.ok().and_then(|()| self.wait_at_most(INTERRUPT_GRACE));
                return status.or_else(|| self.kill().ok()).unwrap_or_else(|| self.wait());
            }
        }
    }

    /// Waits for its end, at most this long.
    pub fn wait_at_most(&self, limit: Duration) -> Option<ExitStatus> {
        let waited = self.end.ended.wait_timeout_while(self.end.lock(), limit, |status| status.is_none());
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_program_that_nobody_waits_for_is_reaped() {
        let process = Process::watch(Command::new("true").spawn().unwrap()).unwrap();
        let gone = crate::exec::wait_for("the end", Duration::from_secs(30), Duration::from_millis(5), || {
            Ok((!std::path::Path::new(&format!("/proc/{}", process.id())).exists()).then_some(()))
        });
        gone.unwrap();
        assert!(process.wait().success());
    }

    #[test]
    fn a_killed_program_tells_its_signal_and_takes_no_other() {
        use std::os::unix::process::ExitStatusExt;
        let process = Process::watch(Command::new("sleep").arg("1000").spawn().unwrap()).unwrap();
        assert_eq!(process.try_wait(), None);
        assert_eq!(process.wait_at_most(Duration::from_millis(1)), None);
        assert_eq!(process.kill().unwrap().signal(), Some(9));
        process.signal(Signal::TERM).unwrap();
    }

    #[test]
    fn the_leader_of_a_process_group_leaves_nothing_behind() {
        use std::io::Read;
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 > /dev/null & echo $!"]).stdout(std::process::Stdio::piped()).process_group(0);
        let mut process = Process::watch(command.spawn().unwrap()).unwrap();
        let mut left = String::new();
        process.stdout.take().unwrap().read_to_string(&mut left).unwrap();
        assert!(process.wait().success());
        // Nobody may reap it in a box of tests: an ended process may still have a number.
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", left.trim())).ok();
        let gone = crate::exec::wait_for("the end of what it left", Duration::from_secs(30), Duration::from_millis(5), || {
            Ok(state().is_none_or(|stat| stat.contains(") Z ")).then_some(()))
        });
        gone.unwrap();
    }

    #[test]
    fn a_program_is_asked_to_end_when_its_caller_is_interrupted() {
        use std::os::unix::process::ExitStatusExt;
        let process = Process::watch(Command::new("sleep").arg("1000").spawn().unwrap()).unwrap();
        assert_eq!(process.wait_while(|| true).signal(), Some(2));
        let process = Process::watch(Command::new("true").spawn().unwrap()).unwrap();
        assert!(process.wait_while(|| false).success());
    }
}
