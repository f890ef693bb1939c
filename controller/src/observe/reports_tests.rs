//! Reports that are believed, and those that are not.

use super::*;
use crate::testing::{T0_MS, pod, pod_record, report, with};
use qscaler_core::message::{EndedTasks, Epoch};
use serde_json::json;

fn pods() -> Vec<Arc<PodRecord>> {
    vec![Arc::new(pod_record(&pod("a")))]
}

fn take(intake: &mut Intake, report: &Report, now_ms: u64) -> Result<Taken, Rejected> {
    let pods = pods();
    intake.take(report, &"dep".into(), pods.iter().find(|p| *p.uid == *report.pod_uid).map(Arc::as_ref), now_ms)
}

#[test]
fn a_report_of_a_stranger_of_the_past_or_of_the_future_is_dropped() {
    let mut intake = Intake::default();
    let first = report("a", 5, WorkerState::Open, Busy::Idle);
    assert!(take(&mut intake, &first, T0_MS).is_ok());
    let stranger = report("b", 9, WorkerState::Open, Busy::Idle);
    let forged = Report { pod_uid: "uid-a".into(), ..stranger.clone() };
    let other = Report { workload_uid: "another".into(), sequence: 6, ..first.clone() };
    let future = Report { at_ms: PodMs(T0_MS + 3_600_000), sequence: 6, ..first.clone() };
    for (bad, why) in [
        (&stranger, Rejected::NoSuchPod),
        (&forged, Rejected::NoSuchPod),
        (&other, Rejected::OtherWorkload),
        (&first, Rejected::Old),
        (&future, Rejected::Future),
    ] {
        assert_eq!(take(&mut intake, bad, T0_MS), Err(why));
    }
    let restarted = Report { started_ms: PodMs(T0_MS), sequence: 1, ..first };
    assert!(take(&mut intake, &restarted, T0_MS).is_ok());
}

#[test]
fn tasks_that_ended_are_handed_on_once_and_nonsense_is_not() {
    let mut intake = Intake::default();
    let with_service =
        |sequence, tasks, mean_ms| Report { service: Some(EndedTasks { tasks, mean_ms }), ..report("a", sequence, WorkerState::Open, Busy::Idle) };
    take(&mut intake, &with_service(1, 3, 250.0), T0_MS).unwrap();
    take(&mut intake, &with_service(2, 2, f64::NAN), T0_MS).unwrap();
    take(&mut intake, &with_service(3, u32::MAX, 1.0), T0_MS).unwrap();
    let done = intake.take_completions();
    assert_eq!((done[0].service_s, done.len()), (0.25, COMPLETIONS_MAX));
    assert!(intake.take_completions().is_empty());
}

#[test]
fn a_task_is_taken_up_only_by_a_worker_that_told_before() {
    let mut intake = Intake::default();
    let mut heard = |sequence, state, busy, ended| {
        let service = (ended > 0).then_some(EndedTasks { tasks: ended, mean_ms: 100.0 });
        take(&mut intake, &Report { service, ..report("a", sequence, state, busy) }, T0_MS).unwrap();
        let taken_up = intake.take_taken_up();
        (taken_up.begun, taken_up.found)
    };
    assert_eq!(heard(1, WorkerState::Boot, Busy::Idle, 0), (None, 0));
    assert_eq!(heard(2, WorkerState::Open, Busy::Unknown, 0), (None, 0));
    assert_eq!(heard(3, WorkerState::Open, Busy::Busy, 0), (None, 1), "a worker that starts looks busy until it waits for its first message");
    assert_eq!(heard(4, WorkerState::Open, Busy::Idle, 0), (Some(0), 0));
    assert_eq!(heard(5, WorkerState::Open, Busy::Busy, 0), (Some(1), 0));
    assert_eq!(heard(6, WorkerState::Open, Busy::Busy, 3), (Some(3), 0), "one of them runs, three have ended, one ran before");
    assert_eq!(heard(7, WorkerState::Boot, Busy::Idle, 0), (None, 0), "it has crashed");
    assert_eq!(heard(8, WorkerState::Open, Busy::Busy, 0), (None, 1));
    assert_eq!(heard(9, WorkerState::Parked, Busy::Idle, 1), (Some(0), 0));
}

#[test]
fn a_parked_pod_that_ends_was_drained_once() {
    let mut intake = Intake::default();
    let mut drained = |sequence, state| take(&mut intake, &report("a", sequence, state, Busy::Idle), T0_MS).unwrap().drained;
    let drained: Vec<bool> =
        [WorkerState::Open, WorkerState::Parked, WorkerState::Held, WorkerState::Released].into_iter().zip(1..).map(|(s, n)| drained(n, s)).collect();
    assert_eq!(drained, [false, false, true, false]);
}

#[test]
fn last_words_are_read_once_and_only_if_they_are_the_pods_own() {
    let mut intake = Intake::default();
    let words = |r: &Report| {
        let message = String::from_utf8(r.encode()).unwrap();
        let ended = json!({"terminated": {"exitCode": 0, "containerID": "s1", "message": message}});
        vec![Arc::new(pod_record(&with(pod("a"), "/status/initContainerStatuses/0/state", ended)))]
    };
    let mine = report("a", 9, WorkerState::Released, Busy::Idle);
    assert_eq!(intake.last_words(words(&mine).iter()), std::slice::from_ref(&mine));
    assert!(intake.last_words(words(&mine).iter()).is_empty());
    assert!(Intake::default().last_words(words(&report("b", 9, WorkerState::Released, Busy::Idle)).iter()).is_empty());
    assert!(Intake::default().last_words(pods().iter()).is_empty());
}

#[test]
fn what_is_gone_is_forgotten() {
    let mut intake = Intake::default();
    take(&mut intake, &report("a", 1, WorkerState::Parked, Busy::Busy), T0_MS).unwrap();
    assert_eq!((intake.busy(&pods()), intake.busy(&[])), (1, 0), "a pod that is gone has no task");
    intake.retain(&HashSet::new());
    assert!(intake.heard("uid-a").is_none() && intake.busy(&pods()) == 0);
}

#[test]
fn a_cut_is_counted_once_however_often_its_sidecar_says_it() {
    let mut intake = Intake::default();
    let cut = |sequence, started_ms, cuts| Report { cuts, started_ms: PodMs(started_ms), ..report("a", sequence, WorkerState::Released, Busy::Busy) };
    let told = [cut(1, 1, 1), cut(2, 1, 1), cut(3, 1, 3), cut(1, 2, 1)];
    let counted: Vec<u32> = told.iter().map(|r| take(&mut intake, r, T0_MS).unwrap().cuts).collect();
    assert_eq!(counted, [1, 0, 2, 1], "said again, two more, and said by the sidecar's next life");
    let mut next = Intake::restore(&intake.counted_cuts());
    let counted: Vec<u32> = [cut(3, 1, 3), cut(2, 2, 2)].iter().map(|r| take(&mut next, r, T0_MS).unwrap().cuts).collect();
    assert_eq!(counted, [0, 1], "said to the next controller");
    let many = take(&mut next, &cut(9, 2, u32::MAX), T0_MS).unwrap().cuts;
    assert_eq!((many, next.counted_cuts().len()), (CUTS_PER_REPORT_MAX, 2));
    next.retain(&HashSet::new());
    assert!(next.counted_cuts().is_empty(), "none is left to say it again");
}

#[test]
fn what_no_sidecar_can_say_is_not_believed_and_silences_nobody() {
    let mut intake = Intake::default();
    let first = report("a", 5, WorkerState::Open, Busy::Idle);
    for absurd in [
        Report { epoch: Epoch(u64::MAX), ..first.clone() },
        Report { started_ms: PodMs(u64::MAX), ..first.clone() },
        Report { sequence: u64::MAX, ..first.clone() },
        Report { active_tasks: Some(u32::MAX), ..first.clone() },
    ] {
        assert_eq!(take(&mut intake, &absurd, T0_MS), Err(Rejected::Absurd), "{absurd:?}");
    }
    assert!(take(&mut intake, &first, T0_MS).is_ok());
}
