//! Flow 1, the decision: comes in what the queues hold, what the pods do and what was learned; goes out how many pods should be useful, and why.
//! Leaves to others: reading brokers and pods, changing anything, and the clock.
//!
//! One law for all workloads. The user promises a wait (`max_wait_s`), a minimum and a maximum; the rest is learned. Per tick:
//!
//! 1. [`arrival`] λ, [`service`] s, [`latency`] L, [`crowd`]: what is known of rate, tasks and pod starts.
//! 2. [`staffing`]: workers for the rate, by Erlang for short tasks, by what runs now for long ones.
//! 3. [`standing`]: where the promise leaves room, a short queue stands so that no worker idles.
//! 4. [`held`]: what consumers hold calls for nobody else. [`hold`]: idle workers stay where load returns often enough to make that cheaper.
//! 5. [`deficit`]: more workers where what waits would not start in time; all at once, or in a ramp where [`crowd`] has shown that they come sooner so.
//! 6. [`downstream`]: fewer where more of them only make tasks slower.
//! 7. [`down`]: what is above the need of the last start latency, and idle, may leave. A running task is never touched.
//! 8. [`stale`]: without figures nothing is lowered, and [`rise`] says what may be coming unseen. [`stuck`]: tasks that never end count neither as load nor as capacity.
//!
//! What goes in is made by [`seen`] from pods, and by [`blind`] where queues cannot be measured.
//!
//! Where several Deployments take from one queue, [`pool`] decides once for all of them, and [`divide`] says how many pods each has of it.
//!
//! **Useful pods** are those ready or on their way. Parked and terminating pods are neither supply nor a reason to let another go; a rising
//! target is met first by resuming parked pods.

pub mod arrival;
pub mod blind;
pub mod budget;
pub mod crowd;
pub mod deficit;
pub mod divide;
pub mod down;
pub mod downstream;
pub mod held;
pub mod hold;
pub mod late;
pub mod latency;
pub mod numeric;
pub mod observe;
pub mod pool;
mod reason;
pub mod rise;
pub mod seen;
pub mod service;
mod settings;
mod settle;
mod situation;
pub mod staffing;
pub mod stale;
pub mod standing;
pub mod stuck;
mod types;
mod wish;

use serde::{Deserialize, Serialize};

pub use types::{Cap, Completion, FleetSample, HoldReason, Inputs, LawParams, QueueSample, Rule, ScaleConfig, ScaleDecision, Waits};

use numeric::sane;
use settle::bounded;
use wish::count;

/// What the law has learned of one workload. It belongs in status, so that a restart or a new leader goes on where the last one stopped.
/// Unknown fields are ignored and missing ones take their default. The windows of the last minute are not kept: after a restart nothing is
/// lowered until they have filled again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Learned {
    /// Arrival rate.
    pub arrival: arrival::ArrivalRate,
    /// Service time.
    pub service: service::ServiceTime,
    /// Start latency.
    pub latency: latency::StartLatency,
    /// How that grows with the number of pods that start at once.
    pub crowd: crowd::Crowding,
    /// How often which load returns.
    pub levels: hold::LoadLevels,
    /// Messages that waited too long, and what a missing worker cost.
    pub late: late::Lateness,
    /// A bottleneck the workers share.
    pub downstream: downstream::Downstream,
    /// How far arrivals stray from the forecast.
    pub error: standing::ForecastError,
    /// Whether messages are acknowledged before or after their task.
    pub acks: observe::Acks,
    /// What consumers hold.
    pub held: held::Held,
    /// Counters at the last look.
    pub counters: observe::LastFigures,
    /// Where the arrival rate is heading.
    pub trend: stale::Trend,
    /// By how much the load has been seen to rise.
    pub rises: rise::Rises,
    /// Memory of a time without figures.
    pub blind: stale::Blind,
    /// Completions per second, smoothed.
    rate_out: f64,
    /// Pods that the rate keeps at work, at the last look; 0 for a fleet at rest. For when the figures go away.
    load: f64,
    /// When the last good figures were seen.
    last_s: Option<f64>,
    #[serde(skip)]
    down: down::DownWindow,
    /// Tasks assumed of silent workers lately.
    #[serde(skip)]
    assumed: down::Extreme,
    /// The most tasks and waiting messages seen at once lately.
    #[serde(skip)]
    seen: down::Extreme,
    /// Since when that has been watched.
    #[serde(skip)]
    seen_since_s: Option<f64>,
}

/// Decides for one workload. Pure: equal inputs and equal memory give equal decisions. `now_s` counts from any epoch, as long as it is the same
/// one across restarts; time that runs backwards counts as no time.
pub fn decide(cfg: &ScaleConfig, learned: &mut Learned, queues: &[QueueSample], fleet: &FleetSample, now_s: f64) -> ScaleDecision {
    let cfg = &cfg.bounded();
    for completion in &fleet.completions {
        learned.service.ended(completion.service_s);
    }
    for latency in &fleet.started_latencies_s {
        learned.latency.started(*latency);
    }
    let on_the_way = [fleet.starting.as_slice(), &fleet.settling].concat();
    learned.crowd.observe(now_s, on_the_way.len() as u32, &fleet.started_latencies_s);
    let latency = learned.latency.estimate(cfg.start_latency_hint_s, &on_the_way);
    let before = learned.service.estimate(cfg.service_time_hint_s, &[]);
    let (backlog, hold) = observe::add_up(cfg, queues);
    let age_s = queues.iter().map(|queue| sane(queue.age_s, f64::MAX)).fold(0.0, f64::max);
    let mut inputs = Inputs {
        oldest_s: observe::oldest(queues),
        useful: fleet.useful(),
        starting: (on_the_way.len() as u32).saturating_add(fleet.restarting).saturating_add(fleet.uncreated()),
        unschedulable: fleet.pending_unschedulable,
        parked: fleet.parked,
        service_s: before.mean_s,
        start_latency_s: latency.mean_s,
        rate_out: learned.rate_out,
        age_s,
        ..Inputs::default()
    };
    if let Some(reason) = hold {
        let known = stale::LastKnown {
            load: learned.load,
            growth_per_s: learned.trend.growth_per_s(),
            rises: &learned.rises,
            rate_per_s: learned.arrival.mean(),
            broker_down: fleet.broker_down,
            latency_s: latency.mean_s,
        };
        let all = inputs.useful.saturating_add(fleet.parked);
        let target = learned.blind.target(&cfg.law, now_s, all, &known);
        let target = target.max(lower_bound(cfg, &backlog, inputs.useful));
        let (target, cap) = bounded(cfg, target, None);
        inputs.in_flight = fleet.busy.map(u64::from);
        return finish(cfg, target, Rule::Unknown, cap, Some(reason), inputs);
    }
    learned.blind.end();

    let mut situation = learned.look(cfg, &backlog, fleet, latency, now_s);
    let wish = learned.wish(cfg, &situation, fleet);
    let trial = learned.shared_limit(&mut situation, &wish, fleet, now_s);
    let (target, rule, cap, hold) = learned.settle(cfg, &mut situation, &wish, now_s);
    let at_work = situation.view.told + situation.view.backlog > 0.0;
    let load = situation.rate_per_s * situation.service.mean_s / f64::from(situation.per_pod);
    learned.load = if at_work || load >= standing::LOAD_MIN { load.max(f64::MIN_POSITIVE) } else { 0.0 };
    learned.rises.observe(situation.dt_s, learned.load);
    inputs.backlog = Some(situation.view.waiting as u64);
    inputs.in_flight = situation.view.busy_known.then_some(situation.view.busy as u64 + u64::from(situation.stuck));
    inputs.rate_in = situation.rate_per_s;
    inputs.rate_out = learned.rate_out;
    inputs.service_s = situation.service.mean_s;
    inputs.offered_load = situation.rate_per_s * situation.service.mean_s;
    inputs.stuck = situation.stuck;
    inputs.batch = situation.batch;
    (inputs.arrived, inputs.late, inputs.waited_s) = (situation.arrived, situation.late, situation.waited_s);
    inputs.next_due_s = backlog.next_due_s;
    inputs.standing_wait_s = wish.standing_wait_s;
    inputs.waits = wish.held;
    inputs.prefetched = situation.view.ahead as u64;
    inputs.ramp = if cap == Some(Cap::Ramp) { situation.ramp } else { None };
    ScaleDecision { keep_parked: trial, ..finish(cfg, target, rule, cap, hold, inputs) }
}

/// What the known part of the backlog proves: with one task per worker at least so many pods have work at once. It never exceeds one start burst.
fn lower_bound(cfg: &ScaleConfig, backlog: &observe::Backlog, useful: u32) -> u32 {
    match cfg.messages_per_worker {
        Some(length) => count((backlog.ready / f64::from(length.max(1))).ceil()).min(useful.saturating_add(cfg.law.start_burst)),
        None if backlog.ready > 0.0 => useful.max(1),
        None => 0,
    }
}

fn finish(cfg: &ScaleConfig, target: u32, rule: Rule, cap: Option<Cap>, hold: Option<HoldReason>, inputs: Inputs) -> ScaleDecision {
    let reason = reason::sentence(cfg, target, rule, cap, hold, &inputs);
    ScaleDecision { target, reason, rule, cap, inputs, next_wake_s: cfg.law.tick_s, hold, keep_parked: false }
}
