//! What the documentation says, done on a fresh cluster as a newcomer does it. In: the pages of this tree, a registry with its images and chart. Out: per step whether it did
//! what the page says, which planted faults `kubectl qscaler doctor` has named, and what is left after an uninstallation. Left to others: making cluster, images and
//! chart (`cargo xtask newcomer`).
//!
//! Parts: `docs` takes commands and annotations out of the pages, `faults` breaks things and mends them, `left` compares the cluster before and after, `run` is the order,
//! `sum` the outcome.

pub mod docs;
pub mod faults;
pub mod left;
pub mod run;
pub mod sum;
