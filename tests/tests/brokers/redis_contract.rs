//! Redis under the contract suite, directly and by Sentinel.

use async_trait::async_trait;
use qscaler_broker::contract::{Ends, Outcome, UnderTest, keys, run, signer};
use qscaler_broker::{BrokerError, ReceiverOptions, open_control, open_receiver_with, open_stats};
use qscaler_core::framework::{Framework, framework};
use qscaler_core::workload::ControlAddress;
use qscaler_tests::servers::{RedisServer, Sentinel};
use redis::aio::MultiplexedConnection;
use std::sync::Mutex;
use std::time::Duration;

const PASSWORD: &str = "s3cret/of+redis";
const WRONG: &str = "wr0ng-password";
/// A dead sidecar's message is claimed soon, and yet no live one's: they acknowledge at once here.
const RECLAIM_AFTER: Duration = Duration::from_secs(8);

struct Redis {
    server: Mutex<RedisServer>,
    url: String,
    plain_url: String,
    client: redis::Client,
}

fn encoded(password: &str) -> String {
    password.replace('/', "%2F").replace('+', "%2B")
}

impl Redis {
    fn start() -> Self {
        let server = RedisServer::start_at([127, 0, 0, 1].into(), Some(PASSWORD)).unwrap();
        let plain_url = server.url(3).replace(PASSWORD, &encoded(PASSWORD));
        let client = redis::Client::open(plain_url.as_str()).unwrap();
        Self { server: Mutex::new(server), url: plain_url.clone(), plain_url, client }
    }

    async fn connection(&self) -> MultiplexedConnection {
        self.client.get_multiplexed_async_connection().await.unwrap()
    }
}

fn ends(url: &str, address: &ControlAddress, pod_uid: &str) -> Result<Ends, BrokerError> {
    let options = ReceiverOptions { reclaim_after: RECLAIM_AFTER, keys: keys() };
    Ok(Ends { stats: open_stats(url)?, control: open_control(url, signer())?, receiver: open_receiver_with(url, address, pod_uid, options)? })
}

#[async_trait]
impl UnderTest for Redis {
    fn ends(&self, address: &ControlAddress, pod_uid: &str) -> Result<Ends, BrokerError> {
        ends(&self.url, address, pod_uid)
    }

    fn ends_nowhere(&self, address: &ControlAddress) -> Result<Ends, BrokerError> {
        // Port 1 of loopback: nobody listens there without being root.
        ends(&format!("redis://:{}@127.0.0.1:1/0", encoded(PASSWORD)), address, "p")
    }

    fn ends_refused(&self, address: &ControlAddress) -> Result<Ends, BrokerError> {
        ends(&self.plain_url.replace(&encoded(PASSWORD), WRONG), address, "p")
    }

    fn secrets(&self) -> Vec<String> {
        vec![PASSWORD.to_owned(), encoded(PASSWORD), WRONG.to_owned()]
    }

    fn framework(&self) -> &'static Framework {
        framework("celery").unwrap()
    }

    async fn put_tasks(&self, queue: &str, count: u64) -> Outcome {
        let mut connection = self.connection().await;
        for i in 0..count {
            redis::cmd("LPUSH").arg(queue).arg(format!(r#"{{"body":"{i}"}}"#)).exec_async(&mut connection).await?;
        }
        Ok(())
    }

    async fn hold_task(&self, queue: &str) -> Outcome {
        let mut connection = self.connection().await;
        let task: String = redis::cmd("RPOP").arg(queue).query_async(&mut connection).await?;
        let tag = format!("tag-of-{queue}");
        redis::cmd("HSET").arg("unacked").arg(&tag).arg(format!(r#"[{task},"","{queue}"]"#)).exec_async(&mut connection).await?;
        redis::cmd("ZADD").arg("unacked_index").arg(super::now_ms() / 1000).arg(&tag).exec_async(&mut connection).await?;
        Ok(())
    }

    async fn put_control(&self, address: &ControlAddress, body: &[u8]) -> Outcome {
        let key = format!("qscaler:ctl:{address}");
        Ok(redis::cmd("XADD").arg(key).arg("*").arg("m").arg(body).exec_async(&mut self.connection().await).await?)
    }

    async fn put_report(&self, address: &ControlAddress, body: &[u8]) -> Outcome {
        let key = format!("qscaler:reports:{address}");
        Ok(redis::cmd("XADD").arg(key).arg("*").arg("m").arg(body).exec_async(&mut self.connection().await).await?)
    }

    async fn restart(&self) -> Outcome {
        tokio::task::block_in_place(|| self.server.lock().unwrap().restart())?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_the_contract() {
    if let Err(failures) = run(&Redis::start()).await {
        panic!("{failures}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_behind_a_sentinel_keeps_the_contract() {
    let mut broker = Redis::start();
    let sentinel = Sentinel::start(&broker.server.lock().unwrap(), "main").unwrap();
    broker.url = format!("redis+sentinel://:{}@127.0.0.1:1,{}/main/3", encoded(PASSWORD), sentinel.address());
    if let Err(failures) = run(&broker).await {
        panic!("{failures}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_pod_writes_after_its_workload_is_gone_goes_by_itself() {
    let broker = Redis::start();
    let address = super::address("gone");
    let mut ends = broker.ends(&address, "a").unwrap();
    ends.control.declare(&address).await.unwrap();
    ends.control.publish(&address, &super::order(1, None)).await.unwrap();
    let taken = ends.receiver.take(true, super::DEADLINE).await.unwrap().expect("the message");
    ends.control.remove(&address).await.unwrap();
    // The pod is told to go on, and reports to the end.
    ends.receiver.give_back(taken).await.unwrap();
    ends.receiver.report(&super::report("gone", 1)).await.unwrap();
    let mut connection = broker.connection().await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("qscaler:*").query_async(&mut connection).await.unwrap();
    assert!(keys.iter().any(|key| key.starts_with("qscaler:ctl:")) && keys.iter().any(|key| key.starts_with("qscaler:reports:")), "{keys:?}");
    for key in keys {
        let left_ms: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
        assert!(left_ms > 0, "{key} stays for ever");
    }
}
