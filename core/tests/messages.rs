//! Every released message, as a golden file: sidecars outlive upgrades of the controller, and the other way round.

use qscaler_core::message::{ControlKind, ControlMessage, GapReason, MESSAGE_BYTES_MAX, MessageError, Report, WorkerState};

const SIGKILL_QUEUE: &str = include_str!("messages/control-sigkill-queue.v1.json");
const RESUME: &str = include_str!("messages/control-resume.v1.json");
const REPORT: &str = include_str!("messages/report.v1.json");
const REPORT_GAPS: &str = include_str!("messages/report-gaps.v1.json");

#[test]
fn control_messages_are_written_and_read_as_they_were_released() {
    for (text, kind) in [(SIGKILL_QUEUE, ControlKind::SigkillQueue), (RESUME, ControlKind::Resume)] {
        let message = ControlMessage::decode(text.as_bytes()).unwrap();
        assert_eq!(message.kind, kind);
        assert_eq!(String::from_utf8(message.encode()).unwrap(), text.trim());
    }
}

#[test]
fn a_report_is_written_and_read_as_it_was_released() {
    let report = Report::decode(REPORT.as_bytes()).unwrap();
    assert_eq!((report.state, report.epoch.0, report.processed_total), (WorkerState::Parked, 7, Some(41)));
    let again: serde_json::Value = serde_json::from_slice(&report.encode()).unwrap();
    assert_eq!(again, serde_json::from_str::<serde_json::Value>(REPORT).unwrap());
}

#[test]
fn gaps_of_a_hold_are_written_and_read_as_they_were_released_and_a_later_reason_is_no_error() {
    let report = Report::decode(REPORT_GAPS.as_bytes()).unwrap();
    assert_eq!(report.gaps.iter().map(|g| g.reason).collect::<Vec<_>>(), [GapReason::NotPermitted, GapReason::NoHandler]);
    let again: serde_json::Value = serde_json::from_slice(&report.encode()).unwrap();
    assert_eq!(again, serde_json::from_str::<serde_json::Value>(REPORT_GAPS).unwrap());
    let later = REPORT_GAPS.replace("noHandler", "somethingNew");
    assert_eq!(Report::decode(later.as_bytes()).unwrap().gaps[1].reason, GapReason::Other);
}

#[test]
fn unknown_fields_of_a_later_release_are_ignored() {
    let mut value: serde_json::Value = serde_json::from_str(SIGKILL_QUEUE).unwrap();
    value["colour"] = "blue".into();
    assert!(ControlMessage::decode(value.to_string().as_bytes()).is_ok());
}

#[test]
fn malformed_messages_are_errors_with_a_reason() {
    assert!(matches!(ControlMessage::decode(b"{\"kill\": 'true'}"), Err(MessageError::Malformed(_))));
    assert!(matches!(ControlMessage::decode(&vec![b' '; MESSAGE_BYTES_MAX + 1]), Err(MessageError::TooLong(_))));
    let later = SIGKILL_QUEUE.replace("\"version\":1", "\"version\":2");
    assert!(matches!(ControlMessage::decode(later.as_bytes()), Err(MessageError::Version(2))));
}
