//! Reads, makes and removes the QWorker of a workload. In: names. Out: what an earlier life saved, or why it cannot be had. Left to others: writing
//! its status (`apply`).

use crate::act::checkpoint;
use crate::act::known::Known;
use crate::act::plan::{Failure, failure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use qscaler_api::{QWorker, QWorkerSpec, QWorkerStatus};
use qscaler_core::names::MANAGER;
use qscaler_core::workload::{WorkloadId, WorkloadUid};
use std::time::Duration;

/// A QWorker as found or made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// Which.
    pub known: Known,
    /// What an earlier life saved, in the status or in the checkpoint.
    pub status: QWorkerStatus,
}

/// Finds the workload's QWorker, or makes it, owned by the Deployment so that both go together.
///
/// # Errors
/// When the API server refuses, or a QWorker of a deleted namesake is still there (it is removed, and the next try makes a new one).
pub async fn load(client: &Client, id: &WorkloadId, deployment_uid: &WorkloadUid) -> Result<Loaded, Failure> {
    within(load_unbounded(client, id, deployment_uid)).await
}

async fn load_unbounded(client: &Client, id: &WorkloadId, deployment_uid: &WorkloadUid) -> Result<Loaded, Failure> {
    let api: Api<QWorker> = Api::namespaced(client.clone(), &id.namespace);
    let found = api.get_opt(&id.name).await.map_err(|e| failure(&e, true))?;
    if let Some(found) = found {
        if found.owner_references().iter().any(|o| o.uid == deployment_uid.as_str()) {
            return loaded(client, id, found).await;
        }
        let preconditions = Preconditions { uid: found.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        api.delete(&id.name, &params).await.map_err(|e| failure(&e, true))?;
        return Err(Failure::Changed { qworker: true });
    }
    let mut made = QWorker::new(&id.name, QWorkerSpec { target_kind: "Deployment".to_owned(), target_name: id.name.clone() });
    made.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        name: id.name.clone(),
        uid: deployment_uid.to_string(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let made = api.create(&params, &made).await.map_err(|e| failure(&e, true))?;
    loaded(client, id, made).await
}

async fn loaded(client: &Client, id: &WorkloadId, qworker: QWorker) -> Result<Loaded, Failure> {
    let (uid, version) = (qworker.uid().unwrap_or_default(), qworker.resource_version().unwrap_or_default());
    let (checkpoint, kept) = checkpoint::load(client, id, &uid).await?;
    let mut status = qworker.status.unwrap_or_default();
    if let Some(kept) = kept {
        status.remember(kept);
    }
    Ok(Loaded { known: Known { uid, version, checkpoint }, status })
}

/// Removes the QWorker of a workload that is not ours any more: exactly the one that was read, for a namesake may have a new one already.
/// `deployment_uid`: whose it has to be; None: anybody's.
///
/// # Errors
/// When the API server refuses; one that is gone already, or another's, is no error.
pub async fn remove(client: &Client, id: &WorkloadId, deployment_uid: Option<&WorkloadUid>) -> Result<(), Failure> {
    within(async {
        let api: Api<QWorker> = Api::namespaced(client.clone(), &id.namespace);
        let Some(found) = api.get_opt(&id.name).await.map_err(|e| failure(&e, true))? else { return Ok(()) };
        if deployment_uid.is_some_and(|uid| !found.owner_references().iter().any(|o| o.uid == uid.as_str())) {
            return Ok(());
        }
        let preconditions = Preconditions { uid: found.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(&id.name, &params).await.map_err(|e| failure(&e, true)) {
            Ok(_) | Err(Failure::Gone | Failure::Changed { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    })
    .await
}

/// Longest time for one reading from here: an API server that takes longer is not there, and whoever waits tries again.
const READ_MAX: Duration = Duration::from_secs(20);

async fn within<T>(reading: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(READ_MAX, reading).await.unwrap_or_else(|_| Err(Failure::Other("the API server does not answer in time".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{api, orders, silent_api};
    use serde_json::{Value, json};

    fn owned(deployment_uid: &str) -> (u16, Value) {
        let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "orders", "uid": deployment_uid});
        let metadata = json!({"name": "orders", "namespace": "shop", "uid": "qw-1", "resourceVersion": "1", "ownerReferences": [owner]});
        let spec = json!({"targetKind": "Deployment", "targetName": "orders"});
        (200, json!({"apiVersion": "qscaler.dev/v1alpha1", "kind": "QWorker", "metadata": metadata, "spec": spec}))
    }

    #[tokio::test]
    async fn the_qworker_that_was_read_is_removed_and_a_namesakes_is_not() {
        let gone = || (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}));
        let (client, script) = api(vec![owned("dep"), gone()]);
        remove(&client, &orders(), Some(&"dep".into())).await.unwrap();
        let calls = script.calls();
        assert_eq!((calls.len(), calls[1].method.as_str(), &calls[1].body["preconditions"]["uid"]), (2, "DELETE", &json!("qw-1")));
        let (client, script) = api(vec![owned("dep-made-anew")]);
        remove(&client, &orders(), Some(&"dep".into())).await.unwrap();
        assert_eq!(script.calls().len(), 1, "it belongs to a Deployment made anew under the same name");
        // The one of a deleted namesake is in the way of a new Deployment: exactly that one goes.
        let (client, script) = api(vec![owned("dep"), gone()]);
        assert_eq!(load(&client, &orders(), &"dep-made-anew".into()).await, Err(Failure::Changed { qworker: true }));
        assert_eq!(script.calls()[1].body["preconditions"]["uid"], json!("qw-1"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_never_answers_is_given_up_on() {
        let began = tokio::time::Instant::now();
        let unanswered = |result: Result<(), Failure>| matches!(result, Err(Failure::Other(why)) if why.contains("in time"));
        assert!(unanswered(load(&silent_api(), &orders(), &"dep".into()).await.map(drop)));
        assert!(unanswered(remove(&silent_api(), &orders(), None).await));
        assert!(began.elapsed() < READ_MAX * 3, "{:?}", began.elapsed());
    }
}
