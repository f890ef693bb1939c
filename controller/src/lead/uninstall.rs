//! What an uninstallation leaves behind, taken back. In: a client, the release's namespace. Out: pods' marks as they were before us, no Lease, no Secrets that
//! `certs` has made. Left to others: everything that a manifest names (Helm); sidecars and holds, which end with their pods.
//!
//! It begins only when the release is gone, and as the leader: a controller that still runs would set its marks anew, and one that is just ending has the
//! Lease until its last write.

use crate::lead::lease;
use crate::mark::sweep;
use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Client, ResourceExt};
use qscaler_core::names::{CA_SECRET, CONTROL_KEY_SECRET, LABEL_PART_OF, LEASE, PART_OF, TLS_SECRET};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The controller's Deployment: as long as it is there the release is.
const DEPLOYMENT: &str = "qscaler-controller";
/// Helm deletes in the background: the Deployment is gone within moments, or the release stays.
const GONE_WITHIN: Duration = Duration::from_secs(60);
/// The last leader's grace (30 s), and as long again as its Lease lasts where it was killed (15 s).
const LEAD_WITHIN: Duration = Duration::from_secs(90);
/// How often both are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest time for one call.
const CALL: Duration = Duration::from_secs(15);

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanUp {
    /// The release is there: nothing.
    StillInstalled,
    /// So many pods' marks were taken back, and nothing of ours is left in the release's namespace.
    Done {
        /// Pods that were changed.
        pods: usize,
    },
}

/// Takes back what is left.
///
/// # Errors
/// When the API server does not answer, or refuses, or another leader does not end; whoever calls again goes on where this ended.
pub async fn clean_up(client: &Client, namespace: &str, me: &str) -> anyhow::Result<CleanUp> {
    if !gone(client, namespace).await? {
        return Ok(CleanUp::StillInstalled);
    }
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let stop = CancellationToken::new();
    let (leadership, task) = lease::run(leases.clone(), me.to_owned(), stop.clone());
    let began = Instant::now();
    while !leadership.holds() && began.elapsed() < LEAD_WITHIN {
        sleep(LOOK_EVERY).await;
    }
    let pods = if leadership.holds() { Some(sweep::take_back(client, None).await.context("taking marks back")) } else { None };
    stop.cancel();
    task.await.context("giving the Lease back")?;
    let pods = pods.with_context(|| format!("another controller holds the Lease {LEASE}: end it, and do this again"))??;

    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    for name in [TLS_SECRET, CA_SECRET, CONTROL_KEY_SECRET] {
        let found = timeout(CALL, secrets.get_opt(name)).await?.with_context(|| format!("reading Secret {name}"))?;
        // Somebody else's, such as cert-manager's, has no such label.
        if let Some(secret) = found.filter(|s| s.labels().get(LABEL_PART_OF).is_some_and(|value| value == PART_OF)) {
            let params = DeleteParams { preconditions: Some(Preconditions { uid: secret.uid(), resource_version: None }), ..DeleteParams::default() };
            timeout(CALL, secrets.delete(name, &params)).await?.with_context(|| format!("deleting Secret {name}"))?;
        }
    }
    match timeout(CALL, leases.delete(LEASE, &DeleteParams::default())).await? {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        deleted => drop(deleted.context("deleting the Lease")?),
    }
    Ok(CleanUp::Done { pods })
}

/// Whether the release has gone, within a minute.
async fn gone(client: &Client, namespace: &str) -> anyhow::Result<bool> {
    ensure!(!namespace.is_empty(), "no namespace");
    let api: Api<PartialObjectMeta<Deployment>> = Api::namespaced(client.clone(), namespace);
    let began = Instant::now();
    loop {
        let found = timeout(CALL, api.get_opt(DEPLOYMENT)).await?.context("looking whether the release is gone")?;
        // One that is only waiting for its pods to end is on its way.
        if found.is_none_or(|d| d.metadata.deletion_timestamp.is_some()) {
            return Ok(true);
        }
        if began.elapsed() >= GONE_WITHIN {
            return Ok(false);
        }
        sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{api_by, refusal};
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex};

    /// Objects by their path.
    type Objects = Vec<(&'static str, Value)>;

    /// An API server that has these objects, and forgets what is deleted.
    fn cluster(objects: Objects) -> (Client, Arc<Mutex<Objects>>) {
        let have = Arc::new(Mutex::new(objects));
        let kept = Arc::clone(&have);
        let (client, _) = api_by(move |call| {
            let mut have = have.lock().unwrap();
            let path = call.path.split('?').next().unwrap_or_default().to_owned();
            let at = have.iter().position(|(known, _)| *known == path);
            match (call.method.as_str(), at) {
                ("GET", Some(at)) => (200, have[at].1.clone()),
                ("DELETE", Some(at)) => {
                    have.remove(at);
                    (200, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
                }
                ("PUT", Some(at)) => {
                    have[at].1 = call.body.clone();
                    (200, call.body.clone())
                }
                ("POST", None) if path.ends_with("/leases") => {
                    have.push(("/apis/coordination.k8s.io/v1/namespaces/q/leases/qscaler-controller", call.body.clone()));
                    (201, call.body.clone())
                }
                ("GET", None) if path == "/api/v1/pods" => {
                    (200, json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": []}))
                }
                _ => refusal(404, "NotFound", "none"),
            }
        });
        (client, kept)
    }

    const DEPLOYMENT_AT: &str = "/apis/apps/v1/namespaces/q/deployments/qscaler-controller";

    fn secret(name: &str, ours: bool) -> Value {
        let labels = if ours { json!({LABEL_PART_OF: PART_OF}) } else { json!({}) };
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "q", "uid": name, "labels": labels}})
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_of_ours_is_left_once_the_release_is_gone_and_what_is_anothers_stays() {
        let (client, kept) = cluster(vec![
            ("/api/v1/namespaces/q/secrets/qscaler-webhook-ca", secret(CA_SECRET, true)),
            ("/api/v1/namespaces/q/secrets/qscaler-control-key", secret(CONTROL_KEY_SECRET, true)),
            ("/api/v1/namespaces/q/secrets/qscaler-webhook-tls", secret(TLS_SECRET, false)),
        ]);
        assert_eq!(clean_up(&client, "q", "me").await.unwrap(), CleanUp::Done { pods: 0 });
        let left: Vec<_> = kept.lock().unwrap().iter().map(|(path, _)| *path).collect();
        assert_eq!(left, ["/api/v1/namespaces/q/secrets/qscaler-webhook-tls"], "cert-manager's");
    }

    #[tokio::test(start_paused = true)]
    async fn an_installed_release_is_left_alone() {
        let deployment = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": DEPLOYMENT, "namespace": "q"}});
        let (client, kept) = cluster(vec![(DEPLOYMENT_AT, deployment), ("/api/v1/namespaces/q/secrets/qscaler-webhook-ca", secret(CA_SECRET, true))]);
        assert_eq!(clean_up(&client, "q", "me").await.unwrap(), CleanUp::StillInstalled);
        assert_eq!(kept.lock().unwrap().len(), 2);
    }
}
