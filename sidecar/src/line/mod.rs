//! The line to the controller: orders in, reports out.

pub mod control;
pub mod report;
