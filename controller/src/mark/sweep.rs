//! Takes marks back from pods of workloads that are not managed any more. In: a client, whose pods. Out: annotations as they were before us. Left
//! to others: whose value is whose (`core::mark`); pods of workloads that are managed (`keep`, `drain`).

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Client, ResourceExt};
use qscaler_core::mark::Marks;
use qscaler_core::names::MANAGER;
use qscaler_core::workload::WorkloadId;
use serde_json::json;
use std::time::Duration;

/// Pods read at once: bounds the answer's size.
const PAGE: u32 = 500;
/// A pod that somebody else writes at the same time is read again so often.
const TRIES: usize = 3;
/// Longest time for one list or write.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Takes back every mark of ours from the pods of one workload, or of all. Returns how many pods were changed.
///
/// # Errors
/// When pods cannot be listed or one cannot be written; whoever calls again goes on where this ended.
pub async fn take_back(client: &Client, of: Option<&WorkloadId>) -> anyhow::Result<usize> {
    let mut changed = 0;
    for last in (0..TRIES).map(|i| i + 1 == TRIES) {
        let mut conflicts = 0;
        for (namespace, pod, marks) in marked(client, of).await? {
            let metadata = json!({ "uid": pod.uid(), "resourceVersion": pod.resource_version(), "annotations": marks.take_back() });
            let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
            let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            let name = pod.name_any();
            match tokio::time::timeout(TIMEOUT, api.patch(&name, &params, &Patch::Merge(json!({ "metadata": metadata })))).await? {
                Ok(_) => changed += 1,
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(kube::Error::Api(status)) if status.code == 409 && !last => conflicts += 1,
                Err(error) => return Err(error.into()),
            }
        }
        if conflicts == 0 {
            break;
        }
    }
    Ok(changed)
}

type Found = (String, PartialObjectMeta<Pod>, Marks);

async fn marked(client: &Client, of: Option<&WorkloadId>) -> anyhow::Result<Vec<Found>> {
    let api: Api<Pod> = match of {
        Some(id) => Api::namespaced(client.clone(), &id.namespace),
        None => Api::all(client.clone()),
    };
    let mut params = ListParams::default().limit(PAGE);
    let mut out = Vec::new();
    loop {
        let page = tokio::time::timeout(TIMEOUT, api.list_metadata(&params)).await??;
        let next = page.metadata.continue_.clone().filter(|token| !token.is_empty());
        let ours = |pod: PartialObjectMeta<Pod>| {
            let marks = Marks::read(pod.metadata.annotations.as_ref()?).filter(Marks::any_ours)?;
            let wanted = pod.metadata.deletion_timestamp.is_none() && of.is_none_or(|id| is_of(&pod, &id.name));
            wanted.then(|| (pod.namespace().unwrap_or_default(), pod, marks))
        };
        out.extend(page.items.into_iter().filter_map(ours));
        match next {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(out),
        }
    }
}

/// A ReplicaSet is named after its Deployment and its template's hash, which its pods carry as a label.
fn is_of(pod: &PartialObjectMeta<Pod>, deployment: &str) -> bool {
    let hash = pod.labels().get("pod-template-hash");
    hash.is_some_and(|hash| pod.owner_references().iter().any(|o| o.kind == "ReplicaSet" && o.name == format!("{deployment}-{hash}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{api_by, orders, pod, refusal, with};
    use serde_json::Value;
    use std::sync::Mutex;

    fn marked(name: &str, set: &str) -> Value {
        let memory = json!({"cluster-autoscaler.kubernetes.io/safe-to-evict": {"set": "false", "before": "true"}});
        let notes = json!({"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "qscaler.dev/marks": memory.to_string()});
        with(with(pod(name), "/metadata/annotations", notes), "/metadata/ownerReferences/0/name", json!(set))
    }

    #[tokio::test]
    async fn marks_of_this_workload_alone_are_taken_back_and_a_conflict_is_read_again() {
        let pods = Mutex::new(vec![marked("a", "orders-1"), marked("b", "other-1"), pod("c")]);
        let refused = Mutex::new(false);
        let (client, script) = api_by(move |call| {
            let mut pods = pods.lock().unwrap();
            if call.method == "GET" {
                let kind = "PartialObjectMetadataList";
                return (200, json!({"kind": kind, "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "9"}, "items": *pods}));
            }
            if !std::mem::replace(&mut *refused.lock().unwrap(), true) {
                return refusal(409, "Conflict", "changed");
            }
            pods[0]["metadata"]["annotations"] = json!({});
            (200, pods[0].clone())
        });
        assert_eq!(take_back(&client, Some(&orders())).await.unwrap(), 1);
        let patches: Vec<Value> = script.calls().into_iter().filter(|c| c.method == "PATCH").map(|c| c.body["metadata"].clone()).collect();
        assert_eq!(patches.len(), 2);
        assert_eq!(patches[1]["annotations"], json!({"cluster-autoscaler.kubernetes.io/safe-to-evict": "true", "qscaler.dev/marks": null}));
        assert_eq!((&patches[1]["uid"], &patches[1]["resourceVersion"]), (&json!("uid-a"), &json!("7")));
    }
}
