//! Reads and creates what is not watched: QWorkers at the start of a workload, Secrets and ConfigMaps of broker URLs, the cluster's version.
//! In: names. Out: objects, or why not. Left to others: everything that changes a running workload (`apply`).

use crate::apply::failure;
use crate::plan::Failure;
use crate::resolve::{Environment, Needs, ResolveError, SecretUrl, Sources, needs, resolve};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use qscaler_api::{QWorker, QWorkerSpec, QWorkerStatus};
use qscaler_broker_url::{TlsMaterial, attach};
use qscaler_core::config::{BrokerRef, ManagementRef, WorkerConfig};
use qscaler_core::names::annotation::BROKER_TLS;
use qscaler_core::names::{MANAGER, TLS_KEY_CA, TLS_KEY_CERT, TLS_KEY_KEY};
use qscaler_core::size::ClusterVersion;
use qscaler_core::workload::WorkloadId;

use crate::record::WorkerTemplate;
use std::time::Duration;

/// A QWorker as found or made.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// Its version.
    pub version: String,
    /// What an earlier life saved.
    pub status: QWorkerStatus,
}

/// The two URLs of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Urls {
    /// Where tasks wait.
    pub queues: SecretUrl,
    /// Where control messages go.
    pub control: SecretUrl,
}

/// Why there are no URLs.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// Something on the way is missing.
    #[error("{key}: {problem}")]
    Missing {
        /// The annotation.
        key: &'static str,
        /// What is missing.
        problem: ResolveError,
    },
    /// The API server refuses or is away.
    #[error("{kind} {name} cannot be read: {problem}")]
    Read {
        /// `Secret` or `ConfigMap`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The API's words.
        problem: String,
    },
}

/// Finds the workload's QWorker, or makes it, owned by the Deployment so that both go together.
///
/// # Errors
/// When the API server refuses, or a QWorker of a deleted namesake is still there (it is removed, and the next try makes a new one).
pub async fn load(client: &Client, id: &WorkloadId, deployment_uid: &str) -> Result<Loaded, Failure> {
    within(load_unbounded(client, id, deployment_uid)).await
}

async fn load_unbounded(client: &Client, id: &WorkloadId, deployment_uid: &str) -> Result<Loaded, Failure> {
    let api: Api<QWorker> = Api::namespaced(client.clone(), &id.namespace);
    let found = api.get_opt(&id.name).await.map_err(|e| failure(&e, true))?;
    if let Some(found) = found {
        if found.owner_references().iter().any(|o| o.uid == deployment_uid) {
            return Ok(Loaded { version: found.resource_version().unwrap_or_default(), status: found.status.unwrap_or_default() });
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
        uid: deployment_uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let made = api.create(&params, &made).await.map_err(|e| failure(&e, true))?;
    Ok(Loaded { version: made.resource_version().unwrap_or_default(), status: QWorkerStatus::default() })
}

/// Removes the QWorker of a workload that is not ours any more: exactly the one that was read, for a namesake may have a new one already.
/// `deployment_uid`: whose it has to be; None: anybody's.
///
/// # Errors
/// When the API server refuses; one that is gone already, or another's, is no error.
pub async fn remove(client: &Client, id: &WorkloadId, deployment_uid: Option<&str>) -> Result<(), Failure> {
    within(async {
        let api: Api<QWorker> = Api::namespaced(client.clone(), &id.namespace);
        let Some(found) = api.get_opt(&id.name).await.map_err(|e| failure(&e, true))? else { return Ok(()) };
        if deployment_uid.is_some_and(|uid| !found.owner_references().iter().any(|o| o.uid == uid)) {
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

/// The workload's broker URLs.
///
/// # Errors
/// When something on the way is missing or cannot be read; the error names it.
pub async fn urls(client: &Client, id: &WorkloadId, config: &WorkerConfig, worker: &WorkerTemplate) -> Result<Urls, UrlError> {
    match tokio::time::timeout(READ_MAX, urls_unbounded(client, id, config, worker)).await {
        Ok(urls) => urls,
        Err(_) => Err(UrlError::Read { kind: "Secret or ConfigMap of", name: id.name.clone(), problem: "no answer in time".to_owned() }),
    }
}

async fn urls_unbounded(client: &Client, id: &WorkloadId, config: &WorkerConfig, worker: &WorkerTemplate) -> Result<Urls, UrlError> {
    use qscaler_core::names::annotation::{BROKER, CONTROL_BROKER, MANAGEMENT};
    let certificates = certificates(client, id, config.broker_tls.as_deref()).await?;
    let management = match &config.management {
        Some(ManagementRef::Url(url)) => Some(SecretUrl::from(url.clone())),
        Some(ManagementRef::At(reference)) => Some(url(client, id, worker, MANAGEMENT, reference).await?),
        None => None,
    };
    let with = |url: &SecretUrl| SecretUrl::from(attach(url.expose(), &certificates, management.as_ref().map(SecretUrl::expose)));
    let queues = with(&url(client, id, worker, BROKER, &config.broker).await?);
    let control = match &config.control_broker {
        Some(reference) => with(&url(client, id, worker, CONTROL_BROKER, reference).await?),
        None => queues.clone(),
    };
    Ok(Urls { queues, control })
}

/// The certificates that the workload's annotation names.
async fn certificates(client: &Client, id: &WorkloadId, secret: Option<&str>) -> Result<TlsMaterial, UrlError> {
    let Some(name) = secret else { return Ok(TlsMaterial::default()) };
    let api: Api<Secret> = Api::namespaced(client.clone(), &id.namespace);
    let found = api.get_opt(name).await.map_err(|e| UrlError::Read { kind: "Secret", name: name.to_owned(), problem: e.to_string() })?;
    let missing = || UrlError::Missing {
        key: BROKER_TLS,
        problem: ResolveError::NoObject { kind: "Secret", name: name.to_owned(), namespace: id.namespace.clone() },
    };
    let data = found.ok_or_else(missing)?.data.unwrap_or_default();
    let text = |key: &str| data.get(key).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
    let material = TlsMaterial { ca: text(TLS_KEY_CA), certificate: text(TLS_KEY_CERT), key: text(TLS_KEY_KEY).map(Into::into) };
    if material == TlsMaterial::default() {
        let has = data.keys().cloned().collect::<Vec<_>>().join(", ");
        let key = [TLS_KEY_CA, TLS_KEY_CERT, TLS_KEY_KEY].join(", ");
        let problem = ResolveError::NoKey { kind: "Secret", name: name.to_owned(), namespace: id.namespace.clone(), key, has };
        return Err(UrlError::Missing { key: BROKER_TLS, problem });
    }
    Ok(material)
}

async fn url(client: &Client, id: &WorkloadId, worker: &WorkerTemplate, key: &'static str, reference: &BrokerRef) -> Result<SecretUrl, UrlError> {
    let of = Environment { namespace: &id.namespace, container: &worker.container, env: &worker.env, env_from: &worker.env_from };
    let sources = sources(client, &id.namespace, needs(reference, &of)).await?;
    resolve(reference, &of, &sources).map_err(|problem| UrlError::Missing { key, problem })
}

async fn sources(client: &Client, namespace: &str, needs: Needs) -> Result<Sources, UrlError> {
    let (secrets, maps): (Api<Secret>, Api<ConfigMap>) = (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace));
    let mut out = Sources::default();
    for name in needs.secrets {
        let found = secrets.get_opt(&name).await.map_err(|e| UrlError::Read { kind: "Secret", name: name.clone(), problem: e.to_string() })?;
        let text = |s: Secret| s.data.into_iter().flatten().map(|(k, v)| (k, String::from_utf8_lossy(&v.0).into_owned())).collect();
        out.secrets.insert(name, found.map(text));
    }
    for name in needs.config_maps {
        let found = maps.get_opt(&name).await.map_err(|e| UrlError::Read { kind: "ConfigMap", name: name.clone(), problem: e.to_string() })?;
        out.config_maps.insert(name, found.map(|m| m.data.unwrap_or_default()));
    }
    Ok(out)
}

/// The API server's version; None: it does not say.
pub async fn cluster_version(client: &Client) -> Option<ClusterVersion> {
    let info = client
        .apiserver_version()
        .await
        .map_err(|error| tracing::warn!(%error, "the cluster's version is not known; running pods are not resized"))
        .ok()?;
    ClusterVersion::parse(&info.major, &info.minor)
}
