//! Comes in: nothing. Goes out: what a pod of the world is, and what can happen to it when. Leaves to others: making it happen.

use std::cmp::Ordering;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PodState {
    Starting,
    Idle,
    Busy,
    /// Takes no work and waits to go or to be called back.
    Parked,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// Leaves after its task; may be called back.
    Drained,
    /// Has a deletion timestamp: nothing calls it back.
    Terminating,
}

#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) state: PodState,
    pub(super) leaving: Leaving,
    pub(super) created_s: f64,
    pub(super) ready_s: f64,
    pub(super) task: u32,
    pub(super) started_s: f64,
    pub(super) ends_s: f64,
    pub(super) uid: u64,
    /// Place in `serving`.
    pub(super) place: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Ends,
    Killed,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Event {
    pub(super) at_s: f64,
    pub(super) kind: Kind,
    pub(super) pod: u32,
}

impl Eq for Event {}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at_s.total_cmp(&self.at_s).then(other.kind.cmp(&self.kind)).then(other.pod.cmp(&self.pod))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
