//! Where certificates are kept. In: the API server, one step. Out: the state as read, the step carried out. Left to others: what to do (`plan`).
//!
//! Secrets are written with the resourceVersion that was read, so of two writers one gets a conflict and reads again. The webhook configuration
//! gets a server-side apply of `clientConfig.caBundle` alone, by a field manager of its own: neither Helm nor GitOps fights over it.

use crate::issue::{ControlKey, Pair};
use crate::plan::{Authorities, CertificateStep, State, StoredKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use qscaler_core::names::{
    CA_SECRET, CONTROL_KEY_PRIVATE, CONTROL_KEY_PUBLIC, CONTROL_KEY_SECRET, LABEL_PART_OF, PART_OF, TLS_SECRET, WEBHOOK_CONFIGURATION,
};
use serde_json::json;
use std::collections::BTreeMap;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Field manager of the bundle.
pub const FIELD_MANAGER: &str = "qscaler-certs";

const TLS_TYPE: &str = "kubernetes.io/tls";
const CERT: &str = "tls.crt";
const KEY: &str = "tls.key";
const BUNDLE: &str = "ca.crt";
const PREVIOUS: &str = "previous.crt";
const SINCE: &str = "since";

/// Why the API server did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another writer was first: read again.
    #[error("another writer changed {0} meanwhile")]
    Conflict(&'static str),
    /// A request failed.
    #[error("{what} failed")]
    Api {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: kube::Error,
    },
}

/// Access to the four objects.
#[derive(Clone)]
pub struct Store {
    secrets: Api<Secret>,
    configurations: Api<MutatingWebhookConfiguration>,
}

/// What was read, with the versions that a write must meet.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// For `plan`.
    pub state: State,
    ca: Option<Secret>,
    tls: Option<Secret>,
    control: Option<Secret>,
    configuration: Option<MutatingWebhookConfiguration>,
}

impl Store {
    /// Secrets of this namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { secrets: Api::namespaced(client.clone(), namespace), configurations: Api::all(client) }
    }

    /// Reads all four.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub async fn read(&self) -> Result<Snapshot, StoreError> {
        let api = |what| move |source| StoreError::Api { what, source };
        let ca = self.secrets.get_opt(CA_SECRET).await.map_err(api("reading the authority's Secret"))?;
        let tls = self.secrets.get_opt(TLS_SECRET).await.map_err(api("reading the leaf's Secret"))?;
        let control = self.secrets.get_opt(CONTROL_KEY_SECRET).await.map_err(api("reading the Secret of control messages' key"))?;
        let configuration = self.configurations.get_opt(WEBHOOK_CONFIGURATION).await.map_err(api("reading the webhook configuration"))?;
        let state = State {
            authorities: ca.as_ref().and_then(authorities),
            leaf: tls.as_ref().and_then(|secret| Some(Pair { cert: text(secret, CERT)?, key: text(secret, KEY)? })),
            leaf_bundle: tls.as_ref().and_then(|secret| text(secret, BUNDLE)).unwrap_or_default(),
            control: control.as_ref().map(stored_key),
            leaf_control: tls.as_ref().and_then(|secret| text(secret, CONTROL_KEY_PUBLIC)).unwrap_or_default(),
            published: configuration.as_ref().map(published),
        };
        Ok(Snapshot { state, ca, tls, control, configuration })
    }

    /// Carries a step out.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when another writer was first, else when the API server does not answer, or refuses.
    pub async fn apply(&self, snapshot: &Snapshot, step: &CertificateStep) -> Result<(), StoreError> {
        match step {
            CertificateStep::ControlKey(key) => {
                self.put(CONTROL_KEY_SECRET, snapshot.control.as_ref(), "Opaque", &[(CONTROL_KEY_PRIVATE, &key.private)]).await
            }
            CertificateStep::Authorities(authorities) => {
                let since = authorities.since.format(&Rfc3339).unwrap_or_default();
                let data = [(CERT, &authorities.current.cert), (KEY, &authorities.current.key), (PREVIOUS, &authorities.previous), (SINCE, &since)];
                self.put(CA_SECRET, snapshot.ca.as_ref(), TLS_TYPE, &data).await
            }
            CertificateStep::Leaf { leaf, bundle, control } => {
                let data = [(CERT, &leaf.cert), (KEY, &leaf.key), (BUNDLE, bundle), (CONTROL_KEY_PUBLIC, control)];
                self.put(TLS_SECRET, snapshot.tls.as_ref(), TLS_TYPE, &data).await
            }
            CertificateStep::Publish(bundle) => self.publish(snapshot, bundle).await,
        }
    }

    async fn put(&self, name: &'static str, old: Option<&Secret>, kind: &str, data: &[(&str, &String)]) -> Result<(), StoreError> {
        let data: BTreeMap<String, ByteString> = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect();
        let written = match old {
            Some(old) => {
                let secret = Secret { data: Some(data), string_data: None, ..old.clone() };
                self.secrets.replace(name, &PostParams::default(), &secret).await
            }
            None => {
                let labels = [(LABEL_PART_OF.to_owned(), PART_OF.to_owned())].into();
                let metadata = ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
                let secret = Secret { metadata, data: Some(data), type_: Some(kind.to_owned()), ..Secret::default() };
                self.secrets.create(&PostParams::default(), &secret).await
            }
        };
        written.map(drop).map_err(|source| failed(name, "writing a Secret", source))
    }

    async fn publish(&self, snapshot: &Snapshot, bundle: &str) -> Result<(), StoreError> {
        let Some(configuration) = &snapshot.configuration else { return Ok(()) };
        let bundle = STANDARD.encode(bundle);
        let webhooks: Vec<_> =
            configuration.webhooks.iter().flatten().map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}})).collect();
        let patch = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            // The uid keeps the apply from making a configuration that was deleted meanwhile.
            "metadata": {"name": WEBHOOK_CONFIGURATION, "uid": configuration.metadata.uid},
            "webhooks": webhooks,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let applied = self.configurations.patch(WEBHOOK_CONFIGURATION, &params, &Patch::Apply(&patch)).await;
        applied.map(drop).map_err(|source| failed(WEBHOOK_CONFIGURATION, "publishing the bundle", source))
    }
}

fn failed(name: &'static str, what: &'static str, source: kube::Error) -> StoreError {
    match source {
        kube::Error::Api(status) if status.code == 409 => StoreError::Conflict(name),
        source => StoreError::Api { what, source },
    }
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok().filter(|text| !text.is_empty())
}

fn stored_key(secret: &Secret) -> StoredKey {
    text(secret, CONTROL_KEY_PRIVATE).and_then(|pem| ControlKey::read(&pem)).map_or(StoredKey::Unreadable, StoredKey::Good)
}

fn authorities(secret: &Secret) -> Option<Authorities> {
    Some(Authorities {
        current: Pair { cert: text(secret, CERT)?, key: text(secret, KEY)? },
        previous: text(secret, PREVIOUS).unwrap_or_default(),
        since: OffsetDateTime::parse(&text(secret, SINCE)?, &Rfc3339).ok()?,
    })
}

fn published(configuration: &MutatingWebhookConfiguration) -> Vec<String> {
    let bundles = configuration.webhooks.iter().flatten().map(|webhook| webhook.client_config.ca_bundle.as_ref());
    bundles.map(|bundle| bundle.map(|b| String::from_utf8_lossy(&b.0).into_owned()).unwrap_or_default()).collect()
}
