//! What the tests with real parts share: brokers (`servers`), the cluster and fleets in it (`stand`), and the demonstration (`demo`).

pub mod demo;
pub mod matrix;
pub mod servers;
pub mod stand;
