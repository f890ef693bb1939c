//! Manifests as people keep them: injected, read again by the API's own types, and given back.

use super::*;
use k8s_openapi::api::apps::v1::Deployment;
use proptest::prelude::*;
use qscaler_core::names::annotation::{INJECTED, UNINJECT};
use qscaler_core::names::sidecar;

const SERVICE: &str = "# A service\napiVersion: v1\nkind:   Service # odd spacing\nmetadata: {name: x}\n";
const ORDERS: &str = "
# The orders, by hand
apiVersion: apps/v1
kind: Deployment
metadata:
  name: orders
  namespace: shop   # ours
  annotations:
    qscaler.dev/queue: orders
    qscaler.dev/broker: env:URL
    qscaler.dev/max-replicas: \"50\"
    qscaler.dev/worker: celery
spec:
  selector: {matchLabels: {app: orders}}
  template:
    metadata: {labels: {app: orders}}
    spec:
      containers:
      - name: worker
        image: worker:1
        args: [\"-c\", \"exec celery\\n\"]
        env: [{name: URL, value: 'redis://redis/0'}]
        tty: yes
        volumeMounts: [{name: s, mountPath: /s}]
      volumes:
      - {name: s, secret: {secretName: s, defaultMode: 0400}}
";

fn token() -> String {
    "0123456789abcdef0123456789abcdef".to_owned()
}

fn with(settings: &Settings) -> With<'_> {
    With { settings, allowed: Allowed::default(), namespace: None, token: &token }
}

fn inject_text(text: &str) -> Result<Written> {
    injected(text, &with(&Settings::default()))
}

fn documents_of(text: &str) -> Vec<Value> {
    split(text).iter().filter(|d| !d.is_empty()).map(|d| yaml::read(d.text).unwrap()).collect()
}

#[test]
fn an_annotated_deployment_is_as_the_webhook_would_make_its_pods_and_nothing_else_is_touched() {
    let text =
        format!("{SERVICE}---{ORDERS}--- # end\nkind: Deployment\nmetadata: {{name: other}}\nspec: {{template: {{spec: {{containers: []}}}}}}");
    let made = inject_text(&text).unwrap();
    assert!(made.text.starts_with(&format!("{SERVICE}---\n# Written by kubectl qscaler inject ")), "{}", made.text);
    assert!(made.text.ends_with("--- # end\nkind: Deployment\nmetadata: {name: other}\nspec: {template: {spec: {containers: []}}}"));
    let deployment: Deployment = serde_json::from_value(documents_of(&made.text)[1].clone()).unwrap();
    let template = &deployment.spec.template;
    let pod = template.spec.as_ref().unwrap();
    assert_eq!(pod.init_containers.as_ref().unwrap()[0].name, sidecar::CONTAINER);
    assert_eq!((pod.termination_grace_period_seconds, pod.share_process_namespace), (Some(3660), Some(true)));
    assert_eq!(pod.containers[0].tty, Some(true));
    assert_eq!(pod.volumes.as_ref().unwrap()[0].secret.as_ref().unwrap().default_mode, Some(0o400));
    assert!(template.metadata.as_ref().unwrap().annotations.as_ref().unwrap().contains_key(INJECTED));
    // The very operations of the webhook's own code.
    let hook = pod.containers[0].lifecycle.as_ref().unwrap().pre_stop.as_ref().unwrap().http_get.as_ref().unwrap();
    assert_eq!(hook.path.as_deref(), Some(&*format!("/hold/{}?container=worker", token())));
    assert!(made.said.iter().any(|line| line == "document 2 (Deployment shop/orders): injected"), "{:?}", made.said);
    // Injected once more it stays as it is; given back it is what it was.
    assert_eq!(inject_text(&made.text).unwrap().text, made.text);
    assert_eq!(uninjected(&made.text).unwrap().text, text);
}

#[test]
fn without_the_kept_lines_the_values_come_back() {
    let before = documents_of(ORDERS);
    let made = inject_text(ORDERS).unwrap().text;
    let bare: String = made.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect();
    assert_eq!(documents_of(&uninjected(&bare).unwrap().text), before);
    // As the cluster gives it: with defaults in it, and changed by others.
    let mut there = documents_of(&bare).remove(0);
    there["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "3".into();
    there["spec"]["template"]["spec"]["initContainers"][0]["terminationMessagePath"] = "/dev/termination-log".into();
    there["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["httpGet"]["scheme"] = "HTTP".into();
    there["spec"]["template"]["spec"]["containers"][0]["image"] = "worker:2".into();
    let mut wanted = before[0].clone();
    wanted["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "3".into();
    wanted["spec"]["template"]["spec"]["containers"][0]["image"] = "worker:2".into();
    assert_eq!(documents_of(&uninjected(&yaml::write(&there)).unwrap().text), [wanted]);
    // An edit of the file is kept, and said.
    let edited = made.replace("image: \"worker:1\"", "image: \"worker:9\"");
    let back = uninjected(&edited).unwrap();
    assert!(back.text.contains("worker:9") && !back.text.contains("#|") && !back.text.contains("qscaler-sidecar"), "{}", back.text);
    assert!(back.said.iter().any(|line| line.contains("document 1") && line.contains("edited")), "{:?}", back.said);
    // Where the way back is gone, that is said.
    there["metadata"]["annotations"].as_object_mut().unwrap().remove(UNINJECT);
    let error = uninjected(&yaml::write(&there)).unwrap_err().to_string();
    assert!(error.contains("document 1 (Deployment shop/orders)") && error.contains(UNINJECT), "{error}");
}

#[test]
fn json_and_lists_are_read_and_each_item_is_on_its_own() {
    let mut other = documents_of(ORDERS).remove(0);
    other["metadata"]["name"] = "mails".into();
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [documents_of(SERVICE)[0], documents_of(ORDERS)[0], other]});
    for text in [serde_json::to_string_pretty(&list).unwrap(), yaml::write(&list)] {
        let made = inject_text(&text).unwrap();
        let items = &documents_of(&made.text)[0]["items"];
        assert_eq!(items[0], documents_of(SERVICE)[0]);
        for (i, name) in [(1, "orders"), (2, "mails")] {
            assert_eq!(items[i]["spec"]["template"]["spec"]["initContainers"][0]["name"], sidecar::CONTAINER);
            assert!(made.said.contains(&format!("document 1, items[{i}] (Deployment shop/{name}): injected")), "{:?}", made.said);
        }
        assert_eq!(uninjected(&made.text).unwrap().text, text);
    }
}

#[test]
fn what_is_wrong_names_document_key_and_value_and_all_of_it_is_said_at_once() {
    let many = ORDERS.replace("\"50\"", "many").replace("queue:", "queu:");
    let lost = ORDERS.replace("  namespace: shop   # ours\n", "");
    let hook = ORDERS.replace("        tty: yes\n", "        lifecycle: {preStop: {exec: {command: [\"true\"]}}}\n");
    let error = inject_text(&format!("{SERVICE}---{many}---{lost}---{hook}---\na: [\n")).unwrap_err().to_string();
    for words in [
        "document 2 (Deployment shop/orders): qscaler.dev/max-replicas: \"many\"",
        "qscaler.dev/queu",
        "document 3 (Deployment orders): metadata.namespace is missing",
        "document 4 (Deployment shop/orders): container worker has a preStop hook of its own",
        "document 5 is no YAML",
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
    let settings = Settings::default();
    assert!(injected(&lost, &With { namespace: Some("shop"), ..with(&settings) }).is_ok());
}

#[test]
fn what_kubectl_apply_would_warn_of_is_said() {
    let text = ORDERS
        .replace("exec celery\\n", "exec celery -A app worker -B\\n")
        .replace("qscaler.dev/max-replicas:", "qscaler.io/max-wait: 5s\n    qscaler.dev/max-replicas:");
    let said = inject_text(&text).unwrap().said.join("\n");
    assert!(said.contains("warning: container worker runs Celery's beat"), "{said}");
    assert!(said.contains("did you mean qscaler.dev/max-wait?"), "{said}");
}

#[test]
fn what_the_webhook_leaves_alone_is_left_alone_and_said() {
    let pod = "kind: Pod\nmetadata: {name: p, namespace: shop, annotations: {qscaler.dev/queue: q}}\nspec: {containers: [{name: a}]}\n";
    for (text, words) in [
        (ORDERS.replace("kind: Deployment", "kind: StatefulSet"), "work on Deployments only; this StatefulSet"),
        (pod.to_owned(), "work on Deployments only; this pod belongs to no controller"),
        (ORDERS.replace("    qscaler.dev/worker: celery\n", "    qscaler.dev/dry-run: \"true\"\n"), "qscaler.dev/dry-run is true"),
        (
            ORDERS.replace("    qscaler.dev/", "    qscaler.io/"),
            "the annotation qscaler.io/broker is read by nobody; did you mean qscaler.dev/broker?",
        ),
    ] {
        let made = inject_text(&text).unwrap();
        assert_eq!(made.text, text);
        assert!(made.said.len() == 1 && made.said[0].contains(words), "{:?}", made.said);
        assert_eq!(uninjected(&text).unwrap().text, text);
    }
}

#[test]
fn a_pod_of_a_deployment_is_injected_as_the_webhook_would_have_it() {
    let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "orders-5d4f-x", "namespace": "shop",
        "labels": {"pod-template-hash": "5d4f"}, "annotations": documents_of(ORDERS)[0]["metadata"]["annotations"],
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-5d4f", "controller": true}]},
        "spec": documents_of(ORDERS)[0]["spec"]["template"]["spec"]});
    let text = yaml::write(&pod);
    let made = inject_text(&text).unwrap().text;
    assert!(made.contains("\\\"name\\\":\\\"orders\\\"") && made.contains("5d4f"), "{made}");
    assert_eq!(uninjected(&made).unwrap().text, text);
    let bare: String = made.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect();
    assert_eq!(documents_of(&uninjected(&bare).unwrap().text), [pod]);
}

proptest! {
    #[test]
    fn whatever_stands_around_it_comes_back_byte_for_byte(before in "(# x\n|\n|---\n|--- # é\u{2028}\n|%YAML 1.2\n---\n){0,4}", after in "(# \\\\u\\{41\\}\n|\n|---\n|--- \n){0,4}", end in "(# y|)") {
        let text = format!("{before}---{ORDERS}{after}{end}");
        let made = inject_text(&text).unwrap();
        prop_assert!(made.text.contains("qscaler-sidecar"));
        prop_assert_eq!(uninjected(&made.text).unwrap().text, text);
    }
}
