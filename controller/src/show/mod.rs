//! Words for people: conditions and what they say, the status, Events of their edges, metrics, the page.

pub mod conditions;
pub mod fleet;
pub mod hold_effective;
pub mod injected;
pub mod lasting;
pub mod metrics;
pub mod page;
pub mod scheduler;
pub mod shared;
pub mod status;
pub mod status_writer;
pub mod stuck;
pub mod tally;
