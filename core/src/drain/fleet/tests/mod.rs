//! The fleet's decisions from hand-made facts.

mod room;
mod wanted;

use super::FleetEffect as F;
use super::*;
use crate::message::{ControlKind, Epoch};

fn settings() -> FleetSettings {
    FleetSettings {
        workload_uid: "workload".into(),
        min_replicas: 0,
        max_replicas: 100,
        token_ttl_ms: 30_000,
        lease_ms: 120_000,
        echo_timeout_ms: 10_000,
        gather_ms: 3_000,
        paused_down: false,
        protect: false,
    }
}

fn pod(name: &str) -> PodFacts {
    PodFacts {
        uid: format!("uid-{name}"),
        name: name.into(),
        resource_version: "1".into(),
        created_ms: 0,
        ready: true,
        scheduled: true,
        unschedulable: false,
        pending: false,
        started: true,
        terminating: false,
        injected: true,
        sidecar_started: true,
        sidecar_ready: true,
        deletion_cost: 0,
        cost_ours: false,
        report: Some(report(WorkerState::Open, Busy::Idle)),
        gapped: false,
        node_cordoned: false,
        set_uid: "set".into(),
    }
}

fn report(state: WorkerState, busy: Busy) -> ReportFacts {
    ReportFacts { state, epoch: Epoch(0), busy, at_ms: 0 }
}

fn parked(name: &str) -> PodFacts {
    PodFacts { ready: false, sidecar_ready: false, report: Some(report(WorkerState::Parked, Busy::Idle)), ..pod(name) }
}

fn marked(name: &str) -> PodFacts {
    PodFacts { deletion_cost: PARKED_COST, ..parked(name) }
}

fn starting(name: &str) -> PodFacts {
    PodFacts { ready: false, sidecar_ready: false, started: false, pending: true, report: None, ..pod(name) }
}

/// A ReplicaSet from long ago.
fn set(uid: &str, spec_replicas: u32) -> SetFacts {
    SetFacts { uid: uid.into(), revision: 1, spec_replicas, max_replicas: Some(spec_replicas + 1), ..SetFacts::default() }
}

fn rollout() -> Vec<SetFacts> {
    vec![set("set", 2), SetFacts { revision: 2, ..set("new", 1) }]
}

/// The machine ten minutes after the fixtures' objects were created: times of a test are later than that.
struct Later(FleetMachine);

const LATER_MS: u64 = 600_000;

impl Later {
    fn step(&mut self, facts: &FleetFacts, desired: u32, now_ms: u64) -> FleetStep {
        let mut facts = facts.clone();
        facts.pods.iter_mut().filter_map(|pod| pod.report.as_mut()).for_each(|report| report.at_ms += LATER_MS);
        self.0.step(&facts, desired, now_ms + LATER_MS)
    }
}

impl std::ops::Deref for Later {
    type Target = FleetMachine;

    fn deref(&self) -> &FleetMachine {
        &self.0
    }
}

impl std::ops::DerefMut for Later {
    fn deref_mut(&mut self) -> &mut FleetMachine {
        &mut self.0
    }
}

/// A settled Deployment of these pods.
pub(super) fn fleet(pods: Vec<PodFacts>) -> FleetFacts {
    let active: Vec<&PodFacts> = pods.iter().filter(|p| !p.terminating).collect();
    let n = u32::try_from(active.len()).unwrap();
    FleetFacts {
        resource_version: "7".into(),
        generation_observed: true,
        spec_replicas: n,
        status_replicas: n,
        rs_ready_replicas: u32::try_from(active.iter().filter(|p| p.ready).count()).unwrap(),
        sets: vec![set("set", n)],
        max_surge: Some(Amount::Percent(25)),
        max_unavailable: 1,
        pods,
        conflict: None,
        data_stale: false,
        out_of_sync: None,
        leader: true,
    }
}

fn open_pods(n: usize) -> Vec<PodFacts> {
    (0..n).map(|i| pod(&format!("p{i}"))).collect()
}

fn step(facts: &FleetFacts, desired: u32) -> FleetStep {
    Later(FleetMachine::new(settings())).step(facts, desired, 0)
}

fn scaled_to(step: &FleetStep) -> Option<u32> {
    step.effects.iter().find_map(|e| if let F::Scale { to, .. } = e { Some(*to) } else { None })
}

fn tokens(step: &FleetStep) -> usize {
    step.effects.iter().filter(|e| matches!(e, F::Publish(m) if m.kind == ControlKind::SigkillQueue)).count()
}

/// UIDs of the pods that are put back to work, in order.
fn resumed(step: &FleetStep) -> Vec<String> {
    let target = |e: &F| if let F::Publish(m) = e { m.target.clone().filter(|_| m.kind == ControlKind::Resume) } else { None };
    step.effects.iter().filter_map(target).collect()
}

#[test]
fn a_fleet_of_the_wished_size_is_left_alone() {
    let step = step(&fleet(open_pods(3)), 3);
    assert_eq!((step.effects, step.phase, step.useful, step.next_wake_ms), (vec![], Phase::Idle, 3, None));
}

#[test]
fn up_goes_in_one_step_and_only_once() {
    let mut facts = fleet(open_pods(2));
    assert_eq!(scaled_to(&step(&facts, 50)), Some(50));
    facts.spec_replicas = 50;
    assert_eq!(step(&facts, 50).effects, []);
}

#[test]
fn up_is_allowed_during_a_rollout_and_not_beside_another_scaler() {
    let mut facts = FleetFacts { sets: rollout(), generation_observed: false, ..fleet(open_pods(2)) };
    assert_eq!(scaled_to(&step(&facts, 5)), Some(5));
    facts.conflict = Some("an HPA targets this Deployment".into());
    let step = step(&facts, 5);
    assert_eq!((scaled_to(&step), step.phase), (None, Phase::Blocked { reason: "an HPA targets this Deployment".into() }));
}

#[test]
fn up_resumes_parked_pods_first_those_at_work_before_the_others() {
    let mut busy = marked("b");
    busy.report = Some(report(WorkerState::Parked, Busy::Busy));
    let facts = fleet(vec![pod("p"), marked("a"), busy, marked("c")]);
    let one = step(&facts, 2);
    assert_eq!((scaled_to(&one), resumed(&one)), (None, vec!["uid-b".to_owned()]));
    let cost_at = one.effects.iter().position(|e| matches!(e, F::SetDeletionCost { cost: None, .. }));
    let message_at = one.effects.iter().position(|e| matches!(e, F::Publish(_)));
    assert!(cost_at < message_at, "a pod at work must not carry the mark: {:?}", one.effects);
    let all = step(&facts, 9);
    assert_eq!((scaled_to(&all), resumed(&all).len()), (Some(9), 3));
}

#[test]
fn a_wave_saves_its_intent_before_its_tokens_and_is_bounded_by_max_unavailable() {
    let step = step(&FleetFacts { max_unavailable: 2, ..fleet(open_pods(6)) }, 1);
    assert!(matches!(step.effects[0], F::SaveIntent(IntentRecord { epoch: Epoch(1), count: 2, .. })), "{:?}", step.effects);
    assert_eq!((tokens(&step), step.phase), (2, Phase::Asking));
}

#[test]
fn a_fleet_that_goes_to_zero_goes_in_one_wave() {
    assert_eq!(tokens(&step(&fleet(open_pods(10)), 0)), 10);
}

#[test]
fn a_wave_whose_intent_was_refused_is_closed_and_the_next_has_a_higher_number() {
    let mut machine = Later(FleetMachine::new(settings()));
    machine.step(&fleet(open_pods(2)), 1, 0);
    let saved = IntentRecord { epoch: Epoch(9), count: 1, issued_ms: 0, expires_ms: 50_000 };
    machine.distrust(Some(saved));
    let step = machine.step(&fleet(open_pods(2)), 1, 100);
    let epochs: Vec<(u64, u32)> =
        step.effects.iter().filter_map(|e| if let F::SaveIntent(i) = e { Some((i.epoch.0, i.count)) } else { None }).collect();
    assert_eq!(epochs, [(10, 0), (11, 1)], "{:?}", step.effects);
    assert!(step.effects.contains(&F::Purge));
}

#[test]
fn parked_pods_are_marked_then_echoed_then_lowered() {
    let mut machine = Later(FleetMachine::new(settings()));
    machine.step(&fleet(vec![pod("a"), pod("b")]), 1, 0);
    let marking = machine.step(&fleet(vec![parked("a"), pod("b")]), 1, 100);
    assert_eq!(marking.phase, Phase::Marking);
    assert!(matches!(marking.effects.last(), Some(F::SetDeletionCost { cost: Some(PARKED_COST), .. })), "{:?}", marking.effects);

    let mut facts = fleet(vec![marked("a"), pod("b")]);
    facts.rs_ready_replicas = 2;
    assert_eq!(machine.step(&facts, 1, 200).phase, Phase::Echo);
    facts.rs_ready_replicas = 1;
    let lowering = machine.step(&facts, 1, 300);
    assert_eq!((scaled_to(&lowering), lowering.phase), (Some(1), Phase::Lowering));
}

#[test]
fn the_echo_is_each_pods_own_readiness_too_and_not_only_a_count() {
    let mut machine = Later(FleetMachine::new(settings()));
    let mut facts = fleet(vec![PodFacts { ready: true, sidecar_ready: true, ..marked("a") }, pod("b")]);
    facts.rs_ready_replicas = 1;
    assert_eq!(machine.step(&facts, 1, 0).phase, Phase::Echo);
    assert_eq!(scaled_to(&machine.step(&facts, 1, 20_000)), None, "not even after its time");
}

#[test]
fn a_missing_echo_is_waited_for_ten_seconds_only() {
    let mut machine = Later(FleetMachine::new(settings()));
    let facts = FleetFacts { rs_ready_replicas: 2, ..fleet(vec![marked("a"), pod("b")]) };
    assert_eq!(scaled_to(&machine.step(&facts, 1, 0)), None);
    assert_eq!(scaled_to(&machine.step(&facts, 1, 9_999)), None);
    assert_eq!(scaled_to(&machine.step(&facts, 1, 10_000)), Some(1));
}

#[test]
fn a_wave_that_stays_incomplete_is_lowered_by_those_there() {
    let mut machine = Later(FleetMachine::new(settings()));
    machine.step(&fleet(open_pods(3)), 0, 0);
    let facts = fleet(vec![marked("a"), pod("b"), pod("c")]);
    assert_eq!(machine.step(&facts, 0, 2_999).phase, Phase::Asking);
    let step = machine.step(&facts, 0, 3_000);
    assert_eq!(scaled_to(&step), Some(2));
    assert!(step.effects.contains(&F::Purge), "tokens still out would park too many: {:?}", step.effects);
}

#[test]
fn nothing_is_lowered_before_the_last_change_has_settled() {
    for change in [|f: &mut FleetFacts| f.status_replicas = 3, |f: &mut FleetFacts| f.spec_replicas = 1] {
        let mut facts = fleet(vec![marked("a"), pod("b")]);
        change(&mut facts);
        let step = step(&facts, 1);
        assert_eq!((scaled_to(&step), step.phase), (None, Phase::Settling));
    }
}

#[test]
fn never_below_the_minimum_nor_below_what_is_useful() {
    let at_least_two = FleetSettings { min_replicas: 2, ..settings() };
    let step = Later(FleetMachine::new(at_least_two)).step(&fleet(vec![marked("a"), pod("b"), pod("c")]), 0, 0);
    assert_eq!(scaled_to(&step), Some(2));
}

#[test]
fn another_pod_was_hit_so_the_parked_one_goes_back_to_work() {
    let gone = PodFacts { terminating: true, ..pod("b") };
    let step = step(&fleet(vec![marked("a"), gone]), 1);
    assert_eq!((resumed(&step), step.phase), (vec!["uid-a".to_owned()], Phase::Resuming));
}

#[test]
fn starting_pods_go_without_a_token() {
    let step = step(&fleet(vec![pod("a"), starting("b"), starting("c")]), 1);
    assert_eq!((scaled_to(&step), tokens(&step)), (Some(1), 0));
}

#[test]
fn pods_never_created_go_without_waiting() {
    let facts = FleetFacts { spec_replicas: 9, ..fleet(open_pods(2)) };
    assert_eq!(scaled_to(&step(&facts, 4)), Some(4));
}

#[test]
fn pods_that_are_not_listed_yet_are_not_taken_for_pods_that_were_never_created() {
    let facts = FleetFacts { spec_replicas: 10, status_replicas: 10, ..fleet(vec![]) };
    let mut machine = Later(FleetMachine::new(settings()));
    for now_ms in [0, 5_000, 10_000, 600_000] {
        assert_eq!(machine.step(&facts, 1, now_ms).effects, [], "ten pods of the Deployment's own count, at {now_ms}");
    }
    // Neither the pods nor the Deployment's status are up to date: only the watches' own word is left.
    let facts = FleetFacts { status_replicas: 0, out_of_sync: Some("the pods are not listed yet".into()), ..facts };
    let step = machine.step(&facts, 1, 600_000);
    assert!(matches!(&step.phase, Phase::Blocked { reason } if reason.contains("not listed")), "{:?}", step.phase);
    assert_eq!(step.effects, []);
}

#[test]
fn out_of_sync_a_fleet_may_rise_but_loses_no_mark() {
    let out = |facts: FleetFacts| FleetFacts { out_of_sync: Some("the watch of pods fails".into()), ..facts };
    assert_eq!(scaled_to(&step(&out(fleet(open_pods(2))), 5)), Some(5));
    let marked = PodFacts { deletion_cost: PARKED_COST, ..pod("a") };
    assert_eq!(step(&out(fleet(vec![marked.clone(), pod("b")])), 2).effects, []);
    assert!(matches!(step(&fleet(vec![marked, pod("b")]), 2).effects[..], [F::SetDeletionCost { cost: None, .. }]));
}

#[test]
fn a_starting_pod_that_is_wanted_is_waited_for() {
    let step = step(&fleet(vec![pod("p"), marked("a"), starting("b")]), 2);
    assert_eq!((scaled_to(&step), step.phase), (None, Phase::Marking));
}

#[test]
fn nothing_is_lowered_while_a_pod_at_work_is_not_ready() {
    let unsteady = PodFacts { ready: false, report: Some(report(WorkerState::Open, Busy::Busy)), ..pod("b") };
    let facts = fleet(vec![marked("a"), unsteady]);
    assert_eq!(scaled_to(&step(&facts, 1)), None);
    let mut later = facts.clone();
    later.pods[0].report = Some(ReportFacts { at_ms: REPORT_STALE_MS, ..report(WorkerState::Parked, Busy::Idle) });
    let mut machine = Later(FleetMachine::new(settings()));
    assert_eq!(scaled_to(&machine.step(&later, 0, REPORT_STALE_MS)), Some(0), "nothing heard of it for so long: no end to waiting");
}

#[test]
fn down_is_blocked_with_a_reason() {
    let mut bare = pod("b");
    bare.injected = false;
    let cases: [(&str, FleetFacts); 5] = [
        ("rollout", FleetFacts { sets: rollout(), ..fleet(open_pods(2)) }),
        ("generation", FleetFacts { generation_observed: false, ..fleet(open_pods(2)) }),
        ("too old", FleetFacts { data_stale: true, ..fleet(open_pods(2)) }),
        ("lease", FleetFacts { leader: false, ..fleet(open_pods(2)) }),
        ("pod b has no sidecar", fleet(vec![pod("a"), bare])),
    ];
    for (word, facts) in cases {
        let step = step(&facts, 1);
        assert_eq!(step.effects, [], "{word}");
        assert!(matches!(&step.phase, Phase::Blocked { reason } if reason.contains(word)), "{word}: {:?}", step.phase);
    }
    let paused = FleetSettings { paused_down: true, ..settings() };
    assert!(matches!(Later(FleetMachine::new(paused)).step(&fleet(open_pods(2)), 1, 0).phase, Phase::Blocked { .. }));
}

#[test]
fn a_block_in_the_middle_of_a_wave_takes_the_tokens_back() {
    let mut machine = Later(FleetMachine::new(settings()));
    machine.step(&fleet(open_pods(2)), 1, 0);
    let step = machine.step(&FleetFacts { sets: rollout(), ..fleet(open_pods(2)) }, 1, 100);
    assert!(matches!(&step.effects[..], [F::SaveIntent(IntentRecord { count: 0, .. }), F::Purge]), "{:?}", step.effects);
}

#[test]
fn a_new_leader_counts_on_from_the_saved_wave_and_trusts_none_of_its_tokens() {
    let saved = IntentRecord { epoch: Epoch(5), count: 2, issued_ms: 0, expires_ms: 30_000 };
    let mut machine = Later(FleetMachine::restore(settings(), Some(saved)));
    let step = machine.step(&fleet(open_pods(2)), 1, 10);
    assert!(step.effects.contains(&F::Purge));
    assert!(step.effects.iter().any(|e| matches!(e, F::Publish(m) if m.epoch > Epoch(5))), "{:?}", step.effects);
}

#[test]
fn a_lost_status_does_not_bring_old_numbers_back() {
    let mut pods = open_pods(2);
    pods[0].report = Some(ReportFacts { epoch: Epoch(40), ..report(WorkerState::Open, Busy::Idle) });
    let step = step(&fleet(pods), 1);
    assert!(step.effects.iter().any(|e| matches!(e, F::Publish(m) if m.epoch > Epoch(40))), "{:?}", step.effects);
}

#[test]
fn a_mark_on_a_pod_that_works_is_removed_and_one_on_a_silent_pod_is_not() {
    let works = PodFacts { deletion_cost: PARKED_COST, ..pod("a") };
    let silent = PodFacts { report: None, ..marked("b") };
    let step = step(&fleet(vec![works, silent, pod("c")]), 3);
    let costs: Vec<&str> =
        step.effects.iter().filter_map(|e| if let F::SetDeletionCost { pod_name, .. } = e { Some(pod_name.as_str()) } else { None }).collect();
    assert_eq!(costs, ["a"]);
}

#[test]
fn a_user_s_own_cost_is_left_alone() {
    let costly = PodFacts { deletion_cost: 100, ..pod("a") };
    assert_eq!(step(&fleet(vec![costly]), 1).effects, []);
}

#[test]
fn marks_of_a_time_when_another_owned_the_count_are_taken_back_and_a_users_own_cost_is_never_touched() {
    let ours = PodFacts { deletion_cost: -1_000, cost_ours: true, ..pod("a") };
    let users = PodFacts { deletion_cost: 7, ..pod("b") };
    let facts = fleet(vec![ours, users.clone()]);
    let managed = step(&facts, 2);
    assert!(matches!(&managed.effects[..], [F::SetDeletionCost { cost: None, pod_name, .. }] if pod_name == "a"), "{:?}", managed.effects);
    let mut protecting = Later(FleetMachine::new(FleetSettings { protect: true, ..settings() }));
    let facts = fleet(vec![users]);
    protecting.step(&facts, 1, 0);
    assert_eq!(protecting.step(&facts, 1, 40_000).effects, []);
}

#[test]
fn protect_marks_only_what_lasts_and_never_scales() {
    let mut machine = Later(FleetMachine::new(FleetSettings { protect: true, ..settings() }));
    let facts = |at_ms| {
        let mut pods = open_pods(20);
        pods[0].report = Some(report(WorkerState::Open, Busy::Busy));
        pods.iter_mut().for_each(|p| p.report.as_mut().unwrap().at_ms = at_ms);
        fleet(pods)
    };
    assert_eq!(machine.step(&facts(0), 1, 0).effects, []);
    let step = machine.step(&facts(40_000), 1, 40_000);
    assert!(step.effects.len() < 20, "bounded: {}", step.effects.len());
    assert!(matches!(step.effects[0], F::SetDeletionCost { cost: Some(cost), .. } if cost > 0), "{:?}", step.effects);
    assert!(matches!(step.effects[1], F::SetDeletionCost { cost: Some(cost), .. } if cost < 0 && cost > PARKED_COST), "{:?}", step.effects);
}

#[test]
fn an_unanswered_wave_is_sent_again_under_a_new_number() {
    let mut machine = Later(FleetMachine::new(settings()));
    let facts = fleet(open_pods(2));
    machine.step(&facts, 1, 0);
    assert_eq!(machine.step(&facts, 1, 29_999).effects, []);
    let again = machine.step(&facts, 1, 30_000);
    assert_eq!(tokens(&again), 1, "{:?}", again.effects);
    assert!(machine.intent().epoch > Epoch(1));
}

#[test]
fn an_epoch_that_cannot_be_does_not_freeze_the_fleet() {
    let mut pods = open_pods(2);
    pods[0].report = Some(ReportFacts { epoch: Epoch(u64::MAX), ..report(WorkerState::Open, Busy::Idle) });
    let mut machine = Later(FleetMachine::new(settings()));
    assert_eq!(tokens(&machine.step(&fleet(pods), 1, 0)), 1);
    assert_eq!(machine.intent().epoch, Epoch(1));
}

#[test]
fn a_pod_whose_hold_is_less_than_whole_is_not_asked_while_a_better_one_is_idle() {
    let asked = |pods: Vec<PodFacts>| -> Vec<Option<String>> {
        let step = step(&FleetFacts { max_unavailable: 3, ..fleet(pods) }, 1);
        step.effects.iter().filter_map(|e| if let F::Publish(m) = e { Some(m.target.clone()) } else { None }).collect()
    };
    let gapped = |name: &str| PodFacts { gapped: true, ..pod(name) };
    let busy = |name: &str| PodFacts { report: Some(report(WorkerState::Open, Busy::Busy)), ..pod(name) };
    assert_eq!(asked(vec![gapped("a"), pod("b"), pod("c"), busy("d")]), [Some("uid-b".to_owned()), Some("uid-c".to_owned())]);
    assert_eq!(asked(vec![gapped("a"), busy("b"), busy("c")]), [None, None], "no better one is idle: whoever is free comes");
    assert_eq!(asked(open_pods(3)), [None, None]);
}
