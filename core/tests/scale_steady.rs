//! No figure of any kind makes a fleet flap: held messages, foreign consumers, figures that stand still, flicker or lag. In: worlds whose fleet obeys the
//! law. Left to others: whether the number it settles at is the right one (`scale.rs`, the bench).

use proptest::prelude::*;
use qscaler_core::scale::{FleetSample, Learned, QueueSample, ScaleConfig, decide};

/// A fleet that obeys: pods start after `start_s` seconds, and leave in the second in which they are asked to.
struct Fleet {
    cfg: ScaleConfig,
    learned: Learned,
    now: u32,
    /// Second at which each pod is Ready.
    ready_at: Vec<u32>,
    start_s: u32,
    target: u32,
    changes: Vec<(u32, u32)>,
    highest: u32,
}

impl Fleet {
    fn new(cfg: ScaleConfig, start_s: u32) -> Self {
        let ready_at = vec![0; cfg.min_replicas as usize];
        Self { target: cfg.min_replicas, highest: 0, cfg, learned: Learned::default(), now: 0, ready_at, start_s, changes: Vec::new() }
    }

    fn ready(&self) -> u32 {
        self.ready_at.iter().filter(|at| **at <= self.now).count() as u32
    }

    /// One second with these figures; `told` changes what the workers tell.
    fn tick(&mut self, queue: &QueueSample, told: impl FnOnce(&mut FleetSample)) {
        let starting = self.ready_at.iter().filter(|at| **at > self.now).map(|at| f64::from(self.start_s - (at - self.now))).collect();
        let latencies = self.ready_at.iter().filter(|at| **at == self.now && self.now > 0).map(|_| f64::from(self.start_s)).collect();
        let mut sample = FleetSample {
            spec_replicas: self.ready_at.len() as u32,
            ready: self.ready(),
            starting,
            started_latencies_s: latencies,
            busy: Some(0),
            begun: Some(0),
            ..FleetSample::default()
        };
        told(&mut sample);
        let decision = decide(&self.cfg, &mut self.learned, std::slice::from_ref(queue), &sample, 1000.0 + f64::from(self.now));
        if decision.target != self.target {
            self.target = decision.target;
            self.changes.push((self.now, self.target));
        }
        self.highest = self.highest.max(self.target);
        self.ready_at.sort_unstable();
        self.ready_at.truncate(decision.target as usize);
        self.ready_at.resize(decision.target as usize, self.now + self.start_s.max(1));
        self.now += 1;
    }

    /// How often the target turned from rising to falling or back. A fixed length target below what a pod runs at once asks for more and more: that is
    /// no flapping.
    fn turns(&self) -> usize {
        self.turns_since(0)
    }

    fn turns_since(&self, second: u32) -> usize {
        self.changes.windows(3).filter(|three| three[2].0 >= second && (three[1].1 > three[0].1) != (three[2].1 > three[1].1)).count()
    }

    fn changes_since(&self, second: u32) -> usize {
        self.changes.iter().filter(|(at, _)| *at >= second).count()
    }
}

fn figures(ready: u64, unacked: Option<u64>) -> QueueSample {
    QueueSample { ready: Some(ready), unacked, ..QueueSample::default() }
}

/// `tasks` Celery tasks with a countdown, sent at once: whoever is Ready takes all of them and holds them, and gives them back when it leaves.
fn countdown(tasks: u64, min: u32, start_s: u32, early: bool) -> Fleet {
    let mut fleet = Fleet::new(ScaleConfig { acknowledges_early: early, ..ScaleConfig::new(min, 20, 15.0) }, start_s);
    let mut held: Vec<u64> = Vec::new();
    for second in 0..600 {
        let pods = fleet.ready() as usize;
        // What pods that have left held is back in the queue, and seen there for one second.
        let kept: u64 = held.iter().take(pods).sum();
        held.resize(pods, 0);
        let sent = if second >= 30 { tasks } else { 0 };
        let back = sent - kept.min(sent);
        fleet.tick(&figures(back, Some(kept)), |_| ());
        if let Some(share) = back.checked_div(pods as u64) {
            held.iter_mut().for_each(|one| *one += share);
            held[0] += back - share * pods as u64;
        }
    }
    fleet
}

#[test]
fn tasks_that_are_held_until_they_are_due_keep_one_pod_and_start_no_other() {
    for early in [true, false] {
        for (tasks, min) in [(100, 1), (5, 1), (100, 0), (5, 0)] {
            let fleet = countdown(tasks, min, 5, early);
            assert_eq!(fleet.target, 1, "{tasks} {min} {early}: who holds them stays: {:?}", fleet.changes);
            assert!(fleet.changes_since(120) == 0 && fleet.changes.len() <= 4, "{tasks} {min} {early}: {:?}", fleet.changes);
        }
    }
}

#[test]
fn what_a_foreign_consumer_holds_moves_nobody() {
    for early in [true, false] {
        let mut fleet = Fleet::new(ScaleConfig { acknowledges_early: early, ..ScaleConfig::new(1, 20, 15.0) }, 5);
        for second in 0..600u32 {
            // It works on one to five tasks, each a few seconds.
            fleet.tick(&figures(0, Some(u64::from(1 + (second / 3) % 5))), |_| ());
        }
        assert!(fleet.changes.is_empty(), "{early}: {:?}", fleet.changes);
        let mut asleep = Fleet::new(ScaleConfig { acknowledges_early: early, ..ScaleConfig::new(0, 20, 15.0) }, 5);
        for second in 0..3600u32 {
            asleep.tick(&figures(0, Some(u64::from(second % 75 < 70))), |_| ());
        }
        assert!(asleep.highest <= 1 && asleep.changes.len() <= 12, "{early}: {:?}", asleep.changes);
    }
}

#[test]
fn what_is_held_for_good_with_nobody_there_gets_one_pod() {
    // Celery's messages of a worker that was killed: the next worker gives them back.
    let mut fleet = Fleet::new(ScaleConfig { acknowledges_early: true, ..ScaleConfig::new(0, 20, 15.0) }, 5);
    (0..300).for_each(|_| fleet.tick(&figures(0, Some(3)), |_| ()));
    assert_eq!((fleet.target, fleet.changes.len()), (1, 1), "{:?}", fleet.changes);
}

#[test]
fn given_back_messages_are_no_arrivals() {
    let mut learned = Learned::default();
    let cfg = ScaleConfig { acknowledges_early: true, ..ScaleConfig::new(0, 20, 15.0) };
    for second in 0..300u64 {
        let back = if second % 20 > 17 { 40 } else { 0 };
        let sample = FleetSample { spec_replicas: 4, ready: 4, busy: Some(0), begun: Some(0), ..FleetSample::default() };
        let decision = decide(&cfg, &mut learned, &[figures(back, Some(50 - back))], &sample, second as f64);
        assert!(decision.inputs.rate_in < 1e-9, "{second}: {}", decision.reason);
        assert!(decision.target <= 4, "{second}: {}", decision.reason);
    }
}

#[test]
fn a_message_that_waits_beside_prefetched_ones_starts_no_more_pods_than_messages_wait() {
    let sample = FleetSample { spec_replicas: 2, ready: 2, busy: Some(2), begun: Some(0), ..FleetSample::default() };
    let cfg = ScaleConfig { acknowledges_early: true, ..ScaleConfig::new(0, 20, 15.0) };
    let decision = decide(&cfg, &mut Learned::default(), &[figures(1, Some(100))], &sample, 0.0);
    assert!(decision.target <= 3, "{}", decision.reason);
}

#[derive(Debug, Clone)]
struct Still {
    ready: u64,
    unacked: Option<u64>,
    busy: Option<u32>,
    untold: u32,
    age_s: f64,
}

#[test]
fn what_is_put_aside_brings_one_pod_in_time_and_no_sooner() {
    // A job is due after ten minutes, another an hour later; each takes five seconds. Pods start in 30 s.
    let cfg = ScaleConfig { start_latency_hint_s: 30.0, ..ScaleConfig::new(0, 5, 15.0) };
    let mut fleet = Fleet::new(cfg, 30);
    let due = [600_u32, 4200];
    let (mut done, mut left_s, mut waited) = (0, 0_u32, Vec::new());
    for second in 0..6000 {
        let ready = due.iter().filter(|at| **at <= second).count() - done;
        let next_due_s = due.iter().find(|at| **at > second).map(|at| f64::from(at - second));
        let idle = fleet.ready() > 0 && left_s == 0;
        if idle && ready > 0 {
            (done, left_s) = (done + 1, 5);
            waited.push(second - due[done - 1]);
        }
        let queue = QueueSample { next_due_s, ..figures((ready - usize::from(idle && ready > 0)) as u64, Some(0)) };
        let busy = u32::from(left_s > 0);
        fleet.tick(&queue, |sample| (sample.busy, sample.begun) = (Some(busy), Some(u32::from(left_s == 5))));
        left_s = left_s.saturating_sub(1);
    }
    assert!(waited.len() == 2 && waited.iter().all(|s| *s <= 2), "{waited:?}");
    assert_eq!(fleet.highest, 1);
    assert!(fleet.changes.len() == 4 && fleet.changes[0].0 >= 500 && fleet.target == 0, "{:?}", fleet.changes);
}

fn any_still() -> impl Strategy<Value = Still> {
    (0u64..30, proptest::option::of(0u64..60), proptest::option::weighted(0.8, 0u32..12), 0u32..3, prop_oneof![4 => Just(0.0), 1 => 0.0..30.0f64])
        .prop_map(|(ready, unacked, busy, untold, age_s)| Still { ready, unacked, busy, untold, age_s })
}

fn any_config() -> impl Strategy<Value = (ScaleConfig, u32)> {
    (0u32..3, 2.0..300.0f64, any::<bool>(), 1u32..4, proptest::option::weighted(0.2, 1u32..10), 1u32..40).prop_map(
        |(min, wait, early, concurrency, messages_per_worker, start_s)| {
            (ScaleConfig { acknowledges_early: early, concurrency, messages_per_worker, ..ScaleConfig::new(min, 15, wait) }, start_s)
        },
    )
}

fn show(still: &Still, fleet: &mut FleetSample, concurrency: u32) {
    fleet.untold = still.untold.min(fleet.ready);
    fleet.busy = still.busy.map(|busy| busy.min((fleet.ready - fleet.untold) * concurrency));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn figures_that_stand_still_leave_the_fleet_alone((cfg, start_s) in any_config(), still in any_still()) {
        let concurrency = cfg.concurrency;
        let mut fleet = Fleet::new(cfg, start_s);
        for _ in 0..600 {
            let queue = QueueSample { age_s: still.age_s, ..figures(still.ready, still.unacked) };
            fleet.tick(&queue, |sample| show(&still, sample, concurrency));
        }
        prop_assert!(fleet.turns_since(400) == 0 && fleet.turns() <= 4, "{:?}", fleet.changes);
    }

    #[test]
    fn figures_that_flicker_change_the_fleet_a_few_times_at_most(
        (cfg, start_s) in any_config(), still in any_still(), lag in 1u32..10, held in 0u64..4, silent in 0u32..3, unknown in any::<bool>(),
    ) {
        let concurrency = cfg.concurrency;
        let mut fleet = Fleet::new(cfg, start_s);
        for second in 0..900u32 {
            let on = (second / lag) % 2 == 1;
            let noisy = Still {
                unacked: still.unacked.map(|unacked| unacked + if on { held } else { 0 }),
                untold: still.untold + if on { silent } else { 0 },
                ..still.clone()
            };
            let queue = QueueSample { age_s: still.age_s, ..figures(noisy.ready, noisy.unacked) };
            let queue = if on && unknown { QueueSample::default() } else { queue };
            fleet.tick(&queue, |sample| show(&noisy, sample, concurrency));
        }
        prop_assert!(fleet.turns() <= 8 && fleet.turns_since(600) <= 1, "{:?}", fleet.changes);
    }
}
