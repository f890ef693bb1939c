//! A small cluster on a virtual clock, in which both halves of the drain meet: API server, ReplicaSet controller, kubelets, broker, workers.
//! In: a seed and how bad the world is. Out: how many tasks were done, cut, and where the fleet ended. Left to others: the machines.
//!
//! One tick is [`TICK_MS`]. Controllers read the API through caches that lag. Every number of a kubelet was measured on a real one; the world
//! may only be worse.

mod cluster;
mod pod;
mod rng;

pub(crate) use cluster::{Chaos, World};
