//! Work put aside for later: delayed, scheduled, to be retried. In: a key, the answers to its commands. Out: how many of its messages are due, and when the
//! next one is. Left to others: which keys a framework has (`core::framework`), adding up (`stats`).
//!
//! Keys of all queues, and lists of ids with their messages beside them, are looked into as far as [`LOOKED_INTO`] entries: what is due beyond that counts
//! (too many is safe), and a next one beyond that is not known.

use qscaler_core::framework::{Clock, Key, KeyKind};
use redis::{Cmd, Value, cmd};
use serde::Deserialize;

/// Entries that are read: each holds its message.
const LOOKED_INTO: usize = 256;
/// Entries not due yet that are read for the next one of a queue.
const NEXT_LOOKED_INTO: usize = 16;

/// What a key says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Later {
    /// Messages that are due: they wait.
    pub(super) due: u64,
    /// When the next one is due, milliseconds since the epoch.
    pub(super) next_ms: Option<u64>,
    /// Since when the first of those that are due is, milliseconds since the epoch; None: not known, or none is.
    pub(super) since_ms: Option<u64>,
}

impl Later {
    pub(super) fn and(self, other: Self) -> Self {
        let sooner = |a: Option<u64>, b: Option<u64>| [a, b].into_iter().flatten().min();
        // What is not known of one is not known of both.
        let known = [self, other].iter().all(|one| one.due == 0 || one.since_ms.is_some());
        Self {
            due: self.due.saturating_add(other.due),
            next_ms: sooner(self.next_ms, other.next_ms),
            since_ms: sooner(self.since_ms, other.since_ms).filter(|_| known),
        }
    }
}

/// The commands that measure such a key; none for a key of another kind.
pub(super) fn commands(key: &Key, now_ms: u64) -> Vec<Cmd> {
    let range = |from: &str, to: &str, count: usize| {
        let mut command = cmd("ZRANGEBYSCORE");
        command.arg(&key.name).arg(from).arg(to).arg("WITHSCORES").arg("LIMIT").arg(0).arg(count);
        command
    };
    let due = |clock: Clock| {
        let mut command = cmd("ZCOUNT");
        command.arg(&key.name).arg("-inf").arg(clock.due_until(now_ms));
        command
    };
    let after = |clock: Clock| format!("({}", clock.due_until(now_ms));
    match key.kind {
        KeyKind::Due { clock, .. } => vec![due(clock), range("-inf", &clock.due_until(now_ms), 1), range(&after(clock), "+inf", 1)],
        KeyKind::DueOfAll { clock } => {
            let until = clock.due_until(now_ms);
            vec![due(clock), range("-inf", &until, LOOKED_INTO), range(&after(clock), "+inf", NEXT_LOOKED_INTO)]
        }
        KeyKind::DueList => {
            let (mut length, mut ids) = (cmd("LLEN"), cmd("LRANGE"));
            length.arg(&key.name);
            ids.arg(&key.name).arg(0).arg(LOOKED_INTO - 1);
            vec![length, ids]
        }
        _ => Vec::new(),
    }
}

/// What else is to be asked, now that the first answers are there.
pub(super) fn second(key: &Key, answers: &[Value]) -> Option<Cmd> {
    match (key.kind, answers) {
        (KeyKind::DueList, [_, Value::Array(ids)]) if !ids.is_empty() => {
            let ids: Vec<Vec<u8>> = ids.iter().filter_map(|id| redis::from_redis_value(id.clone()).ok()).collect();
            let mut command = cmd("HMGET");
            command.arg(format!("{}.msgs", key.name)).arg(ids);
            Some(command)
        }
        _ => None,
    }
}

/// What the answers say of this queue; the error names the key.
pub(super) fn read(key: &Key, queue: &str, answers: &[Value], second: Option<&Value>, now_ms: u64) -> Result<Later, String> {
    for answer in answers.iter().chain(second) {
        if let Value::ServerError(error) = answer {
            return Err(format!("{:?}: {} {}", key.name, error.code(), error.details().unwrap_or_default()));
        }
    }
    let count = |answer: &Value| redis::from_redis_value::<u64>(answer.clone()).unwrap_or(0);
    Ok(match (key.kind, answers) {
        (KeyKind::Due { clock, .. }, [due, first, next]) => {
            let at = |answer: &Value| scored(answer).first().map(|(_, score)| clock.due_ms(*score));
            Later { due: count(due), next_ms: at(next), since_ms: at(first) }
        }
        (KeyKind::DueOfAll { clock }, [all, due, next]) => {
            let mine = |(member, _): &(Vec<u8>, f64)| queue_in(member).is_none_or(|of| of == queue);
            let (due, next) = (scored(due), scored(next));
            let unread = count(all).saturating_sub(due.len() as u64);
            Later {
                due: due.iter().filter(|entry| mine(entry)).count() as u64 + unread,
                next_ms: next.iter().find(|entry| mine(entry)).map(|(_, score)| clock.due_ms(*score)),
                since_ms: due.iter().find(|entry| mine(entry)).map(|(_, score)| clock.due_ms(*score)),
            }
        }
        (KeyKind::DueList, [length, ids]) => {
            let read = match ids {
                Value::Array(ids) => ids.len() as u64,
                _ => 0,
            };
            let messages: Vec<Option<Vec<u8>>> = second.and_then(|values| redis::from_redis_value(values.clone()).ok()).unwrap_or_default();
            // A message that says no time is due.
            let etas: Vec<u64> = messages.iter().flatten().map(|message| eta_in(message).unwrap_or(0)).collect();
            Later {
                due: etas.iter().filter(|eta| **eta <= now_ms).count() as u64 + count(length).saturating_sub(read),
                next_ms: etas.iter().copied().filter(|eta| *eta > now_ms).min(),
                since_ms: etas.into_iter().filter(|eta| *eta <= now_ms).min().filter(|eta| *eta > 0),
            }
        }
        _ => Later::default(),
    })
}

/// Members with their scores; RESP2 gives scores as text.
fn scored(answer: &Value) -> Vec<(Vec<u8>, f64)> {
    redis::from_redis_value(answer.clone()).unwrap_or_default()
}

/// The queue that a job names. None: it does not parse (then it counts).
fn queue_in(job: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Job {
        queue: String,
    }
    serde_json::from_slice::<Job>(job).ok().map(|job| job.queue)
}

/// When a message of Dramatiq is due, milliseconds since the epoch.
fn eta_in(message: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Message {
        options: Options,
    }
    #[derive(Deserialize)]
    struct Options {
        eta: u64,
    }
    serde_json::from_slice::<Message>(message).ok().map(|message| message.options.eta)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: KeyKind) -> Key {
        Key { kind, name: "k".into() }
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn of_a_set_of_all_queues_only_this_queue_s_jobs_count_and_those_that_were_not_read() {
        let due = Value::Array(vec![bulk(r#"{"queue":"q"}"#), bulk("1"), bulk(r#"{"queue":"r"}"#), bulk("2"), bulk("no json"), bulk("3")]);
        let next = Value::Array(vec![bulk(r#"{"queue":"r"}"#), bulk("50"), bulk(r#"{"queue":"q"}"#), bulk("60.5")]);
        let read = |all: i64| {
            read(&key(KeyKind::DueOfAll { clock: Clock::Seconds }), "q", &[Value::Int(all), due.clone(), next.clone()], None, 10_000).unwrap()
        };
        assert_eq!(read(3), Later { due: 2, next_ms: Some(60_500), since_ms: Some(1_000) });
        assert_eq!(read(13).due, 12);
    }

    #[test]
    fn a_delayed_message_waits_from_its_time_on() {
        let ids = Value::Array(vec![bulk("a"), bulk("b"), bulk("c")]);
        let message = |eta: u64| bulk(&format!(r#"{{"options": {{"eta": {eta}}}}}"#));
        let second = Value::Array(vec![message(900), message(1_500), bulk("?")]);
        let read = read(&key(KeyKind::DueList), "q", &[Value::Int(3), ids], Some(&second), 1_000).unwrap();
        // The one that says no time makes the first of them unknown.
        assert_eq!(read, Later { due: 2, next_ms: Some(1_500), since_ms: None });
    }

    #[test]
    fn the_sooner_of_two_keys_is_next() {
        let (a, b) = (Later { due: 1, next_ms: None, since_ms: None }, Later { due: 2, next_ms: Some(9), since_ms: Some(3) });
        assert_eq!(a.and(b), Later { due: 3, next_ms: Some(9), since_ms: None });
        assert_eq!(b.and(Later { due: 0, next_ms: Some(4), since_ms: None }), Later { due: 2, next_ms: Some(4), since_ms: Some(3) });
    }
}
