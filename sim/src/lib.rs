//! Whole fleets on a virtual clock: comes in a workload, a start latency, a policy, a seed; goes out what became of tasks and pods.
//! Leaves to others: real brokers and clusters. The law under test is the very one of `qscaler_core::scale`.

pub mod bench;
pub mod bursts;
pub mod cache;
pub mod crowd;
pub mod csv;
pub mod curve;
pub mod optimum;
pub mod outage;
pub mod page;
pub mod policy;
pub mod progress;
pub mod recorded;
pub mod rng;
pub mod score;
pub mod simulate;
pub mod sizing;
pub mod step;
pub mod truth;
pub mod workload;
pub mod world;
