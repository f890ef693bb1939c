//! How the sidecar gets the broker's URL: exactly as the worker does. In: the worker's container, where its URL is. Out: entries for the
//! sidecar's `env` and `envFrom`. Left to others: reading any secret; nothing here ever sees a value that is not in the pod's own text.
//!
//! The kubelet resolves `$(NAME)` from `envFrom`, from entries above, and from the pod's services; `$$` is a dollar. So an entry is copied with
//! the entries above that it refers to, in their order, and `envFrom` is copied whole where something may come from there.

use super::reason::Refusal;
use qscaler_broker_url::expand::references;
use qscaler_core::config::BrokerRef;
use qscaler_core::names::sidecar;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// What the sidecar's container gets.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct BrokerEnv {
    pub(crate) env: Vec<Value>,
    pub(crate) env_from: Vec<Value>,
}

/// The entries for the broker, and for the control broker if it is another.
pub(crate) fn broker_env(container: &Value, broker: &BrokerRef, control: Option<&BrokerRef>) -> Result<BrokerEnv, Refusal> {
    let worker = WorkerEnv::new(container);
    let mut needed = Needed::default();
    let mut own = vec![worker.entry(sidecar::ENV_BROKER_URL, broker, &mut needed)?];
    if let Some(control) = control {
        own.push(worker.entry(sidecar::ENV_CONTROL_BROKER_URL, control, &mut needed)?);
    }
    let mut env: Vec<Value> = needed.entries.iter().map(|i| worker.env[*i].clone()).collect();
    env.append(&mut own);
    Ok(BrokerEnv { env, env_from: if needed.env_from { worker.env_from.to_vec() } else { Vec::new() } })
}

/// Positions in the worker's `env` that must be copied, and whether `envFrom` must.
#[derive(Default)]
struct Needed {
    entries: BTreeSet<usize>,
    env_from: bool,
}

struct WorkerEnv<'a> {
    container: &'a str,
    env: &'a [Value],
    env_from: &'a [Value],
}

impl<'a> WorkerEnv<'a> {
    fn new(container: &'a Value) -> Self {
        let array = |key: &str| container.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        Self { container: container.get("name").and_then(Value::as_str).unwrap_or_default(), env: array("env"), env_from: array("envFrom") }
    }

    /// The entry `name` with the value that `from` has in the worker.
    fn entry(&self, name: &str, from: &BrokerRef, needed: &mut Needed) -> Result<Value, Refusal> {
        let variable = match from {
            BrokerRef::Secret { name: secret, key } => return Ok(json!({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})),
            BrokerRef::Env(variable) => variable,
        };
        let missing = || Refusal::EnvMissing { variable: variable.clone(), container: self.container.to_owned() };
        let Some(at) = self.last(variable, self.env.len()) else {
            if self.env_from.is_empty() {
                return Err(missing());
            }
            needed.env_from = true;
            return Ok(json!({"name": name, "value": format!("$({variable})")}));
        };
        let mut entry: Map<String, Value> = self.env[at].as_object().cloned().unwrap_or_default();
        if entry.get("value").and_then(Value::as_str).unwrap_or_default().is_empty() && !entry.get("valueFrom").is_some_and(Value::is_object) {
            return Err(missing());
        }
        if entry.get("valueFrom").is_some_and(|from| from.get("fileKeyRef").is_some_and(Value::is_object)) {
            return Err(Refusal::EnvFromFile { variable: variable.clone() });
        }
        self.follow(at, needed);
        entry.insert("name".to_owned(), Value::String(name.to_owned()));
        Ok(Value::Object(entry))
    }

    /// Adds what the entry at this position refers to, and what that refers to. Ends, as references only go up.
    fn follow(&self, at: usize, needed: &mut Needed) {
        for name in references(self.env[at].get("value").and_then(Value::as_str).unwrap_or_default()) {
            match self.last(name, at) {
                Some(above) => {
                    if needed.entries.insert(above) {
                        self.follow(above, needed);
                    }
                }
                None => needed.env_from = true,
            }
        }
    }

    /// The last entry of this name above a position: the kubelet lets the later of two win.
    fn last(&self, name: &str, before: usize) -> Option<usize> {
        self.env[..before].iter().rposition(|entry| entry.get("name").and_then(Value::as_str) == Some(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> BrokerRef {
        BrokerRef::Env(name.to_owned())
    }

    #[test]
    fn a_value_and_a_secret_reference_are_copied_as_they_are() {
        let secret = json!({"name": "URL", "valueFrom": {"secretKeyRef": {"name": "mq", "key": "url", "optional": false}}});
        let container = json!({"name": "w", "env": [{"name": "OTHER", "value": "x"}, secret]});
        let got = broker_env(&container, &env("URL"), Some(&BrokerRef::Secret { name: "s".into(), key: "k".into() })).unwrap();
        assert_eq!(
            got.env,
            [
                json!({"name": "QSCALER_BROKER_URL", "valueFrom": {"secretKeyRef": {"name": "mq", "key": "url", "optional": false}}}),
                json!({"name": "QSCALER_CONTROL_BROKER_URL", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}),
            ]
        );
        assert!(got.env_from.is_empty());
    }

    #[test]
    fn what_a_value_refers_to_comes_with_it_in_order_and_nothing_else_does() {
        let container = json!({"name": "w", "env": [
            {"name": "USER", "value": "u"}, {"name": "UNUSED", "value": "x"}, {"name": "AUTH", "value": "$(USER):$(PASS)"},
            {"name": "URL", "value": "redis://$(AUTH)@$(REDIS_SERVICE_HOST)"}, {"name": "USER", "value": "late"}],
            "envFrom": [{"secretRef": {"name": "s"}}]});
        let got = broker_env(&container, &env("URL"), None).unwrap();
        let names: Vec<_> = got.env.iter().map(|e| e["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["USER", "AUTH", "QSCALER_BROKER_URL"]);
        assert_eq!(got.env[0]["value"], "u");
        assert_eq!(got.env_from, [json!({"secretRef": {"name": "s"}})], "PASS may come from there");
    }

    #[test]
    fn a_name_that_only_env_from_can_have_is_referred_to() {
        let container = json!({"name": "w", "envFrom": [{"configMapRef": {"name": "c"}, "prefix": "P_"}]});
        let got = broker_env(&container, &env("P_URL"), None).unwrap();
        assert_eq!(got.env, [json!({"name": "QSCALER_BROKER_URL", "value": "$(P_URL)"})]);
        assert_eq!(got.env_from.len(), 1);
    }

    #[test]
    fn a_missing_or_empty_variable_is_refused_by_name() {
        for container in
            [json!({"name": "w"}), json!({"name": "w", "env": [{"name": "URL", "value": ""}]}), json!({"name": "w", "env": [{"name": "URL"}]})]
        {
            assert_eq!(broker_env(&container, &env("URL"), None).unwrap_err(), Refusal::EnvMissing { variable: "URL".into(), container: "w".into() });
        }
    }
}
