//! One object of a manifest. In: its value. Out: the value with the sidecar, by the webhook's own code, or without it again. Left to others: text (`documents`,
//! `yaml`), and which objects there are (`mod`).
//!
//! What the webhook would learn from the cluster is not known here: the user's options stand for it, and the Deployment's UID stays empty, which every part
//! takes for "not told". All pods of a template share one hook token, where the webhook gives each its own.

use json_patch::Patch;
use qscaler_core::config::{Parsed, WorkerConfig, parse};
use qscaler_core::names::annotation::{INJECTED, UNINJECT};
use qscaler_core::names::{DOMAIN, sidecar};
use qscaler_core::workload::WorkloadId;
use qscaler_inject::{Allowed, Injection, Outcome, Owner, Settings, Skip, annotations, inject, notes, owner, strays};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Where each kind that has pods keeps their template.
const TEMPLATES: &[(&str, &str)] = &[
    ("Deployment", "/spec/template"),
    ("StatefulSet", "/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("ReplicaSet", "/spec/template"),
    ("ReplicationController", "/spec/template"),
    ("Job", "/spec/template"),
    ("CronJob", "/spec/jobTemplate/spec/template"),
    ("Pod", ""),
];

/// What is injected with.
pub(super) struct With<'a> {
    /// Of the sidecar.
    pub(super) settings: &'a Settings,
    /// Of the namespaces.
    pub(super) allowed: Allowed,
    /// Where an object names none.
    pub(super) namespace: Option<&'a str>,
    /// 32 hexadecimal digits, other ones at each call.
    pub(super) token: &'a dyn Fn() -> String,
}

/// What became of an object.
#[derive(Debug, PartialEq)]
pub(super) enum Done {
    /// Nothing; with words where a user would wonder.
    Untouched(Option<String>),
    /// It is changed; warnings.
    Changed(Vec<String>),
    /// It cannot be, and why.
    Failed(Vec<String>),
}

/// `Deployment shop/orders`.
pub(super) fn title(object: &Value) -> String {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let namespace = text("/metadata/namespace");
    let slash = if namespace.is_empty() { "" } else { "/" };
    format!("{} {namespace}{slash}{}", text("/kind"), text("/metadata/name"))
}

fn kind(object: &Value) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or_default()
}

/// Injects.
pub(super) fn add(object: &mut Value, with: &With<'_>) -> Done {
    let Some((kind, path)) = TEMPLATES.iter().find(|(known, _)| *known == kind(object)) else { return Done::Untouched(None) };
    let Some(template) = object.pointer(path).cloned() else { return Done::Untouched(None) };
    let places = [object.get("metadata"), template.get("metadata")];
    let (of_object, of_template) = (annotations(object.get("metadata")), annotations(template.get("metadata")));
    let read = if *kind == "Pod" { parse(&BTreeMap::new(), &of_object) } else { parse(&of_object, &of_template) };
    let (name, template_hash) = match (*kind, owner(object)) {
        (_, _) if matches!(read, Parsed::NotOurs) => {
            return Done::Untouched(Some(strays(&places).join("; ")).filter(|words| !words.is_empty()));
        }
        ("Deployment", _) => (object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned(), String::new()),
        ("Pod", Owner::Deployment { name, template_hash }) => (name, template_hash),
        ("Pod", Owner::Other(owner)) => return Done::Untouched(Some(Skip::NotADeployment { owner }.to_string())),
        _ => return Done::Untouched(Some(format!("{DOMAIN} annotations work on Deployments only; this {kind} is left as it is"))),
    };
    let config: Box<WorkerConfig> = match read {
        Parsed::Valid(config) => config,
        Parsed::Invalid(errors) => return Done::Failed(errors.iter().map(ToString::to_string).collect()),
        Parsed::NotOurs => return Done::Untouched(None),
    };
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).or(with.namespace).unwrap_or_default();
    if namespace.is_empty() || name.is_empty() {
        let key = if name.is_empty() { "metadata.name" } else { "metadata.namespace" };
        return Done::Failed(vec![format!("{key} is missing, and the sidecar must be told; valid: a name there (or --namespace for the namespace)")]);
    }
    let workload = WorkloadId { namespace: namespace.to_owned(), name };
    let injection = Injection { hook_token: (with.token)(), template_hash, ..Injection::preview(with.settings, workload, with.allowed) };
    match inject(&template, &config, &injection) {
        Outcome::Patch { patch, mut warnings } => match changed(object, path, &patch) {
            Ok(after) => {
                warnings.extend(notes(&template, &config).into_iter().chain(strays(&places)));
                *object = after;
                Done::Changed(warnings)
            }
            Err(error) => Done::Failed(vec![error]),
        },
        Outcome::Complete { .. } => Done::Failed(vec![
            "it has the sidecar, and a container that came later has no hold: kubectl qscaler uninject first, then inject again".to_owned(),
        ]),
        Outcome::Skip(skip) => Done::Untouched(skip.warns().then(|| skip.to_string())),
        Outcome::Refuse(refusal) => Done::Failed(refusal.sentences()),
    }
}

/// The object after the patch of its template, with the way back.
fn changed(before: &Value, path: &str, patch: &Patch) -> Result<Value, String> {
    let mut after = before.clone();
    let template = after.pointer_mut(path).ok_or("it has no pod template")?;
    json_patch::patch(template, patch).map_err(|error| format!("the patch does not fit: {error}"))?;
    let mut bare = after.clone();
    bare.pointer_mut(path).map(take_sidecar);
    let back = json_patch::diff(&bare, before);
    let back = serde_json::to_string(&back).map_err(|error| error.to_string())?;
    let metadata = after.get_mut("metadata").and_then(Value::as_object_mut).ok_or("metadata is missing")?;
    let own = metadata.entry("annotations").or_insert_with(|| json!({}));
    if own.is_null() {
        *own = json!({});
    }
    own.as_object_mut().ok_or("metadata.annotations is no map")?.insert(UNINJECT.to_owned(), json!(back));
    Ok(after)
}

/// Takes the sidecar out.
pub(super) fn remove(object: &mut Value) -> Done {
    let Some((_, path)) = TEMPLATES.iter().find(|(known, _)| *known == kind(object)) else { return Done::Untouched(None) };
    let Some(template) = object.pointer(path) else { return Done::Untouched(None) };
    let injected = annotations(template.get("metadata")).contains_key(INJECTED);
    let Some(back) = annotations(object.get("metadata")).remove(UNINJECT) else {
        return match injected {
            false => Done::Untouched(None),
            true if kind(object) == "Pod" => Done::Failed(vec![
                "the webhook made this pod as it is; the pods of a namespace without its label are made without the sidecar".to_owned(),
            ]),
            true => Done::Failed(vec![format!(
                "it has the sidecar and no annotation {UNINJECT}, so there is no way back: take the manifest it was made from"
            )]),
        };
    };
    let back: Patch = match serde_json::from_str(&back) {
        Ok(back) => back,
        Err(error) => return Done::Failed(vec![format!("{UNINJECT}: {back:?}: {error}; valid: what inject wrote")]),
    };
    let mut after = object.clone();
    if let Some(own) = after.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        own.shift_remove(UNINJECT);
    }
    after.pointer_mut(path).map(take_sidecar);
    if let Err(error) = json_patch::patch(&mut after, &back) {
        return Done::Failed(vec![format!("it was changed since it was injected, and the way back does not fit any more: {error}")]);
    }
    let own_empty = after.pointer("/metadata/annotations").and_then(Value::as_object).is_some_and(Map::is_empty);
    if let (true, Some(metadata)) = (own_empty, after.get_mut("metadata").and_then(Value::as_object_mut)) {
        metadata.shift_remove("annotations");
    }
    let template = after.pointer(path).unwrap_or(&Value::Null);
    if annotations(template.get("metadata")).contains_key(INJECTED) || has_hold(template) {
        return Done::Failed(vec![
            "it was changed since it was injected, and something of QScaler would stay in it: take the manifest it was made from".to_owned(),
        ]);
    }
    *object = after;
    Done::Changed(Vec::new())
}

/// Takes our container out of a pod or template; what else was changed is the patch's.
fn take_sidecar(template: &mut Value) {
    let Some(list) = template.pointer_mut("/spec/initContainers").and_then(Value::as_array_mut) else { return };
    list.retain(|container| container.get("name").and_then(Value::as_str) != Some(sidecar::CONTAINER));
}

/// A container of the template has our hold.
fn has_hold(template: &Value) -> bool {
    let containers = template.pointer("/spec/containers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    containers.iter().filter_map(|c| c.pointer("/lifecycle/preStop/httpGet")).any(|hook| {
        let path = hook.get("path").and_then(Value::as_str).unwrap_or_default();
        path.starts_with(&format!("{}/", sidecar::PATH_HOLD)) && hook.get("port") == Some(&json!(sidecar::PORT))
    })
}
