//! Tests of [`super`]: what is missing is named, and the controller waits for it.

use super::*;
use crate::testing::{api_by, refusal};
use std::sync::{Arc, Mutex};

fn ours() -> Value {
    json(&QWorker::crd())
}

fn status(definition: &mut Value) -> &mut Value {
    definition.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/status/properties").unwrap()
}

#[test]
fn our_own_definition_fits_and_a_later_one_with_more_fields_too() {
    assert_eq!(compare(&ours(), &ours()), Finding::Fits);
    let mut later = ours();
    status(&mut later)["mood"] = serde_json::json!({"type": "string"});
    assert_eq!(compare(&ours(), &later), Finding::Fits);
}

#[test]
fn an_earlier_definition_is_named_with_the_fields_that_it_would_drop() {
    let mut earlier = ours();
    earlier["metadata"]["labels"] = serde_json::json!({"app.kubernetes.io/version": "0.0.9"});
    status(&mut earlier).as_object_mut().unwrap().remove("unheld").unwrap();
    status(&mut earlier)["conditions"]["items"]["properties"].as_object_mut().unwrap().remove("message").unwrap();
    let fields = vec!["status.conditions[].message".to_owned(), "status.unheld".to_owned()];
    let Finding::Lacks { version, fields: mut found, .. } = compare(&ours(), &earlier) else { panic!("it fits") };
    found.sort();
    assert_eq!((version.as_str(), found), ("0.0.9", fields));
}

#[test]
fn a_definition_that_keeps_everything_fits_and_one_of_another_version_does_not() {
    let mut loose = ours();
    *loose.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/status").unwrap() =
        serde_json::json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    assert_eq!(compare(&ours(), &loose), Finding::Fits);
    let mut other = ours();
    other["spec"]["versions"][0]["name"] = "v1".into();
    assert_eq!(
        compare(&ours(), &other),
        Finding::Lacks {
            name: "qworkers.qscaler.dev".to_owned(),
            version: "unknown".to_owned(),
            fields: vec!["the API version v1alpha1".to_owned()]
        }
    );
    let mut unserved = ours();
    unserved["spec"]["versions"][0]["served"] = false.into();
    assert!(matches!(compare(&ours(), &unserved), Finding::Lacks { .. }));
}

#[tokio::test(start_paused = true)]
async fn it_is_not_ready_until_both_definitions_fit_and_says_why() {
    let mut earlier = ours();
    status(&mut earlier).as_object_mut().unwrap().remove("unheld").unwrap();
    // What the API server has of each, one look after the other.
    let looks = Arc::new(Mutex::new(vec![(Some(earlier), None), (Some(ours()), None), (Some(ours()), Some(json(&QWorkerCheckpoint::crd())))]));
    let shared = Arc::clone(&looks);
    let (client, script) = api_by(move |call| {
        let looks = shared.lock().unwrap();
        let found = if call.path.ends_with("qworkers.qscaler.dev") { &looks[0].0 } else { &looks[0].1 };
        found.clone().map_or_else(|| refusal(404, "NotFound", "none"), |definition| (200, definition))
    });
    let (readiness, stop) = (Readiness::default(), CancellationToken::new());
    let waiting = tokio::spawn({
        let (readiness, stop) = (readiness.clone(), stop.clone());
        async move { fits(&client, &readiness, &stop).await }
    });
    for calls in [1, 3] {
        while script.seen().len() < calls {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(readiness.reason().is_some_and(|why| why.contains("qworkers.qscaler.dev")));
        looks.lock().unwrap().remove(0);
    }
    assert!(waiting.await.unwrap() && readiness.is_ready());
}

#[tokio::test(start_paused = true)]
async fn an_older_role_stops_nobody_and_a_shutdown_ends_the_wait() {
    let (client, _script) = api_by(|_| refusal(403, "Forbidden", "may not"));
    assert!(fits(&client, &Readiness::default(), &CancellationToken::new()).await);
    let (client, _script) = api_by(|_| refusal(500, "InternalError", "etcd"));
    let (stop, readiness) = (CancellationToken::new(), Readiness::default());
    stop.cancel();
    assert!(!fits(&client, &readiness, &stop).await);
}
