//! Comes in: a world to look at. Goes out: orders to it. Leaves to others: time, pods, tasks. One file per scaler.

pub mod goscaler;
pub mod keda;
pub mod law;
pub mod pooled;
pub mod wpa;
