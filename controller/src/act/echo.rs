//! Whether what is seen of an object is still of the time before a write of our own. In: the version that the write was made from, and when. Out: whether the
//! watch has yet to show it. Left to others: what is not written meanwhile.
//!
//! One rule for every kind of object: what is written from a version is not written from it again. The watch shows a write within milliseconds; where it
//! does not show it at all (it was lost, or has changed nothing), the same is tried again after a while.

/// For so long a write is waited for in the watch, milliseconds: many times what a busy API server takes to tell it, and short beside everything that is
/// decided anew when it has not come.
const SHOWN_WITHIN_MS: u64 = 3_000;

/// A write of ours.
#[derive(Clone, Debug)]
pub struct Echo {
    /// The version that it was made from.
    version: String,
    at_ms: u64,
}

impl Echo {
    /// Of a write that was made from this version.
    #[must_use]
    pub fn new(version: &str, at_ms: u64) -> Self {
        Self { version: version.to_owned(), at_ms }
    }

    /// Whether an object of this version does not show it yet.
    #[must_use]
    pub fn is_awaited(&self, seen: &str, now_ms: u64) -> bool {
        self.version == seen && now_ms < self.at_ms.saturating_add(SHOWN_WITHIN_MS)
    }

    /// Whether the object has changed since that version, by the write or by what came after.
    #[must_use]
    pub fn is_past(&self, seen: &str) -> bool {
        self.version != seen
    }

    /// When it was made, milliseconds since the epoch.
    #[must_use]
    pub fn at_ms(&self) -> u64 {
        self.at_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_awaited_until_another_version_is_seen_or_for_three_seconds() {
        let echo = Echo::new("7", 1_000);
        assert!(echo.is_awaited("7", 1_000) && echo.is_awaited("7", 3_999) && !echo.is_awaited("7", 4_000));
        assert!(!echo.is_awaited("8", 1_000) && echo.is_past("8") && !echo.is_past("7"));
    }
}
