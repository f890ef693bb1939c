//! The controller: the only writer of replicas and of running pods' resources. In: the API server by watch, brokers by poll, sidecars by report.
//! Out: `/scale`, deletion costs, `pods/resize`, control messages, QWorkers, Events, metrics. Left to others: every decision (`core`).
//!
//! - `record`, `index`, `watch`: objects -> compact records -> one view per workload.
//! - `resolve`, `store`, `brokers`: the broker's URL, and one connection per distinct one.
//! - `intake`, `facts`, `bounds`, `sizing`: reports believed as far as the API bears them out; facts for `core`.
//! - `scale_down`: what a wished scale-down hangs in.
//! - `hold_effective`, `injected`: whether a deletion lets running tasks finish, and whether pods have the sidecar; `lasting`: since when.
//! - `cuts`: running tasks that were cut, each counted once, whoever tells them.
//! - `keep`, `marks`: node scalers kept away from pods with a task; whatever we marked taken back.
//! - `workload`, `drain`, `learn`, `summary`, `conditions`, `status`: observe, decide, say what to do.
//! - `plan`, `apply`, `backoff`, `events`: what to do, as values; doing it, without choices.
//! - `lease`, `slot`, `run`: one leader, one task that owns all state, at most one list of actions per workload.

pub mod apply;
pub mod args;
pub mod backoff;
pub mod bounds;
pub mod brokers;
pub mod conditions;
mod cuts;
mod drain;
pub mod events;
pub mod facts;
mod hold_effective;
pub mod index;
mod injected;
pub mod intake;
pub mod keep;
pub mod kills;
mod lasting;
mod learn;
pub mod lease;
pub mod marks;
pub mod metrics;
pub mod plan;
pub mod record;
mod record_bounds;
mod record_pod;
pub mod resolve;
pub mod run;
mod scale_down;
pub mod settings;
pub mod sizing;
pub mod slot;
pub mod status;
pub mod store;
pub mod summary;
#[cfg(test)]
mod testing;
pub mod watch;
pub mod workload;
