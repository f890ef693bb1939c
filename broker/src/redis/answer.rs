//! What one command said of one key. In: an answer. Out: a number, that there is none, or the complaint in words that name the key and the mend. Left to
//! others: which commands are sent, adding up (`stats`, `streams`).

use redis::Value;

/// A key's count: known, or why not.
pub(super) type Count = Result<Option<u64>, String>;

/// What one command said of `key`.
pub(super) fn count(key: &str, answer: Option<&Value>) -> Count {
    match answer {
        Some(Value::Int(count)) => Ok(u64::try_from(*count).ok()),
        Some(Value::ServerError(error)) => Err(complaint(key, error)),
        _ => Ok(None),
    }
}

pub(super) fn complaint(key: &str, error: &redis::ServerError) -> String {
    match error.code() {
        "WRONGTYPE" => format!("the key {key:?} holds another type than this worker's queue has: check the annotations queue and worker"),
        code => format!("the key {key:?}: {code} {}", error.details().unwrap_or_default()),
    }
}
