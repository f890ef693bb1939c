//! What a shape goes through: the columns. In: nothing. Out: names. Left to others: doing it (`arm`).

use crate::matrix::fault::Fault;
use serde::{Deserialize, Serialize};

/// One column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trial {
    /// The load falls: with QScaler by a lower minimum, without it by `/scale`.
    Wave,
    /// Every busy pod is deleted.
    Delete,
    /// `kubectl rollout restart`.
    Rollout,
    /// No pod is there, and tasks are sent that are due later. Only for shapes whose framework has such tasks.
    Zero,
}

impl Trial {
    /// Every column, in the order in which a fleet goes through them.
    pub const ALL: [Self; 4] = [Self::Wave, Self::Delete, Self::Rollout, Self::Zero];

    /// As `--trial` and cells name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wave => "wave",
            Self::Delete => "delete",
            Self::Rollout => "rollout",
            Self::Zero => "zero",
        }
    }

    /// The column's head.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Wave => "scale-down wave",
            Self::Delete => "deleted while busy",
            Self::Rollout => "rollout",
            Self::Zero => "due later, from zero",
        }
    }

    /// The matrix' fault that strikes in it, where one does.
    #[must_use]
    pub fn fault(self) -> Option<Fault> {
        match self {
            Self::Wave => Some(Fault::Wave),
            Self::Delete => Some(Fault::Delete),
            Self::Rollout => Some(Fault::Rollout),
            Self::Zero => None,
        }
    }
}
