//! Why a workload has no QWorker. In: what of it could be read. Out: the first thing that stands in the way, and the mend. Left to others: reading (`cluster`).

use qscaler_core::names::{DOMAIN, INJECTION_ENABLED, LABEL_INJECTION};

/// A Deployment, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeploymentFacts {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Its namespace has the label; None: that may not be read.
    pub(crate) labelled: Option<bool>,
    /// It carries annotations of ours.
    pub(crate) annotated: bool,
    /// Their mistakes.
    pub(crate) mistakes: Vec<String>,
    /// It only wants to know.
    pub(crate) dry_run: bool,
}

/// The sentence. `installed`: the API server knows QWorkers; None: it did not say. `workload`: None where there is no such Deployment.
pub(crate) fn why(name: &str, installed: Option<bool>, workload: Option<&DeploymentFacts>) -> String {
    if installed == Some(false) {
        return format!("QScaler is not installed in this cluster (the API server knows no qworkers.{DOMAIN}): helm install it first");
    }
    let Some(workload) = workload else {
        return format!("there is no Deployment {name} in this namespace, and {DOMAIN} works on Deployments only: see kubectl get deployments");
    };
    let DeploymentFacts { namespace, name, .. } = workload;
    if !workload.annotated {
        return format!(
            "Deployment {name} carries no {DOMAIN} annotation: kubectl -n {namespace} annotate deployment {name} {DOMAIN}/queue=… {DOMAIN}/broker=… {DOMAIN}/max-replicas=…"
        );
    }
    if workload.labelled == Some(false) {
        return format!("namespace {namespace} has not opted in: kubectl label namespace {namespace} {LABEL_INJECTION}={INJECTION_ENABLED}");
    }
    if !workload.mistakes.is_empty() {
        return format!("the annotations of Deployment {name} have mistakes, so it is left alone:\n  {}", workload.mistakes.join("\n  "));
    }
    format!("Deployment {name} is annotated and has no QWorker, which the controller makes within seconds: does it run? kubectl qscaler doctor")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_workload_without_a_qworker_is_true() {
        let good = DeploymentFacts {
            namespace: "shop".into(),
            name: "orders".into(),
            labelled: Some(true),
            annotated: true,
            mistakes: Vec::new(),
            dry_run: false,
        };
        let told = |installed, workload: Option<DeploymentFacts>| why("orders", installed, workload.as_ref());
        for (text, part) in [
            (told(Some(false), Some(good.clone())), "QScaler is not installed"),
            (told(Some(true), None), "there is no Deployment orders"),
            (told(Some(true), Some(DeploymentFacts { annotated: false, ..good.clone() })), "no qscaler.dev annotation"),
            (
                told(Some(true), Some(DeploymentFacts { labelled: Some(false), ..good.clone() })),
                "kubectl label namespace shop qscaler.dev/injection=enabled",
            ),
            (told(None, Some(DeploymentFacts { mistakes: vec!["max-replicas: many".into()], ..good.clone() })), "max-replicas: many"),
            (told(Some(true), Some(DeploymentFacts { labelled: None, ..good })), "kubectl qscaler doctor"),
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
