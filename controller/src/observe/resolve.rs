//! Where a broker's URL is, as the worker's container gets it. In: the reference, the container's environment, the Secrets and ConfigMaps that it
//! names. Out: the URL, or an error that names what is missing and what there is. Left to others: reading Secrets (`apply`), parsing the URL.
//!
//! The rules are the kubelet's: `envFrom` first, later sources over earlier ones, `env` over both; `$(NAME)` is the value of a variable
//! defined before, `$$(NAME)` is the text `$(NAME)`, and a reference to nothing stays as it is.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar};
use qscaler_broker_url::expand::{expand_within, references};
use qscaler_core::config::BrokerRef;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Bytes of all values of one container's environment: no process starts with more than 2 MiB, and references to references grow as a power of their number.
const ENVIRONMENT_MAX: usize = 4 << 20;

/// A URL with whatever it carries; never shown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The URL itself, for the one who connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretUrl(not shown)")
    }
}

/// Objects that a container's environment comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Names of Secrets.
    pub secrets: BTreeSet<String>,
    /// Names of ConfigMaps.
    pub config_maps: BTreeSet<String>,
}

/// The contents of those objects; None: there is no such object.
#[derive(Clone, Default)]
pub struct Sources {
    /// By name, then key.
    pub secrets: BTreeMap<String, Option<BTreeMap<String, String>>>,
    /// By name, then key.
    pub config_maps: BTreeMap<String, Option<BTreeMap<String, String>>>,
}

/// Why there is no URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The container has no such variable.
    #[error("container {container} has no environment variable {name}; it has {has}")]
    NoVariable {
        /// The container.
        container: String,
        /// The variable.
        name: String,
        /// Those there are.
        has: String,
    },
    /// An object that a reference names is missing.
    #[error("{kind} {name} does not exist in namespace {namespace}")]
    NoObject {
        /// `Secret` or `ConfigMap`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Where it should be.
        namespace: String,
    },
    /// The object has no such key.
    #[error("{kind} {name} in namespace {namespace} has no key {key}; it has {has}")]
    NoKey {
        /// `Secret` or `ConfigMap`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Where it is.
        namespace: String,
        /// The key.
        key: String,
        /// Those there are.
        has: String,
    },
    /// A source that has no value outside the pod.
    #[error(
        "environment variable {name} of container {container} comes from {source_kind}, which only the pod itself knows; use a value, a Secret or a ConfigMap"
    )]
    OnlyInPod {
        /// The container.
        container: String,
        /// The variable.
        name: String,
        /// `fieldRef` or the like.
        source_kind: &'static str,
    },
    /// More than any process starts with.
    #[error("container {container}: up to its variable {name} the environment has more than {ENVIRONMENT_MAX} bytes, with which no process starts")]
    TooLarge {
        /// The container.
        container: String,
        /// Where it is too much.
        name: String,
    },
    /// Set, and empty.
    #[error("{place} is empty; it must be a URL such as redis://host:6379/0 or amqp://user:password@host:5672/vhost")]
    Empty {
        /// What is empty.
        place: String,
    },
}

/// A container's environment, and where it runs.
#[derive(Clone, Copy, Debug)]
pub struct Environment<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// The container's name.
    pub container: &'a str,
    /// `env`.
    pub env: &'a [EnvVar],
    /// `envFrom`.
    pub env_from: &'a [EnvFromSource],
}

/// The objects that are read to resolve `reference`: those the variable, or one it refers to, may come from.
#[must_use]
pub fn needs(reference: &BrokerRef, of: &Environment<'_>) -> Needs {
    let mut needs = Needs::default();
    let name = match reference {
        BrokerRef::Secret { name, .. } => {
            needs.secrets.insert(name.clone());
            return needs;
        }
        BrokerRef::Env(name) => name,
    };
    let mut wanted = BTreeSet::from([name.clone()]);
    // From the last to the first: a variable can only refer to those before it.
    for var in of.env.iter().rev().filter(|v| v.value.is_some() || v.value_from.is_some()) {
        if !wanted.contains(&var.name) {
            continue;
        }
        wanted.extend(references(var.value.as_deref().unwrap_or_default()).map(str::to_owned));
        let from = var.value_from.as_ref();
        needs.secrets.extend(from.and_then(|f| f.secret_key_ref.as_ref()).map(|s| s.name.clone()));
        needs.config_maps.extend(from.and_then(|f| f.config_map_key_ref.as_ref()).map(|s| s.name.clone()));
    }
    let defined: BTreeSet<&str> = of.env.iter().map(|v| v.name.as_str()).collect();
    if wanted.iter().any(|w| !defined.contains(w.as_str())) {
        needs.secrets.extend(of.env_from.iter().filter_map(|f| f.secret_ref.as_ref()).map(|s| s.name.clone()));
        needs.config_maps.extend(of.env_from.iter().filter_map(|f| f.config_map_ref.as_ref()).map(|s| s.name.clone()));
    }
    needs
}

/// The URL.
///
/// # Errors
/// When something on the way is missing; the error names it.
pub fn resolve(reference: &BrokerRef, of: &Environment<'_>, sources: &Sources) -> Result<SecretUrl, ResolveError> {
    let (value, place) = match reference {
        BrokerRef::Secret { name, key } => (lookup("Secret", &sources.secrets, name, key, of.namespace)?, format!("key {key} of Secret {name}")),
        BrokerRef::Env(name) => (variable(name, of, sources)?, format!("environment variable {name} of container {}", of.container)),
    };
    let value = value.trim();
    if value.is_empty() { Err(ResolveError::Empty { place }) } else { Ok(SecretUrl(value.to_owned())) }
}

fn variable(name: &str, of: &Environment<'_>, sources: &Sources) -> Result<String, ResolveError> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut failed: BTreeMap<&str, ResolveError> = BTreeMap::new();
    for from in of.env_from {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let secret = from.secret_ref.as_ref().and_then(|r| sources.secrets.get(&r.name));
        let map = from.config_map_ref.as_ref().and_then(|r| sources.config_maps.get(&r.name));
        for (key, value) in secret.into_iter().chain(map).flatten().flatten() {
            values.insert(format!("{prefix}{key}"), value.clone());
        }
    }
    let mut left = ENVIRONMENT_MAX;
    for var in of.env {
        match one(var, of, sources, &values, &mut left) {
            Ok(Some(value)) => {
                failed.remove(var.name.as_str());
                values.insert(var.name.clone(), value);
            }
            Ok(None) => {}
            Err(error) => {
                failed.insert(&var.name, error);
            }
        }
    }
    if let Some(error) = failed.remove(name) {
        return Err(error);
    }
    values.remove(name).ok_or_else(|| {
        let missing = of.env_from.iter().find_map(|f| missing_source(f, sources, of.namespace));
        missing.unwrap_or_else(|| {
            let names: BTreeSet<&str> = of.env.iter().map(|v| v.name.as_str()).chain(values.keys().map(String::as_str)).collect();
            ResolveError::NoVariable { container: of.container.to_owned(), name: name.to_owned(), has: list(names.into_iter()) }
        })
    })
}

/// The value of one `env` entry, of at most so many bytes, which are taken off; None: it is optional, and what it names is missing.
fn one(
    var: &EnvVar,
    of: &Environment<'_>,
    sources: &Sources,
    before: &BTreeMap<String, String>,
    left: &mut usize,
) -> Result<Option<String>, ResolveError> {
    let most = *left;
    let mut within = |value: Option<String>| {
        *left = value.as_ref().and_then(|value| most.checked_sub(value.len())).unwrap_or_default();
        value.filter(|_| *left > 0).map(Some).ok_or_else(|| ResolveError::TooLarge { container: of.container.to_owned(), name: var.name.clone() })
    };
    let Some(from) = &var.value_from else {
        return within(expand_within(var.value.as_deref().unwrap_or_default(), |name| before.get(name).map(String::as_str), most));
    };
    let (found, optional) = if let Some(s) = &from.secret_key_ref {
        (lookup("Secret", &sources.secrets, &s.name, &s.key, of.namespace), s.optional == Some(true))
    } else if let Some(c) = &from.config_map_key_ref {
        (lookup("ConfigMap", &sources.config_maps, &c.name, &c.key, of.namespace), c.optional == Some(true))
    } else {
        let source_kind = if from.field_ref.is_some() {
            "fieldRef"
        } else if from.resource_field_ref.is_some() {
            "resourceFieldRef"
        } else {
            "a file"
        };
        return Err(ResolveError::OnlyInPod { container: of.container.to_owned(), name: var.name.clone(), source_kind });
    };
    match found {
        Ok(value) => within(Some(value)),
        Err(_) if optional => Ok(None),
        Err(error) => Err(error),
    }
}

fn lookup(
    kind: &'static str,
    objects: &BTreeMap<String, Option<BTreeMap<String, String>>>,
    name: &str,
    key: &str,
    namespace: &str,
) -> Result<String, ResolveError> {
    let Some(Some(object)) = objects.get(name) else {
        return Err(ResolveError::NoObject { kind, name: name.to_owned(), namespace: namespace.to_owned() });
    };
    object.get(key).cloned().ok_or_else(|| ResolveError::NoKey {
        kind,
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        key: key.to_owned(),
        has: list(object.keys().map(String::as_str)),
    })
}

fn missing_source(from: &EnvFromSource, sources: &Sources, namespace: &str) -> Option<ResolveError> {
    let secret = from.secret_ref.as_ref().map(|r| ("Secret", &sources.secrets, &r.name, r.optional));
    let map = from.config_map_ref.as_ref().map(|r| ("ConfigMap", &sources.config_maps, &r.name, r.optional));
    let (kind, objects, name, optional) = secret.or(map)?;
    let absent = !matches!(objects.get(name), Some(Some(_)));
    (absent && optional != Some(true)).then(|| ResolveError::NoObject { kind, name: name.clone(), namespace: namespace.to_owned() })
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
