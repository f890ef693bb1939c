//! Since when the oldest message of a queue waits. In: its keys, what its framework writes down of times, answers. Out: a time, that nothing waits, or that nobody
//! says. Left to others: which field has it (`core::framework`), work put aside (`later`).
//!
//! Of a list the message that is taken next is the oldest: a job that was put in front of the others (RQ `at_front`, BullMQ `lifo`) makes the figure too small until
//! it is taken.

use super::streams;
use crate::QueueQuery;
use qscaler_core::framework::{Age, End, Key, KeyKind, Stamp};
use redis::{Cmd, Value, cmd};
use serde::Deserialize;

/// Entries of a set by priority that are asked for their times; with more, the oldest is not known.
const SET_MAX: usize = 64;
/// Seconds since the epoch beyond this (the year 5138) are milliseconds.
const SECONDS_MAX: f64 = 1e11;

/// Since when, of one key or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Oldest {
    /// Nothing waits.
    Nothing,
    /// Milliseconds since the epoch.
    Since(u64),
    /// Nobody says.
    Unknown,
}

impl Oldest {
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Nothing, one) | (one, Self::Nothing) => one,
            (Self::Since(a), Self::Since(b)) => Self::Since(a.min(b)),
        }
    }

    /// Age at this time, seconds.
    pub(super) fn age_s(self, now_ms: u64) -> Option<f64> {
        match self {
            Self::Since(at) => Some(now_ms.saturating_sub(at) as f64 / 1000.0),
            Self::Nothing | Self::Unknown => None,
        }
    }
}

/// What is asked beside the length; none where nothing would say a time.
pub(super) fn first(query: &QueueQuery, key: &Key) -> Option<Cmd> {
    let (Age::Message { next, .. } | Age::Job { next, .. }) = query.framework.age else { return None };
    match key.kind {
        KeyKind::List => {
            let mut command = cmd("LINDEX");
            command.arg(&key.name).arg(match next {
                End::Left => 0,
                End::Right => -1,
            });
            Some(command)
        }
        KeyKind::SortedSet => {
            let mut command = cmd("ZRANGE");
            command.arg(&key.name).arg(0).arg(SET_MAX);
            Some(command)
        }
        _ => None,
    }
}

/// What is asked once the first answers are there: of a key, its count and the answer to [`first`], or a stream's groups.
pub(super) fn second(query: &QueueQuery, key: &Key, answers: &[Value], head: Option<&Value>) -> Vec<Cmd> {
    if key.kind == KeyKind::Stream {
        return answers.first().map(|groups| streams::first_unread(&key.name, groups)).into_iter().collect();
    }
    let Age::Job { hash, fields, .. } = query.framework.age else { return Vec::new() };
    let before = query.framework.job_name(hash, &query.queue, &query.names);
    let of = |id: Vec<u8>| {
        let mut command = cmd("HMGET");
        command.arg([before.as_bytes(), &id].concat()).arg(fields);
        command
    };
    members(head).into_iter().take(SET_MAX).map(of).collect()
}

fn members(head: Option<&Value>) -> Vec<Vec<u8>> {
    match head {
        Some(Value::BulkString(id)) => vec![id.clone()],
        Some(Value::Array(ids)) => ids.iter().filter_map(|id| redis::from_redis_value(id.clone()).ok()).collect(),
        _ => Vec::new(),
    }
}

/// What the answers say; `waiting`: how many messages this key has that wait.
pub(super) fn read(age: Age, key: &Key, waiting: Option<u64>, head: Option<&Value>, second: &[Value]) -> Oldest {
    let since = |at: Option<u64>| at.map_or(Oldest::Unknown, Oldest::Since);
    match (waiting, age) {
        (Some(0), _) => Oldest::Nothing,
        _ if key.kind == KeyKind::Stream => since(second.first().and_then(streams::added_ms)),
        (_, Age::Message { field, stamp, .. }) => match head {
            // It was taken between two answers.
            Some(Value::Nil) => Oldest::Nothing,
            Some(Value::BulkString(message)) => since(field_of(message, field).and_then(|text| at_ms(stamp, &[Some(text)]))),
            _ => Oldest::Unknown,
        },
        (_, Age::Job { stamp, .. }) => match head {
            Some(Value::Nil) => Oldest::Nothing,
            Some(Value::BulkString(_) | Value::Array(_)) if members(head).len() == second.len() => {
                let of = |fields: &Value| {
                    let fields: Vec<Option<Vec<u8>>> = redis::from_redis_value(fields.clone()).unwrap_or_default();
                    let texts: Vec<Option<String>> = fields.into_iter().map(|text| String::from_utf8(text?).ok()).collect();
                    since(at_ms(stamp, &texts))
                };
                second.iter().map(of).fold(Oldest::Nothing, Oldest::and)
            }
            _ => Oldest::Unknown,
        },
        (_, Age::Unknown) => Oldest::Unknown,
    }
}

/// A field of a JSON object, as text.
fn field_of(message: &[u8], field: &str) -> Option<String> {
    let message: serde_json::Value = serde_json::from_slice(message).ok()?;
    match message.get(field)? {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Milliseconds since the epoch.
fn at_ms(stamp: Stamp, fields: &[Option<String>]) -> Option<u64> {
    let text = fields.first()?.as_deref()?.trim();
    // A float that is negative or no number becomes 0 in the cast: before all times, which is no wait of anybody's.
    let sane = |ms: f64| Some(ms as u64).filter(|ms| *ms > 0);
    match stamp {
        Stamp::SecondsOrMillis => text.parse::<f64>().ok().and_then(|number| sane(if number > SECONDS_MAX { number } else { number * 1000.0 })),
        Stamp::Nanos => text.parse::<u64>().ok().map(|ns| ns / 1_000_000).filter(|ms| *ms > 0),
        Stamp::Iso8601 => {
            let format = &time::format_description::well_known::Rfc3339;
            let at = time::OffsetDateTime::parse(text, format).or_else(|_| time::OffsetDateTime::parse(&format!("{text}Z"), format)).ok()?;
            u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
        }
        Stamp::BullMq => {
            #[derive(Default, Deserialize)]
            struct Options {
                #[serde(default)]
                delay: f64,
            }
            if fields.get(2).is_some_and(Option::is_some) {
                return None;
            }
            let options = fields.get(1).and_then(Option::as_deref).map(serde_json::from_str::<Options>).transpose().ok()?.unwrap_or_default();
            text.parse::<f64>().ok().and_then(|created| sane(created + options.delay.max(0.0)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(stamp: Stamp, fields: &[&str]) -> Option<u64> {
        at_ms(stamp, &fields.iter().map(|text| (*text != "-").then(|| (*text).to_owned())).collect::<Vec<_>>())
    }

    #[test]
    fn times_are_read_as_each_framework_writes_them() {
        for (stamp, fields, ms) in [
            (Stamp::SecondsOrMillis, &["1796043600.25"][..], Some(1_796_043_600_250)),
            (Stamp::SecondsOrMillis, &["1796043600250"], Some(1_796_043_600_250)),
            (Stamp::SecondsOrMillis, &["soon"], None),
            (Stamp::SecondsOrMillis, &["-1"], None),
            (Stamp::Nanos, &["1796043600250000001"], Some(1_796_043_600_250)),
            (Stamp::Iso8601, &["2026-11-30T13:00:00.250000Z"], Some(1_796_043_600_250)),
            (Stamp::Iso8601, &["2026-11-30T13:00:00.25"], Some(1_796_043_600_250)),
            (Stamp::Iso8601, &["-"], None),
            (Stamp::BullMq, &["1796043600000", r#"{"attempts":3}"#, "-"], Some(1_796_043_600_000)),
            (Stamp::BullMq, &["1796043600000", r#"{"delay":250}"#, "-"], Some(1_796_043_600_250)),
            (Stamp::BullMq, &["1796043600000", "{}", "1796043600001"], None),
            (Stamp::BullMq, &["1796043600000", "no json", "-"], None),
        ] {
            assert_eq!(at(stamp, fields), ms, "{stamp:?} {fields:?}");
        }
    }

    #[test]
    fn one_key_that_does_not_say_makes_the_oldest_unknown() {
        let (a, b) = (Oldest::Since(5), Oldest::Since(3));
        assert_eq!(a.and(b).and(Oldest::Nothing), Oldest::Since(3));
        assert_eq!(a.and(Oldest::Unknown).and(b), Oldest::Unknown);
        assert_eq!((a.age_s(1_005), Oldest::Nothing.age_s(9), Oldest::Since(9).age_s(5)), (Some(1.0), None, Some(0.0)));
    }
}
