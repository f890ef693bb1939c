//! The webhook's TLS from first install to every rotation. In: the two Secrets and the webhook configuration, the time. Out: an authority, a
//! leaf, and the bundle of authorities that API servers trust. Left to others: serving the leaf (`webhook`), everything else.
//!
//! The authority's key is in a Secret of its own, which only this process reads: the webhook sees the leaf alone.

pub mod args;
pub mod issue;
pub mod metrics;
pub mod plan;
pub mod run;
pub mod store;
