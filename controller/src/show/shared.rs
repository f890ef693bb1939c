//! Who else takes from a workload's queues, in words. In: the pool. Out: the condition `QueueShared`. Left to others: how the backlog is divided (`core::scale::pool`).

use crate::observe::index::View;
use crate::workload::Workload;
use qscaler_core::names::condition::{QUEUE_SHARED, REASON_DIVIDED, REASON_OVERLAPS};
use qscaler_core::scale::pool::Shared;

/// Others that are named; the rest is counted.
const NAMED_MAX: usize = 10;

impl Workload {
    pub(crate) fn shared_condition(&mut self, view: &View, now_ms: u64) {
        let shared = self.pool.as_ref().and_then(|pool| pool.lock().shared(&self.id));
        match shared {
            Some(shared) => {
                let reason = if shared.overlaps { REASON_OVERLAPS } else { REASON_DIVIDED };
                self.set(view, QUEUE_SHARED, true, reason, words(&shared), now_ms);
            }
            None => self.set(view, QUEUE_SHARED, false, "None", "no other managed Deployment takes from its queues", now_ms),
        }
    }
}

/// With whom, what of it is this one's, and what to do where that is not what was meant.
fn words(shared: &Shared) -> String {
    let mut others = shared.others.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    if let Some(more) = shared.others.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        others.push_str(&format!(" and {more} more"));
    }
    let (own, all) = shared.weight;
    let share = match shared.share {
        Some((pods, total)) if shared.stays => format!("it is left as it is, with {pods} of {total} pods, and the others get what is needed besides"),
        Some((pods, total)) => format!("{pods} of {total} pods are its own, divided by max-replicas ({own} of {all})"),
        None => format!("what it needs is divided by max-replicas ({own} of {all})"),
    };
    if shared.overlaps {
        return format!(
            "takes from some of the queues that {others} take from, and not from all: each backlog is counted once, and {share}; a pod of one cannot do what waits \
             in a queue of another alone, so give them the same queues, or none in common"
        );
    }
    format!(
        "takes from the same queues as {others}: the backlog is counted once, and {share}; to move work to another, pause this one (paused: \"true\") or lower its max-replicas"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(others: usize) -> Shared {
        let others = (0..others).map(|n| format!("shop/orders-{n}")).collect();
        Shared { others, share: Some((5, 12)), weight: (10, 30), overlaps: false, stays: false }
    }

    #[test]
    fn the_words_name_the_others_the_share_and_the_mend() {
        let text = words(&shared(1));
        assert!(text.contains("shop/orders-0:") && text.contains("5 of 12 pods") && text.contains("max-replicas (10 of 30)"), "{text}");
        let text = words(&Shared { stays: true, ..shared(1) });
        assert!(text.contains("left as it is, with 5 of 12 pods"), "{text}");
        let text = words(&Shared { overlaps: true, share: None, ..shared(12) });
        assert!(text.contains("and 2 more take from") && text.contains("give them the same queues"), "{text}");
    }
}
