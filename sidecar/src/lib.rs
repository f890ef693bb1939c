//! The sidecar: it stands beside a queue worker in its pod, parks it when the controller asks for a free one, holds the pod's end until the
//! worker has finished its task and left, and measures what the worker needs. It has no Kubernetes rights.
//!
//! Flow 2: `line::control` (token) -> `hold::driver` -> `core::drain::worker` -> `hold::signal` -> `worker::watch` (exit) -> `hold::server` (hold answered).
//! Flow 3: `peaks` -> `line::report` -> `line::control`, and the termination message.
//! One task owns the machine (`hold::driver`); the others feed it through one bounded channel, in the words of `input`: `hold::server` (hooks and probes),
//! `worker` (the worker's processes), `line` (the broker), `busy` (has it a task?), `gate` (keep it from taking one). Nobody imports the driver but `run`.

pub mod blind;
pub mod busy;
pub mod clock;
pub mod config;
pub mod gaps;
pub mod gate;
pub mod hold;
pub mod input;
pub mod line;
pub mod metrics;
pub mod peaks;
pub mod run;
#[cfg(test)]
pub(crate) mod testing;
pub mod worker;
