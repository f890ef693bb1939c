//! The worker: which processes it is, its container, its beginning and its end.

pub mod container;
pub mod find;
pub mod procs;
pub mod sockets;
pub mod watch;
