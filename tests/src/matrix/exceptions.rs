//! Cells that cannot be zero. In: a row and a fault. Out: what may be counted there, and why. Whatever is not listed must be zero. Left to others:
//! counting (`cell`).

use super::fault::Fault;

/// What a cell may show besides zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Rows whose slug is one of these.
    pub rows: &'static [&'static str],
    /// The column.
    pub fault: Fault,
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
pub const EXCEPTIONS: &[Exception] = &[Exception {
    rows: &["celery-late"],
    fault: Fault::BrokerRestarted,
    doubled: true,
    cut: false,
    lost: false,
    reason: "A task that is acknowledged late is still the broker's while it runs. When the connection is lost, Celery puts what it has not \
                 acknowledged back into the queue, and the task runs a second time beside the first: at least once is what late acknowledgement means. \
                 QScaler cuts nothing here.",
}];

/// The exception of this cell, if it is one.
#[must_use]
pub fn of(row: &str, fault: Fault) -> Option<&'static Exception> {
    EXCEPTIONS.iter().find(|e| e.fault == fault && e.rows.contains(&row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand::framework::FRAMEWORKS;

    #[test]
    fn every_exception_names_rows_that_exist_and_gives_a_reason() {
        for exception in EXCEPTIONS {
            assert!(exception.rows.iter().all(|name| FRAMEWORKS.iter().any(|row| row.slug == *name)), "{exception:?}");
            assert!(exception.reason.len() > 40 && (exception.doubled || exception.cut || exception.lost), "{exception:?}");
        }
    }
}
