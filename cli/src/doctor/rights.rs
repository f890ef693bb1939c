//! Who may do what. In: the ClusterRoles of the installation and their bindings, the API server's word on the user. Out: checks. Left to others: reading
//! (`cluster`). What each program needs is what the chart gives it: a test beside this compares the two.

use super::{Check, ClusterSeen, NOT_ALLOWED, State, check};
use std::collections::BTreeSet;

/// API group, resource, verb.
pub(crate) type Right = (String, String, String);

/// A ClusterRole as the cluster has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) name: String,
    pub(crate) rights: BTreeSet<Right>,
    /// A ClusterRoleBinding of the same name gives it to an account of the same name.
    pub(crate) bound: bool,
}

/// Rights, in which groups, resources and verbs are words with blanks between.
type Needed = &'static [(&'static str, &'static str, &'static str)];

/// What each part needs in the whole cluster, beside what may be limited to namespaces.
pub(crate) const NEEDED: &[(&str, Needed)] = &[
    (
        "qscaler-controller",
        &[
            ("apps", "deployments replicasets", "list watch"),
            ("", "pods namespaces nodes limitranges resourcequotas", "list watch"),
            ("autoscaling", "horizontalpodautoscalers", "list watch"),
            ("keda.sh", "scaledobjects", "list watch"),
            ("autoscaling.k8s.io", "verticalpodautoscalers", "list watch"),
            ("events.k8s.io", "events", "create patch"),
            ("qscaler.dev", "qworkers", "get list watch create delete"),
            ("qscaler.dev", "qworkers/status", "patch"),
            ("qscaler.dev", "qworkercheckpoints", "get create update"),
            ("apiextensions.k8s.io", "customresourcedefinitions", "get"),
            ("apps", "deployments/finalizers", "update"),
        ],
    ),
    ("qscaler-controller-writes", &[("apps", "deployments/scale", "update"), ("", "pods pods/resize", "patch"), ("", "pods/eviction", "create")]),
    ("qscaler-broker-urls", &[("", "secrets configmaps", "get")]),
    (
        "qscaler-webhook",
        &[
            ("apps", "deployments", "get list watch"),
            ("", "namespaces limitranges", "list watch"),
            ("qscaler.dev", "qworkers", "list watch"),
            ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "get"),
        ],
    ),
    ("qscaler-certs", &[("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "get patch")]),
];
/// Parts whose role is bound in the whole cluster in any case; the others may be in namespaces.
const BOUND: &[&str] = &["qscaler-controller", "qscaler-webhook", "qscaler-certs"];

/// What the user's own commands ask of the API server: group, resource, verb, and which they are.
pub(crate) const COMMANDS: &[(&str, &str, &str, &str)] = &[
    ("qscaler.dev", "qworkers", "list", "status, doctor"),
    ("qscaler.dev", "qworkers", "get", "explain, adopt"),
    ("events.k8s.io", "events", "list", "explain"),
    ("apps", "deployments", "get", "explain, adopt, pause, resume"),
    ("apps", "deployments", "patch", "adopt, pause, resume"),
    ("", "namespaces", "patch", "adopt, where the namespace has no label yet"),
    ("", "pods", "patch", "release"),
];

/// The rights of a row of words.
pub(crate) fn flat((groups, resources, verbs): (&str, &str, &str)) -> BTreeSet<Right> {
    let each = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut out = BTreeSet::new();
    for group in each(groups) {
        for resource in each(resources) {
            out.extend(each(verbs).into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
        }
    }
    out
}

fn has(role: &Role, (group, resource, verb): &Right) -> bool {
    let is = |given: &str, wanted: &str| given == "*" || given == wanted;
    role.rights.iter().any(|(g, r, v)| is(g, group) && is(r, resource) && is(v, verb))
}

fn word((group, resource, verb): &Right) -> String {
    if group.is_empty() { format!("{verb} {resource}") } else { format!("{verb} {resource}.{group}") }
}

/// Whether the installed roles are enough. `certs`: that part is installed.
pub(super) fn installed(roles: &ClusterSeen<Vec<Role>>, certs: bool) -> Vec<Check> {
    const NAME: &str = "QScaler's accounts have the rights that this version needs";
    let roles = match roles {
        ClusterSeen::Yes(roles) => roles,
        ClusterSeen::NotAllowed => return vec![check(NAME, State::Unknown, NOT_ALLOWED)],
        ClusterSeen::No(why) => return vec![check(NAME, State::Unknown, why)],
    };
    let mut wrong = Vec::new();
    for (name, needed) in NEEDED.iter().filter(|(name, _)| certs || *name != "qscaler-certs") {
        let Some(role) = roles.iter().find(|role| role.name == *name) else {
            wrong.push(format!("there is no ClusterRole {name}"));
            continue;
        };
        let missing: Vec<String> = needed.iter().flat_map(|row| flat(*row)).filter(|right| !has(role, right)).map(|right| word(&right)).collect();
        if !missing.is_empty() {
            wrong.push(format!("ClusterRole {name} does not give: {}", missing.join(", ")));
        }
        if BOUND.contains(name) && !role.bound {
            wrong.push(format!("no ClusterRoleBinding {name} gives it to the ServiceAccount {name}"));
        }
    }
    match wrong.is_empty() {
        true => vec![check(NAME, State::Ok, "")],
        false => vec![check(
            NAME,
            State::Failed,
            format!("{}\nhelm upgrade brings them back; a ClusterRole kept elsewhere must follow the chart's", wrong.join("\n")),
        )],
    }
}

/// What the user may do, by the API server's own word; None: it did not say.
pub(super) fn of_user(may: &[Option<bool>]) -> Check {
    const NAME: &str = "you may use every command";
    let lines = |answer: Option<bool>| -> Vec<String> {
        let asked = COMMANDS.iter().zip(may).filter(|(_, may)| **may == answer);
        asked
            .map(|((group, resource, verb, commands), _)| {
                format!("{}: {commands}", word(&((*group).to_owned(), (*resource).to_owned(), (*verb).to_owned())))
            })
            .collect()
    };
    let (no, unknown) = (lines(Some(false)), lines(None));
    if !no.is_empty() {
        return check(NAME, State::Warning, format!("you have no right to\n{}", no.join("\n")));
    }
    match unknown.is_empty() {
        true => check(NAME, State::Ok, ""),
        false => check(NAME, State::Unknown, "the API server does not say what you may do"),
    }
}
