//! Cells that cannot be zero. In: a shape and a trial. Out: what may be counted there, and why. Whatever is not listed must be zero; nothing may be silent.
//! Left to others: counting (`cell`).

use super::trial::Trial;

/// What a cell may show besides zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Shapes whose slug is one of these.
    pub shapes: &'static [&'static str],
    /// The columns.
    pub trials: &'static [Trial],
    /// Tasks done more than once are allowed.
    pub doubled: bool,
    /// Runs that never ended are allowed.
    pub cut: bool,
    /// Tasks that were never done are allowed.
    pub lost: bool,
    /// Why, in a sentence or two.
    pub reason: &'static str,
}

/// Every exception.
pub const EXCEPTIONS: &[Exception] = &[];

/// The exception of this cell, if it is one.
#[must_use]
pub fn of(shape: &str, trial: Trial) -> Option<&'static Exception> {
    EXCEPTIONS.iter().find(|e| e.trials.contains(&trial) && e.shapes.contains(&shape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::rows;

    #[test]
    fn every_exception_names_shapes_that_exist_and_gives_a_reason() {
        for exception in EXCEPTIONS {
            assert!(exception.shapes.iter().all(|name| rows::all().any(|shape| shape.slug() == *name)), "{exception:?}");
            assert!(exception.reason.len() > 40 && (exception.doubled || exception.cut || exception.lost), "{exception:?}");
        }
    }
}
