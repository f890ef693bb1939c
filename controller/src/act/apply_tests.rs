//! Lists of actions against an API server that answers by a script: one call too many or too few fails.

use super::*;
use crate::testing::{api, orders, refusal};
use qscaler_broker::memory::Memory;
use qscaler_core::message::{ControlKind, ControlMessage, Epoch, VERSION};

fn target(control: Option<Arc<dyn ControlSender>>) -> Target {
    Target {
        id: orders(),
        deployment_uid: "dep".into(),
        qworker: Known { uid: "qw".into(), version: "1".into(), checkpoint: String::new() },
        control,
    }
}

fn qworker(version: &str) -> (u16, Value) {
    (
        200,
        json!({"apiVersion": "qscaler.dev/v1alpha1", "kind": "QWorker", "metadata": {"name": "orders", "resourceVersion": version}, "spec": {"targetKind": "Deployment", "targetName": "orders"}}),
    )
}

fn scale_answer() -> (u16, Value) {
    (200, json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "orders", "resourceVersion": "101"}}))
}

fn pod_answer() -> (u16, Value) {
    (200, json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": []}}))
}

fn reference() -> PodRef {
    PodRef { uid: "uid-a".into(), name: "a".into(), resource_version: "7".into() }
}

fn token() -> ControlMessage {
    ControlMessage {
        version: VERSION,
        kind: ControlKind::SigkillQueue,
        workload_uid: "dep".into(),
        epoch: Epoch(1),
        issued_ms: 0,
        expires_ms: u64::MAX,
        lease_ms: 1,
        target: None,
    }
}

async fn run(answers: Vec<(u16, Value)>, control: Option<Arc<dyn ControlSender>>, actions: Vec<Action>) -> (ListOutcome, crate::testing::Script) {
    let (client, script) = api(answers);
    let outcome = Applier::new(client, "test", Leadership::always()).run(&target(control), actions).await;
    (outcome, script)
}

fn scale() -> Action {
    Action::Scale { resource_version: "100".into(), from: 5, to: 3 }
}

#[tokio::test]
async fn a_scale_is_a_put_with_the_version_it_was_decided_from() {
    let (outcome, script) = run(vec![scale_answer()], None, vec![scale()]).await;
    assert_eq!(outcome.failed, None);
    let calls = script.calls();
    assert_eq!(script.seen(), ["PUT /apis/apps/v1/namespaces/shop/deployments/orders/scale"]);
    assert_eq!(
        (&calls[0].body["metadata"]["resourceVersion"], &calls[0].body["metadata"]["uid"], &calls[0].body["spec"]["replicas"]),
        (&json!("100"), &json!("dep"), &json!(3))
    );
}

#[tokio::test]
async fn the_intent_is_saved_before_its_messages_and_without_it_none_is_sent() {
    let broker: Arc<dyn ControlSender> = Arc::new(Memory::new());
    broker.declare(&target(None).address()).await.unwrap();
    let list = || vec![Action::SaveIntent(qscaler_api::Intent { epoch: 1, count: 1, ..Default::default() }), Action::Publish(token())];
    let (outcome, script) = run(vec![qworker("2")], Some(Arc::clone(&broker)), list()).await;
    assert_eq!((outcome.done.len(), outcome.qworker_version.as_deref()), (2, Some("2")));
    assert_eq!(script.seen(), ["PATCH /apis/qscaler.dev/v1alpha1/namespaces/shop/qworkers/orders/status"]);
    assert_eq!(
        (&script.calls()[0].body["metadata"]["resourceVersion"], &script.calls()[0].body["status"]["intent"]["epoch"]),
        (&json!("1"), &json!(1))
    );

    let (outcome, _) = run(vec![refusal(409, "Conflict", "changed")], Some(broker), list()).await;
    assert_eq!((outcome.failed, outcome.done.len(), outcome.left.len()), (Some(Failure::Changed { qworker: true }), 0, 2));
}

fn set_cost(cost: Option<i32>) -> Action {
    let patch = [("controller.kubernetes.io/pod-deletion-cost".to_owned(), cost.map(|c| c.to_string()))].into();
    Action::SetCost { pod: reference(), cost, patch }
}

/// An API server that refuses whatever this says, and does the rest.
async fn run_by(refused: fn(&crate::testing::Call) -> bool, actions: Vec<Action>) -> ListOutcome {
    let broker: Arc<dyn ControlSender> = Arc::new(Memory::new());
    broker.declare(&target(None).address()).await.unwrap();
    let (client, _) = crate::testing::api_by(move |call| match call.path.as_str() {
        _ if refused(call) => refusal(403, "Forbidden", "an admission policy"),
        path if path.ends_with("/scale") => scale_answer(),
        path if path.contains("/qworkers/") => qworker("2"),
        path if path.contains("/pods/") => pod_answer(),
        _ => (201, call.body.clone()),
    });
    Applier::new(client, "test", Leadership::always()).run(&target(Some(broker)), actions).await
}

fn keys(outcome: &ListOutcome) -> (Vec<crate::act::plan::ActionKey>, Vec<crate::act::plan::ActionKey>) {
    (outcome.done.iter().map(|(a, _)| a.key()).collect(), outcome.left.iter().map(Action::key).collect())
}

#[tokio::test]
async fn a_pod_that_may_not_be_written_keeps_nothing_else_from_being_done() {
    let other = Action::Mark { pod: PodRef { uid: "uid-b".into(), name: "b".into(), ..reference() }, patch: Default::default() };
    let resume = Action::Publish(ControlMessage { kind: ControlKind::Resume, target: Some("uid-a".into()), ..token() });
    let told = Action::Event(Notice::normal(event::SCALED_DOWN, "5 -> 3"));
    let list = vec![set_cost(None), resume.clone(), scale(), other.clone(), Action::Status(json!({})), told.clone()];
    let outcome = run_by(|call| call.path.ends_with("/pods/a"), list).await;
    let (done, left) = keys(&outcome);
    for wanted in [&scale(), &other, &Action::Status(json!({})), &told] {
        assert!(done.contains(&wanted.key()), "{wanted:?} of {outcome:?}");
    }
    assert_eq!(left, [set_cost(None).key(), resume.key()], "a pod that works again must not carry the mark");
    assert_eq!(outcome.failures.len(), 1);
}

#[tokio::test]
async fn without_its_intent_no_wave_goes_on_but_the_rest_does_and_no_scaling_is_told_that_was_not() {
    let intent = Action::SaveIntent(qscaler_api::Intent::default());
    let told = |kind| Action::Event(Notice::normal(kind, "5 -> 3"));
    let list = vec![intent, Action::Publish(token()), scale(), set_cost(None), told(event::SCALED_DOWN), told(event::RESIZED)];
    let outcome = run_by(|call| call.body["status"]["intent"].is_object(), list).await;
    let (done, left) = keys(&outcome);
    assert_eq!((left.len(), done), (3, vec![set_cost(None).key(), told(event::RESIZED).key()]), "{outcome:?}");
    assert!(outcome.done.iter().all(|(a, _)| *a != told(event::SCALED_DOWN)));
    let raise = Action::Scale { resource_version: "100".into(), from: 3, to: 9 };
    let outcome = run_by(|call| call.path.contains("/qworkers/"), vec![Action::SaveIntent(Default::default()), raise.clone()]).await;
    assert_eq!(keys(&outcome).0, [raise.key()], "work waits: a raise hangs on nothing");
}

#[tokio::test]
async fn a_cost_is_written_to_exactly_the_pod_as_read_and_removed_by_null() {
    let list = vec![set_cost(Some(-5)), set_cost(None)];
    let (_, script) = run(vec![pod_answer(), pod_answer()], None, list).await;
    let metadata: Vec<Value> = script.calls().into_iter().map(|c| c.body["metadata"].clone()).collect();
    let expected = |cost: Value| json!({"uid": "uid-a", "resourceVersion": "7", "annotations": {"controller.kubernetes.io/pod-deletion-cost": cost}});
    assert_eq!(metadata, [expected(json!("-5")), expected(Value::Null)]);
    assert!(script.calls().iter().all(|c| c.content_type == "application/merge-patch+json"));
}

#[tokio::test]
async fn a_resize_is_a_strategic_merge_of_what_changes_and_a_refusal_does_not_end_the_list() {
    let from = ContainerResources { memory_request: Some(100), memory_limit: Some(100), cpu_request_m: Some(10), cpu_limit_m: None };
    let to = ContainerResources { memory_request: Some(200), memory_limit: Some(200), ..from };
    let resize = || Action::Resize { pod: reference(), container: "worker".into(), from, to, reason: String::new() };
    let node = (
        403,
        json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": "no", "details": {"causes": [{"reason": "NodeCapacity"}]}}),
    );
    let answers = vec![
        pod_answer(),
        node,
        refusal(403, "Forbidden", "exceeded quota: q"),
        refusal(422, "Invalid", "memory limits cannot be decreased"),
        refusal(404, "NotFound", "no"),
    ];
    let (outcome, script) = run(answers, None, vec![resize(), resize(), resize(), resize(), resize()]).await;
    let results: Vec<Option<RefusalCause>> =
        outcome.done.iter().map(|(_, d)| if let Done::Refused(cause, _) = d { Some(*cause) } else { None }).collect();
    use RefusalCause::{Decrease, NoSubresource, NodeCapacity, Quota};
    assert_eq!(results, [None, Some(NodeCapacity), Some(Quota), Some(Decrease), Some(NoSubresource)]);
    let first = &script.calls()[0];
    assert_eq!(
        (first.method.as_str(), first.path.as_str(), first.content_type.as_str()),
        ("PATCH", "/api/v1/namespaces/shop/pods/a/resize", "application/strategic-merge-patch+json")
    );
    let resources = json!({"requests": {"memory": "200"}, "limits": {"memory": "200"}});
    assert_eq!(
        first.body,
        json!({"metadata": {"uid": "uid-a", "resourceVersion": "7"}, "spec": {"containers": [{"name": "worker", "resources": resources}]}})
    );
}

#[tokio::test]
async fn nothing_is_written_once_the_lease_is_lost() {
    let (client, script) = api(vec![]);
    let (_grant, leadership) = Leadership::granted();
    let outcome = Applier::new(client, "test", leadership).run(&target(None), vec![scale()]).await;
    assert_eq!((outcome.failed, script.seen().len()), (Some(Failure::NotLeader), 0));
}

#[tokio::test]
async fn an_event_says_whom_it_is_about_and_a_missing_channel_is_a_failure() {
    let pod = Notice { pod: Some(reference()), ..Notice::normal("Resized", "x".repeat(3000)) };
    let (outcome, script) = run(vec![], None, vec![Action::Event(Notice::warning("Conflict", "c")), Action::Event(pod), Action::Purge]).await;
    let about: Vec<_> =
        script.calls().iter().map(|c| (c.body["regarding"]["kind"].clone(), c.body["reason"].clone(), c.body["type"].clone())).collect();
    assert_eq!(about, [(json!("Deployment"), json!("Conflict"), json!("Warning")), (json!("Pod"), json!("Resized"), json!("Normal"))]);
    assert!(script.calls()[1].body["note"].as_str().unwrap().len() <= 1_000);
    assert!(matches!(outcome.failed, Some(Failure::Other(why)) if why.contains("not connected")));
}

fn kept_answer(version: &str) -> (u16, Value) {
    (
        200,
        json!({"apiVersion": "qscaler.dev/v1alpha1", "kind": "QWorkerCheckpoint", "metadata": {"name": "orders", "resourceVersion": version}, "spec": {}}),
    )
}

#[tokio::test]
async fn what_is_remembered_is_made_once_then_replaced_by_version_and_goes_with_the_qworker() {
    const CHECKPOINTS: &str = "/apis/qscaler.dev/v1alpha1/namespaces/shop/qworkercheckpoints";
    let spec = Box::new(qscaler_api::QWorkerCheckpointSpec { learned: "{}".into(), ..Default::default() });
    let list = || vec![Action::Checkpoint(spec.clone()), Action::Status(json!({}))];
    let (outcome, script) = run(vec![kept_answer("5"), qworker("2")], None, list()).await;
    assert_eq!((outcome.failed, outcome.checkpoint_version.as_deref(), outcome.qworker_version.as_deref()), (None, Some("5"), Some("2")));
    assert_eq!(script.seen()[0], format!("POST {CHECKPOINTS}"));
    let owner = &script.calls()[0].body["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["uid"]), (&json!("QWorker"), &json!("qw")));

    // The next time it is replaced as a whole, if it is as known: another leader's stays, and everything is read again.
    let known = Known { uid: "qw".into(), version: "1".into(), checkpoint: "5".into() };
    let again = |answers: Vec<(u16, Value)>| {
        let (client, script) = api(answers);
        let target = Target { qworker: known.clone(), ..target(None) };
        async move { (Applier::new(client, "test", Leadership::always()).run(&target, list()).await, script) }
    };
    let (outcome, script) = again(vec![kept_answer("6"), qworker("2")]).await;
    assert_eq!((script.seen()[0].as_str(), outcome.checkpoint_version.as_deref()), (format!("PUT {CHECKPOINTS}/orders").as_str(), Some("6")));
    assert_eq!(script.calls()[0].body["metadata"]["resourceVersion"], json!("5"));
    let (outcome, _) = again(vec![refusal(409, "Conflict", "changed")]).await;
    assert_eq!((outcome.failed, outcome.left.len()), (Some(Failure::Changed { qworker: true }), 2));
}

#[tokio::test]
async fn a_cluster_without_the_kind_keeps_the_status_written_and_is_asked_again_later() {
    let list = vec![Action::Checkpoint(Box::default()), Action::Status(json!({}))];
    let (outcome, script) = run(vec![refusal(404, "NotFound", "the server could not find the requested resource"), qworker("2")], None, list).await;
    assert!(matches!(&outcome.failed, Some(Failure::Other(why)) if why.contains("could not find")), "{outcome:?}");
    assert_eq!((script.seen().len(), outcome.qworker_version.as_deref()), (2, Some("2")));
}

#[tokio::test]
async fn what_a_deleted_namesake_left_is_not_taken_up_but_overwritten() {
    let found = |owner: &str| {
        let (code, mut kept) = kept_answer("8");
        kept["metadata"]["ownerReferences"] = json!([{"apiVersion": "qscaler.dev/v1alpha1", "kind": "QWorker", "name": "orders", "uid": owner}]);
        kept["spec"]["cut"] = json!(3);
        (code, kept)
    };
    let mut ours = qworker("2");
    ours.1["metadata"]["uid"] = json!("qw");
    ours.1["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "orders", "uid": "dep"}]);
    for (owner, cut) in [("qw", 3), ("qw-before", 0)] {
        let (client, _) = api(vec![ours.clone(), found(owner)]);
        let loaded = crate::act::qworker::load(&client, &orders(), &"dep".into()).await.unwrap();
        assert_eq!((loaded.status.counters.cut, loaded.known.checkpoint.as_str(), loaded.known.uid.as_str()), (cut, "8", "qw"), "{owner}");
    }
}
