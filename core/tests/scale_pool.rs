//! Several Deployments that take from one queue. In: worlds whose fleets obey the law, each asked in turn as the controller does. Left to others: the division by
//! itself (`scale/divide.rs`), the pools of a cluster (`controller::observe::pools`), waits and costs (`sim`).

// What was measured is shown with the result.
#![allow(clippy::print_stdout)]

use proptest::prelude::*;
use qscaler_core::config::{Parsed, Paused, WorkerConfig, parse};
use qscaler_core::scale::pool::{Member, Pool, Takes};
use qscaler_core::scale::{Completion, FleetSample, Learned, QueueSample, ScaleConfig, ScaleDecision, decide};
use std::collections::{BTreeMap, VecDeque};

const START_S: u32 = 10;

/// One Deployment that obeys.
struct Fleet {
    cfg: ScaleConfig,
    takes: Takes,
    learned: Learned,
    /// Second at which each pod is Ready, and at which its task ends; 0: it has none.
    pods: Vec<(u32, u32)>,
    target: u32,
    begun: u32,
    ended: u32,
}

impl Fleet {
    fn new(min: u32, max: u32) -> Self {
        let cfg = ScaleConfig { start_latency_hint_s: f64::from(START_S), ..ScaleConfig::new(min, max, 15.0) };
        Self { cfg, takes: Takes::All, learned: Learned::default(), pods: vec![(0, 0); min as usize], target: min, begun: 0, ended: 0 }
    }

    fn sample(&mut self, now: u32) -> FleetSample {
        FleetSample {
            spec_replicas: self.pods.len() as u32,
            ready: self.pods.iter().filter(|(ready, _)| *ready <= now).count() as u32,
            starting: self.pods.iter().filter(|(ready, _)| *ready > now).map(|(ready, _)| f64::from(START_S - (ready - now))).collect(),
            started_latencies_s: self.pods.iter().filter(|(ready, _)| *ready == now && now > 0).map(|_| f64::from(START_S)).collect(),
            busy: Some(self.pods.iter().filter(|(_, ends)| *ends > 0).count() as u32),
            begun: Some(std::mem::take(&mut self.begun)),
            completions: vec![Completion { service_s: 5.0 }; std::mem::take(&mut self.ended) as usize],
            ..FleetSample::default()
        }
    }

    /// Somebody else removes pods; each finishes its task in the hold, and says so.
    fn remove(&mut self, left: u32) {
        let gone = self.pods.split_off(left as usize);
        self.ended += gone.iter().filter(|(_, ends)| *ends > 0).count() as u32;
    }

    /// Pods come; idle ones go, busy ones never.
    fn obey(&mut self, target: u32, now: u32) {
        self.target = target;
        while self.pods.len() > target as usize {
            let Some(idle) = self.pods.iter().rposition(|(_, ends)| *ends == 0) else { break };
            self.pods.remove(idle);
        }
        self.pods.resize(self.pods.len().max(target as usize), (now + START_S, 0));
    }
}

/// A queue of tasks of five seconds, and the fleets that take from it.
struct World {
    fleets: Vec<Fleet>,
    pool: Option<Pool<String>>,
    now: u32,
    waiting: u32,
    sent: u32,
    pod_seconds: u32,
    changes: Vec<u32>,
    highest: u32,
    reasons: Vec<String>,
}

fn name(at: usize) -> String {
    format!("shop/{}", ["blue", "green", "red", "white"][at])
}

impl World {
    /// `pooled`: the law decides for the pool; else for each by itself, as it did once.
    fn new(fleets: Vec<Fleet>, pooled: bool) -> Self {
        let members = (0..fleets.len()).map(|at| (name(at), vec!["orders".to_owned()])).collect();
        let mut pool = Pool::default();
        pool.set_members(members);
        let changes = vec![0; fleets.len()];
        let reasons = vec![String::new(); fleets.len()];
        Self { fleets, pool: pooled.then_some(pool), now: 0, waiting: 0, sent: 0, pod_seconds: 0, changes, highest: 0, reasons }
    }

    fn tick(&mut self, sent: u32) {
        self.waiting += sent;
        self.sent += sent;
        for fleet in &mut self.fleets {
            for (ready, ends) in &mut fleet.pods {
                if *ends > 0 && *ends <= self.now {
                    (*ends, fleet.ended) = (0, fleet.ended + 1);
                }
                if *ready <= self.now && *ends == 0 && self.waiting > 0 {
                    (*ends, self.waiting, fleet.begun) = (self.now + 5, self.waiting - 1, fleet.begun + 1);
                }
            }
        }
        let running: usize = self.fleets.iter().map(|fleet| fleet.pods.iter().filter(|(_, ends)| *ends > 0).count()).sum();
        let queue = QueueSample { ready: Some(u64::from(self.waiting)), unacked: Some(running as u64), ..QueueSample::default() };
        for at in 0..self.fleets.len() {
            let (fleet, now_s) = (&mut self.fleets[at], 1000.0 + f64::from(self.now) + 0.01 * at as f64);
            let sample = fleet.sample(self.now);
            let decision: Option<ScaleDecision> = match &mut self.pool {
                Some(pool) => {
                    let member = Member { cfg: fleet.cfg.clone(), takes: fleet.takes, fleet: sample };
                    pool.decide(&name(at), member, std::slice::from_ref(&queue), &mut fleet.learned, now_s)
                }
                None => Some(decide(&fleet.cfg, &mut fleet.learned, std::slice::from_ref(&queue), &sample, now_s)),
            };
            let Some(decision) = decision else { continue };
            self.changes[at] += u32::from(decision.target != fleet.target);
            self.reasons[at] = decision.reason;
            fleet.obey(decision.target, self.now);
        }
        let pods: u32 = self.fleets.iter().map(|fleet| fleet.pods.len() as u32).sum();
        self.pod_seconds += pods;
        self.highest = self.highest.max(pods);
        self.now += 1;
    }

    fn counted(&self) -> f64 {
        self.pool.as_ref().map_or_else(|| self.fleets.iter().map(|fleet| fleet.learned.counters.counted()).sum(), Pool::counted)
    }

    fn has(&self) -> Vec<usize> {
        self.fleets.iter().map(|fleet| fleet.pods.len()).collect()
    }
}

/// Sixteen tasks at once, a steady load, and silence.
fn day(world: &mut World) {
    for second in 0..1200u32 {
        let sent = match second {
            60 => 16,
            200..700 => u32::from(second % 2 == 0),
            _ => 0,
        };
        world.tick(sent);
    }
}

#[test]
fn two_fleets_on_one_queue_cost_what_one_costs_and_invent_nothing() {
    let mut one = World::new(vec![Fleet::new(0, 40)], false);
    let mut two = World::new(vec![Fleet::new(0, 20), Fleet::new(0, 20)], true);
    let mut apart = World::new(vec![Fleet::new(0, 20), Fleet::new(0, 20)], false);
    [&mut one, &mut two, &mut apart].into_iter().for_each(day);
    let seen = |world: &World| (world.pod_seconds, world.highest, world.sent, world.counted());
    println!("pod-seconds, most pods, sent, counted: one {:?}, a pool {:?}, apart {:?}", seen(&one), seen(&two), seen(&apart));
    assert!(two.counted() <= f64::from(two.sent), "{} of {}", two.counted(), two.sent);
    assert!(f64::from(two.pod_seconds) <= 1.05 * f64::from(one.pod_seconds), "{} {}", two.pod_seconds, one.pod_seconds);
    assert!(two.highest <= one.highest, "{} {}", two.highest, one.highest);
    assert_eq!((two.waiting, two.has()), (0, vec![0, 0]), "all was done, and nobody is left");
    // What it was like: each for the whole backlog, and what the other finished taken for messages that came.
    assert!(apart.highest > one.highest + one.highest / 2 && apart.pod_seconds > one.pod_seconds, "{:?} {:?}", seen(&apart), seen(&one));
    assert!(apart.counted() > f64::from(apart.sent), "{:?}", seen(&apart));
}

#[test]
fn a_burst_is_divided_by_what_each_may_have_and_said_to_each() {
    let mut world = World::new(vec![Fleet::new(0, 15), Fleet::new(0, 5)], true);
    (0..30).for_each(|_| world.tick(0));
    world.tick(1000);
    world.tick(0);
    assert_eq!(world.has(), [15, 5], "both are at their maximum");
    assert!(world.reasons[0].starts_with("15 of 20 pods") && world.reasons[0].contains("shared with shop/green"), "{}", world.reasons[0]);
    let mut world = World::new(vec![Fleet::new(0, 30), Fleet::new(0, 10)], true);
    (0..30).for_each(|_| world.tick(0));
    world.tick(8);
    world.tick(0);
    let mut one = World::new(vec![Fleet::new(0, 40)], false);
    (0..30).for_each(|_| one.tick(0));
    one.tick(8);
    one.tick(0);
    let has = world.has();
    assert!(has[0] > has[1] && has[1] > 0 && has[0] + has[1] <= one.has()[0], "{has:?} of {:?}", one.has());
}

#[test]
fn a_steady_load_makes_neither_of_two_fleets_flap() {
    let mut world = World::new(vec![Fleet::new(0, 20), Fleet::new(0, 20)], true);
    (0..1800u32).for_each(|second| world.tick(u32::from(second % 2 == 0)));
    let before = world.changes.clone();
    (1800..3600u32).for_each(|second| world.tick(u32::from(second % 2 == 0)));
    let moved: Vec<u32> = world.changes.iter().zip(&before).map(|(after, before)| after - before).collect();
    assert!(moved.iter().sum::<u32>() <= 4, "{moved:?} changes in half an hour");
}

#[test]
fn a_blue_green_move_leaves_the_old_to_its_end_and_starts_no_second_fleet() {
    let mut world = World::new(vec![Fleet::new(0, 20), Fleet::new(0, 20)], true);
    world.fleets[1].takes = Takes::Nothing;
    (0..900u32).for_each(|_| world.tick(1));
    let old = world.has()[0];
    assert!((5..=9).contains(&old) && world.has()[1] == 0, "{:?}", world.has());
    // The new one is annotated, and the old one paused.
    (world.fleets[0].takes, world.fleets[1].takes) = (Takes::Nothing, Takes::All);
    for _ in 900..1200u32 {
        world.tick(1);
        assert!(world.has()[0] == old && world.has()[1] <= 3, "what the old one serves is not served twice: {:?}", world.has());
    }
    // The old one is scaled away by hand, pod by pod.
    for target in (0..old as u32).rev() {
        world.fleets[0].remove(target);
        (0..60).for_each(|_| world.tick(1));
    }
    assert!(world.has()[0] == 0 && (5..=9).contains(&world.has()[1]), "{:?}", world.has());
    assert!(world.highest <= 14, "{}", world.highest);
}

#[test]
fn what_each_may_be_given_is_the_users_word() {
    let annotated = |more: &[(&str, &str)]| -> WorkerConfig {
        let usual = [("queue", "q"), ("broker", "env:URL"), ("max-replicas", "5")];
        let all = usual.iter().chain(more).map(|(k, v)| (format!("qscaler.dev/{k}"), (*v).to_owned())).collect();
        let Parsed::Valid(config) = parse(&all, &BTreeMap::new()) else { panic!("valid") };
        *config
    };
    for (annotation, takes) in [
        (("paused", "false"), Takes::All),
        (("paused", "true"), Takes::Nothing),
        (("paused", "scale-down"), Takes::More),
        (("paused", "scale-up"), Takes::Fewer),
        (("scaling", "protect"), Takes::Nothing),
        (("dry-run", "true"), Takes::Told),
    ] {
        assert_eq!(Takes::of(&annotated(&[annotation]), false), takes, "{annotation:?}");
    }
    assert_eq!(Takes::of(&annotated(&[]), true), Takes::Nothing, "another writes its replicas");
    assert_eq!(Paused::No, annotated(&[]).paused);
}

/// Two that share queue b alone.
fn overlapping() -> Pool<String> {
    let mut pool = Pool::default();
    let queues = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    pool.set_members([(name(0), queues(&["a", "b"])), (name(1), queues(&["b", "c"]))].into());
    pool
}

fn idle(pods: u32) -> FleetSample {
    FleetSample { spec_replicas: pods, ready: pods, busy: Some(0), begun: Some(0), ..FleetSample::default() }
}

fn figures(waiting: &[u64]) -> Vec<QueueSample> {
    waiting.iter().map(|ready| QueueSample { ready: Some(*ready), unacked: Some(0), ..QueueSample::default() }).collect()
}

#[test]
fn a_queue_that_two_share_among_others_is_counted_once_and_one_of_its_own_is_left_to_nobody() {
    let mut pool = overlapping();
    let member = |pods: u32| Member { cfg: ScaleConfig::new(0, 50, 15.0), takes: Takes::All, fleet: idle(pods) };
    let mut learned = [Learned::default(), Learned::default()];
    let mut ask = |pool: &mut Pool<String>, at: usize, pods: u32, waiting: &[u64], now_s: f64| {
        pool.decide(&name(at), member(pods), &figures(waiting), &mut learned[at], now_s)
    };
    assert_eq!(ask(&mut pool, 0, 0, &[0, 40], 100.0), None, "the other has not said a word yet");
    let green = ask(&mut pool, 1, 0, &[40, 0], 100.0).expect("a decision");
    let blue = ask(&mut pool, 0, 0, &[0, 40], 100.1).expect("a decision");
    assert_eq!((green.inputs.backlog, blue.inputs.backlog), (Some(40), Some(40)), "forty in all, in b");
    assert!(blue.target + green.target <= 40 && blue.target.abs_diff(green.target) <= 1, "{} {}", blue.target, green.target);
    let shared = pool.shared(&name(0)).expect("it shares");
    assert!(shared.overlaps && shared.others == [name(1)], "{shared:?}");

    // Five idle pods of the one are no help for three messages in the other's own queue.
    let mut pool = overlapping();
    ask(&mut pool, 0, 5, &[0, 0], 200.0);
    let green = ask(&mut pool, 1, 0, &[0, 3], 200.0).expect("a decision");
    assert!((1..=3).contains(&green.target), "{}", green.reason);
}

#[test]
fn what_is_not_known_of_the_queue_lowers_no_member() {
    let mut pool = Pool::default();
    pool.set_members([(name(0), vec!["q".to_owned()]), (name(1), vec!["q".to_owned()])].into());
    let member = |fleet: FleetSample| Member { cfg: ScaleConfig::new(0, 50, 15.0), takes: Takes::All, fleet };
    let mut learned = [Learned::default(), Learned::default()];
    for second in 0..60 {
        let unknown = [QueueSample { age_s: f64::from(second), ..QueueSample::default() }];
        let parked = FleetSample { parked: 1, spec_replicas: 4, ..idle(3) };
        for (at, (fleet, least)) in [(parked, 4), (idle(6), 6)].into_iter().enumerate() {
            let decision = pool.decide(&name(at), member(fleet), &unknown, &mut learned[at], f64::from(second));
            assert!(decision.is_none_or(|d| d.target >= least && d.hold.is_some()), "{second} {at}");
        }
    }
    // What one of them is told is good for the other.
    let now_s = 70.0;
    pool.decide(&name(0), member(idle(3)), &figures(&[5]), &mut learned[0], now_s);
    let other = pool.decide(&name(1), member(idle(6)), &[QueueSample::default()], &mut learned[1], now_s + 0.9).expect("a decision");
    assert_eq!(other.inputs.backlog, Some(5));
}

#[test]
fn a_pool_goes_on_with_what_one_of_them_had_learned_and_whoever_is_left_goes_on_with_the_pools() {
    let mut knows = World::new(vec![Fleet::new(0, 20)], false);
    day(&mut knows);
    let blue = knows.fleets.swap_remove(0);
    // The new one is asked first.
    let mut world = World::new(vec![Fleet::new(0, 20), blue], true);
    world.now = knows.now;
    world.tick(0);
    world.tick(0);
    let service_s = |learned: &Learned| learned.service.estimate(99.0, &[]).mean_s;
    assert!((4.0..6.0).contains(&service_s(&world.fleets[0].learned)), "{}", service_s(&world.fleets[0].learned));
    assert_eq!(world.fleets[0].learned, world.fleets[1].learned);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_pool_invents_messages_or_exceeds_a_maximum(
        bounds in proptest::collection::vec((0u32..3, 1u32..12, prop_oneof![5 => Just(Takes::All), 1 => Just(Takes::More), 1 => Just(Takes::Fewer), 1 => Just(Takes::Nothing)]), 2..5),
        sent in proptest::collection::vec((0u32..200, 0u32..30), 1..8),
    ) {
        let fleets: Vec<Fleet> = bounds.iter().map(|(min, more, takes)| Fleet { takes: *takes, ..Fleet::new(*min, min + more) }).collect();
        let mut world = World::new(fleets, true);
        let mut plan: VecDeque<(u32, u32)> = sent.into();
        let mut next = plan.pop_front();
        for _ in 0..900 {
            let due = match &mut next {
                Some((0, count)) => Some(*count),
                Some((after, _)) => { *after -= 1; None }
                None => None,
            };
            if due.is_some() {
                next = plan.pop_front();
            }
            world.tick(due.unwrap_or(0));
            for (fleet, (min, more, takes)) in world.fleets.iter().zip(&bounds) {
                let pods = fleet.pods.len() as u32;
                prop_assert!(pods <= min + more, "{} pods", pods);
                prop_assert!(*takes != Takes::Nothing || pods == *min);
            }
        }
        prop_assert!(world.counted() <= f64::from(world.sent) + 1e-9, "{} counted of {}", world.counted(), world.sent);
    }
}
