//! The chart by Helm on a real API server, without nodes: what it takes, what an upgrade, a rollback and an uninstallation change and leave. No pod runs here, so
//! nothing is waited for. Needs Helm 3 and 4, Kubernetes' programs and
//! definitions of other projects' kinds in the cache, as `cargo xtask test` makes them.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test helper is a failed test with a line number")]

#[path = "install/certificates.rs"]
mod certificates;
#[path = "install/pods.rs"]
mod pods;
#[path = "install/server.rs"]
mod server;

use serde_json::Value;
use server::{NAMESPACE, READY, Server, cached, chart, root};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// The chart that is upgraded from: no release has a tag yet, so it is the chart as it was before `status.unheldPods`, kept here (`git archive 41dfbe1
/// charts/qscaler`), since a clone may be without its history.
const EARLIER: &str = "tests/charts/before-unheld-pods.tgz";
/// A field that the earlier chart's definition does not have.
const NEW_FIELD: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/unheldPods";

fn has_new_field(server: &Server) -> bool {
    let definition: Value = serde_json::from_str(&server.kubectl(&["get", "crd", "qworkers.qscaler.dev", "-o", "json"])).unwrap();
    definition.pointer(NEW_FIELD).is_some()
}

/// What is there of ours, but the definitions.
fn ours(server: &Server) -> Vec<String> {
    let kinds = "deployments,services,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,mutatingwebhookconfigurations,poddisruptionbudgets,\
                 networkpolicies,configmaps";
    let listed = server.kubectl(&["get", kinds, "-A", "-l", "app.kubernetes.io/name=qscaler", "-o", "name"]);
    listed.lines().map(str::to_owned).collect()
}

/// Everything that is off by default and needs no kind of another project; those are below.
const EVERYTHING: &[&str] = &[
    "networkPolicy.enabled=true",
    "networkPolicy.metricsFrom[0].podSelector.matchLabels.a=b",
    "networkPolicy.controllerEgress[0].ports[0].port=53",
    "brokerCa.pem=-----BEGIN CERTIFICATE-----",
    "tolerations[0].operator=Exists",
    "webhook.maxUnavailable=50%",
    "webhook.hostNetwork=true,webhook.port=9443,webhook.adminPort=9444",
    "commonLabels.team=queues",
    "commonAnnotations.note=n",
    "imagePullSecrets[0].name=registry",
    "controller.env[0].name=HTTPS_PROXY,controller.env[0].value=http://proxy:3128",
    "controller.secretNamespaces={kube-system}",
    "certs.nodeSelector.a=b",
];

/// Definitions of kinds that the chart can make objects of.
const FOREIGN: [&str; 5] = [
    "monitoring.coreos.com_podmonitors",
    "monitoring.coreos.com_servicemonitors",
    "monitoring.coreos.com_prometheusrules",
    "cert-manager.io_certificates",
    "cert-manager.io_issuers",
];
const MONITORING: &[&str] = &[
    "commonLabels.team=queues",
    "metrics.podMonitor.enabled=true,metrics.podMonitor.labels.release=p",
    "metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.labels.release=p",
    "metrics.prometheusRule.enabled=true,metrics.prometheusRule.labels.release=p",
    "metrics.dashboards.enabled=true",
];
const CERT_MANAGER: &[&str] = &["certs.enabled=false", "certManager.enabled=true"];

#[test]
fn the_chart_is_taken_upgraded_rolled_back_and_removed_by_a_real_api_server() {
    let server = Server::start();
    let chart = chart();
    let ha = format!("{chart}/values-ha.yaml");

    // Kinds of other projects, by their own definitions.
    for kind in FOREIGN {
        server.kubectl(&["create", "-f", &cached("kinds-", &format!("{kind}.yaml")).display().to_string()]);
        let (group, plural) = kind.split_once('_').unwrap();
        server.kubectl(&["wait", "--for=condition=Established", &format!("crd/{plural}.{group}"), "--timeout=60s"]);
    }
    // Strict: an unknown or repeated field is an error, a value that would be refused is refused.
    let set = |all: &'static [&'static str]| all.iter().flat_map(|set| ["--set", *set]).collect::<Vec<&str>>();
    for (arguments, least) in [(vec![], 25), (vec!["--values", &ha], 25), (set(EVERYTHING), 28), (set(MONITORING), 30), (set(CERT_MANAGER), 25)] {
        let mut all = vec!["template", "qscaler", &chart, "--kube-version", "1.36.3"];
        all.extend(arguments);
        let manifests = server.helm("helm-", &all);
        let apply = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"];
        let (ok, words) = server.run(&cached("kubernetes-", "kubectl"), &apply, Some(&manifests));
        assert!(ok && !words.contains("Warning") && words.lines().count() >= least, "{all:?}: {words}");
    }

    let earlier = server.folder().join("earlier");
    fs::create_dir_all(&earlier).unwrap();
    assert!(Command::new("tar").arg("-xzf").arg(root().join(EARLIER)).arg("-C").arg(&earlier).status().unwrap().success(), "{EARLIER}");
    let three = ["--set", "webhook.replicas=3"];
    server.helm("helm-", &[&["install", "qscaler", &earlier.join("charts/qscaler").display().to_string()], &three[..]].concat());
    assert!(!has_new_field(&server), "the earlier definition has the field that the upgrade is to bring");

    // As docs/upgrade.md has it: what was set stays, all else is the new chart's.
    let upgrade = ["upgrade", "qscaler", &chart, "--reset-then-reuse-values"];
    let notes = server.helm("helm-", &upgrade);
    let replicas = || server.kubectl(&["-n", NAMESPACE, "get", "deployment", "qscaler-webhook", "-o", "jsonpath={.spec.replicas}"]);
    assert_eq!(replicas(), "3", "a value that was set is lost");
    assert!(notes.contains("is installed in qscaler-system") && notes.contains("kubectl label namespace"), "{notes}");
    assert!(has_new_field(&server), "an upgrade does not update the definition");
    let manifest = "apiVersion: qscaler.dev/v1alpha1\nkind: QWorker\nmetadata: {name: orders, namespace: default}\nspec: {targetKind: Deployment, targetName: orders}\n";
    let (ok, words) = server.run(&cached("kubernetes-", "kubectl"), &["create", "-f", "-"], Some(manifest));
    assert!(ok, "{words}");

    server.helm("helm-", &["rollback", "qscaler", "1"]);
    assert!(!has_new_field(&server), "a rollback leaves the later definition");
    // The next Helm goes on where the last one was.
    server.helm("helm4-", &upgrade);
    assert_eq!(replicas(), "3", "a value that was set is lost");
    assert!(has_new_field(&server) && !ours(&server).is_empty());

    for helm in ["helm-", "helm4-"] {
        server.helm(helm, &["uninstall", "qscaler"]);
        assert_eq!(ours(&server), Vec::<String>::new(), "an uninstallation by {helm} leaves these");
        assert!(server.kubectl(&["get", "qworkers", "-A", "-o", "name"]).contains("orders"), "what was learned is gone");
        server.helm(helm, &["install", "qscaler", &chart]);
    }
    server.helm("helm-", &["uninstall", "qscaler"]);
}

/// As this account of ours, whether it went well and what was said.
fn as_account(server: &Server, account: &str, arguments: &[&str]) -> (bool, String) {
    let who = format!("--as=system:serviceaccount:{NAMESPACE}:qscaler-{account}");
    let mut all = vec![who.as_str()];
    all.extend(arguments);
    server.run(&cached("kubernetes-", "kubectl"), &all, None)
}

#[test]
fn an_account_of_ours_is_refused_what_it_is_not_there_for_by_a_real_api_server() {
    let server = Server::start();
    server.helm("helm-", &["install", "qscaler", &chart()]);
    let kubectl = cached("kubernetes-", "kubectl");
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default, namespace: default}\n";
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: default, labels: {a: b}, annotations: {own: x}}\n\
               spec: {automountServiceAccountToken: false, containers: [{name: w, image: w}]}\n";
    // No controller makes the account here; one that does would be as good.
    server.run(&kubectl, &["apply", "-f", "-"], Some(account));
    let (ok, words) = server.run(&kubectl, &["apply", "-f", "-"], Some(pod));
    assert!(ok, "{words}");

    // kubectl reads what it patches, which QScaler's controller does not.
    server.kubectl(&["-n", "default", "create", "role", "see", "--verb=get", "--resource=pods"]);
    server.kubectl(&["-n", "default", "create", "rolebinding", "see", "--role=see", &format!("--serviceaccount={NAMESPACE}:qscaler-controller")]);
    let on_pod = |patch: &str| as_account(&server, "controller", &["-n", "default", "patch", "pod", "p", "--type=strategic", "-p", patch]);
    let image = r#"{"spec": {"containers": [{"name": "w", "image": "evil"}]}}"#;
    // A policy is in force some moments after it is there.
    let begin = Instant::now();
    loop {
        let (ok, words) = on_pod(image);
        if !ok && words.contains("nothing of their spec") {
            break;
        }
        assert!(begin.elapsed() < READY, "the policy never came into force: {words}");
        std::thread::sleep(Duration::from_millis(250));
        server.run(&kubectl, &["replace", "--force", "-f", "-"], Some(pod));
    }
    for (patch, says) in [
        (image, "nothing of their spec"),
        (r#"{"metadata": {"labels": {"a": "c"}}}"#, "no labels, finalizers or owners"),
        (r#"{"metadata": {"finalizers": ["q/q"]}}"#, "no labels, finalizers or owners"),
        (r#"{"metadata": {"annotations": {"own": "y"}}}"#, "marks for node autoscalers only"),
        (r#"{"metadata": {"annotations": {"own": null}}}"#, "marks for node autoscalers only"),
        (r#"{"metadata": {"annotations": {"qscaler.dev/release": "now"}}}"#, "marks for node autoscalers only"),
    ] {
        let (ok, words) = on_pod(patch);
        assert!(!ok && words.contains(says), "{patch}: {words}");
    }
    let (ok, words) = on_pod(r#"{"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-1"}}}"#);
    assert!(ok, "its own mark: {words}");

    let on_configuration = |account: &str, op: &str| {
        as_account(&server, account, &["patch", "mutatingwebhookconfiguration", "qscaler", "--type=json", "-p", &format!("[{op}]")])
    };
    let bundle = r#"{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": "Zm9v"}"#;
    let begin = Instant::now();
    loop {
        let (ok, words) = on_configuration("certs", r#"{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"}"#);
        if !ok && words.contains("caBundle only") {
            break;
        }
        assert!(begin.elapsed() < READY, "the policy never came into force: {words}");
        // Undone, and tried again.
        server.kubectl(&[
            "patch",
            "mutatingwebhookconfiguration",
            "qscaler",
            "--type=json",
            "-p",
            r#"[{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]"#,
        ]);
        std::thread::sleep(Duration::from_millis(250));
    }
    let (ok, words) = on_configuration("certs", r#"{"op": "add", "path": "/metadata/labels/x", "value": "y"}"#);
    assert!(!ok && words.contains("no metadata"), "{words}");
    let (ok, words) = on_configuration("certs", bundle);
    assert!(ok, "its own field: {words}");

    // What no role gives: each would be a way to more.
    for (account, verb, what) in [
        ("webhook", "patch", "pods"),
        ("webhook", "get", "secrets"),
        ("webhook", "patch", "mutatingwebhookconfigurations"),
        ("controller", "list", "secrets"),
        ("controller", "update", "secrets"),
        ("controller", "create", "pods"),
        ("controller", "delete", "pods"),
        ("controller", "create", "pods/exec"),
        ("controller", "patch", "deployments"),
        ("controller", "patch", "mutatingwebhookconfigurations"),
        ("certs", "list", "secrets"),
        ("certs", "get", "secrets"),
        ("certs", "get", "pods"),
        ("certs", "create", "mutatingwebhookconfigurations"),
    ] {
        let (_, words) = as_account(&server, account, &["auth", "can-i", verb, what, "--all-namespaces"]);
        assert!(words.lines().any(|line| line == "no"), "{account} may {verb} {what}: {words}");
    }
    for (account, secret, may) in [
        ("certs", "qscaler-webhook-ca", "yes"),
        ("certs", "qscaler-control-key", "yes"),
        ("certs", "of-others", "no"),
        ("controller", "qscaler-control-key", "yes"),
        ("webhook", "qscaler-webhook-tls", "no"),
        ("webhook", "qscaler-control-key", "no"),
    ] {
        let (_, words) = as_account(&server, account, &["auth", "can-i", "get", &format!("secrets/{secret}"), "-n", NAMESPACE]);
        assert!(words.lines().any(|line| line == may), "{account}, {secret}: {words}");
    }
}

#[test]
fn where_namespaces_are_listed_the_controller_s_rights_end_at_them_by_a_real_api_server() {
    let server = Server::start();
    for namespace in ["shop", "other"] {
        server.kubectl(&["create", "namespace", namespace]);
    }
    let set = "controller.namespaces={shop},controller.secretNamespaces={shop}";
    server.helm("helm-", &["install", "qscaler", &chart(), "--set", set]);
    let may = |verb: &str, what: &str, namespace: &str| {
        let (resource, sub) = what.split_once('/').unwrap_or((what, ""));
        let sub = format!("--subresource={sub}");
        let (_, words) = as_account(&server, "controller", &["auth", "can-i", verb, resource, &sub, "-n", namespace]);
        words.lines().any(|line| line == "yes")
    };
    for (verb, what) in [
        ("update", "deployments/scale"),
        ("patch", "pods"),
        ("patch", "pods/resize"),
        ("create", "pods/eviction"),
        ("get", "secrets"),
        ("get", "configmaps"),
    ] {
        assert_eq!((may(verb, what, "shop"), may(verb, what, "other")), (true, false), "{verb} {what}");
    }
    assert!(may("list", "pods", "other"), "what it watches is of the whole cluster");
}
