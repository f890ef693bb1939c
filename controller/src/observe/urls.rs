//! The broker URLs of a workload, read where its annotations point: Secrets, ConfigMaps, the worker's environment. In: names. Out: URLs with their
//! certificates, or what is missing. Left to others: what a reference means (`resolve`), connecting (`brokers`).

use crate::observe::record::WorkerTemplate;
use crate::observe::resolve::{Environment, Needs, ResolveError, SecretUrl, Sources, needs, resolve};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use kube::api::Api;
use qscaler_broker_url::{TlsMaterial, attach};
use qscaler_core::config::{BrokerRef, ManagementRef, WorkerConfig};
use qscaler_core::names::annotation::BROKER_TLS;
use qscaler_core::names::{TLS_KEY_CA, TLS_KEY_CERT, TLS_KEY_KEY};
use qscaler_core::workload::WorkloadId;
use std::time::Duration;

/// Longest time for one lookup: an API server that takes longer is not there, and whoever waits tries again.
const READ_MAX: Duration = Duration::from_secs(20);

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
pub enum NoUrls {
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

/// The workload's broker URLs.
///
/// # Errors
/// When something on the way is missing or cannot be read; the error names it.
pub async fn urls(client: &Client, id: &WorkloadId, config: &WorkerConfig, worker: &WorkerTemplate) -> Result<Urls, NoUrls> {
    match tokio::time::timeout(READ_MAX, urls_unbounded(client, id, config, worker)).await {
        Ok(urls) => urls,
        Err(_) => Err(NoUrls::Read { kind: "Secret or ConfigMap of", name: id.name.clone(), problem: "no answer in time".to_owned() }),
    }
}

async fn urls_unbounded(client: &Client, id: &WorkloadId, config: &WorkerConfig, worker: &WorkerTemplate) -> Result<Urls, NoUrls> {
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
async fn certificates(client: &Client, id: &WorkloadId, secret: Option<&str>) -> Result<TlsMaterial, NoUrls> {
    let Some(name) = secret else { return Ok(TlsMaterial::default()) };
    let api: Api<Secret> = Api::namespaced(client.clone(), &id.namespace);
    let found = api.get_opt(name).await.map_err(|e| NoUrls::Read { kind: "Secret", name: name.to_owned(), problem: e.to_string() })?;
    let missing = || NoUrls::Missing {
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
        return Err(NoUrls::Missing { key: BROKER_TLS, problem });
    }
    Ok(material)
}

async fn url(client: &Client, id: &WorkloadId, worker: &WorkerTemplate, key: &'static str, reference: &BrokerRef) -> Result<SecretUrl, NoUrls> {
    let of = Environment { namespace: &id.namespace, container: &worker.container, env: &worker.env, env_from: &worker.env_from };
    let sources = sources(client, &id.namespace, needs(reference, &of)).await?;
    resolve(reference, &of, &sources).map_err(|problem| NoUrls::Missing { key, problem })
}

async fn sources(client: &Client, namespace: &str, needs: Needs) -> Result<Sources, NoUrls> {
    let (secrets, maps): (Api<Secret>, Api<ConfigMap>) = (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace));
    let mut out = Sources::default();
    for name in needs.secrets {
        let found = secrets.get_opt(&name).await.map_err(|e| NoUrls::Read { kind: "Secret", name: name.clone(), problem: e.to_string() })?;
        let text = |s: Secret| s.data.into_iter().flatten().map(|(k, v)| (k, String::from_utf8_lossy(&v.0).into_owned())).collect();
        out.secrets.insert(name, found.map(text));
    }
    for name in needs.config_maps {
        let found = maps.get_opt(&name).await.map_err(|e| NoUrls::Read { kind: "ConfigMap", name: name.clone(), problem: e.to_string() })?;
        out.config_maps.insert(name, found.map(|m| m.data.unwrap_or_default()));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{deployment, deployment_record, orders, silent_api};

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_never_answers_is_given_up_on() {
        let record = deployment_record(&deployment(1, &[("broker", "secret:mq/url")])).unwrap();
        let found = urls(&silent_api(), &orders(), record.config.as_ref().unwrap(), record.worker.as_ref().unwrap()).await;
        assert!(matches!(&found, Err(NoUrls::Read { problem, .. }) if problem.contains("in time")), "{found:?}");
    }
}
