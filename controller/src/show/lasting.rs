//! Since when something has lasted: words that come and go within seconds help nobody. In: what is so now, the time. Out: whether it has been so for
//! long enough to be said. Left to others: what it is (`hold_effective`, `injected`, `summary`).

/// A scale-down that is blocked for less than this is not blocked, it waits: each change of replicas blocks for a moment; milliseconds.
const BLOCKED_LASTS_MS: u64 = 10_000;
/// A hold that is less than whole for less than this is one that is being made: a worker that starts, a sidecar that connects; milliseconds.
const UNHELD_LASTS_MS: u64 = 10_000;
/// Pods that the API server refuses for less than this, as a quota does while old pods go in a rollout, are on their way; milliseconds.
const UNCREATED_LASTS_MS: u64 = 10_000;

/// The starts of what lasts, milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lasting {
    born_ms: u64,
    channel_ms: Option<u64>,
    unheld_ms: Option<u64>,
    blocked_ms: Option<u64>,
    uncreated_ms: Option<u64>,
    /// Since when fewer pods are wished for, and how many had been removed by then.
    fewer: Option<(u64, u64)>,
}

impl Lasting {
    /// Of a workload that is looked at from now on.
    pub(crate) fn new(now_ms: u64) -> Self {
        Self { born_ms: now_ms, channel_ms: None, unheld_ms: None, blocked_ms: None, uncreated_ms: None, fewer: None }
    }

    /// Reports could be fetched.
    pub(crate) fn channel_works(&mut self, now_ms: u64) {
        self.channel_ms.get_or_insert(now_ms);
    }

    /// They could not: what is not heard now says nothing about the pods.
    pub(crate) fn channel_fails(&mut self) {
        self.channel_ms = None;
    }

    /// Since when a sidecar that reports would have been heard; None: it would not be.
    pub(crate) fn listening_ms(&self) -> Option<u64> {
        self.channel_ms.map(|since| since.max(self.born_ms))
    }

    /// Whether holds have been less than whole for long enough.
    pub(crate) fn unheld(&mut self, is: bool, now_ms: u64) -> bool {
        lasts(&mut self.unheld_ms, is, UNHELD_LASTS_MS, now_ms)
    }

    /// Whether pods have been refused for long enough.
    pub(crate) fn uncreated(&mut self, is: bool, now_ms: u64) -> bool {
        lasts(&mut self.uncreated_ms, is, UNCREATED_LASTS_MS, now_ms)
    }

    /// For how long fewer pods have been wished for with none removed, milliseconds; `removed` counts all that ever were.
    pub(crate) fn fewer(&mut self, wished: bool, removed: u64, now_ms: u64) -> u64 {
        self.fewer = wished.then(|| self.fewer.filter(|(_, before)| *before == removed).unwrap_or((now_ms, removed)));
        self.fewer.map_or(0, |(since, _)| now_ms.saturating_sub(since))
    }

    /// Whether a scale-down has been blocked for long enough.
    pub(crate) fn blocked(&mut self, is: bool, now_ms: u64) -> bool {
        lasts(&mut self.blocked_ms, is, BLOCKED_LASTS_MS, now_ms)
    }
}

fn lasts(since: &mut Option<u64>, is: bool, enough_ms: u64, now_ms: u64) -> bool {
    *since = is.then(|| since.unwrap_or(now_ms));
    since.is_some_and(|since| now_ms >= since.saturating_add(enough_ms))
}
