//! Comes in: one tick's samples and what was learned. Goes out: how things stand, in workers. Leaves to others: what to do about it.

use super::latency::LatencyEstimate;
use super::numeric::{decay, sane};
use super::observe::{Backlog, FleetView};
use super::service::ServiceEstimate;
use super::types::{FleetSample, ScaleConfig};
use super::{Learned, down, late, observe, standing, stuck};

/// Without a look for this many ticks, what was counted before does not join what is counted after.
const GAP_TICKS: f64 = 10.0;
/// Longest time one tick may stand for, seconds.
const TICK_MAX_S: f64 = 60.0;
/// A load is looked for within the long window of the rate and so many service times.
const SEEN_SERVICES: f64 = 3.0;
/// The last pod stays for what is due within so many starts: it would hardly be gone before the next one is asked for.
const DUE_NEAR_STARTS: f64 = 2.0;
/// A pod that has been starting for so many mean latencies keeps no other from starting: something else is wrong with it.
const LATE_STARTS: f64 = 3.0;
/// A worker that has been silent for so long, seconds, is not one that has only started or missed a report: several times the period of reports, and of
/// every figure's lag.
const ASSUMED_S: f64 = 30.0;
/// Half-life of the completion rate shown in status, seconds.
const RATE_OUT_HALF_LIFE_S: f64 = 30.0;

/// What the rules work from in one tick, in workers (slots of pods).
pub(super) struct Situation {
    pub(super) view: FleetView,
    /// Messages that have come since the last look.
    pub(super) arrived: f64,
    /// Messages that have become late since then.
    pub(super) late: f64,
    /// How long the first message that waits has waited, seconds.
    pub(super) waited_s: f64,
    pub(super) rate_per_s: f64,
    pub(super) batch: bool,
    pub(super) service: ServiceEstimate,
    pub(super) latency: LatencyEstimate,
    pub(super) stuck: u32,
    pub(super) useful: u32,
    pub(super) not_ready: u32,
    /// Workers in pods that are Ready and take no tasks yet as far as is known.
    pub(super) settling: f64,
    /// Pods on their way that are not later than is to be expected, and parked ones, which need no start.
    pub(super) coming: u32,
    pub(super) parked: u32,
    /// Pods that should start at a time; `None` for all that are wished.
    pub(super) ramp: Option<u32>,
    pub(super) per_pod: u32,
    pub(super) limit: u32,
    pub(super) dt_s: f64,
    /// Something is held, and nobody has been there for long.
    pub(super) held_calls: bool,
    /// What was put aside is due before a pod that starts now could take it.
    pub(super) due_soon: bool,
    /// It is due so soon that a pod that left now would have to be started again at once.
    pub(super) due_near: bool,
    /// The most tasks and waiting messages at once within the time in which every arrival must have been seen as one of them: no rate makes a load
    /// above it, whoever else works on the queue or however the rate was counted.
    pub(super) most_load: f64,
    /// Most pods of use, by a bottleneck they share.
    pub(super) shared: Option<u32>,
}

impl Learned {
    /// Takes the tick's figures in and says how things stand.
    pub(super) fn look(&mut self, cfg: &ScaleConfig, backlog: &Backlog, fleet: &FleetSample, latency: LatencyEstimate, now_s: f64) -> Situation {
        let dt = self.last_s.map_or(0.0, |last| sane(now_s - last, 0.0));
        self.last_s = Some(now_s);
        if dt > GAP_TICKS * cfg.law.tick_s {
            self.counters.forget();
            self.arrival.forget_windows();
            self.levels.forget_last();
            self.error.forget_open();
            self.late.forget_window();
            self.trend.forget();
            self.held.forget();
            self.assumed = down::Extreme::default();
            (self.seen, self.seen_since_s) = (down::Extreme::default(), None);
            self.rises.forget_blocks();
            self.downstream.forget_trial();
            self.service.forget_window();
            self.down = down::DownWindow::after_gap(cfg.law.rate_long_window_s);
        }
        let dt = dt.min(TICK_MAX_S);
        let known = self.service.estimate(cfg.service_time_hint_s, &[]);
        let stuck = stuck::stuck(&fleet.busy_ages_s, &known).min(fleet.busy.unwrap_or(0));
        let service = if stuck > 0 {
            let moving: Vec<f64> = fleet.busy_ages_s.iter().copied().filter(|age| stuck::stuck(&[*age], &known) == 0).collect();
            self.service.estimate(cfg.service_time_hint_s, &moving)
        } else {
            self.service.estimate(cfg.service_time_hint_s, &fleet.busy_ages_s)
        };
        let empty_s = self.down.queue_empty_s(now_s, backlog.ready > 0.0);
        let expected_busy = self.arrival.estimate(&cfg.law, now_s).per_s * service.mean_s;
        self.acks.observe(dt, backlog, fleet);
        let early = ScaleConfig { acknowledges_early: self.acks.early(cfg.acknowledges_early), ..cfg.clone() };
        let mut view = observe::join(&early, backlog, fleet, empty_s, expected_busy);
        view.backlog -= self.held.given_back(now_s, backlog, view.resting, fleet.useful());
        let held_calls = self.held.calls(now_s, view.resting, fleet.useful());
        let due_within = |within_s: f64| backlog.next_due_s.is_some_and(|due_s| due_s <= within_s);
        let (due_soon, due_near) =
            (due_within(latency.mean_s + cfg.law.tick_s), due_within(DUE_NEAR_STARTS * latency.mean_s + cfg.law.idle_window_s + cfg.law.tick_s));
        let settling = observe::settling(&early, backlog, fleet);
        view.assumed = self.assumed.smallest(now_s, (view.busy - view.told - settling).max(0.0), ASSUMED_S);
        view.busy = (view.busy - f64::from(stuck)).max(0.0);
        view.told = (view.told - f64::from(stuck)).max(0.0);
        view.workers = (view.workers - f64::from(stuck)).max(view.busy);

        // Who tells the age of running tasks tells of ended ones too: none reported then means that none ended.
        let reporting = self.service.reported() || !fleet.busy_ages_s.is_empty();
        let reported = reporting.then_some(fleet.completions.len() as f64);
        let told = observe::Told { ended: reported, begun: fleet.begun.map(f64::from), found: f64::from(fleet.found) };
        let (arrived, completed) = self.counters.arrivals(now_s, backlog, &told, self.acks.seen_early());
        if let Some(completed) = completed {
            self.service.busy_time(dt, view.told, completed, latency.mean_s);
        }
        let completed = completed.unwrap_or(0.0);
        if dt > 0.0 {
            let keep = decay(dt, RATE_OUT_HALF_LIFE_S);
            self.rate_out = self.rate_out * keep + (1.0 - keep) * completed / dt;
        }
        if let Some(count) = arrived {
            self.trend.observe(dt, count);
            self.arrival.observe(&cfg.law, now_s, dt, count, service.mean_s);
            let rate = self.arrival.estimate(&cfg.law, now_s).per_s;
            self.error.observe(now_s, count, rate, latency.mean_s + cfg.law.tick_s);
        }
        let rate = self.arrival.estimate(&cfg.law, now_s);
        let per_pod = cfg.concurrency.max(1);
        let limit = cfg.max_replicas.saturating_mul(per_pod).min(cfg.max_parallel.unwrap_or(u32::MAX)).max(1);
        let not_ready = fleet.useful() - fleet.ready;
        let late_s = LATE_STARTS * latency.mean_s;
        let coming = fleet.starting.iter().filter(|age| **age < late_s).count() as u32;
        let in_system = view.backlog + view.told;
        let service_s = service.mean_s;
        let standing_s = self.standing_wait(cfg, rate.per_s, &view, &service, &latency);
        let load = in_system / (1.0 + standing_s / service_s);
        let seen_span_s = cfg.law.rate_long_window_s + SEEN_SERVICES * service_s;
        let seen = self.seen.largest(now_s, in_system + view.ahead, seen_span_s);
        // What is known of the rate from before may have been made by what is not seen any more.
        let from_s = if self.arrival.mean() > 0.0 { now_s } else { f64::NEG_INFINITY };
        let watched = now_s - *self.seen_since_s.get_or_insert(from_s) >= seen_span_s;
        let (from, to) = self.levels.observe(&cfg.law, dt, load, limit);
        let missing = f64::from(to) - view.workers.max(f64::from(from)).min(f64::from(to));
        let missing = missing * (latency.mean_s / service_s).max(1.0);
        let late = self.late.observe(
            late::LateTick { now_s, dt_s: dt, arrived: arrived.unwrap_or(0.0), backlog: view.backlog, missing },
            cfg.max_wait_s,
            cfg.law.hold_half_life_s,
        );
        let waited_s = self.late.waited_s(now_s, view.backlog, cfg.max_wait_s);
        Situation {
            view,
            arrived: arrived.unwrap_or(0.0),
            late,
            waited_s,
            rate_per_s: rate.per_s,
            batch: rate.batch,
            service,
            latency,
            stuck,
            useful: fleet.useful(),
            not_ready,
            settling,
            coming: coming.saturating_add(fleet.uncreated()).saturating_add(fleet.settling.len() as u32),
            parked: fleet.parked,
            ramp: None,
            per_pod,
            limit,
            dt_s: dt,
            held_calls,
            due_soon,
            due_near,
            most_load: if watched { seen } else { f64::INFINITY },
            shared: None,
        }
    }

    pub(super) fn standing_wait(
        &self,
        cfg: &ScaleConfig,
        rate_per_s: f64,
        view: &FleetView,
        service: &ServiceEstimate,
        latency: &LatencyEstimate,
    ) -> f64 {
        let sigma = self.error.sigma(rate_per_s, latency.mean_s + cfg.law.tick_s);
        standing::standing_wait(&cfg.law, rate_per_s * service.mean_s, sigma, view.workers, service, latency, cfg.max_wait_s)
    }
}
