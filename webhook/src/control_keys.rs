//! The public keys that new pods get, by which control messages are signed. In: the key of the installation, as the Secret of the certificate has it now, and
//! those of the command line. Out: a list. Left to others: the private key, which never comes here (`certs`, `controller`); the environment variable (`inject`).

use qscaler_core::control_key::{self, KEYS_MAX};
use std::sync::{PoisonError, RwLock};

/// The keys.
#[derive(Debug, Default)]
pub struct ControlKeys(RwLock<Keys>);

#[derive(Debug, Default)]
struct Keys {
    installed: Option<String>,
    also: Vec<String>,
}

impl ControlKeys {
    /// Those that pods get from now on, each once: the installation's own first.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let also = keys.also.iter().filter(|key| keys.installed.as_ref() != Some(*key));
        keys.installed.iter().chain(also).take(KEYS_MAX).cloned().collect()
    }

    /// The installation's own key is this; what is no key changes nothing.
    pub fn put(&self, text: &str) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match control_key::read(text) {
            Some(key) if keys.installed.as_ref() == Some(&key) => {}
            Some(key) => {
                tracing::info!(
                    key = control_key::name(&key),
                    before = keys.installed.as_deref().map(control_key::name),
                    "pods get this key for control messages"
                );
                keys.installed = Some(key);
            }
            None if text.trim().is_empty() => {}
            None => tracing::error!("the public key of control messages cannot be read: new pods get the one before, if there was one"),
        }
    }

    /// These as well; what is no key is said and left out.
    pub fn also(&self, texts: &[String]) {
        let (good, bad): (Vec<_>, Vec<_>) =
            texts.iter().filter(|text| !text.is_empty()).map(|text| control_key::read(text)).partition(Option::is_some);
        if !bad.is_empty() {
            tracing::error!(number = bad.len(), "keys of the command line cannot be read; valid: 32 bytes (Ed25519) in base64");
        }
        self.0.write().unwrap_or_else(PoisonError::into_inner).also = good.into_iter().flatten().collect();
    }
}
