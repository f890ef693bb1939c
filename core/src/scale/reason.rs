//! Comes in: a decision's parts. Goes out: the one sentence a person reads. Leaves to others: the decision itself.

use super::types::{Cap, HoldReason, Inputs, Rule, ScaleConfig, Waits};

/// Inputs, rule, the cap that won, and what would change it.
pub(super) fn sentence(cfg: &ScaleConfig, target: u32, rule: Rule, cap: Option<Cap>, hold: Option<HoldReason>, inputs: &Inputs) -> String {
    let seen = match (inputs.backlog, inputs.in_flight) {
        (Some(waiting), Some(running)) => {
            format!("{waiting} waiting, {running} running, {:.3}/s arriving, {} a task", inputs.rate_in, seconds(inputs.service_s))
        }
        (Some(waiting), None) => format!("{waiting} waiting, running unknown, {:.3}/s arriving", inputs.rate_in),
        _ => format!("backlog unknown, figures {} old", seconds(inputs.age_s)),
    };
    let why = match rule {
        Rule::Rate => format!("{:.2} tasks run at once by rate, and starting a pod takes {}", inputs.offered_load, seconds(inputs.start_latency_s)),
        Rule::Backlog if inputs.backlog == Some(0) => match inputs.next_due_s {
            Some(due_s) => {
                format!("work that was put aside is due in {}, and starting a pod takes {}", seconds(due_s), seconds(inputs.start_latency_s))
            }
            None => "messages are held by consumers, and no pod is there".to_owned(),
        },
        Rule::Backlog => {
            format!("what waits would not start within the aimed-at part of max-wait {} with {} pods", seconds(cfg.max_wait_s), inputs.useful)
        }
        Rule::Standing => format!("a wait of {} may stand, so pods work without pause", seconds(inputs.standing_wait_s)),
        Rule::LearnedHold => {
            let Waits { worth_s, every_s, .. } = inputs.waits.unwrap_or_default();
            format!("load of this height has returned every {}: a pod that waits costs that in pod-seconds and saves {worth_s:.0}", seconds(every_s))
        }
        Rule::LengthTarget => format!("messages-per-worker is {}", cfg.messages_per_worker.unwrap_or(1)),
        Rule::ScaleDown => "pods above what was needed lately have been idle".to_owned(),
        Rule::Busy if inputs.in_flight.is_some_and(|running| running >= u64::from(inputs.useful)) => {
            "tasks run that are to be finished, and nothing calls for more pods than they occupy".to_owned()
        }
        Rule::Busy => "more pods than needed, but none of them has been idle for long enough".to_owned(),
        Rule::Unknown => "unknown is not zero, so no pod leaves".to_owned(),
        Rule::Idle => "nothing waits and nothing runs".to_owned(),
    };
    let bound = match cap {
        None => String::new(),
        Some(Cap::MinReplicas) => format!("; min-replicas {} raised it", cfg.min_replicas),
        Some(Cap::MaxReplicas) => format!("; max-replicas {} cut it", cfg.max_replicas),
        Some(Cap::StartBurst) => format!("; at most {} pods are asked for at once", cfg.law.start_burst),
        Some(Cap::Ramp) => format!("; pods that start at once slow each other down here, so {} start at a time", inputs.ramp.unwrap_or(1)),
        Some(Cap::Tasks) => "; more pods than tasks would be of no use".to_owned(),
        Some(Cap::Parallel) => format!("; no more than {} tasks can run at once", cfg.max_parallel.unwrap_or(0)),
        Some(Cap::Downstream) => "; more pods have made every task slower, so what they share is the bottleneck".to_owned(),
    };
    let stuck = if inputs.stuck > 0 { format!("; {} tasks run far longer than any other and are left out", inputs.stuck) } else { String::new() };
    let unplaced = if inputs.unschedulable > 0 { format!("; {} pods find no node", inputs.unschedulable) } else { String::new() };
    let prefetched = if inputs.prefetched > 0 {
        format!("; {} messages lie with busy workers, where no other gets at them (Celery: worker_prefetch_multiplier=1)", inputs.prefetched)
    } else {
        String::new()
    };
    let stays_away;
    let change = match (hold, rule) {
        (Some(HoldReason::WarmingUp), _) => "it may fall once the workers have been watched for a few seconds",
        (Some(_), _) => "it may fall once the broker answers again",
        (None, Rule::Backlog | Rule::LengthTarget) => "it rises with the backlog and falls when workers have been idle",
        (None, Rule::Rate | Rule::Standing) => "it follows arrivals times service time",
        (None, Rule::LearnedHold) => {
            stays_away = format!("it falls when such load has stayed away for another {}", seconds(inputs.waits.unwrap_or_default().left_s));
            stays_away.as_str()
        }
        (None, Rule::ScaleDown | Rule::Busy) => "it falls further as workers get idle, and rises with the backlog",
        // One message needs no more than the minimum.
        (None, Rule::Idle) if cap == Some(Cap::MinReplicas) => "it rises once more waits than so many pods get done in time",
        (None, Rule::Idle) => "the first message raises it",
        (None, Rule::Unknown) => "it may fall once the broker answers again",
    };
    format!("{target} pods ({} now): {seen}; {}: {why}{bound}{stuck}{unplaced}{prefetched}; {change}", inputs.useful, rule.name())
}

fn seconds(value: f64) -> String {
    if value < 10.0 { format!("{value:.2} s") } else { format!("{value:.0} s") }
}
