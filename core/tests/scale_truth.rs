//! What the law believes to have arrived: only what was sent. Worlds in which pods start, crash, fall silent and come back while nothing is sent.
//! Left to others: what to do about messages that are there (`scale.rs`).

use proptest::prelude::*;
use qscaler_core::scale::{Completion, FleetSample, Learned, QueueSample, ScaleConfig, decide};

/// What a pod shows in one second.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shows {
    Starting,
    Silent,
    Idle,
}

/// A fleet that obeys, over a queue to which nothing was ever sent. Each pod lives through `life`, a list of what it shows and for how many seconds, and stays
/// as it was last.
struct Empty {
    cfg: ScaleConfig,
    queue: QueueSample,
    life: Vec<(Shows, u32)>,
    ages: Vec<u32>,
    learned: Learned,
    now_s: f64,
}

impl Empty {
    fn new(cfg: ScaleConfig, queue: QueueSample, life: Vec<(Shows, u32)>) -> Self {
        let ages = vec![0; cfg.min_replicas as usize];
        Self { cfg, queue, life, ages, learned: Learned::default(), now_s: 1000.0 }
    }

    fn shows(&self, age: u32) -> Shows {
        let mut end = 0;
        for (shows, seconds) in &self.life {
            end += seconds;
            if age < end {
                return *shows;
            }
        }
        self.life.last().map_or(Shows::Idle, |(shows, _)| *shows)
    }

    /// One second; returns the target.
    fn tick(&mut self) -> u32 {
        let mut fleet = FleetSample { spec_replicas: self.ages.len() as u32, ..FleetSample::default() };
        let was_starting = |age: u32| age == 0 || self.shows(age - 1) == Shows::Starting;
        for age in &self.ages {
            match self.shows(*age) {
                Shows::Starting => fleet.starting.push(f64::from(*age)),
                shows => {
                    fleet.ready += 1;
                    fleet.untold += u32::from(shows == Shows::Silent);
                    if was_starting(*age) {
                        fleet.started_latencies_s.push(f64::from(*age));
                    }
                }
            }
        }
        fleet.busy = (fleet.untold == 0 || fleet.untold < fleet.ready).then_some(0);
        self.now_s += 1.0;
        let decision = decide(&self.cfg, &mut self.learned, std::slice::from_ref(&self.queue), &fleet, self.now_s);
        self.ages.iter_mut().for_each(|age| *age += 1);
        self.ages.resize(decision.target as usize, 0);
        decision.target
    }
}

fn empty_queues() -> impl Strategy<Value = QueueSample> {
    (proptest::option::of(Just(0)), proptest::option::of(Just(0))).prop_map(|(unacked, published_total)| QueueSample {
        ready: Some(0),
        unacked,
        published_total,
        ..QueueSample::default()
    })
}

#[test]
fn an_empty_celery_queue_stays_at_its_minimum() {
    // A pod is Ready after 40 s, and whether its worker is idle is known 20 s later.
    let life = vec![(Shows::Starting, 40), (Shows::Silent, 20), (Shows::Idle, 1)];
    for early in [true, false] {
        for unacked in [Some(0), None] {
            let cfg = ScaleConfig { acknowledges_early: early, ..ScaleConfig::new(1, 5, 15.0) };
            let mut world = Empty::new(cfg, QueueSample { ready: Some(0), unacked, ..QueueSample::default() }, life.clone());
            let targets: Vec<u32> = (0..900).map(|_| world.tick()).collect();
            assert!(targets.iter().all(|target| *target == 1), "early {early}, unacked {unacked:?}: {targets:?}");
        }
    }
}

#[test]
fn a_crash_loop_beside_an_empty_queue_starts_nobody() {
    let life = vec![vec![(Shows::Starting, 10), (Shows::Silent, 8)]; 80].concat();
    let cfg = ScaleConfig { acknowledges_early: true, ..ScaleConfig::new(1, 5, 15.0) };
    let mut world = Empty::new(cfg, QueueSample { ready: Some(0), unacked: Some(0), ..QueueSample::default() }, life);
    let targets: Vec<u32> = (0..900).map(|_| world.tick()).collect();
    assert!(targets.iter().all(|target| *target == 1), "{targets:?}");
}

#[test]
fn figures_that_lag_behind_what_workers_tell_make_no_arrivals() {
    // Ten workers, twelve messages sent at once; each ends a task in turn, one a second, and the broker's figures are five seconds old.
    for lag in [0usize, 1, 5, 10] {
        let (cfg, mut learned) = (ScaleConfig::new(0, 10, 15.0), Learned::default());
        let held = |second: usize| if second < 20 { 0 } else { 12u64.saturating_sub(second.saturating_sub(40) as u64) };
        for second in 0..120 {
            let busy = held(second).min(10) as u32;
            let done = (41..=52).contains(&second);
            let fleet = FleetSample {
                spec_replicas: 10,
                ready: 10,
                busy: Some(busy),
                begun: Some(0),
                busy_ages_s: vec![1.0; busy as usize],
                completions: vec![Completion { service_s: 20.0 }; usize::from(done)],
                ..FleetSample::default()
            };
            let then = held(second.saturating_sub(lag));
            let queue =
                QueueSample { ready: Some(then.saturating_sub(10)), unacked: Some(then.min(10)), age_s: lag as f64, ..QueueSample::default() };
            decide(&cfg, &mut learned, &[queue], &fleet, 1000.0 + second as f64);
        }
        assert_eq!(learned.counters.counted(), 12.0, "lag {lag}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn a_queue_to_which_nothing_was_sent_never_scales_up(
        min in 0u32..4, wait in 1.0..600.0f64, hint in 1.0..600.0f64, early in any::<bool>(), concurrency in 1u32..5, queue in empty_queues(),
        life in proptest::collection::vec((prop_oneof![Just(Shows::Starting), Just(Shows::Silent), Just(Shows::Idle)], 1u32..200), 1..12),
        outages in proptest::collection::vec((0u32..900, 1u32..60), 0..3),
    ) {
        let cfg = ScaleConfig { acknowledges_early: early, concurrency, start_latency_hint_s: hint, ..ScaleConfig::new(min, 20, wait) };
        let mut world = Empty::new(cfg, queue.clone(), life);
        for second in 0..900 {
            let dark = outages.iter().any(|(from, length)| (*from..from + length).contains(&second));
            world.queue = if dark { QueueSample::default() } else { queue.clone() };
            let target = world.tick();
            prop_assert!(target <= min, "{target} at {second}");
        }
    }
}
