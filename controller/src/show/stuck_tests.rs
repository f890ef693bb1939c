//! What is said when fewer pods are wished for since minutes and none leaves: for each thing that it can hang in.

use super::*;
use crate::testing::{T0_MS, deployment, pod, replicaset, report, view};
use qscaler_core::message::{HoldGap, PodMs, Report};

const WISH: Wish = Wish { for_ms: 180_000, empty: false, no_message: false, max_task_ms: 3_600_000 };

fn stuck(reports: &[Report], phase: &Phase, wish: Wish) -> Option<Stuck> {
    let view = view(&[deployment(2, &[]), replicaset("orders-1", 2), pod("a"), pod("b")]);
    let mut intake = Intake::default();
    for report in reports {
        let pod = view.pods.iter().find(|p| *p.name == *report.pod_name).map(AsRef::as_ref);
        intake.take(report, &"dep".into(), pod, T0_MS).unwrap();
    }
    hangs(&view, &intake, phase, wish, T0_MS)
}

fn told(name: &str, state: WorkerState, busy: Busy, busy_minutes: u64) -> Report {
    Report { busy_since_ms: PodMs(T0_MS - busy_minutes * 60_000), ..report(name, 1, state, busy) }
}

#[test]
fn each_thing_that_a_scale_down_can_hang_in_has_its_reason_and_names_a_pod() {
    let open = WorkerState::Open;
    let idle = told("b", open, Busy::Idle, 5);
    let gate = Report {
        gaps: vec![HoldGap { reason: GapReason::GateCannotClose, detail: "remote control is off".into() }],
        ..told("b", WorkerState::Closing, Busy::Idle, 5)
    };
    let blind = Report {
        gaps: vec![HoldGap { reason: GapReason::IdleUnknown, detail: "started with --without-heartbeat".into() }],
        ..told("b", open, Busy::Unknown, 5)
    };
    let long = |minutes| [told("a", open, Busy::Busy, 1), told("b", open, Busy::Busy, minutes)];
    let empty = Wish { empty: true, no_message: true, ..WISH };
    for (reports, phase, wish, reason, words) in [
        (
            vec![told("a", open, Busy::Busy, 9), told("b", WorkerState::Parked, Busy::Idle, 5)],
            Phase::Echo,
            WISH,
            "Parked",
            "1 pods are parked, and the ReplicaSet",
        ),
        (vec![told("a", open, Busy::Busy, 9), idle], Phase::Asking, WISH, "NobodyParks", "kubectl -n shop logs b -c qscaler-sidecar"),
        (vec![told("a", open, Busy::Idle, 9), gate], Phase::Asking, WISH, "NobodyParks", "pod b: remote control is off"),
        (
            vec![told("a", open, Busy::Busy, 9), told("b", WorkerState::Closing, Busy::Idle, 5)],
            Phase::Asking,
            WISH,
            "NobodyParks",
            "gate is not closed",
        ),
        (vec![told("a", open, Busy::Busy, 9), blind], Phase::Asking, WISH, "IdleUnknown", "--without-heartbeat"),
        (vec![told("a", open, Busy::Busy, 9)], Phase::Asking, WISH, "IdleUnknown", "pod b: its sidecar is not heard"),
        (long(7).to_vec(), Phase::Asking, WISH, "Busy", "pod b for 7 min"),
        (long(7).to_vec(), Phase::Asking, empty, "BusyUnproved", "with an empty queue, and the broker knows of nothing in flight"),
        (long(4).to_vec(), Phase::Asking, empty, "Busy", "pod b for 4 min, with an empty queue"),
        (long(70).to_vec(), Phase::Asking, WISH, "BusyUnproved", "qscaler.dev/max-task-duration"),
    ] {
        let stuck = stuck(&reports, &phase, wish).unwrap();
        assert!(
            stuck.reason == reason && stuck.message.contains(words) && stuck.message.starts_with("fewer pods are wanted since 3 min"),
            "{stuck:?}"
        );
    }
}

#[test]
fn what_goes_on_as_it_should_does_not_hang() {
    assert_eq!(stuck(&[told("a", WorkerState::Open, Busy::Busy, 9)], &Phase::Asking, Wish { for_ms: 60_000, ..WISH }), None);
}
