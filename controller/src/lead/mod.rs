//! One leader, one task that owns all state, one place per workload in it; before all, whether the API server keeps what is written; and what the last leader does
//! once QScaler is uninstalled.

pub mod control_key;
pub mod definition;
pub mod lease;
pub mod managed;
pub mod run;
pub mod uninstall;
