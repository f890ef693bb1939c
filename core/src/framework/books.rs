//! What a framework writes down in Redis of who works on what. In: nothing. Out: where it stands, as values. Left to others: reading it (`broker`).
//! Templates have `{prefix}` as those of keys have.

/// A framework's bookkeeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Books {
    /// There is none that tells.
    None,
    /// Each worker process is written down with its host.
    Processes(Processes),
    /// Only what the whole fleet has in hand is known: nothing in hand anywhere is nothing in hand here, and something is not known where. What is in
    /// hand: the framework's keys of work.
    Fleet,
    /// The same, and beside each task that is in hand a lock whose value begins with its owner's name: a random one (a UUID), which every worker object makes
    /// for itself, and a number behind a colon. Which pod that is stands nowhere.
    Locks {
        /// A lock's name before the task's, with `{prefix}` and `{queue}`.
        before: &'static str,
        /// And after it.
        after: &'static str,
    },
    /// The same as `Fleet`, from Dramatiq's sets: one for each process and queue, with what it has fetched.
    FleetAcks {
        /// A sorted set whose members are the processes.
        processes: &'static str,
        /// Before a process' name, in a set's name.
        acks: &'static str,
    },
}

/// Worker processes that are written down one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processes {
    /// Where their entries are listed.
    pub listed: Listed,
    /// Where an entry names its host.
    pub host: HostIn,
    /// Where an entry's tasks are counted.
    pub tasks: Tasks,
}

/// Where entries are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// A set.
    Set(&'static str),
    /// A sorted set; scores are the seconds since the epoch until which an entry counts as alive.
    AliveUntil(&'static str),
}

/// Where an entry names its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostIn {
    /// In its own name, before the first colon.
    Name,
    /// In its own name, between the first brace and the next colon.
    NameInBraces,
    /// In this field of the hash of its name.
    Field(&'static str),
}

/// Where an entry's tasks are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tasks {
    /// A hash of the entry's name that is written every few seconds, whole.
    Beat {
        /// Tasks.
        busy: &'static str,
        /// When it was written, seconds since the epoch.
        beat: &'static str,
        /// "true": it takes no more.
        quiet: &'static str,
        /// Older than this it says nothing, seconds.
        age_max_s: u64,
    },
    /// A hash with one field for each task, absent while there are none; the key of the entry's name lives as long as its process.
    HashBeside {
        /// The beginning of the entry's name that is replaced.
        from: &'static str,
        /// What it is replaced by.
        to: &'static str,
    },
    /// A key that exists while a task runs: this and the entry's name.
    KeyWhileBusy(&'static str),
    /// A field of the hash of the entry's name.
    State {
        /// The field.
        field: &'static str,
        /// Its values while there is none.
        idle: &'static [&'static str],
        /// Its values while there is one.
        busy: &'static [&'static str],
        /// Fields of which the sum is the number of tasks that have ended.
        done: &'static [&'static str],
    },
}
