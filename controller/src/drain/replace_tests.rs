//! Which pods are candidates, and by which net; the eviction itself against an API server that answers by a script.

use super::*;
use crate::act::evict::evict;
use crate::lead::lease::Leadership;
use crate::observe::cluster::Cluster;
use crate::testing::look::ROOM;
use crate::testing::{T0_MS, api, deployment, orders, pod, refusal, replicaset, report, view, with};
use crate::workload::Workload;
use qscaler_api::QWorkerStatus;
use qscaler_core::message::{AccessLevel, Busy, Report, WorkerState};
use qscaler_core::names::condition;
use qscaler_core::scale::QueueSample;
use qscaler_core::workload::SidecarConfig;
use qscaler_inject::config_hash;
use qscaler_inject::{Allowed, Injection, Outcome, Settings, inject};
use serde_json::{Value, json};

const IMAGE: &str = "registry.example/sidecar:2";

/// A pod as it is without us.
fn bare(name: &str) -> Value {
    with(with(pod(name), "/spec/initContainers", json!([])), "/status/podIP", json!("10.0.0.7"))
}

/// An injected one, by these words and of this image.
fn injected(name: &str, config: &str, image: &str) -> Value {
    let note = json!({"version": env!("CARGO_PKG_VERSION"), "config": config, "container": "worker"}).to_string();
    let pod = with(pod(name), "/metadata/annotations", json!({"qscaler.dev/injected": note}));
    with(pod, "/spec/initContainers/0/image", json!(image))
}

fn told(view: &View) -> String {
    let config = view.deployment.config.clone().unwrap();
    config_hash(&SidecarConfig::new(&config, orders(), "dep".into(), "1".into(), "worker".into(), "token".into()), &config)
}

struct Stage {
    workload: Workload,
    view: View,
}

impl Stage {
    fn new(annotations: &[(&str, &str)], pods: &[Value]) -> Self {
        Self::of(view(&[&[deployment(u32::try_from(pods.len()).unwrap(), annotations), replicaset("orders-1", 1)], pods].concat()))
    }

    fn of(view: View) -> Self {
        let mut stage = Self { workload: Workload::restore(orders(), "dep".into(), QWorkerStatus::default(), T0_MS), view };
        stage.workload.sampled(vec![QueueSample { ready: Some(0), unacked: Some(0), ..QueueSample::default() }], T0_MS);
        stage.look();
        stage
    }

    fn look(&mut self) {
        self.workload.look(&self.view, &Cluster::default(), ROOM, T0_MS);
    }

    fn idle(mut self, pods: &[&str]) -> Self {
        let reports: Vec<_> = pods.iter().map(|pod| report(pod, 1, WorkerState::Open, Busy::Idle)).collect();
        self.workload.reports(&reports, &self.view, &Cluster::default(), T0_MS);
        self
    }

    fn candidates(&mut self) -> Vec<(Cause, Net)> {
        let config = self.view.deployment.config.clone().unwrap();
        self.workload.candidates(&config, &self.view, Some(IMAGE), T0_MS).into_iter().map(|c| (c.cause, c.net)).collect()
    }

    /// The condition's reason and message after a step.
    fn said(&mut self) -> (String, String) {
        self.workload.replace(&self.view, Some(IMAGE), true, T0_MS);
        self.look();
        let (reason, message) = self.workload.conditions.complaint(condition::UP_TO_DATE).unwrap_or(("UpToDate", ""));
        (reason.to_owned(), message.to_owned())
    }
}

#[test]
fn a_bare_pod_of_a_worker_that_finishes_on_sigterm_gets_the_grace_of_its_longest_task() {
    let mut stage = Stage::new(&[("max-task-duration", "10m")], &[bare("a")]);
    assert_eq!(stage.candidates(), [(Cause::Bare, Net::Grace(Some(660)))]);
    let ask = stage.workload.replace(&stage.view, Some(IMAGE), true, T0_MS).expect("a try");
    assert!(ask.prove && ask.pod_name == "a");
    let (reason, message) = stage.said();
    assert!(reason == condition::REASON_REPLACING && message.contains("pod a of 1 has no sidecar"), "{reason}: {message}");
    let record = stage.view.pods[0].bare.clone().expect("bare");
    assert_eq!((&*record.host, record.address), ("a", Some("10.0.0.7".parse().unwrap())));
}

#[test]
fn a_bare_pod_whose_task_no_net_lies_under_is_left_alone_with_the_reason() {
    let shell = with(bare("a"), "/spec/containers/0/command", json!(["sh", "-c", "migrate; celery -A app worker"]));
    for (annotations, pod, words) in [
        (&[("worker", "redis-loop")][..], bare("a"), "redis-loop worker without a hold"),
        (&[("worker", "sidekiq")], bare("a"), "sidekiq worker without a hold"),
        (&[("worker", "bullmq")], bare("a"), "bullmq worker without a hold"),
        (&[("signal", "SIGINT")], bare("a"), "celery worker without a hold"),
        (&[], shell, "a shell that does not pass SIGTERM on"),
    ] {
        let mut stage = Stage::new(annotations, &[pod]);
        let (reason, message) = stage.said();
        assert!(reason == "LeftAlone" && message.contains(words) && message.contains("rollout restart"), "{annotations:?} {reason}: {message}");
    }
    let remapped = with(
        deployment(1, &[]),
        "/spec/template/spec/containers/0/env",
        json!([{"name": "REMAP_SIGTERM", "value": "SIGQUIT"}, {"name": "URL", "value": "redis://r/0"}]),
    );
    let mut stage = Stage::of(view(&[remapped, replicaset("orders-1", 1), bare("a")]));
    assert!(stage.said().1.contains("REMAP_SIGTERM"));
}

#[test]
fn a_pod_that_believes_no_message_is_replaced_while_it_is_idle_and_one_without_a_key_is_as_good_as_it_was() {
    let words = told(&view(&[deployment(1, &[]), replicaset("orders-1", 1)]));
    let signed_by = |key: &[u8; 8]| Cluster { control_key: Some(*key), ..Cluster::default() };
    for (given, cluster, found) in [
        (vec!["AAAAAAAA"], signed_by(b"BBBBBBBB"), vec![(Cause::OtherKey, Net::Held)]),
        (vec!["AAAAAAAA", "BBBBBBBB"], signed_by(b"BBBBBBBB"), vec![]),
        (vec![], signed_by(b"BBBBBBBB"), vec![]),
        // A new pod would believe a controller without a key no more than this one does.
        (vec!["AAAAAAAA"], Cluster::default(), vec![]),
    ] {
        let mut stage = Stage::new(&[], &[injected("a", &words, IMAGE)]);
        let control_keys = given.iter().map(|key| (*key).to_owned()).collect();
        let told = Report { control_keys, ..report("a", 1, WorkerState::Open, Busy::Idle) };
        stage.workload.reports(&[told], &stage.view, &cluster, T0_MS);
        stage.workload.look(&stage.view, &cluster, ROOM, T0_MS);
        assert_eq!(stage.candidates(), found, "{given:?}");
        let ask = stage.workload.replace(&stage.view, Some(IMAGE), true, T0_MS);
        assert_eq!(ask.is_some_and(|ask| !ask.prove && ask.pod_name == "a"), !found.is_empty());
    }
}

/// As in the moments after an installation: the controller leads before the webhook is trusted, and a new pod would come without a sidecar.
#[test]
fn no_pod_is_replaced_while_the_webhook_is_away_and_it_is_said() {
    for pod in [bare("a"), injected("a", "0123456789abcdef", IMAGE)] {
        let mut stage = Stage::new(&[], &[pod]).idle(&["a"]);
        stage.view.webhook_away = true;
        assert_eq!(stage.workload.replace(&stage.view, Some(IMAGE), true, T0_MS), None);
        let (reason, message) = stage.said();
        assert!(reason == condition::REASON_REPLACING && message.contains("no replica of the webhook is ready"), "{reason}: {message}");
        stage.view.webhook_away = false;
        assert!(stage.workload.replace(&stage.view, Some(IMAGE), true, T0_MS).is_some());
    }
}

#[test]
fn a_worker_that_never_ran_needs_no_proof() {
    let pending = with(bare("a"), "/status/containerStatuses", json!([]));
    let pending = with(pending, "/status/conditions", json!([{"type": "Ready", "status": "False"}]));
    let mut stage = Stage::new(&[("worker", "redis-loop")], &[pending]);
    assert_eq!(stage.candidates(), [(Cause::Bare, Net::NoWorker)]);
    assert!(!stage.workload.replace(&stage.view, None, true, T0_MS).expect("a try").prove);
}

#[test]
fn pods_told_other_words_or_with_another_sidecar_than_new_ones_are_found() {
    let words = told(&view(&[deployment(1, &[]), replicaset("orders-1", 1)]));
    let unshared = {
        let config = view(&[deployment(1, &[]), replicaset("orders-1", 1)]).deployment.config.clone().unwrap();
        let told = SidecarConfig::new(&config, orders(), "dep".into(), String::new(), "worker".into(), String::new());
        config_hash(&SidecarConfig { share_processes: false, ..told }, &config)
    };
    let pods = [
        injected("a", &words, IMAGE),
        injected("b", &unshared, IMAGE),
        injected("c", "0123456789abcdef", IMAGE),
        injected("d", &words, "registry.example/sidecar:1"),
    ];
    let mut stage = Stage::new(&[], &pods).idle(&["a", "b", "c", "d"]);
    assert_eq!(stage.candidates(), [(Cause::OldConfiguration, Net::Held), (Cause::OldSidecar, Net::Held)]);
    let ask = stage.workload.replace(&stage.view, Some(IMAGE), true, T0_MS).expect("a try");
    assert!(!ask.prove && ask.grace_s.is_none() && ask.pod_name == "c", "{ask:?}");
    // The user's own word on sharing is one that every pod can keep.
    let mut stage = Stage::new(&[("share-processes", "false")], &[injected("a", &words, IMAGE)]);
    assert_eq!(stage.candidates(), [(Cause::OldConfiguration, Net::Held)]);
    // What another version wrote cannot be judged, and an image that is not known neither.
    let note = json!({"qscaler.dev/injected": r#"{"version": "9", "config": "x", "container": "worker"}"#});
    let foreign = with(injected("a", "x", "y"), "/metadata/annotations", note);
    let config = stage.view.deployment.config.clone().unwrap();
    let mut stage = Stage::new(&[], &[foreign]);
    assert_eq!(stage.workload.candidates(&config, &stage.view, None, T0_MS), []);
}

/// What the webhook's own code makes of a pod just now is up to date, and is not any more once an annotation that it was told has changed.
#[test]
fn a_pod_as_the_webhook_makes_it_is_not_old_before_an_annotation_changes() {
    let made = |annotations: &[(&str, &str)]| {
        let object = deployment(1, annotations);
        let config = view(&[object.clone(), replicaset("orders-1", 1)]).deployment.config.clone().unwrap();
        let settings = Settings { image: IMAGE.into(), ..Settings::default() };
        let injection = Injection { workload_uid: "dep".into(), ..Injection::preview(&settings, orders(), Allowed::default()) };
        let spec = object["spec"]["template"].clone();
        let mut made = json!({"metadata": spec["metadata"], "spec": spec["spec"]});
        let Outcome::Patch { patch, .. } = inject(&made, &config, &injection) else { panic!("not injected") };
        json_patch::patch(&mut made, &patch).unwrap();
        let pod = with(pod("a"), "/metadata/annotations", made["metadata"]["annotations"].clone());
        with(pod, "/spec/initContainers", made["spec"]["initContainers"].clone())
    };
    let same: &[&[(&str, &str)]] = &[
        &[],
        &[("share-processes", "true")],
        &[("share-processes", "false")],
        &[("worker", "sidekiq"), ("concurrency", "10")],
        &[("container", "log")],
    ];
    for annotations in same {
        assert_eq!(Stage::new(annotations, &[made(annotations)]).candidates(), [], "{annotations:?}");
        for change in [
            ("max-task-duration", "7m"),
            ("broker", "env:OTHER_URL"),
            ("broker", "secret:mq/url"),
            ("control-broker", "env:OTHER_URL"),
            ("broker-tls", "secret:mq-tls"),
            ("management", "http://api:15672"),
        ] {
            let later = [annotations, &[change][..]].concat();
            assert_eq!(Stage::new(&later, &[made(annotations)]).candidates(), [(Cause::OldConfiguration, Net::Held)], "{annotations:?} {change:?}");
        }
        // What no sidecar is told makes no pod old.
        let bounds = [annotations, &[("max-replicas", "7"), ("max-wait", "5s"), ("vertical", "initial")][..]].concat();
        assert_eq!(Stage::new(&bounds, &[made(annotations)]).candidates(), [], "{annotations:?}");
    }
}

#[test]
fn a_sidecar_of_the_wrong_user_goes_where_the_next_one_gets_the_right() {
    let found = |uid: Option<i64>, worker: &str| {
        let mut object = pod("a");
        if let Some(uid) = uid {
            object = with(object, "/spec/initContainers/0/securityContext", json!({"runAsUser": uid}));
        }
        let mut stage = Stage::new(&[("worker", worker)], &[object]);
        let mut told = report("a", 1, WorkerState::Open, Busy::Idle);
        (told.access, told.worker_ids) = (AccessLevel::ReadOnly, Some((0, 0)));
        stage.workload.reports(&[told], &stage.view, &Cluster::default(), T0_MS);
        stage.candidates()
    };
    assert_eq!(found(None, "celery"), [(Cause::WrongUser, Net::Grace(None))]);
    assert_eq!(found(Some(1000), "celery"), []);
    assert!(matches!(found(None, "sidekiq").as_slice(), [(Cause::WrongUser, Net::None(_))]));
}

#[test]
fn nothing_is_replaced_where_nothing_is_to_be_changed() {
    for (key, value) in [("dry-run", "true"), ("paused", "true"), ("replace-pods", "never")] {
        let mut stage = Stage::new(&[(key, value)], &[bare("a")]);
        assert_eq!(stage.workload.replace(&stage.view, None, true, T0_MS), None);
        assert_eq!(stage.said().0, condition::REASON_PAUSED);
    }
}

fn ask(prove: bool) -> Ask {
    Ask { pod_uid: "uid-a".into(), pod_name: "a".into(), cause: Cause::OldSidecar, prove, grace_s: Some(660) }
}

#[tokio::test]
async fn an_eviction_names_the_pod_s_uid_and_grace_and_says_what_refuses_it() {
    let (client, script) = api(vec![(201, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))]);
    assert_eq!(evict(&client, &Leadership::always(), "shop", &ask(false), None).await, Tried::Evicted);
    assert_eq!(script.seen(), ["POST /api/v1/namespaces/shop/pods/a/eviction"]);
    let options = script.calls()[0].body["deleteOptions"].clone();
    assert_eq!((&options["preconditions"]["uid"], &options["gracePeriodSeconds"]), (&json!("uid-a"), &json!(660)));
    // As Kubernetes 1.36 words it.
    let mut budget = refusal(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.");
    budget.1["details"] =
        json!({"causes": [{"reason": "DisruptionBudget", "message": "The disruption budget orders needs 1 healthy pods and has 1 currently"}]});
    let many = refusal(500, "InternalError", "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.");
    for (answer, expected) in [
        (budget, Tried::Budget("The disruption budget orders needs 1 healthy pods and has 1 currently".into())),
        (many, Tried::Failed("This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.".into())),
        (refusal(409, "Conflict", "another UID"), Tried::Moot),
        (refusal(404, "NotFound", "gone"), Tried::Moot),
        (refusal(403, "Forbidden", "no"), Tried::Failed("no".into())),
    ] {
        let (client, _) = api(vec![answer]);
        assert_eq!(evict(&client, &Leadership::always(), "shop", &ask(false), None).await, expected);
    }
}

#[tokio::test]
async fn without_a_proof_nothing_is_evicted() {
    let (client, script) = api(vec![]);
    assert_eq!(evict(&client, &Leadership::always(), "shop", &ask(true), None).await, Tried::Moot);
    let config = view(&[deployment(1, &[]), replicaset("orders-1", 1)]).deployment.config.clone().unwrap();
    let books = crate::act::evict::IdleBooks { url: "redis://127.0.0.1:1/0".to_owned().into(), config, bare: Default::default() };
    assert!(matches!(evict(&client, &Leadership::always(), "shop", &ask(true), Some(books)).await, Tried::Unknown(_)));
    assert_eq!(script.seen(), Vec::<String>::new());
}
