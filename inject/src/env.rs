//! How the sidecar gets the broker's URL: exactly as the worker does, and never so that the pod would wait for it. In: a pod's working container,
//! where its URL is. Out: entries for the sidecar's `env` and `envFrom`, what is wrong with the reference, and the URL where the pod's own text
//! has it. Left to others: reading any secret; nothing here ever sees a value that is not in that text.
//!
//! The kubelet resolves `$(NAME)` from `envFrom`, from entries above, and from the pod's services; `$$` is a dollar. So an entry is copied with
//! the entries above that it refers to, in their order, and `envFrom` is copied whole where something may come from there.
//!
//! A container whose reference leads nowhere is not started, and a native sidecar that is not started holds up the whole pod. So references are
//! `optional` in the copy, and a sidecar without a URL starts blind. One exception: where the worker is the pod's only container and itself waits for
//! the very same object, the copy waits with it. Nothing is lost by that, and a Secret that is made after its Deployment is then known to both.

use crate::Settings;
use crate::mesh::PROXIES;
use crate::pod::{array, name};
use qscaler_broker_url::expand::{escape, expand_within, references};
use qscaler_broker_url::{Management, parse};
use qscaler_core::config::{BrokerRef, ManagementRef, WorkerConfig};
use qscaler_core::names::{TLS_KEY_CA, TLS_KEY_CERT, TLS_KEY_KEY, annotation, sidecar};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What the sidecar's container gets.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct BrokerEnv {
    pub(crate) env: Vec<Value>,
    pub(crate) env_from: Vec<Value>,
    /// Why the sidecar will have no URL.
    pub(crate) problems: Vec<BlindReason>,
}

/// Why a sidecar starts without a broker: the pod is held, and neither asked to leave nor measured by its reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlindReason {
    /// The variable is not in the container's environment.
    NoVariable {
        /// The annotation that names it.
        key: &'static str,
        /// The variable.
        variable: String,
        /// The container.
        container: String,
    },
    /// The variable comes from a file that another container writes after the sidecar has started.
    FromFile {
        /// The annotation that names it.
        key: &'static str,
        /// The variable.
        variable: String,
    },
    /// The pod's own text has the URL, and it is none that can be used.
    BadUrl {
        /// The annotation that refers to it.
        key: &'static str,
        /// What is wrong, without a password.
        problem: String,
    },
}

impl fmt::Display for BlindReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVariable { key, variable, container } => write!(
                f,
                "{key}: env:{variable}: container {container} sets no such variable; valid: a variable of its env or envFrom, or secret:NAME/KEY"
            )?,
            Self::FromFile { key, variable } => {
                write!(f, "{key}: env:{variable} comes from a file that is not there yet when the sidecar starts; valid: secret:NAME/KEY")?;
            }
            Self::BadUrl { key, problem } => write!(f, "{key}: the broker's URL cannot be used: {problem}")?,
        }
        f.write_str("; until then pods are held until their task is done, but the workload is not scaled")
    }
}

/// The entries for the broker, for the control broker and the management API if they are others, and for certificates. Those are never waited for: a broker
/// that asks for them says so.
pub(crate) fn broker_env(pod: &Value, container: &Value, wanted: &Wanted<'_>) -> BrokerEnv {
    let Wanted { broker, control, management, tls, authorities } = *wanted;
    let worker = WorkerEnv::new(pod, container);
    let mut out = BrokerEnv::default();
    let mut needed = Needed::default();
    let mut own = vec![worker.entry(sidecar::ENV_BROKER_URL, annotation::BROKER, broker, &mut needed, &mut out)];
    if let Some(control) = control {
        own.push(worker.entry(sidecar::ENV_CONTROL_BROKER_URL, annotation::CONTROL_BROKER, control, &mut needed, &mut out));
    }
    match management {
        Some(ManagementRef::Url(url)) => {
            let problem = Management::parse(url).err().map(|error| BlindReason::BadUrl { key: annotation::MANAGEMENT, problem: error.to_string() });
            out.problems.extend(problem);
            own.push(json!({"name": sidecar::ENV_MANAGEMENT_URL, "value": escape(url)}));
        }
        Some(ManagementRef::At(at)) => own.push(worker.entry(sidecar::ENV_MANAGEMENT_URL, annotation::MANAGEMENT, at, &mut needed, &mut out)),
        None => {}
    }
    if let Some(secret) = tls {
        for (name, key) in [(sidecar::ENV_BROKER_CA, TLS_KEY_CA), (sidecar::ENV_BROKER_CERT, TLS_KEY_CERT), (sidecar::ENV_BROKER_KEY, TLS_KEY_KEY)] {
            own.push(json!({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": true}}}));
        }
    } else if let Some(pem) = authorities {
        own.push(json!({"name": sidecar::ENV_BROKER_CA, "value": escape(pem)}));
    }
    out.env = needed.entries.iter().map(|i| worker.copied(&worker.env[*i], "valueFrom", &["secretKeyRef", "configMapKeyRef"])).collect();
    out.env.append(&mut own);
    if needed.env_from {
        out.env_from = worker.env_from.iter().map(|source| worker.relaxed(source, &["secretRef", "configMapRef"])).collect();
    }
    out
}

/// What of a configuration the sidecar needs to reach its broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) broker: &'a BrokerRef,
    pub(crate) control: Option<&'a BrokerRef>,
    pub(crate) management: Option<&'a ManagementRef>,
    /// A Secret with certificates.
    pub(crate) tls: Option<&'a str>,
    /// The installation's own authorities (PEM), where the workload names no Secret.
    pub(crate) authorities: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// What this workload's configuration says, in this installation.
    pub(crate) fn of(config: &'a WorkerConfig, settings: &'a Settings) -> Self {
        Self {
            broker: &config.broker,
            control: config.control_broker.as_ref(),
            management: config.management.as_ref(),
            tls: config.broker_tls.as_deref(),
            authorities: settings.broker_authorities.as_deref(),
        }
    }
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
    /// Positions in `env` by name, in order.
    by_name: BTreeMap<&'a str, Vec<usize>>,
    env_from: &'a [Value],
    /// Nothing else of the pod runs before the worker's own references are there.
    alone: bool,
}

impl<'a> WorkerEnv<'a> {
    fn new(pod: &'a Value, container: &'a Value) -> Self {
        let list = |key: &str| container.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        // Another container, or an init container, may be what makes the Secret: it must not be held up by ours.
        let others = array(pod, "initContainers").iter().chain(array(pod, "containers"));
        let alone = others.filter(|c| !PROXIES.contains(&name(c))).count() <= 1;
        let env = list("env");
        let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, entry) in env.iter().enumerate() {
            if let Some(name) = entry.get("name").and_then(Value::as_str) {
                by_name.entry(name).or_default().push(at);
            }
        }
        Self { container: name(container), env, by_name, env_from: list("envFrom"), alone }
    }

    /// The entry `name` with the value that `from` has in the worker.
    fn entry(&self, name: &str, key: &'static str, from: &BrokerRef, needed: &mut Needed, out: &mut BrokerEnv) -> Value {
        let variable = match from {
            BrokerRef::Secret { name: secret, key } => {
                let optional = !self.waits_for(secret, key);
                return json!({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": optional}}});
            }
            BrokerRef::Env(variable) => variable,
        };
        // The kubelet leaves what it cannot resolve as it is, and the sidecar knows it for that.
        let unresolved = || json!({"name": name, "value": format!("$({variable})")});
        let missing = || BlindReason::NoVariable { key, variable: variable.clone(), container: self.container.to_owned() };
        let Some(at) = self.last(variable, self.env.len()) else {
            needed.env_from = true;
            if self.env_from.is_empty() {
                out.problems.push(missing());
            }
            return unresolved();
        };
        let entry = &self.env[at];
        let from = entry.get("valueFrom").filter(|from| from.is_object());
        if entry.get("value").and_then(Value::as_str).unwrap_or_default().is_empty() && from.is_none() {
            out.problems.push(missing());
            return unresolved();
        }
        let mut followed = Needed::default();
        self.follow(at, &mut followed);
        if followed.entries.iter().chain([&at]).any(|at| from_file(&self.env[*at])) {
            out.problems.push(BlindReason::FromFile { key, variable: variable.clone() });
            return unresolved();
        }
        needed.entries.append(&mut followed.entries);
        needed.env_from |= followed.env_from;
        if let (Some(value), None) = (self.literal(at, REFERENCES_DEEP, &mut { LITERAL_WORK_MAX }), from) {
            let error = if key == annotation::MANAGEMENT { Management::parse(&value).err() } else { parse(&value).err() };
            out.problems.extend(error.map(|error| BlindReason::BadUrl { key, problem: error.to_string() }));
        }
        let mut entry = self.copied(entry, "valueFrom", &["secretKeyRef", "configMapKeyRef"]);
        entry["name"] = json!(name);
        entry
    }

    /// Whether the worker itself is not started before this key of this Secret is there.
    fn waits_for(&self, secret: &str, key: &str) -> bool {
        self.alone
            && self.env.iter().filter_map(|entry| entry.get("valueFrom")?.get("secretKeyRef")).any(|reference| {
                let is = |field: &str, value: &str| reference.get(field).and_then(Value::as_str) == Some(value);
                is("name", secret) && is("key", key) && reference.get("optional").and_then(Value::as_bool) != Some(true)
            })
    }

    /// A copy of an entry whose references, below `at`, hold nothing up.
    fn copied(&self, entry: &Value, at: &str, kinds: &[&str]) -> Value {
        let mut copy = entry.clone();
        if let Some(from) = entry.get(at).filter(|from| from.is_object()) {
            copy[at] = self.relaxed(from, kinds);
        }
        copy
    }

    fn relaxed(&self, source: &Value, kinds: &[&str]) -> Value {
        let mut copy = source.clone();
        for kind in kinds {
            if let Some(reference) = copy.get_mut(*kind).and_then(Value::as_object_mut).filter(|_| !self.alone) {
                reference.insert("optional".to_owned(), json!(true));
            }
        }
        copy
    }

    /// Adds what the entry at this position refers to, and what that refers to, and so on: each once.
    fn follow(&self, at: usize, needed: &mut Needed) {
        let mut left = vec![at];
        while let Some(at) = left.pop() {
            for name in references(self.env[at].get("value").and_then(Value::as_str).unwrap_or_default()) {
                match self.last(name, at) {
                    Some(above) if needed.entries.insert(above) => left.push(above),
                    Some(_) => {}
                    None => needed.env_from = true,
                }
            }
        }
    }

    /// The value at this position, where the pod's text has all of it, and it is found with little work.
    fn literal(&self, at: usize, depth: usize, work: &mut usize) -> Option<String> {
        let value = self.env[at].get("value").and_then(Value::as_str)?;
        *work = work.checked_sub(value.len() + 1)?;
        let mut known = BTreeMap::new();
        for name in references(value) {
            if !known.contains_key(name) {
                known.insert(name, self.literal(self.last(name, at)?, depth.checked_sub(1)?, work)?);
            }
        }
        let whole = expand_within(value, |name| known.get(name).map(String::as_str), URL_BYTES_MAX)?;
        *work = work.checked_sub(whole.len())?;
        Some(whole)
    }

    /// The last entry of this name above a position: the kubelet lets the later of two win.
    fn last(&self, name: &str, before: usize) -> Option<usize> {
        let all = self.by_name.get(name)?;
        all[..all.partition_point(|at| *at < before)].last().copied()
    }
}

/// Whether a variable comes from a file that another container writes.
fn from_file(entry: &Value) -> bool {
    entry.get("valueFrom").and_then(|from| from.get("fileKeyRef")).is_some_and(Value::is_object)
}

/// References within references that are followed for a literal URL: people write one or two.
const REFERENCES_DEEP: usize = 8;
/// No URL is longer.
const URL_BYTES_MAX: usize = 16 << 10;
/// Bytes that are read and made for one literal URL: references to references grow as a power of their number.
const LITERAL_WORK_MAX: usize = 16 * URL_BYTES_MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> BrokerRef {
        BrokerRef::Env(name.to_owned())
    }

    fn wanted<'a>(broker: &'a BrokerRef, control: Option<&'a BrokerRef>) -> Wanted<'a> {
        Wanted { broker, control, management: None, tls: None, authorities: None }
    }

    #[test]
    fn certificates_and_the_management_api_come_along_and_hold_nothing_up() {
        let container = json!({"name": "w", "env": [
            {"name": "HOST", "value": "mq"}, {"name": "API", "value": "http://$(HOST):15672"}, {"name": "URL", "value": "amqps://mq"}]});
        let pod = json!({"spec": {"containers": [container]}});
        let (url, at) = (env("URL"), ManagementRef::At(env("API")));
        let got = broker_env(&pod, &container, &Wanted { management: Some(&at), tls: Some("mq-tls"), ..wanted(&url, None) });
        let names: Vec<_> = got.env.iter().map(|e| e["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["HOST", "QSCALER_BROKER_URL", "QSCALER_MANAGEMENT_URL", "QSCALER_BROKER_CA", "QSCALER_BROKER_CERT", "QSCALER_BROKER_KEY"]);
        assert_eq!(got.env[2]["value"], "http://$(HOST):15672");
        assert_eq!(got.env[5]["valueFrom"], json!({"secretKeyRef": {"name": "mq-tls", "key": "tls.key", "optional": true}}));
        assert!(got.problems.is_empty());
        // The workload's own Secret wins over what the installation has for all.
        assert_eq!(broker_env(&pod, &container, &Wanted { tls: Some("mq-tls"), authorities: Some("PEM"), ..wanted(&url, None) }).env.len(), 4);
        let got = broker_env(&pod, &container, &Wanted { authorities: Some("a $(PEM)"), ..wanted(&url, None) });
        assert_eq!(got.env[1], json!({"name": "QSCALER_BROKER_CA", "value": "a $$(PEM)"}));
        let bad = ManagementRef::Url("http://mq:port/$x".to_owned());
        let got = broker_env(&pod, &container, &Wanted { management: Some(&bad), ..wanted(&url, None) });
        assert_eq!(got.env[1]["value"], "http://mq:port/$$x");
        assert!(got.problems[0].to_string().contains("qscaler.dev/management"), "{:?}", got.problems);
    }

    fn secret(name: &str, key: &str) -> BrokerRef {
        BrokerRef::Secret { name: name.into(), key: key.into() }
    }

    /// Alone in its pod.
    fn alone(container: &Value, broker: &BrokerRef, control: Option<&BrokerRef>) -> BrokerEnv {
        broker_env(&json!({"spec": {"containers": [container]}}), container, &wanted(broker, control))
    }

    /// With another container beside it.
    fn beside(container: &Value, broker: &BrokerRef, control: Option<&BrokerRef>) -> BrokerEnv {
        broker_env(&json!({"spec": {"containers": [container, {"name": "helper"}]}}), container, &wanted(broker, control))
    }

    #[test]
    fn a_value_and_a_secret_reference_are_copied_as_they_are() {
        let reference = json!({"name": "URL", "valueFrom": {"secretKeyRef": {"name": "mq", "key": "url", "optional": false}}});
        let container = json!({"name": "w", "env": [{"name": "OTHER", "value": "x"}, reference]});
        let got = alone(&container, &env("URL"), Some(&secret("s", "k")));
        assert_eq!(
            got.env,
            [
                json!({"name": "QSCALER_BROKER_URL", "valueFrom": {"secretKeyRef": {"name": "mq", "key": "url", "optional": false}}}),
                json!({"name": "QSCALER_CONTROL_BROKER_URL", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}}),
            ]
        );
        assert!(got.env_from.is_empty() && got.problems.is_empty());
    }

    #[test]
    fn no_reference_of_ours_holds_up_a_pod_that_would_not_wait_for_it_anyway() {
        let own = |optional: Value| {
            json!({"name": "w", "env": [
                {"name": "HOST", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "h"}}},
                {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "mq", "key": "pass", "optional": optional}}},
                {"name": "URL", "value": "redis://:$(PASS)@$(HOST)/$(DB)"}],
                "envFrom": [{"secretRef": {"name": "s"}}, {"configMapRef": {"name": "m", "optional": false}}]})
        };
        let optional = |got: &BrokerEnv| {
            let of = |value: &Value, kinds: [&str; 2]| kinds.iter().find_map(|kind| value.get(kind)).map(|r| r["optional"] == true);
            let env = got.env.iter().filter_map(|e| of(e.get("valueFrom")?, ["secretKeyRef", "configMapKeyRef"]));
            env.chain(got.env_from.iter().filter_map(|e| of(e, ["secretRef", "configMapRef"]))).collect::<Vec<_>>()
        };
        // The worker is not started without them either, and nothing else of the pod runs meanwhile.
        assert_eq!(optional(&alone(&own(json!(false)), &env("URL"), None)), [false; 4]);
        assert_eq!(optional(&alone(&own(json!(true)), &env("URL"), None)), [false, true, false, false]);
        // Another container may be what makes them.
        assert_eq!(optional(&beside(&own(json!(false)), &env("URL"), None)), [true; 4]);
        let pod = json!({"spec": {"initContainers": [{"name": "init"}], "containers": [own(json!(false))]}});
        assert_eq!(optional(&broker_env(&pod, &own(json!(false)), &wanted(&env("URL"), None))), [true; 4]);
        let pod = json!({"spec": {"initContainers": [{"name": "istio-proxy", "restartPolicy": "Always"}], "containers": [own(json!(false))]}});
        assert_eq!(optional(&broker_env(&pod, &own(json!(false)), &wanted(&env("URL"), None))), [false; 4]);
        // A Secret of the annotation: only where the worker waits for the very same key.
        for (container, name, key, waits) in [
            (own(json!(false)), "mq", "pass", true),
            (own(json!(true)), "mq", "pass", false),
            (own(json!(false)), "mq", "url", false),
            (own(json!(false)), "nowhere", "url", false),
        ] {
            assert_eq!(optional(&alone(&container, &secret(name, key), None)), [!waits], "{name}/{key}");
            assert_eq!(optional(&beside(&container, &secret(name, key), None)), [true]);
        }
    }

    #[test]
    fn what_a_value_refers_to_comes_with_it_in_order_and_nothing_else_does() {
        let container = json!({"name": "w", "env": [
            {"name": "USER", "value": "u"}, {"name": "UNUSED", "value": "x"}, {"name": "AUTH", "value": "$(USER):$(PASS)"},
            {"name": "URL", "value": "redis://$(AUTH)@$(REDIS_SERVICE_HOST)"}, {"name": "USER", "value": "late"}],
            "envFrom": [{"secretRef": {"name": "s"}}]});
        let got = alone(&container, &env("URL"), None);
        let names: Vec<_> = got.env.iter().map(|e| e["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["USER", "AUTH", "QSCALER_BROKER_URL"]);
        assert_eq!(got.env[0]["value"], "u");
        assert_eq!(got.env_from, [json!({"secretRef": {"name": "s"}})], "PASS may come from there");
        assert!(got.problems.is_empty(), "not all of it is in the text");
    }

    #[test]
    fn a_url_that_the_pods_text_has_whole_is_checked() {
        let problems = |url: &str| {
            let container = json!({"name": "w", "env": [
                {"name": "HOST", "value": "redis"}, {"name": "PORT", "value": "6379"}, {"name": "AT", "value": "$(HOST):$(PORT)"}, {"name": "URL", "value": url}]});
            let got = alone(&container, &env("URL"), Some(&env("URL")));
            got.problems.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(problems("redis://:p$$w@$(AT)/0").is_empty());
        assert!(problems("mysql://$(ELSEWHERE)/").is_empty(), "it may come from a Service's variables");
        let said = problems("mysql://u:hunter2@$(AT)/0");
        assert!(said.len() == 2 && said[0].starts_with("qscaler.dev/broker: the broker's URL cannot be used"), "{said:?}");
        assert!(said[1].starts_with("qscaler.dev/control-broker: ") && !said.join("").contains("hunter2"), "{said:?}");
        let mut doubling: Vec<Value> = vec![json!({"name": "V0", "value": "xx"})];
        doubling.extend((1..64).map(|i| json!({"name": format!("V{i}"), "value": format!("$(V{0})$(V{0})", i - 1)})));
        let container = json!({"name": "w", "env": doubling});
        assert!(alone(&container, &env("V63"), None).problems.is_empty(), "no text grows without end");
    }

    #[test]
    fn a_name_that_only_env_from_can_have_is_referred_to() {
        let container = json!({"name": "w", "envFrom": [{"configMapRef": {"name": "c"}, "prefix": "P_"}]});
        let got = alone(&container, &env("P_URL"), None);
        assert_eq!(got.env, [json!({"name": "QSCALER_BROKER_URL", "value": "$(P_URL)"})]);
        assert!(got.env_from.len() == 1 && got.problems.is_empty());
    }

    #[test]
    fn a_variable_that_cannot_be_had_is_named_and_left_to_the_sidecar_to_see() {
        for (container, says) in [
            (json!({"name": "w"}), "env:URL: container w sets no such variable"),
            (json!({"name": "w", "env": [{"name": "URL", "value": ""}]}), "sets no such variable"),
            (json!({"name": "w", "env": [{"name": "URL"}]}), "sets no such variable"),
            (
                json!({"name": "w", "env": [{"name": "URL", "valueFrom": {"fileKeyRef": {"path": "f", "key": "k", "volumeName": "v"}}}]}),
                "comes from a file",
            ),
            (
                json!({"name": "w", "env": [{"name": "PASS", "valueFrom": {"fileKeyRef": {"path": "f", "key": "k", "volumeName": "v"}}},
                    {"name": "AUTH", "value": ":$(PASS)"}, {"name": "URL", "value": "redis://$(AUTH)@r"}]}),
                "comes from a file",
            ),
        ] {
            let got = alone(&container, &env("URL"), None);
            assert_eq!(got.env, [json!({"name": "QSCALER_BROKER_URL", "value": "$(URL)"})]);
            let words: Vec<String> = got.problems.iter().map(ToString::to_string).collect();
            assert!(words.len() == 1 && words[0].contains(says) && words[0].contains("pods are held"), "{words:?}");
        }
    }
}
