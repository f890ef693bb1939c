//! Clusters in which something is wrong: each fault is found, and its mend is said.

use super::*;
use qscaler_api::{QWorkerSpec, QWorkerStatus};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::json;
use std::collections::BTreeSet;

/// 2026-06-01T00:00:00Z.
const NOW_S: i64 = 1_780_272_000;
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// An authority and a leaf that it signed, valid from the year 2026 to the given one.
fn pair(name: &str, until: i32) -> (Vec<u8>, Vec<u8>) {
    let params = |names: &[String]| {
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(until, 1, 1));
        params
    };
    let mut ca = params(&[]);
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (ca_key, leaf_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let authority = ca.self_signed(&ca_key).unwrap().pem().into_bytes();
    let leaf = params(&[name.to_owned()]).signed_by(&leaf_key, &Issuer::new(ca, ca_key)).unwrap();
    (authority, leaf.pem().into_bytes())
}

const NAME: &str = "qscaler-webhook.qscaler-system.svc";

fn roles() -> Vec<Role> {
    let role = |(name, needed): &(&str, &[(&str, &str, &str)])| Role {
        name: (*name).to_owned(),
        rights: needed.iter().flat_map(|row| rights::flat(*row)).collect(),
        bound: true,
    };
    NEEDED.iter().map(role).collect()
}

fn pod(name: &str, sidecar: Option<&str>) -> AnnotatedPod {
    let keys = sidecar.iter().map(|_| key('A')).collect();
    AnnotatedPod { name: name.into(), workload: "shop/orders".into(), has_sidecar: sidecar.is_some(), sidecar: sidecar.map(str::to_owned), keys }
}

fn key(letter: char) -> String {
    letter.to_string().repeat(43)
}

fn part(name: &str, ready: i32) -> Component {
    Component { namespace: "qscaler-system".into(), name: name.into(), ready, wanted: 2, version: Some(VERSION.into()) }
}

fn workload(name: &str) -> DeploymentFacts {
    DeploymentFacts { namespace: "shop".into(), name: name.into(), labelled: Some(true), annotated: true, mistakes: Vec::new(), dry_run: false }
}

fn worker(name: &str, kind: &str, status: &str, message: &str) -> QWorker {
    let mut worker = QWorker::new(name, QWorkerSpec { target_kind: "Deployment".into(), target_name: name.into() });
    worker.metadata.namespace = Some("shop".into());
    let condition = json!({"type": kind, "status": status, "reason": "R", "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"});
    worker.status = Some(QWorkerStatus { conditions: vec![serde_json::from_value(condition).unwrap()], ..QWorkerStatus::default() });
    worker
}

fn good() -> Facts {
    let (authority, leaf) = pair(NAME, 2027);
    Facts {
        version: ClusterSeen::Yes("v1.36.3".into()),
        installed: Some(true),
        webhooks: ClusterSeen::Yes(vec![("pods.qscaler.dev".into(), authority)]),
        served: ClusterSeen::Yes(Some(leaf)),
        keys: Keys { private: ClusterSeen::Yes(true), public: ClusterSeen::Yes(vec![key('A')]) },
        renewed_s: ClusterSeen::Yes(Some(3)),
        roles: ClusterSeen::Yes(roles()),
        may: vec![Some(true); COMMANDS.len()],
        definitions: ClusterSeen::Yes(vec![("qworkers.qscaler.dev".into(), Some(VERSION.into()))]),
        pods: ClusterSeen::Yes(vec![pod("orders-1", Some(VERSION))]),
        now_s: NOW_S,
        parts: ClusterSeen::Yes(vec![part("qscaler-controller", 1), part("qscaler-webhook", 2)]),
        workloads: ClusterSeen::Yes(vec![workload("orders")]),
        workers: ClusterSeen::Yes(vec![worker("orders", "HoldEffective", "True", "whole")]),
        ending: Vec::new(),
    }
}

fn failed(facts: &Facts) -> Vec<String> {
    checks(facts).into_iter().filter(|c| c.state == State::Failed).map(|c| format!("{}: {}", c.check, c.fix)).collect()
}

#[test]
fn a_cluster_where_all_is_well_has_no_failure() {
    assert_eq!(failed(&good()), Vec::<String>::new());
    assert!(text(&checks(&good())).1);
}

#[test]
fn what_is_being_deleted_is_no_fault_and_is_said_while_it_is_there() {
    let bad = Facts { workers: ClusterSeen::Yes(vec![worker("orders", "BrokerReachable", "False", "refused")]), ..good() };
    let ending = Facts { ending: vec!["shop".into(), "empty".into()], ..bad.clone() };
    assert_eq!((failed(&bad).len(), failed(&ending).len()), (1, 0));
    let (text, well) = text(&checks(&ending));
    assert!(well && text.contains("namespace shop is being deleted (1 workloads)") && text.contains("release") && !text.contains("empty"), "{text}");
}

#[test]
fn each_fault_fails_with_the_mend() {
    let none = || ClusterSeen::No("there is none".to_owned());
    for (facts, part_of) in [
        (Facts { installed: Some(false), ..good() }, "helm install"),
        (Facts { webhooks: none(), ..good() }, "pods are made without the sidecar"),
        (Facts { webhooks: ClusterSeen::Yes(vec![("pods.qscaler.dev".into(), Vec::new())]), ..good() }, "pods.qscaler.dev has a CA bundle"),
        (Facts { parts: ClusterSeen::Yes(vec![part("qscaler-webhook", 2)]), ..good() }, "the controller is there"),
        (Facts { renewed_s: ClusterSeen::Yes(Some(600)), ..good() }, "its Lease was renewed 600 s ago"),
        (Facts { renewed_s: ClusterSeen::Yes(None), ..good() }, "there is no Lease"),
        (
            Facts { pods: ClusterSeen::Yes(vec![pod("orders-1", Some(VERSION)), pod("orders-2", None)]), ..good() },
            "orders-2: their tasks are not held",
        ),
        (
            Facts { definitions: ClusterSeen::Yes(vec![("qworkers.qscaler.dev".into(), Some("0.0.9".into()))]), ..good() },
            "qworkers.qscaler.dev is of 0.0.9",
        ),
        (
            Facts { parts: ClusterSeen::Yes(vec![part("qscaler-webhook", 0), part("qscaler-controller", 1)]), ..good() },
            "logs deployment/qscaler-webhook",
        ),
        (
            Facts { workloads: ClusterSeen::Yes(vec![workload("orders"), DeploymentFacts { labelled: Some(false), ..workload("mails") }]), ..good() },
            "kubectl label namespace shop",
        ),
        (Facts { workers: ClusterSeen::Yes(vec![worker("orders", "HoldEffective", "False", "set `runAsUser: 0`")]), ..good() }, "runAsUser: 0"),
        (Facts { workers: ClusterSeen::Yes(vec![worker("orders", "ScaleDownBlocked", "True", "a rollout")]), ..good() }, "a rollout"),
    ] {
        let found = failed(&facts);
        assert!(found.len() == 1 && found[0].contains(part_of), "{part_of}: {found:?}");
        let (text, well) = text(&checks(&facts));
        assert!(!well && text.contains("1 failed"), "{text}");
    }
}

#[test]
fn a_certificate_that_the_api_server_would_refuse_is_found_with_what_is_wrong_of_it() {
    let (authority, leaf) = pair(NAME, 2027);
    let (other, _) = pair(NAME, 2027);
    let (old, old_leaf) = pair(NAME, 2026);
    let (for_other, other_leaf) = pair("qscaler-webhook.elsewhere.svc", 2027);
    let hooks = |pem: &[u8]| ClusterSeen::Yes(vec![("pods.qscaler.dev".to_owned(), pem.to_vec())]);
    for (bundle, served, part_of) in [
        (&authority, Some(&old_leaf), "it has expired at 2026-01-01T00:00:00Z"),
        (&other, Some(&leaf), "no authority in the caBundle of pods.qscaler.dev has signed it"),
        (&for_other, Some(&other_leaf), "it is not for qscaler-webhook.qscaler-system.svc, but for qscaler-webhook.elsewhere.svc"),
        (&authority, None, "kubectl -n qscaler-system delete secret qscaler-webhook-tls"),
        (&b"no certificate".to_vec(), Some(&leaf), "no certificate that can be read"),
        (&old, Some(&leaf), "every authority in it has expired"),
    ] {
        let found = failed(&Facts { webhooks: hooks(bundle), served: ClusterSeen::Yes(served.cloned()), ..good() });
        assert!(found.iter().any(|one| one.contains(part_of)), "{part_of}: {found:?}");
    }
    // A bundle with the next authority beside the last one, as in a rotation.
    let both = [other.clone(), authority.clone()].concat();
    assert_eq!(failed(&Facts { webhooks: hooks(&both), served: ClusterSeen::Yes(Some(leaf.clone())), ..good() }), Vec::<String>::new());
    // Hours before the end it is a warning.
    let late = Facts { webhooks: hooks(&authority), served: ClusterSeen::Yes(Some(leaf)), now_s: 1_798_761_600 - 3_600, ..good() };
    assert_eq!(failed(&late), Vec::<String>::new());
    assert!(text(&checks(&late)).0.contains("it expires at 2027-01-01T00:00:00Z, and was not renewed"));
}

#[test]
fn a_key_that_is_not_there_or_that_pods_do_not_know_is_found_with_its_mend() {
    let with_certs = || ClusterSeen::Yes(vec![part("qscaler-controller", 1), part("qscaler-webhook", 2), part("qscaler-certs", 1)]);
    let keys = |private: bool, public: &[String]| Keys { private: ClusterSeen::Yes(private), public: ClusterSeen::Yes(public.to_vec()) };
    let pods =
        |all: &[&[String]]| ClusterSeen::Yes(all.iter().map(|keys| AnnotatedPod { keys: keys.to_vec(), ..pod("orders-1", Some(VERSION)) }).collect());
    let (a, b) = (key('A'), key('B'));
    for (facts, part_of) in [
        (Facts { keys: keys(false, &[]), parts: with_certs(), ..good() }, "kubectl -n qscaler-system logs deployment/qscaler-certs"),
        (Facts { keys: keys(true, &[]), ..good() }, "controlKey.publicKeys"),
        (Facts { keys: keys(true, &[]), parts: with_certs(), ..good() }, "certs publishes it beside the certificate"),
        (
            Facts { pods: pods(&[std::slice::from_ref(&b), std::slice::from_ref(&a)]), ..good() },
            "1 of 2 of shop/orders know other keys alone, and believe no message",
        ),
    ] {
        let found = failed(&facts);
        assert!(found.len() == 1 && found[0].contains(part_of), "{part_of}: {found:?}");
    }
    for (facts, part_of) in [
        (Facts { keys: keys(false, &[]), ..good() }, "openssl genpkey -algorithm ed25519"),
        (Facts { pods: pods(&[&[], std::slice::from_ref(&a)]), ..good() }, "1 of 2 of shop/orders were made without a key (qscaler_unsigned_pods)"),
        (Facts { pods: pods(&[&[]]), ..good() }, "kubectl -n shop rollout restart deployment orders"),
    ] {
        let (text, well) = text(&checks(&facts));
        assert!(well && text.contains(part_of) && text.contains("1 warnings"), "{part_of}: {text}");
    }
    // In a rotation a pod knows both; what the QWorker says already is said once; what may not be read is no failure.
    assert_eq!(failed(&Facts { pods: pods(&[&[b.clone(), a]]), ..good() }), Vec::<String>::new());
    let mut told = worker("orders", "HoldEffective", "False", "1 pod does not believe the controller");
    told.status.as_mut().unwrap().conditions[0].reason = "MessagesRefused".into();
    let found = failed(&Facts { pods: pods(&[&[b]]), workers: ClusterSeen::Yes(vec![told]), ..good() });
    assert!(found.len() == 1 && found[0].contains("HoldEffective is False (MessagesRefused)"), "{found:?}");
    let blind = Facts { keys: Keys { private: ClusterSeen::NotAllowed, public: ClusterSeen::NotAllowed }, ..good() };
    assert!(text(&checks(&blind)).0.contains("1 unknown"));
}

#[test]
fn a_right_that_was_taken_away_is_named_and_a_wider_one_is_enough() {
    let mut less = roles();
    less[0].rights.remove(&("qscaler.dev".to_owned(), "qworkers/status".to_owned(), "patch".to_owned()));
    let found = failed(&Facts { roles: ClusterSeen::Yes(less), ..good() });
    assert!(found.len() == 1 && found[0].contains("ClusterRole qscaler-controller does not give: patch qworkers/status.qscaler.dev"), "{found:?}");
    let mut unbound = roles();
    unbound[0].bound = false;
    let found = failed(&Facts { roles: ClusterSeen::Yes(unbound), ..good() });
    assert!(found.len() == 1 && found[0].contains("no ClusterRoleBinding qscaler-controller"), "{found:?}");
    let mut all = roles();
    all[0].rights = BTreeSet::from([("*".to_owned(), "*".to_owned(), "*".to_owned())]);
    assert_eq!(failed(&Facts { roles: ClusterSeen::Yes(all), ..good() }), Vec::<String>::new());
    // Without certs nobody needs its role.
    assert_eq!(
        failed(&Facts { roles: ClusterSeen::Yes(roles().into_iter().filter(|r| r.name != "qscaler-certs").collect()), ..good() }),
        Vec::<String>::new()
    );
}

#[test]
fn what_works_and_somebody_should_know_is_a_warning_and_no_failure() {
    let old_sidecar = ClusterSeen::Yes(vec![pod("orders-1", Some("0.0.9")), pod("orders-2", Some("0.0.9"))]);
    let mut may = vec![Some(true); COMMANDS.len()];
    *may.last_mut().unwrap() = Some(false);
    for (facts, part_of) in [
        (Facts { pods: old_sidecar, ..good() }, "2 of shop/orders have 0.0.9"),
        (Facts { may, ..good() }, "you have no right to\n          patch pods: release"),
        (
            Facts {
                parts: ClusterSeen::Yes(
                    ["qscaler-controller", "qscaler-webhook"].map(|name| Component { version: Some("9.9.9".into()), ..part(name, 1) }).into(),
                ),
                definitions: ClusterSeen::Yes(vec![("qworkers.qscaler.dev".into(), Some("9.9.9".into()))]),
                pods: ClusterSeen::Yes(Vec::new()),
                ..good()
            },
            "9.9.9 is installed: take the kubectl-qscaler of that release",
        ),
    ] {
        let (text, well) = text(&checks(&facts));
        assert!(well && text.contains(part_of) && text.contains("1 warnings"), "{part_of}: {text}");
    }
}

/// The table of rights, beside the chart as it is rendered by default.
#[test]
fn what_each_program_needs_is_what_the_chart_gives() {
    let chart = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/qscaler/golden/default.yaml")).unwrap();
    let documents = serde_yaml::Deserializer::from_str(&chart).map(|d| <serde_json::Value as serde::Deserialize>::deserialize(d).unwrap());
    let roles: Vec<serde_json::Value> = documents.filter(|d| d["kind"] == "ClusterRole").collect();
    for (name, needed) in NEEDED {
        let role = roles.iter().find(|role| role["metadata"]["name"] == *name).unwrap_or_else(|| panic!("the chart has no ClusterRole {name}"));
        let words = |value: &serde_json::Value| value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>();
        let mut given = BTreeSet::new();
        for rule in role["rules"].as_array().unwrap() {
            for (group, resource) in words(&rule["apiGroups"]).iter().flat_map(|g| words(&rule["resources"]).into_iter().map(move |r| (g.clone(), r)))
            {
                given.extend(words(&rule["verbs"]).into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
            }
        }
        assert_eq!(given, needed.iter().flat_map(|row| rights::flat(*row)).collect::<BTreeSet<_>>(), "{name}");
    }
}

#[test]
fn what_may_not_be_read_is_unknown_and_no_failure() {
    let blind = Facts { webhooks: ClusterSeen::NotAllowed, parts: ClusterSeen::NotAllowed, workloads: ClusterSeen::NotAllowed, ..good() };
    let (text, well) = text(&checks(&blind));
    assert!(well && text.contains("3 unknown"), "{text}");
}

#[test]
fn a_part_that_was_scaled_to_nothing_is_a_fault_and_not_in_order() {
    let none = Component { wanted: 0, ..part("qscaler-webhook", 0) };
    let facts = Facts { parts: ClusterSeen::Yes(vec![part("qscaler-controller", 1), none]), ..good() };
    let failed = failed(&facts);
    assert!(failed.len() == 1 && failed[0].contains("kubectl -n qscaler-system scale deployment qscaler-webhook --replicas=1"), "{failed:?}");
}
