//! Bodies of calls. In: a size or a number of variables. Out: reviews of pods that are created, as an API server sends them. Left to others: sending.

use bytes::Bytes;
use serde_json::{Value, json};

/// Smallest and largest body, bytes: a plain pod, and one near what people have complained of with other injectors (1500 variables).
const SMALLEST: usize = 3_000;
const LARGEST: usize = 280_000;
/// Sizes between the two, evenly by their logarithm: none is favoured.
const SIZES: u32 = 16;
/// Bodies that no honest client sends: beyond what any API server takes, and just within.
pub(crate) const BOMB_LARGE: usize = 8 << 20;
pub(crate) const BOMB_WITHIN: usize = 3 << 20;

/// Sizes of bodies, bytes.
pub(crate) fn sizes() -> impl Iterator<Item = usize> {
    let ratio = LARGEST as f64 / SMALLEST as f64;
    // Far below 2^52 bytes.
    (0..SIZES).map(move |i| (SMALLEST as f64 * ratio.powf(f64::from(i) / f64::from(SIZES - 1))) as usize)
}

/// A review of about this many bytes.
pub(crate) fn of_size(bytes: usize) -> Bytes {
    let one = of_variables(1).len() - of_variables(0).len();
    of_variables(bytes.saturating_sub(of_variables(0).len()) / one)
}

/// A review of a pod whose container has this many variables beside its broker's.
pub(crate) fn of_variables(count: usize) -> Bytes {
    let mut env: Vec<Value> = (0..count).map(|i| json!({"name": format!("VARIABLE_{i:04}"), "value": "some value of usual length"})).collect();
    env.push(json!({"name": "URL", "value": "redis://redis:6379/0"}));
    let container = json!({"name": "worker", "image": "registry.example/worker:1", "command": ["celery", "-A", "app", "worker"], "env": env,
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}}, "terminationMessagePath": "/dev/termination-log"});
    review(
        json!({"metadata": {"generateName": "orders-5d4f8b9c7-", "labels": {"app": "orders", "pod-template-hash": "5d4f8b9c7"}, "ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-5d4f8b9c7", "uid": "u", "controller": true, "blockOwnerDeletion": true}]},
        "spec": {"containers": [container], "restartPolicy": "Always", "serviceAccountName": "default", "schedulerName": "default-scheduler"}}),
    )
}

/// A review of this many bytes that are as many parts as they can be.
pub(crate) fn bomb(bytes: usize) -> Bytes {
    let text = String::from_utf8_lossy(&review(json!({"spec": "ZEROS"}))).into_owned();
    text.replace("\"ZEROS\"", &format!("[0{}]", ",0".repeat(bytes / 2))).into()
}

fn review(pod: Value) -> Bytes {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"}, "operation": "CREATE", "namespace": "shop",
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"}, "object": pod, "oldObject": null, "dryRun": false}})
    .to_string()
    .into()
}
