//! The matrix: every framework meets every fault on the real cluster, and its ledger says what became of each task. In: rows (frameworks) and
//! columns (faults). Out: cells, as a table and as JSON. Left to others: the fleets (`stand`), bringing a cluster up (`cargo xtask matrix`).
//!
//! | module | in -> out |
//! |---|---|
//! | [`fault`] | names of the columns, and what each needs |
//! | [`rows`] | the frameworks |
//! | [`plan`] | a prefix and a size -> tasks to send |
//! | [`observe`] | a watch on pods -> when each was asked to leave, was marked, lost its sidecar |
//! | [`process`] | a container's id -> its process on the node |
//! | [`system`] | QScaler's own parts: leader, webhook |
//! | [`strike`] | a fault and its fleets -> the fault, and proof of when it happened |
//! | [`lab`] | the stand -> fleets and looks at their runs |
//! | [`round`] | fleets and faults side by side -> cells |
//! | [`cell`] | runs and proof -> counts, and whether they are as they should be |
//! | [`exceptions`] | cells that cannot be zero, each with its reason |
//! | [`book`] | cells of several runs -> the newest of each, kept in a file |
//! | [`table`] | runs and their cells -> Markdown and JSON |
//! | [`whole`] | rows and columns -> every cell; where it was measured |
//! | [`soak`] | a seed and a time -> rounds of random faults |

pub mod book;
pub mod cell;
pub mod exceptions;
pub mod fault;
pub mod lab;
pub mod observe;
pub mod plan;
pub mod process;
pub mod round;
pub mod rows;
pub mod soak;
pub mod strike;
pub mod system;
pub mod table;
pub mod whole;

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since the Unix epoch, as the ledger counts: everything runs on one machine.
#[must_use]
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
