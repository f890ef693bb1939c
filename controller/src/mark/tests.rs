//! Marks of one workload, look by look.

use crate::act::plan::Action;
use crate::testing::look::*;
use crate::testing::{T0_MS, deployment, pod, replicaset, report, view, with};
use qscaler_core::message::{Busy, WorkerState};
use serde_json::json;

#[test]
fn one_idle_report_and_then_silence_for_an_hour_takes_no_mark_off() {
    let marks = json!({"karpenter.sh/do-not-disrupt": {"set": "true"}, "cluster-autoscaler.kubernetes.io/safe-to-evict": {"set": "false"}});
    let all = json!({"karpenter.sh/do-not-disrupt": "true", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "qscaler.dev/marks": marks.to_string()});
    let kept = with(pod("a"), "/metadata/annotations", all);
    let (mut w, v) = (workload(), view(&[deployment(1, &[("vertical", "in-place")]), replicaset("orders-1", 1), kept]));
    w.reports(&[report("a", 1, WorkerState::Open, Busy::Idle)], &v, &cluster(), T0_MS);
    for second in (0..3_600).step_by(5) {
        let now = T0_MS + second * 1_000;
        w.sampled(waiting(0), now);
        let plan = w.look(&v, &cluster(), ROOM, now);
        all_done(&mut w, &plan, now);
        // What was idle for a minute while it was heard may go; after that nothing is known.
        let changes = plan.actions.iter().filter(|a| matches!(a, Action::Mark { .. } | Action::Resize { .. })).count();
        assert!(changes == 0 || second < 60, "second {second}: {plan:?}");
    }
}

#[test]
fn a_pause_and_a_dry_run_take_our_marks_back_and_restore_the_users() {
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    let memory = json!({cost: {"set": "-2147483648", "before": "5"}});
    let marked = with(pod("a"), "/metadata/annotations", json!({cost: "-2147483648", "qscaler.dev/marks": memory.to_string()}));
    for annotation in [("paused", "true"), ("dry-run", "true"), ("max-replicas", "many")] {
        let (mut w, v) = (workload(), view(&[deployment(1, &[annotation]), replicaset("orders-1", 1), marked.clone()]));
        w.sampled(waiting(0), T0_MS);
        let plan = w.look(&v, &cluster(), ROOM, T0_MS);
        let patch = plan.actions.iter().find_map(|a| if let Action::Mark { patch, .. } = a { Some(patch.clone()) } else { None });
        let expected = [(cost.to_owned(), Some("5".to_owned())), ("qscaler.dev/marks".to_owned(), None)].into();
        assert_eq!(patch, Some(expected), "{annotation:?}: {plan:?}");
    }
}
