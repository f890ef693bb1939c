//! One question to the API server. In: its answer. Out: what was found, that it may not be read, or why there is nothing. Left to others: which questions
//! (`cluster`, `survey`).

use crate::doctor::ClusterSeen;
use kube::api::{Api, ListParams};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

pub(crate) fn seen<T>(result: Result<T, kube::Error>) -> ClusterSeen<T> {
    match result {
        Ok(found) => ClusterSeen::Yes(found),
        Err(kube::Error::Api(status)) if status.code == 403 || status.code == 401 => ClusterSeen::NotAllowed,
        Err(kube::Error::Api(status)) if status.code == 404 => ClusterSeen::No("there is none".to_owned()),
        Err(error) => ClusterSeen::No(error.to_string()),
    }
}

pub(crate) async fn list<K>(api: &Api<K>, params: &ListParams) -> ClusterSeen<Vec<K>>
where
    K: Clone + DeserializeOwned + Debug,
{
    seen(api.list(params).await.map(|list| list.items))
}
