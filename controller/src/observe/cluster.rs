//! What is known of the cluster as a whole. In: the API server. Out: its version, and what its largest node can give. Left to others: what is made of
//! them (`size`).

use kube::Client;
use qscaler_core::control_key::NAME_CHARS;
use qscaler_core::size::ClusterVersion;

/// The short name of a public key of control messages, see [`qscaler_core::control_key::name`].
pub type KeyName = [u8; NAME_CHARS];

/// The short name of this key, or this short name; None: it is none.
#[must_use]
pub fn key_name(text: &str) -> Option<KeyName> {
    qscaler_core::control_key::name(text).as_bytes().try_into().ok()
}

/// What the cluster allows, the same for all workloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Version of the API server; None: not known yet, so nothing is resized.
    pub version: Option<ClusterVersion>,
    /// Memory of the largest node, bytes.
    pub node_memory: Option<u64>,
    /// CPU of the largest node, millicores.
    pub node_cpu_m: Option<u64>,
    /// By which key control messages are signed; None: they are not.
    pub control_key: Option<KeyName>,
}

/// The API server's version; None: it does not say.
pub async fn cluster_version(client: &Client) -> Option<ClusterVersion> {
    let info = client
        .apiserver_version()
        .await
        .map_err(|error| tracing::warn!(%error, "the cluster's version is not known; running pods are not resized"))
        .ok()?;
    ClusterVersion::parse(&info.major, &info.minor)
}
