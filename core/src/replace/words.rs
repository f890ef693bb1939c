//! What is said of pods that are replaced. In: the pods and why they shall go. Out: clauses for people, each with its mend where there is one. Left to
//! others: where it stands (`replace`).

use super::{Candidate, Cause};
use crate::drain::fleet::{FleetFacts, PodFacts};
use crate::names::annotation;

/// How many shall go, and why.
pub(super) fn what(wanted: &[(&PodFacts, &Candidate)], facts: &FleetFacts) -> String {
    let all = facts.pods.iter().filter(|pod| !pod.terminating).count();
    let of = |cause: Cause| {
        let pods: Vec<&PodFacts> = wanted.iter().filter(|(_, c)| c.cause == cause).map(|(pod, _)| *pod).collect();
        let first = pods.first()?;
        let (have, has) = match cause {
            Cause::Bare => ("have no sidecar, and so no hold", "has no sidecar, and so no hold"),
            Cause::WrongUser => (
                "have a sidecar that may not signal its worker, as those of new pods may",
                "has a sidecar that may not signal its worker, as that of a new pod may",
            ),
            Cause::OldConfiguration => {
                ("were made with other annotations than those that stand now", "was made with other annotations than those that stand now")
            }
            Cause::OtherKey => (
                "were given another key than control messages are signed by, and believe none of them",
                "was given another key than control messages are signed by, and believes none of them",
            ),
            Cause::OldSidecar => ("have another sidecar than new pods get", "has another sidecar than new pods get"),
        };
        Some(match pods.len() {
            1 => format!("pod {} of {all} {has}", first.name),
            n => format!("{n} of {all} pods {have} (one is {})", first.name),
        })
    };
    let all: Vec<String> =
        [Cause::Bare, Cause::WrongUser, Cause::OldConfiguration, Cause::OtherKey, Cause::OldSidecar].into_iter().filter_map(of).collect();
    all.join("; ")
}

/// The API server refuses.
pub(super) fn refused(budget: bool, message: &str) -> String {
    if budget {
        format!(
            "a PodDisruptionBudget allows no eviction now ({message}); tried again within a minute. One that never allows any (minAvailable of all pods, maxUnavailable 0) has to be relaxed, or min-replicas raised"
        )
    } else {
        format!("the last try failed and is made again within a minute: {message}")
    }
}

/// What was made in the place of an evicted pod is no better.
pub(super) fn fruitless(cause: Cause, new: &str) -> String {
    let why = match cause {
        Cause::Bare => "the webhook is away or does not inject it; see `kubectl qscaler doctor` and the webhook's log".to_owned(),
        Cause::WrongUser => "set runAsUser in the container's securityContext".to_owned(),
        Cause::OldConfiguration => {
            format!("the webhook may not have seen the annotations yet, or the pod forbids what they ask for ({})", annotation::SHARE_PROCESSES)
        }
        Cause::OtherKey => {
            "webhook and controller have different keys (the Secret qscaler-control-key was changed, or chart value controlKey.publicKeys lacks its public key)".to_owned()
        }
        Cause::OldSidecar => "the webhook injects another image than the controller was told, or another admission webhook changes it".to_owned(),
    };
    format!("none is replaced for ten minutes, since pod {new}, made in the place of one of them, is the same: {why}")
}
