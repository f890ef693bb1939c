//! Every value of the chart: that it does something, that values do not get into each other's way, and that what the documentation has people write is taken.

use super::{Value, chart, helm, json, named, objects, rendered, template_by, words_of};
use qscaler_tests::newcomer::docs;
use std::collections::{BTreeMap, BTreeSet};

const PEM: &str = "brokerCa.pem=-----BEGIN CERTIFICATE-----";
const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const KEY: &str = "phURN/GRdOXF/eTUnHJODXdlrhZ4aA4E3dxIKgEjn2I=";

/// A value that is another than the default, and what it needs beside it to mean anything.
const OTHERS: &[(&str, &str)] = &[
    ("image.repository=r/x", ""),
    ("image.tag=v9", ""),
    ("image.pullPolicy=Always", ""),
    ("imagePullSecrets[0].name=p", ""),
    ("sidecar.image.repository=r/s", ""),
    ("sidecar.image.tag=v9", ""),
    ("sidecar.image.pullPolicy=Never", ""),
    ("sidecar.image.pullSecrets[0].name=registry", ""),
    ("sidecar.resources.requests.cpu=7m", ""),
    ("sidecar.resources.requests.memory=17Mi", ""),
    ("sidecar.resources.limits.cpu=70m", ""),
    ("sidecar.resources.limits.memory=70Mi", ""),
    ("crd.keep=false", ""),
    ("logFormat=text", ""),
    ("log=debug", ""),
    (PEM, ""),
    ("brokerCa.configMap=bundle", ""),
    ("brokerCa.key=all.pem", PEM),
    ("brokerHosts={redis.shop}", ""),
    ("confinement.enabled=false", ""),
    ("cleanUp.enabled=true", ""),
    ("webhook.failurePolicy=Fail", ""),
    ("webhook.timeoutSeconds=2", ""),
    ("webhook.port=9443", ""),
    ("webhook.adminPort=8081", ""),
    ("webhook.hostNetwork=true", "webhook.port=9443"),
    ("webhook.ipFamilyPolicy=PreferDualStack", ""),
    ("webhook.ipFamilies={IPv6}", ""),
    ("webhook.annotations.a=b", ""),
    ("controller.namespaces={a}", ""),
    ("controller.secretNamespaces={a}", ""),
    ("controller.page.enabled=true", ""),
    ("controller.page.port=8091", "controller.page.enabled=true"),
    ("certs.enabled=false", ""),
    ("certManager.enabled=true", "certs.enabled=false"),
    ("certManager.issuerRef.name=internal", "certs.enabled=false,certManager.enabled=true"),
    ("certManager.duration=24h", "certs.enabled=false,certManager.enabled=true"),
    ("certManager.renewBefore=2h", "certs.enabled=false,certManager.enabled=true"),
    ("networkPolicy.enabled=true", ""),
    ("networkPolicy.metricsFrom[0].podSelector.matchLabels.a=b", "networkPolicy.enabled=true"),
    ("networkPolicy.controllerEgress[0].ports[0].port=53", "networkPolicy.enabled=true"),
    ("networkPolicy.egress[0].ports[0].port=53", "networkPolicy.enabled=true"),
    ("metrics.podMonitor.enabled=true", ""),
    ("metrics.podMonitor.interval=30s", "metrics.podMonitor.enabled=true"),
    ("metrics.podMonitor.labels.a=b", "metrics.podMonitor.enabled=true"),
    ("metrics.serviceMonitor.enabled=true", ""),
    ("metrics.serviceMonitor.interval=30s", "metrics.serviceMonitor.enabled=true"),
    ("metrics.serviceMonitor.labels.a=b", "metrics.serviceMonitor.enabled=true"),
    ("metrics.prometheusRule.enabled=true", ""),
    ("metrics.prometheusRule.labels.a=b", "metrics.prometheusRule.enabled=true"),
    ("metrics.dashboards.enabled=true", ""),
    ("metrics.dashboards.labels.grafana_dashboard=mine", "metrics.dashboards.enabled=true"),
    ("runAsUser=70000", ""),
    ("commonLabels.a=b", ""),
    ("commonAnnotations.a=b", ""),
];
/// The same for each part, below its name.
const OF_EACH_PART: &[&str] = &[
    "replicas=4",
    "resources.requests.cpu=7m",
    "resources.requests.memory=77Mi",
    "resources.limits.memory=77Mi",
    "maxUnavailable=2",
    "env[0].name=A",
    "podLabels.a=b",
    "podAnnotations.a=b",
];
/// For each part, and for all.
const WHERE: &[&str] = &[
    "priorityClassName=p",
    "nodeSelector.a=b",
    "tolerations[0].key=k",
    "affinity.nodeAffinity.x=y",
    "topologySpreadConstraints[0].maxSkew=2,@topologySpreadConstraints[0].topologyKey=rack,@topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule",
];

fn others() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = OTHERS.iter().map(|(set, beside)| ((*set).to_owned(), (*beside).to_owned())).collect();
    all.extend(["image", "sidecar.image"].map(|image| (format!("{image}.digest={DIGEST}"), String::new())));
    all.push((format!("controlKey.publicKeys[0]={KEY}"), String::new()));
    for part in ["", "webhook.", "controller.", "certs."] {
        let own = OF_EACH_PART.iter().filter(|_| !part.is_empty());
        all.extend(WHERE.iter().chain(own).map(|set| (format!("{part}{}", set.replace('@', part)), String::new())));
    }
    all
}

/// Paths of the values that hold no others.
fn leaves(value: &Value, path: &str, out: &mut BTreeSet<String>) {
    match value.as_object().filter(|object| !object.is_empty()) {
        Some(object) => object.iter().for_each(|(key, value)| leaves(value, &format!("{path}.{key}"), out)),
        None => {
            out.insert(path.trim_start_matches('.').to_owned());
        }
    }
}

#[test]
fn every_value_of_the_values_file_changes_something() {
    let (others, mut unknown) = (others(), BTreeSet::new());
    leaves(&serde_yaml::from_str(&std::fs::read_to_string(chart().join("values.yaml")).unwrap()).unwrap(), "", &mut unknown);
    assert!(unknown.len() > 90, "{unknown:?}");
    unknown.retain(|leaf| !others.iter().any(|(set, _)| set.strip_prefix(leaf.as_str()).is_some_and(|rest| rest.starts_with(['=', '.', '[']))));
    assert_eq!(unknown, BTreeSet::new(), "of these nobody has tried another value");
    let mut without: BTreeMap<String, String> = BTreeMap::new();
    for (set, beside) in others {
        let without = without.entry(beside.clone()).or_insert_with(|| rendered(&["--set", &beside]));
        assert_ne!(rendered(&["--set", &beside, "--set", &set]), *without, "{set}");
    }
}

/// A mapping with a key twice is refused by strict readers, and by others one of the two is lost.
#[test]
fn the_same_label_from_two_values_is_there_once_and_the_nearer_one_wins() {
    let set = "--set=commonLabels.team=all,webhook.podLabels.team=w,controller.podLabels.team=c,certs.podLabels.team=s,metrics.podMonitor.enabled=true,\
               metrics.podMonitor.labels.team=p,metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.labels.team=m,\
               metrics.prometheusRule.enabled=true,metrics.prometheusRule.labels.team=r,metrics.dashboards.enabled=true,metrics.dashboards.labels.team=d";
    for document in serde_yaml::Deserializer::from_str(&rendered(&[set])) {
        let read: Result<serde_yaml::Value, _> = serde::Deserialize::deserialize(document);
        assert!(read.is_ok(), "{read:?}");
    }
    let objects = objects(&[set]);
    for (kind, name, path, team) in [
        ("Deployment", "qscaler-webhook", "/metadata/labels/team", "all"),
        ("Deployment", "qscaler-webhook", "/spec/template/metadata/labels/team", "w"),
        ("Deployment", "qscaler-controller", "/spec/template/metadata/labels/team", "c"),
        ("Deployment", "qscaler-certs", "/spec/template/metadata/labels/team", "s"),
        ("PodMonitor", "qscaler", "/metadata/labels/team", "p"),
        ("ServiceMonitor", "qscaler", "/metadata/labels/team", "m"),
        ("PrometheusRule", "qscaler", "/metadata/labels/team", "r"),
        ("ConfigMap", "qscaler-dashboard-qscaler", "/metadata/labels/team", "d"),
    ] {
        assert_eq!(named(&objects, kind, name).pointer(path), Some(&json!(team)), "{kind} {name} {path}");
    }
}

#[test]
fn the_user_of_all_containers_is_a_value_or_the_cluster_s_choice_and_never_root() {
    let contexts = |set: &str| {
        let objects = objects(&["--set", set, "--set=cleanUp.enabled=true"]);
        let pods = objects.iter().filter(|o| o["kind"] == "Deployment" || o["kind"] == "Job");
        pods.map(|o| o["spec"]["template"]["spec"]["securityContext"].clone()).collect::<Vec<_>>()
    };
    let seccomp = json!({"type": "RuntimeDefault"});
    for context in contexts("runAsUser=2000000000") {
        assert_eq!(context, json!({"runAsNonRoot": true, "runAsUser": 2_000_000_000, "runAsGroup": 2_000_000_000, "seccompProfile": seccomp}));
    }
    for context in contexts("runAsUser=") {
        assert_eq!(context, json!({"runAsNonRoot": true, "seccompProfile": seccomp}));
    }
    for bad in ["runAsUser=0", "runAsUser=root", "runAsUser=-1"] {
        let output = template_by(&helm(), &["--set", bad]);
        assert!(!output.status.success() && words_of(&output).contains("runAsUser"), "{bad}: {}", words_of(&output));
    }
}

#[test]
fn the_file_of_values_that_getting_started_has_is_taken_and_reaches_control_plane_and_sidecars() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.yaml");
    std::fs::write(&file, docs::file(&docs::page("docs/getting-started.md").unwrap(), "## From a registry with a login").unwrap()).unwrap();
    let output = template_by(&helm(), &["--values", &file.display().to_string()]);
    assert!(output.status.success(), "{}", words_of(&output));
    let objects = objects(&["--values", &file.display().to_string()]);
    for part in ["qscaler-webhook", "qscaler-controller", "qscaler-certs"] {
        let pod = &named(&objects, "Deployment", part)["spec"]["template"]["spec"];
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "registry"}]), "{part}");
        assert!(pod["containers"][0]["image"].as_str().unwrap().starts_with("registry.example.com/qscaler/qscaler:"), "{part}");
    }
    let arguments = named(&objects, "Deployment", "qscaler-webhook")["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    for wanted in ["--sidecar-image=registry.example.com/qscaler/qscaler-sidecar:", "--sidecar-pull-secret=registry"] {
        assert!(arguments.contains(wanted), "{wanted}: {arguments}");
    }
}
