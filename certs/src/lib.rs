//! The webhook's TLS from first install to every rotation, and the key by which control messages are signed. In: three Secrets and the webhook configuration, the
//! time. Out: an authority, a leaf, and the bundle of authorities that API servers trust; a key that is made once. Left to others: serving the leaf (`webhook`),
//! signing (`controller`), everything else.
//!
//! The authority's key is in a Secret of its own, which only this process reads: the webhook sees the leaf alone, and of the key of control messages the public half
//! beside it.

pub mod args;
pub mod issue;
pub mod metrics;
pub mod plan;
pub mod run;
pub mod store;
