//! Comes in: broker and workers, once per tick. Goes out: QScaler's own decisions, by the very law the controller runs.
//! Leaves to others: everything the law decides. Orders are carried out as the drain protocol does: those called back first, idle workers leave
//! at once, busy ones after their task.

use qscaler_core::scale::crowd::Crowding;
use qscaler_core::scale::{Completion, FleetSample, Learned, QueueSample, Rule, ScaleConfig, ScaleDecision, decide};

use crate::rng::Rng;
use crate::world::{Policy, World};

/// May change what the law is shown: time, queue, pods.
pub type Blur = Box<dyn FnMut(f64, &mut QueueSample, &mut FleetSample)>;
/// Is told time, what was seen of the pods, and what was decided.
pub type Listener = Box<dyn FnMut(f64, &FleetSample, &ScaleDecision)>;

/// QScaler in the simulated world.
pub struct Law {
    cfg: ScaleConfig,
    learned: Learned,
    first_s: f64,
    counters: bool,
    last_published: u64,
    /// Decisions made.
    pub decisions: u64,
    /// Decisions by rule, for a look at what works.
    pub rules: Vec<(Rule, u64)>,
    /// Called with every decision.
    pub listener: Option<Listener>,
    /// Asked before every decision.
    pub blur: Option<Blur>,
    /// All pods are asked for at once, whatever has been learned of starts.
    pub at_once: bool,
}

impl Law {
    /// The law with `cfg`; `seed` gives the phase of its tick. `counters`: the broker counts what is published (RabbitMQ), else arrivals follow from
    /// lengths and the workers' reports (Redis).
    pub fn new(cfg: ScaleConfig, counters: bool, seed: u64) -> Self {
        let first_s = Rng::new(seed, 0x1a).between(0.0, cfg.law.tick_s);
        Self {
            cfg,
            learned: Learned::default(),
            first_s,
            counters,
            last_published: 0,
            decisions: 0,
            rules: Vec::new(),
            listener: None,
            blur: None,
            at_once: false,
        }
    }

    /// Messages that it has counted as arrived.
    pub fn counted(&self) -> f64 {
        self.learned.counters.counted()
    }
}

impl Policy for Law {
    fn first_wake_s(&self) -> f64 {
        self.first_s
    }

    fn wake(&mut self, world: &mut World<'_>) -> f64 {
        let now_s = world.now_s();
        let drained = world.drained_pods();
        let answers = world.broker_answers();
        let mut queue = if answers {
            self.last_published = world.published_total();
            QueueSample {
                ready: Some(u64::from(world.ready_messages())),
                unacked: Some(u64::from(world.unacked_messages())),
                published_total: self.counters.then_some(self.last_published),
                ..QueueSample::default()
            }
        } else {
            QueueSample::default()
        };
        // The workers report through the broker: while it is away, nothing comes from them either.
        let (busy, busy_ages_s, completions) = if answers {
            let completions = world.take_completions().into_iter().map(|service_s| Completion { service_s }).collect();
            (Some(world.busy_pods()), world.busy_ages_s(), completions)
        } else {
            (None, Vec::new(), Vec::new())
        };
        let mut fleet = FleetSample {
            spec_replicas: world.replicas() + drained,
            ready: world.ready_pods(),
            starting: world.starting_ages_s(),
            pending_unschedulable: 0,
            parked: drained,
            terminating: 0,
            busy,
            untold: 0,
            settling: Vec::new(),
            broker_down: false,
            restarting: 0,
            begun: answers.then(|| world.take_begun()),
            found: 0,
            busy_ages_s,
            completions,
            started_latencies_s: world.take_latencies(),
        };
        if let Some(blur) = &mut self.blur {
            blur(now_s, &mut queue, &mut fleet);
        }
        if self.at_once {
            self.learned.crowd = Crowding::default();
        }
        let decision = decide(&self.cfg, &mut self.learned, &[queue], &fleet, now_s);
        self.decisions += 1;
        if let Some(listener) = &mut self.listener {
            listener(now_s, &fleet, &decision);
        }
        match self.rules.iter_mut().find(|(rule, _)| *rule == decision.rule) {
            Some((_, count)) => *count += 1,
            None => self.rules.push((decision.rule, 1)),
        }
        world.keep_parked(decision.keep_parked);
        let useful = fleet.useful();
        if decision.target > useful {
            let called = world.undrain(decision.target - useful);
            world.start(decision.target - useful - called);
        } else if decision.target < useful {
            world.drain(useful - decision.target);
        }
        now_s + decision.next_wake_s
    }
}
