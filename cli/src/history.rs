//! The last decisions of a workload, as its Events tell them. In: Events. Out: lines, or values for programs, the newest last. Left to others: fetching them (`main`).

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use std::fmt::Write;

/// Lines shown.
const SHOWN_MAX: usize = 12;
/// Our Events carry this name as their reporter.
const REPORTER: &str = "qscaler-controller";

/// When it was last seen.
fn last(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().map(|s| s.last_observed_time.0);
    series.or_else(|| event.event_time.as_ref().map(|t| t.0)).or_else(|| event.metadata.creation_timestamp.as_ref().map(|t| t.0))
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PastDecision {
    /// When it was told last.
    at: Time,
    reason: String,
    /// How often.
    count: i32,
    note: String,
}

/// The last of our Events about the object of this UID, the newest last.
pub(crate) fn last_of(events: &[Event], uid: &str) -> Vec<PastDecision> {
    let ours = |e: &&Event| {
        e.reporting_controller.as_deref() == Some(REPORTER) && e.regarding.as_ref().is_some_and(|about| about.uid.as_deref() == Some(uid))
    };
    let told = |e: &Event| {
        let (reason, note) = (e.reason.clone().unwrap_or_else(|| "?".to_owned()), e.note.clone().unwrap_or_default());
        Some(PastDecision { at: Time(last(e)?), reason, count: e.series.as_ref().map_or(1, |s| s.count), note })
    };
    let mut found: Vec<PastDecision> = events.iter().filter(ours).filter_map(told).collect();
    found.sort_by_key(|told| told.at.0);
    found.split_off(found.len().saturating_sub(SHOWN_MAX))
}

/// The same for people.
pub(crate) fn text(found: &[PastDecision]) -> String {
    let mut out = String::new();
    if found.is_empty() {
        return "\nLast decisions: no Event is left (the API server keeps them for an hour)\n".to_owned();
    }
    let _ = writeln!(out, "\nLast decisions:");
    for PastDecision { at, reason, count, note } in found {
        let times = if *count > 1 { format!(" ({count} times)") } else { String::new() };
        let _ = writeln!(out, "  {}  {reason}{times}: {}", at.0.strftime("%Y-%m-%d %H:%M:%SZ"), note.replace('\n', "\n    "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(uid: &str, reporter: &str, at: &str, note: &str) -> Event {
        serde_json::from_value(
            json!({"metadata": {"name": note}, "eventTime": at, "reason": "ScaledUp", "note": note, "reportingController": reporter,
            "regarding": {"kind": "Deployment", "uid": uid}}),
        )
        .expect("an Event")
    }

    #[test]
    fn only_our_events_of_this_workload_are_told_the_newest_last() {
        let (early, late) = ("2026-01-01T10:00:00.000000Z", "2026-01-01T10:00:05.000000Z");
        let events = [
            event("dep", REPORTER, late, "replicas 3 -> 5"),
            event("dep", REPORTER, early, "replicas 0 -> 3"),
            event("dep", "deployment-controller", late, "scaled up"),
            event("another", REPORTER, late, "replicas 9 -> 1"),
        ];
        let found = last_of(&events, "dep");
        let text = text(&found);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(lines, ["  2026-01-01 10:00:00Z  ScaledUp: replicas 0 -> 3", "  2026-01-01 10:00:05Z  ScaledUp: replicas 3 -> 5"]);
        assert_eq!(
            serde_json::to_value(&found[0]).unwrap(),
            json!({"at": "2026-01-01T10:00:00Z", "reason": "ScaledUp", "count": 1, "note": "replicas 0 -> 3"}),
            "programs get the same"
        );
    }

    #[test]
    fn the_oldest_are_left_out_and_none_is_said() {
        let many: Vec<Event> = (10..40).map(|s| event("dep", REPORTER, &format!("2026-01-01T10:00:{s}.000000Z"), &format!("n{s}"))).collect();
        let told = text(&last_of(&many, "dep"));
        assert!(told.contains("n39") && told.contains("n28") && !told.contains("n27"), "{told}");
        assert!(text(&last_of(&[], "dep")).contains("no Event is left"));
    }
}
