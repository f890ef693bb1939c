//! Reads and writes what the next life needs of a workload. In: names, versions, what to keep. Out: what was kept, the new version. Left to others: when
//! and what (`workload`), what is made of it (`qscaler_api`). Whoever wrote it last is known by its version, so an old leader's write fails.

use crate::act::known::Known;
use crate::act::plan::{Failure, failure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use qscaler_api::{QWorkerCheckpoint, QWorkerCheckpointSpec};
use qscaler_core::names::MANAGER;
use qscaler_core::workload::WorkloadId;

/// What is kept of a workload, with its version. That of a deleted namesake is nobody's: it has a version, so that it is overwritten, and says nothing.
///
/// # Errors
/// When the API server refuses. One that does not know the kind yet has kept nothing.
pub(crate) async fn load(client: &Client, id: &WorkloadId, qworker_uid: &str) -> Result<(String, Option<QWorkerCheckpointSpec>), Failure> {
    let api: Api<QWorkerCheckpoint> = Api::namespaced(client.clone(), &id.namespace);
    let Some(found) = api.get_opt(&id.name).await.map_err(|e| failure(&e, true))? else { return Ok((String::new(), None)) };
    let ours = found.owner_references().iter().any(|o| o.uid == qworker_uid);
    Ok((found.resource_version().unwrap_or_default(), ours.then_some(found.spec)))
}

/// Writes it, as a whole, owned by the QWorker so that both go together. Returns its version.
///
/// # Errors
/// When it is another than the known one, or the API server refuses.
pub(crate) async fn save(client: &Client, id: &WorkloadId, qworker: &Known, spec: &QWorkerCheckpointSpec) -> Result<String, Failure> {
    let api: Api<QWorkerCheckpoint> = Api::namespaced(client.clone(), &id.namespace);
    let mut object = QWorkerCheckpoint::new(&id.name, spec.clone());
    object.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "qscaler.dev/v1alpha1".to_owned(),
        kind: "QWorker".to_owned(),
        name: id.name.clone(),
        uid: qworker.uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let written = if qworker.checkpoint.is_empty() {
        // A kind that is not known is no QWorker that is gone: it is tried again, more and more seldom, and told in the log.
        api.create(&params, &object).await.map_err(|e| if is_absent(&e) { Failure::Other(e.to_string()) } else { failure(&e, true) })
    } else {
        object.metadata.resource_version = Some(qworker.checkpoint.clone());
        api.replace(&id.name, &params, &object).await.map_err(|e| failure(&e, true))
    };
    Ok(written?.resource_version().unwrap_or_default())
}

fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}
