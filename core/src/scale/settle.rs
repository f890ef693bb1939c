//! Comes in: how things stand and what is wished. Goes out: the target within all bounds: up at once, down only by who is not needed.
//! Leaves to others: words.

use super::Learned;
use super::situation::Situation;
use super::types::{Cap, HoldReason, Rule, ScaleConfig};
use super::wish::{Wish, count};

impl Learned {
    /// Turns wishes into a target: up at once, down only by who is not needed.
    pub(super) fn settle(&mut self, cfg: &ScaleConfig, now: &mut Situation, wish: &Wish, now_s: f64) -> (u32, Rule, Option<Cap>, Option<HoldReason>) {
        let idle_pods = (now.view.idle / f64::from(now.per_pod)).floor();
        let surplus = self.down.observe(now_s, f64::from(wish.need), idle_pods, now.latency.mean_s, cfg.law.idle_window_s);
        let lately = self.down.spare(now_s, wish.spare);
        let spare = if now.view.backlog > 0.0 { lately } else { f64::INFINITY };
        if wish.pods > now.useful {
            now.ramp = self.crowd.at_once(now_s, (wish.pods - now.useful).saturating_sub(now.parked).saturating_add(now.coming));
            let (target, cap) = bounded(cfg, wish.pods, Some(&*now));
            return (target, wish.rule, cap.or(wish.cap), None);
        }
        let need = if wish.at_once { wish.need } else { count(surplus.need) };
        let above = now.useful.saturating_sub(need);
        if above == 0 {
            let rule = match wish.rule {
                _ if wish.held.is_some() => Rule::LearnedHold,
                _ if now.useful == 0 => Rule::Idle,
                rule => rule,
            };
            let (target, cap) = bounded(cfg, now.useful, Some(&*now));
            return (target, rule, cap.or(wish.cap), None);
        }
        let idle = if wish.at_once { idle_pods } else { surplus.idle };
        let unstarted = if now.view.backlog <= 0.0 { now.not_ready } else { 0 };
        // Samples of queue and workers are never of one instant: whoever looks idle while a message waits may be about to take it.
        // What is held but not due is given back if nobody stays, and what is about to be due would call the last one back.
        let last = u32::from(now.due_near || now.view.backlog + now.view.busy + now.view.resting > 0.0);
        let leaving = above.min(count(idle.min(spare)).saturating_add(unstarted).saturating_add(wish.may_leave)).min(now.useful.saturating_sub(last));
        if !surplus.watched {
            let (target, cap) = bounded(cfg, now.useful, Some(&*now));
            return (target, Rule::Busy, cap, Some(HoldReason::WarmingUp));
        }
        let (target, cap) = bounded(cfg, now.useful - leaving, Some(&*now));
        (target, if leaving > 0 { Rule::ScaleDown } else { Rule::Busy }, cap, None)
    }
}

/// Applies the bounds, the strongest last: start burst, ramp, shared bottleneck, parallel limit, minimum, maximum.
pub(super) fn bounded(cfg: &ScaleConfig, wished: u32, now: Option<&Situation>) -> (u32, Option<Cap>) {
    let (mut target, mut cap) = (wished, None);
    let mut cut = |to: u32, by: Cap| {
        if wished > to && target >= to {
            (target, cap) = (to, Some(by));
        }
    };
    if let Some(now) = now {
        cut(now.useful.saturating_add(cfg.law.start_burst.max(1)), Cap::StartBurst);
        if let Some(at_once) = now.ramp {
            cut(now.useful.saturating_add(now.parked).saturating_add(at_once.saturating_sub(now.coming)), Cap::Ramp);
        }
    }
    if let Some(shared) = now.and_then(|now| now.shared) {
        cut(shared, Cap::Downstream);
    }
    if let Some(parallel) = cfg.max_parallel {
        cut(parallel.div_ceil(cfg.concurrency.max(1)), Cap::Parallel);
    }
    cut(cfg.max_replicas, Cap::MaxReplicas);
    let least = cfg.min_replicas.min(cfg.max_replicas);
    if target < least { (least, Some(Cap::MinReplicas)) } else { (target, cap) }
}
