//! One leader, one task that owns all state, one place per workload in it; and before all, whether the API server keeps what is written.

pub mod definition;
pub mod lease;
pub mod managed;
pub mod run;
