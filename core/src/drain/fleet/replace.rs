//! Pods on cordoned nodes are replaced before the node is emptied. In: facts. Out: how many pods the fleet has for that on top of what is wanted.
//! Left to others: raising the count and lowering it again by directed tokens (`machine`).
//!
//! First a replacement, then the drain: the count rises by a few pods, which the scheduler puts on other nodes; once all of them are ready the
//! surplus goes by tokens that name the idle pods of the cordoned nodes. A busy pod there is waited for, and if no replacement can start (a
//! cluster of one node), nothing goes. Whoever evicts sooner meets the hold, as always.

use super::count::{Census, count, is_parked};
use super::{FleetFacts, PodFacts};

/// Ready pods on cordoned nodes that are not parked.
pub(super) fn leaving(facts: &FleetFacts, now_ms: u64) -> Vec<&PodFacts> {
    let leaves = |pod: &&PodFacts| !pod.terminating && pod.injected && pod.node_cordoned && pod.ready && !is_parked(pod, now_ms);
    facts.pods.iter().filter(leaves).collect()
}

/// The pods raised as replacements and not lowered yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Replacements(u32);

impl Replacements {
    pub(super) fn count(self) -> u32 {
        self.0
    }

    /// How many pods there shall be now where `target` useful ones are wanted: with the replacements until all of them are ready, and then
    /// without, so that what is surplus can go.
    pub(super) fn wanted(&mut self, facts: &FleetFacts, census: &Census<'_>, target: u32, wave_open: bool, now_ms: u64) -> u32 {
        let leaving = count(&leaving(facts, now_ms));
        if (leaving == 0 && !wave_open && census.parked.is_empty()) || target == 0 {
            self.0 = 0;
        }
        // A wave at a time, as large as those of a scale-down.
        if self.0 == 0 && leaving > 0 && target > 0 && !wave_open && census.parked.is_empty() && facts.spec_replicas == target {
            self.0 = leaving.min(facts.max_unavailable.max(1));
        }
        let coming = census.starting > 0 || census.unborn > 0 || census.expected < target.saturating_add(self.0);
        if self.0 > 0 && coming && !wave_open && census.parked.is_empty() { target.saturating_add(self.0) } else { target }
    }

    /// The count was lowered by so many.
    pub(super) fn lowered(&mut self, by: u32) {
        self.0 = self.0.saturating_sub(by);
    }
}
