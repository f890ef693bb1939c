//! The hold of the pod's end: the kubelet's calls, signals, and the one task that feeds the machine.

pub mod driver;
pub mod server;
pub mod signal;
