//! The controller: the only writer of replicas and of running pods' resources. In: the API server by watch, brokers by poll, sidecars by report.
//! Out: `/scale`, deletion costs, `pods/resize`, control messages, QWorkers, Events, metrics. Left to others: every decision (`core`).
//!
//! Rooms, from below: `observe` (what is seen), `act` (what is done), the flows `scale`, `drain`, `size` and `mark`, `show` (what is said), `workload` (one workload and its
//! flows), `lead` (one leader, the loop). A flow knows no other flow but by `workload`; `observe` knows none of the others.

pub mod act;
pub mod args;
pub mod checkpoints;
pub mod clock;
pub mod drain;
pub mod due;
pub mod input;
pub mod lead;
pub mod mark;
pub mod observe;
pub mod scale;
pub mod show;
pub mod size;
#[cfg(test)]
mod testing;
pub mod words;
pub mod workload;
