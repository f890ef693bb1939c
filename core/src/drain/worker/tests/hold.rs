//! The kubelet's hooks in, signals and answers out: how a worker is told to leave, and when its pod may end.

use super::*;

#[test]
fn a_hold_signals_at_once_and_answers_when_the_worker_has_left() {
    let mut pod = Pod::open(settings());
    pod.on(BUSY);
    assert_eq!(pod.on(WorkerEvent::HoldCalled), [TERM, E::Report]);
    pod.is(WorkerState::Held);
    assert_eq!(pod.on(WorkerEvent::OwnHookCalled), []);
    assert_eq!(pod.on(exited(1)), [E::AnswerHolds, E::Report]);
    pod.is(WorkerState::Released);
    assert_eq!(pod.on(WorkerEvent::Terminated), [E::Report, E::Exit]);
}

#[test]
fn many_hold_calls_are_one_signal_and_one_answer() {
    let mut pod = Pod::open(settings());
    let calls = pod.all([WorkerEvent::HoldCalled, WorkerEvent::OwnHookCalled, WorkerEvent::HoldCalled, WorkerEvent::HoldCalled]);
    assert_eq!(calls.iter().filter(|e| **e == TERM).count(), 1);
    let end = pod.all([exited(1), WorkerEvent::HoldCalled]);
    assert_eq!(end.iter().filter(|e| **e == E::AnswerHolds).count(), 2, "a late call is answered too");
}

#[test]
fn holds_are_answered_at_once_without_a_worker_or_a_way_to_signal_it() {
    let mut pod = Pod::new(settings());
    assert!(pod.on(WorkerEvent::HoldCalled).contains(&E::AnswerHolds));

    let mut pod = Pod::open(settings());
    pod.on(WorkerEvent::HoldCalled);
    assert_eq!(pod.on(WorkerEvent::SignalFailed), [E::AnswerHolds, E::Report]);
    assert_eq!(pod.on(WorkerEvent::HoldCalled), [E::AnswerHolds], "and never signalled again");

    let mut pod = Pod::open(WorkerSettings { signals: vec![], ..settings() });
    let effects = pod.on(WorkerEvent::HoldCalled);
    assert!(effects.contains(&E::AnswerHolds) && !effects.iter().any(|e| matches!(e, E::Signal(_))), "{effects:?}");
}

#[test]
fn a_held_pod_never_opens_its_gate() {
    let mut pod = Pod::parked(gated());
    pod.all([WorkerEvent::HoldCalled, WorkerEvent::OwnHookCalled]);
    let mut effects = pod.all([resume(9), WorkerEvent::GateOpened, IDLE, token(9)]);
    effects.extend(pod.pass(10 * LEASE_MS));
    assert!(!effects.contains(&E::OpenGate) && !effects.contains(&E::ListenShared(true)), "{effects:?}");
    pod.is(WorkerState::Held);
}

#[test]
fn after_a_liveness_kill_the_state_returns_and_the_gate_stays_closed_for_a_second() {
    for (mut pod, state) in [(Pod::open(gated()), WorkerState::Open), (Pod::parked(gated()), WorkerState::Parked)] {
        pod.all([WorkerEvent::HoldCalled, WorkerEvent::GateClosed, exited(1)]);
        pod.is(WorkerState::Released);
        let effects = pod.on(seen(2));
        assert!(effects.contains(&E::CloseGate) && !effects.iter().any(|e| matches!(e, E::Signal(_))), "{effects:?}");
        pod.is(state);
        assert_eq!(pod.pass(NEW_MAIN_CLOSED_MS - 1), []);
        let effects = pod.pass(1);
        assert_eq!(effects.contains(&E::OpenGate), state == WorkerState::Open, "{effects:?}");
    }
}

#[test]
fn a_deletion_hidden_behind_a_liveness_kill_signals_the_new_worker_at_once() {
    let mut pod = Pod::open(gated());
    pod.all([WorkerEvent::HoldCalled, exited(1), seen(2)]);
    pod.pass(60);
    let effects = pod.all([WorkerEvent::HoldCalled, WorkerEvent::OwnHookCalled]);
    assert!(effects.contains(&TERM), "{effects:?}");
    assert!(!pod.pass(10_000).contains(&E::OpenGate));
    pod.is(WorkerState::Held);
}

#[test]
fn a_worker_first_seen_in_a_pod_that_ends_is_signalled_by_its_own_hold_call_only() {
    let mut pod = Pod::open(gated());
    pod.all([WorkerEvent::OwnHookCalled, WorkerEvent::HoldCalled, exited(1)]);
    assert_eq!(pod.on(seen(2)), [E::CloseGate, E::Report], "the kubelet's TERM may have reached it already");
    pod.is(WorkerState::Held);
    assert!(pod.on(WorkerEvent::HoldCalled).contains(&TERM));
}

#[test]
fn the_kubelet_restarts_a_worker_that_has_just_exited() {
    let mut pod = Pod::parked(gated());
    assert_eq!(pod.on(exited(1)), []);
    pod.is(WorkerState::Parked);
    assert_eq!(pod.on(seen(2)), [E::CloseGate], "its own gate is open: it must take nothing");
    pod.is(WorkerState::Parked);
    assert!(pod.pass(LEASE_MS).contains(&E::OpenGate));
}

#[test]
fn a_hold_in_closing_gives_the_token_to_another_pod() {
    let mut pod = Pod::open(gated());
    pod.on(token(1));
    assert!(pod.on(WorkerEvent::HoldCalled).contains(&E::GiveBack));
}

#[test]
fn two_step_signals_end_on_evidence_younger_than_the_first_step() {
    let two = WorkerSettings { signals: vec![Signal::Tstp, Signal::Term], ..settings() };
    let mut pod = Pod::open(two);
    pod.on(BUSY);
    assert_eq!(pod.on(WorkerEvent::HoldCalled), [TSTP, E::Report]);
    pod.pass(QUIET_SETTLE_MS - 1);
    assert_eq!(pod.on(IDLE), [], "too young");
    pod.pass(1);
    assert_eq!(pod.on(BUSY), []);
    assert_eq!(pod.on(IDLE), [TERM]);
    assert_eq!(pod.on(IDLE), []);
}

#[test]
fn without_evidence_the_last_signal_waits_as_long_as_a_task_may_run() {
    let two = WorkerSettings { signals: vec![Signal::Tstp, Signal::Term], ..settings() };
    let mut pod = Pod::new(two.clone());
    pod.all([seen(1), UNKNOWN, WorkerEvent::HoldCalled]);
    assert!(!pod.pass(599_999).contains(&TERM));
    assert!(pod.pass(1).contains(&TERM));

    let mut pod = Pod::open(two);
    pod.all([BUSY, WorkerEvent::HoldCalled]);
    assert!(!pod.pass(700_000).contains(&TERM), "a task is running, and the policy is to wait");
}

#[test]
fn the_deadline_cuts_only_by_policy_and_counts_it() {
    let mut pod = Pod::open(settings());
    pod.all([BUSY, WorkerEvent::HoldCalled]);
    assert_eq!(pod.pass(10_000_000), []);

    let cut = WorkerSettings { deadline_policy: DeadlinePolicy::Cut, ..settings() };
    let mut pod = Pod::open(cut.clone());
    pod.all([BUSY, WorkerEvent::HoldCalled]);
    pod.pass(300_000);
    pod.on(WorkerEvent::HoldCalled);
    assert_eq!(pod.pass(299_999), [], "a repeated call does not move the deadline");
    let effects = pod.pass(1);
    assert!(matches!(&effects[..], [E::CountCut(_), E::AnswerHolds, E::KillMain, E::Report]), "{effects:?}");

    // It said idle before it was told to leave, and nothing since: Celery falls silent then, and may have taken a task in between.
    let mut pod = Pod::open(cut);
    pod.all([IDLE, WorkerEvent::HoldCalled]);
    assert!(pod.pass(600_000).iter().any(|e| matches!(e, E::CountCut(cause) if cause.contains("not known"))));

    let mut pod = Pod::open(WorkerSettings { deadline_policy: DeadlinePolicy::Cut, ..gated() });
    pod.all([WorkerEvent::HoldCalled, WorkerEvent::GateClosed, IDLE]);
    assert!(!pod.pass(600_000).iter().any(|e| matches!(e, E::CountCut(_))), "nothing ran, nothing was cut");
}

#[test]
fn a_deaf_worker_is_killed_only_when_it_is_quiet_behind_a_gate() {
    let mut pod = Pod::open(gated());
    pod.all([WorkerEvent::HoldCalled, WorkerEvent::GateClosed, IDLE]);
    assert!(pod.pass(DEAF_AFTER_MS).contains(&E::KillMain));

    let mut pod = Pod::open(gated());
    pod.all([WorkerEvent::HoldCalled, WorkerEvent::GateClosed, BUSY]);
    assert!(!pod.pass(DEAF_AFTER_MS * 10).contains(&E::KillMain));

    let mut pod = Pod::open(settings());
    pod.all([WorkerEvent::HoldCalled, IDLE]);
    assert!(!pod.pass(DEAF_AFTER_MS * 10).contains(&E::KillMain));
}

#[test]
fn release_ends_a_hold_and_counts_the_cut_task_and_means_nothing_outside_a_hold() {
    let mut pod = Pod::open(settings());
    assert_eq!(pod.on(release()), []);
    pod.all([BUSY, WorkerEvent::HoldCalled]);
    let effects = pod.on(release());
    assert!(matches!(&effects[..], [E::CountCut(_), E::AnswerHolds, E::KillMain, E::Report]), "{effects:?}");
}

#[test]
fn term_with_a_held_worker_is_no_proof_of_idleness() {
    let mut pod = Pod::open(settings());
    pod.all([BUSY, WorkerEvent::HoldCalled, WorkerEvent::OwnHookCalled]);
    let effects = pod.on(WorkerEvent::Terminated);
    assert!(matches!(&effects[..], [E::CountCut(_), E::AnswerHolds, E::Report]), "{effects:?}");
    assert_eq!(pod.on(exited(1)), [E::Report, E::Exit]);
    assert_eq!(pod.all([seen(2), IDLE, token(1), WorkerEvent::HoldCalled]), [], "nothing after the end");
}

#[test]
fn the_end_of_a_worker_that_is_not_seen_is_no_cut_unless_it_had_a_task() {
    for (evidence, cuts) in [(None, 0), (Some(UNKNOWN), 0), (Some(IDLE), 0), (Some(BUSY), 1)] {
        let mut pod = Pod::new(WorkerSettings { signals: Vec::new(), ..settings() });
        pod.on(seen(UNSEEN));
        evidence.map(|evidence| pod.on(evidence));
        // The hold is left to the kubelet at once; the sidecar is stopped once the worker has left, or its grace is spent.
        pod.all([WorkerEvent::HoldCalled, WorkerEvent::OwnHookCalled]);
        let effects = pod.on(WorkerEvent::Terminated);
        assert_eq!(effects.iter().filter(|e| matches!(e, E::CountCut(_))).count(), cuts, "{effects:?}");
        assert_eq!(effects.last(), Some(&E::Exit));
    }
}

#[test]
fn a_sidecar_stopped_alone_leaves_its_worker_in_peace() {
    let mut pod = Pod::open(settings());
    let effects = pod.all([BUSY, WorkerEvent::OwnHookCalled, WorkerEvent::Terminated]);
    assert!(!effects.iter().any(|e| matches!(e, E::Signal(_) | E::KillMain | E::CountCut(_))), "{effects:?}");
    assert_eq!(effects.last(), Some(&E::Exit));
}

#[test]
fn a_token_in_hand_goes_back_before_the_sidecar_leaves() {
    let mut pod = Pod::open(settings());
    pod.on(token(1));
    let effects = pod.all([exited(1), WorkerEvent::OwnHookCalled, WorkerEvent::Terminated]);
    assert!(effects.contains(&E::GiveBack), "{effects:?}");
}

#[test]
fn events_of_an_older_process_are_ignored() {
    let mut pod = Pod::open(settings());
    pod.on(seen(2));
    assert_eq!(pod.all([exited(1), seen(2)]), []);
    pod.is(WorkerState::Open);
}

#[test]
fn a_worker_that_hears_no_signal_is_killed_only_when_idle_behind_its_closed_gate() {
    let deaf = WorkerSettings { kill_behind_gate: true, signals: vec![], ..gated() };
    let mut pod = Pod::open(deaf.clone());
    assert!(!pod.all([BUSY, WorkerEvent::HoldCalled]).iter().any(|e| matches!(e, E::Signal(_) | E::KillMain | E::AnswerHolds)));
    // Idle, but it may take a task until the gate is closed; and what was seen before does not count.
    assert!(!pod.all([IDLE, WorkerEvent::GateClosed]).contains(&E::KillMain));
    assert_eq!(pod.all([IDLE, IDLE]).iter().filter(|e| **e == E::KillMain).count(), 1);
    assert!(pod.on(exited(1)).contains(&E::AnswerHolds));
    // Parked already: at once.
    assert!(Pod::parked(deaf).on(WorkerEvent::HoldCalled).contains(&E::KillMain));
}

const NO_HANDLER: WorkerEvent = WorkerEvent::Telling(Telling::NoHandler);
fn refused(kubelet_reaches: bool) -> WorkerEvent {
    WorkerEvent::Telling(Telling::Refused { kubelet_reaches })
}

#[test]
fn a_worker_without_a_handler_is_held_until_evidence_of_the_hold_says_that_it_is_idle() {
    let mut pod = Pod::open(settings());
    // Idle before the hold proves nothing in it.
    let effects = pod.all([IDLE, WorkerEvent::HoldCalled, NO_HANDLER]);
    assert!(!effects.iter().any(|e| matches!(e, E::KillMain | E::AnswerHolds)), "{effects:?}");
    assert_eq!(pod.all([BUSY, UNKNOWN, NO_HANDLER]), []);
    assert_eq!(pod.all([IDLE, IDLE]), [E::KillMain]);
    assert!(pod.on(exited(1)).contains(&E::AnswerHolds));

    // It has got its handler meanwhile, and was told.
    let mut pod = Pod::open(settings());
    pod.all([WorkerEvent::HoldCalled, NO_HANDLER, WorkerEvent::Telling(Telling::Told)]);
    assert_eq!(pod.on(IDLE), []);

    // Nothing tells: to the end of the grace, which is counted.
    let mut pod = Pod::new(settings());
    pod.all([seen(1), UNKNOWN, WorkerEvent::HoldCalled, NO_HANDLER]);
    assert!(!pod.pass(10_000_000).iter().any(|e| matches!(e, E::KillMain | E::AnswerHolds)));
    assert!(pod.on(WorkerEvent::Terminated).iter().any(|e| matches!(e, E::CountCut(_))));

    // Behind a gate, only evidence from there.
    let mut pod = Pod::open(gated());
    assert!(!pod.all([WorkerEvent::HoldCalled, NO_HANDLER, IDLE]).contains(&E::KillMain));
    assert!(pod.all([WorkerEvent::GateClosed, IDLE]).contains(&E::KillMain));
}

#[test]
fn a_worker_that_may_not_be_signalled_is_left_to_the_kubelet_only_where_its_term_cuts_nothing() {
    // Celery, RQ: the kubelet's TERM is the very signal.
    let mut pod = Pod::open(settings());
    pod.all([BUSY, WorkerEvent::HoldCalled]);
    assert_eq!(pod.on(refused(true)), [E::AnswerHolds, E::Report]);
    // The same behind a shell, which would die of it.
    let mut pod = Pod::open(settings());
    assert!(!pod.all([BUSY, WorkerEvent::HoldCalled, refused(false)]).contains(&E::AnswerHolds));
    assert_eq!(pod.on(IDLE), [E::AnswerHolds, E::Report]);
    // Huey dies of TERM.
    let huey = WorkerSettings { signals: vec![Signal::Int], ..settings() };
    let mut pod = Pod::open(huey.clone());
    assert!(!pod.all([BUSY, WorkerEvent::HoldCalled, refused(false)]).contains(&E::AnswerHolds));
    assert_eq!(pod.on(IDLE), [E::AnswerHolds, E::Report]);
    // Sidekiq takes 25 s for it: held while it is seen busy; where nothing tells, as without a sidecar.
    let two = WorkerSettings { signals: vec![Signal::Tstp, Signal::Term], ..settings() };
    let mut pod = Pod::open(two.clone());
    assert!(!pod.all([BUSY, WorkerEvent::HoldCalled, refused(true)]).contains(&E::AnswerHolds));
    assert_eq!(pod.on(UNKNOWN), [E::AnswerHolds, E::Report]);
    // Nothing tells, and TERM cuts: as long as a task may run, and it is counted.
    let mut pod = Pod::new(huey);
    pod.all([seen(1), UNKNOWN, WorkerEvent::HoldCalled, refused(false)]);
    assert!(!pod.pass(599_999).contains(&E::AnswerHolds));
    let effects = pod.pass(1);
    assert!(matches!(&effects[..], [E::CountCut(_), E::AnswerHolds, E::Report]), "{effects:?}");
}

#[test]
fn when_no_worker_process_is_left_the_hold_is_answered_and_nothing_is_cut() {
    let mut pod = Pod::open(settings());
    pod.all([BUSY, WorkerEvent::HoldCalled, WorkerEvent::OwnHookCalled]);
    assert_eq!(pod.on(WorkerEvent::WorkersLeft), [E::AnswerHolds, E::Report]);
    pod.is(WorkerState::Released);
    assert_eq!(pod.on(WorkerEvent::WorkersLeft), []);
    assert_eq!(Pod::open(settings()).on(WorkerEvent::WorkersLeft), [], "outside a hold it means nothing");
}

#[test]
fn another_containers_restart_never_touches_the_worker_and_is_answered_soon() {
    let mut pod = Pod::open(gated());
    assert_eq!(pod.on(WorkerEvent::HelperHoldCalled), []);
    pod.is(WorkerState::Open);
    assert_eq!(pod.pass(HELPER_WAIT_MS - 1), []);
    assert_eq!(pod.pass(1), [E::AnswerHelpers]);
    pod.is(WorkerState::Open);
}

#[test]
fn at_the_pods_end_another_containers_hook_waits_until_the_worker_has_left_in_whatever_order_they_come() {
    let (helper, own, hold) = (WorkerEvent::HelperHoldCalled, WorkerEvent::OwnHookCalled, WorkerEvent::HoldCalled);
    let orders = [
        [&helper, &own, &hold],
        [&helper, &hold, &own],
        [&own, &helper, &hold],
        [&own, &hold, &helper],
        [&hold, &own, &helper],
        [&hold, &helper, &own],
    ];
    for order in orders {
        let mut pod = Pod::open(settings());
        pod.on(BUSY);
        let mut effects = pod.all(order.map(Clone::clone));
        effects.extend(pod.pass(600_000));
        assert_eq!(effects.iter().filter(|e| **e == TERM).count(), 1, "{order:?}");
        assert!(!effects.iter().any(|e| matches!(e, E::AnswerHelpers | E::AnswerHolds)), "{order:?}: {effects:?}");
        assert!(pod.on(exited(1)).contains(&E::AnswerHolds), "it answers both");
        assert_eq!(pod.on(helper.clone()), [E::AnswerHelpers], "a late call is answered too");
    }
    // The worker is not there: a crash loop.
    let mut pod = Pod::new(settings());
    pod.on(helper.clone());
    assert!(pod.on(own).contains(&E::AnswerHelpers));
}

#[test]
fn a_release_that_does_not_mean_this_held_pod_ends_no_task() {
    let wrong: [fn(&mut ControlMessage); 7] = [
        |m| m.workload_uid = "other".into(),
        |m| m.target = None,
        |m| m.target = Some("other pod".into()),
        |m| m.expires_ms = 0,
        |m| m.expires_ms = u64::MAX,
        |m| m.epoch = Epoch(u64::MAX),
        |m| m.kind = ControlKind::Resume,
    ];
    for change in wrong {
        let mut pod = Pod::open(settings());
        pod.all([BUSY, WorkerEvent::HoldCalled]);
        let mut order = release_order();
        change(&mut order);
        assert_eq!(pod.on(WorkerEvent::Release(order.clone())), [], "{order:?}");
        pod.is(WorkerState::Held);
    }
}
