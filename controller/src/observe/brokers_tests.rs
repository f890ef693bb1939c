//! Connections are shared, and one workload's trouble is not another's.

use super::*;
use async_trait::async_trait;
use qscaler_broker::memory::Memory;
use qscaler_core::framework::FRAMEWORKS;
use qscaler_core::scale::QueueSample;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Default)]
struct Counted {
    calls: AtomicUsize,
    queries: AtomicUsize,
}

#[async_trait]
impl QueueStats for Counted {
    async fn sample_each(&self, queries: &[QueueQuery]) -> Result<Vec<Result<QueueSample, BrokerError>>, BrokerError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.queries.store(queries.len(), Ordering::SeqCst);
        let one = |q: &QueueQuery| match q.queue.as_str() {
            "bad" => Err(BrokerError { operation: "LLEN", place: "redis://r".into(), message: "wrong type".into(), retry: Retry::Later }),
            name => Ok(QueueSample { ready: Some(name.len() as u64), ..QueueSample::default() }),
        };
        Ok(queries.iter().map(one).collect())
    }
}

fn address(name: &str) -> ControlAddress {
    ControlAddress::new(&id(name), &"d-1".into())
}

fn id(name: &str) -> WorkloadId {
    WorkloadId { namespace: "shop".into(), name: name.into() }
}

fn queries(names: &[&str]) -> Vec<QueueQuery> {
    names.iter().map(|n| QueueQuery::new(n, FRAMEWORKS[0])).collect()
}

fn url(text: &str) -> SecretUrl {
    SecretUrl::from(text.to_owned())
}

fn opener(stats: &Arc<Counted>, opened: &Arc<AtomicUsize>) -> Opener {
    let (stats, opened) = (Arc::clone(stats), Arc::clone(opened));
    Opener {
        stats: Arc::new(move |url| {
            if url.contains("wrong") {
                return Err(BrokerError { operation: "open", place: "x".into(), message: "not a URL".into(), retry: Retry::AfterChange });
            }
            opened.fetch_add(1, Ordering::SeqCst);
            Ok(Arc::clone(&stats) as Arc<dyn QueueStats>)
        }),
        control: Arc::new(|_| Ok(Arc::new(Memory::new()))),
    }
}

#[tokio::test(start_paused = true)]
async fn one_connection_and_one_call_serve_all_workloads_of_a_broker() {
    let (stats, opened) = (Arc::new(Counted::default()), Arc::new(AtomicUsize::new(0)));
    let (sender, mut inputs) = mpsc::channel(100);
    let mut brokers = Brokers::new(opener(&stats, &opened), sender);
    brokers.register(&address("a"), &url("redis://r/0"), &url("redis://r/0"), queries(&["q", "qq"])).unwrap();
    brokers.register(&address("b"), &url("redis://r/0"), &url("redis://r/0"), queries(&["bad"])).unwrap();
    brokers.register(&address("c"), &url("redis://r/0"), &url("redis://r/0"), queries(&["qqq"])).unwrap();
    assert_eq!((opened.load(Ordering::SeqCst), brokers.connections()), (1, 2));
    let mut results = BTreeMap::new();
    while results.len() < 3 {
        if let Some(Input::Sampled(id, result)) = inputs.recv().await {
            results.insert(id.name, result.map(|s| s.queues.iter().map(|q| q.ready.unwrap()).collect::<Vec<_>>()));
        }
    }
    assert_eq!((&results["a"], &results["c"]), (&Ok(vec![1, 2]), &Ok(vec![3])));
    assert!(results["b"].as_ref().unwrap_err().contains("wrong type"));
    assert_eq!((stats.calls.load(Ordering::SeqCst), stats.queries.load(Ordering::SeqCst)), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_needs_is_closed_and_a_moved_workload_leaves_the_old_one() {
    let (stats, opened) = (Arc::new(Counted::default()), Arc::new(AtomicUsize::new(0)));
    let (sender, _inputs) = mpsc::channel(100);
    let mut brokers = Brokers::new(opener(&stats, &opened), sender);
    brokers.register(&address("a"), &url("redis://r/0"), &url("redis://r/0"), queries(&["q"])).unwrap();
    brokers.register(&address("a"), &url("redis://other/0"), &url("redis://r/0"), queries(&["q"])).unwrap();
    assert_eq!((opened.load(Ordering::SeqCst), brokers.connections()), (2, 2));
    assert!(brokers.control(&id("a")).is_some());
    brokers.deregister(&id("a"));
    assert!(brokers.connections() == 0 && brokers.control(&id("a")).is_none());
    assert!(brokers.register(&address("a"), &url("wrong"), &url("redis://r/0"), queries(&["q"])).unwrap_err().to_string().contains("not a URL"));
}

#[tokio::test(start_paused = true)]
async fn a_nudge_fetches_that_workloads_reports_between_two_seconds() {
    let (stats, opened) = (Arc::new(Counted::default()), Arc::new(AtomicUsize::new(0)));
    let (sender, mut inputs) = mpsc::channel(100);
    let mut brokers = Brokers::new(opener(&stats, &opened), sender);
    for name in ["a", "b"] {
        brokers.register(&address(name), &url("redis://r/0"), &url("redis://r/0"), queries(&["q"])).unwrap();
    }
    let begin = Instant::now();
    let mut fetched = Vec::new();
    while fetched.len() < 4 {
        if let Some(Input::Reports(id, _)) = inputs.recv().await {
            fetched.push((id.name, begin.elapsed()));
            if fetched.len() == 2 {
                brokers.nudge(&WorkloadId { namespace: "shop".into(), name: "b".into() });
            }
        }
    }
    assert!(fetched[2].0 == "b" && fetched[2].1 < PERIOD, "{fetched:?}");
    assert!(fetched[3].1 >= PERIOD, "{fetched:?}");
}

#[test]
fn a_round_is_spread_over_its_second_and_nobody_is_left_out() {
    for (all, count) in [(0, 1), (1, 1), (250, 1), (251, 2), (10_000, 40)] {
        let parts = batches((0..all).collect::<Vec<usize>>());
        assert_eq!((parts.len(), parts.iter().map(|(_, b)| b.len()).sum::<usize>()), (count, all));
        assert!(parts.iter().all(|(after, b)| *after < PERIOD && b.len() <= BATCH) && parts[0].0.is_zero());
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_is_told_to_each_of_its_workloads_and_found_again() {
    let memory = Memory::new();
    let (stats, control) = (memory.clone(), memory.clone());
    let opener = Opener { stats: Arc::new(move |_| Ok(Arc::new(stats.clone()))), control: Arc::new(move |_| Ok(Arc::new(control.clone()))) };
    let (sender, mut inputs) = mpsc::channel(10_000);
    let mut brokers = Brokers::new(opener, sender);
    let count = BATCH * 2 + 1;
    for n in 0..count {
        brokers.register(&address(&format!("w{n}")), &url("redis://r/0"), &url("redis://r/0"), queries(&["q"])).unwrap();
    }
    for fails in [true, false] {
        memory.fail(fails.then_some(Retry::Later));
        let (mut sampled, mut fetched) = (BTreeSet::new(), BTreeSet::new());
        while sampled.len() < count || fetched.len() < count {
            match inputs.recv().await {
                Some(Input::Sampled(id, result)) if result.is_err() == fails => sampled.insert(id),
                Some(Input::ControlFailed(id, _)) if fails => fetched.insert(id),
                Some(Input::Reports(id, _)) if !fails => fetched.insert(id),
                _ => false,
            };
        }
    }
}

#[tokio::test]
async fn only_hosts_that_the_installation_allows_are_connected_to() {
    let hosts = ["redis.shop", "*.mq.example", "10.0.0.7", "::1"].map(str::to_owned).to_vec();
    let Opener { stats, control } = Opener::limited(hosts, Signer::default());
    for allowed in [
        "redis://redis.shop/0",
        "redis://REDIS.shop.:6379/0",
        "amqp://u:p@a.mq.example",
        "redis://10.0.0.7",
        "redis://[::1]:6379/0",
        "amqp://u:p@a.mq.example:5672,b.mq.example/v?management=http%3A%2F%2Fc.mq.example%3A15672",
    ] {
        assert!(stats(allowed).is_ok() && control(allowed).is_ok(), "{allowed}");
    }
    for (refused, host) in [
        ("redis://169.254.169.254/0", "169.254.169.254"),
        ("redis://xredis.shop/0", "xredis.shop"),
        ("amqp://u:secret@mq.example", "mq.example"),
        ("amqp://u:secret@evilmq.example", "evilmq.example"),
        ("amqp://u:secret@a.mq.example.evil", "a.mq.example.evil"),
        ("amqp://u:secret@a.mq.example?management=http%3A%2F%2F169.254.169.254", "169.254.169.254"),
        ("redis+sentinel://redis.shop:26379,elsewhere:26379/mymaster/0", "elsewhere"),
    ] {
        for error in [stats(refused).err(), control(refused).err()] {
            let error = error.unwrap_or_else(|| panic!("{refused} is opened"));
            let words = error.to_string();
            assert!(words.contains(&format!("{host} is none of the hosts")) && words.contains("brokerHosts") && !words.contains("secret"), "{words}");
            assert_eq!(error.retry, Retry::AfterChange);
        }
    }
    assert!((Opener::limited(Vec::new(), Signer::default()).stats)("redis://169.254.169.254/0").is_ok());
}
