//! A Deployment whose pods no node takes, with a queue of its own: how soon, and in how many steps, a burst reaches `/scale`, without a pod that
//! loads the machine. In: a name. Out: seconds from the write to the queue to the replica count, and the number of writes it took. Left to others: what
//! is good enough (`tests/e2e`, bin `bench-burst`).

use super::kubectl::kubectl;
use super::{PASSWORD, Stand};
use crate::servers::RedisServer;
use crate::wait::wait_for;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::Api;
use serde_json::json;
use std::time::{Duration, Instant};

/// Most replicas, and so what a burst must reach.
pub const MOST: i32 = 20;
/// Messages of one burst: more than enough for all of them, whatever a task takes.
const MESSAGES: usize = 400;
/// How often the Deployment is read while a burst is on its way: the resolution of the measurement.
const READ_EVERY: Duration = Duration::from_millis(10);
/// A burst that has not arrived by then never will.
const GIVE_UP: Duration = Duration::from_secs(120);
/// The list that is filled.
const QUEUE: &str = "jobs";

/// What one burst did.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    /// From before the messages are written until the Deployment asks for [`MOST`] replicas, as read from the API server.
    pub seconds: f64,
    /// Changes of the Deployment's spec that it took.
    pub writes: i64,
}

/// The Deployment and its queue.
pub struct Target {
    name: String,
    redis: RedisServer,
    api: Api<Deployment>,
}

impl Target {
    /// Makes it, at 0 replicas, and waits until QScaler reads its queue.
    ///
    /// # Errors
    /// When the cluster refuses or takes too long.
    pub async fn create(stand: &Stand, name: &str) -> Result<Self> {
        let redis = RedisServer::start_at(stand.host.parse()?, Some(PASSWORD))?;
        let annotations = json!({"qscaler.dev/queue": QUEUE, "qscaler.dev/broker": "env:BROKER_URL", "qscaler.dev/worker": "celery",
            "qscaler.dev/min-replicas": "0", "qscaler.dev/max-replicas": MOST.to_string(), "qscaler.dev/max-wait": "15s"});
        let container = json!({"name": "worker", "image": "qscaler/worker-python:dev", "imagePullPolicy": "IfNotPresent", "args": ["-c", "pass"],
            "env": [{"name": "BROKER_URL", "valueFrom": {"secretKeyRef": {"name": "broker", "key": "url"}}}],
            "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}}});
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"qscaler.dev/injection": "enabled"}}},
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "broker", "namespace": name}, "stringData": {"url": redis.url(0)}},
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "burst", "namespace": name, "annotations": annotations}, "spec": {
                "replicas": 0, "selector": {"matchLabels": {"app": "burst"}},
                "template": {"metadata": {"labels": {"app": "burst"}}, "spec": {
                    "nodeSelector": {"qscaler.dev/no-such-node": "true"}, "automountServiceAccountToken": false, "containers": [container]}}}}]});
        kubectl(&["apply", "-f", "-"], Some(&objects.to_string())).await?;
        let api = Api::namespaced(stand.client().await?, name);
        let target = Self { name: name.to_owned(), redis, api };
        wait_for(&format!("{name}: the queue is read"), GIVE_UP, || async {
            let path = "jsonpath={.status.backlog}";
            let backlog = kubectl(&["-n", &target.name, "get", "qworker", "burst", "-o", path], None).await.map_err(|e| e.to_string())?;
            if backlog == "0" { Ok(()) } else { Err(format!("backlog {backlog:?}")) }
        })
        .await?;
        Ok(target)
    }

    /// Writes a burst and waits until it has reached the Deployment.
    ///
    /// # Errors
    /// When it never does.
    pub async fn burst(&self) -> Result<Burst> {
        let (replicas, before) = self.read().await?;
        ensure!(replicas == 0, "{}: a burst starts from 0 replicas, not {replicas}", self.name);
        let begin = Instant::now();
        self.redis_cli(|command| {
            command.arg("LPUSH").arg(QUEUE).args(std::iter::repeat_n("{}", MESSAGES));
        })
        .await?;
        loop {
            let (replicas, generation) = self.read().await?;
            if replicas >= MOST {
                return Ok(Burst { seconds: begin.elapsed().as_secs_f64(), writes: generation - before });
            }
            ensure!(begin.elapsed() < GIVE_UP, "{}: {replicas} replicas {} s after the burst", self.name, GIVE_UP.as_secs());
            tokio::time::sleep(READ_EVERY).await;
        }
    }

    /// Empties the queue and waits until QScaler has taken the replicas back.
    ///
    /// # Errors
    /// When it takes too long.
    pub async fn calm(&self) -> Result<()> {
        self.redis_cli(|command| {
            command.args(["DEL", QUEUE]);
        })
        .await?;
        wait_for(&format!("{}: back to 0 replicas", self.name), GIVE_UP, || async {
            match self.read().await {
                Ok((0, _)) => Ok(()),
                Ok((replicas, _)) => Err(format!("{replicas} replicas")),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    /// Removes the namespace.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn remove(self) -> Result<()> {
        kubectl(&["delete", "namespace", &self.name, "--wait=false"], None).await.map(drop)
    }

    /// `spec.replicas` and the generation, which counts changes of the spec.
    async fn read(&self) -> Result<(i32, i64)> {
        let deployment = self.api.get("burst").await?;
        let replicas = deployment.spec.replicas.context("a Deployment without replicas")?;
        Ok((replicas, deployment.metadata.generation.unwrap_or_default()))
    }

    async fn redis_cli(&self, words: impl FnOnce(&mut std::process::Command)) -> Result<()> {
        let mut command = self.redis.cli(0);
        words(&mut command);
        let output = tokio::process::Command::from(command).output().await?;
        ensure!(output.status.success(), "redis-cli: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}
