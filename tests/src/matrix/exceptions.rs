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
    /// The count may stay above where the wave was to lead.
    pub stays: bool,
    /// Why, in a sentence or two.
    pub reason: &'static str,
}

/// Every exception.
pub const EXCEPTIONS: &[Exception] = &[
    Exception {
        rows: &["celery-late", "dramatiq-rabbitmq", "pika"],
        fault: Fault::BrokerRestarted,
        doubled: true,
        cut: false,
        lost: false,
        stays: false,
        reason: "A task that is acknowledged when it is done is still the broker's while it runs. When the connection is lost, Celery or RabbitMQ puts what \
                 is not acknowledged back into the queue, and the task runs a second time beside the first: at least once is what late acknowledgement \
                 means. QScaler cuts nothing here.",
    },
    Exception {
        rows: &["dramatiq"],
        fault: Fault::BrokerRestarted,
        doubled: false,
        cut: false,
        lost: false,
        stays: true,
        reason: "Of a Dramatiq worker that could not acknowledge a task while Redis was away, the set of what it has in hand still names the task long after it \
                 was done: the pod looks busy, and is kept. No task is concerned.",
    },
    Exception {
        rows: &["pika", "brpop"],
        fault: Fault::SidecarKilledParked,
        doubled: false,
        cut: false,
        lost: false,
        stays: true,
        reason: "A parked worker of this kind is stopped (the freeze gate), and so deaf to SIGTERM. Should its pod be deleted in the second between the kill of its \
                 sidecar and the start of the next one, which Kubernetes then leaves out, the pod stays for the rest of its grace. No task is concerned: a \
                 frozen worker has none and takes none.",
    },
    Exception {
        rows: &["rq", "dramatiq", "dramatiq-rabbitmq"],
        fault: Fault::SidecarKilledHeld,
        doubled: false,
        cut: true,
        lost: true,
        stays: false,
        reason: "When the process that answers a preStop hook dies, the kubelet takes the hook for failed and sends SIGTERM at once. These workers have had \
                 their signal already, and take a second one for an order to stop without finishing. The task comes back when the framework misses its \
                 worker, which may be after this table's round.",
    },
    Exception {
        rows: &["pika", "brpop"],
        fault: Fault::SidecarKilledHeld,
        doubled: false,
        cut: true,
        lost: true,
        stays: false,
        reason: "A plain loop or consumer dies of any SIGTERM, and the kubelet sends one as soon as the process that answers a preStop hook is dead. RabbitMQ \
                 gives the message to another worker; what a loop has popped from a Redis list is nowhere else, and is lost, as with any crash of such a \
                 worker.",
    },
];

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
            assert!(exception.reason.len() > 40 && (exception.doubled || exception.cut || exception.lost || exception.stays), "{exception:?}");
        }
    }
}
