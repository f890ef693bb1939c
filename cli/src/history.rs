//! The last decisions of a workload, as its Events tell them. In: Events. Out: lines, the newest last. Left to others: fetching them (`main`).

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::Timestamp;
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

/// The last of our Events about the object of this UID.
pub(crate) fn text(events: &[Event], uid: &str) -> String {
    let ours = |e: &&Event| {
        e.reporting_controller.as_deref() == Some(REPORTER) && e.regarding.as_ref().is_some_and(|about| about.uid.as_deref() == Some(uid))
    };
    let mut found: Vec<(Timestamp, &Event)> = events.iter().filter(ours).filter_map(|e| Some((last(e)?, e))).collect();
    found.sort_by_key(|(at, _)| *at);
    let mut out = String::new();
    if found.is_empty() {
        return "\nLast decisions: no Event is left (the API server keeps them for an hour)\n".to_owned();
    }
    let _ = writeln!(out, "\nLast decisions:");
    for (at, event) in found.iter().skip(found.len().saturating_sub(SHOWN_MAX)) {
        let times = event.series.as_ref().map_or_else(String::new, |s| format!(" ({} times)", s.count));
        let note = event.note.as_deref().unwrap_or_default().replace('\n', "\n    ");
        let _ = writeln!(out, "  {}  {}{times}: {note}", at.strftime("%Y-%m-%d %H:%M:%SZ"), event.reason.as_deref().unwrap_or("?"));
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
        let text = text(&events, "dep");
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(lines, ["  2026-01-01 10:00:00Z  ScaledUp: replicas 0 -> 3", "  2026-01-01 10:00:05Z  ScaledUp: replicas 3 -> 5"]);
    }

    #[test]
    fn the_oldest_are_left_out_and_none_is_said() {
        let many: Vec<Event> = (10..40).map(|s| event("dep", REPORTER, &format!("2026-01-01T10:00:{s}.000000Z"), &format!("n{s}"))).collect();
        let told = text(&many, "dep");
        assert!(told.contains("n39") && told.contains("n28") && !told.contains("n27"), "{told}");
        assert!(text(&[], "dep").contains("no Event is left"));
    }
}
