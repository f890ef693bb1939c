//! Pods that have the sidecar already. In: a pod on a later call of the webhook for it. Out: whether our container is really ours, and what
//! others have changed since that must be put right. Left to others: the first injection.

use crate::ops::Ops;
use crate::pod::{array, array_of, name, pre_stop};
use crate::reason::{Refusal, Skip};
use crate::{Injected, Outcome};
use qscaler_broker_url::expand::expand;
use qscaler_core::config::WorkerConfig;
use qscaler_core::names::{annotation, sidecar};
use qscaler_core::workload::SidecarConfig;
use serde_json::{Value, json};

/// Where the API server mounts the service account's token into every container of a pod.
const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

pub(super) enum Existing {
    None,
    Ours { token: String, grace_s: Option<u64> },
    NotOurs,
}

/// Whether our container is in the pod, and whether it is really ours.
pub(super) fn existing(pod: &Value) -> Existing {
    let named = |list: &str| array(pod, list).iter().find(|c| name(c) == sidecar::CONTAINER);
    if named("containers").is_some() {
        return Existing::NotOurs;
    }
    let Some(container) = named("initContainers") else { return Existing::None };
    let mark = pod.pointer("/metadata/annotations").and_then(|a| a.get(annotation::INJECTED));
    // Another version may have written it.
    let grace_s = mark.and_then(Value::as_str).and_then(|text| serde_json::from_str::<Injected>(text).ok()?.grace_s);
    let told = array_of(container, "env").iter().find(|e| name(e) == sidecar::ENV_CONFIG).and_then(|e| e.get("value")?.as_str());
    match told.and_then(|json| serde_json::from_str::<SidecarConfig>(&expand(json, |_| None)).ok()) {
        Some(config) if mark.is_some() => Existing::Ours { token: config.hook_token, grace_s },
        _ => Existing::NotOurs,
    }
}

/// The second call for one pod: others have changed it since the first. Another webhook may have added a plain container, which needs the hold as
/// well; and the API server has mounted the service account's token into our container, which has no use for it.
pub(super) fn complete(pod: &Value, config: &WorkerConfig, token: &str, grace_s: Option<u64>) -> Outcome {
    let mut ops = Ops::new(pod);
    let mut warnings = Vec::new();
    for (i, container) in array(pod, "containers").iter().enumerate() {
        match pre_stop(container) {
            Some(there) if is_hold(there, token) => {}
            Some(_) if !config.replace_pre_stop => warnings.push(format!(
                "{}; the container came after the sidecar: as it is, it may end while the worker still works",
                Refusal::OwnPreStop { container: name(container).to_owned() }
            )),
            _ => ops.set(&["spec", "containers", &i.to_string(), "lifecycle", "preStop"], hold(token, name(container))),
        }
    }
    for list in ["containers", "initContainers"] {
        for (i, container) in array(pod, list).iter().enumerate() {
            if let Some(grace_s) = grace_s {
                probes_keep_grace(&mut ops, list, i, container, grace_s);
            }
        }
    }
    for (i, container) in array(pod, "initContainers").iter().enumerate().filter(|(_, c)| name(c) == sidecar::CONTAINER) {
        // From the last to the first: each removal moves those behind it.
        for (j, mount) in array_of(container, "volumeMounts").iter().enumerate().rev() {
            if mount.get("mountPath").and_then(Value::as_str) == Some(TOKEN_MOUNT) {
                ops.remove(&["spec", "initContainers", &i.to_string(), "volumeMounts", &j.to_string()]);
            }
        }
    }
    if ops.is_empty() && warnings.is_empty() { Outcome::Skip(Skip::AlreadyInjected) } else { Outcome::Complete { patch: ops.finish(), warnings } }
}

/// The hold of one container.
pub(super) fn hold(token: &str, container: &str) -> Value {
    json!({"httpGet": {"path": format!("{}/{token}?container={container}", sidecar::PATH_HOLD), "port": sidecar::PORT}})
}

/// Whether a hook is our hold: the API server may have added defaults to it.
fn is_hold(hook: &Value, token: &str) -> bool {
    let path = hook.pointer("/httpGet/path").and_then(Value::as_str).unwrap_or_default();
    path.strip_prefix(sidecar::PATH_HOLD).and_then(|p| p.strip_prefix('/')).and_then(|p| p.strip_prefix(token)).is_some_and(|p| p.starts_with('?'))
}

/// The probes of a container end it within the grace that the pod had: ours is that of its longest task.
pub(super) fn probes_keep_grace(ops: &mut Ops<'_>, list: &str, at: usize, container: &Value, grace_s: u64) {
    for probe in ["livenessProbe", "startupProbe"] {
        if container.get(probe).is_some_and(|p| p.is_object() && p.get("terminationGracePeriodSeconds").is_none_or(Value::is_null)) {
            // 0 is no valid grace of a probe.
            ops.set(&["spec", list, &at.to_string(), probe, "terminationGracePeriodSeconds"], json!(grace_s.max(1)));
        }
    }
}
