//! Whether control messages are signed, and by a key that pods know. In: whether the key's Secret is there, the public keys that new pods get, those that pods have.
//! Out: checks. Left to others: reading (`cluster`, `survey`), which asks for the Secret's metadata and never for the key; signing (`controller`).

use super::{AnnotatedPod, Check, ClusterSeen, NOT_ALLOWED, State, check};
use qscaler_api::QWorker;
use qscaler_core::control_key;
use qscaler_core::names::{CONTROL_KEY_SECRET, condition};
use std::collections::BTreeMap;

/// What is known of the keys.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Keys {
    /// The Secret with the private key is there.
    pub(crate) private: ClusterSeen<bool>,
    /// Public keys that new pods get, in the form of [`control_key::read`].
    pub(crate) public: ClusterSeen<Vec<String>>,
}

/// Pods of each workload.
type Counts<'w> = BTreeMap<&'w str, usize>;

/// All checks. `namespace`: of the installation; `certs`: that part is installed.
pub(super) fn checks(
    keys: &Keys,
    pods: &ClusterSeen<Vec<AnnotatedPod>>,
    workers: &ClusterSeen<Vec<QWorker>>,
    namespace: Option<&str>,
    certs: bool,
) -> Vec<Check> {
    let Some(namespace) = namespace else { return Vec::new() };
    let private = private(&keys.private, namespace, certs);
    let is_there = private.state == State::Ok;
    let mut out = vec![private];
    if is_there {
        out.extend(public(&keys.public, pods, workers, namespace, certs));
    }
    out
}

fn private(private: &ClusterSeen<bool>, namespace: &str, certs: bool) -> Check {
    let name = format!("control messages are signed (Secret {namespace}/{CONTROL_KEY_SECRET})");
    let without = "the Secret is not there, so whoever may write to a control queue is believed by pods that were given no key, and pods that have one believe nobody";
    match private {
        ClusterSeen::Yes(true) => check(name, State::Ok, ""),
        ClusterSeen::Yes(false) if certs => check(
            name,
            State::Failed,
            format!(
                "{without}: put it back from your backup, or let certs make another; kubectl -n {namespace} logs deployment/qscaler-certs says what keeps it from it"
            ),
        ),
        ClusterSeen::Yes(false) => check(
            name,
            State::Warning,
            format!(
                "{without}. Without certs nobody makes it:\nopenssl genpkey -algorithm ed25519 -out private.pem\nkubectl -n {namespace} create secret generic {CONTROL_KEY_SECRET} --from-file=private.pem\n\
                 openssl pkey -in private.pem -pubout -outform DER | tail -c 32 | base64\nThe last line is the public key: a value of the chart, controlKey.publicKeys"
            ),
        ),
        ClusterSeen::NotAllowed => check(name, State::Unknown, NOT_ALLOWED),
        ClusterSeen::No(why) => check(name, State::Unknown, why),
    }
}

/// The key is there: do pods know its public half?
fn public(
    public: &ClusterSeen<Vec<String>>,
    pods: &ClusterSeen<Vec<AnnotatedPod>>,
    workers: &ClusterSeen<Vec<QWorker>>,
    namespace: &str,
    certs: bool,
) -> Vec<Check> {
    const NEW: &str = "new pods are given the public key of control messages";
    let known = match public {
        ClusterSeen::Yes(known) => known,
        ClusterSeen::NotAllowed => return vec![check(NEW, State::Unknown, NOT_ALLOWED)],
        ClusterSeen::No(why) => return vec![check(NEW, State::Unknown, why)],
    };
    if known.is_empty() {
        let mend = if certs {
            format!("certs publishes it beside the certificate: kubectl -n {namespace} logs deployment/qscaler-certs")
        } else {
            "without certs it is a value of the chart, controlKey.publicKeys".to_owned()
        };
        return vec![check(NEW, State::Failed, format!("the webhook knows none, so new pods believe unsigned messages: {mend}"))];
    }
    let names: Vec<&str> = known.iter().map(|key| control_key::name(key)).collect();
    let mut out = vec![check(format!("{NEW} ({})", names.join(", ")), State::Ok, "")];
    let ClusterSeen::Yes(pods) = pods else { return out };
    let (mut all, mut none, mut others) = (Counts::new(), Counts::new(), Counts::new());
    for pod in pods.iter().filter(|pod| pod.has_sidecar) {
        let workload = pod.workload.as_str();
        *all.entry(workload).or_default() += 1;
        if pod.keys.is_empty() {
            *none.entry(workload).or_default() += 1;
        } else if !pod.keys.iter().any(|key| known.contains(key)) && !is_told(workload, workers) {
            *others.entry(workload).or_default() += 1;
        }
    }
    let counted = |of: &Counts<'_>| {
        let words: Vec<String> = of.iter().map(|(workload, count)| format!("{count} of {} of {workload}", all[workload])).collect();
        words.join(", ")
    };
    let restarts = |of: &Counts<'_>| {
        let lines = of.keys().filter_map(|workload| workload.split_once('/'));
        lines.map(|(namespace, name)| format!("\nkubectl -n {namespace} rollout restart deployment {name}")).collect::<String>()
    };
    if all.is_empty() {
        return out;
    }
    out.push(match others.is_empty() {
        true => check("every pod that was given a key knows this one", State::Ok, ""),
        false => check(
            "every pod that was given a key knows this one",
            State::Failed,
            format!(
                "{} know other keys alone, and believe no message: they work and are held, but are not asked to leave while idle. Put the Secret {CONTROL_KEY_SECRET} back if it was lost; else they are replaced \
                 one by one as they fall idle, or at once (tasks are finished):{}",
                counted(&others),
                restarts(&others)
            ),
        ),
    });
    out.push(match none.is_empty() {
        true => check("no pod believes unsigned messages", State::Ok, ""),
        false => check(
            "no pod believes unsigned messages",
            State::Warning,
            format!(
                "{} were made without a key (qscaler_unsigned_pods), and believe whoever may write to their control queue. Where that matters, replace them (tasks are finished):{}",
                counted(&none),
                restarts(&none)
            ),
        ),
    });
    out
}

/// Its QWorker says by itself that messages are refused.
fn is_told(workload: &str, workers: &ClusterSeen<Vec<QWorker>>) -> bool {
    let ClusterSeen::Yes(workers) = workers else { return false };
    let is = |worker: &&QWorker| {
        format!("{}/{}", worker.metadata.namespace.as_deref().unwrap_or_default(), worker.metadata.name.as_deref().unwrap_or_default()) == workload
    };
    let conditions = workers.iter().find(is).and_then(|worker| worker.status.as_ref()).map(|status| status.conditions.as_slice());
    conditions.unwrap_or_default().iter().any(|c| c.type_ == condition::HOLD_EFFECTIVE && c.status == "False" && c.reason == "MessagesRefused")
}
