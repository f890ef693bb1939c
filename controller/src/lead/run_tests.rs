//! The whole loop between an API server that keeps what it is given and a broker in memory: every call that it makes, and none besides.

use super::*;
use crate::act::known::Known;
use crate::act::qworker::Loaded;
use crate::input::Measured;
use crate::observe::brokers::Opener;
use crate::observe::index::{Index, Kind};
use crate::testing::{Call, Script, T0_MS, api_by, deployment, orders, pod, put, refusal, replicaset};
use qscaler_broker::memory::Memory;
use qscaler_broker::{ControlSender, QueueStats};
use qscaler_core::scale::QueueSample;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Mutex;

/// The machine may be busy: nothing here should take a second.
const DEADLINE: Duration = Duration::from_secs(60);

struct Stage {
    index: SharedIndex,
    broker: Memory,
    script: Script,
    sender: mpsc::Sender<Input>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// An API server with one QWorker at most, whose version rises with each write.
fn server() -> (Client, Script) {
    let stored: Mutex<Option<Value>> = Mutex::new(None);
    api_by(move |call: &Call| {
        let mut stored = stored.lock().unwrap();
        let path = call.path.as_str();
        if path.contains("/events") {
            return (201, call.body.clone());
        }
        if path == "/version" {
            return (
                200,
                json!({"major": "1", "minor": "36", "gitVersion": "v1.36.3", "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
            );
        }
        if path.ends_with("/scale") {
            return (200, json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "orders", "resourceVersion": "101"}}));
        }
        if path.ends_with("/secrets/mq") {
            return (200, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mq"}, "data": {"url": "cmVkaXM6Ly9yLzA="}}));
        }
        if path.contains("/qworkercheckpoints") {
            let kept = json!({"apiVersion": "qscaler.dev/v1alpha1", "kind": "QWorkerCheckpoint", "metadata": {"name": "orders", "resourceVersion": "1"}, "spec": {}});
            return if call.method == "GET" { refusal(404, "NotFound", "none yet") } else { (200, kept) };
        }
        match (call.method.as_str(), stored.as_mut()) {
            ("GET", None) => refusal(404, "NotFound", "none yet"),
            ("GET", Some(found)) => (200, found.clone()),
            ("POST", None) => {
                let mut new = call.body.clone();
                new["metadata"]["resourceVersion"] = json!("1");
                *stored = Some(new.clone());
                (201, new)
            }
            ("PATCH", Some(found)) => {
                if call.body["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"] {
                    return refusal(409, "Conflict", "changed");
                }
                let version: u64 = found["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
                found["metadata"]["resourceVersion"] = json!((version + 1).to_string());
                found["status"] = call.body["status"].clone();
                (200, found.clone())
            }
            ("DELETE", Some(_)) => {
                *stored = None;
                (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }
            _ => refusal(500, "InternalError", "not expected"),
        }
    })
}

fn stage(annotations: &[(&str, &str)]) -> Stage {
    let (parts, broker, script) = parts(annotations, Leadership::always());
    let (index, sender, stop) = (parts.index.clone(), parts.sender.clone(), CancellationToken::new());
    let task = tokio::spawn(run(parts, stop.clone()));
    Stage { index, broker, script, sender, stop, task }
}

fn parts(annotations: &[(&str, &str)], leadership: Leadership) -> (Parts, Memory, Script) {
    let (client, script) = server();
    let (sender, inputs) = mpsc::channel(INPUTS_MAX);
    let index = SharedIndex::default();
    fill(&mut index.lock(), annotations);
    let broker = Memory::new();
    let (stats, control) = (broker.clone(), broker.clone());
    let opener = Opener {
        stats: Arc::new(move |_| Ok(Arc::new(stats.clone()) as Arc<dyn QueueStats>)),
        control: Arc::new(move |_| Ok(Arc::new(control.clone()) as Arc<dyn ControlSender>)),
    };
    let parts = Parts {
        evictions: client.clone(),
        client,
        index,
        brokers: Brokers::new(opener, sender.clone()),
        sender,
        inputs,
        leadership,
        metrics: Metrics::default(),
        fleet: SharedFleet::for_page(),
        instance: "test".into(),
        readiness: Readiness::default(),
        signer: Signer::default(),
        sidecar_image: None,
    };
    (parts, broker, script)
}

fn fill(index: &mut Index, annotations: &[(&str, &str)]) {
    put(index, &deployment(0, annotations));
    put(index, &replicaset("orders-1", 0));
}

impl Stage {
    async fn until(&self, what: &str, holds: impl Fn(&[Call]) -> bool) {
        let waited = tokio::time::timeout(DEADLINE, async {
            while !holds(&self.script.calls()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(waited.await.is_ok(), "never: {what}: {:#?}", self.script.seen());
    }

    async fn end(self) -> BTreeSet<String> {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.expect("it ends").unwrap();
        self.script.seen().into_iter().collect()
    }
}

const QWORKERS: &str = "/apis/qscaler.dev/v1alpha1/namespaces/shop/qworkers";
const CHECKPOINTS: &str = "/apis/qscaler.dev/v1alpha1/namespaces/shop/qworkercheckpoints";

#[tokio::test]
async fn from_a_standing_start_to_scale_with_the_expected_calls_and_no_other() {
    let stage = stage(&[("min-replicas", "0"), ("broker", "secret:mq/url")]);
    stage.broker.put_tasks("orders", 500);
    stage.until("a scale", |calls| calls.iter().any(|c| c.path.ends_with("/scale"))).await;
    // The status is written at most once a second: on a busy machine the next decision may be in it already.
    stage.until("a status", |calls| calls.iter().any(|c| c.path.ends_with("/status") && c.body["status"]["desired"].as_u64() >= Some(20))).await;
    let calls = stage.script.calls();
    let scale = calls.iter().find(|c| c.path.ends_with("/scale")).unwrap();
    assert_eq!((&scale.body["spec"]["replicas"], &scale.body["metadata"]["resourceVersion"]), (&json!(20), &json!("100")));
    let made = calls.iter().find(|c| c.method == "POST" && c.path == QWORKERS).unwrap();
    assert_eq!((&made.body["metadata"]["ownerReferences"][0]["uid"], &made.body["spec"]["targetName"]), (&json!("dep"), &json!("orders")));
    let expected = [
        "GET /api/v1/namespaces/shop/secrets/mq".to_owned(),
        format!("GET {QWORKERS}/orders"),
        "GET /version".to_owned(),
        format!("GET {CHECKPOINTS}/orders"),
        format!("PATCH {QWORKERS}/orders/status"),
        format!("POST {QWORKERS}"),
        format!("POST {CHECKPOINTS}"),
        "PUT /apis/apps/v1/namespaces/shop/deployments/orders/scale".to_owned(),
    ];
    assert_eq!(stage.end().await, BTreeSet::from(expected));
}

#[tokio::test]
async fn the_page_says_what_status_and_decision_say_and_no_secret() {
    let url = "redis://:hunter2@redis/0";
    let (parts, broker, script) = parts(&[("min-replicas", "0")], Leadership::always());
    let object = crate::testing::with(deployment(0, &[("min-replicas", "0")]), "/spec/template/spec/containers/0/env/0/value", json!(url));
    put(&mut parts.index.lock(), &object);
    let (index, sender, fleet, stop) = (parts.index.clone(), parts.sender.clone(), parts.fleet.clone(), CancellationToken::new());
    let stage = Stage { index, broker, script, sender, task: tokio::spawn(run(parts, stop.clone())), stop };
    stage.broker.put_tasks("orders", 500);
    stage.until("a status", |calls| calls.iter().any(|c| c.path.ends_with("/status") && c.body["status"]["desired"].as_u64() >= Some(20))).await;
    let told = crate::show::fleet::json(&fleet, "", None, crate::clock::now());
    let decisions = fleet.lock().decisions();
    let (page, last): (Value, Value) = (serde_json::from_str(&told).unwrap(), serde_json::from_str(&decisions).unwrap());
    let row = &page["shown"][0];
    assert_eq!((&page["leads"], &page["workloads"], &row["name"]), (&json!(true), &json!(1), &json!("orders")));
    assert_eq!((&row["status"]["desired"], &row["limits"]["maxReplicas"]), (&json!(20), &json!(20)));
    assert_eq!(row["status"]["reason"], row["decision"]["decision"]["reason"]);
    assert_eq!(row["decision"], last[0]);
    assert_eq!(row["recent"][0]["target"], 20);
    assert!(!told.contains("hunter2") && !told.contains(url) && !decisions.contains("hunter2"), "{told}");
    stage.end().await;
    let plain = SharedFleet::default();
    assert!(!plain.shows(), "nothing is kept for a page that nobody serves");
}

#[tokio::test]
async fn a_controller_that_does_not_lead_forgets_pods_that_are_gone_and_calls_nobody() {
    let (_grant, follows) = Leadership::granted();
    let (parts, _, script) = parts(&[], follows);
    let index = parts.index.clone();
    put(&mut index.lock(), &pod("a"));
    index.lock().delete(Kind::Pod, &("shop".into(), "a".into()));
    let gone = || index.lock().view(&orders()).unwrap().finished.len();
    let mut follower = Loop::new(parts);
    follower.turn(1_000);
    assert_eq!(gone(), 1, "its last report may be on the way");
    (1..=100).for_each(|n| follower.turn(1_000 + n * HOUSEKEEPING_MS));
    assert_eq!((gone(), script.calls().len()), (0, 0));
}

#[tokio::test]
async fn a_workload_that_is_not_ours_any_more_loses_its_qworker() {
    let stage = stage(&[("min-replicas", "0")]);
    stage.until("a status", |calls| calls.iter().any(|c| c.path.ends_with("/status"))).await;
    stage.index.lock().delete(Kind::Deployment, &("shop".into(), "orders".into()));
    stage.sender.send(Input::Changed(orders())).await.unwrap();
    stage.until("a removal", |calls| calls.iter().any(|c| c.method == "DELETE" && c.path == format!("{QWORKERS}/orders"))).await;
    stage.end().await;
}

#[tokio::test]
async fn a_broker_that_is_away_at_the_start_is_told_and_found_again() {
    let stage = stage(&[("min-replicas", "0")]);
    stage.broker.fail(Some(qscaler_broker::Retry::Later));
    let reachable = |calls: &[Call], status: &str| {
        let all = calls.iter().filter(|c| c.path.ends_with("/status")).filter_map(|c| c.body["status"]["conditions"].as_array().cloned());
        all.flatten().any(|c| c["type"] == "BrokerReachable" && c["status"] == status)
    };
    stage.until("False", |calls| reachable(calls, "False")).await;
    stage.broker.fail(None);
    stage.broker.put_tasks("orders", 5);
    stage.until("a scale", |calls| calls.iter().any(|c| c.path.ends_with("/scale"))).await;
    stage.until("True", |calls| reachable(calls, "True")).await;
    stage.end().await;
}

#[tokio::test]
async fn what_an_earlier_life_began_is_dropped_when_the_lease_is_won_again() {
    let (grant, leadership) = Leadership::granted();
    let (parts, _, _) = parts(&[("min-replicas", "0")], leadership);
    let mut leader = Loop::new(parts);
    let now = T0_MS;
    grant.until(Some(tokio::time::Instant::now() + DEADLINE));
    leader.turn(now);
    let first = leader.managed[&orders()].life;
    grant.until(None);
    leader.turn(now + 1);
    assert!(leader.managed.is_empty());
    grant.until(Some(tokio::time::Instant::now() + DEADLINE));
    leader.turn(now + 2);
    let second = leader.managed[&orders()].life;
    let loaded = |version: &str| Box::new(Ok(Loaded { known: Known { version: version.into(), ..Known::default() }, ..Loaded::default() }));
    leader.hear(Input::Loaded(orders(), second, loaded("7")), now + 3);
    leader.managed.get_mut(&orders()).unwrap().sampled(Ok(Measured { queues: vec![QueueSample::default()], gap: None }), now + 3);
    // The same Deployment, so its UID tells nothing: the old list's version must not become the new managed's.
    let old = ListOutcome { qworker_version: Some("3".into()), ..ListOutcome::default() };
    leader.hear(Input::Applied(orders(), first, old), now + 4);
    leader.hear(Input::Loaded(orders(), first, loaded("2")), now + 4);
    let managed = leader.managed.get_mut(&orders()).unwrap();
    let view = leader.parts.index.lock().view(&orders()).unwrap();
    let (_, known) = managed.look(&view, &Cluster::default(), true, &Metrics::default(), now + 5).unwrap();
    assert_eq!((first == second, known.version.as_str()), (false, "7"));
}

#[tokio::test]
async fn more_busy_workloads_than_may_be_written_at_once_are_all_written_in_turn() {
    let (parts, _, _) = parts(&[], Leadership::always());
    let mut leader = Loop::new(parts);
    let names: Vec<WorkloadId> = (0..400).map(|n| WorkloadId { namespace: "shop".into(), name: format!("w{n}") }).collect();
    for id in &names {
        let mut object = deployment(0, &[("min-replicas", "0")]);
        object["metadata"]["name"] = json!(id.name);
        object["metadata"]["uid"] = json!(format!("uid-{}", id.name));
        put(&mut leader.parts.index.lock(), &object);
    }
    let start = T0_MS;
    leader.turn(start);
    for id in &names {
        let life = leader.managed[id].life;
        let loaded = Loaded { known: Known { version: "1".into(), ..Known::default() }, ..Loaded::default() };
        leader.hear(Input::Loaded(id.clone(), life, Box::new(Ok(loaded))), start);
    }
    for second in 1..=8_u64 {
        let now = start + second * 1_000;
        for id in &names {
            // Something new to tell every second, and no list under way.
            leader.managed.get_mut(id).unwrap().sampled(
                Ok(Measured { queues: vec![QueueSample { ready: Some(second % 7), unacked: Some(0), ..QueueSample::default() }], gap: None }),
                now,
            );
            let life = leader.managed[id].life;
            leader.hear(Input::Applied(id.clone(), life, ListOutcome::default()), now);
        }
        leader.turn(now);
    }
    let never = names.iter().filter(|id| leader.managed[*id].written_ms == 0).count();
    assert_eq!(never, 0);
}

/// A leader whose one workload is read and measured.
fn leading(leadership: Leadership) -> Loop {
    let mut leader = Loop::new(parts(&[("min-replicas", "0")], leadership).0);
    leader.turn(T0_MS);
    known(&mut leader, T0_MS);
    leader
}

/// What is loaded and measured of the workload.
fn known(leader: &mut Loop, now_ms: u64) {
    let life = leader.managed[&orders()].life;
    let loaded = Loaded { known: Known { version: "1".into(), ..Known::default() }, ..Loaded::default() };
    leader.hear(Input::Loaded(orders(), life, Box::new(Ok(loaded))), now_ms);
    leader.hear(Input::Sampled(orders(), Ok(Measured { queues: vec![QueueSample::default()], gap: None })), now_ms);
}

#[tokio::test]
async fn a_clock_that_is_set_back_stops_nobody() {
    let mut leader = leading(Leadership::always());
    leader.turn(T0_MS + 10);
    let first = leader.managed[&orders()].life;
    let back = leader.at(Reading { now_ms: T0_MS - 3_600_000, set_by_ms: -3_600_010 });
    leader.turn(back);
    let managed = &leader.managed[&orders()];
    assert!(managed.life > first && managed.due_ms <= back + PERIOD_MS, "looked at again in an hour: {}", managed.due_ms);
    known(&mut leader, back);
    leader.turn(back + PERIOD_MS);
    assert!(leader.managed[&orders()].written_ms > 0, "nothing is done");
}

#[tokio::test]
async fn a_list_of_writes_that_hangs_is_ended_before_another_begins() {
    let mut leader = leading(Leadership::always());
    let (view, metrics) = (leader.parts.index.lock().view(&orders()).unwrap(), Metrics::default());
    let managed = leader.managed.get_mut(&orders()).unwrap();
    let look =
        |managed: &mut Managed, now_ms| managed.look(&view, &Cluster::default(), true, &metrics, now_ms).is_some_and(|(list, _)| !list.is_empty());
    assert!(look(managed, T0_MS));
    let hangs = tokio::spawn(std::future::pending::<()>());
    managed.began(hangs.abort_handle());
    assert!(!look(managed, T0_MS + 119_000), "one list at a time");
    managed.sampled(Ok(Measured { queues: vec![QueueSample { ready: Some(5), ..QueueSample::default() }], gap: None }), T0_MS + 120_000);
    assert!(look(managed, T0_MS + 120_000));
    assert!(hangs.await.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn a_controller_that_does_not_lead_any_more_exports_no_workload() {
    let (grant, leadership) = Leadership::granted();
    grant.until(Some(tokio::time::Instant::now() + DEADLINE));
    let mut leader = leading(leadership);
    leader.turn(T0_MS + 10);
    let exported = |leader: &Loop| leader.parts.metrics.text().contains("shop/orders");
    assert!(exported(&leader));
    grant.until(None);
    leader.turn(T0_MS + 20);
    assert!(!exported(&leader), "{}", leader.parts.metrics.text());
}
