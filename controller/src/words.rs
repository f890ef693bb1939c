//! Small conversions that every room needs: times of the API, and texts cut to what it takes. In: values. Out: values. Left to others: everything.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// Milliseconds since the Unix epoch; times before it count as 0.
pub fn millis(time: &Time) -> u64 {
    u64::try_from(time.0.as_millisecond()).unwrap_or(0)
}

/// A point in time as Kubernetes writes it.
#[must_use]
pub fn time(now_ms: u64) -> Time {
    let seconds = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// A change of the count, as an Event begins.
#[must_use]
pub fn replicas(from: u32, to: u32) -> String {
    format!("replicas {from} -> {to}")
}

/// Cuts a text at no more than `max` bytes, between characters.
pub fn shorten(text: &mut String, max: usize) {
    let end = (0..=max.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
}
