//! When what the next life needs of a workload is saved, and what it does not need forgotten. In: what has been learned since, whether there is room, the time. Out: yes or no. Left to
//! others: what it is (`checkpoints`), writing it (`act::checkpoint`).

use qscaler_api::QWorkerCheckpointSpec;

/// What the law has learned changes every second and matters only to the next life, milliseconds.
const LEARNED_MS: u64 = 30_000;
/// The estimate of sizes, likewise; an OOM kill is written at once, milliseconds.
const SIZES_MS: u64 = 5_000;
/// How often pods that are gone are forgotten: their UIDs never come back, so this is for memory alone, milliseconds.
pub(crate) const FORGET_EVERY_MS: u64 = 10_000;

/// How what is known may be written now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteRoom {
    /// A write that can wait may be made.
    pub room: bool,
    /// There is a checkpoint, so the status need not remember anything.
    pub apart: bool,
}

/// What was saved last.
#[derive(Clone, Debug, Default)]
pub struct Checkpoints {
    at_ms: u64,
    pub(crate) cut: u64,
    any: bool,
}

/// What has been learned since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// An OOM kill or a cut: the answer and the count must survive whatever comes next.
    pub(crate) urgent: bool,
    /// Sizes.
    pub(crate) sizes: bool,
    /// Rates and times.
    pub(crate) law: bool,
}

impl Checkpoints {
    /// An earlier life has saved so many cuts, a moment ago as far as is known.
    pub fn restore(cut: u64, now_ms: u64) -> Self {
        Self { cut, at_ms: now_ms, any: false }
    }

    /// Whether to write it now.
    pub(crate) fn is_due(&self, news: News, saving: WriteRoom, now_ms: u64) -> bool {
        let age = now_ms.saturating_sub(self.at_ms);
        // Where there is none what an older release has kept in the status is moved, and then it is there.
        let first = !self.any && !saving.apart;
        news.urgent || saving.room && (first || news.sizes && age >= SIZES_MS || news.law && age >= LEARNED_MS)
    }

    /// It was written.
    pub fn written(&mut self, saved: &QWorkerCheckpointSpec, now_ms: u64) {
        *self = Self { at_ms: now_ms, cut: saved.cut, any: true };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::look::{BUSY, ROOM};

    const QUIET: News = News { urgent: false, sizes: false, law: false };

    #[test]
    fn what_was_learned_is_saved_now_and_then_and_a_kill_or_a_cut_at_once() {
        let mut kept = Checkpoints::default();
        assert!(kept.is_due(QUIET, WriteRoom { apart: false, ..ROOM }, 10_000), "there is none: it is made");
        kept.written(&QWorkerCheckpointSpec::default(), 10_000);
        for (news, saving, ms, due) in [
            (QUIET, ROOM, 99_000, false),
            (News { law: true, ..QUIET }, ROOM, 39_000, false),
            (News { law: true, ..QUIET }, ROOM, 40_000, true),
            (News { law: true, ..QUIET }, BUSY, 40_000, false),
            (News { sizes: true, ..QUIET }, ROOM, 14_000, false),
            (News { sizes: true, ..QUIET }, ROOM, 15_000, true),
            (News { urgent: true, ..QUIET }, BUSY, 10_001, true),
        ] {
            assert_eq!(kept.is_due(news, saving, ms), due, "{news:?} {saving:?} at {ms}");
        }
    }
}
