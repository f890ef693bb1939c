//! Since when a message waits, where its framework writes that down. In: nothing. Out: where to look, and how to read it. Left to others: looking (`broker`).
//!
//! Only what is written when a message comes to its queue is a wait. Frameworks that write the time of its creation alone (Dramatiq), or none (Celery, Resque,
//! Huey, taskiq), have [`Age::Unknown`].

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Nowhere, or not for every message.
    Unknown,
    /// The message is JSON and has it in this field; workers take from this end.
    Message {
        /// Where the next message is.
        next: End,
        /// The field.
        field: &'static str,
        /// Its form.
        stamp: Stamp,
    },
    /// The message is an id, and a hash of this name and the id behind it has the field.
    Job {
        /// Where the next message is.
        next: End,
        /// The hash's name up to the id, with the words of a key's template.
        hash: &'static str,
        /// Fields, in the order in which [`Stamp`] reads them.
        fields: &'static [&'static str],
        /// Their form.
        stamp: Stamp,
    },
}

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Index 0.
    Left,
    /// Index -1.
    Right,
}

/// The form of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// A number since the epoch: seconds with a fraction, or milliseconds where that would be beyond the year 5000 (Sidekiq 8).
    SecondsOrMillis,
    /// Nanoseconds since the epoch.
    Nanos,
    /// `2026-11-30T13:00:00.123456Z`; without an offset it is UTC.
    Iso8601,
    /// BullMQ's three fields: creation in milliseconds since the epoch; options, JSON with `delay` in milliseconds; when it was last taken. A job that was taken
    /// before waits since nobody knows when.
    BullMq,
}
