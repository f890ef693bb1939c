//! Ends of busy workers, told by nobody, by the sidecar first, or by the sidecar later: each is one cut, and the end of a free one is none.

use super::*;
use crate::testing::{T0_MS, pod, pod_record, report, stamp, with};
use qscaler_core::message::{HoldGap, PodMs};
use serde_json::{Value, json};

/// Seconds after the fixtures' beginning.
fn at(second: u64) -> u64 {
    T0_MS + second * 1_000
}

fn said(second: u64, state: WorkerState, busy: Busy) -> Report {
    Report { at_ms: PodMs(at(second)), ..report("a", second + 1, state, busy) }
}

/// The pod whose worker ended at this second.
fn ended(second: i64, exit_code: i32, reason: &str, deadline: Option<i64>) -> Value {
    let end = json!({"terminated": {"exitCode": exit_code, "reason": reason, "containerID": format!("c{second}"), "startedAt": stamp(-60_000), "finishedAt": stamp(second * 1_000)}});
    let pod = with(with(pod("a"), "/status/containerStatuses/0/state", end), "/spec/shareProcessNamespace", json!(true));
    match deadline {
        Some(deadline) => with(pod, "/metadata/deletionTimestamp", json!(stamp(deadline * 1_000))),
        None => pod,
    }
}

/// Plays reports (with the cuts that they tell anew) and what the kubelet shows from some second on; returns the causes counted, and how many told
/// ones were.
fn play(reports: &[(u64, Report, u32)], shown: &[(u64, Value)]) -> (Vec<CutCause>, u32) {
    let (mut cuts, mut causes, mut told) = (Cuts::default(), Vec::new(), 0);
    for second in 0..120 {
        for (_, report, new) in reports.iter().filter(|(when, ..)| *when == second) {
            told += cuts.reported(report, Some("worker"), *new, at(second));
        }
        if let Some((_, value)) = shown.iter().rev().find(|(from, _)| *from <= second) {
            let record = [Arc::new(pod_record(value))];
            causes.extend(cuts.look(record.iter(), Some("worker"), at(second)).into_iter().map(|c| c.cause));
        }
    }
    (causes, told)
}

fn busy_until(second: u64) -> Vec<(u64, Report, u32)> {
    (0..=second).step_by(5).map(|s| (s, said(s, WorkerState::Open, Busy::Busy), 0)).collect()
}

#[test]
fn the_end_of_a_busy_worker_that_no_sidecar_tells_is_one_cut_with_its_cause() {
    for (exit_code, reason, deadline, cause) in [
        (137, "OOMKilled", None, CutCause::OutOfMemory),
        (137, "Error", None, CutCause::Killed),
        (137, "Error", Some(23), CutCause::GraceOver),
        (137, "Error", Some(3_600), CutCause::Killed),
    ] {
        let (causes, _) = play(&busy_until(20), &[(24, ended(22, exit_code, reason, deadline))]);
        assert_eq!(causes, [cause], "{exit_code} {reason} {deadline:?}");
    }
    assert_eq!(play(&busy_until(20), &[(24, ended(22, 0, "Completed", Some(3_600)))]).0, [], "it has finished");
    assert_eq!(play(&busy_until(20), &[(24, ended(22, 143, "Error", Some(3_600)))]).0, [], "by the hold's own signal: the sidecar accounts for it");
}

#[test]
fn where_the_sidecar_could_not_signal_the_kubelets_signal_cuts() {
    for (access, gaps) in [
        (AccessLevel::ReadOnly, vec![]),
        (AccessLevel::None, vec![]),
        (AccessLevel::Full, vec![HoldGap { reason: GapReason::NotPermitted, detail: String::new() }]),
    ] {
        let unheld = Report { access, gaps, ..said(20, WorkerState::Open, Busy::Busy) };
        let gone = Report { access: AccessLevel::None, ..said(23, WorkerState::Released, Busy::Idle) };
        let (causes, _) = play(&[(20, unheld, 0), (23, gone, 0)], &[(24, ended(22, 143, "Error", Some(3_600)))]);
        assert_eq!(causes, [CutCause::NotHeld], "{access:?}");
    }
}

#[test]
fn a_worker_that_left_while_it_was_held_was_not_cut_by_what_ends_the_shell_around_it() {
    let unhandled = |state| {
        let gaps = vec![HoldGap { reason: GapReason::NoHandler, detail: "a web server beside it".to_owned() }];
        Report { access: AccessLevel::Full, gaps, ..said(20, state, Busy::Busy) }
    };
    let ended = [(24, ended(22, 143, "Error", Some(3_600)))];
    let left = Report { access: AccessLevel::None, ..said(22, WorkerState::Released, Busy::Idle) };
    assert_eq!(play(&[(20, unhandled(WorkerState::Held), 0), (22, left, 0)], &ended).0, []);
    // Its hold was never called, or nobody says how it ended.
    let gone = Report { access: AccessLevel::None, ..said(22, WorkerState::Boot, Busy::Idle) };
    assert_eq!(play(&[(20, unhandled(WorkerState::Open), 0), (22, gone, 0)], &ended).0, [CutCause::NotHeld]);
    assert_eq!(play(&[(20, unhandled(WorkerState::Held), 0)], &ended).0, [CutCause::NotHeld]);
}

#[test]
fn a_worker_that_was_free_or_not_heard_of_lately_has_lost_nothing() {
    let killed = [(40, ended(38, 137, "Error", None))];
    let mut free = busy_until(20);
    free.push((30, said(30, WorkerState::Held, Busy::Idle), 0));
    assert_eq!(play(&free, &killed).0, []);
    // Frozen, seen idle, and killed within a second.
    free.pop();
    free.push((38, said(38, WorkerState::Held, Busy::Idle), 0));
    assert_eq!(play(&free, &killed).0, []);
    assert_eq!(play(&busy_until(20), &[(100, ended(95, 137, "Error", None))]).0, [], "an old report says nothing");
    assert_eq!(play(&[], &killed).0, []);
    let mut unknown = busy_until(20);
    unknown.push((25, said(25, WorkerState::Open, Busy::Unknown), 0));
    assert_eq!(play(&unknown, &killed).0, []);
}

#[test]
fn a_worker_that_is_started_again_and_busy_at_once_is_still_a_cut() {
    let mut reports = busy_until(20);
    reports.push((23, said(23, WorkerState::Boot, Busy::Idle), 0));
    reports.push((25, said(25, WorkerState::Open, Busy::Busy), 0));
    assert_eq!(play(&reports, &[(30, ended(22, 137, "OOMKilled", None))]).0, [CutCause::OutOfMemory]);
}

#[test]
fn what_a_sidecar_tells_before_or_after_the_kubelet_is_one_cut() {
    for told_at in [21, 27, 45] {
        let mut reports = busy_until(20);
        reports.push((told_at, said(told_at, WorkerState::Released, Busy::Busy), 1));
        let (causes, told) = play(&reports, &[(24, ended(22, 137, "Error", Some(22)))]);
        assert_eq!(causes.len() + told as usize, 1, "told after {told_at} s: {causes:?} {told}");
    }
    let mut reports = busy_until(20);
    reports.push((21, said(21, WorkerState::Released, Busy::Busy), 3));
    assert_eq!(play(&reports, &[(24, ended(22, 137, "Error", Some(22)))]), (vec![], 3));
}

fn kills(second: u64, kills: u64) -> Report {
    let peaks = qscaler_core::size::Peaks { oom_kills: kills, instance: Some("c".into()), ..Default::default() };
    Report { peaks: [("worker".to_owned(), peaks)].into(), ..said(second, WorkerState::Open, Busy::Busy) }
}

#[test]
fn a_process_killed_for_want_of_memory_in_a_busy_worker_is_a_cut_and_its_containers_end_no_second_one() {
    let running = [(0, pod("a"))];
    let reports = [(0, kills(0, 4), 0), (5, kills(5, 4), 0), (10, kills(10, 5), 0), (15, kills(15, 5), 0), (40, kills(40, 7), 0)];
    assert_eq!(play(&reports, &running).0, [CutCause::OutOfMemory; 3], "what was before the first report is not known");
    let reports = [(0, kills(0, 0), 0), (10, kills(10, 1), 0)];
    assert_eq!(play(&reports, &[(0, pod("a")), (12, ended(10, 137, "OOMKilled", None))]).0, [CutCause::OutOfMemory]);
    let reports = [(0, kills(0, 0), 0), (14, kills(14, 1), 0)];
    assert_eq!(play(&reports, &[(0, pod("a")), (12, ended(10, 137, "OOMKilled", None))]).0, [CutCause::OutOfMemory]);
}

#[test]
fn a_pod_deleted_without_grace_in_its_task_is_a_cut() {
    let forced = |pod: Value| with(with(pod, "/metadata/deletionTimestamp", json!(stamp(21_000))), "/metadata/deletionGracePeriodSeconds", json!(0));
    let running = with(pod("a"), "/status/containerStatuses/0/state", json!({"running": {"startedAt": stamp(-50_000)}}));
    assert_eq!(play(&busy_until(20), &[(22, forced(running.clone()))]).0, [CutCause::Forced]);
    let mut free = busy_until(20);
    free.push((21, said(21, WorkerState::Open, Busy::Idle), 0));
    assert_eq!(play(&free, &[(22, forced(running))]).0, []);
    assert_eq!(play(&busy_until(20), &[(22, forced(ended(21, 0, "Completed", Some(21))))]).0, [], "it ended as it should");
}
