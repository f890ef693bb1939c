//! The line to the controller: orders in, reports out.

pub mod control;
mod refusal;
pub mod report;
