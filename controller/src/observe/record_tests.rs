//! Objects as the API server gives them, and what is kept of them.

use crate::testing::{T0_MS, deployment, deployment_record, pod, pod_record, stamp, with};
use qscaler_core::size::OomSeen;
use qscaler_core::size::PendingReason;
use serde_json::json;

#[test]
fn a_deployment_without_annotations_of_ours_is_none_of_ours() {
    assert_eq!(deployment_record(&with(deployment(1, &[]), "/metadata/annotations", json!({"team": "shop"}))), None);
}

#[test]
fn a_deployment_that_is_being_deleted_is_none_of_ours_any_more() {
    assert!(deployment_record(&deployment(1, &[])).is_some());
    assert_eq!(deployment_record(&with(deployment(1, &[]), "/metadata/deletionTimestamp", json!(stamp(0)))), None);
}

#[test]
fn the_working_container_is_the_first_or_the_one_named() {
    assert_eq!(deployment_record(&deployment(1, &[])).unwrap().worker.unwrap().container, "worker");
    let named = deployment_record(&deployment(1, &[("container", "log")])).unwrap().worker.unwrap();
    assert_eq!((named.container.as_str(), named.others_memory), ("log", 96 << 20));
    let wrong = deployment_record(&deployment(1, &[("container", "nope")])).unwrap();
    let errors = wrong.config.unwrap_err();
    assert!(errors[0].to_string().contains("nope") && errors[0].valid.contains("worker, log"), "{errors:?}");
}

#[test]
fn max_unavailable_is_counted_as_the_deployment_controller_does() {
    for (strategy, replicas, expected) in [
        (json!(null), 10, 2),
        (json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "50%"}}), 5, 2),
        (json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 3}}), 5, 3),
        (json!({"type": "Recreate"}), 5, 5),
        (json!({"type": "Recreate"}), 0, 1),
    ] {
        let record = deployment_record(&with(deployment(replicas, &[]), "/spec/strategy", strategy.clone())).unwrap();
        assert_eq!(record.max_unavailable, expected, "{strategy} of {replicas}");
    }
}

#[test]
fn a_pod_keeps_what_drain_and_sizing_need() {
    let record = pod_record(&pod("a"));
    assert!(record.ready && record.injected && record.sidecar_ready && record.sidecar_started && !record.terminating && !record.unschedulable);
    assert_eq!((record.created_ms, record.ready_since_ms), (T0_MS - 60_000, T0_MS - 50_000));
    assert_eq!(record.container("worker").unwrap().memory_limit(), Some(96 << 20));
    let bare = pod_record(&with(pod("a"), "/spec/initContainers", json!([])));
    assert!(!bare.injected);
    let marked =
        with(pod("a"), "/metadata/annotations", json!({"controller.kubernetes.io/pod-deletion-cost": "-2147483648", "qscaler.dev/release": "now"}));
    assert_eq!((pod_record(&marked).deletion_cost, pod_record(&marked).release), (i32::MIN, true));
    let pending = with(pod("a"), "/status/conditions", json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]));
    assert!(pod_record(&pending).unschedulable && !pod_record(&pending).ready);
}

#[test]
fn an_oom_kill_of_the_container_is_told_from_one_of_a_child() {
    for (exit_code, child) in [(137, false), (0, true)] {
        let ended = json!({"terminated": {"exitCode": exit_code, "reason": "OOMKilled", "containerID": "c1", "finishedAt": stamp(0)}});
        let record = pod_record(&with(pod("a"), "/status/containerStatuses/0/lastState", ended));
        assert_eq!(record.containers[0].ooms, [OomSeen { instance: "c1".into(), child, started_ms: None, at_ms: T0_MS }]);
    }
    let ended = json!({"terminated": {"exitCode": 1, "reason": "Error", "containerID": "c1"}});
    assert!(pod_record(&with(pod("a"), "/status/containerStatuses/0/lastState", ended)).containers[0].ooms.is_empty());
}

#[test]
fn resize_conditions_are_read_with_their_age() {
    let conditions = json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible", "message": "no", "lastTransitionTime": stamp(0)},
        {"type": "PodResizeInProgress", "status": "True", "reason": "Error", "lastTransitionTime": stamp(0)}]);
    let record = pod_record(&with(pod("a"), "/status/conditions", conditions));
    let pending = record.pending.unwrap();
    assert_eq!((pending.reason, pending.since_s), (PendingReason::Infeasible, T0_MS as f64 / 1000.0));
    assert!(record.in_progress.unwrap().error);
}

#[test]
fn last_words_are_kept_and_foreign_ones_cut() {
    let ended = |message: String| json!({"terminated": {"exitCode": 0, "containerID": "s1", "message": message}});
    let words = |m: &str| pod_record(&with(pod("a"), "/status/initContainerStatuses/0/state", ended(m.to_owned()))).last_words;
    assert_eq!(words("{}"), Some(Box::new(("s1".to_owned(), "{}".to_owned()))));
    assert_eq!(words(&"x".repeat(5000)), None);
}
