//! Sizes on trial: the same tasks under several sizing policies, and what became of them.
//!
//! In: cases (made up from a seed, or the packaged real hour), policies. Out: OOM kills per 1000 tasks, slack, changes; a table, a curve.
//! Left to others: replicas and waits (`world`). The policy under test is the very one of `qscaler_core::size`.
//!
//! `case`: tasks and their needs. `hour`: the same from recorded data. `sizer`, `vpa`, `krr`: the policies. `replay`: tasks x policy -> outcome.
//! `bench`: all of it, side by side. `chart`: the slack-against-OOM curve as a picture.

pub mod bench;
pub mod case;
pub mod chart;
pub mod hour;
pub mod krr;
pub mod replay;
pub mod sizer;
pub mod vpa;

/// One MiB in bytes.
pub const MIB: u64 = 1 << 20;
/// One day in seconds.
pub const DAY_S: f64 = 86_400.0;
