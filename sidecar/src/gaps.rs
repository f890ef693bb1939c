//! In what this pod's hold is less than whole. In: what each part of the sidecar has found out about itself, at any time. Out: the gaps that the next
//! report says. Left to others: finding them out (the parts), what the controller makes of them (condition `HoldEffective`).

use qscaler_core::message::{GAPS_MAX, GapReason, HoldGap};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Most bytes of one gap's words: with all reasons at once a report stays far below its bound.
const DETAIL_BYTES_MAX: usize = 400;

/// The gaps of this pod, shared by every part that may find one. A part sets its own reasons and clears them when they are mended.
#[derive(Clone, Debug, Default)]
pub struct Gaps(Arc<Mutex<BTreeMap<GapReason, String>>>);

impl Gaps {
    /// There is this gap, and `detail` says what was seen and how to mend it. Said in the log when it is new.
    pub fn set(&self, reason: GapReason, detail: impl Into<String>) {
        let mut detail: String = detail.into();
        let end = (0..=DETAIL_BYTES_MAX.min(detail.len())).rev().find(|at| detail.is_char_boundary(*at)).unwrap_or(0);
        detail.truncate(end);
        let mut gaps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if gaps.get(&reason) != Some(&detail) {
            tracing::warn!(reason = reason.name(), detail, "the hold is not whole");
            gaps.insert(reason, detail);
        }
    }

    /// There is no such gap (any more).
    pub fn clear(&self, reason: GapReason) {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&reason).is_some() {
            tracing::info!(reason = reason.name(), "a gap of the hold is closed");
        }
    }

    /// All gaps there are now, for a report.
    #[must_use]
    pub fn list(&self) -> Vec<HoldGap> {
        let gaps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gaps.iter().take(GAPS_MAX).map(|(reason, detail)| HoldGap { reason: *reason, detail: detail.clone() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_said_until_it_is_closed_and_its_words_are_bounded() {
        let gaps = Gaps::default();
        gaps.set(GapReason::NoHandler, "é".repeat(DETAIL_BYTES_MAX));
        gaps.set(GapReason::NotPermitted, "first");
        gaps.set(GapReason::NotPermitted, "second");
        let list = gaps.list();
        assert_eq!(list.iter().map(|g| g.reason).collect::<Vec<_>>(), [GapReason::NotPermitted, GapReason::NoHandler]);
        assert_eq!(list[0].detail, "second");
        assert!(list[1].detail.len() <= DETAIL_BYTES_MAX);
        gaps.clear(GapReason::NotPermitted);
        gaps.clear(GapReason::NotPermitted);
        assert_eq!(gaps.list().len(), 1);
    }
}
