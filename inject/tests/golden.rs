//! Pods beside what injection makes of them: `golden/NAME.pod.yaml` and `NAME.config.yaml` in, `NAME.patch.json` out. `UPDATE_GOLDEN=1` rewrites
//! the last. Every case is also applied, and injected a second time.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test helper is a failed test with a line number")]

mod cases;

use cases::{Case, annotations, cases, folder, read, run};
use qscaler_core::names::{annotation, sidecar};
use qscaler_inject::{Outcome, Skip};
use serde_json::{Value, json};
use std::fs;

fn described(outcome: &Outcome) -> Value {
    // The version is that of the workspace: it would change every golden at every release.
    let text = match outcome {
        Outcome::Patch { patch, warnings } => json!({"outcome": "injected", "warnings": warnings, "patch": patch}),
        Outcome::Complete { patch, warnings } => json!({"outcome": "completed", "warnings": warnings, "patch": patch}),
        Outcome::Skip(skip) => json!({"outcome": skip.label(), "reason": skip.to_string()}),
        Outcome::Refuse(refusal) => json!({"outcome": refusal.label(), "reason": refusal.to_string()}),
    }
    .to_string();
    let version = format!("\\\"version\\\":\\\"{}\\\"", env!("CARGO_PKG_VERSION"));
    serde_json::from_str(&text.replace(&version, "\\\"version\\\":\\\"VERSION\\\"")).unwrap()
}

#[test]
fn every_pod_becomes_what_its_golden_says() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for name in cases() {
        let pod: Value = read(&folder().join(format!("{name}.pod.yaml")));
        let case: Case = read(&folder().join(format!("{name}.config.yaml")));
        let outcome = run(&pod, &case, "0123456789abcdef0123456789abcdef");
        let got = match &outcome {
            Outcome::Patch { patch, .. } if !case.added.is_empty() => {
                let mut later = pod.clone();
                json_patch::patch(&mut later, patch).unwrap();
                later["spec"]["containers"].as_array_mut().unwrap().extend(case.added.clone());
                described(&run(&later, &case, "ffffffffffffffffffffffffffffffff"))
            }
            outcome => described(outcome),
        };
        let golden = folder().join(format!("{name}.patch.json"));
        if update {
            fs::write(&golden, serde_json::to_string_pretty(&got).unwrap() + "\n").unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_else(|_| panic!("{name}: no golden; UPDATE_GOLDEN=1 writes it"));
        if got != serde_json::from_str::<Value>(&expected).unwrap() {
            wrong.push(format!("{name}: {got:#}"));
        }
        if let Outcome::Patch { patch, .. } = &outcome {
            let mut injected = pod.clone();
            json_patch::patch(&mut injected, patch).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(run(&injected, &case, "ffffffffffffffffffffffffffffffff"), Outcome::Skip(Skip::AlreadyInjected), "{name}: a second injection");
            check_invariants(&name, &pod, &injected);
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE_GOLDEN=1 accepts these", wrong.join("\n"));
}

/// What holds of every injected pod, whatever its golden says.
fn check_invariants(name: &str, before: &Value, after: &Value) {
    let init = after["spec"]["initContainers"].as_array().unwrap();
    let ours: Vec<_> = init.iter().filter(|c| c["name"] == sidecar::CONTAINER).collect();
    assert_eq!(ours.len(), 1, "{name}");
    let context = &ours[0]["securityContext"];
    assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
    // The one right of root that there is, and only for root.
    let capabilities =
        if context["capabilities"].get("add").is_some() { json!({"drop": ["ALL"], "add": ["KILL"]}) } else { json!({"drop": ["ALL"]}) };
    assert_eq!(context["capabilities"], capabilities, "{name}");
    assert!(capabilities.get("add").is_none() || context["runAsUser"] == 0, "{name}");
    assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
    assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{name}");
    assert_eq!(context["runAsNonRoot"] == true, context["runAsUser"] != 0, "{name}");
    for container in after["spec"]["containers"].as_array().unwrap() {
        let path = container["lifecycle"]["preStop"]["httpGet"]["path"].as_str().unwrap();
        assert!(path.starts_with("/hold/"), "{name}: {path}");
    }
    assert_eq!(before["spec"].get("volumes"), after["spec"].get("volumes"), "{name}");
    assert!(annotations(after).contains_key(annotation::INJECTED), "{name}");
    kept(name, "", before, after);
}

/// Everything that was in the pod is in it still, at the same place or, in a list, in the same order; only values that we set may differ.
fn kept(name: &str, path: &str, before: &Value, after: &Value) {
    const OURS: &[&str] =
        &["/terminationGracePeriodSeconds", "/lifecycle/preStop", "/shareProcessNamespace", "/memory", "/cpu", "/qscaler.dev/injected"];
    let longer = |before: &Value, after: &Value| Some(after.as_str()?.starts_with(before.as_str()?));
    if path.ends_with("/imagePullSecrets")
        || (path.contains("/args/") || path.ends_with("-ports") || path.ends_with("Ports")) && longer(before, after) == Some(true)
    {
        return;
    }
    if OURS.iter().any(|ours| path.ends_with(ours)) {
        return;
    }
    match (before, after) {
        (Value::Object(b), Value::Object(a)) => {
            for (key, value) in b {
                kept(name, &format!("{path}/{key}"), value, a.get(key).unwrap_or_else(|| panic!("{name}: {path}/{key} is gone")));
            }
        }
        (Value::Array(b), Value::Array(a)) => {
            let a: Vec<_> = a.iter().filter(|item| item["name"] != sidecar::CONTAINER).collect();
            assert_eq!(b.len(), a.len(), "{name}: {path}");
            for (i, (b, a)) in b.iter().zip(a).enumerate() {
                kept(name, &format!("{path}/{i}"), b, a);
            }
        }
        (Value::Null, _) => {}
        _ => assert_eq!(before, after, "{name}: {path}"),
    }
}

#[test]
fn there_is_no_golden_without_its_pod() {
    let cases = cases();
    assert!(cases.len() >= 20, "{cases:?}");
    for entry in fs::read_dir(folder()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let name = file.split('.').next().unwrap();
        assert!(cases.iter().any(|case| case == name), "{file} belongs to no case");
    }
}
