//! When a QWorker's status is written. In: digests of the status as it is now. Out: whether a write is due: writes cost the API server, so figures
//! that change all the time are written less often than what people and the next life need. Left to others: what it says (`summary`), writing.

use qscaler_api::QWorkerStatus;
use serde_json::{Value, json};

/// No workload's status is written more often than this but for an intent or an OOM kill, milliseconds.
const WRITE_MIN_MS: u64 = 1_000;
/// Figures that change all the time (backlog, rates) are written this often, milliseconds.
const FIGURES_MS: u64 = 2_000;
/// A status in two numbers: comparing them is all that most looks need, and ten thousand statuses are not kept in memory for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// What was decided and what holds.
    pub state: u64,
    /// Figures and words, which change all the time.
    pub figures: u64,
}

/// Remembers what was written.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    last: Option<Digest>,
    containers: Vec<String>,
    at_ms: u64,
}

impl Writer {
    /// An earlier life wrote this. What it said is not known here, so the first look writes.
    #[must_use]
    pub fn restore(saved: &QWorkerStatus) -> Self {
        Self { containers: saved.sizes.keys().cloned().collect(), ..Self::default() }
    }

    /// Whether a status of this digest is to be written now. `urgent`: what is new in it must not wait; `room`: a write that can wait may be made.
    #[must_use]
    pub fn is_due(&self, now: Digest, urgent: bool, room: bool, now_ms: u64) -> bool {
        let age = now_ms.saturating_sub(self.at_ms);
        let changed = self.last.is_none_or(|last| last.state != now.state);
        if urgent && changed {
            return true;
        }
        if !room {
            return false;
        }
        let Some(last) = self.last else { return true };
        age >= WRITE_MIN_MS && (changed || (last != now && age >= FIGURES_MS))
    }

    /// The patch: a merge patch removes a key only when it is told to. `apart`: what an older release has kept in the status is kept elsewhere by now.
    #[must_use]
    pub fn patch(&self, full: &QWorkerStatus, apart: bool) -> Value {
        let mut patch = json!(full);
        if !apart {
            patch.as_object_mut().into_iter().for_each(|status| status.retain(|key, _| key != "learned" && key != "countedCuts"));
            for size in patch["sizes"].as_object_mut().into_iter().flat_map(serde_json::Map::values_mut).filter_map(Value::as_object_mut) {
                size.remove("estimate");
            }
        }
        for key in self.containers.iter().filter(|key| !full.sizes.contains_key(*key)) {
            patch["sizes"][key] = Value::Null;
        }
        patch
    }

    /// It was written, with the sizes of these containers.
    pub fn written(&mut self, digest: Digest, containers: Vec<String>, now_ms: u64) {
        (self.last, self.containers) = (Some(digest), containers);
        self.at_ms = now_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(figures: u64, state: u64) -> Digest {
        Digest { state, figures }
    }

    #[test]
    fn a_decision_is_written_within_a_second_figures_within_two_and_nothing_twice() {
        let mut writer = Writer::default();
        assert!(writer.is_due(digest(1, 1), false, true, 10_000));
        assert!(!writer.is_due(digest(1, 1), false, false, 10_000));
        writer.written(digest(1, 1), Vec::new(), 10_000);
        for (now, urgent, room, ms, due) in [
            (digest(1, 1), false, true, 99_000, false),
            (digest(1, 2), false, true, 10_500, false),
            (digest(1, 2), false, true, 11_000, true),
            (digest(2, 1), false, true, 11_500, false),
            (digest(2, 1), false, true, 12_000, true),
            (digest(2, 1), false, false, 12_000, false),
            (digest(1, 2), true, false, 10_001, true),
            (digest(2, 1), true, false, 10_001, false),
        ] {
            assert_eq!(writer.is_due(now, urgent, room, ms), due, "{now:?} {urgent} {room} at {ms}");
        }
    }

    #[test]
    fn a_container_that_is_gone_is_removed_from_the_sizes_also_after_a_restart() {
        let saved = QWorkerStatus { sizes: [("a".to_owned(), Default::default())].into(), ..QWorkerStatus::default() };
        let mut writer = Writer::restore(&saved);
        assert_eq!(writer.patch(&QWorkerStatus::default(), true).pointer("/sizes/a"), Some(&Value::Null));
        writer.written(digest(1, 1), Vec::new(), 0);
        assert_eq!(writer.patch(&QWorkerStatus::default(), true).pointer("/sizes/a"), None);
    }
}
