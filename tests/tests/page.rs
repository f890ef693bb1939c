//! The controller's page in a real browser: the real server with a fleet made up here, in windows of a desk and a phone, light and dark. Pictures stay in `target/page` to be
//! looked at. Needs Chromium, as `cargo xtask test` unpacks it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test helper is a failed test with a line number")]

use k8s_openapi::jiff::Timestamp;
use qscaler_api::{ContainerSize, QWorkerStatus, Resources};
use qscaler_controller::show::fleet::{SharedFleet, Shown};
use qscaler_controller::show::page::Page;
use qscaler_controller::show::status::Snapshot;
use qscaler_core::config::{Parsed, WorkerConfig, parse};
use qscaler_core::scale::{Inputs, Rule, ScaleDecision};
use qscaler_core::workload::WorkloadId;
use qscaler_runtime::ready::Readiness;
use qscaler_runtime::{CancellationToken, serve};
use qscaler_tests::browser::{self, Window};
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;

const DESK: Window = Window { width: 1280, height: 800, dark: false };
const PHONE: Window = Window { width: 390, height: 844, dark: false };
const MIB: u64 = 1 << 20;
/// What a stranger could have a broker say.
const MARKUP: &str = "<img src=x onerror=alert(1)>";

fn pictures() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/page");
    std::fs::create_dir_all(&folder).unwrap();
    folder.canonicalize().unwrap()
}

fn config(max: &str) -> WorkerConfig {
    let annotations = [("queue", "q"), ("broker", "env:URL"), ("max-replicas", max), ("min-replicas", "0"), ("worker", "celery")];
    let annotations = annotations.iter().map(|(key, value)| (format!("qscaler.dev/{key}"), (*value).to_owned())).collect();
    match parse(&annotations, &Default::default()) {
        Parsed::Valid(config) => *config,
        other => panic!("{other:?}"),
    }
}

/// One workload as the loop would show it.
struct Made {
    namespace: &'static str,
    name: &'static str,
    status: QWorkerStatus,
    /// Target, rule, seconds that the next message has waited, and why.
    decision: Option<(u32, Rule, f64, &'static str)>,
    max: Option<&'static str>,
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn show(fleet: &SharedFleet, made: Made) {
    let id = WorkloadId { namespace: made.namespace.into(), name: made.name.into() };
    let mut status = made.status;
    if let Some((target, rule, waited_s, reason)) = made.decision {
        let inputs = Inputs { waited_s, ..Inputs::default() };
        let one = |target, rule, reason: &str, inputs| ScaleDecision {
            target,
            reason: reason.into(),
            rule,
            cap: None,
            inputs,
            next_wake_s: 1.0,
            hold: None,
            keep_parked: false,
        };
        let snapshot = |decision| Snapshot { workload: id.to_string(), decision: Some(decision), ..Snapshot::default() };
        let before = one(
            1,
            Rule::Rate,
            "1 pods (1 now): 1 waiting, 1 running, 0.200/s arriving, 2.00 s a task; rate: it follows arrivals times service time",
            Inputs::default(),
        );
        fleet.lock().decided(&id, snapshot(before), now_ms() - 90_000);
        fleet.lock().decided(&id, snapshot(one(target, rule, reason, inputs)), now_ms() - 42_000);
        (status.desired, status.rule, status.reason) = (i32::try_from(target).unwrap(), rule.name().into(), reason.into());
    }
    let config = made.max.map(config);
    fleet.lock().show(&id, Shown::new(status, config.as_ref()));
}

fn status(backlog: Option<i64>, replicas: i32, queue: &str) -> QWorkerStatus {
    let rate = |text: &str| if backlog.is_some() { text.to_owned() } else { String::new() };
    QWorkerStatus {
        backlog,
        replicas,
        ready: replicas,
        queue: queue.into(),
        rate_in: rate("12.34"),
        rate_out: rate("10.02"),
        decided_at: Timestamp::from_second(i64::try_from(now_ms() / 1000).unwrap() - 42).unwrap().to_string(),
        ..QWorkerStatus::default()
    }
}

fn size(now: u64, recommended: Option<u64>) -> ContainerSize {
    let memory = |bytes: u64| Resources { memory_bytes: Some(bytes * MIB), cpu_request_millicores: None };
    ContainerSize {
        current: Some(memory(now)),
        recommended: recommended.map(memory),
        reason: "the highest use seen is 301 MiB".into(),
        ..ContainerSize::default()
    }
}

fn condition(kind: &str, reason: &str, message: &str) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
    serde_json::from_value(
        json!({"type": kind, "status": "False", "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"}),
    )
    .unwrap()
}

/// Five workloads: a long name and a late queue, a broker that refuses, an ordinary one, one at zero, and one with a mistake.
fn fleet() -> SharedFleet {
    let fleet = SharedFleet::for_page();
    fleet.lock().leads(true);
    let late = "50 pods (48 now): 1234567 waiting, 40 running, 12.340/s arriving, 31 s a task; backlog: what waits would not start within the aimed-at part of max-wait 60 s with 48 pods; max-replicas 50 cut it; it rises with the backlog and falls when workers have been idle";
    let blind = "3 pods (3 now): backlog unknown, figures 31 s old; unknown: unknown is not zero, so no pod leaves; it may fall once the broker answers again";
    let steady = "4 pods (4 now): 17 waiting, 3 running, 1.900/s arriving, 1.80 s a task; rate: 3.42 tasks run at once by rate; it follows arrivals times service time";
    let refused = condition("BrokerReachable", "Refused", &format!("redis.shop:6379: the password is refused {MARKUP}"));
    let mistake = condition("Ready", "InvalidConfig", "qscaler.dev/worker: \"celeri\" is no worker; valid: celery, rq, …");
    show(
        &fleet,
        Made {
            namespace: "a-team-with-a-very-long-name-for-its-namespace-0123456789",
            name: "worker-that-transcodes-videos-for-the-european-customers-of-shop",
            status: QWorkerStatus {
                busy: 40,
                sizes: [("worker".into(), size(512, Some(640)))].into(),
                ..status(Some(1_234_567), 48, "transcode-eu-high,transcode-eu-default,transcode-eu-low")
            },
            decision: Some((50, Rule::Backlog, 75.0, late)),
            max: Some("50"),
        },
    );
    show(
        &fleet,
        Made {
            namespace: "shop",
            name: "mail",
            status: QWorkerStatus { conditions: vec![refused], sizes: [("worker".into(), size(256, Some(256)))].into(), ..status(None, 3, "mail") },
            decision: Some((3, Rule::Unknown, 0.0, blind)),
            max: Some("10"),
        },
    );
    let ordinary =
        QWorkerStatus { parked: 2, terminating: 1, busy: 3, sizes: [("worker".into(), size(512, None))].into(), ..status(Some(17), 6, "orders") };
    show(&fleet, Made { namespace: "shop", name: "orders", status: ordinary, decision: Some((4, Rule::Rate, 1.2, steady)), max: Some("20") });
    let idle = QWorkerStatus { would_do: Some("useful pods 1 -> 0".into()), ..status(Some(0), 0, "reports") };
    show(
        &fleet,
        Made {
            namespace: "shop",
            name: "reports",
            status: idle,
            decision: Some((
                0,
                Rule::Idle,
                0.0,
                "0 pods (0 now): 0 waiting, 0 running; idle: nothing waits and nothing runs; the first message raises it",
            )),
            max: Some("5"),
        },
    );
    let wrong = QWorkerStatus { conditions: vec![mistake], reason: "no figures yet".into(), desired: 1, ..status(None, 1, "") };
    show(&fleet, Made { namespace: "shop", name: "typo", status: wrong, decision: None, max: None });
    fleet
}

/// The page of this fleet, until the token is cancelled.
async fn served(fleet: SharedFleet, stop: &CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let page = Page::new(fleet, Readiness::default());
    tokio::spawn(serve::serve(listener, move |request| page.answer(request), stop.clone()));
    address
}

async fn look(address: SocketAddr, rest: &str, window: Window, picture: &str) -> String {
    let (url, path) = (format!("http://{address}/{rest}"), pictures().join(format!("{picture}.png")));
    let target = path.clone();
    let elements = tokio::task::spawn_blocking(move || browser::open(&url, window, &target)).await.unwrap().unwrap();
    assert_eq!(browser::size(&path).unwrap(), (window.width, window.height), "{picture}");
    elements
}

/// Text of the element that has this id, without its markup.
fn text_of(elements: &str, id: &str) -> String {
    let from = elements.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no element {id}: {elements}"));
    let inner = &elements[from..];
    let inner = &inner[inner.find('>').unwrap() + 1..];
    inner[..inner.find("</").unwrap()].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_workload_is_a_row_of_a_table_in_windows_of_each_size_light_and_dark() {
    let stop = CancellationToken::new();
    let address = served(fleet(), &stop).await;
    for (name, window) in [("desk", DESK), ("phone", PHONE)] {
        for (shade, dark) in [("light", false), ("dark", true)] {
            let elements = look(address, "", Window { dark, ..window }, &format!("fleet-{name}-{shade}")).await;
            assert_eq!(text_of(&elements, "state"), "5 workloads, 2 with trouble");
            assert_eq!(elements.matches("role=\"rowheader\"").count(), 5, "{elements}");
            assert_eq!(elements.matches("scope=\"col\"").count(), 10);
            for part in [
                "worker-that-transcodes-videos-for-the-european-customers-of-shop",
                "1,234,567",
                "75 s",
                "BrokerReachable",
                "unknown",
                "recommended 640 MiB",
                "1 leaving",
                "dry run",
                "InvalidConfig",
            ] {
                assert!(elements.contains(part), "{name} {shade}: {part} is missing: {elements}");
            }
        }
    }
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_is_opened_says_why_and_what_a_stranger_wrote_stays_text() {
    let stop = CancellationToken::new();
    let address = served(fleet(), &stop).await;
    for (name, window) in [("desk", DESK), ("phone", Window { height: 1800, dark: true, ..PHONE })] {
        let elements = look(address, "#shop/mail", window, &format!("opened-{name}")).await;
        assert_eq!(elements.matches("aria-expanded=\"true\"").count(), 1, "{elements}");
        for part in [
            "What stands in the way",
            "the password is refused &lt;img src=x onerror=alert(1)&gt;",
            "Last decisions, the newest first",
            "1 pods (1 now)",
            "the highest use seen is 301 MiB",
        ] {
            assert!(elements.contains(part), "{part} is missing: {elements}");
        }
        assert!(!elements.contains("<img"), "{elements}");
    }
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_fleet_a_replica_that_waits_and_a_silent_server_are_said_in_words() {
    let stop = CancellationToken::new();
    let empty = SharedFleet::for_page();
    empty.lock().leads(true);
    let elements = look(served(empty, &stop).await, "", DESK, "empty-desk").await;
    assert_eq!(text_of(&elements, "state"), "0 workloads, 0 with trouble");
    assert!(text_of(&elements, "empty").contains("has QScaler's annotations yet"), "{elements}");
    let elements = look(served(SharedFleet::for_page(), &stop).await, "", PHONE, "follower-phone").await;
    assert_eq!(text_of(&elements, "state"), "This replica does not lead");
    assert!(text_of(&elements, "empty").contains("get lease qscaler-controller"), "{elements}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let page = Page::new(SharedFleet::for_page(), Readiness::default());
    tokio::spawn(serve::serve(
        listener,
        move |request| {
            let mut answer = page.answer(request);
            if request.uri().path() == "/fleet.json" {
                *answer.status_mut() = 503_u16.try_into().unwrap();
            }
            answer
        },
        stop.clone(),
    ));
    let elements = look(address, "", DESK, "silent-desk").await;
    assert_eq!(text_of(&elements, "state"), "No answer. Is the port forwarded?");
    stop.cancel();
}
