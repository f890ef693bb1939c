//! What the tests with real parts share: brokers (`servers`), the cluster and fleets in it (`stand`), waiting (`wait`), every
//! framework against every fault (`matrix`), what clusters and users do to an injector (`hostile`), Prometheus (`prometheus`), a browser (`browser`), what the
//! documentation says (`newcomer`), a registry with a login (`registry`), and the demonstration (`demo`).

pub mod browser;
pub mod demo;
pub mod hostile;
pub mod matrix;
pub mod newcomer;
pub mod prometheus;
pub mod registry;
pub mod servers;
pub mod shapes;
pub mod stand;
pub mod wait;
