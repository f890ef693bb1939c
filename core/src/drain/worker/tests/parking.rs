//! Tokens in, claims out: parking, leases, orders that come back, and messages that mean nothing.

use super::*;

#[test]
fn a_started_sidecar_is_ready_and_listens_once_its_worker_is_idle() {
    let mut machine = WorkerMachine::new(settings(), 0);
    let first: Vec<E> = std::iter::from_fn(|| machine.next_effect()).collect();
    assert_eq!(first, [E::SetReady(true), E::Report]);
    let mut pod = Pod::new(settings());
    assert_eq!(pod.on(seen(1)), [E::Report]);
    assert_eq!(pod.on(IDLE), [E::ListenShared(true)]);
    assert_eq!(pod.on(BUSY), [E::ListenShared(false)]);
}

#[test]
fn an_idle_worker_parks_and_acks_only_after_its_claim_is_published() {
    let mut pod = Pod::open(settings());
    assert_eq!(pod.on(token(1)), [E::SetReady(false), E::Report, E::ListenShared(false)]);
    pod.is(WorkerState::Parked);
    assert_eq!(pod.on(WorkerEvent::ClaimReported), [E::Ack]);
    assert_eq!(pod.on(WorkerEvent::ClaimReported), []);
}

#[test]
fn with_a_gate_only_evidence_from_behind_it_parks() {
    let mut pod = Pod::open(gated());
    assert!(pod.on(token(1)).contains(&E::CloseGate));
    pod.is(WorkerState::Closing);
    pod.all([IDLE]);
    pod.is(WorkerState::Closing);
    pod.all([WorkerEvent::GateClosed]);
    pod.is(WorkerState::Closing);
    pod.all([BUSY]);
    pod.is(WorkerState::Closing);
    pod.all([IDLE]);
    pod.is(WorkerState::Parked);
}

#[test]
fn a_busy_worker_gives_a_token_back_at_once_until_its_patience_is_over() {
    let mut pod = Pod::open(settings());
    pod.on(BUSY);
    assert_eq!(pod.on(token(1)), [E::GiveBack]);
    assert_eq!(pod.pass(9_999), []);
    assert_eq!(pod.pass(1), [E::ListenShared(true)]);
    pod.on(token(1));
    pod.is(WorkerState::Closing);
    let effects = pod.pass(20_000);
    assert!(effects.contains(&E::GiveBack), "{effects:?}");
    pod.is(WorkerState::Open);
    assert_eq!(pod.on(token(1)), [E::GiveBack], "another pod's turn");
}

#[test]
fn a_closing_worker_parks_when_its_task_ends() {
    let mut pod = Pod::open(settings());
    pod.on(BUSY);
    pod.pass(10_000);
    pod.on(token(1));
    assert_eq!(pod.on(IDLE), [E::SetReady(false), E::Report]);
    pod.is(WorkerState::Parked);
    pod.pass(20_000);
    pod.is(WorkerState::Parked);
}

#[test]
fn where_nothing_tells_busy_from_idle_patience_stands_in_for_evidence() {
    let mut pod = Pod::new(settings());
    pod.all([seen(1), UNKNOWN]);
    assert_eq!(pod.on(token(1)), [E::GiveBack]);
    pod.pass(10_000);
    pod.on(token(1));
    pod.is(WorkerState::Parked);
}

#[test]
fn tokens_that_mean_nothing_are_dropped_without_parking() {
    let wrong: [fn(&mut ControlMessage); 4] =
        [|m| m.workload_uid = "other".into(), |m| m.expires_ms = 0, |m| m.target = Some("other pod".into()), |m| m.kind = ControlKind::Release];
    for change in wrong {
        let mut pod = Pod::open(settings());
        let mut wrong = message(ControlKind::SigkillQueue, 1);
        change(&mut wrong);
        assert_eq!(pod.on(WorkerEvent::Token(wrong.clone())), [E::Ack], "{wrong:?}");
        pod.is(WorkerState::Open);
    }
}

#[test]
fn a_sidecar_that_does_not_know_its_workload_takes_any() {
    let mut pod = Pod::open(WorkerSettings { workload_uid: Default::default(), ..settings() });
    pod.on(token(1));
    pod.is(WorkerState::Parked);
}

#[test]
fn a_directed_token_closes_a_busy_pod_and_renews_a_parked_ones_lease() {
    let directed = |epoch| WorkerEvent::Token(ControlMessage { target: Some("pod".into()), ..message(ControlKind::SigkillQueue, epoch) });
    let mut pod = Pod::open(settings());
    pod.on(BUSY);
    pod.on(directed(1));
    pod.is(WorkerState::Closing);

    let mut pod = Pod::parked(settings());
    pod.pass(LEASE_MS - 1);
    assert_eq!(pod.on(directed(2)), [E::Report]);
    assert_eq!(pod.on(WorkerEvent::ClaimReported), [E::Ack]);
    pod.pass(LEASE_MS - 1);
    pod.is(WorkerState::Parked);
}

#[test]
fn a_second_token_of_a_parked_pod_goes_back_to_the_others() {
    let mut pod = Pod::parked(settings());
    assert_eq!(pod.on(token(1)), [E::GiveBack]);
}

#[test]
fn a_parked_pod_goes_back_to_work_at_the_end_of_its_lease() {
    let mut pod = Pod::parked(gated());
    pod.pass(LEASE_MS - 1);
    pod.is(WorkerState::Parked);
    assert_eq!(pod.pass(1), [E::OpenGate, E::SetReady(true), E::Report, E::ListenShared(true)]);
    pod.is(WorkerState::Open);
}

#[test]
fn a_claim_that_was_never_published_gives_its_token_back_with_the_lease() {
    let mut pod = Pod::open(settings());
    pod.on(token(1));
    assert!(pod.pass(LEASE_MS).contains(&E::GiveBack));
}

#[test]
fn resume_opens_and_makes_older_tokens_void() {
    let mut pod = Pod::parked(gated());
    assert_eq!(pod.on(resume(0)), [], "an order older than the wave");
    assert_eq!(pod.on(resume(2)), [E::OpenGate, E::SetReady(true), E::Report, E::ListenShared(true)]);
    assert_eq!(pod.on(token(1)), [E::Ack]);
    assert_eq!(pod.on(token(2)), [E::Ack]);
    pod.on(token(3));
    pod.is(WorkerState::Closing);
    assert_eq!(pod.on(resume(4))[..2], [E::OpenGate, E::Ack]);
    pod.is(WorkerState::Open);
}

#[test]
fn a_parked_worker_without_a_gate_that_takes_a_task_stays_parked_and_its_task_ends() {
    let mut pod = Pod::parked(settings());
    assert_eq!(pod.on(BUSY), [E::Report], "whoever counts on it knows at once");
    assert_eq!(pod.on(BUSY), []);
    pod.is(WorkerState::Parked);
    assert_eq!(pod.machine.busy(), Busy::Busy);
    assert_eq!(pod.on(WorkerEvent::HoldCalled), [TERM, E::Report]);
    pod.pass(100_000);
    assert!(pod.on(exited(1)).contains(&E::AnswerHolds));
}

#[test]
fn a_closing_pod_parks_when_its_worker_exits_and_behind_a_gate_only_once_the_next_one_is_idle() {
    let mut pod = Pod::open(settings());
    pod.on(BUSY);
    pod.pass(10_000);
    pod.all([token(1), exited(1)]);
    pod.is(WorkerState::Parked);

    let mut pod = Pod::open(gated());
    pod.all([token(1), WorkerEvent::GateClosed, exited(1)]);
    pod.is(WorkerState::Closing);
    assert_eq!(pod.on(seen(2)), [E::CloseGate], "it may have taken a task before the gate closed");
    pod.all([WorkerEvent::GateClosed, BUSY]);
    pod.is(WorkerState::Closing);
    pod.on(IDLE);
    pod.is(WorkerState::Parked);
}

#[test]
fn a_crashed_worker_is_boot_again_and_takes_no_token() {
    let mut pod = Pod::open(settings());
    assert_eq!(pod.on(exited(1)), [E::Report, E::ListenShared(false)]);
    pod.is(WorkerState::Boot);
    assert_eq!(pod.on(token(1)), [E::GiveBack]);
}

#[test]
fn no_message_parks_for_ever_or_carries_a_wave_away() {
    let far: [fn(&mut ControlMessage); 3] = [|m| m.expires_ms = u64::MAX, |m| m.epoch = Epoch(u64::MAX), |m| m.epoch = Epoch(EPOCH_STEP_MAX + 2)];
    for change in far {
        let mut pod = Pod::open(settings());
        pod.on(resume(1));
        let mut forged = message(ControlKind::SigkillQueue, 2);
        change(&mut forged);
        assert_eq!(pod.on(WorkerEvent::Token(forged.clone())), [E::Ack], "{forged:?}");
        let mut order = ControlMessage { kind: ControlKind::Resume, ..forged };
        order.target = Some("pod".into());
        pod.on(WorkerEvent::Resume(order));
        assert!(pod.machine.epoch() <= Epoch(1), "{}", pod.machine.epoch());
        pod.on(token(2));
        pod.is(WorkerState::Parked);
    }
    let mut pod = Pod::open(settings());
    pod.on(WorkerEvent::Token(ControlMessage { lease_ms: u64::MAX, ..message(ControlKind::SigkillQueue, 1) }));
    pod.is(WorkerState::Parked);
    pod.pass(LEASE_MAX_MS);
    pod.is(WorkerState::Open);
}
