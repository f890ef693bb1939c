//! What hostile or merely huge bodies cost in memory. A process of its own: the peak is that of the whole process.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test helper is a failed test with a line number")]

use axum::body::Body;
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use qscaler_inject::Settings;
use qscaler_runtime::CancellationToken;
use qscaler_runtime::metrics::Registry;
use qscaler_webhook::decide::Decider;
use qscaler_webhook::metrics::Metrics;
use qscaler_webhook::server::{PATH_PODS, PATH_WORKLOADS, router};
use qscaler_webhook::world::World;
use std::sync::Arc;
use tower::ServiceExt;

/// Two bodies of 3 MiB at once, twice over while they are read, and the values of one.
const GROWTH_MAX_MIB: f64 = 32.0;

fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

fn review(kind: &str, object: &str) -> Bytes {
    format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","kind":{{"kind":"{kind}"}},"operation":"CREATE","namespace":"shop","object":{object}}}}}"#
    )
    .into()
}

#[tokio::test]
async fn neither_eight_megabytes_of_zeros_nor_two_annotated_deployments_of_three_take_much() {
    let zeros = |n: usize| format!("[0{}]", ",0".repeat(n));
    let deployment = format!(
        r#"{{"metadata":{{"name":"orders","annotations":{{"qscaler.dev/queue":"q","filler":"{}"}}}},"spec":{{"template":{{}}}}}}"#,
        "x".repeat(3 << 20)
    );
    let bodies = [
        (PATH_PODS, review("Pod", &zeros(4 << 20)), StatusCode::PAYLOAD_TOO_LARGE),
        (PATH_PODS, review("Pod", &zeros(3 << 19)), StatusCode::BAD_REQUEST),
        (PATH_PODS, review("Pod", &format!("{{\"spec\":{{\"containers\":{}}}}}", zeros(3 << 19))), StatusCode::BAD_REQUEST),
        (PATH_WORKLOADS, review("Deployment", &deployment), StatusCode::OK),
    ];
    let decider = Decider { world: Arc::new(World::new(None)), settings: Arc::new(Settings::default()), own_namespace: "q".into() };
    let router = router(decider, Metrics::new(Registry::default()), CancellationToken::new());
    let before = peak_mib();
    for _ in 0..3 {
        for (path, body, status) in &bodies {
            // Eight at once, in pieces as a socket gives them.
            let calls = (0..8).map(|_| {
                let (router, body) = (router.clone(), body.clone());
                let pieces = (0..body.len())
                    .step_by(16 << 10)
                    .map(move |at| Ok::<_, std::convert::Infallible>(body.slice(at..body.len().min(at + (16 << 10)))));
                async move {
                    let request = Request::post(*path).body(Body::from_stream(futures::stream::iter(pieces))).unwrap();
                    router.oneshot(request).await.unwrap().status()
                }
            });
            assert_eq!(futures::future::join_all(calls).await, [*status; 8], "{path}");
        }
    }
    let growth = peak_mib() - before;
    assert!(growth < GROWTH_MAX_MIB, "{growth:.0} MiB");
}
