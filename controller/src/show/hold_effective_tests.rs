//! Every way in which a hold can be less than whole, as the controller hears or sees it: its reason, its pods and its words.

use super::*;
use crate::testing::{T0_MS, deployment, pod, replicaset, report, stamp, view, with};
use qscaler_core::message::{Busy, HoldGap, PodMs, Report};
use serde_json::{Value, json};

const LISTENING: KnownOfHolds = KnownOfHolds { listening_ms: Some(T0_MS), share_processes: true, control_key: Some(*b"AAAAAAAA") };

fn told(name: &str) -> Report {
    report(name, 1, WorkerState::Open, Busy::Idle)
}

fn gap(name: &str, reason: GapReason, detail: &str) -> Report {
    Report { gaps: vec![HoldGap { reason, detail: detail.to_owned() }], ..told(name) }
}

/// The verdict on these pods, `after_ms` after they reported.
fn verdict(pods: &[Value], reports: &[Report], known: KnownOfHolds, after_ms: u64) -> HoldVerdict {
    let mut objects = vec![deployment(u32::try_from(pods.len()).unwrap(), &[]), replicaset("orders-1", 1)];
    objects.extend(pods.iter().cloned());
    let (view, mut intake) = (view(&objects), Intake::default());
    for report in reports {
        let pod = view.pods.iter().find(|p| *p.name == *report.pod_name).map(AsRef::as_ref);
        let _ = intake.take(report, &"dep".into(), pod, T0_MS);
    }
    judge(&view, &intake, known, T0_MS + after_ms)
}

#[test]
fn whole_is_said_only_of_pods_that_have_said_so() {
    let [a, b] = [pod("a"), pod("b")];
    for (pods, reports, holds, reason) in [
        (vec![], vec![], Holds::Unknown, "NoPods"),
        (vec![a.clone()], vec![], Holds::Unknown, "NotReported"),
        (vec![a.clone(), b.clone()], vec![told("a")], Holds::True, "Whole"),
        (vec![a.clone(), b.clone()], vec![told("a"), told("b")], Holds::True, "Whole"),
        (vec![with(pod("a"), "/spec/initContainers", json!([]))], vec![told("a")], Holds::Unknown, "NoPods"),
    ] {
        let v = verdict(&pods, &reports, LISTENING, 1_000);
        assert_eq!((v.holds, v.reason, v.unheld), (holds, reason, 0), "{v:?}");
    }
    assert!(verdict(&[a, b], &[told("a")], LISTENING, 1_000).message.contains("1 have not yet"));
}

#[test]
fn gaps_are_named_with_their_pods_the_most_severe_first_and_the_rest_by_name() {
    let mut worst = gap("b", GapReason::SignalCuts, "REMAP_SIGTERM=SIGQUIT");
    worst.gaps.extend([GapReason::NoHandler, GapReason::GateCannotClose].map(|reason| HoldGap { reason, detail: "d".into() }));
    let reports = [gap("a", GapReason::IdleUnknown, "no heartbeats"), worst, gap("c", GapReason::NoHandler, "bash dies of it"), told("d")];
    let v = verdict(&["a", "b", "c", "d"].map(pod), &reports, LISTENING, 1_000);
    assert_eq!((v.holds, v.reason, v.unheld), (Holds::False, "SignalCuts", 3));
    let named = |pod: &UnheldPod| format!("{}: {}", pod.name, pod.reasons.join(" "));
    assert_eq!(v.pods.iter().map(named).collect::<Vec<_>>(), ["a: IdleUnknown", "b: SignalCuts NoHandler GateCannotClose", "c: NoHandler"]);
    for part in [
        "3 of 4 pods are not held whole: SignalCuts (pod b): REMAP_SIGTERM=SIGQUIT; NoHandler (2 pods, b is one): d; GateCannotClose",
        "; also IdleUnknown",
    ] {
        assert!(v.message.contains(part), "{}", v.message);
    }
}

#[test]
fn a_worker_of_another_uid_is_named_with_the_uid_to_set_and_whether_the_next_pods_are_right() {
    let of_root = Report { access: AccessLevel::ReadOnly, worker_ids: Some((0, 0)), ..told("a") };
    let v = verdict(&[pod("a")], std::slice::from_ref(&of_root), LISTENING, 1_000);
    assert_eq!((v.reason, v.unheld), ("NotPermitted", 1));
    assert!(v.message.contains("UID 0") && v.message.contains("as UID 65532") && v.message.contains("Pods made from now on"), "{}", v.message);
    assert!(v.message.contains("`runAsUser: 0`"), "{}", v.message);
    let told_by_spec = with(pod("a"), "/spec/initContainers/0/securityContext", json!({"runAsUser": 1000}));
    let v = verdict(&[told_by_spec], &[of_root], LISTENING, 1_000);
    assert!(v.message.contains("its spec says 1000") && !v.message.contains("Pods made from now on"), "{}", v.message);
    let unknown = Report { access: AccessLevel::ReadOnly, ..told("a") };
    assert!(verdict(&[pod("a")], &[unknown], LISTENING, 1_000).message.contains("add `runAsUser`"));
}

#[test]
fn what_cannot_be_seen_is_said_once_the_pod_is_ready_and_by_whose_will() {
    let blind = Report { access: AccessLevel::None, ..told("a") };
    let v = verdict(&[pod("a")], std::slice::from_ref(&blind), KnownOfHolds { share_processes: false, ..LISTENING }, 1_000);
    assert!(v.reason == "NotVisible" && v.message.contains("qscaler.dev/share-processes: \"false\""), "{}", v.message);
    let shared = with(pod("a"), "/spec/shareProcessNamespace", json!(true));
    assert_eq!(verdict(std::slice::from_ref(&shared), std::slice::from_ref(&blind), LISTENING, 1_000).reason, "NotVisible");
    let starting = Report { state: WorkerState::Boot, ..blind.clone() };
    assert_eq!(verdict(std::slice::from_ref(&shared), &[starting], LISTENING, 1_000).reason, "Whole");
    let just_ready = with(shared, "/status/conditions/0/lastTransitionTime", json!(stamp(0)));
    assert_eq!(verdict(&[just_ready], &[blind], LISTENING, 1_000).reason, "Whole");
}

#[test]
fn a_silent_sidecar_is_said_within_a_minute_but_not_while_nobody_could_hear_it() {
    let young = with(pod("a"), "/status/initContainerStatuses/0/state", json!({"running": {"startedAt": stamp(0)}}));
    let silent = |reports: &[Report], known: KnownOfHolds, after_ms: u64| verdict(std::slice::from_ref(&young), reports, known, after_ms);
    assert_eq!(silent(&[], LISTENING, 30_000).reason, "NotReported");
    for reports in [vec![], vec![told("a")]] {
        let v = silent(&reports, LISTENING, 50_000);
        assert_eq!((v.holds, v.reason, v.unheld), (Holds::False, "SidecarSilent", 1));
        for cause in ["password", "NetworkPolicy", "clock", "kubectl -n shop logs a -c qscaler-sidecar"] {
            assert!(v.message.contains(cause), "{}", v.message);
        }
    }
    assert_eq!(silent(&[], KnownOfHolds { listening_ms: None, ..LISTENING }, 600_000).reason, "NotReported");
    assert_eq!(silent(&[], KnownOfHolds { listening_ms: Some(T0_MS + 590_000), ..LISTENING }, 600_000).reason, "NotReported");
}

#[test]
fn clocks_that_differ_are_named_also_where_they_differ_too_much_to_be_believed() {
    for (at_ms, words) in [(T0_MS + 65_000, "60 s ahead of"), (T0_MS - 95_000, "90 s behind"), (T0_MS + 900_000, "900 s ahead of")] {
        let v = verdict(&[pod("a")], &[Report { at_ms: PodMs(at_ms), ..told("a") }], LISTENING, 1_000);
        assert!(v.reason == "ClockSkew" && v.message.contains(words), "{}", v.message);
    }
    assert_eq!(verdict(&[pod("a")], &[Report { at_ms: PodMs(T0_MS - 5_000), ..told("a") }], LISTENING, 1_000).reason, "Whole");
}

#[test]
fn a_sidecar_that_was_started_again_lately_is_named_with_its_end() {
    let ended = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": stamp(-30_000)}});
    let again = with(with(pod("a"), "/status/initContainerStatuses/0/restartCount", json!(2)), "/status/initContainerStatuses/0/lastState", ended);
    let v = verdict(std::slice::from_ref(&again), &[told("a")], LISTENING, 1_000);
    assert!(v.reason == "SidecarRestarted" && v.message.contains("2 times") && v.message.contains("exit code 137, OOMKilled"), "{}", v.message);
    assert_eq!(verdict(&[again], &[told("a")], LISTENING, 40_000).reason, "SidecarRestarted");
}

#[test]
fn a_pod_that_does_not_believe_the_controller_is_named_with_the_mend_and_one_without_a_key_is_counted() {
    let given = |key: &str| Report { control_keys: vec![key.to_owned()], ..told("a") };
    for (known, word) in [(LISTENING, "replaced one by one"), (KnownOfHolds { control_key: None, ..LISTENING }, "the controller has no key")] {
        let v = verdict(&[pod("a")], &[given("BBBBBBBB")], known, 1_000);
        assert_eq!((v.holds, v.reason, v.unheld, v.unsigned), (Holds::False, "MessagesRefused", 1, 0));
        assert!(v.message.contains(word) && v.message.contains("qscaler-control-key"), "{}", v.message);
    }
    let both = Report { control_keys: vec!["BBBBBBBB".to_owned(), "AAAAAAAA".to_owned()], ..told("a") };
    for (reports, unsigned) in [(vec![both], 0), (vec![given("AAAAAAAA")], 0), (vec![told("a")], 1)] {
        let v = verdict(&[pod("a")], &reports, LISTENING, 1_000);
        assert_eq!((v.holds, v.unsigned), (Holds::True, unsigned), "{v:?}");
    }
    // A key that could not be read opens nothing.
    assert_eq!(verdict(&[pod("a")], &[given("????????")], LISTENING, 1_000).reason, "MessagesRefused");
}

#[test]
fn no_reason_of_a_sidecar_goes_unsaid() {
    for name in [
        "notVisible",
        "notPermitted",
        "noHandler",
        "signalCuts",
        "gateCannotClose",
        "idleUnknown",
        "brokerRefuses",
        "brokerUnreachable",
        "misconfigured",
        "sidecarRestarted",
        "messagesRefused",
        "ofALaterRelease",
    ] {
        let reason: GapReason = serde_json::from_value(json!(name)).unwrap();
        let v = verdict(&[pod("a")], &[gap("a", reason, "d")], LISTENING, 1_000);
        assert_eq!((v.holds, v.reason, v.unheld), (Holds::False, reason.name(), 1), "{name}");
    }
}

#[test]
fn words_of_a_pod_are_bounded() {
    let v = verdict(&[pod("a")], &[gap("a", GapReason::Other, &"x".repeat(60_000))], LISTENING, 1_000);
    assert!(v.reason == "Other" && v.message.len() < 1_000, "{}", v.message.len());
}
