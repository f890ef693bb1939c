//! Doing: what is to be done, as values; performing it without choices; when it may be tried again.

pub mod apply;
pub mod backoff;
pub mod checkpoint;
pub mod echo;
pub mod events;
pub mod evict;
pub mod known;
pub mod plan;
pub mod qworker;
pub(crate) mod raise;
