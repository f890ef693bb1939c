//! What keeps a task whole that comes to a pod in the last moment before its eviction, and what forbids every eviction. In: the configuration; what the pod
//! and its template show. Out: a [`Net`]; a hindrance with its sentence. Left to others: reading pods (`controller`), what follows (`replace`).

use super::{Net, Stands};
use crate::config::WorkerConfig;
use crate::framework::{Promise, Signal};
use crate::message::{AccessLevel, GapReason, HoldGap};
use crate::names::{WEBHOOK_DEPLOYMENT, annotation};

/// What can forbid every replacement of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hindrances {
    /// The user wants nothing changed.
    pub changes_nothing: bool,
    /// The user wants no pod replaced.
    pub unwanted: bool,
    /// New pods cannot have the sidecar either.
    pub fruitless: bool,
    /// Nobody gives new pods their sidecar at this moment.
    pub webhook_away: bool,
    /// Who else writes the replica count, as a sentence.
    pub writer: Option<String>,
    /// Pods are leaving by the count.
    pub others_leave: bool,
}

/// Why nothing may be replaced whatever the pods do.
#[must_use]
pub fn hindrance(of: &Hindrances) -> Option<(Stands, String)> {
    if of.changes_nothing {
        return Some((Stands::Paused, "none is replaced: dry-run or paused by annotation".to_owned()));
    }
    if of.unwanted {
        return Some((Stands::Paused, format!("none is replaced: annotation {} is never", annotation::REPLACE_PODS)));
    }
    if of.fruitless {
        let why = "none is replaced, since new pods cannot have the sidecar either: condition Injected says why";
        return Some((Stands::Fruitless, why.to_owned()));
    }
    if let Some(writer) = &of.writer {
        return Some((Stands::Paused, format!("none is replaced: {writer}")));
    }
    if of.webhook_away {
        let why =
            format!("none is replaced while no replica of the webhook is ready (Deployment {WEBHOOK_DEPLOYMENT}): a new pod would have no sidecar");
        return Some((Stands::Replacing, why));
    }
    of.others_leave.then(|| (Stands::Replacing, "none is replaced while other pods leave".to_owned()))
}

/// On the kubelet's own SIGTERM the worker finishes the task in hand and leaves.
fn finishes_on_term(config: &WorkerConfig) -> bool {
    config.framework().promise == Promise::FinishThenExit && matches!(config.signals.as_slice(), [] | [Signal::Term])
}

/// Whether a variable of the worker's environment makes Celery take SIGTERM for another signal; `value`: None where it comes from elsewhere.
#[must_use]
pub fn remaps_term(name: &str, value: Option<&str>) -> bool {
    name == "REMAP_SIGTERM" && value != Some("SIGTERM")
}

/// The worker of a pod without a sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BareWorker {
    /// It has run, be it for a moment.
    pub ran: bool,
    /// Its command is a shell that stays process 1.
    pub shell: bool,
    /// Celery is told to take SIGTERM for another signal.
    pub remapped: bool,
}

impl Net {
    /// Of a pod without a sidecar. `margin_s`: what is added to the longest task for the pod's end.
    #[must_use]
    pub fn of_bare(config: &WorkerConfig, worker: BareWorker, margin_s: u64) -> Self {
        const MEND: &str = "replace it while nothing is sent to the queue: kubectl rollout restart, or a deletion of the pod";
        if !worker.ran {
            return Self::NoWorker;
        }
        if !finishes_on_term(config) {
            return Self::None(format!(
                "a {} worker without a hold may lose a task that comes to it in the moment of its SIGTERM; {MEND}",
                config.worker
            ));
        }
        if worker.shell {
            return Self::None(format!(
                "its command is a shell that does not pass SIGTERM on, so that its worker would be killed at the end of its grace; {MEND}"
            ));
        }
        if worker.remapped {
            return Self::None(format!("REMAP_SIGTERM makes SIGTERM cut a task that comes in the last moment; {MEND}"));
        }
        let grace_s = config.max_task_duration_ms.div_ceil(1000).saturating_add(margin_s);
        Self::Grace(Some(u32::try_from(grace_s).unwrap_or(u32::MAX)))
    }

    /// Of a pod with a sidecar, by what it said last: what it may do there, and in what its hold is less than whole. None: nothing was heard of it.
    #[must_use]
    pub fn of_held(config: &WorkerConfig, heard: Option<(AccessLevel, &[HoldGap])>) -> Self {
        let Some((access, gaps)) = heard else { return Self::Held };
        if matches!(access, AccessLevel::Full | AccessLevel::SignalOnly) && gaps.is_empty() {
            return Self::Held;
        }
        let cuts = gaps.iter().any(|gap| gap.reason == GapReason::SignalCuts);
        if finishes_on_term(config) && !cuts {
            // Its own grace is long enough since its injection.
            return Self::Grace(None);
        }
        Self::None(
            "its hold is less than whole (condition HoldEffective), and its worker does not finish its task on SIGTERM: replace it while nothing is sent to the queue (kubectl rollout restart)"
                .to_owned(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Parsed, parse};
    use std::collections::BTreeMap;

    fn config(worker: &str) -> WorkerConfig {
        let own = [
            (annotation::QUEUE, "q"),
            (annotation::BROKER, "env:URL"),
            (annotation::MAX_REPLICAS, "9"),
            (annotation::WORKER, worker),
            (annotation::MAX_TASK_DURATION, "100s"),
        ];
        let own: BTreeMap<String, String> = own.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        match parse(&own, &BTreeMap::new()) {
            Parsed::Valid(config) => *config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pod_without_a_hold_has_a_net_only_where_sigterm_reaches_a_worker_that_finishes() {
        let celery = config("celery");
        let worker = BareWorker { ran: true, ..BareWorker::default() };
        assert_eq!(Net::of_bare(&celery, worker, 60), Net::Grace(Some(160)));
        assert_eq!(Net::of_bare(&config("huey"), BareWorker::default(), 60), Net::NoWorker);
        let why = |net: Net| if let Net::None(why) = net { why } else { panic!("{net:?}") };
        assert!(why(Net::of_bare(&celery, BareWorker { shell: true, ..worker }, 60)).contains("a shell"));
        assert!(why(Net::of_bare(&celery, BareWorker { remapped: true, ..worker }, 60)).contains("REMAP_SIGTERM"));
        assert!(why(Net::of_bare(&config("huey"), worker, 60)).contains("a huey worker"));
    }

    #[test]
    fn a_hold_that_is_less_than_whole_needs_a_worker_that_finishes() {
        let celery = config("celery");
        let gap = |reason| [HoldGap { reason, detail: String::new() }];
        for heard in [None, Some((AccessLevel::Full, &[][..])), Some((AccessLevel::SignalOnly, &[]))] {
            assert_eq!(Net::of_held(&celery, heard), Net::Held, "{heard:?}");
        }
        assert_eq!(Net::of_held(&celery, Some((AccessLevel::ReadOnly, &[]))), Net::Grace(None));
        assert_eq!(Net::of_held(&celery, Some((AccessLevel::Full, &gap(GapReason::NoHandler)))), Net::Grace(None));
        assert!(matches!(Net::of_held(&celery, Some((AccessLevel::Full, &gap(GapReason::SignalCuts)))), Net::None(_)));
        assert!(matches!(Net::of_held(&config("huey"), Some((AccessLevel::ReadOnly, &[]))), Net::None(_)));
    }

    #[test]
    fn a_term_that_means_another_signal_is_known_by_the_worker_s_environment() {
        assert!(remaps_term("REMAP_SIGTERM", Some("SIGQUIT")) && remaps_term("REMAP_SIGTERM", None));
        assert!(!remaps_term("REMAP_SIGTERM", Some("SIGTERM")) && !remaps_term("TERM", Some("SIGQUIT")));
    }

    #[test]
    fn the_users_word_comes_before_every_other_hindrance() {
        let all = Hindrances {
            changes_nothing: true,
            unwanted: true,
            fruitless: true,
            webhook_away: true,
            writer: Some("KEDA scales it".to_owned()),
            others_leave: true,
        };
        let first = |of: &Hindrances| hindrance(of).map(|(stands, _)| stands);
        assert_eq!(first(&all), Some(Stands::Paused));
        let unwanted = Hindrances { changes_nothing: false, ..all };
        assert!(hindrance(&unwanted).is_some_and(|(stands, why)| stands == Stands::Paused && why.contains(annotation::REPLACE_PODS)));
        let fruitless = Hindrances { unwanted: false, ..unwanted };
        assert_eq!(first(&fruitless), Some(Stands::Fruitless));
        let writer = Hindrances { fruitless: false, ..fruitless };
        assert!(hindrance(&writer).is_some_and(|(_, why)| why.contains("KEDA")));
        let away = Hindrances { writer: None, ..writer };
        assert!(hindrance(&away).is_some_and(|(stands, why)| stands == Stands::Replacing && why.contains("would have no sidecar")));
        assert!(
            hindrance(&Hindrances { webhook_away: false, ..away })
                .is_some_and(|(stands, why)| stands == Stands::Replacing && !why.contains("sidecar"))
        );
        assert_eq!(hindrance(&Hindrances::default()), None);
    }
}
