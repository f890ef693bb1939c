//! The established connections of the pod. In: `/proc/net/tcp` and `tcp6`. Out: which socket leads to which port, and from which local ones. Left to
//! others: whose sockets these are (`container`), what a connection to the broker means (`core::drain::plan`, `busy`).
//!
//! The kernel walks one table for all network namespaces of the node to print the rows of one (`tcp_seek_next` in net/ipv4/tcp_ipv4.c), so a read costs what the
//! node's memory makes that table large: 10 to 28 ms of the processor on a machine of 24 GiB, whatever the pod has. So it is read where something is new, and never
//! for more than a share of the time.

use crate::worker::procs::ProcFs;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Of the time that passes, so much may be spent on reading; the rest is what was read before.
const SHARE: f64 = 0.01;
/// Most that is saved up of it: some reads one after the other when a worker starts.
const SAVED_MAX: Duration = Duration::from_millis(300);
/// What was read is used no longer than this.
const AGE_MAX: Duration = Duration::from_secs(5);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Connection {
    local: u16,
    remote: u16,
    inode: u64,
}

/// The connections at one moment.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    rows: Vec<Connection>,
    /// Inodes of this process's own sockets.
    own: BTreeSet<u64>,
}

impl Connections {
    /// Those of now.
    #[must_use]
    pub fn read(procs: &ProcFs) -> Self {
        let rows = ["net/tcp", "net/tcp6"].iter().filter_map(|name| std::fs::read_to_string(procs.root().join(name)).ok());
        Self { rows: rows.flat_map(|text| established(&text)).collect(), own: procs.own_sockets() }
    }

    /// The port at the other end of this socket; None: it is not connected.
    #[must_use]
    pub fn remote(&self, inode: u64) -> Option<u16> {
        self.rows.iter().find(|row| row.inode == inode).map(|row| row.remote)
    }

    /// Local ports, those of this process left out.
    #[must_use]
    pub fn others(&self) -> BTreeSet<u16> {
        self.of_others().map(|row| row.local).collect()
    }

    /// The same, of connections whose other end has one of these ports.
    #[must_use]
    pub fn others_to(&self, remote: &BTreeSet<u16>) -> BTreeSet<u16> {
        self.of_others().filter(|row| remote.contains(&row.remote)).map(|row| row.local).collect()
    }

    fn of_others(&self) -> impl Iterator<Item = &Connection> {
        self.rows.iter().filter(|row| !self.own.contains(&row.inode))
    }
}

/// Reads the connections as often as it is worth its cost.
#[derive(Clone, Debug)]
pub struct Watched {
    procs: ProcFs,
    last: Connections,
    read_at: Option<Instant>,
    budget: Budget,
}

impl Watched {
    /// Of the pod whose `/proc` this is.
    #[must_use]
    pub fn new(procs: ProcFs) -> Self {
        Self { procs, last: Connections::default(), read_at: None, budget: Budget::default() }
    }

    /// The connections: of now where that is `wanted` and can be paid for, else of at most [`AGE_MAX`] ago.
    pub fn look(&mut self, wanted: bool) -> &Connections {
        let now = Instant::now();
        let old = self.read_at.is_none_or(|at| now.saturating_duration_since(at) >= AGE_MAX);
        if old || (wanted && self.budget.has_some(now)) {
            self.last = Connections::read(&self.procs);
            self.read_at = Some(now);
            self.budget.spend(now, now.elapsed());
        }
        &self.last
    }
}

/// The time that may be spent: a leaky bucket, which may be overdrawn once.
#[derive(Clone, Copy, Debug, Default)]
struct Budget {
    /// Seconds; below 0: overdrawn.
    saved_s: f64,
    at: Option<Instant>,
}

impl Budget {
    fn has_some(&mut self, now: Instant) -> bool {
        let most = SAVED_MAX.as_secs_f64();
        self.saved_s = self.at.map_or(most, |at| (self.saved_s + now.saturating_duration_since(at).as_secs_f64() * SHARE).min(most));
        self.at = Some(now);
        self.saved_s > 0.0
    }

    fn spend(&mut self, now: Instant, cost: Duration) {
        self.has_some(now);
        self.saved_s -= cost.as_secs_f64();
    }
}

/// The established connections in `/proc/net/tcp` or `tcp6`.
fn established(text: &str) -> Vec<Connection> {
    const ESTABLISHED: &str = "01";
    let row = |line: &str| -> Option<Connection> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let port = |at: usize| u16::from_str_radix(words.get(at)?.rsplit_once(':')?.1, 16).ok();
        let row = Connection { local: port(1)?, remote: port(2)?, inode: words.get(9)?.parse().ok()? };
        (*words.get(3)? == ESTABLISHED).then_some(row)
    };
    text.lines().skip(1).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeProc;

    /// A connection to this port, from the socket of this inode.
    fn row(inode: u64, remote: u16) -> String {
        format!("   0: 0100007F:B3B2 0100007F:{remote:04X} 01 00000000:00000000 00:00000000 00000000  1000        0 {inode} 1\n")
    }

    #[test]
    fn a_change_is_read_at_once_and_many_cost_a_hundredth_of_the_time() {
        let (mut budget, start) = (Budget::default(), Instant::now());
        let (mut reads, cost) = (0_u32, Duration::from_millis(50));
        // Something is new at each look for ten minutes.
        for look in 0..2400 {
            let now = start + Duration::from_millis(250) * look;
            if budget.has_some(now) {
                budget.spend(now, cost);
                reads += 1;
            }
            assert!(look >= 6 || reads == look + 1, "a worker that starts is seen at each look");
        }
        let spent = cost * reads;
        assert!(spent <= Duration::from_secs(6) + SAVED_MAX + cost && spent >= Duration::from_secs(6), "{spent:?}");
    }

    #[test]
    fn what_nobody_wants_anew_is_as_it_was_read() {
        let fake = FakeProc::new();
        fake.write("net/tcp", &format!("header\n{}", row(1, 6379)));
        let mut watched = Watched::new(fake.procs());
        assert_eq!(watched.look(false).remote(1), Some(6379));
        fake.write("net/tcp", &format!("header\n{}", row(2, 6379)));
        assert_eq!((watched.look(false).remote(1), watched.look(false).remote(2)), (Some(6379), None));
        assert_eq!((watched.look(true).remote(1), watched.look(true).remote(2)), (None, Some(6379)));
    }

    #[test]
    fn only_established_connections_count() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
               0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21 1 0 100 0 0 10 0\n\
               1: 0700000A:B3B0 0800000A:18EB 01 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0 20 4 30 10 -1\n";
        assert_eq!(established(text), [Connection { local: 0xB3B0, remote: 6379, inode: 4242 }]);
    }

    #[test]
    fn this_processs_own_connections_are_left_out() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let own = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(!Connections::read(&ProcFs::at("/proc")).others().contains(&own.local_addr().unwrap().port()));
    }
}
