//! Objects in, views out, without a server.

use super::*;
use crate::testing::{deployment, hpa, orders, pod, put, replicaset, with};
use qscaler_core::units::Millicores;
use serde_json::{Value, json};

fn name(key: &str) -> ObjectKey {
    ("shop".into(), key.into())
}

fn filled(objects: &[Value]) -> Index {
    let mut index = Index::default();
    for object in objects {
        put(&mut index, object);
    }
    index
}

#[test]
fn a_pod_finds_its_workload_whatever_comes_first() {
    let objects = [deployment(1, &[]), replicaset("orders-1", 1), pod("a")];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
        let index = filled(&order.map(|i| objects[i].clone()));
        let view = index.view(&orders()).unwrap();
        assert_eq!((view.pods.len(), view.sets.len(), view.ready_replicas), (1, 1, 1), "{order:?}");
    }
}

#[test]
fn a_change_names_the_workload_that_it_touches() {
    let mut index = filled(&[deployment(1, &[]), replicaset("orders-1", 1)]);
    assert_eq!(put(&mut index, &pod("a")), Some(orders()));
    assert_eq!(put(&mut index, &hpa()), Some(orders()));
    assert_eq!(index.delete(Kind::Pod, &name("a")), Some(orders()));
    assert_eq!(index.delete(Kind::Pod, &name("a")), None);
    assert_eq!(put(&mut index, &with(pod("b"), "/metadata/ownerReferences/0/uid", json!("another"))), None);
}

#[test]
fn during_a_rollout_two_replicasets_are_active_and_an_empty_one_is_not() {
    let index = filled(&[deployment(3, &[]), replicaset("orders-1", 2), replicaset("orders-2", 1), replicaset("orders-0", 0)]);
    let view = index.view(&orders()).unwrap();
    assert_eq!((view.sets.len(), view.ready_replicas), (2, 3));
}

#[test]
fn what_a_new_list_does_not_have_is_gone() {
    let mut index = filled(&[deployment(2, &[]), replicaset("orders-1", 2), pod("a"), pod("b")]);
    let touched = index.retain(Kind::Pod, &HashSet::from([name("b")]));
    assert_eq!(touched, [orders()]);
    let names: Vec<String> = index.view(&orders()).unwrap().pods.iter().map(|p| p.name.to_string()).collect();
    assert_eq!(names, ["b"]);
    index.retain(Kind::Deployment, &HashSet::new());
    assert!(index.view(&orders()).is_none() && index.workloads().is_empty());
}

#[test]
fn a_pod_that_is_over_is_kept_apart_until_it_is_gone() {
    let over = with(pod("a"), "/status/phase", json!("Succeeded"));
    let view = filled(&[deployment(1, &[]), replicaset("orders-1", 1), over, pod("b")]).view(&orders()).unwrap();
    assert_eq!((view.pods.len(), view.finished.len()), (1, 1));
}

#[test]
fn a_pod_that_is_gone_is_over_for_some_minutes_and_then_forgotten() {
    let mut index = filled(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a"), pod("b")]);
    index.delete(Kind::Pod, &name("a"));
    let over = |index: &Index| index.view(&orders()).unwrap().finished.iter().map(|p| p.name.to_string()).collect::<Vec<_>>();
    for _ in 0..GONE_TIDIES {
        index.tidy();
        assert_eq!((over(&index), index.view(&orders()).unwrap().pods.len()), (vec!["a".to_owned()], 1));
    }
    index.tidy();
    assert!(over(&index).is_empty());
}

#[test]
fn other_writers_are_named_and_a_sizer_is_no_scaler() {
    let vpa = json!({"kind": "VerticalPodAutoscaler", "metadata": {"namespace": "shop", "name": "v"}, "spec": {"targetRef": {"kind": "Deployment", "name": "orders"}}});
    let mut index = filled(&[deployment(1, &[]), hpa(), vpa]);
    let view = index.view(&orders()).unwrap();
    assert_eq!((view.scalers, view.sizer), (vec!["HorizontalPodAutoscaler orders-hpa".to_owned()], Some("VerticalPodAutoscaler v".to_owned())));
    index.delete(Kind::Hpa, &name("orders-hpa"));
    assert!(index.view(&orders()).unwrap().scalers.is_empty());
}

#[test]
fn a_writer_of_something_else_or_one_that_only_recommends_is_none() {
    let off = json!({"metadata": {"namespace": "shop", "name": "v"}, "spec": {"targetRef": {"kind": "Deployment", "name": "orders"}, "updatePolicy": {"updateMode": "Off"}}});
    assert_eq!(ForeignRecord::new("VerticalPodAutoscaler", &off, "/spec/targetRef"), None);
    let other = json!({"metadata": {"namespace": "shop", "name": "h"}, "spec": {"scaleTargetRef": {"kind": "StatefulSet", "name": "orders"}}});
    assert_eq!(ForeignRecord::new("HorizontalPodAutoscaler", &other, "/spec/scaleTargetRef"), None);
    let keda = json!({"metadata": {"namespace": "shop", "name": "k"}, "spec": {"scaleTargetRef": {"name": "orders"}}});
    assert_eq!(ForeignRecord::new("ScaledObject", &keda, "/spec/scaleTargetRef").unwrap().deployment, "orders");
}

#[test]
fn a_qworker_without_its_deployment_is_an_orphan() {
    let mut index = Index::default();
    index.apply(Kind::QWorker, Record::QWorker(orders()));
    assert_eq!(index.orphans(), [orders()]);
    put(&mut index, &deployment(1, &[]));
    assert!(index.orphans().is_empty());
    index.delete(Kind::QWorker, &name("orders"));
    index.delete(Kind::Deployment, &name("orders"));
    assert!(index.orphans().is_empty());
}

#[test]
fn the_largest_node_bounds_sizes_and_a_cordoned_one_is_seen() {
    let node = |name: &str, memory: &str, cordoned: bool| json!({"kind": "Node", "metadata": {"name": name}, "spec": {"unschedulable": cordoned}, "status": {"allocatable": {"memory": memory, "cpu": "2"}}});
    let index = filled(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a"), node("n1", "1Gi", true), node("n2", "2Gi", false)]);
    assert_eq!(index.largest_node(), (Some(2 << 30), Some(2000)));
    assert_eq!(index.view(&orders()).unwrap().cordoned.iter().map(|n| n.to_string()).collect::<Vec<_>>(), ["n1"]);
}

#[test]
fn a_namesake_takes_the_place_of_a_deleted_workload() {
    let mut index = filled(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a")]);
    put(&mut index, &with(deployment(1, &[]), "/metadata/uid", json!("dep2")));
    let view = index.view(&orders()).unwrap();
    assert_eq!((view.deployment.uid.as_str(), view.pods.len()), ("dep2", 0));
}

#[test]
fn texts_that_many_pods_have_are_kept_once_and_no_longer_than_needed() {
    let mut index = filled(&[deployment(2, &[]), replicaset("orders-1", 2), pod("a"), pod("b")]);
    let view = index.view(&orders()).unwrap();
    let (a, b) = (&view.pods[0], &view.pods[1]);
    assert!(
        Arc::ptr_eq(&a.namespace, &b.namespace)
            && Arc::ptr_eq(&a.replicaset_uid, &b.replicaset_uid)
            && Arc::ptr_eq(&a.containers[0].name, &b.containers[0].name)
    );
    drop(view);
    index.retain(Kind::Pod, &HashSet::new());
    (0..=GONE_TIDIES).for_each(|_| index.tidy());
    assert!(index.words.0.is_empty(), "{:?}", index.words);
}

#[test]
fn a_namespace_is_in_sync_once_every_list_has_covered_it_and_no_watch_fails() {
    let mut index = Index::default();
    put(&mut index, &deployment(1, &[]));
    let mut why = |change: &dyn Fn(&mut Index)| {
        change(&mut index);
        index.view(&orders()).unwrap().out_of_sync
    };
    assert!(why(&|_| ()).is_some_and(|w| w.contains("Deployments")));
    assert_eq!(why(&crate::testing::in_sync), None);
    assert!(why(&|i| i.listed(Kind::Pod, &["elsewhere".to_owned()].into())).is_some_and(|w| w.contains("Pods")), "opted in after that list");
    assert_eq!(why(&crate::testing::in_sync), None);
    assert!(why(&|i| i.failing(Kind::Pod, true)).is_some_and(|w| w.contains("fails")));
    assert_eq!(why(&|i| i.failing(Kind::Pod, false)), None);
    assert!(why(&|i| i.listing(Kind::ReplicaSet)).is_some_and(|w| w.contains("ReplicaSets")));
}

#[test]
fn whether_a_limit_range_leaves_room_is_judged_by_the_installation_s_own_sidecar() {
    let range = json!({"kind": "LimitRange", "metadata": {"namespace": "shop", "name": "limits"}, "spec": {"limits": [{"type": "Pod", "max": {"cpu": "1"}}]}});
    let refused = |settings: Settings| {
        let mut index = Index::default().with_sidecar(settings);
        for object in [deployment(1, &[]), range.clone()] {
            put(&mut index, &object);
        }
        index.view(&orders()).unwrap().refusal()
    };
    assert_eq!(refused(Settings::default()), None);
    let large = Settings { cpu_request: Millicores(2000), cpu_limit: Some(Millicores(2000)), ..Settings::default() };
    assert!(refused(large).is_some_and(|why| why.contains("LimitRange") && why.contains("CPU")));
}

#[test]
fn nobody_injects_new_pods_before_a_replica_of_the_webhook_is_ready_and_after_the_last_has_gone() {
    assert!(!filled(&[deployment(1, &[])]).view(&orders()).unwrap().webhook_away, "nobody has said where it is");
    let mut index = Index::default().with_webhook("qscaler-system");
    put(&mut index, &deployment(1, &[]));
    let key = pair("qscaler-system", "qscaler-webhook");
    assert!(
        index.is_webhook(Kind::Deployment, &key)
            && !index.is_webhook(Kind::Pod, &key)
            && !index.is_webhook(Kind::Deployment, &pair("shop", "qscaler-webhook"))
    );
    let mut away = |change: &dyn Fn(&mut Index)| {
        change(&mut index);
        index.view(&orders()).unwrap().webhook_away
    };
    let ready = |ready| move |index: &mut Index| drop(index.apply(Kind::Deployment, Record::Webhook(ready)));
    assert!(away(&|_| ()), "it has not been seen");
    assert!(!away(&ready(true)) && away(&ready(false)) && !away(&ready(true)));
    assert!(away(&|index| drop(index.delete(Kind::Deployment, &key))) && !away(&ready(true)));
    let listed = |seen: &[&ObjectKey]| seen.iter().map(|key| (*key).clone()).chain([pair("shop", "orders")]).collect::<HashSet<_>>();
    assert!(!away(&|index| drop(index.retain(Kind::Deployment, &listed(&[&key])))));
    assert!(away(&|index| drop(index.retain(Kind::Deployment, &listed(&[])))), "it was not in the list");
}
