//! Passwords that no `Debug` or `Display` shows. In: a password. Out: the same by [`Secret::expose`] alone, and texts without it. Left to others: where
//! it came from.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt;

/// A shorter secret is not searched for in messages: it would blank out ordinary words.
const SCRUB_LENGTH_MIN: usize = 3;

/// A text that no `Debug` or `Display` shows.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one who uses it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Who connects; both may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// None: nobody is named (Redis: the user `default`).
    pub user: Option<String>,
    /// None: there is none.
    pub password: Option<Secret>,
}

impl Login {
    /// `text` with the password blanked, as written and percent-encoded: for messages that come from servers and libraries.
    #[must_use]
    pub fn scrub(&self, text: &str) -> String {
        let Some(password) = self.password.as_ref().map(Secret::expose).filter(|p| p.len() >= SCRUB_LENGTH_MIN) else {
            return text.to_owned();
        };
        let query: String = form_urlencoded::byte_serialize(password.as_bytes()).collect();
        let path = utf8_percent_encode(password, NON_ALPHANUMERIC).to_string();
        text.replace(password, "***").replace(&query, "***").replace(&path, "***")
    }
}
