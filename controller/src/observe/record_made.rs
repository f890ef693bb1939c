//! A pod -> how it was made: by which webhook and from which words, or without a sidecar, and then where the broker knows it by. In: metadata and spec.
//! Out: small records. Left to others: whether a new pod would be another (`replace`).

use crate::observe::record_owner::Word;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use qscaler_inject::Injected;
use std::net::IpAddr;

/// The longest host name that Linux takes, bytes.
const HOSTNAME_MAX: usize = 63;
/// Shells by their file names.
const SHELLS: &[&str] = &["sh", "bash", "ash", "dash", "zsh", "ksh", "busybox"];
/// How a pod's sidecar was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// By which version of the webhook.
    pub version: Box<str>,
    /// The hash of what the sidecar was told.
    pub config: Box<str>,
    /// The working container.
    pub container: Word,
    /// The sidecar's image, as the spec has it.
    pub image: Word,
}

/// A pod without a sidecar, as its broker sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bare {
    /// Its host name.
    pub host: Box<str>,
    /// Its address.
    pub address: Option<IpAddr>,
    /// The containers whose command is a shell that does not become the worker: as process 1 it hears no SIGTERM.
    pub shells: Vec<Word>,
}

/// From the annotation that the webhook leaves on the pod.
pub(crate) fn made(container: &Container, note: &str) -> Option<Made> {
    let injected: Injected = serde_json::from_str(note).ok()?;
    let image = container.image.as_deref().unwrap_or_default();
    Some(Made { version: injected.version.into(), config: injected.config.into(), container: injected.container.into(), image: image.into() })
}

/// What the broker knows the pod by. A pod's host name is its own where its spec names none, and Linux takes 63 bytes of it.
pub(crate) fn bare(meta: &ObjectMeta, spec: &PodSpec, address: Option<&str>) -> Bare {
    let name = spec.hostname.as_deref().or(meta.name.as_deref()).unwrap_or_default();
    let host = name.get(..HOSTNAME_MAX).unwrap_or(name).trim_end_matches(['-', '.']);
    Bare {
        host: host.into(),
        address: address.and_then(|text| text.parse().ok()),
        shells: spec.containers.iter().filter(|c| stays_a_shell(c)).map(|c| c.name.as_str().into()).collect(),
    }
}

/// Process 1 is a shell that waits for what it has started: by the kernel's rule for process 1 it hears no SIGTERM without a handler of its own. A script of
/// one simple command, or one that ends in `exec`, becomes that command.
fn stays_a_shell(container: &Container) -> bool {
    let words: Vec<&str> = container.command.iter().flatten().chain(container.args.iter().flatten()).map(String::as_str).collect();
    let Some((first, rest)) = words.split_first() else { return false };
    let is_shell = first.rsplit('/').next().is_some_and(|name| SHELLS.contains(&name));
    let Some(at) = rest.iter().position(|word| word.starts_with('-') && word.ends_with('c')) else { return is_shell };
    let script = rest.get(at + 1).copied().unwrap_or_default().trim();
    let last = script.rsplit(['\n', ';', '&']).find(|part| !part.trim().is_empty()).unwrap_or_default().trim();
    let simple = !script.contains(['\n', ';', '&', '|']) && !script.starts_with("trap");
    is_shell && !simple && !last.starts_with("exec ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_that_waits_for_its_worker_is_told_from_one_that_becomes_it() {
        let container = |command: &[&str]| Container { command: Some(command.iter().map(ToString::to_string).collect()), ..Container::default() };
        for (command, stays) in [
            (&["celery", "-A", "app", "worker"][..], false),
            (&["sh", "-c", "celery -A app worker"], false),
            (&["/bin/bash", "-ec", "exec celery -A app worker"], false),
            (&["sh", "-c", "migrate && exec rq worker q"], false),
            (&["sh", "-c", "migrate; rq worker q"], true),
            (&["bash", "-c", "python metrics.py & rq worker q; wait"], true),
            (&["sh", "-c", "rq worker q | tee /tmp/log"], true),
            (&["sh", "-c", "migrate\nrq worker q\n"], true),
            (&["sh", "/start.sh"], true),
            (&[], false),
        ] {
            assert_eq!(stays_a_shell(&container(command)), stays, "{command:?}");
        }
    }

    #[test]
    fn a_long_name_is_cut_as_the_kubelet_does() {
        let meta = ObjectMeta { name: Some(format!("{}-{}", "a".repeat(62), "b".repeat(9))), ..ObjectMeta::default() };
        assert_eq!(&*bare(&meta, &PodSpec::default(), Some("10.0.0.7")).host, "a".repeat(62));
    }
}
