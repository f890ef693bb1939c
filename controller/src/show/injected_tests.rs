//! What is said of pods without a sidecar, of pods that are not created, and of sidecars and workers that do not start.

use super::*;
use crate::testing::{T0_MS, deployment, pod, replicaset, stamp, view, with};
use serde_json::{Value, json};

fn verdict(objects: &[Value]) -> Verdict {
    let mut all = vec![deployment(2, &[])];
    if !objects.iter().any(|o| o["kind"] == "ReplicaSet") {
        all.push(replicaset("orders-1", 2));
    }
    all.extend(objects.iter().cloned());
    judge(&view(&all), T0_MS)
}

/// The ReplicaSet as its controller marks it when the API server refuses its pods with these words.
fn refused(message: &str) -> Value {
    let condition = json!({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message, "lastTransitionTime": stamp(0)});
    with(replicaset("orders-1", 2), "/status/conditions", json!([condition]))
}

#[test]
fn of_no_pod_nothing_is_claimed() {
    let v = verdict(&[]);
    assert_eq!((v.holds, v.reason), (Holds::Unknown, "NoPods"));
    assert!(!v.message.contains("every pod"));
    assert_eq!(verdict(&[pod("a")]).reason, "Injected");
    assert_eq!(verdict(&[with(pod("a"), "/metadata/deletionTimestamp", json!(stamp(9)))]).reason, "NoPods");
}

#[test]
fn pods_that_are_not_created_because_of_what_we_add_are_said_with_the_annotation_or_the_value_that_mends_it() {
    for (message, mend) in [
        ("pods \"orders-1-\" is forbidden: maximum memory usage per Pod is 96Mi, but limit is 167772160", "sidecar.resources"),
        ("admission webhook \"p\" denied the request: shareProcessNamespace is not allowed", "qscaler.dev/share-processes: \"false\""),
        ("violates PodSecurity \"restricted:latest\": runAsNonRoot != true (container \"qscaler-sidecar\" …)", "a user that the namespace allows"),
    ] {
        let v = verdict(&[refused(message)]);
        assert_eq!((v.holds, v.reason), (Holds::False, "FailedCreate"), "{message}");
        assert!(v.message.contains(message) && v.message.contains(mend), "{}", v.message);
    }
    let quota = "pods \"orders-1-\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2";
    let v = verdict(&[refused(quota)]);
    assert_eq!((v.holds, v.reason), (Holds::Unknown, "NoPods"), "a quota is no matter of the sidecar");
    assert!(v.message.contains("condition Scaling"), "{}", v.message);
    let failure = CreateFailure { reason: "FailedCreate".into(), message: quota.into() };
    let words = not_created(&failure);
    assert!(words.contains(quota) && words.contains("raise the ResourceQuota"), "{words}");
}

#[test]
fn what_the_webhook_will_refuse_for_want_of_room_is_known_from_the_namespaces_limits() {
    let range = |kind: &str, max: Value| json!({"kind": "LimitRange", "metadata": {"namespace": "shop", "name": "l"}, "spec": {"limits": [{"type": kind, "max": max}]}});
    let limited = |limits: Value| {
        with(
            deployment(2, &[]),
            "/spec/template/spec/containers",
            json!([{"name": "worker", "image": "w", "env": [{"name": "URL", "value": "redis://r/0"}], "resources": {"limits": limits}}]),
        )
    };
    let said = |limits: Value, range: Value| verdict(&[limited(limits), range]);
    let v = said(json!({"memory": "512Mi"}), range("Pod", json!({"memory": "512Mi"})));
    assert_eq!((v.holds, v.reason), (Holds::False, "Refused"));
    assert!(v.message.contains("LimitRange") && v.message.contains("512Mi"), "{}", v.message);
    assert_eq!(said(json!({"cpu": "1"}), range("Pod", json!({"cpu": "1"}))).reason, "Refused");
    for (limits, range) in [
        (json!({"memory": "512Mi"}), range("Pod", json!({"memory": "1Gi"}))),
        (json!({"memory": "512Mi"}), range("Container", json!({"memory": "512Mi"}))),
        (json!({}), range("Pod", json!({"cpu": "1"}))),
        (
            json!({"memory": "512Mi"}),
            json!({"kind": "LimitRange", "metadata": {"namespace": "other", "name": "l"}, "spec": {"limits": [{"type": "Pod", "max": {"memory": "1Mi"}}]}}),
        ),
    ] {
        assert_ne!(said(limits, range).reason, "Refused");
    }
}

#[test]
fn a_sidecar_that_cannot_start_is_named_with_the_kubelets_words_and_the_mend() {
    let waits = |reason: &str, message: &str| {
        let state = json!({"waiting": {"reason": reason, "message": message}});
        with(with(pod("a"), "/status/initContainerStatuses/0/state", state), "/status/initContainerStatuses/0/started", json!(false))
    };
    for (reason, message, mend) in [
        ("ImagePullBackOff", "Back-off pulling image \"s\"", "a pull secret"),
        ("ErrImagePull", "401 Unauthorized", "a pull secret"),
        ("CreateContainerConfigError", "secret \"nowhere\" not found", "qscaler.dev/broker"),
        ("CrashLoopBackOff", "back-off 10s", "logs a -c qscaler-sidecar --previous"),
    ] {
        let v = verdict(&[waits(reason, message), pod("b")]);
        assert_eq!((v.holds, v.reason), (Holds::False, "SidecarNotStarting"), "{reason}");
        assert!(
            v.message.contains(reason) && v.message.contains(message) && v.message.contains(mend) && v.message.contains("pod a"),
            "{}",
            v.message
        );
    }
    assert_eq!(verdict(&[waits("PodInitializing", "")]).reason, "Injected");
}

/// A pod whose worker was started again so often, after so many seconds with this exit code.
fn crashing(name: &str, restarts: i32, seconds: i64, exit_code: i32, reason: &str) -> Value {
    let ended = json!({"terminated": {"exitCode": exit_code, "reason": reason, "containerID": "c1", "startedAt": stamp(-seconds * 1_000), "finishedAt": stamp(0)}});
    let pod = with(pod(name), "/spec/shareProcessNamespace", json!(true));
    let pod = with(with(pod, "/status/containerStatuses/0/lastState", ended), "/status/containerStatuses/0/restartCount", json!(restarts));
    with(pod, "/status/conditions/0/status", json!("False"))
}

#[test]
fn a_worker_that_crashes_in_injected_pods_alone_names_the_shared_namespace() {
    let v = verdict(&[crashing("a", 2, 1, 100, "Error")]);
    assert_eq!((v.holds, v.reason), (Holds::False, "WorkerCrashes"));
    for part in
        ["container worker of pod a", "2 times", "1 s after its start with exit code 100", "qscaler.dev/share-processes: \"false\"", "s6-overlay"]
    {
        assert!(v.message.contains(part), "{}", v.message);
    }
    let bare = |p: Value| with(p, "/spec/initContainers", json!([]));
    for (what, pods) in [
        ("once is chance", vec![crashing("a", 1, 1, 100, "Error")]),
        ("it worked", vec![crashing("a", 2, 300, 1, "Error")]),
        ("another cause", vec![crashing("a", 2, 1, 137, "OOMKilled")]),
        ("it left by itself", vec![crashing("a", 2, 1, 0, "Completed")]),
        ("its like stays up", vec![crashing("a", 2, 1, 100, "Error"), with(pod("b"), "/spec/shareProcessNamespace", json!(true))]),
        ("not shared", vec![with(crashing("a", 2, 1, 100, "Error"), "/spec/shareProcessNamespace", json!(false))]),
        ("bare ones too", vec![crashing("a", 2, 1, 100, "Error"), bare(crashing("b", 2, 1, 100, "Error"))]),
    ] {
        let expected = if what.starts_with("its like") {
            with(pods[1].clone(), "/status/conditions/0/lastTransitionTime", json!(stamp(-90_000)))
        } else {
            pods[pods.len() - 1].clone()
        };
        let mut pods = pods;
        *pods.last_mut().unwrap() = expected;
        assert_ne!(verdict(&pods).reason, "WorkerCrashes", "{what}");
    }
}

#[test]
fn a_helper_that_flaps_and_a_worker_that_crashes_anyway_are_not_laid_on_the_shared_namespace() {
    let helper = |p: Value| {
        let flapping = with(p["status"]["containerStatuses"][0].clone(), "/name", json!("helper"));
        let calm = with(with(flapping.clone(), "/name", json!("worker")), "/restartCount", json!(0));
        with(p, "/status/containerStatuses", json!([with(calm, "/lastState", json!({})), flapping]))
    };
    let without = |p: Value| with(p, "/spec/shareProcessNamespace", json!(false));
    let running = |p: Value, since: i64| {
        let p = with(p, "/status/containerStatuses/0/lastState/terminated/startedAt", json!(stamp(since - 2_000)));
        let p = with(p, "/status/containerStatuses/0/lastState/terminated/finishedAt", json!(stamp(since - 1_000)));
        with(p, "/status/containerStatuses/0/state", json!({"running": {"startedAt": stamp(since)}}))
    };
    let crashes = crashing("a", 2, 1, 100, "Error");
    for (what, pods, expected) in [
        ("as it was", vec![crashes.clone()], true),
        ("a helper", vec![helper(crashes.clone())], false),
        ("without sharing too", vec![crashes.clone(), without(crashing("b", 2, 1, 100, "Error"))], false),
        ("just started again", vec![running(crashes.clone(), 0)], true),
        ("runs well since", vec![running(crashes, -200_000)], false),
    ] {
        assert_eq!(verdict(&pods).reason == "WorkerCrashes", expected, "{what}: {:?}", verdict(&pods));
        let mut all = vec![deployment(1, &[]), replicaset("orders-1", 1)];
        all.extend(pods.iter().cloned());
        let view = view(&all);
        let kept = remember(judge(&view, T0_MS + 60_000), Some((REASON_WORKER_CRASHES, "crashed")), false, &view, T0_MS + 60_000);
        // What was said before is taken back by evidence alone; a helper is none.
        assert_eq!(kept.reason == "WorkerCrashes", expected || what == "a helper", "{what}: {kept:?}");
    }
}

#[test]
fn what_shared_processes_broke_is_remembered_while_the_next_pods_are_without() {
    let sharing = with(pod("b"), "/spec/shareProcessNamespace", json!(true));
    let told = |reason: &str, message: &str, decided: bool, pods: &[Value]| {
        let mut all = vec![deployment(1, &[]), replicaset("orders-1", 1)];
        all.extend(pods.iter().cloned());
        let view = view(&all);
        let now = judge(&view, T0_MS + 60_000);
        remember(now, Some((reason, message)), decided, &view, T0_MS + 60_000)
    };
    for (reason, message) in [(REASON_WORKER_CRASHES, "crashed"), (REASON_FAILED_CREATE, "shareProcessNamespace is not allowed")] {
        for pods in [vec![pod("a")], vec![]] {
            let v = told(reason, message, false, &pods);
            assert_eq!((v.holds, v.reason, &*v.message), (Holds::False, reason, &*format!("{message}{WITHOUT}")));
            let again = told(reason, &v.message, false, &pods);
            assert_eq!(again, v, "it does not grow");
        }
        assert_ne!(told(reason, message, true, &[pod("a")]).reason, reason, "the annotation ends it");
    }
    assert_eq!(told(REASON_WORKER_CRASHES, "crashed", false, std::slice::from_ref(&sharing)).reason, "Injected", "one that shares stays up");
    assert_eq!(told(REASON_FAILED_CREATE, "exceeded quota", false, &[pod("a")]).reason, "Injected");
    assert_eq!(told("NotInjected", "m", false, &[pod("a")]).reason, "Injected");
}

#[test]
fn a_bare_pod_is_named_with_the_way_that_cuts_nothing() {
    let bare = with(pod("b"), "/spec/initContainers", json!([]));
    let v = verdict(&[pod("a"), bare.clone()]);
    assert_eq!((v.holds, v.reason), (Holds::False, "NotInjected"));
    assert!(v.message.contains("pod b has no sidecar") && v.message.contains("cuts the task") && v.message.contains("one by one"), "{}", v.message);
    assert_eq!(verdict(&[with(bare, "/metadata/creationTimestamp", json!(stamp(-1_000)))]).reason, "Injected", "the webhook may be asked again");
}
