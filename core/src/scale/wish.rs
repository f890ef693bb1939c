//! Comes in: how things stand. Goes out: how many pods rate, standing queue, hold and backlog ask for. Leaves to others: bounds, and leaving.

use super::deficit::Deficit;
use super::numeric::sane;
use super::service::believed_s;
use super::situation::Situation;
use super::types::{Cap, FleetSample, Rule, ScaleConfig, Waits};
use super::{Learned, downstream, hold, staffing, standing};

/// Most tasks or workers the law reckons with; above any fleet, below what breaks integers.
const COUNT_MAX: f64 = 4e9;
/// Busy workers leave by intent only while every waiting message would still start within this share of the promise.
const LEAVE_WAIT_SHARE: f64 = 0.8;
/// With a standing queue the backlog horizon is at most this share of the promise,
const STANDING_WAIT_SHARE: f64 = 0.8;
/// and at most the standing wait and this share more.
const STANDING_RESERVE_SHARE: f64 = 0.3;

/// What the rules wish for, in pods.
pub(super) struct Wish {
    pub(super) pods: u32,
    /// What may not be undercut by leaving: rate and hold, without the backlog of the moment.
    pub(super) need: u32,
    /// Busy workers that may leave after their task, by the standing queue.
    pub(super) may_leave: u32,
    /// Idle pods that may leave while messages wait.
    pub(super) spare: f64,
    pub(super) rule: Rule,
    pub(super) cap: Option<Cap>,
    pub(super) standing_wait_s: f64,
    pub(super) held: Option<Waits>,
    /// The load is so small that an idle worker leaves without being watched first.
    pub(super) at_once: bool,
}

impl Learned {
    /// What rate, standing queue, hold and backlog ask for.
    pub(super) fn wish(&self, cfg: &ScaleConfig, now: &Situation, fleet: &FleetSample) -> Wish {
        let in_system = now.view.backlog + now.view.busy;
        // One is enough to begin with: how long what comes will take is seen once it runs.
        let calls = u32::from(now.held_calls || now.due_soon);
        let pods = |workers: f64| pods_for(workers, now.per_pod).saturating_add(now.stuck.div_ceil(now.per_pod));
        if let Some(length) = cfg.messages_per_worker {
            let for_tasks = |tasks: f64| count((tasks / f64::from(length.max(1))).ceil()).saturating_add(now.stuck);
            // What is only assumed of silent workers keeps pods, and calls for none.
            let told = if now.view.busy_known || fleet.busy.is_some() { now.view.told } else { 0.0 };
            // Where nothing waits, what runs has its pods.
            let most = if now.view.backlog > 0.0 { u32::MAX } else { now.useful };
            let (wish, need) = (for_tasks(now.view.backlog + told).min(most), for_tasks(in_system));
            return Wish {
                pods: wish.max(calls),
                need,
                may_leave: 0,
                spare: f64::from(now.useful.saturating_sub(wish.max(need))),
                rule: Rule::LengthTarget,
                cap: None,
                standing_wait_s: 0.0,
                held: None,
                at_once: false,
            };
        }
        let load = (now.rate_per_s * now.service.mean_s).min(now.most_load);
        let workers = now.view.workers.max(load);
        let by_rate = staffing::by_rate(
            &cfg.law,
            &staffing::Load { offered: load, in_system, workers, limit: now.limit },
            &now.service,
            &now.latency,
            cfg.max_wait_s,
        );
        let standing_wait_s = self.standing_wait(cfg, now.rate_per_s, &now.view, &now.service, &now.latency);
        let keeps_wait = in_system / (1.0 + standing_wait_s / now.service.mean_s);
        let (mut staffed, mut rule, mut at_once) = (by_rate, Rule::Rate, false);
        let last_worth_s = hold::last_worth_s(&cfg.law, now.service.mean_s, &now.latency, cfg.max_wait_s);
        if self.levels.ended(last_worth_s) {
            // Whatever the rate was: few tasks that take long leave one behind which chance could make of a silence of minutes.
            (staffed, at_once) = (0.0, true);
        } else if now.view.backlog <= 0.0 && self.arrival.has_ended() {
            // What runs has its pods, and what has ended brings no more, however long what runs may take.
            (staffed, at_once) = (0.0, true);
        } else if standing_wait_s > 0.0 {
            staffed = standing::staffed(&cfg.law, by_rate, in_system, load, standing_wait_s, &now.service, &now.latency);
            rule = Rule::Standing;
        } else if load < standing::LOAD_MIN {
            let pays = |rate_per_s: f64| rate_per_s * last_worth_s > 1.0;
            let stays = !self.arrival.has_ended() && pays(now.rate_per_s);
            // A second one is there for those alone whom the first would keep waiting.
            let second = pays(now.rate_per_s * staffing::late_with_one(load, &now.service, cfg.law.wait_share * cfg.max_wait_s));
            staffed = match (stays, second) {
                (false, _) => 0.0,
                (true, false) => 1.0,
                (true, true) => by_rate.max(1.0),
            };
            at_once = !stays;
        }
        let rate_pods = pods(round_half_down(staffed));
        let worth = hold::worth_s(&cfg.law, now.service.mean_s, &now.latency, cfg.max_wait_s, self.late.per_missing_worker());
        let waits = if now.useful > rate_pods { self.levels.keep(now.useful.saturating_mul(now.per_pod), worth) } else { hold::Kept::default() };
        let kept = if waits.workers > 0 { pods(f64::from(waits.workers)).min(now.useful) } else { 0 };
        let held = (kept > rate_pods).then_some(Waits { worth_s: worth, every_s: waits.every_s, left_s: waits.left_s });
        let remaining: Vec<f64> = fleet.starting.iter().map(|age| now.latency.remaining_s(*age)).collect();
        let deficit = Deficit {
            backlog: now.view.backlog,
            ahead: now.view.ahead,
            ahead_unless_idle: if now.view.busy >= 1.0 { now.view.resting } else { 0.0 },
            idle: now.view.idle,
            busy: now.view.busy,
            workers: now.view.workers,
            rate_per_s: if now.batch { 0.0 } else { now.rate_per_s },
            service_s: now.service.mean_s,
            hazard_per_s: now.service.hazard_per_s,
            latency_s: now.latency.mean_s,
            starting_s: &remaining,
            unseen: f64::from(now.not_ready) - remaining.len() as f64,
            per_pod: f64::from(now.per_pod),
            wait_s: if standing_wait_s > 0.0 {
                (STANDING_WAIT_SHARE * cfg.max_wait_s).min(standing_wait_s + STANDING_RESERVE_SHARE * cfg.max_wait_s)
            } else {
                cfg.law.wait_share * cfg.max_wait_s
            },
            miss_weight: cfg.law.miss_weight,
        };
        // Who calls for pods: those that take no tasks yet are on their way, not at work.
        let workers = (now.view.workers - now.settling).max(0.0);
        let told = if fleet.busy.is_some() { now.view.told } else { now.view.told.min(workers) };
        let surely = (told + now.view.assumed).min(now.view.busy);
        let settling = (now.settling / f64::from(now.per_pod)).ceil() as usize;
        let coming: Vec<f64> =
            fleet.settling.iter().take(settling).map(|age| now.latency.remaining_s(*age)).chain(remaining.iter().copied()).collect();
        let calling = Deficit { idle: (workers - surely).max(0.0), busy: surely, workers, starting_s: &coming, ..deficit };
        let new = pods_for(calling.new_workers(), now.per_pod);
        let by_backlog = if new > 0 { now.useful.saturating_add(new) } else { calls };
        let need = rate_pods.max(kept);
        let urgent =
            self.late.starts_needed_per_s(self.last_s.unwrap_or(0.0), now.view.backlog, LEAVE_WAIT_SHARE * cfg.max_wait_s, now.service.mean_s);
        let least = keeps_wait.max(urgent * now.service.mean_s) / f64::from(now.per_pod);
        let leave = (f64::from(now.useful) - least).min(cfg.law.standing_leave_share * now.view.busy / f64::from(now.per_pod));
        let may_leave = if standing_wait_s > 0.0 { count(leave.max(0.0).floor()) } else { 0 };
        let (wished, rule) = if by_backlog > rate_pods { (by_backlog, Rule::Backlog) } else { (rate_pods, rule) };
        let spare = (deficit.spare_workers() / f64::from(now.per_pod)).floor();
        Wish { pods: wished, need, may_leave, spare, rule, cap: None, standing_wait_s, held, at_once }
    }

    /// Notes the bottleneck's limit in `now`; true during a trial of one.
    pub(super) fn shared_limit(&mut self, now: &mut Situation, wish: &Wish, fleet: &FleetSample, now_s: f64) -> bool {
        let ended: Vec<f64> = fleet.completions.iter().map(|completion| believed_s(completion.service_s)).collect();
        let limit = self.downstream.limit(&downstream::Tick {
            now_s,
            dt_s: now.dt_s,
            ended_s: &ended,
            busy: now.view.busy,
            workers: now.view.workers,
            saturated: now.view.idle < 1.0 && now.view.backlog > 0.0,
            service_s: now.service.mean_s,
            wished: f64::from(wish.pods.max(now.useful)) * f64::from(now.per_pod),
        });
        now.shared = limit.map(|(workers, _)| pods_for(workers, now.per_pod).max(1));
        limit.is_some_and(|(_, trial)| trial)
    }
}

/// Pods for so many workers, rounded up.
fn pods_for(workers: f64, per_pod: u32) -> u32 {
    count((workers / f64::from(per_pod)).ceil())
}

/// To the nearest whole number, halves down: half an idle worker costs as much as half a missing one.
fn round_half_down(value: f64) -> f64 {
    (value - 0.5).ceil().max(0.0)
}

/// A whole, bounded number of pods; anything else is 0.
pub(super) fn count(value: f64) -> u32 {
    sane(value, 0.0).min(COUNT_MAX) as u32
}
