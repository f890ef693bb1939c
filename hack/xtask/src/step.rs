//! Progress of long actions. In: a name, and when it is done. Out: on a terminal, one line whose seconds count up; elsewhere, a line
//! when it is done, and before that one now and then, so that a log shows what is being waited for. It leaves results to stdout.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the seconds on a terminal are written: often enough to look alive.
const TERMINAL_EVERY: Duration = Duration::from_millis(500);
/// How often a log gets a line: below the time after which a reader thinks that it hangs.
const LOG_EVERY: Duration = Duration::from_secs(20);

/// One action in progress. Dropped without [`Step::done`], it says that the action failed.
pub struct Step {
    name: String,
    since: Instant,
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Step {
    /// Starts showing an action.
    pub fn start(name: impl Into<String>) -> Self {
        let name = name.into();
        let since = Instant::now();
        let (stop, stopped) = mpsc::channel();
        let shown = name.clone();
        let ticker = std::thread::spawn(move || {
            let terminal = std::io::stderr().is_terminal();
            let every = if terminal { TERMINAL_EVERY } else { LOG_EVERY };
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let line = line(&shown, since.elapsed(), "…");
                let _ = if terminal { write!(std::io::stderr(), "\r{line}\x1b[K") } else { writeln!(std::io::stderr(), "{line}") };
            }
        });
        Self { name, since, ticker: Some((stop, ticker)) }
    }

    /// The action ended well; answers how long it took.
    pub fn done(mut self) -> Duration {
        self.end("")
    }

    fn end(&mut self, mark: &str) -> Duration {
        let took = self.since.elapsed();
        if let Some((stop, ticker)) = self.ticker.take() {
            drop(stop);
            let _ = ticker.join();
            let clear = if std::io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
            let _ = writeln!(std::io::stderr(), "{clear}{}", line(&self.name, took, mark));
        }
        took
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.end("failed");
    }
}

fn line(name: &str, took: Duration, mark: &str) -> String {
    format!("  {name:<52} {:>7.1} s {mark}", took.as_secs_f64()).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_action_and_its_seconds() {
        let text = line("building CoreDNS", Duration::from_millis(12_340), "");
        assert!(text.starts_with("  building CoreDNS ") && text.ends_with("12.3 s"), "{text}");
    }
}
