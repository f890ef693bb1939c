//! Whether everything is of one release. In: versions of this program, of QScaler's Deployments, of the definitions, of sidecars. Out: checks. Left to others: reading
//! (`cluster`); replacing pods with an old sidecar (`controller`).

use super::{AnnotatedPod, Check, ClusterSeen, Component, State, check};
use std::collections::BTreeMap;

/// `definitions`: name and version of each CustomResourceDefinition.
pub(super) fn checks(
    own: &str,
    parts: &[Component],
    definitions: &ClusterSeen<Vec<(String, Option<String>)>>,
    pods: &ClusterSeen<Vec<AnnotatedPod>>,
) -> Vec<Check> {
    let mut out = Vec::new();
    let Some(installed) = parts.iter().find(|p| p.name.ends_with("controller")).and_then(|p| p.version.clone()) else { return out };
    let other: Vec<String> = parts
        .iter()
        .filter(|p| p.version.as_ref() != Some(&installed))
        .map(|p| format!("{} is {}", p.name, p.version.as_deref().unwrap_or("without a version")))
        .collect();
    let name = format!("controller, webhook and certs are of one version ({installed})");
    out.push(match other.is_empty() {
        true => check(name, State::Ok, ""),
        false => check(name, State::Failed, format!("{}: helm upgrade brings all to one", other.join(", "))),
    });
    let name = format!("this program is of the installed version ({own})");
    out.push(match own == installed {
        true => check(name, State::Ok, ""),
        false => check(
            name,
            State::Warning,
            format!("{installed} is installed: take the kubectl-qscaler of that release, for its words and checks may differ"),
        ),
    });
    if let ClusterSeen::Yes(definitions) = definitions {
        let old: Vec<String> = definitions
            .iter()
            .filter(|(_, version)| version.as_ref().is_some_and(|version| *version != installed))
            .map(|(name, version)| format!("{name} is of {}", version.as_deref().unwrap_or_default()))
            .collect();
        let name = format!("the definitions of QWorkers are of {installed}");
        out.push(match old.is_empty() {
            true => check(name, State::Ok, ""),
            false => check(
                name,
                State::Failed,
                format!(
                    "{}: fields that they lack are dropped without a word; helm upgrade writes them, unless something else owns them",
                    old.join(", ")
                ),
            ),
        });
    }
    if let ClusterSeen::Yes(pods) = pods {
        let mut old: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for pod in pods {
            if let Some(version) = pod.sidecar.as_deref().filter(|version| *version != installed) {
                *old.entry((pod.workload.as_str(), version)).or_default() += 1;
            }
        }
        let words: Vec<String> = old.iter().map(|((workload, version), count)| format!("{count} of {workload} have {version}")).collect();
        let name = format!("sidecars are of {installed}");
        out.push(match words.is_empty() {
            true => check(name, State::Ok, ""),
            false => check(
                name,
                State::Warning,
                format!(
                    "{}: they hold as they are; the controller replaces them one by one as they fall idle (condition UpToDate)",
                    words.join(", ")
                ),
            ),
        });
    }
    out
}
