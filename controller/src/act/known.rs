//! Which objects of ours are meant. In: what was read or written last. Out: UIDs and versions, by which an old leader's write fails. Left to others: reading
//! and writing them (`qworker`, `checkpoint`, `apply`).

/// A QWorker, and what is remembered beside it, as they were when last read or written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The QWorker's UID.
    pub uid: String,
    /// The QWorker's version; empty: not read.
    pub version: String,
    /// The checkpoint's version; empty: there is none.
    pub checkpoint: String,
}
