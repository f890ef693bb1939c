//! The cases of `golden`, for whoever does something with each. In: the folder. Out: pods with their configuration, and what injection says of them. Left to others:
//! what it should say.

#![allow(dead_code, reason = "each test that includes this uses a part of it")]

use qscaler_api::{Resources, WorkerIds};
use qscaler_core::config::{Parsed, parse};
use qscaler_core::workload::WorkloadId;
use qscaler_inject::{Allowed, Bounds, Injection, Limits, Meshes, Outcome, Settings, inject};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// How a pod is injected.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Case {
    /// Why this case is here.
    #[serde(rename = "case")]
    pub(crate) _case: String,
    /// Annotations of the Deployment.
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) recommended: BTreeMap<String, Resources>,
    #[serde(default)]
    pub(crate) worker_ids: Option<WorkerIds>,
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// Least CPU of the namespace's LimitRange, millicores.
    #[serde(default)]
    pub(crate) min_cpu: Option<u64>,
    /// Most memory of the namespace's LimitRange, bytes.
    #[serde(default)]
    pub(crate) max_memory: Option<u64>,
    /// Most memory of a whole pod, of the LimitRange, bytes.
    #[serde(default)]
    pub(crate) pod_max_memory: Option<u64>,
    /// The namespace does not enforce `restricted`.
    #[serde(default)]
    pub(crate) root: bool,
    /// The namespace's mesh.
    #[serde(default)]
    pub(crate) istio: bool,
    #[serde(default)]
    pub(crate) linkerd: bool,
    #[serde(default)]
    pub(crate) kuma: bool,
    /// Earlier pods crashed.
    #[serde(default)]
    pub(crate) crashed: bool,
    #[serde(default)]
    pub(crate) pull_secrets: Vec<String>,
    /// Containers that another webhook adds after us: the golden then has what we say when we are called again.
    #[serde(default)]
    pub(crate) added: Vec<Value>,
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../inject/tests/golden")
}

pub(crate) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let text = fs::read_to_string(path).unwrap();
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn annotations(pod: &Value) -> BTreeMap<String, String> {
    let map = pod.pointer("/metadata/annotations").and_then(Value::as_object).cloned().unwrap_or_default();
    map.into_iter().map(|(key, value)| (key, value.as_str().unwrap().to_owned())).collect()
}

/// What is said of this pod.
pub(crate) fn run(pod: &Value, case: &Case, token: &str) -> Outcome {
    let Parsed::Valid(config) = parse(&case.annotations, &annotations(pod)) else { panic!("annotations are for core's tests") };
    let settings = Settings { image: "qscaler/qscaler-sidecar:golden".into(), pull_secrets: case.pull_secrets.clone(), ..Settings::default() };
    let injection = Injection {
        settings: &settings,
        workload: WorkloadId { namespace: "shop".into(), name: case.name.clone().unwrap_or_else(|| "orders".into()) },
        workload_uid: "3f1c9a52-0000-4000-8000-000000000001".into(),
        template_hash: "5d4f8b9c7".into(),
        recommended: case.recommended.clone(),
        worker_ids: case.worker_ids,
        allowed: Allowed {
            limits: Limits {
                cpu: Bounds { min: case.min_cpu, ..Bounds::default() },
                memory: Bounds { max: case.max_memory, ..Bounds::default() },
                pod_memory_max: case.pod_max_memory,
                ..Limits::default()
            },
            root: case.root,
            meshes: Meshes { istio: case.istio, linkerd: case.linkerd, kuma: case.kuma },
        },
        not_shared: case.crashed.then_some("pods that share them crash"),
        hook_token: token.into(),
        control_keys: Vec::new(),
    };
    inject(pod, &config, &injection)
}

/// Names of all cases.
pub(crate) fn cases() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().into_string().unwrap().strip_suffix(".pod.yaml")?.to_owned()))
        .collect();
    names.sort();
    names
}
