//! When a QWorker's status is written. In: digests of the status as it is now. Out: whether a write is due: writes cost the API server, so figures
//! that change all the time are written less often than what people and the next life need. Left to others: what it says (`summary`), writing.

use qscaler_api::QWorkerStatus;
use serde_json::{Value, json};

/// No workload's status is written more often than this but for an intent or an OOM kill, milliseconds.
const WRITE_MIN_MS: u64 = 1_000;
/// Figures that change all the time (backlog, rates) are written this often, milliseconds.
const FIGURES_MS: u64 = 2_000;
/// What the law has learned changes every second and matters only to the next life, milliseconds.
const LEARNED_MS: u64 = 30_000;
/// The estimate of sizes, likewise; an OOM kill is written at once, milliseconds.
const SIZES_MS: u64 = 5_000;

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
    learned_ms: u64,
}

/// Why a write may be due although nothing that people see has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// An OOM kill: the answer must survive whatever comes next.
    pub urgent: bool,
    /// Sizes have been learned.
    pub sizes: bool,
    /// The law has learned.
    pub law: bool,
    /// There is room for a write that can wait.
    pub room: bool,
}

impl Writer {
    /// An earlier life wrote this. What it said is not known here, so the first look writes.
    #[must_use]
    pub fn restore(saved: &QWorkerStatus) -> Self {
        Self { containers: saved.sizes.keys().cloned().collect(), ..Self::default() }
    }

    /// Whether a status of this digest is to be written now.
    #[must_use]
    pub fn is_due(&self, now: Digest, pressure: Pressure, now_ms: u64) -> bool {
        let age = now_ms.saturating_sub(self.at_ms);
        if pressure.urgent {
            return true;
        }
        if !pressure.room {
            return false;
        }
        let Some(last) = self.last else { return true };
        if age < WRITE_MIN_MS {
            return false;
        }
        let learned = pressure.law && now_ms.saturating_sub(self.learned_ms) >= LEARNED_MS;
        let sizes = pressure.sizes && age >= SIZES_MS;
        learned || sizes || last.state != now.state || (last != now && age >= FIGURES_MS)
    }

    /// The patch: a merge patch removes a key only when it is told to.
    #[must_use]
    pub fn patch(&self, full: &QWorkerStatus) -> Value {
        let mut patch = json!(full);
        for key in self.containers.iter().filter(|key| !full.sizes.contains_key(*key)) {
            patch["sizes"][key] = Value::Null;
        }
        patch
    }

    /// It was written, with the sizes of these containers.
    pub fn written(&mut self, digest: Digest, containers: Vec<String>, now_ms: u64) {
        (self.last, self.containers) = (Some(digest), containers);
        (self.at_ms, self.learned_ms) = (now_ms, now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Pressure = Pressure { urgent: false, sizes: false, law: false, room: true };

    fn digest(figures: u64, state: u64) -> Digest {
        Digest { state, figures }
    }

    #[test]
    fn a_decision_is_written_within_a_second_figures_within_two_and_nothing_twice() {
        let mut writer = Writer::default();
        assert!(writer.is_due(digest(1, 1), ROOM, 10_000));
        assert!(!writer.is_due(digest(1, 1), Pressure { room: false, ..ROOM }, 10_000));
        writer.written(digest(1, 1), Vec::new(), 10_000);
        for (now, pressure, ms, due) in [
            (digest(1, 1), ROOM, 99_000, false),
            (digest(1, 2), ROOM, 10_500, false),
            (digest(1, 2), ROOM, 11_000, true),
            (digest(2, 1), ROOM, 11_500, false),
            (digest(2, 1), ROOM, 12_000, true),
            (digest(2, 1), Pressure { room: false, ..ROOM }, 12_000, false),
            (digest(1, 1), Pressure { law: true, ..ROOM }, 20_000, false),
            (digest(1, 1), Pressure { law: true, ..ROOM }, 40_000, true),
            (digest(1, 1), Pressure { sizes: true, ..ROOM }, 14_000, false),
            (digest(1, 1), Pressure { sizes: true, ..ROOM }, 15_000, true),
            (digest(1, 1), Pressure { urgent: true, room: false, ..ROOM }, 10_001, true),
        ] {
            assert_eq!(writer.is_due(now, pressure, ms), due, "{now:?} {pressure:?} at {ms}");
        }
    }

    #[test]
    fn a_container_that_is_gone_is_removed_from_the_sizes_also_after_a_restart() {
        let saved = QWorkerStatus { sizes: [("a".to_owned(), Default::default())].into(), ..QWorkerStatus::default() };
        let mut writer = Writer::restore(&saved);
        assert_eq!(writer.patch(&QWorkerStatus::default()).pointer("/sizes/a"), Some(&Value::Null));
        writer.written(digest(1, 1), Vec::new(), 0);
        assert_eq!(writer.patch(&QWorkerStatus::default()).pointer("/sizes/a"), None);
    }
}
