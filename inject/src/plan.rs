//! The first injection of one pod. In: the pod, its configuration, what is known of its workload. Out: a plan, or the refusal; and of a plan, the patch
//! and the warnings. Left to others: which pods are asked about, and pods that are injected already.

use crate::existing::{hold, probes_keep_grace};
use crate::identity::{Identity, identity};
use crate::ops::Ops;
use crate::pod::{array, array_of, name, pre_stop};
use crate::reason::Refusal;
use crate::variables::REMAP_SIGTERM;
use crate::{Injected, Injection, config_hash, env, mesh, pid_one, resources, workload_label};
use json_patch::Patch;
use qscaler_core::config::{Vertical, WorkerConfig};
use qscaler_core::framework::Signal;
use qscaler_core::names::{LABEL_WORKLOAD, annotation, sidecar};
use qscaler_core::workload::SidecarConfig;
use serde_json::{Map, Value, json};

/// Where the sidecar's image has its binary.
pub const SIDECAR_BINARY: &str = "/usr/local/bin/qscaler-sidecar";
/// Added to the longest task for the pod's grace: the worker's own exit (2 s with Celery), the broker's and the kubelet's slowness.
pub const GRACE_MARGIN_S: u64 = 60;
/// What the API server sets where a pod names no grace.
const GRACE_DEFAULT_S: u64 = 30;
/// Labels of a node's system, the second from before Kubernetes 1.14.
const OS_LABELS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];
/// How long the kubelet waits for an answer of the readiness probe: on a starved node one second flaps.
const READY_TIMEOUT_S: u32 = 5;

/// Whether a pod can only run on Windows: its system, a node selector, a node affinity in all its alternatives, or options that no other system has.
fn is_windows(pod: &Value) -> bool {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str) == Some("windows");
    let spec = |key: &str| pod.get("spec").and_then(|spec| spec.get(key));
    let options = |holder: &Value| holder.get("securityContext").and_then(|c| c.get("windowsOptions")).is_some_and(Value::is_object);
    let of_label = |term: &Value| {
        array_of(term, "matchExpressions").iter().any(|expression| {
            let key = expression.get("key").and_then(Value::as_str).unwrap_or_default();
            let is_in = expression.get("operator").and_then(Value::as_str) == Some("In");
            let values = array_of(expression, "values");
            OS_LABELS.contains(&key) && is_in && !values.is_empty() && values.iter().all(|value| value == "windows")
        })
    };
    let required = pod.pointer("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution");
    let terms = required.map_or(&[][..], |required| array_of(required, "nodeSelectorTerms"));
    spec("os").is_some_and(|os| text(os, "name"))
        || spec("nodeSelector").is_some_and(|labels| OS_LABELS.iter().any(|label| text(labels, label)))
        || !terms.is_empty() && terms.iter().all(of_label)
        || pod.get("spec").is_some_and(options)
        || ["containers", "initContainers"].into_iter().any(|list| array(pod, list).iter().any(options))
}

/// A pod that can be injected, with what was found in it.
pub(crate) struct Plan<'a> {
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
    pub(crate) fn new(pod: &'a Value, config: &'a WorkerConfig, injection: &Injection<'_>) -> Result<Self, Refusal> {
        let spec = |key: &str| pod.get("spec").and_then(|s| s.get(key));
        let is_true = |key: &str| spec(key).and_then(Value::as_bool) == Some(true);
        if is_windows(pod) {
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
            None => containers.iter().position(|c| !mesh::PROXIES.contains(&name(c))).unwrap_or(0),
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

    pub(crate) fn patch(self, injection: &Injection<'_>) -> Result<(Patch, Vec<String>), Refusal> {
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
        let position = inits.iter().rposition(|c| mesh::PROXIES.contains(&name(c))).map_or(0, |mesh| mesh + 1);
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
        // One that is there may be what the ReplicaSet knows its pods by: changed, it would make new ones without end.
        if self.pod.pointer("/metadata/labels").is_none_or(|labels| labels.get(LABEL_WORKLOAD).is_none_or(Value::is_null)) {
            ops.set(&["metadata", "labels", LABEL_WORKLOAD], json!(workload_label(&injection.workload.name)));
        }
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
        if let (Some(recommended), true) = (recommended, self.config.vertical != Vertical::Off && !resources::as_a_whole(self.pod)) {
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
        if !injection.control_keys.is_empty() {
            env.push(json!({"name": sidecar::ENV_CONTROL_KEYS, "value": injection.control_keys.join(",")}));
        }
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
        let env = array_of(self.worker, "env").iter().rfind(|entry| name(entry) == REMAP_SIGTERM);
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
        if self.config.vertical != Vertical::Off && resources::as_a_whole(self.pod) {
            warnings.push("spec.resources (of the pod as a whole) is set: recommended sizes are not applied to its containers".to_owned());
        }
        warnings
    }
}
