//! What frameworks and brokers have written down about one pod, on real brokers. The entries are those of each framework, put there by hand; the
//! connections are real ones.
// A test crate: a failed unwrap is a failed test with a line number, in its helpers too.
#![allow(clippy::unwrap_used)]

use futures::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use qscaler_broker::activity::{BlockedPops, Bookkeeping, Seen, Waiting, Whose};
use qscaler_core::framework::{Framework, KeyNames, framework};
use qscaler_sidecar::worker::procs::ProcFs;
use qscaler_sidecar::worker::sockets::Connections;
use qscaler_tests::servers::{RabbitServer, RedisServer};
use qscaler_tests::wait::wait_for;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Mutex;

/// Longer than any step takes on a loaded machine; RabbitMQ renews its figures every 5 s.
const DEADLINE: Duration = Duration::from_secs(60);

fn books_of(url: &str, worker: &str, address: Option<IpAddr>) -> Option<Bookkeeping> {
    let whose = Whose { framework: framework(worker).unwrap(), names: &KeyNames::default(), queues: &["q".to_owned()] };
    Bookkeeping::open(url, &whose, "pod-a", address).unwrap()
}

/// One Redis, and the books of one framework about host `pod-a`.
struct Desk {
    redis: RedisServer,
    books: Bookkeeping,
}

impl Desk {
    fn open(worker: &str) -> Self {
        let redis = RedisServer::start().unwrap();
        let books = books_of(&redis.url(0), worker, None).expect("this framework keeps books");
        Self { redis, books }
    }

    fn write(&self, command: &str) {
        let output = self.redis.cli(0).args(command.split(' ')).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }

    async fn says(&mut self, expected: Seen) {
        assert_eq!(self.books.sample().await.unwrap(), expected);
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn pops_of(url: &str, worker: &str) -> Option<BlockedPops> {
    let framework: &'static Framework = framework(worker).unwrap();
    BlockedPops::open(url, &Whose { framework, names: &KeyNames::default(), queues: &["q".to_owned()] }).unwrap()
}

/// What these connections of the worker are seen doing, as soon as it is what `wanted` says.
async fn seen(pops: &Mutex<BlockedPops>, procs: &ProcFs, wanted: impl Fn(Option<Waiting>) -> bool) {
    let look = || async {
        let seen = pops.lock().await.sample(&Connections::read(procs).others()).await.unwrap();
        if wanted(seen) { Ok(()) } else { Err(format!("{seen:?}")) }
    };
    wait_for("what the worker's connections do", DEADLINE, look).await.unwrap();
}

#[tokio::test]
async fn sidekiq_writes_down_how_many_threads_of_a_process_work() {
    let mut desk = Desk::open("sidekiq");
    desk.says(Seen::Unknown).await;
    desk.write("SADD processes pod-a:1:f00 pod-b:1:f00");
    desk.write(&format!("HSET pod-a:1:f00 busy 2 beat {}", seconds()));
    desk.write(&format!("HSET pod-b:1:f00 busy 9 beat {}", seconds()));
    desk.says(Seen::Busy(Some(2))).await;
    desk.write("HSET pod-a:1:f00 busy 0 quiet false");
    desk.says(Seen::IdleAndTaking).await;
    desk.write("HSET pod-a:1:f00 quiet true");
    desk.says(Seen::Idle).await;
    desk.write("HSET pod-a:1:f00 beat 1000");
    desk.says(Seen::Unknown).await;
}

#[tokio::test]
async fn asynq_keeps_a_hash_of_the_tasks_of_a_server_that_lives() {
    let mut desk = Desk::open("asynq");
    desk.write(&format!("ZADD asynq:servers {} asynq:servers:{{pod-a:1:u}} 1 asynq:servers:{{pod-a:0:dead}}", seconds() + 100));
    desk.write("SET asynq:servers:{pod-a:1:u} info");
    desk.says(Seen::Idle).await;
    desk.write("HSET asynq:workers:{pod-a:1:u} id task");
    desk.says(Seen::Busy(Some(1))).await;
    desk.write("DEL asynq:servers:{pod-a:1:u}");
    desk.says(Seen::Unknown).await;
}

#[tokio::test]
async fn resque_has_an_entry_while_a_worker_works() {
    let mut desk = Desk::open("resque");
    desk.write("SADD resque:workers pod-a:7:q,r pod-a2:7:q");
    desk.says(Seen::Idle).await;
    desk.write("SET resque:worker:pod-a:7:q,r job");
    desk.says(Seen::Busy(Some(1))).await;
    desk.write("SREM resque:workers pod-a:7:q,r");
    desk.says(Seen::Unknown).await;
}

#[tokio::test]
async fn rq_keeps_host_and_state_in_the_workers_entry() {
    let mut desk = Desk::open("rq");
    desk.write("SADD rq:workers rq:worker:1 rq:worker:2");
    desk.write("HSET rq:worker:1 hostname pod-a state idle");
    desk.write("HSET rq:worker:2 hostname pod-b state busy");
    desk.says(Seen::Idle).await;
    desk.write("HSET rq:worker:1 state busy");
    desk.says(Seen::Busy(Some(1))).await;
    desk.write("DEL rq:worker:1");
    desk.says(Seen::Unknown).await;
}

#[tokio::test]
async fn of_a_fleet_with_nothing_in_hand_every_pod_is_idle_and_else_none_is_known() {
    let mut dramatiq = Desk::open("dramatiq");
    dramatiq.says(Seen::Unknown).await;
    dramatiq.write("ZADD dramatiq:__heartbeats__ 1 b1 2 b2");
    dramatiq.says(Seen::Idle).await;
    dramatiq.write("SADD dramatiq:__acks__.b2.q m");
    dramatiq.says(Seen::Elsewhere(None)).await;
    let mut bullmq = Desk::open("bullmq");
    bullmq.says(Seen::Idle).await;
    bullmq.write("LPUSH bull:q:active 1");
    bullmq.says(Seen::Elsewhere(Some(1))).await;
    let mut taskiq = Desk::open("taskiq-stream");
    taskiq.says(Seen::Idle).await;
    taskiq.write("XGROUP CREATE q taskiq $ MKSTREAM");
    taskiq.write("XADD q * data a");
    taskiq.says(Seen::Idle).await;
    taskiq.write("XREADGROUP GROUP taskiq w STREAMS q >");
    taskiq.says(Seen::Elsewhere(Some(1))).await;
    let mut arq = Desk::open("arq");
    arq.says(Seen::Idle).await;
    // Jobs for later and jobs that wait are nobody's.
    arq.write("ZADD q 9999999999999 later 1 job");
    arq.says(Seen::Idle).await;
    arq.write("SET arq:in-progress:job 1");
    arq.says(Seen::Elsewhere(Some(1))).await;
}

#[tokio::test]
async fn where_the_books_would_not_tell_there_are_none() {
    for worker in ["celery", "custom", "taskiq"] {
        assert!(books_of("redis://127.0.0.1:1/0", worker, None).is_none(), "{worker}");
    }
    assert!(books_of("amqp://127.0.0.1:1", "custom", None).is_none());
    assert!(pops_of("amqp://127.0.0.1:1", "custom").is_none());
}

#[tokio::test]
async fn a_redis_worker_is_seen_waiting_and_no_longer_once_it_has_gone() {
    let redis = RedisServer::start().unwrap();
    let procs = ProcFs::at("/proc");
    let mut pops = pops_of(&redis.url(0), "redis-loop").unwrap();
    assert_eq!(pops.sample(&Connections::read(&procs).others()).await.unwrap(), None);
    let mut worker: Command = redis.cli(0);
    let mut worker = worker.args(["BLMOVE", "q", "taken", "LEFT", "RIGHT", "0"]).stdout(Stdio::null()).spawn().unwrap();
    let pops = Mutex::new(pops);
    seen(&pops, &procs, |seen| seen == Some(Waiting { connections: 1, waiting: 1, greeting: 0 })).await;
    worker.kill().unwrap();
    worker.wait().unwrap();
    seen(&pops, &procs, |seen| seen.is_none()).await;
}

#[tokio::test]
async fn a_connection_that_a_worker_opens_late_is_found() {
    let redis = RedisServer::start().unwrap();
    let procs = ProcFs::at("/proc");
    let pops = pops_of(&redis.url(0), "redis-loop").unwrap();
    // The first connection only looks now and then, as Huey's scheduler does.
    let mut scheduler = redis.cli(0).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(scheduler.stdin.as_mut().unwrap(), b"PING\n").unwrap();
    let pops = Mutex::new(pops);
    seen(&pops, &procs, |seen| seen == Some(Waiting { connections: 1, waiting: 0, greeting: 1 })).await;
    let mut worker = redis.cli(0).args(["BRPOP", "q", "0"]).stdout(Stdio::null()).spawn().unwrap();
    seen(&pops, &procs, |seen| seen.is_some_and(|seen| seen.waiting == 1)).await;
    for child in [&mut worker, &mut scheduler] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// A connection, and its local port as the server sees it.
async fn connection(redis: &RedisServer) -> (redis::aio::MultiplexedConnection, u16) {
    let mut connection = redis::Client::open(redis.url(0)).unwrap().get_multiplexed_async_connection().await.unwrap();
    let info: String = redis::cmd("CLIENT").arg("INFO").query_async(&mut connection).await.unwrap();
    let address = info.split(' ').find_map(|pair| pair.strip_prefix("addr=")).unwrap();
    let port = address.rsplit(':').next().unwrap().parse().unwrap();
    (connection, port)
}

/// A worker takes a task, in one step as BullMQ's script does.
async fn take(worker: &mut redis::aio::MultiplexedConnection, task: &str, owner: &str) {
    let mut taking = redis::pipe();
    taking.atomic().lpush("bull:q:active", task).ignore();
    taking.cmd("SET").arg(format!("bull:q:{task}:lock")).arg(owner).arg("PX").arg(30_000).ignore();
    taking.exec_async(worker).await.unwrap();
}

#[tokio::test]
async fn a_task_in_hand_is_another_s_once_it_was_taken_while_the_pod_was_silent_and_else_may_be_its_own() {
    let redis = RedisServer::start().unwrap();
    let ((mut own, own_port), (_second, second_port), (mut other, _)) =
        (connection(&redis).await, connection(&redis).await, connection(&redis).await);
    let ports = BTreeSet::from([own_port, second_port]);
    let mut pops = pops_of(&redis.url(0), "bullmq").unwrap();
    let mut none_here = async || {
        let seen = pops.sample(&ports).await.unwrap();
        assert_eq!(seen.map(|seen| seen.connections), Some(2));
        pops.none_here(&ports, &ports).await.unwrap().unwrap()
    };
    assert!(none_here().await);
    // The pod's own worker has taken one, and is silent then: it is never another's.
    take(&mut own, "mine", "0b5c6a34-0f3e-4a0e-9d54-5a5b1f6f7a11:0").await;
    for _ in 0..8 {
        assert!(!none_here().await);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    redis::cmd("DEL").arg("bull:q:active").arg("bull:q:mine:lock").exec_async(&mut own).await.unwrap();
    // Another takes one after the other; the pod is silent.
    let begin = std::time::Instant::now();
    for number in 0.. {
        take(&mut other, &format!("other-{number}"), &format!("7f0b2a55-9c1d-4c57-8e3b-2d4c6b8a9e22:{number}")).await;
        if none_here().await {
            break;
        }
        assert!(begin.elapsed() < DEADLINE, "nothing was proved");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    take(&mut own, "mine-2", "0b5c6a34-0f3e-4a0e-9d54-5a5b1f6f7a11:1").await;
    assert!(!none_here().await);
}

#[tokio::test]
async fn rabbitmq_tells_what_the_pods_connections_hold() {
    let rabbit = RabbitServer::start().unwrap();
    let url = format!("{}?management={}", rabbit.url(), rabbit.management());
    let books = books_of(&url, "custom", Some("127.0.0.1".parse().unwrap())).unwrap();
    let books = &Mutex::new(books);
    let says = |expected: Seen| async move {
        let look = || async {
            let seen = books.lock().await.sample().await.unwrap();
            if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
        };
        wait_for("what RabbitMQ tells", DEADLINE, look).await.unwrap();
    };
    let worker = Connection::connect(&rabbit.url(), ConnectionProperties::default()).await.unwrap();
    let channel = worker.create_channel().await.unwrap();
    channel.queue_declare("q".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    let mut consumer = channel.basic_consume("q".into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await.unwrap();
    says(Seen::Idle).await;
    channel.basic_publish("".into(), "q".into(), BasicPublishOptions::default(), b"task", BasicProperties::default()).await.unwrap().await.unwrap();
    let delivery = consumer.next().await.unwrap().unwrap();
    says(Seen::Busy(None)).await;
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    says(Seen::Idle).await;
    // What a connection holds that the worker opens later is held too.
    let second = Connection::connect(&rabbit.url(), ConnectionProperties::default()).await.unwrap();
    let late = second.create_channel().await.unwrap();
    late.queue_declare("r".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    late.basic_publish("".into(), "r".into(), BasicPublishOptions::default(), b"task", BasicProperties::default()).await.unwrap().await.unwrap();
    let mut consumer = late.basic_consume("r".into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await.unwrap();
    let delivery = consumer.next().await.unwrap().unwrap();
    says(Seen::Busy(None)).await;
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    says(Seen::Idle).await;
    // The same books about another address know nothing.
    let mut other = books_of(&url, "custom", Some("10.9.9.9".parse().unwrap())).unwrap();
    assert_eq!(other.sample().await.unwrap(), Seen::Unknown);
}
