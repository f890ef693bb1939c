//! The chart as Helm renders it: goldens of two profiles, rights, security contexts, and what the schema refuses; what is off by default is in `options`. Needs
//! Helm 3 and 4: on PATH, or as `cargo xtask test` fetches them. `UPDATE_GOLDEN=1` rewrites the goldens.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test helper is a failed test with a line number")]

#[path = "chart/options.rs"]
mod options;
#[path = "chart/values.rs"]
mod values;

use qscaler_core::names::{CONTROL_KEY_SECRET, INJECTION_ENABLED, LABEL_INJECTION, LEASE, TLS_SECRET, WEBHOOK_CONFIGURATION};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Where the rendered chart pretends to be installed.
const NAMESPACE: &str = "qscaler-system";
/// A Helm built from source assumes an ancient Kubernetes.
const KUBERNETES: &str = "1.36.3";

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/qscaler")
}

/// Helm 3, on PATH or in the cache.
fn helm() -> PathBuf {
    helm_of("helm-", "v3.")
}

/// Helm 4, likewise.
fn helm_four() -> PathBuf {
    helm_of("helm4-", "v4.")
}

/// Helm of this major on PATH, else in the cache, in a folder that the recipe's hash names.
fn helm_of(folder: &str, major: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|folder| folder.join("helm"));
    let cache =
        env::var_os("QSCALER_CACHE").map_or_else(|| PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/qscaler"), PathBuf::from);
    let folders = fs::read_dir(&cache).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = folders.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(folder)));
    let is = |helm: &PathBuf| {
        let version = Command::new(helm).args(["version", "--short"]).output();
        version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).starts_with(major))
    };
    let mut all = on_path.chain(named.map(|folder| folder.join("helm"))).filter(|helm| helm.is_file());
    all.find(is).unwrap_or_else(|| panic!("there is no helm {major} on PATH and none in {}: `cargo xtask test` fetches it", cache.display()))
}

fn template(arguments: &[&str]) -> Output {
    template_by(&helm(), arguments)
}

fn template_by(helm: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(helm);
    command.args(["template", "qscaler"]).arg(chart()).args(["--namespace", NAMESPACE, "--kube-version", KUBERNETES]).args(arguments);
    command.output().unwrap()
}

fn words_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn rendered(arguments: &[&str]) -> String {
    let output = template(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn objects(arguments: &[&str]) -> Vec<Value> {
    let text = rendered(arguments);
    serde_yaml::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap()).filter(|object| !object.is_null()).collect()
}

fn profiles() -> [(&'static str, Vec<String>); 2] {
    let ha = chart().join("values-ha.yaml").display().to_string();
    [("default", Vec::new()), ("ha", vec!["--values".to_owned(), ha])]
}

fn all_profiles() -> Vec<Value> {
    profiles().iter().flat_map(|(_, arguments)| objects(&arguments.iter().map(String::as_str).collect::<Vec<_>>())).collect()
}

fn named<'v>(objects: &'v [Value], kind: &str, name: &str) -> &'v Value {
    objects.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name).unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// All but the CRD, which is the type's own golden.
fn without_definition(manifests: &str) -> String {
    let documents = manifests.split("---\n").filter(|document| !document.contains("kind: CustomResourceDefinition"));
    documents.collect::<Vec<_>>().join("---\n")
}

#[test]
fn each_profile_renders_to_its_golden() {
    let mut wrong = Vec::new();
    for (name, arguments) in profiles() {
        let got = without_definition(&rendered(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
        let golden = chart().join(format!("golden/{name}.yaml"));
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(golden.parent().unwrap()).unwrap();
            fs::write(&golden, &got).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if let Some((line, (got, expected))) = got.lines().zip(expected.lines()).enumerate().find(|(_, (got, expected))| got != expected) {
            wrong.push(format!("{name}, line {}: {got:?} instead of {expected:?}", line + 1));
        } else if got != expected {
            wrong.push(format!("{name}: {} lines instead of {}", got.lines().count(), expected.lines().count()));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE_GOLDEN=1 accepts these", wrong.join("\n"));
}

#[test]
fn every_container_is_within_the_restricted_level() {
    let mut seen = 0;
    let with_job = objects(&["--set", "cleanUp.enabled=true"]);
    for object in
        all_profiles().iter().chain(with_job.iter().filter(|o| o["kind"] == "Job")).filter(|o| o["kind"] == "Deployment" || o["kind"] == "Job")
    {
        let pod = &object["spec"]["template"]["spec"];
        let context = &pod["securityContext"];
        assert_eq!((&context["runAsNonRoot"], &context["runAsUser"]), (&json!(true), &json!(65532)));
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(pod.get("volumes"), None);
        for container in pod["containers"].as_array().unwrap() {
            seen += 1;
            let context = &container["securityContext"];
            let expected = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}});
            assert_eq!(*context, expected, "{}", container["name"]);
            for probe in ["livenessProbe", "readinessProbe"].into_iter().filter(|_| object["kind"] != "Job") {
                assert_eq!(container[probe]["httpGet"]["port"], "admin", "{}", container["name"]);
            }
            assert!(container["resources"]["requests"]["memory"].is_string() && container["resources"]["limits"]["memory"].is_string());
        }
    }
    assert_eq!(seen, 7, "three parts in two profiles, and the Job after an uninstallation");
}

/// Whatever is set: passwords and keys are read from Secrets by their reader, and come neither by arguments nor by variables, which many may read.
#[test]
fn no_container_is_given_a_secret_by_its_arguments_variables_or_volumes() {
    let pem = "--set=brokerCa.pem=-----BEGIN CERTIFICATE-----,cleanUp.enabled=true";
    for object in objects(&[pem]).iter().filter(|o| o["kind"] == "Deployment" || o["kind"] == "Job") {
        let pod = &object["spec"]["template"]["spec"];
        for container in pod["containers"].as_array().unwrap() {
            assert_eq!(container.get("envFrom"), None);
            for variable in container["env"].as_array().into_iter().flatten() {
                let from = variable["valueFrom"].as_object().map(|from| from.keys().cloned().collect::<Vec<_>>());
                assert!(from.is_none_or(|from| from == ["fieldRef"]), "{variable}");
            }
        }
        for volume in pod["volumes"].as_array().into_iter().flatten() {
            assert!(volume["configMap"].is_object(), "{volume}");
        }
        assert!(pod["hostPID"].is_null() && pod["hostIPC"].is_null() && pod["hostNetwork"].is_null(), "{}", object["metadata"]["name"]);
    }
}

/// The rights of one role, a line each: `group/resource (names): verbs`.
fn rights(role: &Value) -> Vec<String> {
    let words =
        |value: &Value| value.as_array().map(|all| all.iter().map(|v| v.as_str().unwrap().to_owned()).collect::<Vec<_>>()).unwrap_or_default();
    let mut lines = Vec::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                let names = words(&rule["resourceNames"]);
                let names = if names.is_empty() { String::new() } else { format!(" ({})", names.join(" ")) };
                lines.push(format!("{group}/{resource}{names}: {}", words(&rule["verbs"]).join(" ")));
            }
        }
    }
    lines.sort();
    lines
}

#[test]
fn nobody_has_a_right_that_is_not_in_this_table() {
    let ca_and_leaf = format!("/secrets ({CONTROL_KEY_SECRET} qscaler-webhook-ca {TLS_SECRET}): get update");
    let control_key = format!("/secrets ({CONTROL_KEY_SECRET}): get");
    let leaf = format!("/secrets ({TLS_SECRET}): list watch");
    let configuration = format!("admissionregistration.k8s.io/mutatingwebhookconfigurations ({WEBHOOK_CONFIGURATION}): get patch");
    let published = format!("admissionregistration.k8s.io/mutatingwebhookconfigurations ({WEBHOOK_CONFIGURATION}): get");
    let lease = format!("coordination.k8s.io/leases ({LEASE}): get update");
    let clean_up = [
        format!("/secrets ({CONTROL_KEY_SECRET} qscaler-webhook-ca {TLS_SECRET}): get delete"),
        "apps/deployments (qscaler-controller): get".to_owned(),
        format!("coordination.k8s.io/leases ({LEASE}): get update delete"),
        "coordination.k8s.io/leases: create".to_owned(),
    ];
    let table: BTreeMap<(&str, &str), Vec<&str>> = [
        (
            ("ClusterRole", "qscaler-webhook"),
            vec![
                "/limitranges: list watch",
                "/namespaces: list watch",
                published.as_str(),
                "apps/deployments: get list watch",
                "qscaler.dev/qworkers: list watch",
            ],
        ),
        (("Role", "qscaler-webhook"), vec![leaf.as_str()]),
        (("ClusterRole", "qscaler-certs"), vec![configuration.as_str()]),
        (("Role", "qscaler-certs"), vec![ca_and_leaf.as_str(), "/secrets: create"]),
        (
            ("ClusterRole", "qscaler-controller"),
            vec![
                "/limitranges: list watch",
                "/namespaces: list watch",
                "/nodes: list watch",
                "/pods: list watch",
                "/resourcequotas: list watch",
                "apiextensions.k8s.io/customresourcedefinitions (qworkers.qscaler.dev qworkercheckpoints.qscaler.dev): get",
                "apps/deployments/finalizers: update",
                "apps/deployments: list watch",
                "apps/replicasets: list watch",
                "autoscaling.k8s.io/verticalpodautoscalers: list watch",
                "autoscaling/horizontalpodautoscalers: list watch",
                "events.k8s.io/events: create patch",
                "keda.sh/scaledobjects: list watch",
                "qscaler.dev/qworkercheckpoints: get create update",
                "qscaler.dev/qworkers/status: patch",
                "qscaler.dev/qworkers: get list watch create delete",
            ],
        ),
        (
            ("ClusterRole", "qscaler-controller-writes"),
            vec!["/pods/eviction: create", "/pods/resize: patch", "/pods: patch", "apps/deployments/scale: update"],
        ),
        (("ClusterRole", "qscaler-clean-up"), vec!["/pods: list patch"]),
        (("Role", "qscaler-clean-up"), clean_up.iter().map(String::as_str).collect()),
        (("Role", "qscaler-controller"), vec![control_key.as_str(), lease.as_str(), "coordination.k8s.io/leases: create"]),
        (("ClusterRole", "qscaler-view"), vec!["qscaler.dev/qworkers: get list watch"]),
        (("ClusterRole", "qscaler-broker-urls"), vec!["/configmaps: get", "/secrets: get"]),
    ]
    .into();
    let objects = objects(&["--set", "cleanUp.enabled=true"]);
    let writes = |line: &&&str| line.rsplit(": ").next().is_some_and(|verbs| verbs.split(' ').any(|verb| !["get", "list", "watch"].contains(&verb)));
    for ((_, name), lines) in table.iter().filter(|((_, name), _)| ["qscaler-webhook", "qscaler-view", "qscaler-broker-urls"].contains(name)) {
        assert_eq!(lines.iter().find(writes), None, "{name} writes nothing");
    }
    let mut seen = 0;
    for role in objects.iter().filter(|o| o["kind"] == "Role" || o["kind"] == "ClusterRole") {
        let key = (role["kind"].as_str().unwrap(), role["metadata"]["name"].as_str().unwrap());
        assert_eq!(rights(role), *table.get(&key).unwrap_or_else(|| panic!("{key:?} is not in the table")), "{key:?}");
        seen += 1;
    }
    assert_eq!(seen, table.len());
}

#[test]
fn broker_urls_can_be_limited_to_namespaces() {
    let bindings = |arguments: &[&str]| -> Vec<String> {
        let objects = objects(arguments);
        let mut found: Vec<String> = objects
            .iter()
            .filter(|o| o["metadata"]["name"] == "qscaler-broker-urls" && o["kind"].as_str().unwrap().ends_with("Binding"))
            .map(|o| format!("{} {}", o["kind"].as_str().unwrap(), o["metadata"]["namespace"].as_str().unwrap_or("everywhere")))
            .collect();
        found.sort();
        found
    };
    assert_eq!(bindings(&[]), ["ClusterRoleBinding everywhere"]);
    assert_eq!(bindings(&["--set", "controller.secretNamespaces={shop,mail}"]), ["RoleBinding mail", "RoleBinding shop"]);
}

#[test]
fn writes_can_be_limited_to_namespaces() {
    let bindings = |arguments: &[&str]| -> Vec<String> {
        let objects = objects(arguments);
        let bindings = objects.iter().filter(|o| o["roleRef"]["name"] == "qscaler-controller-writes");
        let mut found: Vec<String> =
            bindings.map(|o| format!("{} {}", o["kind"].as_str().unwrap(), o["metadata"]["namespace"].as_str().unwrap_or("everywhere"))).collect();
        found.sort();
        found
    };
    assert_eq!(bindings(&[]), ["ClusterRoleBinding everywhere"]);
    assert_eq!(bindings(&["--set", "controller.namespaces={shop,mail}"]), ["RoleBinding mail", "RoleBinding shop"]);
}

#[test]
fn what_an_uninstallation_leaves_is_taken_back_by_one_job_after_it() {
    let objects = objects(&["--set", "cleanUp.enabled=true"]);
    let hooks: Vec<&Value> = objects.iter().filter(|o| o["metadata"]["name"] == "qscaler-clean-up").collect();
    assert_eq!(hooks.len(), 6, "an account, two roles, two bindings, a Job");
    for hook in &hooks {
        let annotation = |key: &str| hook["metadata"]["annotations"][format!("helm.sh/{key}")].as_str().unwrap().to_owned();
        assert_eq!(annotation("hook"), "post-delete", "a controller that runs would set its marks anew");
        assert_eq!(annotation("hook-delete-policy"), "before-hook-creation,hook-succeeded");
        assert_eq!(annotation("hook-weight"), if hook["kind"] == "Job" { "0" } else { "-1" });
    }
    let job = named(&objects, "Job", "qscaler-clean-up");
    assert_eq!(job["spec"]["template"]["spec"]["containers"][0]["args"][0], "--after-uninstall");
    assert_eq!(job["spec"]["template"]["spec"]["serviceAccountName"], "qscaler-clean-up");
    assert!(!rendered(&[]).contains("qscaler-clean-up"));
}

#[test]
fn policies_hold_our_own_accounts_and_nobody_else_to_what_they_are_there_for() {
    let objects = objects(&[]);
    for (name, account, resource) in
        [("qscaler-controller-pods", "qscaler-controller", "pods"), ("qscaler-certs-bundle", "qscaler-certs", "mutatingwebhookconfigurations")]
    {
        let policy = &named(&objects, "ValidatingAdmissionPolicy", name)["spec"];
        assert_eq!(policy["matchConstraints"]["resourceRules"][0]["resources"], json!([resource]), "{name}");
        let conditions = policy["matchConditions"].as_array().unwrap();
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0]["expression"], format!("request.userInfo.username == 'system:serviceaccount:{NAMESPACE}:{account}'"));
        let binding = &named(&objects, "ValidatingAdmissionPolicyBinding", name)["spec"];
        assert_eq!((&binding["policyName"], &binding["validationActions"]), (&json!(name), &json!(["Deny"])));
    }
    let marks = &named(&objects, "ValidatingAdmissionPolicy", "qscaler-controller-pods")["spec"]["variables"][2]["expression"];
    let keys: Vec<String> = qscaler_core::mark::KEYS.iter().chain(&[qscaler_core::names::annotation::MARKS]).map(|key| format!("'{key}'")).collect();
    assert_eq!(*marks, format!("[{}]", keys.join(", ")));
    assert!(!rendered(&["--set", "confinement.enabled=false"]).contains("ValidatingAdmissionPolicy"));
}

#[test]
fn brokers_can_be_limited_to_hosts() {
    let arguments = |set: &[&str]| {
        let objects = objects(set);
        let all = &named(&objects, "Deployment", "qscaler-controller")["spec"]["template"]["spec"]["containers"][0]["args"];
        all.as_array().unwrap().iter().filter(|a| a.as_str().unwrap().starts_with("--broker-host")).cloned().collect::<Vec<_>>()
    };
    assert!(arguments(&[]).is_empty());
    assert_eq!(arguments(&["--set", "brokerHosts={redis.shop,*.mq.example}"]), ["--broker-host=redis.shop", "--broker-host=*.mq.example"]);
    assert!(!template(&["--set", "brokerHosts={redis://host}"]).status.success(), "a URL is no host");
}

#[test]
fn the_webhook_can_neither_stop_the_cluster_nor_itself() {
    let objects = objects(&[]);
    let configuration = named(&objects, "MutatingWebhookConfiguration", WEBHOOK_CONFIGURATION);
    let webhooks = configuration["webhooks"].as_array().unwrap();
    assert_eq!(webhooks.len(), 2);
    for webhook in webhooks {
        assert_eq!(webhook["failurePolicy"], "Ignore");
        assert_eq!(webhook["sideEffects"], "None");
        assert!(webhook["timeoutSeconds"].as_u64().unwrap() <= 3);
        assert_eq!(webhook["clientConfig"].get("caBundle"), None, "certs owns it");
        let excluded = &webhook["namespaceSelector"]["matchExpressions"][0];
        let excluded: Vec<_> = excluded["values"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
        assert!(excluded.contains(&"kube-system") && excluded.contains(&NAMESPACE), "{excluded:?}");
    }
    assert_eq!(webhooks[0]["namespaceSelector"]["matchLabels"][LABEL_INJECTION], INJECTION_ENABLED);
    assert_eq!(
        webhooks[0]["rules"],
        json!([{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"], "scope": "Namespaced"}])
    );
    assert_eq!(webhooks[0]["reinvocationPolicy"], "IfNeeded");
    let deployment = named(&objects, "Deployment", "qscaler-webhook");
    assert_eq!(deployment["spec"]["strategy"]["rollingUpdate"], json!({"maxSurge": 1, "maxUnavailable": 0}));
    assert_eq!(deployment["spec"]["replicas"], 2);
}

#[test]
fn every_object_has_a_unique_name_and_every_selector_matches_its_pods() {
    for (_, arguments) in profiles() {
        let objects = objects(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let mut keys: Vec<String> = objects.iter().map(|o| format!("{} {}", o["kind"], o["metadata"]["name"])).collect();
        keys.sort();
        let count = keys.len();
        keys.dedup();
        assert_eq!(keys.len(), count, "{keys:?}");
        for deployment in objects.iter().filter(|o| o["kind"] == "Deployment") {
            let labels = &deployment["spec"]["template"]["metadata"]["labels"];
            for (key, value) in deployment["spec"]["selector"]["matchLabels"].as_object().unwrap() {
                assert_eq!(labels[key], *value);
            }
        }
    }
}

#[test]
fn the_schema_refuses_what_would_not_work() {
    for (bad, says) in [
        ("webhook.replicas=0", "replicas"),
        ("webhook.failurePolicy=Maybe", "failurePolicy"),
        ("webhook.timeoutSeconds=31", "timeoutSeconds"),
        ("webhook.port=80", "port"),
        ("webhook.hostNetwork=true", "10250 is the kubelet's"),
        ("controller.replicas=none", "replicas"),
        ("controller.secretNamespaces=shop", "secretNamespaces"),
        ("controller.page.enabled=perhaps", "enabled"),
        ("controller.page.port=80", "port"),
        ("controller.page.port=8080", "port"),
        ("controller.page.address=0.0.0.0", "address"),
        ("logFormat=xml", "logFormat"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("image.tags=dev", "tags"),
        ("certs.enabled=perhaps", "enabled"),
        ("webhok.replicas=2", "webhok"),
    ] {
        let output = template(&["--set", bad]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && words.contains(says), "{bad}: {words}");
    }
}

#[test]
fn on_the_nodes_network_no_second_webhook_waits_for_the_ports_of_the_first() {
    let objects = objects(&["--set", "webhook.hostNetwork=true,webhook.port=9443,webhook.adminPort=9444"]);
    let spec = &named(&objects, "Deployment", "qscaler-webhook")["spec"];
    assert_eq!(spec["strategy"]["rollingUpdate"], json!({"maxSurge": 0, "maxUnavailable": 1}));
    assert_eq!(spec["template"]["spec"]["hostNetwork"], true);
    let container = &spec["template"]["spec"]["containers"][0];
    let ports: Vec<_> = container["ports"].as_array().unwrap().iter().map(|port| port["containerPort"].as_u64().unwrap()).collect();
    assert_eq!(ports, [9443, 9444]);
    let arguments: Vec<_> = container["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    assert!(arguments.contains(&"--listen=[::]:9443") && arguments.contains(&"--admin-address=[::]:9444"), "{arguments:?}");
}

fn numbers_as_floats(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(numbers_as_floats).collect(),
        Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), numbers_as_floats(value))).collect(),
        other => other.clone(),
    }
}

#[test]
fn an_upgrade_updates_the_definitions_and_an_uninstallation_keeps_them() {
    let (kept, not_kept) = (objects(&[]), objects(&["--set", "crd.keep=false"]));
    for plural in ["qworkers", "qworkercheckpoints"] {
        let of_type: Value = serde_json::from_str(&fs::read_to_string(chart().join(format!("crd/{plural}.yaml"))).unwrap()).unwrap();
        let name = format!("{plural}.qscaler.dev");
        let crd = named(&kept, "CustomResourceDefinition", &name);
        // Helm writes 0.0 as 0.
        assert!(numbers_as_floats(&crd["spec"]) == numbers_as_floats(&of_type["spec"]), "the rendered definition is another than crd/{plural}.yaml");
        assert_eq!(crd["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
        assert_eq!(named(&not_kept, "CustomResourceDefinition", &name)["metadata"]["annotations"].get("helm.sh/resource-policy"), None);
    }
}

#[test]
fn each_part_is_spread_over_nodes_and_drained_one_replica_at_a_time() {
    let objects = objects(&[]);
    for part in ["qscaler-webhook", "qscaler-controller", "qscaler-certs"] {
        assert_eq!(named(&objects, "PodDisruptionBudget", part)["spec"]["maxUnavailable"], 1);
        let pod = &named(&objects, "Deployment", part)["spec"]["template"];
        let spread = &pod["spec"]["topologySpreadConstraints"][0];
        assert_eq!((&spread["topologyKey"], &spread["whenUnsatisfiable"]), (&json!("kubernetes.io/hostname"), &json!("ScheduleAnyway")));
        for (key, value) in spread["labelSelector"]["matchLabels"].as_object().unwrap() {
            assert_eq!(pod["metadata"]["labels"][key], *value);
        }
    }
}
