//! Marks on pods that others act on: setting them for one workload, taking them back where nothing is managed any more.

pub mod pods;
pub mod sweep;

#[cfg(test)]
mod tests;
