//! Runs the steps of a test run and counts. In: named commands. Out: their output as it comes, and at the end one plain line
//! `N passed, N failed`, with what failed tests said just before it: a log is often kept only from its end. A step that runs a Rust test harness counts its
//! tests; any other step counts as one. It leaves what to run to its callers.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Result;

use crate::cluster::process::Process;
use crate::interrupt;

/// What a run has counted so far.
#[derive(Debug, Default)]
pub struct Runner {
    passed: u64,
    failed: u64,
    failures: Vec<String>,
    /// What each failed test said.
    reasons: Vec<Reason>,
    times: Vec<(String, f64)>,
}

/// Lines of a failed test that are said again at the end, and characters of each.
const REASON_LINES: usize = 20;
const REASON_LINE_CHARS: usize = 1_000;

/// A failed test and the end of its output.
#[derive(Debug, PartialEq, Eq)]
struct Reason {
    test: String,
    lines: Vec<String>,
}

/// Reads a harness's output for what failed tests said: the section that `failures:` begins and that the list of their names ends.
#[derive(Debug, Default)]
struct Reasons {
    inside: bool,
    /// Within a backtrace, which would push out what matters.
    trace: bool,
    found: Vec<Reason>,
}

impl Reasons {
    fn line(&mut self, line: &str) {
        if line == "failures:" {
            self.inside = !self.inside;
        } else if line.starts_with("test result: ") {
            self.inside = false;
        } else if self.inside {
            if let Some(test) = line.strip_prefix("---- ").and_then(|l| l.strip_suffix(" stdout ----")) {
                self.trace = false;
                self.found.push(Reason { test: test.to_owned(), lines: Vec::new() });
                return;
            }
            self.trace |= line.eq_ignore_ascii_case("stack backtrace:");
            if let Some(reason) = self.found.last_mut().filter(|_| !self.trace) {
                reason.lines.push(line.chars().take(REASON_LINE_CHARS).collect());
            }
        }
    }

    fn end(self) -> impl Iterator<Item = Reason> {
        self.found.into_iter().map(|mut reason| {
            reason.lines.retain(|line| !line.trim().is_empty());
            reason.lines.drain(..reason.lines.len().saturating_sub(REASON_LINES));
            reason
        })
    }
}

/// Numbers of one line `test result: ok. 3 passed; 0 failed; …`; None for every other line.
fn harness_line(line: &str) -> Option<(u64, u64)> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let number = |word: &str| counts.split("; ").find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok());
    Some((number("passed")?, number("failed")?))
}

impl Runner {
    /// Runs one command; its lines are printed as they come.
    pub fn command(&mut self, name: &str, command: &mut Command) -> bool {
        self.command_in(name, command, |command| Process::watch(command.spawn()?))
    }

    /// The same for a command that is not simply started, such as one in a cluster's network.
    pub fn command_in(&mut self, name: &str, command: &mut Command, spawn: impl FnOnce(&mut Command) -> Result<Process>) -> bool {
        let mut reasons = Reasons::default();
        let all_well = self.step(name, || {
            let mut child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
            let (mut passed, mut failed, mut harness) = (0, 0, false);
            let out = child.stdout.take();
            let ok = std::thread::scope(|scope| {
                let end = scope.spawn(|| child.wait_or_interrupt());
                for line in out.map(|out| BufReader::new(out).lines()).into_iter().flatten() {
                    let line = line?;
                    println!("{line}");
                    reasons.line(&line);
                    if let Some((p, f)) = harness_line(&line) {
                        harness = true;
                        passed += p;
                        failed += f;
                    }
                }
                anyhow::Ok(end.join().is_ok_and(|status| status.success()))
            })?;
            if !harness {
                return Ok((u64::from(ok), u64::from(!ok)));
            }
            // A harness that died before its closing line has failed once more than it says.
            Ok((passed, if ok { failed } else { failed.max(1) }))
        });
        self.reasons.extend(reasons.end());
        all_well
    }

    /// Runs one step that counts by itself: (passed, failed).
    pub fn step(&mut self, name: &str, run: impl FnOnce() -> Result<(u64, u64)>) -> bool {
        if interrupt::seen() {
            return false;
        }
        println!("\n== {name}");
        let begin = Instant::now();
        let (passed, failed) = run().unwrap_or_else(|error| {
            println!("{error:#}");
            (0, 1)
        });
        let seconds = begin.elapsed().as_secs_f64();
        println!("== {name}: {passed} passed, {failed} failed in {seconds:.0} s");
        self.passed += passed;
        self.failed += failed;
        self.times.push((name.to_owned(), seconds));
        if failed > 0 {
            self.failures.push(name.to_owned());
        }
        failed == 0
    }

    /// Prints the times, what failed, and the closing line.
    ///
    /// # Errors
    /// Something failed, or nothing ran.
    pub fn finish(self) -> Result<()> {
        println!();
        for (name, seconds) in &self.times {
            println!("{seconds:>7.0} s  {name}");
        }
        for name in &self.failures {
            println!("failed: {name}");
        }
        for Reason { test, lines } in &self.reasons {
            println!("\nfailed: {test}\n{}", lines.join("\n"));
        }
        println!("\n{} passed, {} failed", self.passed, self.failed);
        anyhow::ensure!(!interrupt::seen(), "interrupted: the rest was not tested");
        anyhow::ensure!(self.passed + self.failed > 0, "nothing was tested");
        anyhow::ensure!(self.failed == 0, "{} failed", self.failed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_of_a_harness_is_read() {
        assert_eq!(harness_line("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s"), Some((12, 0)));
        assert_eq!(harness_line("test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out"), Some((2, 3)));
        assert_eq!(harness_line("test a ... ok"), None);
    }

    #[test]
    fn a_failed_command_fails_the_run() {
        let mut runner = Runner::default();
        assert!(runner.command("good", &mut Command::new("true")));
        assert!(!runner.command("bad", &mut Command::new("false")));
        assert_eq!((runner.passed, runner.failed), (1, 1));
        assert!(runner.finish().is_err());
    }

    #[test]
    fn a_harness_that_died_before_its_closing_line_is_a_failure() {
        let mut runner = Runner::default();
        let text = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; exit 101";
        assert!(!runner.command("died", Command::new("sh").args(["-c", text])));
        assert_eq!((runner.passed, runner.failed), (2, 1));
    }

    #[test]
    fn what_failed_tests_said_is_kept_and_what_others_said_is_not() {
        let mut reasons = Reasons::default();
        let printed = "successes:\n\n---- a stdout ----\nfine\n\nfailures:\n\n---- b stdout ----\nseen: 3\n\nError: not within 180 s\n\nStack backtrace:\n   0: main\n\n---- c stdout ----\nError: other\n\nfailures:\n    b\n    c\n\ntest result: FAILED. 1 passed; 2 failed;";
        printed.lines().for_each(|line| reasons.line(line));
        let reason = |test: &str, lines: &[&str]| Reason { test: test.to_owned(), lines: lines.iter().map(|l| (*l).to_owned()).collect() };
        assert_eq!(reasons.end().collect::<Vec<_>>(), [reason("b", &["seen: 3", "Error: not within 180 s"]), reason("c", &["Error: other"])]);
    }

    #[test]
    fn a_run_of_nothing_is_an_error() {
        assert!(Runner::default().finish().is_err());
    }
}
