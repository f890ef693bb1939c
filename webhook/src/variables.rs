//! A pod whose variables stay text until a configuration says which of them are asked for. In: JSON of a pod. Out: the pod as a value, without its containers' variables, and
//! then with those that a configuration asks for. Left to others: which these are (`qscaler_inject::variables`), bounds of what is read (`bounded`).
//!
//! Of a large pod nearly all is variables, thousands of them, and a decision asks for a handful. As values they took half of a call's time, and many times their bytes.

use crate::bounded::{self, Texts};
use qscaler_core::config::WorkerConfig;
use qscaler_inject::variables::{Variable, needed};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};

/// Lists of containers whose variables are asked for.
const CONTAINERS: [&str; 2] = ["initContainers", "containers"];

/// Of a list of variables those that the configuration asks for, in their order, and those that are no variables. Null in place of one that has more parts than are left:
/// only what is no variable, and comes from no API server, has as many.
fn values(entries: &Texts, config: &WorkerConfig, left: &Cell<usize>) -> Vec<Value> {
    let texts: Vec<&str> = entries.each().collect();
    let variables: Vec<Variable<'_>> = texts.iter().map(|text| variable(text)).collect();
    let value = |at: usize| serde_json::from_str::<Entry<'_>>(texts[at]).map(|entry| entry.value).unwrap_or_default();
    let wanted = texts.iter().zip(needed(&variables, value, config)).filter(|(_, needed)| *needed);
    wanted.map(|(text, _)| bounded::within(left, &mut serde_json::Deserializer::from_str(text)).unwrap_or_default()).collect()
}

/// What is no variable counts as one from elsewhere, which is kept.
fn variable(text: &str) -> Variable<'_> {
    let read = || serde_json::from_str::<Entry<'_>>(text).ok();
    let nothing = Variable { name: Cow::Borrowed(""), from: true };
    named(text).or_else(|| read().map(Entry::into)).unwrap_or(nothing)
}

/// A variable with a value of its own, as API servers write it: most are, and need no reader of JSON. None: it may be another.
fn named(text: &str) -> Option<Variable<'_>> {
    let (name, rest) = text.strip_prefix("{\"name\":\"")?.split_once('"')?;
    let from = !(rest == "}" || rest.starts_with(",\"value\":\"") && !rest.contains("\"valueFrom\""));
    (!from && !name.contains('\\')).then_some(Variable { name: name.into(), from })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'t> {
    #[serde(borrow, default)]
    name: Cow<'t, str>,
    #[serde(borrow, default)]
    value: Cow<'t, str>,
    #[serde(borrow, default)]
    value_from: Option<&'t RawValue>,
}

impl<'t> From<Entry<'t>> for Variable<'t> {
    fn from(entry: Entry<'t>) -> Self {
        Self { name: entry.name, from: entry.value_from.is_some() }
    }
}

/// A pod as it is sent.
#[derive(Clone, Debug, Default)]
pub struct PodText {
    /// In place of each list of variables the number by which it is found below.
    without: Value,
    variables: Vec<Texts>,
}

impl PodText {
    /// All but the containers' variables, which must not be asked for.
    #[must_use]
    pub fn without_variables(&self) -> &Value {
        &self.without
    }

    /// With those variables of its containers that this configuration asks for.
    #[must_use]
    pub fn for_config(&self, config: &WorkerConfig) -> Value {
        let left = Cell::new(bounded::VALUES_MAX);
        let mut pod = self.without.clone();
        for list in CONTAINERS {
            let containers = pod.get_mut("spec").and_then(|spec| spec.get_mut(list)?.as_array_mut());
            for env in containers.into_iter().flatten().filter_map(|container| container.get_mut("env")) {
                let place = env.as_u64().and_then(|place| usize::try_from(place).ok());
                if let Some(entries) = place.and_then(|place| self.variables.get(place)) {
                    *env = Value::Array(values(entries, config, &left));
                }
            }
        }
        pod
    }
}

impl<'de> Deserialize<'de> for PodText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let variables = RefCell::default();
        let without = bounded::but_for_variables(&variables, deserializer)?;
        Ok(Self { without, variables: variables.into_inner() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qscaler_core::config::{Parsed, parse};
    use serde_json::json;
    use std::collections::BTreeMap;

    fn config() -> WorkerConfig {
        let annotations = [("worker", "celery"), ("max-replicas", "5"), ("queue", "q"), ("broker", "env:URL")]
            .map(|(k, v)| (format!("qscaler.dev/{k}"), v.to_owned()));
        let Parsed::Valid(config) = parse(&BTreeMap::from(annotations), &BTreeMap::new()) else { panic!("valid") };
        *config
    }

    fn read(pod: &Value) -> PodText {
        serde_json::from_str(&pod.to_string()).expect("a pod")
    }

    #[test]
    fn of_many_variables_those_that_are_asked_for_are_values_each_in_its_container() {
        let many = |last: Value| {
            let mut env: Vec<Value> = (0..2000).map(|i| json!({"name": format!("V{i}"), "value": "x"})).collect();
            env.insert(7, json!({"name": "H\n\"", "value": "r\u{e9}"}));
            env.push(last);
            env
        };
        let (first, second) = (json!({"name": "URL", "value": "redis://$(H\n\")", "more": [1]}), json!({"name": "FROM", "valueFrom": {"x": {}}}));
        let pod = json!({"metadata": {"labels": {"env": "prod"}}, "spec": {"initContainers": [{"name": "i", "env": many(second.clone())}],
            "containers": [{"name": "w", "env": many(first.clone())}, {"name": "none"}, {"name": "odd", "env": {"name": "URL"}}, {"env": [1, null, "URL", first]}]}});
        let got = read(&pod).for_config(&config());
        assert_eq!(got["metadata"], pod["metadata"]);
        assert_eq!(got["spec"]["initContainers"][0]["env"], json!([second]));
        assert_eq!(got["spec"]["containers"][0]["env"], json!([{"name": "H\n\"", "value": "r\u{e9}"}, first]));
        assert_eq!(got["spec"]["containers"][2], pod["spec"]["containers"][2]);
        assert_eq!(got["spec"]["containers"][3], pod["spec"]["containers"][3], "what is no variable is kept as it is");
    }

    #[test]
    fn variables_count_as_parts_as_text_and_as_values() {
        let zeros = |n: usize| format!("{{\"spec\":{{\"containers\":[{{\"env\":[0{}]}}]}}}}", ",0".repeat(n));
        let error = serde_json::from_str::<PodText>(&zeros(bounded::VALUES_MAX)).expect_err("too many").to_string();
        assert!(error.contains("more than 100000 values"), "{error}");
        let row = format!("[0{}]", ",0".repeat(999));
        let text = format!("{{\"spec\":{{\"containers\":[{{\"env\":[{row}{}]}}]}}}}", format!(",{row}").repeat(100));
        let pod: PodText = serde_json::from_str(&text).expect("as text they are few");
        let env = pod.for_config(&config())["spec"]["containers"][0]["env"].as_array().cloned().unwrap_or_default();
        assert!(env.len() == 101 && env[0].is_array() && env[100].is_null());
    }
}
