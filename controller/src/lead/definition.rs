//! Whether the cluster's definitions of our kinds know every field that this version keeps in them. In: the definitions in the cluster, and the types. Out: a
//! return once they fit, and before that an error in the log and the reason on `/readyz`. Left to others: what is kept there.
//!
//! QWorkers and their checkpoints are this controller's memory, and the API server drops fields that a definition does not have, without a word. So an upgrade that
//! brought a new controller and an old definition waits here: it is not ready, a rolling update goes no further, and the old controller goes on working.

use kube::{Api, Client, CustomResourceExt};
use qscaler_api::{QWorker, QWorkerCheckpoint};
use qscaler_runtime::CancellationToken;
use qscaler_runtime::ready::Readiness;
use serde_json::Value;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

/// How often it is looked again: one GET of one object.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Fields that a message names; the others are counted.
const NAMED_MAX: usize = 5;

/// What stands between this controller and its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    /// Every field is there.
    Fits,
    /// There is no definition of this name.
    Absent(String),
    /// One is of another version; which, and the fields that would be dropped.
    Lacks { name: String, version: String, fields: Vec<String> },
    /// It may not be read: an older role. Nothing is known, and nothing waits.
    Unknown(String),
    /// The API server does not answer as it should.
    Failed(String),
}

/// Returns once the definition fits (true), or at the shutdown (false).
pub async fn fits(client: &Client, readiness: &Readiness, stop: &CancellationToken) -> bool {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let handle = readiness.handle("definitions of qworkers.qscaler.dev and qworkercheckpoints.qscaler.dev that fit this version: see the log");
    let mut said = None;
    loop {
        let finding = look(&api).await;
        if said.as_ref() != Some(&finding) {
            say(&finding);
        }
        if matches!(finding, Finding::Fits | Finding::Unknown(_)) {
            handle.release();
            return true;
        }
        said = Some(finding);
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

async fn look(api: &Api<CustomResourceDefinition>) -> Finding {
    for ours in [QWorker::crd(), QWorkerCheckpoint::crd()] {
        let name = ours.metadata.name.clone().unwrap_or_default();
        let finding = match api.get_opt(&name).await {
            Ok(Some(theirs)) => compare(&json(&ours), &json(&theirs)),
            Ok(None) => Finding::Absent(name),
            Err(kube::Error::Api(status)) if status.code == 403 => Finding::Unknown(status.message.clone()),
            Err(error) => Finding::Failed(error.to_string()),
        };
        if finding != Finding::Fits {
            return finding;
        }
    }
    Finding::Fits
}

fn json(definition: &CustomResourceDefinition) -> Value {
    serde_json::to_value(definition).unwrap_or_default()
}

fn say(finding: &Finding) {
    let mine = env!("CARGO_PKG_VERSION");
    let mend = "valid: the definitions of this version's chart, by `helm upgrade` with the chart of this version, or, where they are kept by hand, its files crd/*.yaml by `kubectl apply --server-side`";
    match finding {
        Finding::Fits => tracing::info!(version = mine, "the definitions of QWorkers and their checkpoints fit"),
        Finding::Absent(name) => tracing::error!(version = mine, "there is no definition {name} in this cluster, so nothing is scaled; {mend}"),
        Finding::Lacks { name, version, fields } => {
            let rest = fields.len().saturating_sub(NAMED_MAX);
            let named = fields.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
            let more = if rest == 0 { String::new() } else { format!(" and {rest} more") };
            tracing::error!(
                version = mine,
                definition = version,
                "the cluster's definition {name} (version {version}) does not know {named}{more}, which this version ({mine}) keeps there; it waits, and nothing is scaled by it; {mend}"
            );
        }
        Finding::Unknown(why) => tracing::warn!(
            why,
            "the definitions of QWorkers may not be read, so it is not known whether they fit this version; valid: the role of this version's chart"
        ),
        Finding::Failed(error) => tracing::warn!(error, "the definitions of QWorkers cannot be read; trying again"),
    }
}

/// What the cluster's definition lacks of ours.
fn compare(ours: &Value, theirs: &Value) -> Finding {
    let version = theirs.pointer("/metadata/labels/app.kubernetes.io~1version").and_then(Value::as_str).unwrap_or("unknown").to_owned();
    let name = ours["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut fields = Vec::new();
    for wanted in versions(ours) {
        let api_version = wanted["name"].as_str().unwrap_or_default();
        match versions(theirs).iter().find(|there| there["name"] == wanted["name"] && there["served"] == true) {
            Some(there) => missing(&wanted["schema"]["openAPIV3Schema"], &there["schema"]["openAPIV3Schema"], "", &mut fields),
            None => fields.push(format!("the API version {api_version}")),
        }
    }
    if fields.is_empty() { Finding::Fits } else { Finding::Lacks { name, version, fields } }
}

fn versions(definition: &Value) -> &[Value] {
    definition.pointer("/spec/versions").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Paths of properties that one schema has and the other drops.
fn missing(ours: &Value, theirs: &Value, at: &str, found: &mut Vec<String>) {
    if theirs["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    for (name, schema) in ours["properties"].as_object().into_iter().flatten() {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        match theirs["properties"].get(name) {
            Some(there) => missing(schema, there, &path, found),
            // A map takes every name.
            None if theirs["additionalProperties"].is_object() || theirs["additionalProperties"] == true => {}
            None => found.push(path),
        }
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", ".*")] {
        if ours[key].is_object() {
            let path = format!("{at}{mark}");
            if theirs[key].is_object() {
                missing(&ours[key], &theirs[key], &path, found)
            } else if theirs[key] != true {
                found.push(path)
            }
        }
    }
}

#[cfg(test)]
#[path = "definition_tests.rs"]
mod tests;
