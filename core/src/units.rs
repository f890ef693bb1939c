//! Quantities as types that parse: Kubernetes memory and CPU quantities, and durations as users write them.
//! In: strings from annotations and pod specs. Out: bytes, millicores, seconds, or an error that says what would be valid.
//! Left to others: what the numbers are for.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// Thousandths of a CPU core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millicores(pub u64);

/// Why a quantity or duration was refused; `valid` says what would be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {what}; valid: {valid}")]
pub struct UnitError {
    /// The text as given.
    pub value: String,
    /// What it should have been.
    pub what: &'static str,
    /// Examples and bounds of what would be accepted.
    pub valid: &'static str,
}

const MEMORY_VALID: &str = "a Kubernetes memory quantity of at least 1 byte such as 128Mi, 1.5Gi or 500M";
const CPU_VALID: &str = "a Kubernetes CPU quantity of at least 1m such as 250m, 0.5 or 2";
const DURATION_VALID: &str = "a duration such as 500ms, 30s, 5m, 1h30m or 2d, more than 0 and at most 30d";
/// The longest duration that makes sense here: a pod's grace is an i64 of seconds, and nobody waits a month.
const DURATION_MAX_MS: u64 = 30 * 24 * 3600 * 1000;

/// One MiB in bytes.
pub const MIB: u64 = 1 << 20;

impl Bytes {
    /// Parses a Kubernetes quantity (`128Mi`, `1.5Gi`, `500M`, `1e9`). Rounds up to whole bytes.
    ///
    /// # Errors
    /// When the text is no quantity, is zero or negative, or does not fit in 64 bits.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let fail = || UnitError { value: text.to_owned(), what: "an amount of memory", valid: MEMORY_VALID };
        let value = quantity(text.trim()).ok_or_else(fail)?.ceil();
        if (1.0..9.0e18).contains(&value) { Ok(Self(value as u64)) } else { Err(fail()) }
    }

    /// The next whole MiB at or above this amount.
    #[must_use]
    pub fn ceil_mib(self) -> Self {
        Self(self.0.div_ceil(MIB).saturating_mul(MIB))
    }
}

impl fmt::Display for Bytes {
    /// A Kubernetes quantity, in Mi where that is exact.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(MIB) && self.0 > 0 { write!(f, "{}Mi", self.0 / MIB) } else { write!(f, "{}", self.0) }
    }
}

impl Millicores {
    /// Parses a Kubernetes CPU quantity (`250m`, `0.5`, `2`). Rounds up to whole millicores.
    ///
    /// # Errors
    /// When the text is no quantity, or is zero or negative.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let fail = || UnitError { value: text.to_owned(), what: "an amount of CPU", valid: CPU_VALID };
        let value = (quantity(text.trim()).ok_or_else(fail)? * 1000.0).ceil();
        if (1.0..1.0e12).contains(&value) { Ok(Self(value as u64)) } else { Err(fail()) }
    }
}

impl fmt::Display for Millicores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m", self.0)
    }
}

/// Parses `500ms`, `30s`, `5m`, `1h30m`, `2d`, or plain seconds (`30`), into milliseconds.
///
/// # Errors
/// When the text is no duration, is zero, or is longer than 30 days.
pub fn parse_duration_ms(text: &str) -> Result<u64, UnitError> {
    let fail = || UnitError { value: text.to_owned(), what: "a duration", valid: DURATION_VALID };
    let text_trimmed = text.trim();
    let mut rest = text_trimmed;
    let mut total: u64 = 0;
    if let Ok(seconds) = text_trimmed.parse::<u64>() {
        total = seconds.checked_mul(1000).ok_or_else(fail)?;
        rest = "";
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(fail)?;
        let number: u64 = rest[..digits].parse().map_err(|_| fail())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let scale = match &rest[..end] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(fail()),
        };
        rest = &rest[end..];
        total = number.checked_mul(scale).and_then(|ms| total.checked_add(ms)).ok_or_else(fail)?;
    }
    if (1..=DURATION_MAX_MS).contains(&total) { Ok(total) } else { Err(fail()) }
}

/// A Kubernetes quantity as a number, suffix applied. None when it is not one.
fn quantity(text: &str) -> Option<f64> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+' || c == '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let scale = match suffix {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            if !(-12..=18).contains(&exponent) {
                return None;
            }
            10f64.powi(exponent)
        }
    };
    let value: f64 = number.parse().ok()?;
    value.is_finite().then_some(value * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_quantities_parse_as_kubernetes_means_them() {
        for (text, bytes) in [("128Mi", 128 * MIB), ("1.5Gi", 1536 * MIB), ("500M", 500_000_000), ("1e9", 1_000_000_000), ("1", 1), ("64Ki", 65536)] {
            assert_eq!(Bytes::parse(text), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "Mi", "-1Mi", "0", "1Qi", "abc", "1.2.3Mi", "1e99"] {
            let error = Bytes::parse(text).unwrap_err().to_string();
            assert!(error.contains("128Mi"), "{error}");
        }
        assert_eq!(Bytes(96 * MIB).to_string(), "96Mi");
        assert_eq!(Bytes(MIB + 1).ceil_mib(), Bytes(2 * MIB));
    }

    #[test]
    fn cpu_quantities_parse_as_kubernetes_means_them() {
        for (text, millicores) in [("250m", 250), ("0.5", 500), ("2", 2000), ("0.0001", 1)] {
            assert_eq!(Millicores::parse(text), Ok(Millicores(millicores)), "{text}");
        }
        assert!(Millicores::parse("0").is_err());
    }

    #[test]
    fn durations_parse_as_people_write_them() {
        for (text, ms) in [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("1h30m", 5_400_000), ("2d", 172_800_000), ("45", 45_000)] {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
        for text in ["", "0s", "-5s", "1y", "s", "31d", "5m3", "99999999999999999999s"] {
            assert!(parse_duration_ms(text).is_err(), "{text}");
        }
    }
}
