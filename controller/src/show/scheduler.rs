//! A scheduler that is scaled along with its worker, in words. In: the pod template, what sidecars have seen run. Out: the condition `SchedulerInside`. Left to others: which
//! command starts a scheduler, and what it means (`core::framework`).

use crate::observe::index::View;
use crate::show::conditions::Holds;
use crate::workload::Workload;
use qscaler_core::config::WorkerConfig;
use qscaler_core::names::condition::SCHEDULER_INSIDE;

impl Workload {
    /// With no pod to ask, what was seen last stands: a scheduler is missed most while there is none.
    pub(crate) fn scheduler_condition(&mut self, view: &View, config: &WorkerConfig, now_ms: u64) {
        let of_template = view.deployment.scheduler.as_ref().map(|(scheduler, container)| (*scheduler, format!("container {container}")));
        let heard = || view.pods.iter().filter(|pod| !pod.terminating).filter_map(|pod| self.intake.heard(&pod.uid));
        let seen = || {
            heard()
                .find_map(|heard| heard.scheduler)
                .map(|scheduler| (scheduler, format!("container {}", config.container.as_deref().unwrap_or("of the worker"))))
        };
        let found = of_template.or_else(seen);
        if found.is_none() && heard().next().is_none() {
            if !self.conditions.has(SCHEDULER_INSIDE) {
                self.set(view, SCHEDULER_INSIDE, Holds::Unknown, "NotReported", "no sidecar has reported yet", now_ms);
            }
            return;
        }
        let said = found.and_then(|(scheduler, place)| {
            scheduler.scaled(config.min_replicas, config.max_replicas).map(|scaled| (scaled.name(), scheduler.words(scaled, &place)))
        });
        match said {
            Some((reason, words)) => self.set(view, SCHEDULER_INSIDE, true, reason, words, now_ms),
            None => self.set(
                view,
                SCHEDULER_INSIDE,
                false,
                "None",
                "nothing sends tasks by the clock from within its pods, as far as command lines show",
                now_ms,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::look::{ROOM, all_done, cluster, events, waiting, workload};
    use crate::testing::{T0_MS, deployment, pod, replicaset, report, view, with};
    use crate::workload::Workload;
    use qscaler_core::framework::Scheduler;
    use qscaler_core::message::{Busy, PodMs, Report, WorkerState};
    use qscaler_core::names::{condition, event};
    use serde_json::{Value, json};

    fn said(w: &Workload) -> (String, String, String) {
        let found = w.conditions.list().into_iter().find(|c| c.type_ == condition::SCHEDULER_INSIDE).expect("the condition");
        (found.status, found.reason, found.message)
    }

    /// Looks at these objects, after `scheduler` was reported by pod `a`; whether an Event told of it.
    fn look(w: &mut Workload, objects: &[Value], scheduler: Option<Option<Scheduler>>, second: u64) -> bool {
        let (v, now) = (view(objects), T0_MS + second * 1_000);
        w.sampled(waiting(0), now);
        if let Some(scheduler) = scheduler {
            w.reports(&[Report { at_ms: PodMs(now), scheduler, ..report("a", second + 1, WorkerState::Open, Busy::Idle) }], &v, &cluster(), now);
        }
        let plan = w.look(&v, &cluster(), ROOM, now);
        all_done(w, &plan, now);
        events(&plan).contains(&event::SCHEDULER_INSIDE)
    }

    #[test]
    fn a_scheduler_in_the_template_is_said_before_any_pod_is_there() {
        let with_beat = with(deployment(0, &[]), "/spec/template/spec/containers/0/args", json!(["celery", "-A", "app", "worker", "-B"]));
        let mut w = workload();
        assert!(look(&mut w, &[with_beat.clone(), replicaset("orders-1", 0)], None, 0));
        let (status, reason, message) = said(&w);
        assert!(
            (status.as_str(), reason.as_str()) == ("True", "Repeats") && message.contains("container worker") && message.contains("celery beat"),
            "{message}"
        );
        assert!(!look(&mut w, &[with_beat, replicaset("orders-1", 0)], None, 60), "once");
    }

    #[test]
    fn one_that_the_image_starts_is_said_once_a_sidecar_sees_it_and_still_while_there_is_no_pod() {
        let fleet = |replicas| [deployment(replicas, &[("min-replicas", "0")]), replicaset("orders-1", replicas), pod("a")];
        let mut w = workload();
        assert!(!look(&mut w, &fleet(1), None, 0));
        assert_eq!(said(&w).0, "Unknown");
        assert!(look(&mut w, &fleet(1), Some(Some(Scheduler::Rq)), 10));
        let (status, reason, message) = said(&w);
        assert!((status.as_str(), reason.as_str()) == ("True", "StopsAtZero") && message.contains("min-replicas"), "{message}");
        assert!(!look(&mut w, &fleet(0)[..2], None, 20));
        assert_eq!(said(&w).0, "True");
        assert!(!look(&mut w, &fleet(1), Some(None), 30));
        assert_eq!((said(&w).0, said(&w).1), ("False".to_owned(), "None".to_owned()));
    }
}
