//! `kubectl qscaler release POD`: ends a pod's hold now. In: a pod. Out: the annotation that the controller passes on to the pod's sidecar, and a
//! sentence about what happens. Left to others: the order itself (`controller`), counting the cut (`sidecar`).

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use qscaler_core::names::annotation;
use serde_json::json;
use std::io::{IsTerminal, stdin};

/// Writes the annotation on a pod that has our sidecar; asks before, unless `yes`.
///
/// # Errors
/// There is no such pod, it is not one of ours, it is not being deleted, or the API server refuses.
pub(crate) async fn run(pods: &Api<Pod>, name: &str, yes: bool) -> Result<String> {
    let pod = pods.get_opt(name).await.context("cannot read pods")?;
    let Some(pod) = pod else { bail!("no pod {name} in this namespace: name one of `kubectl get pods`") };
    let sentence = outcome(&pod, name)?;
    if !yes {
        ask(name)?;
    }
    let patch = json!({ "metadata": { "uid": pod.metadata.uid, "annotations": { annotation::RELEASE: "now" } } });
    pods.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.with_context(|| format!("cannot annotate pod {name}"))?;
    Ok(sentence)
}

/// Nothing is cut by a slip: the answer must be yes, and where nobody can be asked the flag says it.
fn ask(name: &str) -> Result<()> {
    if !stdin().is_terminal() {
        bail!("a task that runs in pod {name} would be cut: say --yes where nobody can be asked");
    }
    eprint!("A task that runs in pod {name} is cut now, in its middle, and left to the queue. Release it? [y/N] ");
    let mut answer = String::new();
    stdin().read_line(&mut answer).context("no answer")?;
    if !is_yes(&answer) {
        bail!("pod {name} is left as it is: its hold ends with its task");
    }
    Ok(())
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

/// What the order will do to this pod.
fn outcome(pod: &Pod, name: &str) -> Result<String> {
    let annotations = pod.metadata.annotations.as_ref();
    if !annotations.is_some_and(|all| all.contains_key(annotation::INJECTED)) {
        bail!("pod {name} has no QScaler sidecar, so it is not held: kubectl delete pod {name} --grace-period=0 ends it");
    }
    if pod.metadata.deletion_timestamp.is_none() {
        // An order that waited for the deletion would cut a task that nobody had in mind when it was given.
        bail!(
            "pod {name} is not being deleted, so it is not held and there is nothing to end: delete it first, which lets its task finish, and release it if that takes too long"
        );
    }
    Ok(format!("pod {name} is released: its worker is ended within the next seconds; a task that runs is cut, counted, and left to the queue\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(injected: bool, ending: bool) -> Pod {
        let mut metadata = json!({ "name": "orders-1", "annotations": {} });
        if injected {
            metadata["annotations"][annotation::INJECTED] = json!("{}");
        }
        if ending {
            metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn only_a_yes_is_one() {
        assert!(["y", "Yes\n", " YES "].into_iter().all(is_yes));
        assert!(!["", "\n", "n", "yeah", "1"].into_iter().any(is_yes));
    }

    #[test]
    fn the_order_says_what_it_does_and_is_refused_where_nothing_is_held() {
        assert!(outcome(&pod(true, true), "orders-1").unwrap().contains("is cut, counted"));
        assert!(outcome(&pod(true, false), "orders-1").unwrap_err().to_string().contains("not being deleted"));
        assert!(outcome(&pod(false, true), "orders-1").unwrap_err().to_string().contains("has no QScaler sidecar"));
    }
}
