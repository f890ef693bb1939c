//! The rights that the chart gives, beside the calls that were made. In: roles and bindings as the cluster has them, the API server's audit log of a run. Out: a
//! sentence for each right that nothing used, and for each call that was refused; and one for each right that a run cannot show, with the reason. Left to others:
//! making the calls (`tests/tests/e2e`).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

/// Rights that no call of the default run shows, or not of every one, each with its reason.
const UNSHOWN: &[(&str, &str)] = &[
    ("apps/deployments/finalizers update", "asked of the authorizer alone, where OwnerReferencesPermissionEnforcement is on"),
    ("keda.sh/scaledobjects list", "KEDA is not in the tests' cluster"),
    ("keda.sh/scaledobjects watch", "KEDA is not in the tests' cluster"),
    ("autoscaling.k8s.io/verticalpodautoscalers list", "the VPA is not in the tests' cluster"),
    ("autoscaling.k8s.io/verticalpodautoscalers watch", "the VPA is not in the tests' cluster"),
    ("/configmaps get", "no worker of the tests has its URL in a ConfigMap"),
    ("/secrets update", "certificates are renewed after days, and a Secret of theirs is written again only then"),
    ("events.k8s.io/events patch", "an Event is told again only where its cause lasts for minutes"),
    ("qscaler.dev/qworkers delete", "a workload is given up, or made anew under its name, only where its namespace stays"),
];

/// The API server's words about a namespace that is ending.
const TERMINATING: &str = "because it is being terminated";

/// The account of the Job after an uninstallation, and how long around its calls others may find their rights gone, seconds: the parts end while their roles go.
const CLEAN_UP: &str = "qscaler-clean-up";
const AROUND_UNINSTALL_S: u64 = 90;

/// One right of one account: group/resource and verb.
type Right = (String, String);

/// What was found between rights and calls.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// What must not be: calls that were refused, rights that are of no use.
    pub wrong: Vec<String>,
    /// Rights that this run did not use, and why a run may not.
    pub unshown: Vec<String>,
}

/// Compares rights with calls. `whole`: every test has run and passed, so that what nothing used is of no use.
///
/// # Errors
/// Something cannot be read.
pub fn compare(roles: &Value, bindings: &Value, audit: &str, whole: bool) -> Result<Compared> {
    let given = given(roles, bindings)?;
    let mut wrong = BTreeSet::new();
    let mut used: BTreeSet<Right> = BTreeSet::new();
    let mut calls = 0_u64;
    let uninstalls: Vec<u64> = audit.lines().filter(|line| line.contains(CLEAN_UP)).filter_map(second).collect();
    let leaving = |line: &str| second(line).is_some_and(|at| uninstalls.iter().any(|then| then.abs_diff(at) <= AROUND_UNINSTALL_S));
    for line in audit.lines().filter(|line| !line.trim().is_empty()) {
        // The last line may be half written.
        let Ok(call) = serde_json::from_str::<Value>(line) else { continue };
        let text = |pointer: &str| call.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let Some(account) = text("/user/username").rsplit(':').next().filter(|name| name.starts_with("qscaler-")) else { continue };
        let resource =
            [text("/objectRef/resource"), text("/objectRef/subresource")].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        if resource.is_empty() {
            continue;
        }
        calls += 1;
        let what = format!("{}/{resource} {}", text("/objectRef/apiGroup"), text("/verb"));
        // A namespace that is ending takes nothing from anyone.
        if call.pointer("/responseStatus/code").and_then(Value::as_u64) == Some(403)
            && !text("/responseStatus/message").contains(TERMINATING)
            && !leaving(line)
        {
            wrong.insert(format!("{account} was refused {what}: {}", text("/responseStatus/message")));
        }
        used.insert((account.to_owned(), what));
    }
    if calls == 0 {
        wrong.insert("the audit log has no call of any account of QScaler".to_owned());
    }
    let is_used = |right: &Right| {
        // A watch is noted when it ends, which is minutes after the last test where it lasts; before each the same is listed.
        let listed = right.1.strip_suffix(" watch").map(|what| (right.0.clone(), format!("{what} list")));
        used.contains(right) || listed.is_some_and(|listed| given.contains(&listed) && used.contains(&listed))
    };
    let mut unshown = Vec::new();
    for right in given.iter().filter(|right| whole && !is_used(right)) {
        let (account, what) = right;
        match UNSHOWN.iter().find(|(known, _)| known == what) {
            Some((_, reason)) => unshown.push(format!("{account} may {what}, and did not: {reason}")),
            None => drop(wrong.insert(format!("{account} may {what}, and never did"))),
        }
    }
    Ok(Compared { wrong: wrong.into_iter().collect(), unshown })
}

/// When a call came, as a number of seconds within its month.
fn second(line: &str) -> Option<u64> {
    let (_, time) = line.split_once("\"requestReceivedTimestamp\":\"")?;
    // 2026-12-01T00:31:12.345678Z
    let part = |from: usize| time.get(from..from + 2)?.parse::<u64>().ok();
    Some(((part(8)? * 24 + part(11)?) * 60 + part(14)?) * 60 + part(17)?)
}

/// Every right that a binding gives one of our accounts; those of the Job after an uninstallation are not, as it has not run.
fn given(roles: &Value, bindings: &Value) -> Result<BTreeSet<Right>> {
    let items = |list: &Value| list["items"].as_array().cloned().unwrap_or_default();
    let words = |value: &Value| value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let name = |value: &Value| value.as_str().map(str::to_owned).context("no name");
    let mut rules: BTreeMap<(String, String), Vec<Value>> = BTreeMap::new();
    for role in items(roles) {
        rules.insert((name(&role["kind"])?, name(&role["metadata"]["name"])?), role["rules"].as_array().cloned().unwrap_or_default());
    }
    let mut given = BTreeSet::new();
    for binding in items(bindings) {
        let of = rules.get(&(name(&binding["roleRef"]["kind"])?, name(&binding["roleRef"]["name"])?)).cloned().unwrap_or_default();
        for account in binding["subjects"].as_array().into_iter().flatten().filter_map(|subject| subject["name"].as_str()) {
            for rule in of.iter().filter(|_| account.starts_with("qscaler-")) {
                for group in words(&rule["apiGroups"]) {
                    for resource in words(&rule["resources"]) {
                        given.extend(words(&rule["verbs"]).into_iter().map(|verb| (account.to_owned(), format!("{group}/{resource} {verb}"))));
                    }
                }
            }
        }
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn roles() -> (Value, Value) {
        let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "patch"]}, {"apiGroups": ["keda.sh"], "resources": ["scaledobjects"], "verbs": ["list"]}]);
        let subjects = json!([{"kind": "ServiceAccount", "name": "qscaler-a", "namespace": "q"}]);
        (
            json!({"items": [{"kind": "ClusterRole", "metadata": {"name": "a"}, "rules": rules}]}),
            json!({"items": [{"kind": "ClusterRoleBinding", "roleRef": {"kind": "ClusterRole", "name": "a"}, "subjects": subjects}]}),
        )
    }

    fn call(verb: &str, resource: &str, code: u64) -> String {
        json!({"user": {"username": "system:serviceaccount:q:qscaler-a"}, "verb": verb, "objectRef": {"resource": resource}, "responseStatus": {"code": code, "message": "no"}})
            .to_string()
    }

    fn wrong(audit: &str, whole: bool) -> Vec<String> {
        let (roles, bindings) = roles();
        compare(&roles, &bindings, audit, whole).unwrap().wrong
    }

    #[test]
    fn an_unused_right_and_a_refused_call_are_named_and_nothing_else_is() {
        let all = [call("list", "pods", 200), call("patch", "pods", 200)].join("\n");
        assert!(wrong(&format!("{all}\n{{\"half"), true).is_empty());
        let some = call("list", "pods", 200);
        assert_eq!(wrong(&some, true), ["qscaler-a may /pods patch, and never did"]);
        assert!(wrong(&some, false).is_empty(), "not every test has run");
        let refused = [all, call("delete", "secrets", 403)].join("\n");
        assert_eq!(wrong(&refused, true), ["qscaler-a was refused /secrets delete: no"]);
        assert_eq!(wrong("", false).len(), 1, "an empty log shows nothing");
    }

    #[test]
    fn a_right_that_a_run_cannot_show_is_told_with_its_reason_and_fails_nothing() {
        let (roles, bindings) = roles();
        let all = [call("list", "pods", 200), call("patch", "pods", 200)].join("\n");
        let unshown = compare(&roles, &bindings, &all, true).unwrap().unshown;
        assert_eq!(unshown, ["qscaler-a may keda.sh/scaledobjects list, and did not: KEDA is not in the tests' cluster"]);
        assert!(compare(&roles, &bindings, &all, false).unwrap().unshown.is_empty());
    }

    #[test]
    fn a_watch_that_has_not_ended_yet_is_known_by_its_list() {
        let (mut roles, bindings) = roles();
        let rules = |verbs: Value| json!([{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]);
        roles["items"][0]["rules"] = rules(json!(["list", "watch"]));
        let of = |roles: &Value, audit: &str| compare(roles, &bindings, audit, true).unwrap().wrong;
        assert!(of(&roles, &call("list", "pods", 200)).is_empty());
        assert_eq!(of(&roles, &call("get", "pods", 200)).len(), 2);
        roles["items"][0]["rules"] = rules(json!(["watch"]));
        assert_eq!(of(&roles, &call("list", "pods", 403)), ["qscaler-a may /pods watch, and never did", "qscaler-a was refused /pods list: no"]);
    }

    #[test]
    fn a_part_that_ends_while_its_roles_go_is_refused_and_that_is_no_fault() {
        let at = |time: &str, call: &str| call.replacen('{', &format!("{{\"requestReceivedTimestamp\":\"2026-12-01T{time}.345678Z\","), 1);
        let job = call("list", "pods", 200).replace("qscaler-a", CLEAN_UP);
        let log = |refused: &str| [at("00:59:59", &job), at(refused, &call("patch", "pods", 403))].join("\n");
        assert!(wrong(&log("01:00:20"), false).is_empty());
        assert_eq!(wrong(&log("01:03:00"), false), ["qscaler-a was refused /pods patch: no"]);
    }
}
