//! The drain protocol, checked: both halves of `core::drain`, the very code that runs in clusters, in a world where everything that may
//! happen happens in every order.
//!
//! In: a [`Setting`] (how many pods, which worker, which misfortunes and how many). Out: the states reached and each invariant's answer.
//! Left to others: real time and load (`core/tests/drain_pair.rs`, `sim`, the cluster tests).
//!
//! What the world leaves free: the ReplicaSet deletes **any** pod it likes; the controller acts on old views of the scale and of the pods, each as
//! old as can be; reports come late or never; messages are lost, doubled, late, in any order; every timer may fire at any moment after it was
//! set; a crash may come between any two effects of a step. What it assumes, each measured: a native sidecar is not restarted in a pod
//! that ends; the kubelet calls both hooks and sends TERM when the hold is answered; `/scale` refuses an old resource version.
//!
//! Worker machines are interned: a state holds a number for each, and each machine handles each event once. That makes a state small and a
//! step cheap. Pods are sorted, for their names mean nothing; where the controller's choice depends on names, every naming is tried.

mod act;
mod calm;
pub mod container;
mod control;
mod hash;
mod intern;
mod kubelet;
mod may;
mod mutation;
mod property;
mod run;
mod setting;
mod state;
mod world;

pub use mutation::Mutation;
pub use property::INVARIANTS;
pub use run::{Answer, check, walk};
pub use setting::{Around, Misfortune, Setting, WorkerKind};
