//! The key by which control messages are signed. In: the Secret that `certs` makes, or whoever installs without it. Out: a signer that has its key, from the
//! start where there is one, and soon after it was made or changed. Left to others: making it (`certs`), signing (`broker::signing`), what becomes of pods
//! that know another (`show::hold_effective`, `drain::replace`).
//!
//! Every replica reads the same Secret. A Secret that is gone, or cannot be read, changes nothing in a controller that has had its key.

use crate::show::metrics::Metrics;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use qscaler_broker::signing::{Signer, SigningKey};
use qscaler_core::control_key;
use qscaler_core::names::{CONTROL_KEY_PRIVATE, CONTROL_KEY_SECRET};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Without a key: how soon it is looked for again. A first install makes it within seconds.
const WITHOUT: Duration = Duration::from_secs(5);
/// With one: a key that was changed signs after this, at the latest.
const WITH: Duration = Duration::from_secs(30);
/// The first reading is waited for, so that no pod gets an unsigned message for want of it; not longer than this.
const FIRST: Duration = Duration::from_secs(10);

/// Reads the key, then goes on looking in the background until the end.
pub async fn start(secrets: Api<Secret>, signer: Signer, metrics: Metrics, stop: CancellationToken) {
    let mut keeper = Keeper { secrets, signer, metrics, said: None };
    if tokio::time::timeout(FIRST, keeper.look()).await.is_err() {
        tracing::warn!("the key of control messages could not be read in time; it is looked for again");
    }
    tokio::spawn(async move {
        loop {
            let wait = if keeper.signer.public().is_some() { WITH } else { WITHOUT };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => keeper.look().await,
            }
        }
    });
}

struct Keeper {
    secrets: Api<Secret>,
    signer: Signer,
    metrics: Metrics,
    /// What was said last: an hour without a key is one line.
    said: Option<String>,
}

impl Keeper {
    async fn look(&mut self) {
        let found = match self.secrets.get_opt(CONTROL_KEY_SECRET).await {
            Ok(Some(secret)) => key_of(&secret).map_err(|why| format!("Secret {CONTROL_KEY_SECRET}, {CONTROL_KEY_PRIVATE}: {why}")),
            Ok(None) => Err(format!("there is no Secret {CONTROL_KEY_SECRET}")),
            Err(error) => Err(format!("Secret {CONTROL_KEY_SECRET} cannot be read: {error}")),
        };
        match found {
            Ok(key) => {
                self.said = None;
                if self.signer.public().as_deref() != Some(key.public()) {
                    tracing::info!(key = control_key::name(key.public()), "control messages are signed by this key");
                    self.signer.set(key);
                }
            }
            Err(why) if self.said.as_ref() != Some(&why) => {
                match self.signer.public() {
                    Some(key) => tracing::warn!(why, key = control_key::name(&key), "control messages are signed by the key before"),
                    None => tracing::warn!(why, "control messages are not signed: pods that were given a key do not believe them"),
                }
                self.said = Some(why);
            }
            Err(_) => {}
        }
        self.metrics.signing.set(if self.signer.public().is_some() { 1.0 } else { 0.0 });
    }
}

fn key_of(secret: &Secret) -> Result<SigningKey, String> {
    let pem = secret.data.as_ref().and_then(|data| data.get(CONTROL_KEY_PRIVATE)).ok_or("it is missing")?;
    SigningKey::from_pem(&pem.0).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{api_by, refusal};
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex, PoisonError};

    /// Two keys in PEM, made for this test, in base64 once more as a Secret has them.
    const KEYS: [&str; 2] = [
        "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCk1DNENBUUF3QlFZREsyVndCQ0lFSUlBWjBwT3ExaFNiMlFwc3NxNDMvMHdJeVdxcUJrSDhqdDlOMDhDVjVwZXIKLS0tLS1FTkQgUFJJVkFURSBLRVktLS0tLQo=",
        "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCk1DNENBUUF3QlFZREsyVndCQ0lFSUVtWi9yUlFCL2hrRTBkNVBQU1pOYjhQVTA0Vnl6SDZ4OGF3anBlL28ra0IKLS0tLS1FTkQgUFJJVkFURSBLRVktLS0tLQo=",
    ];

    #[tokio::test]
    async fn the_key_of_the_secret_is_taken_as_it_changes_and_kept_when_it_is_gone() {
        let (now, metrics): (Arc<Mutex<Option<Value>>>, _) = (Arc::default(), Metrics::default());
        let served = Arc::clone(&now);
        let (client, _) = api_by(move |_| match &*served.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(data) => (200, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": CONTROL_KEY_SECRET}, "data": data})),
            None => refusal(404, "NotFound", "there is none"),
        });
        let signer = Signer::default();
        let mut keeper = Keeper { secrets: Api::namespaced(client, "q"), signer: signer.clone(), metrics: metrics.clone(), said: None };
        let put = |value: Option<Value>| *now.lock().unwrap_or_else(PoisonError::into_inner) = value;
        keeper.look().await;
        assert!(signer.public().is_none() && metrics.text().contains("qscaler_control_messages_signed 0"));
        let mut seen = Vec::new();
        for pem in KEYS {
            put(Some(json!({"private.pem": pem})));
            keeper.look().await;
            seen.push(signer.public().unwrap());
        }
        assert!(seen[0] != seen[1] && metrics.text().contains("qscaler_control_messages_signed 1"));
        for broken in [None, Some(json!({})), Some(json!({"private.pem": "bm9uc2Vuc2U="}))] {
            put(broken);
            keeper.look().await;
            assert_eq!(signer.public().as_ref(), Some(&seen[1]), "the key before signs on");
        }
    }
}
