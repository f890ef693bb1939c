//! The cluster as `kubectl` would reach it. In: `--kubeconfig`, `--context`, `--namespace`. Out: a client, and what `doctor` and `explain` look at. Left to others:
//! what it means (`doctor`, `absent`).

use crate::absent::DeploymentFacts;
use crate::clock;
use crate::doctor::{ClusterSeen, Component, Facts, Keys};
use crate::reading::{list, seen};
use crate::survey;
use anyhow::{Context, Result};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Resource};
use qscaler_api::QWorker;
use qscaler_core::config::{Parsed, parse};
use qscaler_core::names::{INJECTION_ENABLED, LABEL_INJECTION, WEBHOOK_CONFIGURATION};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The group and version whose presence says that QScaler is installed.
const GROUP_VERSION: &str = "qscaler.dev/v1alpha1";
/// Deployments that the chart makes.
const PARTS: &str = "app.kubernetes.io/name=qscaler";

/// Which cluster, and where in it.
#[derive(clap::Args)]
pub(crate) struct Where {
    /// Namespace; default: the one of the context
    #[arg(long, short, global = true)]
    pub(crate) namespace: Option<String>,
    /// Context of the kubeconfig; default: its current one
    #[arg(long, global = true)]
    pub(crate) context: Option<String>,
    /// Path of the kubeconfig; default: as kubectl
    #[arg(long, global = true)]
    pub(crate) kubeconfig: Option<PathBuf>,
}

impl Where {
    /// A client of that cluster.
    ///
    /// # Errors
    /// There is no such kubeconfig or context.
    pub(crate) async fn client(&self) -> Result<Client> {
        let config = if self.context.is_none() && self.kubeconfig.is_none() {
            Config::infer().await.context("no cluster: is there a kubeconfig?")?
        } else {
            let known = match &self.kubeconfig {
                Some(path) => Kubeconfig::read_from(path).with_context(|| format!("cannot read the kubeconfig {}", path.display()))?,
                None => Kubeconfig::read().context("cannot read the kubeconfig")?,
            };
            let names: Vec<String> = known.contexts.iter().map(|c| c.name.clone()).collect();
            let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
            Config::from_custom_kubeconfig(known, &options).await.with_context(|| format!("no such context; valid: one of {}", names.join(", ")))?
        };
        Client::try_from(config).context("the kubeconfig cannot be used")
    }

    /// Objects of the namespace.
    pub(crate) fn namespaced<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::default_namespaced(client.clone()),
        }
    }
}

/// Whether the API server knows QWorkers; None: it does not answer.
pub(crate) async fn is_installed(client: &Client) -> Option<bool> {
    match client.list_api_group_resources(GROUP_VERSION).await {
        Ok(list) => Some(!list.resources.is_empty()),
        Err(kube::Error::Api(status)) if status.code == 404 => Some(false),
        Err(_) => None,
    }
}

/// The Deployment of this name and its namespace, as far as they may be read: for what stands in the way of a QWorker.
pub(crate) async fn workload(client: &Client, api: &Api<Deployment>, name: &str) -> ClusterSeen<Option<DeploymentFacts>> {
    let deployment = match seen(api.get_opt(name).await) {
        ClusterSeen::Yes(Some(deployment)) => deployment,
        ClusterSeen::Yes(None) => return ClusterSeen::Yes(None),
        ClusterSeen::NotAllowed => return ClusterSeen::NotAllowed,
        ClusterSeen::No(why) => return ClusterSeen::No(why),
    };
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = deployment.metadata.namespace.clone().unwrap_or_default();
    let labelled = match seen(namespaces.get(&namespace).await) {
        ClusterSeen::Yes(namespace) => Some(is_labelled(&namespace)),
        ClusterSeen::NotAllowed | ClusterSeen::No(_) => None,
    };
    ClusterSeen::Yes(Some(read(&deployment, labelled)))
}

fn is_labelled(namespace: &Namespace) -> bool {
    namespace.metadata.labels.as_ref().and_then(|l| l.get(LABEL_INJECTION)).is_some_and(|v| v == INJECTION_ENABLED)
}

fn read(deployment: &Deployment, labelled: Option<bool>) -> DeploymentFacts {
    let empty = BTreeMap::new();
    let own = deployment.metadata.annotations.as_ref().unwrap_or(&empty);
    let template = deployment.spec.template.metadata.as_ref().and_then(|m| m.annotations.as_ref()).unwrap_or(&empty);
    let (annotated, mistakes, dry_run) = match parse(own, template) {
        Parsed::NotOurs => (false, Vec::new(), false),
        Parsed::Invalid(errors) => (true, errors.iter().map(ToString::to_string).collect(), false),
        Parsed::Valid(config) => (true, Vec::new(), config.dry_run),
    };
    DeploymentFacts {
        namespace: deployment.metadata.namespace.clone().unwrap_or_default(),
        name: deployment.metadata.name.clone().unwrap_or_default(),
        labelled,
        annotated,
        mistakes,
        dry_run,
    }
}

/// Everything that `doctor` looks at; `namespace`: only its workloads.
pub(crate) async fn facts(client: &Client, namespace: Option<&str>) -> Facts {
    let all = ListParams::default();
    let workers: Api<QWorker> = of(client, namespace);
    let deployments: Api<Deployment> = of(client, namespace);
    let parts: Api<Deployment> = Api::all(client.clone());
    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let names = |found: &[Namespace], is_wanted: &dyn Fn(&Namespace) -> bool| -> Vec<String> {
        found.iter().filter(|n| is_wanted(n)).filter_map(|n| n.metadata.name.clone()).collect()
    };
    let (labelled, ending) = match list(&Api::<Namespace>::all(client.clone()), &all).await {
        ClusterSeen::Yes(all) => (Some(names(&all, &is_labelled)), names(&all, &|n| n.metadata.deletion_timestamp.is_some())),
        ClusterSeen::NotAllowed | ClusterSeen::No(_) => (None, Vec::new()),
    };
    let of_workload = |d: &Deployment| {
        let namespace = d.metadata.namespace.as_deref().unwrap_or_default();
        read(d, labelled.as_ref().map(|names| names.iter().any(|n| n == namespace)))
    };
    let now_s = clock::now_s();
    let own = list(&parts, &ListParams::default().labels(PARTS)).await;
    let parts = own.clone().map(|found| found.iter().map(part).collect::<Vec<_>>());
    let workloads = list(&deployments, &all).await.map(|found| found.iter().map(of_workload).filter(|w| w.annotated).collect::<Vec<_>>());
    // Where QScaler runs is known by its controller.
    let system = match &parts {
        ClusterSeen::Yes(parts) => parts.iter().find(|p| p.name.ends_with("controller")).map(|p| p.namespace.clone()),
        _ => None,
    };
    let nowhere = || ClusterSeen::No("no controller is known".to_owned());
    let (tls, private, renewed_s) = match &system {
        Some(system) => {
            (survey::tls(client, system).await, survey::has_control_key(client, system).await, survey::renewed_s(client, system, now_s).await)
        }
        None => (nowhere().map(|()| BTreeMap::new()), nowhere().map(|()| false), nowhere().map(|()| None)),
    };
    let deployments_of_ours = if let ClusterSeen::Yes(found) = &own { found.as_slice() } else { &[] };
    let pods = match &workloads {
        ClusterSeen::Yes(workloads) => survey::pods(client, workloads).await,
        other => other.clone().map(|_| Vec::new()),
    };
    Facts {
        version: seen(client.apiserver_version().await.map(|v| v.git_version)),
        installed: is_installed(client).await,
        webhooks: seen(webhooks.get(WEBHOOK_CONFIGURATION).await).map(|found| {
            let hooks = found.webhooks.unwrap_or_default();
            hooks.into_iter().map(|hook| (hook.name, hook.client_config.ca_bundle.map(|ca| ca.0).unwrap_or_default())).collect()
        }),
        served: tls.clone().map(|mut data| data.remove("tls.crt")),
        keys: Keys { private, public: tls.map(|data| survey::public_keys(&data, deployments_of_ours)) },
        parts,
        renewed_s,
        roles: survey::roles(client).await,
        may: survey::may(client, namespace).await,
        definitions: survey::definitions(client).await,
        pods,
        now_s,
        workloads,
        workers: list(&workers, &all).await,
        ending,
    }
}

fn of<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    namespace.map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace))
}

fn part(deployment: &Deployment) -> Component {
    Component {
        namespace: deployment.metadata.namespace.clone().unwrap_or_default(),
        name: deployment.metadata.name.clone().unwrap_or_default(),
        ready: deployment.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0),
        wanted: deployment.spec.replicas.unwrap_or(1),
        version: deployment.metadata.labels.as_ref().and_then(|labels| labels.get(survey::LABEL_VERSION)).cloned(),
    }
}
