//! As whom the sidecar runs: a signal needs the worker's UID, or the right to signal anyone; reading its memory its GID too. In: the pod, its working container,
//! what earlier pods taught, whether root is allowed. Out: UID and GID where known, and whether the right is needed. Left to others: how they are learned
//! (`sidecar`, `controller`).
//!
//! Most images say nothing (root) or a user's name, which only the node can look up. Of their first pod nothing is known, and a sidecar of another user
//! could not send the worker its signal. Where the namespace allows it, that one sidecar runs as root with one capability, CAP_KILL (within the
//! `baseline` Pod Security level), and no other right of root; later pods have the learned user and no capability.

use qscaler_api::WorkerIds;
use serde_json::Value;

/// UID and GID of the sidecar; None: those of its image (65532).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: Option<i64>,
    pub(crate) gid: Option<i64>,
    /// Whether it gets CAP_KILL.
    pub(crate) may_signal_anyone: bool,
}

impl Identity {
    /// Whether `runAsNonRoot` holds.
    pub(crate) fn non_root(self) -> bool {
        self.uid != Some(0)
    }
}

/// The container's own setting, then the pod's, then what was learned. A learned UID 0 is not believed where the pod forbids root: the report
/// was wrong then, and the pod would be refused for it. Where nothing is known and `root` is allowed, by the namespace and by the pod: root.
pub(crate) fn identity(pod: &Value, container: &Value, learned: Option<WorkerIds>, root: bool) -> Identity {
    let of_pod = pod.get("spec").and_then(|s| s.get("securityContext"));
    let setting = |key: &str| [container.get("securityContext"), of_pod].into_iter().flatten().find_map(|context| context.get(key));
    let number = |key: &str| setting(key).and_then(Value::as_i64);
    let is_true = |value: Option<&Value>| value.and_then(Value::as_bool) == Some(true);
    let learned = learned.filter(|ids| ids.uid >= 0 && ids.gid >= 0 && !(ids.uid == 0 && is_true(setting("runAsNonRoot"))));
    let uid = number("runAsUser").or(learned.map(|ids| ids.uid));
    let gid = number("runAsGroup").or(learned.filter(|ids| Some(ids.uid) == uid).map(|ids| ids.gid));
    if uid.is_none() && root && !is_true(of_pod.and_then(|context| context.get("runAsNonRoot"))) {
        return Identity { uid: Some(0), gid, may_signal_anyone: true };
    }
    Identity { uid, gid, may_signal_anyone: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_wins_over_the_pod_and_both_over_what_was_learned() {
        let ids = |uid, gid| Some(WorkerIds { uid, gid });
        for (pod, container, learned, uid, gid) in [
            (json!({}), json!({}), None, None, None),
            (json!({}), json!({}), ids(1000, 1001), Some(1000), Some(1001)),
            (json!({"runAsUser": 7, "runAsGroup": 8}), json!({}), ids(1000, 1001), Some(7), Some(8)),
            (json!({"runAsUser": 7, "runAsGroup": 8}), json!({"runAsUser": 9}), None, Some(9), Some(8)),
            (json!({"runAsUser": 7}), json!({}), ids(7, 9), Some(7), Some(9)),
            (json!({"runAsUser": 7}), json!({}), ids(8, 9), Some(7), None),
            (json!({}), json!({}), ids(0, 0), Some(0), Some(0)),
            (json!({"runAsNonRoot": true}), json!({}), ids(0, 0), None, None),
            (json!({"runAsNonRoot": true}), json!({"runAsNonRoot": false}), ids(0, 0), Some(0), Some(0)),
            (json!({}), json!({}), ids(-1, 5), None, None),
        ] {
            let with = |root| identity(&json!({"spec": {"securityContext": pod}}), &json!({"securityContext": container}), learned, root);
            assert_eq!(with(false), Identity { uid, gid, may_signal_anyone: false }, "{pod} {container} {learned:?}");
            assert_eq!(with(false).non_root(), uid != Some(0));
            let forbidden = pod.get("runAsNonRoot") == Some(&json!(true));
            let expected = if uid.is_none() && !forbidden { (Some(0), true) } else { (uid, false) };
            assert_eq!((with(true).uid, with(true).may_signal_anyone), expected, "{pod} {container} {learned:?}");
        }
    }
}
