//! One leader, one task that owns all state, one place per workload in it.

pub mod lease;
pub mod managed;
pub mod run;
