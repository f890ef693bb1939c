//! One worker Deployment in its own namespace, with its queue, its ledger and a client that sends tasks. In: options. Out: what the cluster
//! and the ledger say. Left to others: what should be (`tests/e2e`, `demo`).

use super::framework::Framework;
use super::kubectl::kubectl;
use super::ledger::{Entry, Tally};
use super::{BrokerKind, Stand};
use crate::wait::{patience, wait_for};
use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::discovery::ApiResource;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the cluster may take for one step of its own: start a pod, roll a Deployment. Generous: two cores for everything.
pub const STEP: Duration = Duration::from_secs(180);

/// The client's pod only waits to be told to send: for longer than any test takes.
const CLIENT_SECONDS: &str = "86400";

/// What a fleet is made of.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// Namespace, queue and ledger key; unique in the run.
    pub name: String,
    /// What its workers and its client are made of.
    pub framework: &'static Framework,
    /// The broker's URL where it is not the stand's.
    pub url: Option<String>,
    /// Environment of the workers and the client, beside the framework's.
    pub env: BTreeMap<String, String>,
    /// `qscaler.dev/` annotations without the prefix; empty: not ours.
    pub annotations: BTreeMap<String, String>,
    /// Whether the namespace is labelled.
    pub labelled: bool,
    /// `spec.replicas` at first.
    pub replicas: u32,
    /// Memory request and limit of the worker, as a quantity.
    pub memory: String,
    /// The pod's grace in the user's template.
    pub grace_seconds: u32,
    /// How the worker's pod differs from the usual one.
    pub pod: PodShape,
}

/// How a worker's pod differs from the usual one: a restricted pod of one container that runs the image's entry point as UID 1000. The texts are JSON; empty: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodShape {
    /// In place of the image's entry point.
    pub command: &'static [&'static str],
    /// An object merged (RFC 7386) into the worker's container.
    pub container: &'static str,
    /// An array of containers beside the worker.
    pub helpers: &'static str,
    /// The image's own user: neither pod nor container has a security context, and the namespace enforces `baseline`.
    pub own_user: bool,
}

impl FleetOptions {
    /// A managed Celery fleet with the annotations of the README.
    #[must_use]
    pub fn managed(name: &str, broker: BrokerKind, min: u32, max: u32) -> Self {
        Self::of(Framework::celery(broker), name, min, max)
    }

    /// A managed fleet of any framework.
    #[must_use]
    pub fn of(framework: &'static Framework, name: &str, min: u32, max: u32) -> Self {
        // Where every start takes longer, a promise that no start can keep would make the law keep idle pods.
        let max_wait = format!("{}s", 15 * patience());
        let bounds = [("min-replicas", min.to_string()), ("max-replicas", max.to_string()), ("max-wait", max_wait)];
        let usual = [("queue", name), ("broker", "env:BROKER_URL"), ("max-task-duration", "5m")];
        let own = framework.annotations.iter().map(|(k, v)| (*k, fill(v, name)));
        let annotations = usual.into_iter().map(|(k, v)| (k, v.to_owned())).chain(bounds).chain(own);
        Self {
            name: name.to_owned(),
            framework,
            url: None,
            env: BTreeMap::new(),
            annotations: annotations.map(|(k, v)| (k.to_owned(), v)).collect(),
            labelled: true,
            replicas: min,
            memory: "160Mi".to_owned(),
            grace_seconds: 30,
            pod: PodShape::default(),
        }
    }

    /// Celery with `acks_late` and a prefetch of 1 in place of Celery as it comes: a task whose process was killed goes back to the queue.
    #[must_use]
    pub fn acks_late(mut self) -> Self {
        self.framework = Framework::celery_acks_late(self.framework.broker);
        self
    }

    /// The same with one more annotation.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }
}

/// `{queue}` stands for the fleet's name.
fn fill(text: &str, name: &str) -> String {
    text.replace("{queue}", name)
}

/// What one of a shape's texts says; null: nothing, or no JSON.
#[must_use]
pub fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

/// One task of a plan.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Task {
    /// Unique in the fleet.
    pub task: String,
    /// Seconds after the send begins.
    pub at: f64,
    /// How long it works.
    pub seconds: f64,
    /// Memory it takes, in MiB.
    pub mib: u32,
}

/// A running fleet.
pub struct Fleet {
    /// Namespace, Deployment's queue and ledger key.
    pub name: String,
    /// Its options.
    pub options: FleetOptions,
    client: kube::Client,
    stand: &'static Stand,
}

/// The Deployment's name in every fleet.
pub const DEPLOYMENT: &str = "orders";

impl Fleet {
    /// Makes the namespace, the application, the client, and the Deployment; waits for the client and, where replicas are asked for, for them.
    ///
    /// # Errors
    /// When the cluster refuses or takes too long.
    pub async fn create(stand: &'static Stand, options: FleetOptions) -> Result<Self> {
        let fleet = Self::begin(stand, options).await?;
        fleet.wait_ready(fleet.options.replicas as usize).await?;
        Ok(fleet)
    }

    /// The same without waiting for the workers.
    ///
    /// # Errors
    /// When the cluster refuses, or the client takes too long.
    pub async fn begin(stand: &'static Stand, options: FleetOptions) -> Result<Self> {
        let client = stand.client().await?;
        let fleet = Self { name: options.name.clone(), options, client, stand };
        kubectl(&["apply", "-f", "-"], Some(&fleet.surroundings()?)).await?;
        kubectl(&["apply", "-f", "-"], Some(&fleet.deployment_manifest().to_string())).await?;
        let limit = format!("--timeout={}s", (STEP * patience()).as_secs());
        kubectl(&["-n", &fleet.name, "rollout", "status", "deployment/client", &limit], None).await?;
        Ok(fleet)
    }

    fn surroundings(&self) -> Result<String> {
        let url = match &self.options.url {
            Some(url) => url.clone(),
            None => self.stand.broker_url(self.options.framework.broker)?,
        };
        let label = if self.options.labelled { json!("enabled") } else { Value::Null };
        let level = if self.options.pod.own_user { "baseline" } else { "restricted" };
        let mut labels = json!({"pod-security.kubernetes.io/enforce": level});
        if !label.is_null() {
            labels["qscaler.dev/injection"] = label;
        }
        let files: BTreeMap<&str, &str> = self.options.framework.files.iter().copied().collect();
        let n = &self.name;
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n, "labels": labels}},
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "broker", "namespace": n}, "stringData": {"url": url}},
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app", "namespace": n}, "data": files},
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "client", "namespace": n}, "spec": {
                "selector": {"matchLabels": {"app": "client"}},
                "template": {"metadata": {"labels": {"app": "client"}}, "spec": self.pod_spec("client", json!({"command": ["/bin/sleep", CLIENT_SECONDS]}), "256Mi", 1)}}},
        ]});
        Ok(objects.to_string())
    }

    fn filled(&self, texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| fill(text, &self.name)).collect()
    }

    fn pod_spec(&self, name: &str, start: Value, memory: &str, grace: u32) -> Value {
        let framework = self.options.framework;
        let mut env = vec![
            json!({"name": "BROKER_URL", "valueFrom": {"secretKeyRef": {"name": "broker", "key": "url"}}}),
            json!({"name": "QUEUE", "value": self.name}),
            json!({"name": "LEDGER_URL", "value": self.stand.ledger_url()}),
            json!({"name": "LEDGER_KEY", "value": self.name}),
        ];
        env.extend(framework.env.iter().map(|(name, value)| json!({"name": name, "value": fill(value, &self.name)})));
        env.extend(self.options.env.iter().map(|(name, value)| json!({"name": name, "value": value})));
        let mut container = json!({
            "name": name, "image": framework.image, "imagePullPolicy": "IfNotPresent", "env": env,
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            "resources": {"requests": {"cpu": "5m", "memory": memory}, "limits": {"memory": memory}},
            "volumeMounts": [{"name": "app", "mountPath": "/app"}],
        });
        for (key, value) in start.as_object().into_iter().flatten() {
            container[key.as_str()] = value.clone();
        }
        json!({
            "terminationGracePeriodSeconds": grace,
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            // Some of the files are scripts that are run by their name.
            "volumes": [{"name": "app", "configMap": {"name": "app", "defaultMode": 0o755}}],
        })
    }

    /// The worker's pod as its shape has it.
    fn worker_spec(&self) -> Value {
        let shape = self.options.pod;
        let mut start = json!({"args": self.filled(self.options.framework.args)});
        if !shape.command.is_empty() {
            start["command"] = json!(self.filled(shape.command));
        }
        let mut spec = self.pod_spec("worker", start, &self.options.memory, self.options.grace_seconds);
        if shape.own_user {
            spec["securityContext"] = Value::Null;
            spec["containers"][0]["securityContext"] = Value::Null;
        }
        if !shape.container.is_empty() {
            json_patch::merge(&mut spec["containers"][0], &parsed(&fill(shape.container, &self.name)));
        }
        if let (Some(all), Value::Array(helpers)) = (spec["containers"].as_array_mut(), parsed(shape.helpers)) {
            all.extend(helpers);
        }
        spec
    }

    /// The worker's Deployment, as the user writes it.
    #[must_use]
    pub fn deployment_manifest(&self) -> Value {
        let annotations: BTreeMap<String, &String> = self.options.annotations.iter().map(|(k, v)| (format!("qscaler.dev/{k}"), v)).collect();
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": DEPLOYMENT, "namespace": self.name, "annotations": annotations},
            "spec": {"replicas": self.options.replicas, "selector": {"matchLabels": {"app": DEPLOYMENT}},
                "template": {"metadata": {"labels": {"app": DEPLOYMENT, "fleet": self.name}}, "spec": self.worker_spec()}}})
    }

    /// Sends a plan ([`Task`]s, or what else `send.py` understands) from the client pod; returns when the last task is sent.
    ///
    /// # Errors
    /// When the client fails.
    pub async fn send<T: serde::Serialize>(&self, plan: &[T]) -> Result<()> {
        let text = serde_json::to_string(plan)?;
        let command = self.filled(self.options.framework.send);
        let mut args = vec!["-n", &self.name, "exec", "-i", "deployment/client", "--"];
        args.extend(command.iter().map(String::as_str));
        kubectl(&args, Some(&text)).await.map(drop)
    }

    /// The worker's pods, terminating ones too.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.name);
        Ok(api.list(&ListParams::default().labels(&format!("app={DEPLOYMENT}"))).await?.items)
    }

    /// A client of the API server.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// The worker's Deployment.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn deployment(&self) -> Result<Deployment> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &self.name);
        Ok(api.get(DEPLOYMENT).await?)
    }

    /// `spec.replicas` now.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn replicas(&self) -> Result<i32> {
        Ok(self.deployment().await?.spec.replicas.unwrap_or(1))
    }

    /// Sets `/scale` as a person or another scaler does.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn scale(&self, replicas: u32) -> Result<()> {
        kubectl(&["-n", &self.name, "scale", "deployment", DEPLOYMENT, &format!("--replicas={replicas}")], None).await.map(drop)
    }

    /// Sets or, with a trailing `-`, removes annotations of ours on the Deployment.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn annotate(&self, key: &str, value: &str) -> Result<()> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &self.name);
        let patch = json!({"metadata": {"annotations": {format!("qscaler.dev/{key}"): value}}});
        api.patch(DEPLOYMENT, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// The QWorker, if there is one yet.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn qworker(&self) -> Result<Option<Value>> {
        self.of_kind("QWorker", "qworkers").await
    }

    /// What the controller remembers of the workload: `/learned` and `/sizes/CONTAINER/estimate`, parsed.
    ///
    /// # Errors
    /// When the API server does not answer, or there is none yet.
    pub async fn checkpoint(&self) -> Result<Value> {
        let mut kept = self.of_kind("QWorkerCheckpoint", "qworkercheckpoints").await?.context("no QWorkerCheckpoint")?["spec"].take();
        let parsed = |text: &Value| serde_json::from_str(text.as_str().unwrap_or_default()).unwrap_or_default();
        kept["learned"] = parsed(&kept["learned"]);
        for size in kept["sizes"].as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
            size["estimate"] = parsed(&size["estimate"]);
        }
        Ok(kept)
    }

    async fn of_kind(&self, kind: &str, plural: &str) -> Result<Option<Value>> {
        let resource = ApiResource {
            group: "qscaler.dev".into(),
            version: "v1alpha1".into(),
            api_version: "qscaler.dev/v1alpha1".into(),
            kind: kind.into(),
            plural: plural.into(),
        };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.name, &resource);
        Ok(api.get_opt(DEPLOYMENT).await?.map(|o| o.data))
    }

    /// Makes the Deployment anew, as it was at first: QScaler has learned nothing about it. What is in the ledger stays.
    ///
    /// # Errors
    /// When its pods do not leave, or the new ones do not come up, in time.
    pub async fn renew(&self) -> Result<()> {
        let limit = format!("--timeout={}s", (STEP * patience()).as_secs());
        kubectl(&["-n", &self.name, "delete", "deployment", DEPLOYMENT, "--cascade=foreground", &limit], None).await?;
        kubectl(&["apply", "-f", "-"], Some(&self.deployment_manifest().to_string())).await?;
        self.wait_ready(self.options.replicas as usize).await.map(drop)
    }

    /// Waits for a condition of the QWorker with this status; gives its message.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn wait_condition(&self, condition: &str, status: &str, limit: Duration) -> Result<String> {
        wait_for(&format!("{}: condition {condition}={status}", self.name), limit, || async {
            let worker = self.qworker().await.map_err(|e| e.to_string())?.ok_or("no QWorker")?;
            let found = worker["status"]["conditions"].as_array().and_then(|all| all.iter().find(|c| c["type"] == condition));
            match found {
                Some(c) if c["status"] == status => Ok(c["message"].as_str().unwrap_or_default().to_owned()),
                _ => Err(worker["status"]["conditions"].to_string()),
            }
        })
        .await
    }

    /// Events about the Deployment, newest last: reason and note.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn events(&self) -> Result<Vec<(String, String)>> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &self.name);
        let events = api.list(&ListParams::default()).await?.items;
        Ok(events.into_iter().map(|e| (e.reason.unwrap_or_default(), e.message.unwrap_or_default())).collect())
    }

    /// Waits until this many worker pods are Ready and no other is left.
    ///
    /// # Errors
    /// When it takes too long.
    pub async fn wait_ready(&self, count: usize) -> Result<Vec<Pod>> {
        wait_for(&format!("{}: {count} Ready pods", self.name), STEP, || async {
            let pods = self.pods().await.map_err(|e| e.to_string())?;
            let ready = pods.iter().filter(|p| is_ready(p)).count();
            if ready == count && pods.len() == count { Ok(pods) } else { Err(format!("{ready} Ready of {}: {}", pods.len(), describe(&pods))) }
        })
        .await
    }

    /// The ledger so far.
    ///
    /// # Errors
    /// When the ledger's server does not answer.
    pub async fn ledger(&self) -> Result<Vec<Entry>> {
        let lines = self.stand.ledger_lines(&self.name).await?;
        lines.iter().map(|line| serde_json::from_str(line).with_context(|| format!("ledger line {line}"))).collect()
    }

    /// Hosts (pods) that run a task now.
    ///
    /// # Errors
    /// When the ledger's server does not answer.
    pub async fn busy_hosts(&self) -> Result<Vec<String>> {
        let entries = self.ledger().await?;
        let done: Vec<&str> = entries.iter().filter(|e| e.event == "done").map(|e| e.run.as_str()).collect();
        Ok(entries.iter().filter(|e| e.event == "start" && !done.contains(&e.run.as_str())).map(|e| e.host.clone()).collect())
    }

    /// Waits until this many runs have begun.
    ///
    /// # Errors
    /// When it takes too long.
    pub async fn wait_busy(&self, count: usize) -> Result<Vec<String>> {
        wait_for(&format!("{}: {count} tasks running", self.name), STEP, || async {
            let hosts = self.busy_hosts().await.map_err(|e| e.to_string())?;
            if hosts.len() == count { Ok(hosts) } else { Err(format!("{hosts:?}")) }
        })
        .await
    }

    /// Waits until every one of `sent` tasks has ended at least once; gives the tally.
    ///
    /// # Errors
    /// When it takes too long: the error has the tally so far.
    pub async fn wait_done(&self, sent: usize, limit: Duration) -> Result<Tally> {
        wait_for(&format!("{}: {sent} tasks done", self.name), limit, || async {
            let tally = Tally::of(&self.ledger().await.map_err(|e| e.to_string())?);
            if tally.done >= sent { Ok(tally) } else { Err(format!("{} done of {}, {} cut, {} lost", tally.done, tally.sent, tally.cut, tally.lost)) }
        })
        .await
    }

    /// The tally once no pod is left or no task runs.
    ///
    /// # Errors
    /// When the ledger's server does not answer.
    pub async fn tally(&self) -> Result<Tally> {
        Ok(Tally::of(&self.ledger().await?))
    }

    /// Removes the namespace, in the cluster's own time.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn discard(self) -> Result<()> {
        kubectl(&["delete", "namespace", &self.name, "--wait=false"], None).await.map(drop)
    }

    /// Removes the namespace and waits until its worker pods are gone.
    ///
    /// # Errors
    /// When it takes too long.
    pub async fn remove(self) -> Result<()> {
        kubectl(&["delete", "namespace", &self.name, "--wait=false"], None).await?;
        wait_for(&format!("{}: pods gone", self.name), STEP, || async {
            let pods = self.pods().await.map_err(|e| e.to_string())?;
            if pods.is_empty() { Ok(()) } else { Err(describe(&pods)) }
        })
        .await
    }
}

/// Whether the pod is Ready and not ending.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && pod.status.as_ref().and_then(|s| s.conditions.as_ref()).is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// Names and phases, for a message.
#[must_use]
pub fn describe(pods: &[Pod]) -> String {
    let one = |p: &Pod| {
        let phase = p.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
        let ending = if p.metadata.deletion_timestamp.is_some() { " ending" } else { "" };
        let ready = if is_ready(p) { " Ready" } else { "" };
        format!("{} {phase}{ready}{ending}", p.metadata.name.clone().unwrap_or_default())
    };
    pods.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The pod's name.
#[must_use]
pub fn name_of(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}
