//! Evicts one pod, if it is idle. In: which pod, and where its broker is. Out: what became of it. Left to others: which pod and when (`core::replace`).
//!
//! The proof is taken directly before the eviction. Disruption budgets are the API server's: an eviction that one forbids is refused by it.

use crate::lead::lease::Leadership;
use crate::observe::record::Bare;
use crate::observe::resolve::SecretUrl;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions};
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use qscaler_broker::activity::{Seen, Whose, look};
use qscaler_core::config::WorkerConfig;
use qscaler_core::framework::BusySource;
use qscaler_core::names::MANAGER;
use qscaler_core::replace::{Ask, Tried};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// A broker or an API server that does not answer within this is not there.
const ANSWER: Duration = Duration::from_secs(15);

/// Where it is proved that a pod is idle.
pub(crate) struct IdleBooks {
    pub(crate) url: SecretUrl,
    pub(crate) config: Arc<WorkerConfig>,
    pub(crate) bare: Bare,
}

/// Evicts it if it is idle. `client` must not try again by itself: by then the proof is old, and what a budget says would never be heard.
pub(crate) async fn evict(client: &Client, leadership: &Leadership, namespace: &str, ask: &Ask, books: Option<IdleBooks>) -> Tried {
    if ask.prove {
        let Some(books) = books else { return Tried::Moot };
        let seen = tokio::time::timeout(ANSWER, seen(&books)).await.unwrap_or_else(|_| Tried::Unknown("its broker does not answer".to_owned()));
        if seen != Tried::Evicted {
            return seen;
        }
    }
    if !leadership.holds() {
        return Tried::Moot;
    }
    // By hand: `Api::evict` of kube 5.0 writes `delete_options`, which the API server does not read, and a grace that is not read cuts a task.
    let eviction = Eviction {
        metadata: ObjectMeta { name: Some(ask.pod_name.clone()), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() },
        delete_options: Some(DeleteOptions {
            grace_period_seconds: ask.grace_s.map(i64::from),
            preconditions: Some(Preconditions { uid: Some(ask.pod_uid.clone()), resource_version: None }),
            ..DeleteOptions::default()
        }),
    };
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    match tokio::time::timeout(ANSWER, api.create_subresource::<_, Value>("eviction", &ask.pod_name, &params, &eviction)).await {
        Err(_) => Tried::Failed("the API server did not answer in time".to_owned()),
        Ok(Ok(_)) => Tried::Evicted,
        Ok(Err(Error::Api(status))) => refused(&status),
        Ok(Err(other)) => Tried::Failed(other.to_string()),
    }
}

/// `Evicted`: nothing stands in the way.
async fn seen(books: &IdleBooks) -> Tried {
    let IdleBooks { url, config, bare } = books;
    let whose = Whose { framework: config.framework(), names: &config.key_names, queues: &config.queues };
    let name = format!("controller-{}", bare.host);
    match look(url.expose(), &whose, &name, &bare.host, bare.address).await {
        Ok(Seen::Idle | Seen::IdleAndTaking | Seen::IdleAndStarting) => Tried::Evicted,
        Ok(Seen::Busy(_) | Seen::Elsewhere(_)) => Tried::Busy,
        Ok(Seen::Unknown) => Tried::Unknown(unknown(config, bare)),
        Err(error) => Tried::Unknown(error.to_string()),
    }
}

fn unknown(config: &WorkerConfig, bare: &Bare) -> String {
    if config.framework().busy == BusySource::CeleryEvents {
        return format!(
            "no Celery node on the host {} answers its remote control, or not whole, so that it is not known whether it has a task (worker_enable_remote_control, a solo pool in a task)",
            bare.host
        );
    }
    format!("nothing at the broker tells whether {}, of {}, has a task", bare.host, config.worker)
}

fn refused(status: &kube::core::Status) -> Tried {
    let by_budget = status.details.as_ref().is_some_and(|d| d.causes.iter().any(|c| c.reason == "DisruptionBudget"));
    match status.code {
        429 if by_budget => {
            let causes = status.details.iter().flat_map(|d| &d.causes).map(|c| c.message.trim()).filter(|m| !m.is_empty());
            let words = causes.collect::<Vec<_>>().join("; ");
            Tried::Budget(if words.is_empty() { status.message.clone() } else { words })
        }
        // Gone, or another of its name.
        404 | 409 => Tried::Moot,
        _ => Tried::Failed(status.message.clone()),
    }
}
