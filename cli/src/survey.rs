//! What `doctor` reads beside the workloads: the installation's roles, definitions, certificate, keys and Lease, the workloads' pods, and what the user may do. In: a
//! client. Out: facts, or that they may not be read. Left to others: what they mean (`doctor`).

use crate::absent::DeploymentFacts;
use crate::doctor::{AnnotatedPod, COMMANDS, ClusterSeen, NEEDED, Right, Role};
use crate::reading::{list, seen};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use qscaler_core::control_key;
use qscaler_core::names::{CONTROL_KEY_PUBLIC, CONTROL_KEY_SECRET, LEASE, TLS_SECRET, annotation, sidecar};
use qscaler_inject::{Injected, Owner, owner};
use std::collections::{BTreeMap, BTreeSet};

/// The definitions that the chart brings.
const DEFINITIONS: &[&str] = &["qworkers.qscaler.dev", "qworkercheckpoints.qscaler.dev"];
/// The label that says of which release an object is.
pub(crate) const LABEL_VERSION: &str = "app.kubernetes.io/version";
/// Pods of Deployments have it.
const LABEL_TEMPLATE: &str = "pod-template-hash";

/// What stands in the Secret of the webhook's certificate; where it is not there: nothing.
pub(crate) async fn tls(client: &Client, namespace: &str) -> ClusterSeen<BTreeMap<String, Vec<u8>>> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let data = |secret: Option<Secret>| secret.and_then(|s| s.data).unwrap_or_default();
    seen(secrets.get_opt(TLS_SECRET).await).map(|secret| data(secret).into_iter().map(|(key, value)| (key, value.0)).collect())
}

/// Whether the Secret with the key of control messages is there. Its content is not asked for.
pub(crate) async fn has_control_key(client: &Client, namespace: &str) -> ClusterSeen<bool> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    seen(secrets.get_metadata_opt(CONTROL_KEY_SECRET).await).map(|found| found.is_some())
}

/// The public keys of control messages that new pods get: the one beside the certificate, and those of the webhook's command line.
pub(crate) fn public_keys(tls: &BTreeMap<String, Vec<u8>>, parts: &[Deployment]) -> Vec<String> {
    let beside = tls.get(CONTROL_KEY_PUBLIC).map(|key| String::from_utf8_lossy(key).into_owned());
    let containers = parts.iter().filter_map(|d| d.spec.template.spec.as_ref()).flat_map(|spec| &spec.containers);
    let arguments = containers.flat_map(|container| container.args.iter().flatten()).filter_map(|word| word.strip_prefix("--control-key="));
    control_key::read_list(&beside.iter().map(String::as_str).chain(arguments).collect::<Vec<_>>().join(","))
}

/// Seconds since the controller's Lease was renewed.
pub(crate) async fn renewed_s(client: &Client, namespace: &str, now_s: i64) -> ClusterSeen<Option<i64>> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    // One that was given back has no holder.
    let held = |lease: Lease| lease.spec.filter(|spec| spec.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty()))?.renew_time;
    seen(leases.get_opt(LEASE).await).map(|lease| lease.and_then(held).map(|at| now_s.saturating_sub(at.0.as_second())))
}

/// The ClusterRoles that are needed, as far as they are there.
pub(crate) async fn roles(client: &Client) -> ClusterSeen<Vec<Role>> {
    let (roles, bindings): (Api<ClusterRole>, Api<ClusterRoleBinding>) = (Api::all(client.clone()), Api::all(client.clone()));
    let mut out = Vec::new();
    for (name, _) in NEEDED {
        let role = match seen(roles.get_opt(name).await) {
            ClusterSeen::Yes(Some(role)) => role,
            ClusterSeen::Yes(None) => continue,
            ClusterSeen::NotAllowed => return ClusterSeen::NotAllowed,
            ClusterSeen::No(why) => return ClusterSeen::No(why),
        };
        let bound = match seen(bindings.get_opt(name).await) {
            ClusterSeen::Yes(binding) => binding
                .is_some_and(|b| b.role_ref.name == *name && b.subjects.iter().flatten().any(|s| s.kind == "ServiceAccount" && s.name == *name)),
            ClusterSeen::NotAllowed => return ClusterSeen::NotAllowed,
            ClusterSeen::No(why) => return ClusterSeen::No(why),
        };
        out.push(Role { name: (*name).to_owned(), rights: rights(&role), bound });
    }
    ClusterSeen::Yes(out)
}

fn rights(role: &ClusterRole) -> BTreeSet<Right> {
    let mut out = BTreeSet::new();
    for rule in role.rules.iter().flatten() {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                out.extend(rule.verbs.iter().map(|verb| (group.clone(), resource.clone(), verb.clone())));
            }
        }
    }
    out
}

/// What the user may do of [`COMMANDS`]; namespace: there, else everywhere.
pub(crate) async fn may(client: &Client, namespace: Option<&str>) -> Vec<Option<bool>> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut out = Vec::new();
    for (group, resource, verb, _) in COMMANDS {
        let attributes = ResourceAttributes {
            group: Some((*group).to_owned()),
            resource: Some((*resource).to_owned()),
            verb: Some((*verb).to_owned()),
            namespace: namespace.filter(|_| *resource != "namespaces").map(str::to_owned),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        out.push(reviews.create(&PostParams::default(), &review).await.ok().and_then(|answer| answer.status).map(|status| status.allowed));
    }
    out
}

/// The definitions' versions.
pub(crate) async fn definitions(client: &Client) -> ClusterSeen<Vec<(String, Option<String>)>> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut out = Vec::new();
    for name in DEFINITIONS {
        match seen(api.get_metadata_opt(name).await) {
            ClusterSeen::Yes(found) => out.extend(found.map(|crd| ((*name).to_owned(), crd.labels().get(LABEL_VERSION).cloned()))),
            ClusterSeen::NotAllowed => return ClusterSeen::NotAllowed,
            ClusterSeen::No(why) => return ClusterSeen::No(why),
        }
    }
    ClusterSeen::Yes(out)
}

/// The pods of these workloads, of those whose namespace has opted in.
pub(crate) async fn pods(client: &Client, workloads: &[DeploymentFacts]) -> ClusterSeen<Vec<AnnotatedPod>> {
    let namespaces: BTreeSet<&str> = workloads.iter().filter(|w| w.labelled == Some(true)).map(|w| w.namespace.as_str()).collect();
    let mut out = Vec::new();
    for namespace in namespaces {
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        match list(&api, &ListParams::default().labels(LABEL_TEMPLATE)).await {
            ClusterSeen::Yes(pods) => out.extend(pods.iter().filter_map(|pod| of_workload(pod, workloads))),
            ClusterSeen::NotAllowed => return ClusterSeen::NotAllowed,
            ClusterSeen::No(why) => return ClusterSeen::No(why),
        }
    }
    ClusterSeen::Yes(out)
}

fn of_workload(pod: &Pod, workloads: &[DeploymentFacts]) -> Option<AnnotatedPod> {
    let ended = pod.status.as_ref().and_then(|s| s.phase.as_deref()).is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"));
    if pod.metadata.deletion_timestamp.is_some() || ended {
        return None;
    }
    let Owner::Deployment { name, .. } = owner(&serde_json::to_value(pod).ok()?) else { return None };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    // A workload with mistakes, or one that only tries, has none on purpose.
    let wanted = |w: &&DeploymentFacts| w.namespace == namespace && w.name == name && w.mistakes.is_empty() && !w.dry_run;
    workloads.iter().find(wanted)?;
    let own = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten()).find(|c| c.name == sidecar::CONTAINER);
    let keys = own.and_then(|c| c.env.iter().flatten().find(|e| e.name == sidecar::ENV_CONTROL_KEYS)).and_then(|e| e.value.as_deref());
    let injected = pod.annotations().get(annotation::INJECTED).and_then(|text| serde_json::from_str::<Injected>(text).ok());
    Some(AnnotatedPod {
        name: pod.name_any(),
        workload: format!("{namespace}/{name}"),
        has_sidecar: own.is_some(),
        sidecar: injected.map(|injected| injected.version),
        keys: control_key::read_list(keys.unwrap_or_default()),
    })
}
