//! Configuration of a local cluster. In: the templates in `hack/cluster/templates` and what is special to one cluster. Out: text.
//! It leaves writing it to [`super::boxed`].

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::images::Image;
use crate::oci::qualified;

/// Script that sets a box up.
pub const SETUP: &str = include_str!("../../../cluster/templates/setup.sh");
/// Script that removes what a box left outside.
pub const CLEANUP: &str = include_str!("../../../cluster/templates/cleanup.sh");
/// containerd's configuration.
pub const CONTAINERD: &str = include_str!("../../../cluster/templates/containerd.toml");
/// The pod network.
pub const CNI: &str = include_str!("../../../cluster/templates/cni.conflist");
/// The kubelet's configuration.
pub const KUBELET: &str = include_str!("../../../cluster/templates/kubelet.yaml");
/// kube-proxy's configuration.
pub const PROXY: &str = include_str!("../../../cluster/templates/proxy.yaml");
/// Which requests the API server notes.
pub const AUDIT: &str = include_str!("../../../cluster/templates/audit.yaml");
/// Objects that a new cluster gets.
pub const SYSTEM: &str = include_str!("../../../cluster/templates/system.yaml");

/// The node's address, which pods reach: the bridge, pods' gateway.
pub const HOST_IP: &str = "10.77.0.1";
/// Pods' addresses. Every box has a network of its own, so all use the same.
const PODS: &str = "10.77.0.0/16";
/// The first pod's address.
const POD_FIRST: &str = "10.77.1.1";
/// Services' addresses.
const SERVICES: &str = "10.96.0.0/16";
/// The API's own service.
pub const SERVICE_IP: &str = "10.96.0.1";
/// The DNS service.
pub const DNS_IP: &str = "10.96.0.10";

/// What is special to one box.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The box's folder.
    pub dir: PathBuf,
    /// Name of its node and of its control group.
    pub node: String,
    /// The API's port, the same on the machine's loopback and in the box.
    pub port: u16,
    /// Folder of network plugins.
    pub cni: PathBuf,
}

impl Settings {
    /// Replaces the words between `@` in a template.
    ///
    /// # Errors
    /// A word is left that no setting has: the template and this code disagree.
    pub fn fill(&self, template: &str) -> Result<String> {
        let path = |path: &Path| path.display().to_string();
        let mut text = template.to_owned();
        for (word, value) in [
            ("DIR", path(&self.dir)),
            ("NODE", self.node.clone()),
            ("CGROUP", self.node.clone()),
            ("PORT", self.port.to_string()),
            ("CNI_BIN", path(&self.cni)),
            ("HOST_IP", HOST_IP.to_owned()),
            ("PODS", PODS.to_owned()),
            ("POD_FIRST", POD_FIRST.to_owned()),
            ("SERVICES", SERVICES.to_owned()),
            ("DNS_IP", DNS_IP.to_owned()),
            ("PAUSE", qualified(Image::Pause.reference())),
            ("COREDNS", qualified(Image::Coredns.reference())),
        ] {
            text = text.replace(&format!("@{word}@"), &value);
        }
        match leftover(&text) {
            None => Ok(text),
            Some(word) => bail!("a template asks for {word}, which no setting has"),
        }
    }
}

/// A word between `@` that is still there.
fn leftover(text: &str) -> Option<&str> {
    text.split_inclusive('@').zip(text.match_indices('@').map(|(at, _)| at)).find_map(|(_, at)| {
        let rest = &text[at + 1..];
        let end = rest.find('@')?;
        let word = &rest[..end];
        (!word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')).then_some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings { dir: "/cache/clusters/a".into(), node: "qscaler-a".into(), port: 4711, cni: "/cni".into() }
    }

    #[test]
    fn every_template_is_filled_whole() {
        for template in [SETUP, CLEANUP, CONTAINERD, CNI, KUBELET, PROXY, AUDIT, SYSTEM] {
            settings().fill(template).unwrap();
        }
    }

    #[test]
    fn a_word_that_no_setting_has_is_named() {
        assert!(settings().fill("a: @NOT_KNOWN@").unwrap_err().to_string().contains("NOT_KNOWN"));
        assert_eq!(settings().fill("mail@example.org, \"$@\"").unwrap(), "mail@example.org, \"$@\"");
    }

    #[test]
    fn two_boxes_share_neither_folder_nor_control_group() {
        let other = Settings { dir: "/cache/clusters/b".into(), node: "qscaler-b".into(), ..settings() };
        for template in [CLEANUP, KUBELET] {
            let (a, b) = (settings().fill(template).unwrap(), other.fill(template).unwrap());
            assert_ne!(a, b);
            assert!(!b.contains("qscaler-a") && !b.contains("/clusters/a"));
        }
    }
}
