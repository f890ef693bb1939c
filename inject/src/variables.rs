//! Which of a container's variables a decision asks for. In: the entries of an `env`, in order, and a configuration. Out: for each entry whether it is one of them. Left
//! to others: reading entries from text (the webhook), what they are asked for (`env`, `existing`, `pid_one`, `plan`).
//!
//! A pod may have thousands of variables, and a decision asks for a handful: who reads a pod as text need not make values of the others. [`crate::inject`] answers
//! the same with all of them and with these alone; a property test holds it to that.

use crate::pid_one::S6_VARIABLES;
use qscaler_broker_url::expand::references;
use qscaler_core::config::{BrokerRef, ManagementRef, WorkerConfig};
use std::borrow::Cow;
use std::collections::HashMap;

/// What all variables of a sidecar of ours begin with: a container that has them may be one.
const OURS: &str = "QSCALER_";
/// Celery's switch of what a signal means.
pub(crate) const REMAP_SIGTERM: &str = "REMAP_SIGTERM";

/// One entry of an `env`, but for its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable<'t> {
    /// Empty where it has none.
    pub name: Cow<'t, str>,
    /// It has a `valueFrom`.
    pub from: bool,
}

/// For each of the variables whether [`crate::inject`] asks for it under this configuration. `value` tells the value of the one at a position, empty where it has none; it is
/// asked of few.
pub fn needed<'t>(variables: &[Variable<'_>], value: impl Fn(usize) -> Cow<'t, str>, config: &WorkerConfig) -> Vec<bool> {
    let management = match &config.management {
        Some(ManagementRef::At(at)) => Some(at),
        _ => None,
    };
    let roots: Vec<&str> = [Some(&config.broker), config.control_broker.as_ref(), management].into_iter().flatten().filter_map(variable_of).collect();
    let is_root = |variable: &Variable<'_>| roots.iter().any(|root| *root == variable.name);
    let by_itself = |variable: &Variable<'_>| {
        variable.from
            || variable.name.starts_with(OURS)
            || variable.name.starts_with(S6_VARIABLES)
            || variable.name == REMAP_SIGTERM
            || is_root(variable)
    };
    let mut needed: Vec<bool> = variables.iter().map(by_itself).collect();
    let referred = |at: usize| references(&value(at)).map(str::to_owned).collect::<Vec<_>>();
    let mut left: Vec<String> = (0..variables.len()).filter(|at| is_root(&variables[*at])).flat_map(referred).collect();
    if left.is_empty() {
        return needed;
    }
    // All entries of a name: which of them wins depends on who refers to it.
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, variable) in variables.iter().enumerate() {
        places.entry(&variable.name).or_default().push(at);
    }
    while let Some(name) = left.pop() {
        // Taken out, so that each is followed once.
        for at in places.remove(name.as_str()).into_iter().flatten() {
            needed[at] = true;
            left.extend(referred(at));
        }
    }
    needed
}

fn variable_of(at: &BrokerRef) -> Option<&str> {
    match at {
        BrokerRef::Env(name) => Some(name),
        BrokerRef::Secret { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qscaler_core::config::{Parsed, parse};
    use std::collections::BTreeMap;

    fn kept(broker: &str, variables: &[(&'static str, &'static str)]) -> Vec<&'static str> {
        let annotations = [("worker", "celery"), ("max-replicas", "5"), ("queue", "q"), ("broker", broker)]
            .map(|(k, v)| (format!("qscaler.dev/{k}"), v.to_owned()));
        let Parsed::Valid(config) = parse(&BTreeMap::from(annotations), &BTreeMap::new()) else { panic!("valid") };
        let all: Vec<Variable<'_>> = variables.iter().map(|(name, value)| Variable { name: (*name).into(), from: value.is_empty() }).collect();
        variables.iter().zip(needed(&all, |at| variables[at].1.into(), &config)).filter(|(_, needed)| *needed).map(|((name, _), _)| *name).collect()
    }

    #[test]
    fn what_is_referred_to_at_any_depth_is_needed_and_nothing_else() {
        let variables =
            [("A", "x"), ("HOST", "$(NAME)"), ("NAME", "r"), ("B", "$(A)"), ("NAME", "$(LATE)"), ("URL", "redis://$(HOST)/$(GONE)"), ("LATE", "l")];
        assert_eq!(kept("env:URL", &variables), ["HOST", "NAME", "NAME", "URL", "LATE"]);
        assert_eq!(kept("secret:mq/url", &variables), Vec::<&str>::new());
    }

    #[test]
    fn what_is_asked_for_by_its_name_or_comes_from_elsewhere_is_needed() {
        let variables = [("S6_KEEP_ENV", "1"), ("REMAP_SIGTERM", "SIGQUIT"), ("QSCALER_CONFIG", "{}"), ("FROM", ""), ("OTHER", "$(FROM)")];
        assert_eq!(kept("env:URL", &variables), ["S6_KEEP_ENV", "REMAP_SIGTERM", "QSCALER_CONFIG", "FROM"]);
    }
}
