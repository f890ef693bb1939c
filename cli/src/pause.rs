//! `kubectl qscaler pause` and `resume`: the annotation `paused` of a Deployment. In: a Deployment, what shall pause. Out: the annotation, and a sentence. Left to
//! others: pausing (`controller`).

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use qscaler_core::config::{Parsed, parse};
use qscaler_core::names::annotation;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What pauses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum What {
    /// Both directions
    #[default]
    All,
    /// Lowering alone
    ScaleDown,
    /// Raising alone
    ScaleUp,
}

impl What {
    fn value(self) -> &'static str {
        match self {
            Self::All => "true",
            Self::ScaleDown => "scale-down",
            Self::ScaleUp => "scale-up",
        }
    }
}

/// Pauses, or with None resumes.
///
/// # Errors
/// There is no such Deployment, it is not one of ours, its pod template says otherwise, or the API server refuses.
pub(crate) async fn run(deployments: &Api<Deployment>, name: &str, what: Option<What>) -> Result<String> {
    let found = deployments.get_opt(name).await.context("cannot read Deployments")?;
    let Some(found) = found else { bail!("there is no Deployment {name} in this namespace: see kubectl get deployments") };
    let (value, sentence) = order(&found, name, what)?;
    let patch = json!({ "metadata": { "uid": found.metadata.uid, "annotations": { annotation::PAUSED: value } } });
    deployments.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.with_context(|| format!("cannot annotate Deployment {name}"))?;
    Ok(sentence)
}

fn order(deployment: &Deployment, name: &str, what: Option<What>) -> Result<(Value, String)> {
    let empty = BTreeMap::new();
    let own = deployment.metadata.annotations.as_ref().unwrap_or(&empty);
    let template = deployment.spec.template.metadata.as_ref().and_then(|m| m.annotations.as_ref()).unwrap_or(&empty);
    if parse(own, template) == Parsed::NotOurs {
        bail!("Deployment {name} carries no annotation of QScaler, so there is nothing to pause: kubectl qscaler explain {name}");
    }
    if let Some(there) = template.get(annotation::PAUSED) {
        bail!("the pod template of Deployment {name} says {}={there}, which wins over the Deployment's own: change it there", annotation::PAUSED);
    }
    Ok(match what {
        Some(What::All) => (
            json!(What::All.value()),
            format!("{name} is paused: its replicas stay as they are; tasks are held as before. kubectl qscaler resume {name}\n"),
        ),
        Some(what) => (json!(what.value()), format!("{name}: {} is paused. kubectl qscaler resume {name}\n", what.value())),
        None => (Value::Null, format!("{name} follows its queue again\n")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(own: Value, template: Value) -> Deployment {
        let spec = json!({"selector": {}, "template": {"metadata": {"annotations": template}}});
        serde_json::from_value(json!({"metadata": {"name": "orders", "annotations": own}, "spec": spec})).expect("a Deployment")
    }

    #[test]
    fn a_workload_is_paused_and_resumed_and_what_would_have_no_effect_is_refused() {
        let ours = json!({"qscaler.dev/queue": "orders", "qscaler.dev/broker": "env:URL", "qscaler.dev/max-replicas": "5"});
        let managed = deployment(ours.clone(), json!({}));
        let value = |what| order(&managed, "orders", what).map(|(value, _)| value).expect("it is managed");
        assert_eq!(value(Some(What::All)), json!("true"));
        assert_eq!(value(Some(What::ScaleDown)), json!("scale-down"));
        assert_eq!(value(None), Value::Null);
        let refused = |deployment| order(&deployment, "orders", None).expect_err("no effect").to_string();
        assert!(refused(deployment(json!({}), json!({}))).contains("nothing to pause"));
        assert!(refused(deployment(ours, json!({"qscaler.dev/paused": "true"}))).contains("wins over"));
    }
}
