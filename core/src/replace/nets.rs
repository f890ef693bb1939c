//! What keeps a task whole that comes to a pod in the last moment before its eviction, and what forbids every eviction. In: the configuration; what the pod
//! and its template show. Out: a [`Net`]; a hindrance with its sentence. Left to others: reading pods (`controller`), what follows (`replace`).

use super::{Net, Stands};
use crate::config::WorkerConfig;
use crate::framework::{Promise, Signal};

/// What can forbid every replacement of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hindrances {
    /// The user wants nothing changed.
    pub changes_nothing: bool,
    /// New pods cannot have the sidecar either.
    pub fruitless: bool,
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
    if of.fruitless {
        let why = "none is replaced, since new pods cannot have the sidecar either: condition Injected says why";
        return Some((Stands::Fruitless, why.to_owned()));
    }
    if let Some(writer) = &of.writer {
        return Some((Stands::Paused, format!("none is replaced: {writer}")));
    }
    of.others_leave.then(|| (Stands::Replacing, "none is replaced while other pods leave".to_owned()))
}

/// On the kubelet's own SIGTERM the worker finishes the task in hand and leaves.
fn finishes_on_term(config: &WorkerConfig) -> bool {
    config.framework().promise == Promise::FinishThenExit && matches!(config.signals.as_slice(), [] | [Signal::Term])
}

impl Net {
    /// Of a pod without a sidecar whose worker has run. `shell`: its command is a shell that stays process 1; `remapped`: Celery is told to take SIGTERM for
    /// another signal; `margin_s`: what is added to the longest task for the pod's end.
    #[must_use]
    pub fn of_bare(config: &WorkerConfig, shell: bool, remapped: bool, margin_s: u64) -> Self {
        const MEND: &str = "replace it while nothing is sent to the queue: kubectl rollout restart, or a deletion of the pod";
        if !finishes_on_term(config) {
            return Self::None(format!(
                "a {} worker without a hold may lose a task that comes to it in the moment of its SIGTERM; {MEND}",
                config.worker
            ));
        }
        if shell {
            return Self::None(format!(
                "its command is a shell that does not pass SIGTERM on, so that its worker would be killed at the end of its grace; {MEND}"
            ));
        }
        if remapped {
            return Self::None(format!("REMAP_SIGTERM makes SIGTERM cut a task that comes in the last moment; {MEND}"));
        }
        let grace_s = config.max_task_duration_ms.div_ceil(1000).saturating_add(margin_s);
        Self::Grace(Some(u32::try_from(grace_s).unwrap_or(u32::MAX)))
    }

    /// Of a pod with a sidecar. `whole`: nothing is missing of its hold; `cuts`: its signal ends a running task, by the sidecar's own word.
    #[must_use]
    pub fn of_held(config: &WorkerConfig, whole: bool, cuts: bool) -> Self {
        if whole {
            return Self::Held;
        }
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
    use crate::names::annotation;
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
        assert_eq!(Net::of_bare(&celery, false, false, 60), Net::Grace(Some(160)));
        let why = |net: Net| if let Net::None(why) = net { why } else { panic!("{net:?}") };
        assert!(why(Net::of_bare(&celery, true, false, 60)).contains("a shell"));
        assert!(why(Net::of_bare(&celery, false, true, 60)).contains("REMAP_SIGTERM"));
        assert!(why(Net::of_bare(&config("huey"), false, false, 60)).contains("a huey worker"));
    }

    #[test]
    fn a_hold_that_is_less_than_whole_needs_a_worker_that_finishes() {
        let celery = config("celery");
        assert_eq!(Net::of_held(&celery, true, true), Net::Held);
        assert_eq!(Net::of_held(&celery, false, false), Net::Grace(None));
        assert!(matches!(Net::of_held(&celery, false, true), Net::None(_)));
        assert!(matches!(Net::of_held(&config("huey"), false, false), Net::None(_)));
    }

    #[test]
    fn the_users_word_comes_before_every_other_hindrance() {
        let all = Hindrances { changes_nothing: true, fruitless: true, writer: Some("KEDA scales it".to_owned()), others_leave: true };
        let first = |of: &Hindrances| hindrance(of).map(|(stands, _)| stands);
        assert_eq!(first(&all), Some(Stands::Paused));
        assert_eq!(first(&Hindrances { changes_nothing: false, ..all.clone() }), Some(Stands::Fruitless));
        let writer = Hindrances { changes_nothing: false, fruitless: false, ..all };
        assert!(hindrance(&writer).is_some_and(|(_, why)| why.contains("KEDA")));
        assert_eq!(first(&Hindrances { writer: None, ..writer }), Some(Stands::Replacing));
        assert_eq!(hindrance(&Hindrances::default()), None);
    }
}
