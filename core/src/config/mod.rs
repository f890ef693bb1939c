//! The configuration of a workload: its annotations, checked. In: annotations. Out: a `WorkerConfig`, or every mistake at once. Left to others: what follows
//! from it.

mod parse;
mod types;

pub use parse::{ConfigError, Parsed, parse};
pub use types::*;
