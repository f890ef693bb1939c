//! Faktory: its server speaks a protocol of its own.

use super::{Framework, QUIET_THEN_TERM};

/// See the module.
pub(super) static FAKTORY: Framework = Framework {
    name: "faktory",
    signals: QUIET_THEN_TERM,
    note: "Queue depth is not readable from a Faktory server yet: use scaling: protect.",
    ..Framework::PLAIN
};
