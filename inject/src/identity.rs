//! As whom the sidecar runs: a signal needs the worker's UID, reading its memory its GID too. In: the pod, its working container, what earlier pods
//! taught. Out: UID and GID where known. Left to others: how they are learned (`sidecar`, `controller`).

use qscaler_api::WorkerIds;
use serde_json::Value;

/// UID and GID of the sidecar; None: those of its image (65532).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: Option<i64>,
    pub(crate) gid: Option<i64>,
}

impl Identity {
    /// Whether `runAsNonRoot` holds.
    pub(crate) fn non_root(self) -> bool {
        self.uid != Some(0)
    }
}

/// The container's own setting, then the pod's, then what was learned. A learned UID 0 is not believed where the pod forbids root: the report
/// was wrong then, and the pod would be refused for it.
pub(crate) fn identity(pod: &Value, container: &Value, learned: Option<WorkerIds>) -> Identity {
    let setting = |key: &str| {
        [container.get("securityContext"), pod.get("spec").and_then(|s| s.get("securityContext"))]
            .into_iter()
            .flatten()
            .find_map(|context| context.get(key))
    };
    let number = |key: &str| setting(key).and_then(Value::as_i64);
    let root_forbidden = setting("runAsNonRoot").and_then(Value::as_bool) == Some(true);
    let learned = learned.filter(|ids| ids.uid >= 0 && ids.gid >= 0 && !(ids.uid == 0 && root_forbidden));
    let uid = number("runAsUser").or(learned.map(|ids| ids.uid));
    let gid = number("runAsGroup").or(learned.filter(|ids| Some(ids.uid) == uid).map(|ids| ids.gid));
    Identity { uid, gid }
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
            let got = identity(&json!({"spec": {"securityContext": pod}}), &json!({"securityContext": container}), learned);
            assert_eq!(got, Identity { uid, gid }, "{pod} {container} {learned:?}");
            assert_eq!(got.non_root(), uid != Some(0));
        }
    }
}
