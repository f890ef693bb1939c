//! Inputs from strangers, made at random from real ones. In: a target, a corpus, a seed, a number of inputs. Out: how many were tried, or the first on which the
//! code panicked or broke a promise, saved as a file. Left to others: the code that is tried (`core`, `broker-url`, `inject`, `webhook`).
//!
//! Equal seeds give equal inputs. What gives an answer that was not seen before is changed further: so inputs wander into corners without instrumented code,
//! on any toolchain.

pub mod corpus;
pub mod mutate;
pub mod run;
pub mod targets;
