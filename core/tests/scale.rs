//! The scaling decision as a whole: tables of situations, and properties that hold in all of them.

use proptest::prelude::*;
use qscaler_core::scale::{Cap, Completion, FleetSample, HoldReason, Learned, QueueSample, Rule, ScaleConfig, ScaleDecision, decide};

fn queue(ready: u64) -> QueueSample {
    QueueSample { ready: Some(ready), ..QueueSample::default() }
}

fn fleet(ready: u32, busy: u32) -> FleetSample {
    FleetSample { spec_replicas: ready, ready, busy: Some(busy), ..FleetSample::default() }
}

fn config() -> ScaleConfig {
    ScaleConfig::new(0, 100, 30.0)
}

/// A queue and a fleet that obey: ticks of one second, pods that start after `start_s`, tasks of `service_s`, `arrivals(t)` messages per tick.
struct Play {
    cfg: ScaleConfig,
    learned: Learned,
    now: f64,
    ready: u64,
    starting: Vec<f64>,
    running: Vec<f64>,
    pods: u32,
    start_s: f64,
    service_s: f64,
}

impl Play {
    fn new(cfg: ScaleConfig, start_s: f64, service_s: f64) -> Self {
        Self { cfg, learned: Learned::default(), now: 1_000_000.0, ready: 0, starting: Vec::new(), running: Vec::new(), pods: 0, start_s, service_s }
    }

    fn tick(&mut self, arrivals: u64, known: bool) -> ScaleDecision {
        self.now += 1.0;
        self.ready += arrivals;
        let mut latencies = Vec::new();
        for age in &mut self.starting {
            *age += 1.0;
        }
        let start_s = self.start_s;
        let before = self.starting.len();
        self.starting.retain(|age| *age < start_s);
        latencies.resize(before - self.starting.len(), start_s);
        self.pods += latencies.len() as u32;
        let mut completions = Vec::new();
        for left in &mut self.running {
            *left -= 1.0;
        }
        let service_s = self.service_s;
        let before = self.running.len();
        self.running.retain(|left| *left > 0.0);
        completions.resize(before - self.running.len(), Completion { service_s });
        let slots = self.pods as usize * self.cfg.concurrency as usize;
        let mut begun = 0;
        while self.running.len() < slots && self.ready > 0 {
            self.ready -= 1;
            self.running.push(service_s);
            begun += 1;
        }
        let sample = FleetSample {
            spec_replicas: self.pods + self.starting.len() as u32,
            ready: self.pods,
            starting: self.starting.clone(),
            busy: known.then_some(self.running.len() as u32),
            begun: known.then_some(begun),
            busy_ages_s: if known { self.running.iter().map(|left| self.service_s - left).collect() } else { Vec::new() },
            completions: if known { completions } else { Vec::new() },
            started_latencies_s: latencies,
            ..FleetSample::default()
        };
        let queue = if known { queue(self.ready) } else { QueueSample::default() };
        let decision = decide(&self.cfg, &mut self.learned, &[queue], &sample, self.now);
        let useful = sample.useful();
        if decision.target > useful {
            self.starting.extend(std::iter::repeat_n(0.0, (decision.target - useful) as usize));
        } else {
            let mut leave = useful - decision.target;
            while leave > 0 && self.starting.pop().is_some() {
                leave -= 1;
            }
            let idle = self.pods - (self.running.len() as u32).div_ceil(self.cfg.concurrency);
            assert!(leave <= idle || decision.inputs.standing_wait_s > 0.0 || decision.cap.is_some(), "{leave} of {idle} idle: {}", decision.reason);
            self.pods -= leave;
            self.running.truncate(self.pods as usize * self.cfg.concurrency as usize);
        }
        decision
    }
}

#[test]
fn a_burst_from_zero_asks_for_all_it_needs_in_one_step() {
    let cfg = ScaleConfig { service_time_hint_s: 3600.0, ..config() };
    let decision = decide(&cfg, &mut Learned::default(), &[queue(20)], &fleet(0, 0), 0.0);
    assert_eq!((decision.target, decision.rule), (20, Rule::Backlog), "{}", decision.reason);
    let decision = decide(&cfg, &mut Learned::default(), &[queue(5000)], &fleet(0, 0), 0.0);
    assert_eq!((decision.target, decision.cap), (100, Some(Cap::MaxReplicas)), "0 to 100 in one step: {}", decision.reason);
    let huge = ScaleConfig { max_replicas: 1000, ..cfg };
    let decision = decide(&huge, &mut Learned::default(), &[queue(5000)], &fleet(0, 0), 0.0);
    assert_eq!((decision.target, decision.cap), (100, Some(Cap::StartBurst)), "{}", decision.reason);
}

#[test]
fn the_first_message_starts_one_pod_and_only_one() {
    let mut play = Play::new(config(), 5.0, 2.0);
    assert_eq!(play.tick(0, true).rule, Rule::Idle);
    assert_eq!(play.tick(1, true).target, 1);
    for _ in 0..4 {
        assert_eq!(play.tick(0, true).target, 1);
    }
}

#[test]
fn a_fleet_rises_with_the_flow_and_falls_to_zero_after_it() {
    let mut play = Play::new(config(), 5.0, 2.0);
    let highest = (0..600).map(|_| play.tick(10, true).target).skip(120).max().unwrap();
    assert!((15..=30).contains(&highest), "{highest}");
    let end = (0..120).map(|_| play.tick(0, true).target).last().unwrap();
    assert_eq!(end, 0);
}

/// Plays half an hour; gives the seconds for which a pod was left after the last task.
fn left_s(mut play: Play, arrivals: impl Fn(u32) -> u64) -> u32 {
    let (mut worked, mut left) = (0, 0);
    for second in 0..1800 {
        play.tick(arrivals(second), true);
        worked = if play.ready > 0 || !play.running.is_empty() { second } else { worked };
        left = if play.pods > 0 { second - worked } else { left };
    }
    left
}

#[test]
fn no_pod_is_left_a_minute_after_bursts_that_were_slow_to_come_in() {
    // As seen on a busy cluster: 180 messages in three bursts that are seven seconds long each, all of them waiting before the first pod works.
    let arrivals = |second| if second < 270 && second % 90 < 20 && second % 3 == 0 { 9 } else { 0 };
    let left = left_s(Play::new(ScaleConfig::new(0, 20, 15.0), 240.0, 10.0), arrivals);
    assert!(left <= 60, "{left}");
}

#[test]
fn no_pod_is_left_a_minute_after_few_heavy_tasks() {
    // Three tasks of 38 s at once, for three pods that take 36 s to start: once, and three times.
    for bursts in [1, 3] {
        let arrivals = |second| if (60..60 + 90 * bursts).contains(&second) && second % 90 == 60 { 3 } else { 0 };
        let left = left_s(Play::new(ScaleConfig::new(0, 3, 15.0), 36.0, 38.0), arrivals);
        assert!(left <= 60, "{bursts}: {left}");
    }
}

#[test]
fn several_slots_in_a_pod_need_fewer_pods() {
    let mut play = Play::new(ScaleConfig { concurrency: 8, ..config() }, 5.0, 2.0);
    let highest = (0..600).map(|_| play.tick(40, true).target).skip(120).max().unwrap();
    assert!((8..=16).contains(&highest), "80 tasks at once in pods of 8: {highest}");
}

#[test]
fn queues_of_one_deployment_add_up() {
    let one = decide(&config(), &mut Learned::default(), &[queue(90)], &fleet(0, 0), 0.0);
    let three = decide(&config(), &mut Learned::default(), &[queue(30), queue(20), queue(40)], &fleet(0, 0), 0.0);
    assert_eq!(one.target, three.target);
    assert_eq!(three.inputs.backlog, Some(90));
}

#[test]
fn one_unknown_queue_forbids_lowering_and_not_raising() {
    let unknown = QueueSample::default();
    let idle = decide(&config(), &mut Learned::default(), &[queue(0), unknown.clone()], &fleet(7, 0), 0.0);
    assert_eq!((idle.target, idle.hold), (7, Some(HoldReason::BacklogUnknown)), "{}", idle.reason);
    let waiting = decide(&config(), &mut Learned::default(), &[queue(5), unknown], &fleet(0, 0), 0.0);
    assert!(waiting.target >= 1, "{}", waiting.reason);
}

#[test]
fn stale_figures_hold_and_call_parked_pods_back() {
    let stale = QueueSample { age_s: 16.0, ..queue(0) };
    let sample = FleetSample { spec_replicas: 9, parked: 2, ..fleet(7, 7) };
    let decision = decide(&config(), &mut Learned::default(), &[stale], &sample, 0.0);
    assert_eq!((decision.target, decision.hold), (9, Some(HoldReason::BacklogStale)), "{}", decision.reason);
    let fresh = QueueSample { age_s: 9.0, ..queue(0) };
    assert_eq!(decide(&config(), &mut Learned::default(), &[fresh], &sample, 0.0).inputs.backlog, Some(0));
}

#[test]
fn a_loaded_fleet_gets_a_reserve_once_when_the_figures_go() {
    let mut play = Play::new(config(), 5.0, 2.0);
    (0..300).for_each(|_| drop(play.tick(10, true)));
    let before = play.pods + play.starting.len() as u32;
    let blind: Vec<u32> = (0..600).map(|_| play.tick(10, false).target).collect();
    // A steady load: what is added later is for rises that chance alone has shown.
    assert_eq!(blind[..15], [before; 15], "a look that failed, or a failover");
    let (first, last) = (blind[15], blind[599]);
    assert!(first > before && first <= before * 2 && blind.is_sorted() && last <= first + 2, "{before}: {blind:?}");
    (0..5).for_each(|_| assert!(play.tick(10, true).target >= before));
}

#[test]
fn a_busy_pod_is_never_surplus() {
    let mut play = Play::new(config(), 5.0, 3600.0);
    play.tick(20, true);
    (0..300).for_each(|_| drop(play.tick(0, true)));
    assert_eq!(play.pods, 20, "each of them works for an hour");
}

#[test]
fn a_fixed_length_per_pod_replaces_what_is_learned() {
    let cfg = ScaleConfig { messages_per_worker: Some(10), ..config() };
    for (ready, busy, pods, expected) in [(0, 0, 0, 0), (1, 0, 0, 1), (95, 5, 5, 10), (96, 5, 5, 11), (5000, 0, 0, 100)] {
        let decision = decide(&cfg, &mut Learned::default(), &[queue(ready)], &fleet(pods, busy), 0.0);
        assert_eq!(decision.target, expected, "{ready} {busy}: {}", decision.reason);
    }
}

#[test]
fn unacknowledged_messages_beyond_the_running_ones_wait() {
    let sample = QueueSample { unacked: Some(50), ..queue(10) };
    let late = decide(&config(), &mut Learned::default(), std::slice::from_ref(&sample), &fleet(4, 4), 0.0);
    assert_eq!((late.inputs.backlog, late.inputs.in_flight), (Some(56), Some(4)));
    let early = ScaleConfig { acknowledges_early: true, ..config() };
    let early = decide(&early, &mut Learned::default(), &[sample], &fleet(4, 4), 0.0);
    assert_eq!((early.inputs.backlog, early.inputs.in_flight), (Some(60), Some(4)));
}

#[test]
fn pods_without_a_node_are_not_asked_for_again() {
    let cfg = ScaleConfig { service_time_hint_s: 60.0, ..config() };
    let sample = FleetSample { spec_replicas: 20, pending_unschedulable: 20, ..fleet(0, 0) };
    let decision = decide(&cfg, &mut Learned::default(), &[queue(20)], &sample, 0.0);
    assert_eq!(decision.target, 20, "{}", decision.reason);
    assert!(decision.reason.contains("20 pods find no node"), "{}", decision.reason);
    let quota = FleetSample { spec_replicas: 20, ..fleet(0, 0) };
    assert_eq!(decide(&cfg, &mut Learned::default(), &[queue(20)], &quota, 0.0).target, 20);
}

#[test]
fn bounds_win_and_are_named() {
    let cfg = ScaleConfig { min_replicas: 3, max_replicas: 5, service_time_hint_s: 60.0, ..config() };
    let low = decide(&cfg, &mut Learned::default(), &[queue(0)], &fleet(0, 0), 0.0);
    assert_eq!((low.target, low.cap), (3, Some(Cap::MinReplicas)), "{}", low.reason);
    let high = decide(&cfg, &mut Learned::default(), &[queue(50)], &fleet(3, 3), 0.0);
    assert_eq!((high.target, high.cap), (5, Some(Cap::MaxReplicas)), "{}", high.reason);
    let parts = ScaleConfig { max_parallel: Some(4), min_replicas: 0, ..cfg };
    let high = decide(&parts, &mut Learned::default(), &[queue(50)], &fleet(3, 3), 0.0);
    assert_eq!((high.target, high.cap), (4, Some(Cap::Parallel)), "{}", high.reason);
}

#[test]
fn without_reports_from_workers_nobody_leaves_before_the_queue_was_empty_for_long() {
    let mut learned = Learned::default();
    let blind = FleetSample { busy: None, ..fleet(10, 0) };
    let targets: Vec<u32> = (0..90).map(|tick| decide(&config(), &mut learned, &[queue(0)], &blind, f64::from(tick)).target).collect();
    assert!(targets[..60].iter().all(|target| *target == 10), "{targets:?}");
    assert!(targets[89] < 10, "{targets:?}");
}

#[test]
fn what_was_learned_survives_a_restart() {
    let mut play = Play::new(config(), 5.0, 2.0);
    (0..600).for_each(|_| drop(play.tick(10, true)));
    let text = serde_json::to_string(&play.learned).unwrap();
    assert!(text.len() < 8192, "{} bytes belong in status", text.len());
    play.learned = serde_json::from_str(&text).unwrap();
    let decision = play.tick(10, true);
    assert!((decision.inputs.service_s - 2.0).abs() < 0.1 && (decision.inputs.rate_in - 10.0).abs() < 1.0, "{:?}", decision.inputs);
    assert!(decision.target >= decision.inputs.useful, "nothing is lowered right after a restart: {}", decision.reason);
}

#[test]
fn memory_of_other_versions_is_understood() {
    let learned: Learned = serde_json::from_str(r#"{"from_the_future": [1, 2], "service": {"seen": 4, "new": null}}"#).unwrap();
    assert_eq!(learned.service, serde_json::from_str(r#"{"seen": 4}"#).unwrap());
    assert_eq!(serde_json::from_str::<Learned>("{}").unwrap(), Learned::default());
}

#[test]
fn every_reason_names_inputs_rule_and_what_would_change_it() {
    let decision = decide(&config(), &mut Learned::default(), &[queue(40)], &fleet(0, 0), 0.0);
    for part in ["40 waiting", "0 running", "backlog:", "it rises with the backlog"] {
        assert!(decision.reason.contains(part), "{}", decision.reason);
    }
}

fn any_queue() -> impl Strategy<Value = QueueSample> {
    let figure = || proptest::option::weighted(0.8, 0u64..2000);
    (figure(), figure(), figure(), figure(), prop_oneof![8 => Just(0.0), 1 => 0.0..60.0f64, 1 => Just(f64::NAN)]).prop_map(
        |(ready, unacked, published_total, completed_total, age_s)| QueueSample {
            ready,
            unacked,
            published_total,
            completed_total,
            age_s,
            ..QueueSample::default()
        },
    )
}

fn any_fleet() -> impl Strategy<Value = FleetSample> {
    let times = || proptest::collection::vec(prop_oneof![9 => 0.0..900.0f64, 1 => Just(f64::NAN)], 0..6);
    (
        (0u32..120, 0u32..60, 0u32..5, 0u32..5, 0u32..5, 0u32..3),
        proptest::option::of(0u32..120),
        times(),
        times(),
        times(),
        times(),
        (proptest::option::of(0u32..9), 0u32..3),
    )
        .prop_map(
            |(
                (spec_replicas, ready, pending_unschedulable, parked, terminating, untold),
                busy,
                starting,
                busy_ages_s,
                services,
                started_latencies_s,
                (begun, found),
            )| {
                FleetSample {
                    spec_replicas,
                    ready,
                    starting,
                    pending_unschedulable,
                    parked,
                    terminating,
                    busy,
                    untold: untold.min(ready),
                    settling: vec![9.0; untold.min(ready) as usize],
                    busy_ages_s,
                    completions: services.into_iter().map(|service_s| Completion { service_s }).collect(),
                    started_latencies_s,
                    begun,
                    broker_down: found == 2,
                    found,
                    restarting: 0,
                }
            },
        )
}

fn any_config() -> impl Strategy<Value = ScaleConfig> {
    (0u32..20, 1u32..120, 1.0..300.0f64, proptest::option::weighted(0.2, 0u32..50), 0u32..5, proptest::option::weighted(0.2, 1u32..50)).prop_map(
        |(min, max, wait, messages_per_worker, concurrency, max_parallel)| ScaleConfig {
            messages_per_worker,
            concurrency,
            max_parallel,
            ..ScaleConfig::new(min, max, wait)
        },
    )
}

fn any_history() -> impl Strategy<Value = Vec<(Vec<QueueSample>, FleetSample, f64)>> {
    let dt = prop_oneof![8 => Just(1.0), 1 => 0.0..100.0f64, 1 => Just(-5.0)];
    proptest::collection::vec((proptest::collection::vec(any_queue(), 0..3), any_fleet(), dt), 1..40)
}

fn replay(cfg: &ScaleConfig, history: &[(Vec<QueueSample>, FleetSample, f64)]) -> (Learned, Vec<ScaleDecision>, f64) {
    let (mut learned, mut now) = (Learned::default(), 0.0);
    let decisions = history
        .iter()
        .map(|(queues, fleet, dt)| {
            now += dt;
            decide(cfg, &mut learned, queues, fleet, now)
        })
        .collect();
    (learned, decisions, now)
}

#[test]
fn how_messages_are_acknowledged_is_seen_from_the_figures() {
    let look = |configured: bool, unacked: u64| {
        let cfg = ScaleConfig { acknowledges_early: configured, ..config() };
        let mut learned = Learned::default();
        let idle_queue = QueueSample { unacked: Some(unacked), ..queue(0) };
        (0..120).for_each(|tick| drop(decide(&cfg, &mut learned, std::slice::from_ref(&idle_queue), &fleet(4, 4), f64::from(tick))));
        let waiting = QueueSample { unacked: Some(6), ..queue(10) };
        decide(&cfg, &mut learned, &[waiting], &fleet(4, 4), 120.0).inputs.backlog
    };
    // Four tasks run and four messages are held: they are the same. Held by nobody: acknowledged before.
    assert_eq!((look(true, 4), look(false, 4)), (Some(12), Some(12)));
    assert_eq!((look(true, 0), look(false, 0)), (Some(16), Some(16)));
}

#[test]
fn late_acknowledgement_shows_while_the_idle_pods_leave() {
    // Celery with acks_late, of which its preset says that it acknowledges early: two long tasks run, and three of five pods go.
    let cfg = ScaleConfig { acknowledges_early: true, ..ScaleConfig::new(0, 5, 15.0) };
    let mut learned = Learned::default();
    let held = QueueSample { unacked: Some(2), ..queue(0) };
    let leaving = |tick: u32| match tick {
        0..5 => fleet(5, 2),
        5..10 => FleetSample { parked: 3, ..fleet(2, 2) },
        10..20 => FleetSample { terminating: 3, ..fleet(2, 2) },
        _ => fleet(2, 2),
    };
    let look = |tick: u32| {
        let ages = vec![f64::from(tick); 2];
        decide(&cfg, &mut learned, std::slice::from_ref(&held), &FleetSample { busy_ages_s: ages, ..leaving(tick) }, f64::from(tick))
    };
    let decisions: Vec<_> = (0..90).map(look).collect();
    let too_many = decisions.iter().enumerate().skip(5).find(|(_, decision)| decision.target > 2);
    assert!(too_many.is_none(), "{too_many:?}");
    // As long as it is taken for early, what a person reads says so.
    assert_eq!((decisions[4].inputs.backlog, decisions[89].inputs.backlog), (Some(2), Some(0)));
}

#[test]
fn a_pod_that_tells_nothing_yet_counts_as_at_work() {
    let mut learned = Learned::default();
    let sample = FleetSample { untold: 3, ..fleet(8, 1) };
    let targets: Vec<u32> = (0..120).map(|tick| decide(&config(), &mut learned, &[queue(0)], &sample, f64::from(tick)).target).collect();
    assert_eq!(targets[119], 4, "one told of, three silent: {targets:?}");
    let decision = decide(&config(), &mut learned, &[queue(0)], &sample, 120.0);
    assert_eq!(decision.inputs.in_flight, None, "a part is not the whole");
}

#[test]
fn two_short_tasks_may_wait_for_one_worker_within_the_promise() {
    let mut play = Play::new(ScaleConfig::new(0, 8, 15.0), 5.0, 2.0);
    play.tick(3, true);
    (0..120).for_each(|_| drop(play.tick(0, true)));
    let cfg = ScaleConfig::new(0, 8, 15.0);
    let decision = decide(&cfg, &mut play.learned, &[queue(2)], &fleet(1, 1), play.now + 1.0);
    assert_eq!(decision.target, 1, "6 s of work for 15 s: {}", decision.reason);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn while_a_message_waits_or_a_task_runs_somebody_is_there(cfg in any_config(), history in any_history(), fleet in any_fleet(), waiting in 1u64..9) {
        let (mut learned, _, mut now) = replay(&cfg, &history);
        for _ in 0..8 {
            now += 1.0;
            let decision = decide(&cfg, &mut learned, &[queue(waiting)], &fleet, now);
            prop_assert!(decision.target >= 1, "{}", decision.reason);
        }
    }

    #[test]
    fn replicas_stay_in_bounds(cfg in any_config(), history in any_history()) {
        for decision in replay(&cfg, &history).1 {
            prop_assert!(decision.target <= cfg.max_replicas && decision.target >= cfg.min_replicas.min(cfg.max_replicas), "{}", decision.reason);
            prop_assert!(decision.next_wake_s > 0.0 && decision.next_wake_s.is_finite());
            let inputs = decision.inputs;
            for value in [inputs.rate_in, inputs.rate_out, inputs.service_s, inputs.start_latency_s, inputs.offered_load, inputs.standing_wait_s] {
                prop_assert!(value.is_finite() && value >= 0.0, "{inputs:?}");
            }
        }
    }

    #[test]
    fn equal_inputs_give_equal_decisions(cfg in any_config(), history in any_history()) {
        let (one, other) = (replay(&cfg, &history), replay(&cfg, &history));
        prop_assert_eq!(format!("{:?}", one.1), format!("{:?}", other.1));
    }

    #[test]
    fn an_unknown_sample_never_lowers(cfg in any_config(), history in any_history(), fleet in any_fleet(), several in any::<bool>()) {
        let (mut learned, _, now) = replay(&cfg, &history);
        let unknown = QueueSample { ready: None, ..queue(0) };
        let queues = if several { vec![queue(0), unknown] } else { vec![unknown] };
        let decision = decide(&cfg, &mut learned, &queues, &fleet, now + 1.0);
        let most = cfg.max_parallel.map_or(cfg.max_replicas, |parallel| parallel.div_ceil(cfg.concurrency.max(1)).min(cfg.max_replicas).max(cfg.min_replicas.min(cfg.max_replicas)));
        prop_assert!(decision.target >= fleet.useful().min(most), "{}", decision.reason);
        prop_assert!(decision.hold.is_some());
    }

    #[test]
    fn what_is_learned_can_always_be_written_and_read(cfg in any_config(), history in any_history()) {
        let (learned, _, _) = replay(&cfg, &history);
        let text = serde_json::to_string(&learned).unwrap();
        let back: Learned = serde_json::from_str(&text).unwrap();
        let close = |(one, other): (&str, &str)| one == other || one.parse::<f64>().ok().zip(other.parse::<f64>().ok()).is_some_and(|(one, other)| (one - other).abs() <= 1e-9 * one.abs());
        let again = serde_json::to_string(&back).unwrap();
        let parts = |text: &'_ str| text.split([',', ':', '[', ']', '{', '}']).map(str::to_owned).collect::<Vec<_>>();
        let (one, other) = (parts(&text), parts(&again));
        prop_assert!(one.len() == other.len() && one.iter().zip(&other).all(|(one, other)| close((one, other))), "{} {}", text, again);
    }

    #[test]
    fn more_backlog_never_asks_for_fewer(cfg in any_config(), less in 0u64..500, more in 0u64..500, pods in 0u32..60, busy in 0u32..60) {
        let target = |ready| decide(&cfg, &mut Learned::default(), &[queue(ready)], &fleet(pods, busy.min(pods)), 0.0).target;
        prop_assert!(target(less + more) >= target(less));
    }

    #[test]
    fn only_idle_or_unstarted_pods_leave_without_a_standing_queue(history in any_history(), ready in 1u32..60, share in 0.0..=1.0f64) {
        let cfg = ScaleConfig::new(0, 200, 2.0);
        let (mut learned, _, mut now) = replay(&cfg, &history);
        let busy = (f64::from(ready) * share) as u32;
        for _ in 0..30 {
            now += 1.0;
            let decision = decide(&cfg, &mut learned, &[queue(0)], &fleet(ready, busy), now);
            prop_assert!(decision.target >= busy || decision.inputs.standing_wait_s > 0.0, "{}", decision.reason);
        }
    }
}
