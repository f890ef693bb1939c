//! Every decision of QScaler, with no clock, no I/O, no async and no Kubernetes in it.
//!
//! Three flows pass through here:
//! 1. queue metrics -> `scale` -> a target number of replicas, with its reason;
//! 2. a wished decrease -> `drain::fleet` (controller half) -> message -> `drain::worker` (sidecar half) -> signal -> exit -> replica count;
//! 3. peaks and OOM kills -> `size` -> a recommendation -> a resize plan.
//!
//! Around them: `mark` (annotations on pods that others act on), `names` (every word users see), `units` (quantities), `framework` (worker frameworks), `config` (annotations), `workload`
//! (identity, and what the sidecar is told), `message` (the wire), `control_key` (public keys of it, as text).

pub mod config;
pub mod control_key;
pub mod cut;
pub mod drain;
pub mod framework;
pub mod mark;
pub mod message;
pub mod names;
pub mod replace;
pub mod scale;
pub mod size;
pub mod units;
pub mod workload;
