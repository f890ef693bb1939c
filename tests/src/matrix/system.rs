//! QScaler's own parts, as a fault meets them. In: the cluster. Out: who leads, a leader killed or sent away, the webhook down and up again. Left to
//! others: when (`strike`).

use super::observe::status_of;
use super::process;
use crate::stand::SYSTEM_NAMESPACE;
use crate::stand::fleet::STEP;
use crate::stand::kubectl::kubectl;
use crate::wait::wait_for;
use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

/// Of the leader.
const LEASE: &str = "qscaler-controller";
/// Name of the controller's container.
const CONTROLLER: &str = "controller";
/// The chart's webhooks.
const WEBHOOKS: &str = "2";

/// A handle on them.
pub struct System {
    client: kube::Client,
}

impl System {
    /// Of the cluster of this client.
    #[must_use]
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE)
    }

    /// Who holds the lease; empty: nobody.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn leader(&self) -> Result<String> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        Ok(leases.get(LEASE).await?.spec.and_then(|s| s.holder_identity).unwrap_or_default())
    }

    async fn wait_leader(&self) -> Result<String> {
        wait_for("a leader", STEP, || async {
            match self.leader().await {
                Ok(name) if !name.is_empty() => Ok(name),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Kills the leader's process; gives what was killed.
    ///
    /// # Errors
    /// There is no leader, or its process is not found.
    pub async fn kill_leader(&self) -> Result<Killed> {
        let pod = self.wait_leader().await?;
        let found = self.pods().get(&pod).await.with_context(|| format!("the leader's pod {pod}"))?;
        let status = status_of(&found, CONTROLLER).with_context(|| format!("{pod} has no container {CONTROLLER}"))?;
        let process = process::kill(status.container_id.as_deref().unwrap_or_default())?;
        Ok(Killed { pod, process, restarts: status.restart_count })
    }

    /// Waits until the killed controller was started again.
    ///
    /// # Errors
    /// It was not.
    pub async fn wait_restarted(&self, killed: &Killed) -> Result<i32> {
        wait_for(&format!("{} started again", killed.pod), STEP, || async {
            let pod = self.pods().get(&killed.pod).await.map_err(|e| e.to_string())?;
            let restarts = status_of(&pod, CONTROLLER).map_or(0, |c| c.restart_count);
            if restarts > killed.restarts { Ok(restarts) } else { Err(format!("restart count {restarts}")) }
        })
        .await
    }

    /// Deletes the leader's pod as a rollout would; gives its name.
    ///
    /// # Errors
    /// There is none, or the API server refuses.
    pub async fn send_leader_away(&self) -> Result<String> {
        let pod = self.wait_leader().await?;
        kubectl(&["-n", SYSTEM_NAMESPACE, "delete", "pod", &pod, "--wait=false"], None).await?;
        Ok(pod)
    }

    /// Waits until another than `before` leads.
    ///
    /// # Errors
    /// Nobody else does.
    pub async fn wait_other_leader(&self, before: &str) -> Result<String> {
        wait_for("another leader", STEP, || async {
            let now = self.leader().await.map_err(|e| e.to_string())?;
            if !now.is_empty() && now != before { Ok(now) } else { Err(now) }
        })
        .await
    }

    /// Both controllers are ready, one leads.
    ///
    /// # Errors
    /// They are not in time.
    pub async fn wait_controllers(&self) -> Result<()> {
        kubectl(&["-n", SYSTEM_NAMESPACE, "rollout", "status", "deployment/qscaler-controller", "--timeout=180s"], None).await?;
        self.wait_leader().await.map(drop)
    }

    /// No webhook is left.
    ///
    /// # Errors
    /// They do not leave.
    pub async fn webhook_down(&self) -> Result<()> {
        self.scale_webhook("0").await?;
        wait_for("no webhook", STEP, || async {
            let list = ListParams::default().labels("app.kubernetes.io/component=webhook");
            let left = self.pods().list(&list).await.map_err(|e| e.to_string())?.items.len();
            if left == 0 { Ok(()) } else { Err(format!("{left} pods")) }
        })
        .await
    }

    /// The webhooks are back.
    ///
    /// # Errors
    /// They are not, in time.
    pub async fn webhook_up(&self) -> Result<()> {
        self.scale_webhook(WEBHOOKS).await?;
        kubectl(&["-n", SYSTEM_NAMESPACE, "rollout", "status", "deployment/qscaler-webhook", "--timeout=180s"], None).await.map(drop)
    }

    async fn scale_webhook(&self, replicas: &str) -> Result<()> {
        kubectl(&["-n", SYSTEM_NAMESPACE, "scale", "deployment", "qscaler-webhook", &format!("--replicas={replicas}")], None).await.map(drop)
    }
}

/// A controller that was killed.
#[derive(Clone, Debug)]
pub struct Killed {
    /// Its pod.
    pub pod: String,
    /// Its process, as the node numbered it.
    pub process: i32,
    /// How often its container had been started again before.
    pub restarts: i32,
}
