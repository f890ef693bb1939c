//! Everything that is seen: watched objects as compact records, figures of brokers, reports of pods, the cluster. It decides nothing.

pub mod addresses;
pub mod brokers;
pub mod calls;
pub mod cluster;
pub mod cuts;
pub mod index;
pub mod pools;
pub mod record;
pub mod record_bounds;
pub mod record_made;
pub mod record_owner;
pub mod record_pod;
pub mod reports;
pub mod resolve;
pub mod urls;
pub mod watch;
