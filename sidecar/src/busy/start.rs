//! Whether a worker is still starting. In: since when nothing is told, the connections of the pod; what a source has seen of its work. Out: whether silence is a gap
//! by now, whether what is seen tells of tasks. Left to others: saying it.
//!
//! On a busy node an interpreter imports for minutes before it opens its first connection to the broker; until then nothing can be told of it, and nothing
//! is wrong. What never opens one is said all the same, later.

use crate::worker::container;
use crate::worker::procs::ProcFs;
use crate::worker::sockets::Connections;
use qscaler_core::drain::plan::SLOW_START_MS;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// A worker that is connected, and of which a source has told nothing for this long, has a gap: said within a minute.
pub(super) const GAP_AFTER: Duration = Duration::from_secs(40);
/// The same for one that has no connection to the broker yet.
const SLOW_START: Duration = Duration::from_millis(SLOW_START_MS);

/// Whether a worker has begun to take tasks. Until then it has none, and is not idle either: a pod that looks idle counts as capacity, and one that looks busy as
/// taken. One that never shows that it has begun counts as if it had, later.
#[derive(Debug, Default)]
pub(super) struct Begin {
    /// It, and since when it is looked at.
    worker: Option<(u64, Instant)>,
    begun: bool,
}

impl Begin {
    /// Whether this worker, by its incarnation, has begun; `seen`: that is seen now, and holds from now on.
    pub(super) fn has(&mut self, worker: u64, seen: bool) -> bool {
        let since = match self.worker {
            Some((known, since)) if known == worker => since,
            _ => {
                self.begun = false;
                self.worker.insert((worker, Instant::now())).1
            }
        };
        self.begun |= seen || since.elapsed() >= SLOW_START;
        self.begun
    }
}

/// The start of one worker after the other.
pub(super) struct Start {
    procs: ProcFs,
    /// Ports at which the broker listens; empty: not known.
    ports: BTreeSet<u16>,
    worker: Option<u64>,
    connected: Option<Instant>,
    told: bool,
}

impl Start {
    /// Of workers whose broker has this URL.
    pub(super) fn new(procs: ProcFs, broker: &str) -> Self {
        Self { procs, ports: container::ports(broker), worker: None, connected: None, told: false }
    }

    /// Something was told of the worker: what is silent later does not start.
    pub(super) fn told(&mut self) {
        self.told = true;
    }

    /// Whether it is a gap that nothing has been told of this worker, by its incarnation, since then. To be asked at each look.
    pub(super) fn is_gap(&mut self, worker: u64, since: Instant) -> bool {
        if self.worker != Some(worker) {
            (self.worker, self.connected, self.told) = (Some(worker), None, false);
        }
        let now = Instant::now();
        if self.connected.is_none() && (self.told || self.ports.is_empty() || !Connections::read(&self.procs).others_to(&self.ports).is_empty()) {
            self.connected = Some(now);
        }
        let silent = |since: Instant, enough: Duration| now.saturating_duration_since(since) >= enough;
        let begun = if self.told { Some(since) } else { self.connected };
        silent(since, SLOW_START) || (silent(since, GAP_AFTER) && begun.is_some_and(|begun| silent(begun, GAP_AFTER)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeProc;

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_has_no_connection_yet_is_starting_and_one_that_has_is_not() {
        let fake = FakeProc::new();
        let mut start = Start::new(fake.procs(), "redis://h:6379");
        let since = Instant::now();
        let after = async |s: u64, start: &mut Start| {
            tokio::time::sleep_until(since + Duration::from_secs(s)).await;
            start.is_gap(1, since)
        };
        // Imports for a minute and a half, then connects.
        assert!(!after(39, &mut start).await && !after(90, &mut start).await);
        fake.write("net/tcp", &format!("header\n{}", row(6379)));
        assert!(!after(91, &mut start).await && !after(130, &mut start).await);
        assert!(after(132, &mut start).await);
        // Another worker, to another port: never connected.
        fake.write("net/tcp", &format!("header\n{}", row(443)));
        let since = Instant::now();
        assert!(!start.is_gap(2, since));
        tokio::time::sleep(SLOW_START - Duration::from_secs(1)).await;
        assert!(!start.is_gap(2, since));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(start.is_gap(2, since));
        // Once something was told, silence is no start, connected or not.
        start.told();
        let since = Instant::now();
        assert!(!start.is_gap(2, since));
        tokio::time::sleep(GAP_AFTER).await;
        assert!(start.is_gap(2, since));
    }

    /// An established connection to this port.
    fn row(remote: u16) -> String {
        format!("   0: 0100007F:B3B2 0100007F:{remote:04X} 01 00000000:00000000 00:00000000 00000000  1000        0 4242 1\n")
    }
}
