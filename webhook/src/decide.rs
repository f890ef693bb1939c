//! From an admission request to its answer. In: a request, and the world. Out: a patch or none, warnings, and a label for the outcome. Left to
//! others: bytes and HTTP (`admission`, `server`).

use crate::admission::Request;
use crate::variables::PodText;
use crate::world::{LookupError, Workload, World};
use json_patch::Patch;
use qscaler_core::config::{Parsed, parse};
use qscaler_core::workload::WorkloadId;
use qscaler_inject::{Allowed, Injection, Outcome, Owner, Refusal, Settings, Skip, annotations, inject, owner, warnings};
use rand::Rng;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A namespace that is excluded in the webhook configuration and here again.
const KUBE_SYSTEM: &str = "kube-system";

/// What is decided with.
#[derive(Clone, Debug)]
pub struct Decider {
    /// The cluster.
    pub world: Arc<World>,
    /// Of all sidecars.
    pub settings: Arc<Settings>,
    /// The webhook's own namespace: never touched, or it could keep itself from starting.
    pub own_namespace: Arc<str>,
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Label value of the outcome metric.
    pub outcome: &'static str,
    /// To apply.
    pub patch: Option<Patch>,
    /// For the user.
    pub warnings: Vec<String>,
    /// It could not be found out whose pod it is: what then becomes of it is for the user's `failurePolicy` to say.
    pub undecided: bool,
}

impl From<Outcome> for Decision {
    fn from(outcome: Outcome) -> Self {
        let undecided = matches!(outcome, Outcome::Refuse(Refusal::OwnerUnknown { .. }));
        let (outcome, patch, warnings) = match outcome {
            Outcome::Patch { patch, warnings } => ("injected", Some(patch), warnings),
            Outcome::Complete { patch, warnings } => ("completed", Some(patch).filter(|patch| !patch.0.is_empty()), warnings),
            Outcome::Skip(skip) => (skip.label(), None, if skip.warns() { vec![skip.to_string()] } else { Vec::new() }),
            Outcome::Refuse(refusal) => {
                (refusal.label(), None, refusal.sentences().into_iter().map(|sentence| format!("not injected: {sentence}")).collect())
            }
        };
        Self { outcome, patch, warnings, undecided }
    }
}

impl Decider {
    /// About the creation of a pod; asking the API server for its workload, should that be needed, takes at most `within`.
    pub async fn pod(&self, request: &Request<PodText>, within: Duration) -> Decision {
        self.pod_outcome(request, within).await.into()
    }

    /// Everything that a user should know about a workload before its pods come, and was not told when it was `old`; empty when it is not ours.
    #[must_use]
    pub fn workload_warnings(&self, kind: &str, namespace: &str, object: &Value, old: &Value) -> Vec<String> {
        if self.excludes(namespace) {
            return Vec::new();
        }
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let id = WorkloadId { namespace: namespace.to_owned(), name: name.to_owned() };
        warnings(kind, &id, object, old, &self.world.facts(&id), &self.settings)
    }

    /// Whether pods of this namespace are never touched.
    #[must_use]
    pub fn excludes(&self, namespace: &str) -> bool {
        namespace == KUBE_SYSTEM || *namespace == *self.own_namespace
    }

    async fn pod_outcome(&self, request: &Request<PodText>, within: Duration) -> Outcome {
        if request.operation != "CREATE" || request.sub_resource.as_deref().is_some_and(|s| !s.is_empty()) {
            return Outcome::Skip(Skip::NotACreation);
        }
        let namespace = request.namespace.as_deref().unwrap_or_default();
        if namespace.is_empty() || self.excludes(namespace) {
            return Outcome::Skip(Skip::ExcludedNamespace);
        }
        let pod = request.object.without_variables();
        let own = annotations(pod.get("metadata"));
        let (name, template_hash) = match owner(pod) {
            Owner::Deployment { name, template_hash } => (name, template_hash),
            Owner::Other(owner) => return Outcome::Skip(not_a_deployment(owner, &own)),
        };
        let id = WorkloadId { namespace: namespace.to_owned(), name };
        let found = self.world.workload(&id, &template_hash, within).await;
        let (workload, unknown) = match found {
            Ok(Some(workload)) => (workload, None),
            Ok(None) => return Outcome::Skip(not_a_deployment(format!("a ReplicaSet without a Deployment {}", id.name), &own)),
            // The pod's own annotations may be all that is needed.
            Err(error) => (Workload::default(), Some(error)),
        };
        let config = match (parse(&workload.annotations, &own), unknown) {
            (Parsed::Valid(config), _) => config,
            (_, Some(error)) => return Outcome::Refuse(Refusal::OwnerUnknown { problem: chain(&error) }),
            (Parsed::NotOurs, None) => return Outcome::Skip(Skip::NotOurs),
            (Parsed::Invalid(errors), None) => return Outcome::Refuse(Refusal::InvalidConfig(errors)),
        };
        let learned = self.world.learned(&id);
        let allowed = self.world.facts(&id).allowed;
        let not_shared = self.world.not_shared(&id, &template_hash);
        let injection = Injection {
            settings: &self.settings,
            workload: id,
            workload_uid: workload.uid.into(),
            template_hash,
            recommended: learned.recommended,
            worker_ids: learned.worker_ids,
            allowed: Allowed { root: allowed.root && !learned.refused, ..allowed },
            not_shared,
            hook_token: token(),
            control_keys: self.world.control_keys.all(),
        };
        inject(&request.object.for_config(&config), &config, &injection)
    }
}

fn not_a_deployment(owner: String, annotations: &BTreeMap<String, String>) -> Skip {
    match parse(&BTreeMap::new(), annotations) {
        Parsed::NotOurs => Skip::NotOurs,
        _ => Skip::NotADeployment { owner },
    }
}

/// 128 random bits: nobody on the pod network can guess the path of a hook.
fn token() -> String {
    format!("{:032x}", rand::rng().random::<u128>())
}

fn chain(error: &LookupError) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}
