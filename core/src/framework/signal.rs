//! Signals that a worker may be told to leave by. In: a name from an annotation. Out: one of the signals that may be asked for. Left to others: sending
//! it (`sidecar`).

use serde::{Deserialize, Serialize};

/// A signal to a worker's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Signal {
    #[serde(rename = "SIGTERM")]
    Term,
    #[serde(rename = "SIGINT")]
    Int,
    #[serde(rename = "SIGQUIT")]
    Quit,
    #[serde(rename = "SIGTSTP")]
    Tstp,
    #[serde(rename = "SIGUSR1")]
    Usr1,
    #[serde(rename = "SIGUSR2")]
    Usr2,
}

impl Signal {
    /// Every signal that may be asked for, with its name.
    pub const ALL: &[(&str, Self)] = &[
        ("SIGTERM", Self::Term),
        ("SIGINT", Self::Int),
        ("SIGQUIT", Self::Quit),
        ("SIGTSTP", Self::Tstp),
        ("SIGUSR1", Self::Usr1),
        ("SIGUSR2", Self::Usr2),
    ];

    /// The signal of this name, if it may be asked for.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(n, _)| *n == name).map(|(_, s)| *s)
    }

    /// Its number on Linux: signal(7), the same on every architecture that runs containers.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Int => 2,
            Self::Quit => 3,
            Self::Usr1 => 10,
            Self::Usr2 => 12,
            Self::Term => 15,
            Self::Tstp => 20,
        }
    }

    /// `SIGTERM` and so on.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, s)| *s == self).map_or("", |(n, _)| n)
    }
}
