//! The sidecar: it stands beside a queue worker in its pod, parks it when the controller asks for a free one, holds the pod's end until the
//! worker has finished its task and left, and measures what the worker needs. It has no Kubernetes rights.
//!
//! Flow 2: `control` (token) -> `driver` -> `core::drain::worker` -> `signal` -> `watch` (exit) -> `server` (hold answered).
//! Flow 3: `peaks` -> `report` -> `control`, and the termination message.
//! One task owns the machine (`driver`); the others feed it through one bounded channel: `server` (hooks and probes), `watch` (the worker's
//! process), `control` (the broker), `busy` (has it a task?), `gate` (keep it from taking one).

pub mod blind;
pub mod busy;
pub mod cgroup;
pub mod config;
pub mod container;
pub mod control;
pub mod driver;
pub mod find;
pub mod freeze;
pub mod gaps;
pub mod gate;
pub mod metrics;
pub mod peaks;
pub mod procs;
pub mod report;
pub mod run;
pub mod server;
pub mod service;
pub mod signal;
#[cfg(test)]
pub(crate) mod testing;
pub mod watch;
