//! What the chart renders only when it is asked to: where parts run, policies, monitoring, cert-manager, authorities; and what both majors of Helm make of it.

use super::{Value, chart, helm, helm_four, json, named, objects, profiles, rendered, template, template_by, words_of};
use std::process::Command;

/// Everything that is off by default and needs no kind of another project.
const ALL: &[&str] = &[
    "--set=commonLabels.team=queues",
    "--set=commonAnnotations.note=n",
    "--set=imagePullSecrets[0].name=registry",
    "--set=brokerCa.pem=-----BEGIN CERTIFICATE-----",
    "--set=networkPolicy.enabled=true",
    "--set=priorityClassName=low",
    "--set=webhook.priorityClassName=high",
    "--set=tolerations[0].operator=Exists",
    "--set=webhook.podLabels.mesh=none",
    "--set=controller.podAnnotations.p=q",
    "--set=certs.env[0].name=HTTPS_PROXY,certs.env[0].value=http://proxy:3128",
];
const PARTS: [&str; 3] = ["webhook", "controller", "certs"];

fn pod<'v>(objects: &'v [Value], part: &str) -> &'v Value {
    &named(objects, "Deployment", &format!("qscaler-{part}"))["spec"]["template"]
}

#[test]
fn both_majors_of_helm_render_the_same_objects() {
    let lines = |program: &std::path::Path, arguments: &[&str]| {
        let output = template_by(program, arguments);
        assert!(output.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    for arguments in [&[], ALL] {
        assert_eq!(lines(&helm(), arguments), lines(&helm_four(), arguments), "{arguments:?}");
    }
}

#[test]
fn helm_finds_nothing_to_complain_about() {
    for helm in [helm(), helm_four()] {
        let output = Command::new(&helm).args(["lint", "--strict", "--kube-version", super::KUBERNETES]).arg(chart()).output().unwrap();
        assert!(output.status.success(), "{}: {}", helm.display(), words_of(&output));
    }
}

#[test]
fn what_tests_compare_with_is_no_part_of_the_package() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(helm()).arg("package").arg(chart()).arg("--destination").arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", words_of(&output));
    let package = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let listed = Command::new("tar").arg("-tzf").arg(package).output().unwrap();
    let names = String::from_utf8(listed.stdout).unwrap();
    assert!(names.contains("qscaler/crd/qworkers.yaml") && names.contains("qscaler/values.schema.json"), "{names}");
    assert!(!names.contains("golden"), "{names}");
}

#[test]
fn the_page_is_off_unless_it_is_asked_for_and_no_port_or_service_leads_to_it() {
    let arguments = |objects: &[Value]| pod(objects, "controller")["spec"]["containers"][0]["args"].to_string();
    assert!(!arguments(&objects(&[])).contains("page"));
    let on = objects(&["--set=controller.page.enabled=true,controller.page.port=9999"]);
    assert!(arguments(&on).contains("\"--page-address=127.0.0.1:9999\""), "{}", arguments(&on));
    let ports = &pod(&on, "controller")["spec"]["containers"][0]["ports"];
    assert_eq!(*ports, json!([{"name": "admin", "containerPort": 8080}]));
    assert!(!on.iter().any(|o| o["kind"] == "Service" && o.to_string().contains("9999")));
}

#[test]
fn a_part_s_own_word_on_where_it_runs_wins_over_that_for_all() {
    let objects = objects(ALL);
    let class = |part: &str| pod(&objects, part)["spec"]["priorityClassName"].clone();
    assert_eq!(PARTS.map(class), [json!("high"), json!("low"), json!("low")]);
    for part in PARTS {
        assert_eq!(pod(&objects, part)["spec"]["tolerations"], json!([{"operator": "Exists"}]));
        assert_eq!(pod(&objects, part)["spec"]["imagePullSecrets"], json!([{"name": "registry"}]));
        let zones = pod(&objects, part)["spec"]["topologySpreadConstraints"].as_array().unwrap().iter().map(|c| c["topologyKey"].clone());
        assert_eq!(zones.collect::<Vec<_>>(), [json!("kubernetes.io/hostname"), json!("topology.kubernetes.io/zone")]);
    }
    let own = super::objects(&[
        "--set=certs.topologySpreadConstraints[0].maxSkew=2,certs.topologySpreadConstraints[0].topologyKey=rack,certs.topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule",
    ]);
    assert_eq!(pod(&own, "certs")["spec"]["topologySpreadConstraints"].as_array().unwrap().len(), 1);
    let all = super::objects(&[
        "--set=topologySpreadConstraints[0].maxSkew=2,topologySpreadConstraints[0].topologyKey=rack,topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule",
    ]);
    for part in PARTS {
        assert_eq!(pod(&all, part)["spec"]["topologySpreadConstraints"][0]["topologyKey"], "rack", "{part}");
    }
}

#[test]
fn the_webhook_s_service_has_the_families_that_are_asked_for_and_else_the_cluster_s() {
    let service = |arguments: &[&str]| named(&objects(arguments), "Service", "qscaler-webhook")["spec"].clone();
    assert_eq!((service(&[]).get("ipFamilyPolicy"), service(&[]).get("ipFamilies")), (None, None));
    let both = service(&["--set=webhook.ipFamilyPolicy=PreferDualStack,webhook.ipFamilies[0]=IPv6,webhook.ipFamilies[1]=IPv4"]);
    assert_eq!((&both["ipFamilyPolicy"], &both["ipFamilies"]), (&json!("PreferDualStack"), &json!(["IPv6", "IPv4"])));
}

#[test]
fn labels_and_annotations_of_the_user_are_added_and_select_nothing() {
    let objects = objects(ALL);
    for object in &objects {
        assert_eq!(object["metadata"]["labels"]["team"], "queues", "{} {}", object["kind"], object["metadata"]["name"]);
        assert_eq!(object.pointer("/spec/selector/matchLabels/team"), None);
    }
    for part in PARTS {
        assert_eq!(pod(&objects, part)["metadata"]["annotations"]["note"], "n");
    }
    assert_eq!(pod(&objects, "webhook")["metadata"]["labels"]["mesh"], "none");
    assert_eq!(pod(&objects, "controller")["metadata"]["annotations"]["p"], "q");
    let env = pod(&objects, "certs")["spec"]["containers"][0]["env"].as_array().unwrap().clone();
    assert!(env.contains(&json!({"name": "HTTPS_PROXY", "value": "http://proxy:3128"})), "{env:?}");
}

#[test]
fn authorities_of_brokers_reach_controller_and_webhook_and_a_change_starts_them_anew() {
    let of = |pem: &str| objects(&[&format!("--set=brokerCa.pem=-----BEGIN CERTIFICATE-----{pem}")]);
    let (first, second) = (of("a"), of("b"));
    assert_eq!(named(&first, "ConfigMap", "qscaler-broker-ca")["data"]["ca.crt"], "-----BEGIN CERTIFICATE-----a");
    for part in ["webhook", "controller"] {
        let container = &pod(&first, part)["spec"]["containers"][0];
        let variable = json!({"name": "QSCALER_BROKER_CA_FILE", "value": "/etc/qscaler/broker-ca/ca.crt"});
        assert!(container["env"].as_array().unwrap().contains(&variable), "{part}");
        assert_eq!(container["volumeMounts"][0]["mountPath"], "/etc/qscaler/broker-ca");
        assert_ne!(pod(&first, part)["metadata"]["annotations"], pod(&second, part)["metadata"]["annotations"], "{part}");
    }
    assert_eq!(pod(&first, "certs")["spec"].get("volumes"), None, "certs speaks to no broker");
    let kept = objects(&["--set=brokerCa.configMap=bundle,brokerCa.key=all.pem"]);
    assert_eq!(pod(&kept, "controller")["spec"]["volumes"][0]["configMap"]["name"], "bundle");
    assert!(!kept.iter().any(|o| o["kind"] == "ConfigMap"));
}

#[test]
fn more_public_keys_of_control_messages_reach_the_webhook_alone() {
    let key = "phURN/GRdOXF/eTUnHJODXdlrhZ4aA4E3dxIKgEjn2I=";
    let objects = objects(&[&format!("--set=controlKey.publicKeys[0]={key}")]);
    let has = |part: &str| pod(&objects, part)["spec"]["containers"][0]["args"].to_string().contains(&format!("--control-key={key}"));
    assert_eq!(["webhook", "controller", "certs"].map(has), [true, false, false]);
}

#[test]
fn policies_leave_the_webhook_open_to_the_api_server_and_metrics_to_who_is_named() {
    let ingress = |arguments: &[&str], part: &str| named(&objects(arguments), "NetworkPolicy", &format!("qscaler-{part}"))["spec"].clone();
    let closed = ["--set=networkPolicy.enabled=true"];
    assert_eq!(ingress(&closed, "webhook")["ingress"], json!([{"ports": [{"protocol": "TCP", "port": "https"}]}]));
    assert_eq!(
        (ingress(&closed, "controller")["ingress"].clone(), ingress(&closed, "controller")["policyTypes"].clone()),
        (json!([]), json!(["Ingress"]))
    );
    let open = [
        "--set=networkPolicy.enabled=true,networkPolicy.metricsFrom[0].podSelector.matchLabels.a=b,networkPolicy.controllerEgress[0].ports[0].port=53",
    ];
    assert_eq!(ingress(&open, "webhook")["ingress"].as_array().unwrap().len(), 2);
    assert_eq!(ingress(&open, "certs")["ingress"][0]["from"], json!([{"podSelector": {"matchLabels": {"a": "b"}}}]));
    assert_eq!(ingress(&open, "controller")["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(ingress(&open, "webhook")["policyTypes"], json!(["Ingress"]));
}

#[test]
fn cert_manager_takes_the_place_of_certs() {
    let objects = objects(&["--set=certs.enabled=false,certManager.enabled=true"]);
    assert!(!objects.iter().any(|o| o["metadata"]["name"] == "qscaler-certs"));
    let certificate = &named(&objects, "Certificate", "qscaler-webhook")["spec"];
    assert_eq!(
        (&certificate["secretName"], &certificate["dnsNames"][0]),
        (&json!("qscaler-webhook-tls"), &json!("qscaler-webhook.qscaler-system.svc"))
    );
    assert_eq!(certificate["issuerRef"], json!({"kind": "Issuer", "name": "qscaler-webhook-ca"}));
    let configuration = named(&objects, "MutatingWebhookConfiguration", "qscaler");
    assert_eq!(configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"], "qscaler-system/qscaler-webhook");
    let own = super::objects(&[
        "--set=certs.enabled=false,certManager.enabled=true,certManager.issuerRef.kind=ClusterIssuer,certManager.issuerRef.name=internal",
    ]);
    assert!(!own.iter().any(|o| o["kind"] == "Issuer"));
    assert_eq!(named(&own, "Certificate", "qscaler-webhook")["spec"]["issuerRef"]["name"], "internal");
    let both = template(&["--set=certManager.enabled=true"]);
    assert!(words_of(&both).contains("certs.enabled=false"), "{}", words_of(&both));
}

#[test]
fn monitoring_is_off_until_it_is_asked_for() {
    let kinds = ["PodMonitor", "ServiceMonitor", "PrometheusRule"];
    assert!(!objects(&[]).iter().any(|o| kinds.iter().any(|kind| o["kind"] == *kind)));
    let objects = objects(&["--set=metrics.podMonitor.enabled=true,metrics.podMonitor.labels.release=p"]);
    let monitor = named(&objects, "PodMonitor", "qscaler");
    assert_eq!(monitor["metadata"]["labels"]["release"], "p");
    for (key, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        for part in PARTS {
            assert_eq!(pod(&objects, part)["metadata"]["labels"][key], *value, "{part}");
        }
    }
    for part in PARTS {
        let ports = pod(&objects, part)["spec"]["containers"][0]["ports"].as_array().unwrap().clone();
        assert!(ports.iter().any(|p| p["name"] == monitor["spec"]["podMetricsEndpoints"][0]["port"]), "{part}");
    }
}

#[test]
fn a_service_monitor_comes_with_a_service_of_every_part() {
    let objects = objects(&["--set=metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.labels.release=p"]);
    let (monitor, service) = (named(&objects, "ServiceMonitor", "qscaler"), named(&objects, "Service", "qscaler-metrics"));
    assert_eq!(monitor["metadata"]["labels"]["release"], "p");
    for (key, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(service["metadata"]["labels"][key], *value);
        // And of no other Service.
        assert!(key != "app.kubernetes.io/component" || named(&objects, "Service", "qscaler-webhook")["metadata"]["labels"][key] != *value);
    }
    assert_eq!(service["spec"]["ports"][0]["name"], monitor["spec"]["endpoints"][0]["port"]);
    for (key, value) in service["spec"]["selector"].as_object().unwrap() {
        for part in PARTS {
            assert_eq!(pod(&objects, part)["metadata"]["labels"][key], *value, "{part}");
        }
    }
}

#[test]
fn an_image_by_digest_has_no_tag() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let objects = objects(&[&format!("--set=image.digest={digest},sidecar.image.digest={digest}")]);
    assert_eq!(pod(&objects, "controller")["spec"]["containers"][0]["image"], format!("ghcr.io/qscaler/qscaler@{digest}"));
    let arguments = pod(&objects, "webhook")["spec"]["containers"][0]["args"].to_string();
    assert!(arguments.contains(&format!("--sidecar-image=ghcr.io/qscaler/qscaler-sidecar@{digest}")), "{arguments}");
}

/// By Helm 4, which renders them without a cluster.
#[test]
fn the_notes_say_what_to_do_next_and_warn_of_what_will_bite() {
    let notes = |arguments: &[&str]| {
        let mut all = vec!["install", "qscaler", "--dry-run=client", "--namespace", "qscaler-system"];
        all.extend(arguments);
        let output = Command::new(helm_four()).args(all).arg(chart()).env("KUBECONFIG", "/nonexistent").output().unwrap();
        let words = words_of(&output);
        words.split_once("NOTES:").map(|(_, notes)| notes.to_owned()).unwrap_or_else(|| panic!("no notes: {words}"))
    };
    let usual = notes(&[]);
    for wanted in [
        "kubectl label namespace",
        "qscaler.dev/max-replicas",
        "one by one as each falls idle",
        "get qworkers",
        "kubectl qscaler doctor",
        "helm uninstall",
    ] {
        assert!(usual.contains(wanted), "{wanted}: {usual}");
    }
    assert!(!usual.contains("NOTE:") && !usual.contains("port-forward"), "{usual}");
    assert!(notes(&["--set", "controller.page.enabled=true"]).contains("port-forward deployment/qscaler-controller 8090"));
    for (set, says) in [
        ("certs.enabled=false", "qscaler-webhook-tls"),
        ("imagePullSecrets[0].name=r", "sidecar.image.pullSecrets"),
        ("webhook.failurePolicy=Fail", "no pod"),
    ] {
        let notes = notes(&["--set", set]);
        assert!(notes.contains("NOTE:") && notes.contains(says), "{set}: {notes}");
    }
}

#[test]
fn every_value_has_a_line_that_says_what_it_is() {
    let text = std::fs::read_to_string(chart().join("values.yaml")).unwrap();
    let mut above = "";
    // Of a part's usual values the first of their kind is explained.
    let mut explained = std::collections::BTreeSet::new();
    for line in text.lines() {
        let key = line.trim_start().split(':').next().unwrap_or_default();
        let is_key = line.contains(':') && !line.trim_start().starts_with('#');
        if is_key && (above.trim_start().starts_with('#') || line.contains('#')) {
            explained.insert(key);
        }
        if !line.trim().is_empty() {
            above = line;
        }
    }
    let values: Value = serde_yaml::from_str(&text).unwrap();
    let unexplained: Vec<_> = values.as_object().unwrap().keys().filter(|key| !explained.contains(key.as_str())).collect();
    // Their own values are explained one by one.
    assert_eq!(unexplained, ["crd", "webhook", "controller", "nodeSelector", "tolerations", "affinity"]);
}

#[test]
fn both_profiles_ask_for_nothing_that_the_schema_does_not_know() {
    for (_, arguments) in profiles() {
        rendered(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }
    for (bad, says) in [
        ("image.digest=sha256:1", "digest"),
        ("image.tag=a/b", "tag"),
        ("webhook.maxUnavailable=half", "maxUnavailable"),
        ("controller.env[0].value=x", "name"),
        ("controller.env[0].name=POD_NAMESPACE", "env"),
        ("commonLabels.app\\.kubernetes\\.io/name=x", "commonLabels"),
        ("tolerations[0].operater=Exists", "operater"),
        ("webhook.affinity.podAffinty.x=y", "podAffinty"),
        ("sidecar.resources.limits.memory=lots", "memory"),
        ("brokerCa.pem=/etc/ca.crt", "pem"),
        ("controlKey.publicKeys[0]=$(PASSWORD)", "publicKeys"),
        ("certManager.issuerRef.kind=Vault", "kind"),
        ("networkPolicy.metricsFrom=monitoring", "metricsFrom"),
        ("metrics.podMonitor.interval=15", "interval"),
        ("metrics.serviceMonitor.interval=15", "interval"),
        ("metrics.prometheusRules.enabled=true", "prometheusRules"),
        ("webhook.ipFamilyPolicy=Both", "ipFamilyPolicy"),
        ("webhook.ipFamilies[0]=v6", "ipFamilies"),
    ] {
        let output = template(&["--set", bad]);
        assert!(!output.status.success() && words_of(&output).contains(says), "{bad}: {}", words_of(&output));
    }
    let both = template(&["--set=brokerCa.pem=-----BEGIN CERTIFICATE-----,brokerCa.configMap=b"]);
    assert!(words_of(&both).contains("one of them"), "{}", words_of(&both));
}
