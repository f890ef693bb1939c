//! Streams with consumer groups. In: what `XINFO` and `XLEN` answer. Out: what waits, what is in work, totals, and where the first entry is that no group of them
//! has read. Left to others: which keys are streams (`core::framework`), adding up (`stats`).

use super::answer::{complaint, count};
use redis::{Cmd, Value, cmd};
use std::collections::HashMap;

/// A stream by its groups: what waits (lag), what is in work (pending), and exact totals. A lag that Redis cannot tell is unknown.
#[derive(Debug, Default, PartialEq)]
pub(super) struct StreamFigures {
    pub(super) waiting: Option<u64>,
    pub(super) pending: Option<u64>,
    pub(super) added: Option<u64>,
    pub(super) done: Option<u64>,
}

pub(super) fn stream(key: &str, groups: &Value, info: &Value, length: &Value) -> Result<StreamFigures, String> {
    if let Value::ServerError(error) = groups {
        let missing = error.details().is_some_and(|d| d.contains("no such key")) || error.code().contains("no such key");
        // No stream, no messages; totals stay unknown.
        let nothing = StreamFigures { waiting: Some(0), pending: Some(0), added: None, done: None };
        return if missing { Ok(nothing) } else { Err(complaint(key, error)) };
    }
    let map = |value: &Value| redis::from_redis_value::<HashMap<String, Value>>(value.clone()).unwrap_or_default();
    let number = |map: &HashMap<String, Value>, field: &str| match map.get(field) {
        Some(Value::Int(number)) => u64::try_from(*number).ok(),
        _ => None,
    };
    let groups: Vec<HashMap<String, Value>> = match groups {
        Value::Array(groups) => groups.iter().map(map).collect(),
        _ => Vec::new(),
    };
    if groups.is_empty() {
        // Nobody reads yet: all of it waits.
        return Ok(StreamFigures { waiting: count(key, Some(length))?, pending: Some(0), added: number(&map(info), "entries-added"), done: None });
    }
    let sum = |field: &str| groups.iter().map(|group| number(group, field)).sum::<Option<u64>>();
    let (pending, read) = (sum("pending"), sum("entries-read"));
    let done = read.zip(pending).map(|(read, pending)| read.saturating_sub(pending));
    Ok(StreamFigures { waiting: sum("lag"), pending, added: number(&map(info), "entries-added"), done })
}

/// Asks for the first entry that some group has not read; where nobody reads, for the first of all.
pub(super) fn first_unread(key: &str, groups: &Value) -> Cmd {
    let group = |group: &Value| {
        let fields: HashMap<String, Value> = redis::from_redis_value(group.clone()).ok()?;
        let id: String = redis::from_redis_value(fields.get("last-delivered-id")?.clone()).ok()?;
        Some((millis(&id)?, id.split_once('-')?.1.parse::<u64>().ok()?))
    };
    let least = match groups {
        Value::Array(groups) => groups.iter().filter_map(group).min(),
        _ => None,
    };
    let mut command = cmd("XRANGE");
    command.arg(key).arg(least.map_or_else(|| "-".to_owned(), |(ms, sequence)| format!("({ms}-{sequence}"))).arg("+").arg("COUNT").arg(1);
    command
}

/// When the entry was added, milliseconds since the epoch: its identifier says so where the server chose it.
pub(super) fn added_ms(entries: &Value) -> Option<u64> {
    let Value::Array(entries) = entries else { return None };
    let Value::Array(entry) = entries.first()? else { return None };
    millis(&redis::from_redis_value::<String>(entry.first()?.clone()).ok()?)
}

fn millis(id: &str) -> Option<u64> {
    id.split_once('-')?.0.parse().ok()
}
