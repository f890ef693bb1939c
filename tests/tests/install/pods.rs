//! Every golden case of `inject`, created on a real API server: as it is, and as injection makes it. In: the folder of goldens. Out: that whatever the API server takes
//! without us it takes with us, also where `restricted` is enforced, and that what it then keeps is what was injected. Left to others: what injection says (`inject`).

#[path = "../../../inject/tests/cases/mod.rs"]
mod cases;

use crate::server::{Server, cached};
use cases::{Case, cases, folder, read, run};
use qscaler_core::names::sidecar;
use qscaler_inject::{Outcome, Skip};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// No API server takes these, with us or without: no containers, and keys of annotations that none has.
const TAKEN_BY_NOBODY: &[&str] = &["containers-null", "tilde-and-slash"];
/// Where pods are created that bring no LimitRange.
const OPEN: &str = "golden";
/// The same with the highest Pod Security level.
const RESTRICTED: &str = "golden-restricted";

/// The pod after injection, and after what another webhook adds, as the API server gets it in the end.
fn injected(pod: &Value, case: &Case) -> Option<Value> {
    let token = "0123456789abcdef0123456789abcdef";
    let mut pod = pod.clone();
    let Outcome::Patch { patch, .. } = run(&pod, case, token) else { return None };
    json_patch::patch(&mut pod, &patch).unwrap();
    if !case.added.is_empty() {
        pod["spec"]["containers"].as_array_mut().unwrap().extend(case.added.clone());
        let Outcome::Complete { patch, .. } = run(&pod, case, token) else { panic!("nothing is said of what was added") };
        json_patch::patch(&mut pod, &patch).unwrap();
    }
    Some(pod)
}

/// With what a ReplicaSet controller would have given it.
fn named(mut pod: Value, name: &str, namespace: &str) -> Value {
    let metadata = pod["metadata"].as_object_mut().unwrap();
    metadata.remove("generateName");
    metadata.insert("name".to_owned(), json!(name));
    metadata.insert("namespace".to_owned(), json!(namespace));
    for owner in metadata.get_mut("ownerReferences").and_then(Value::as_array_mut).into_iter().flatten() {
        owner["uid"] = json!("3f1c9a52-0000-4000-8000-000000000002");
    }
    pod
}

/// The namespace's LimitRange, where the case has one: at most one item of each type.
fn limit_range(case: &Case) -> Option<Value> {
    let mut container = json!({"type": "Container"});
    if let Some(cpu) = case.min_cpu {
        container["min"] = json!({"cpu": format!("{cpu}m")});
    }
    if let Some(bytes) = case.max_memory {
        container["max"] = json!({"memory": bytes.to_string()});
    }
    let of_container = (container.as_object()?.len() > 1).then_some(container);
    let of_pod = case.pod_max_memory.map(|bytes| json!({"type": "Pod", "max": {"memory": bytes.to_string()}}));
    let limits: Vec<Value> = of_container.into_iter().chain(of_pod).collect();
    (!limits.is_empty()).then(|| json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits"}, "spec": {"limits": limits}}))
}

fn namespace(name: &str, restricted: bool) -> Vec<Value> {
    let labels = if restricted { json!({"pod-security.kubernetes.io/enforce": "restricted"}) } else { json!({}) };
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
        // No controller makes it here.
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}),
    ]
}

/// Creates all of them, each unknown field being told; gives the names that were taken, and all that was said.
fn create(server: &Server, items: Vec<Value>) -> (BTreeSet<String>, String) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let (_, words) = server.run(&cached("kubernetes-", "kubectl"), &["create", "--validate=warn", "-f", "-"], Some(&list));
    let taken = words.lines().filter_map(|line| Some(line.strip_prefix("pod/")?.strip_suffix(" created")?.to_owned())).collect();
    (taken, words)
}

#[test]
fn what_an_api_server_takes_of_the_golden_cases_without_us_it_takes_with_us_and_keeps() {
    let server = Server::start();
    let (mut surroundings, mut pods) = ([namespace(OPEN, false), namespace(RESTRICTED, true)].concat(), Vec::new());
    let mut all: BTreeMap<String, Case> = BTreeMap::new();
    for name in cases() {
        let pod: Value = read(&folder().join(format!("{name}.pod.yaml")));
        let case: Case = read(&folder().join(format!("{name}.config.yaml")));
        let mut places = vec![(OPEN.to_owned(), name.clone())];
        if let Some(mut limits) = limit_range(&case) {
            surroundings.extend(namespace(&name, false));
            limits["metadata"]["namespace"] = json!(name);
            surroundings.push(limits);
            places = vec![(name.clone(), name.clone())];
        } else if !case.root {
            places.push((RESTRICTED.to_owned(), format!("{name}.restricted")));
        }
        for (place, name) in places {
            pods.push(named(pod.clone(), &format!("{name}.bare"), &place));
            pods.extend(injected(&pod, &case).map(|pod| named(pod, &format!("{name}.injected"), &place)));
        }
        all.insert(name, case);
    }
    let (ok, words) = server.run(
        &cached("kubernetes-", "kubectl"),
        &["create", "-f", "-"],
        Some(&json!({"apiVersion": "v1", "kind": "List", "items": surroundings}).to_string()),
    );
    assert!(ok, "{words}");
    let asked: BTreeSet<String> = pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    let (taken, words) = create(&server, pods);
    // One case has fields of a Kubernetes to come.
    let unknown: Vec<&str> = words.lines().filter(|line| line.contains("unknown field") && !line.contains("future")).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let takes = |name: &str, how: &str| taken.contains(&format!("{name}.{how}"));
    let refused: Vec<&String> = all.keys().filter(|name| !takes(name, "bare")).collect();
    assert_eq!(refused, TAKEN_BY_NOBODY, "{words}");
    let restricted = |name: &str| format!("{name}.restricted");
    let lost: Vec<String> = all
        .keys()
        .flat_map(|name| [name.clone(), restricted(name)])
        .filter(|name| asked.contains(&format!("{name}.injected")) && takes(name, "bare") && !takes(name, "injected"))
        .collect();
    assert!(lost.is_empty(), "refused with us alone: {lost:?}\n{words}");
    // Where the worker itself is not within the level, it is not our container that is complained about; but for a user that was learned, which no worker has there.
    let of_root = |line: &str| {
        all.iter().any(|(name, case)| case.worker_ids.is_some_and(|ids| ids.uid == 0) && line.contains(&format!("\"{name}.restricted.")))
    };
    let ours: Vec<&str> =
        words.lines().filter(|line| line.contains("restricted.injected") && line.contains(sidecar::CONTAINER) && !of_root(line)).collect();
    assert!(ours.is_empty(), "{ours:?}");
    let count = |how: &str| taken.iter().filter(|name| name.ends_with(how)).count();
    assert!(count(".injected") >= 50 && all.keys().any(|name| takes(&restricted(name), "injected")), "{taken:?}");

    // What it keeps, with its own defaults and mounts in it, is still ours: the second call finds nothing that it would not find mended by the third.
    let kept: Value = serde_json::from_str(&server.kubectl(&["get", "pods", "-A", "-o", "json"])).unwrap();
    for mut pod in kept["items"].as_array().unwrap().iter().cloned() {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        let Some(case) = name.strip_suffix(".injected").map(|name| &all[name.trim_end_matches(".restricted")]) else { continue };
        let ours = pod["spec"]["initContainers"].as_array().unwrap().iter().find(|c| c["name"] == sidecar::CONTAINER).unwrap();
        assert_eq!(ours["restartPolicy"], "Always", "{name}");
        let again = run(&pod, case, "ffffffffffffffffffffffffffffffff");
        if let Outcome::Complete { patch, .. } = &again {
            assert!(patch.0.iter().all(|op| op.path().to_string().contains("/volumeMounts/")), "{name}: {patch:?}");
            json_patch::patch(&mut pod, patch).unwrap();
        } else {
            assert_eq!(again, Outcome::Skip(Skip::AlreadyInjected), "{name}");
        }
        match run(&pod, case, "ffffffffffffffffffffffffffffffff") {
            Outcome::Skip(Skip::AlreadyInjected) => {}
            // A hook of somebody else is told of each time.
            Outcome::Complete { patch, .. } => assert!(patch.0.is_empty() && !case.added.is_empty(), "{name}: {patch:?}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}
