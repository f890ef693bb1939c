//! Pod in, JSON patch out. In: a raw pod, its workload's checked configuration, and what the cluster knows about the workload. Out: operations with
//! warnings, or the reason why there are none. Left to others: finding the workload, and who asks: the webhook for each new pod, and whoever must know beforehand
//! what it will say.
//!
//! What is injected, and why each part is needed:
//! - A native sidecar (an init container that restarts always): it starts before and ends after every plain container. First in line, or directly
//!   after a mesh's proxy, so that its broker connection can use the mesh at both ends of its life.
//! - The hold: an `httpGet` preStop on every plain container, which the sidecar answers when the worker has left. Without it on a second
//!   container, that one would get its TERM while the worker still works.
//! - `postStart` on the sidecar, so that no worker starts before its guard; a `readinessProbe`, which is how parking becomes visible.
//! - The pod's grace, long enough for the longest task; the old grace moves to the user's own liveness and startup probes.
//! - A shared process namespace, since the sidecar signals and measures the worker; can be declined.
//!
//! - In a mesh: the sidecar's port is left out of it, since the kubelet has no certificate.
//!
//! Everything is within the `restricted` Pod Security level where that is enforced, and within `baseline` elsewhere; nothing needs a volume.

mod env;
mod existing;
mod identity;
mod limits;
mod mesh;
mod ops;
mod owner;
mod pid_one;
mod reason;
mod resources;
mod warn;

pub use env::BlindReason;
pub use limits::{Bounds, Limits};
pub use owner::{Owner, owner};
pub use reason::{Refusal, Skip};
pub use resources::PodSize;
pub use warn::{WorkloadFacts, warnings};

use existing::{Existing, complete, existing, hold};
use identity::{Identity, identity};
use json_patch::Patch;
use ops::Ops;
use qscaler_api::{Resources, WorkerIds};
use qscaler_core::config::{Vertical, WorkerConfig};
use qscaler_core::framework::Signal;
use qscaler_core::names::{LABEL_WORKLOAD, annotation, sidecar};
use qscaler_core::units::{Bytes, Millicores};
use qscaler_core::workload::{SidecarConfig, WorkloadId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Where the sidecar's image has its binary.
pub const SIDECAR_BINARY: &str = "/usr/local/bin/qscaler-sidecar";
/// Added to the longest task for the pod's grace: the worker's own exit (2 s with Celery), the broker's and the kubelet's slowness.
pub const GRACE_MARGIN_S: u64 = 60;
/// What the API server sets where a pod names no grace.
const GRACE_DEFAULT_S: u64 = 30;
/// The longest label value that Kubernetes takes; a Deployment's name may be longer.
const LABEL_MAX: usize = 63;
/// How long the kubelet waits for an answer of the readiness probe: on a starved node one second flaps.
const READY_TIMEOUT_S: u32 = 5;
/// Proxies of service meshes, which must start before and end after our sidecar.
const MESH_PROXIES: &[&str] = &["istio-proxy", "linkerd-proxy"];
/// Set by the kubelet on mirror pods.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What all sidecars of an installation have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Image of the sidecar.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: String,
    /// CPU request.
    pub cpu_request: Millicores,
    /// CPU limit; None: only where every other container has one.
    pub cpu_limit: Option<Millicores>,
    /// Memory request.
    pub memory_request: Bytes,
    /// Memory limit.
    pub memory_limit: Bytes,
    /// Secrets of the pods' own namespaces by which the sidecar's image may be pulled.
    pub pull_secrets: Vec<String>,
    /// Authorities (PEM) by which brokers' certificates may be signed, for workloads without an annotation of their own.
    pub broker_authorities: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            image: format!("ghcr.io/qscaler/qscaler-sidecar:{}", env!("CARGO_PKG_VERSION")),
            pull_policy: "IfNotPresent".to_owned(),
            cpu_request: Millicores(5),
            cpu_limit: None,
            memory_request: Bytes(16 << 20),
            memory_limit: Bytes(64 << 20),
            pull_secrets: Vec::new(),
            broker_authorities: None,
        }
    }
}

/// What the cluster knows about one pod's workload.
#[derive(Clone, Debug)]
pub struct Injection<'a> {
    /// Common to all.
    pub settings: &'a Settings,
    /// Whose pod it is.
    pub workload: WorkloadId,
    /// The Deployment's UID.
    pub workload_uid: String,
    /// `pod-template-hash`.
    pub template_hash: String,
    /// Recommended sizes by container.
    pub recommended: BTreeMap<String, Resources>,
    /// The worker's owner, as learned from earlier pods.
    pub worker_ids: Option<WorkerIds>,
    /// What the namespace allows.
    pub allowed: Allowed,
    /// Why processes shall not be shared, as earlier pods taught; the user's word wins.
    pub not_shared: Option<&'static str>,
    /// 32 hexadecimal digits, new for each pod.
    pub hook_token: String,
}

/// What a namespace allows its pods.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Allowed {
    /// By all its LimitRanges.
    pub limits: Limits,
    /// Whether a container may run as root with the capability KILL: false where the Pod Security level `restricted` is enforced, or nothing is known.
    pub root: bool,
    /// Not an allowance: what its pods get beside us.
    pub meshes: Meshes,
}

/// Service meshes whose proxies the pods of a namespace get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meshes {
    /// Istio, with sidecars.
    pub istio: bool,
    /// Linkerd.
    pub linkerd: bool,
}

impl<'a> Injection<'a> {
    /// For asking beforehand what will be said about the pods of a workload: of a pod that is not there, nothing is learned.
    #[must_use]
    pub fn preview(settings: &'a Settings, workload: WorkloadId, allowed: Allowed) -> Self {
        Self {
            settings,
            workload,
            workload_uid: String::new(),
            template_hash: String::new(),
            recommended: BTreeMap::new(),
            worker_ids: None,
            allowed,
            not_shared: None,
            hook_token: String::new(),
        }
    }
}

/// What will become of pods of this template (`metadata` and `spec`, as in a Deployment's `spec.template`).
#[must_use]
pub fn preview(template: &Value, config: &WorkerConfig, injection: &Injection<'_>) -> Outcome {
    inject(&json!({"metadata": template.get("metadata"), "spec": template.get("spec")}), config, injection)
}

/// The answer about one pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Apply this.
    Patch {
        /// Operations.
        patch: Patch,
        /// Said to whoever creates the pod.
        warnings: Vec<String>,
    },
    /// It is injected already, and this completes it.
    Complete {
        /// Operations.
        patch: Patch,
        /// Said to whoever creates the pod.
        warnings: Vec<String>,
    },
    /// Nothing to do.
    Skip(Skip),
    /// Asked for, but not possible.
    Refuse(Refusal),
}

/// The annotation of an injected pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Injected {
    /// Version of the webhook that did it.
    pub version: String,
    /// [`config_hash`] of its configuration.
    pub config: String,
    /// The working container.
    pub container: String,
    /// The grace that the pod asked for itself, in seconds: that of probes which come later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_s: Option<u64>,
}

/// A short stable hash (FNV-1a, 64 bits) of everything that a pod's sidecar has from its workload's annotations: what it was told, without token and template
/// hash, and where `config` finds broker, control broker, certificates and management API. Equal for all pods of one configuration. What stands behind a
/// reference (a Secret's content) is not in it.
#[must_use]
pub fn config_hash(told: &SidecarConfig, config: &WorkerConfig) -> String {
    let told = SidecarConfig { hook_token: String::new(), template_hash: String::new(), ..told.clone() };
    let WorkerConfig { broker, control_broker, broker_tls, management, .. } = config;
    let text = serde_json::to_string(&(told, broker, control_broker, broker_tls, management)).unwrap_or_default();
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// The value of [`LABEL_WORKLOAD`]: the name, or where it is too long for a label, its beginning.
#[must_use]
pub fn workload_label(name: &str) -> &str {
    let mut end = name.len().min(LABEL_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].trim_end_matches(|c: char| !c.is_ascii_alphanumeric())
}

/// Decides about one pod.
#[must_use]
pub fn inject(pod: &Value, config: &WorkerConfig, injection: &Injection<'_>) -> Outcome {
    if pod.pointer("/metadata/annotations").is_some_and(|a| a.get(MIRROR).is_some()) {
        return Outcome::Skip(Skip::MirrorPod);
    }
    match existing(pod) {
        Existing::Ours { token, grace_s } => return complete(pod, config, &token, grace_s),
        Existing::NotOurs => return Outcome::Refuse(Refusal::NameTaken),
        Existing::None => {}
    }
    if config.dry_run {
        return Outcome::Skip(Skip::DryRun);
    }
    match Plan::new(pod, config, injection).and_then(|plan| plan.patch(injection)) {
        Ok((patch, warnings)) => Outcome::Patch { patch, warnings },
        Err(refusal) => Outcome::Refuse(refusal),
    }
}

/// A pod that can be injected, with what was found in it.
struct Plan<'a> {
    pod: &'a Value,
    config: &'a WorkerConfig,
    containers: &'a [Value],
    worker: &'a Value,
    worker_at: usize,
    broker: env::BrokerEnv,
    /// Why processes are not shared; None: they are.
    unshared: Option<String>,
    /// The container whose own hook is replaced.
    replaced: Vec<String>,
}

impl<'a> Plan<'a> {
    fn new(pod: &'a Value, config: &'a WorkerConfig, injection: &Injection<'_>) -> Result<Self, Refusal> {
        let spec = |key: &str| pod.get("spec").and_then(|s| s.get(key));
        let is_true = |key: &str| spec(key).and_then(Value::as_bool) == Some(true);
        let system = [("os", "name"), ("nodeSelector", "kubernetes.io/os")]
            .map(|(field, key)| spec(field).and_then(|map| map.get(key)).and_then(Value::as_str));
        if system.contains(&Some("windows")) {
            return Err(Refusal::Windows);
        }
        if is_true("hostNetwork") {
            return Err(Refusal::HostNetwork);
        }
        let containers = array(pod, "containers");
        if containers.is_empty() {
            return Err(Refusal::NoContainers);
        }
        for container in array(pod, "initContainers").iter().chain(containers) {
            if array_of(container, "ports").iter().any(|p| p.get("containerPort").and_then(Value::as_u64) == Some(u64::from(sidecar::PORT))) {
                return Err(Refusal::PortTaken { container: name(container).to_owned() });
            }
        }
        let worker_at = match &config.container {
            Some(wanted) => containers.iter().position(|c| name(c) == wanted).ok_or_else(|| Refusal::ContainerNotFound {
                name: wanted.clone(),
                present: containers.iter().map(|c| name(c).to_owned()).collect(),
            })?,
            // A mesh may have put its proxy first.
            None => containers.iter().position(|c| !MESH_PROXIES.contains(&name(c))).unwrap_or(0),
        };
        let with_hook: Vec<&str> = containers.iter().filter(|c| pre_stop(c).is_some()).map(name).collect();
        if let (Some(container), false) = (with_hook.first(), config.replace_pre_stop) {
            return Err(Refusal::OwnPreStop { container: (*container).to_owned() });
        }
        let worker = &containers[worker_at];
        let broker = env::broker_env(pod, worker, &env::Wanted::of(config, injection.settings));
        let unshared = match spec("shareProcessNamespace").and_then(Value::as_bool) {
            _ if is_true("hostPID") => Some("hostPID: the sidecar would see every process of the node".to_owned()),
            _ if config.share_processes == Some(false) => Some(format!("{}=false", annotation::SHARE_PROCESSES)),
            Some(false) => Some("shareProcessNamespace is false".to_owned()),
            Some(true) => None,
            None if config.share_processes == Some(true) => None,
            None => injection
                .not_shared
                .map(str::to_owned)
                .or_else(|| pid_one::reason(pod))
                .map(|reason| format!("{reason}; {}=true shares them all the same", annotation::SHARE_PROCESSES)),
        };
        Ok(Self { pod, config, containers, worker, worker_at, broker, unshared, replaced: with_hook.into_iter().map(str::to_owned).collect() })
    }

    fn patch(self, injection: &Injection<'_>) -> Result<(Patch, Vec<String>), Refusal> {
        let mut ops = Ops::new(self.pod);
        let told = SidecarConfig {
            share_processes: self.unshared.is_none(),
            ..SidecarConfig::new(
                self.config,
                injection.workload.clone(),
                injection.workload_uid.clone(),
                injection.template_hash.clone(),
                name(self.worker).to_owned(),
                injection.hook_token.clone(),
            )
        };
        self.metadata(&mut ops, injection, &told);
        self.pod_fields(&mut ops);
        self.pull_secrets(&mut ops, &injection.settings.pull_secrets);
        self.user_containers(&mut ops, injection);
        let inits = array(self.pod, "initContainers");
        let position = inits.iter().rposition(|c| MESH_PROXIES.contains(&name(c))).map_or(0, |mesh| mesh + 1);
        let ids = identity(self.pod, self.worker, injection.worker_ids, injection.allowed.root && self.unshared.is_none());
        let mut warnings = self.warnings(ids);
        if let Some(said) = self.remapped() {
            warnings.push(said);
        }
        mesh::exclude_port(self.pod, &mut ops, injection.allowed.meshes);
        ops.insert(&["spec", "initContainers"], position, self.sidecar(injection, &told, ids)?);
        Ok((ops.finish(), warnings))
    }

    fn metadata(&self, ops: &mut Ops<'_>, injection: &Injection<'_>, told: &SidecarConfig) {
        let injected = Injected {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config: config_hash(told, self.config),
            container: told.container.clone(),
            grace_s: Some(self.old_grace()),
        };
        let injected = serde_json::to_string(&injected).unwrap_or_default();
        ops.set(&["metadata", "annotations", annotation::INJECTED], json!(injected));
        ops.set(&["metadata", "labels", LABEL_WORKLOAD], json!(workload_label(&injection.workload.name)));
    }

    fn old_grace(&self) -> u64 {
        self.pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(GRACE_DEFAULT_S)
    }

    fn pod_fields(&self, ops: &mut Ops<'_>) {
        let grace = self.old_grace().max(self.config.max_task_duration_ms.div_ceil(1000) + GRACE_MARGIN_S);
        ops.set(&["spec", "terminationGracePeriodSeconds"], json!(grace));
        if self.unshared.is_none() {
            ops.set(&["spec", "shareProcessNamespace"], json!(true));
        }
    }

    /// Secrets for the sidecar's image, behind the pod's own: those of its service account are in the pod by now.
    fn pull_secrets(&self, ops: &mut Ops<'_>, secrets: &[String]) {
        let there = array(self.pod, "imagePullSecrets");
        let missing: Vec<Value> =
            secrets.iter().filter(|secret| !there.iter().any(|t| name(t) == **secret)).map(|secret| json!({"name": secret})).collect();
        if !missing.is_empty() {
            ops.set(&["spec", "imagePullSecrets"], Value::Array([there, &missing].concat()));
        }
    }

    /// Holds, the probes' own grace, and the recommended size.
    fn user_containers(&self, ops: &mut Ops<'_>, injection: &Injection<'_>) {
        for list in ["containers", "initContainers"] {
            for (i, container) in array(self.pod, list).iter().enumerate() {
                probes_keep_grace(ops, list, i, container, self.old_grace());
            }
        }
        for (i, container) in self.containers.iter().enumerate() {
            let hold = hold(&injection.hook_token, name(container));
            ops.set(&["spec", "containers", &i.to_string(), "lifecycle", "preStop"], hold);
        }
        let recommended = injection.recommended.get(name(self.worker));
        if let (Some(recommended), true) =
            (recommended, self.config.vertical != Vertical::Off && self.pod.pointer("/spec/resources").is_none_or(Value::is_null))
        {
            resources::set_recommended(ops, self.worker, &self.worker_at.to_string(), self.config, recommended, injection.allowed.limits);
        }
    }

    fn sidecar(self, injection: &Injection<'_>, told: &SidecarConfig, ids: Identity) -> Result<Value, Refusal> {
        let settings = injection.settings;
        let mut context = json!({
            "runAsNonRoot": ids.non_root(),
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        if ids.may_signal_anyone {
            context["capabilities"]["add"] = json!(["KILL"]);
        }
        for (key, id) in [("runAsUser", ids.uid), ("runAsGroup", ids.gid)] {
            if let Some(id) = id {
                context[key] = json!(id);
            }
        }
        let downward = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let mut env = self.broker.env;
        env.push(json!({"name": sidecar::ENV_CONFIG, "value": qscaler_broker_url::expand::escape(&serde_json::to_string(told).unwrap_or_default())}));
        env.push(downward(sidecar::ENV_POD_UID, "metadata.uid"));
        env.push(downward(sidecar::ENV_POD_NAME, "metadata.name"));
        env.push(downward(sidecar::ENV_POD_NAMESPACE, "metadata.namespace"));
        env.push(downward(sidecar::ENV_POD_IP, "status.podIP"));
        let mut container = Map::new();
        container.insert("name".to_owned(), json!(sidecar::CONTAINER));
        container.insert("image".to_owned(), json!(settings.image));
        container.insert("imagePullPolicy".to_owned(), json!(settings.pull_policy));
        container.insert("restartPolicy".to_owned(), json!("Always"));
        if !self.broker.env_from.is_empty() {
            container.insert("envFrom".to_owned(), Value::Array(self.broker.env_from));
        }
        container.insert("env".to_owned(), Value::Array(env));
        if let Some(resources) = resources::of_sidecar(self.pod, settings, injection.allowed.limits)? {
            container.insert("resources".to_owned(), resources);
        }
        container.insert("securityContext".to_owned(), context);
        container.insert(
            "readinessProbe".to_owned(),
            json!({"httpGet": {"path": sidecar::PATH_READY, "port": sidecar::PORT}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": READY_TIMEOUT_S}),
        );
        container.insert(
            "lifecycle".to_owned(),
            json!({
                "postStart": {"exec": {"command": [SIDECAR_BINARY, "wait"]}},
                "preStop": {"httpGet": {"path": format!("{}/{}", sidecar::PATH_OWN, injection.hook_token), "port": sidecar::PORT}},
            }),
        );
        Ok(Value::Object(container))
    }

    /// Celery's own switch, read from the pod's text (docs.celeryq.dev, "Worker shutdown").
    fn remapped(&self) -> Option<String> {
        let env = array_of(self.worker, "env").iter().rfind(|entry| name(entry) == "REMAP_SIGTERM");
        let remapped = env.and_then(|entry| entry.get("value")?.as_str()).is_some_and(|value| value.eq_ignore_ascii_case("SIGQUIT"));
        (remapped && self.config.worker.starts_with("celery") && self.config.signals.contains(&Signal::Term)).then(|| {
            format!(
                "REMAP_SIGTERM=SIGQUIT makes SIGTERM end a running task: remove it, or set {}=SIGINT, on which Celery finishes its tasks",
                annotation::SIGNAL
            )
        })
    }

    fn warnings(&self, ids: Identity) -> Vec<String> {
        let mut warnings: Vec<String> = self.broker.problems.iter().map(ToString::to_string).collect();
        if let Some(reason) = &self.unshared {
            warnings.push(format!(
                "processes are not shared ({reason}): the worker gets the kubelet's SIGTERM at once, and its memory peaks are not measured"
            ));
        } else {
            if self.pod.pointer("/spec/shareProcessNamespace").and_then(Value::as_bool) != Some(true) {
                warnings.push(format!(
                    "pods get shareProcessNamespace, so that the sidecar may signal and measure the worker; {}=false declines it",
                    annotation::SHARE_PROCESSES
                ));
            }
            if ids.may_signal_anyone {
                warnings.push(format!(
                    "the worker's user is not known yet (no runAsUser): the first pods' sidecar runs as root with no right but to signal it (CAP_KILL); securityContext.runAsUser of container {} avoids that",
                    name(self.worker)
                ));
            } else if ids.uid.is_none() {
                warnings.push(format!(
                    "the worker's user is not known yet (no runAsUser), and root is not allowed here: until a pod has shown it, signals to the worker may be refused, and the kubelet's SIGTERM comes alone; set securityContext.runAsUser of container {} to the user that its image has",
                    name(self.worker)
                ));
            }
        }
        for container in &self.replaced {
            warnings.push(format!("the preStop hook of container {container} is replaced ({}=replace)", annotation::PRE_STOP));
        }
        if self.config.vertical != Vertical::Off && self.pod.pointer("/spec/resources").is_some_and(|r| !r.is_null()) {
            warnings.push("spec.resources (of the pod as a whole) is set: recommended sizes are not applied to its containers".to_owned());
        }
        warnings
    }
}

/// The string annotations of a metadata object.
#[must_use]
pub fn annotations(metadata: Option<&Value>) -> BTreeMap<String, String> {
    let map = metadata.and_then(|m| m.get("annotations")).and_then(Value::as_object);
    map.map(|map| map.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()).unwrap_or_default()
}

/// The probes of a container end it within the grace that the pod had: ours is that of its longest task.
fn probes_keep_grace(ops: &mut Ops<'_>, list: &str, at: usize, container: &Value, grace_s: u64) {
    for probe in ["livenessProbe", "startupProbe"] {
        if container.get(probe).is_some_and(|p| p.is_object() && p.get("terminationGracePeriodSeconds").is_none_or(Value::is_null)) {
            // 0 is no valid grace of a probe.
            ops.set(&["spec", list, &at.to_string(), probe, "terminationGracePeriodSeconds"], json!(grace_s.max(1)));
        }
    }
}

fn pre_stop(container: &Value) -> Option<&Value> {
    container.get("lifecycle")?.get("preStop").filter(|hook| !hook.is_null())
}

fn array<'v>(pod: &'v Value, list: &str) -> &'v [Value] {
    pod.get("spec").map_or(&[], |spec| array_of(spec, list))
}

fn array_of<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn name(value: &Value) -> &str {
    value.get("name").and_then(Value::as_str).unwrap_or_default()
}
