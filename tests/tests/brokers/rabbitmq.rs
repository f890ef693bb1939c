//! RabbitMQ under the contract suite, then what only it has: limited users and a management API that may be away. One server for all of it, as it
//! takes seconds to start.

use super::{DEADLINE, address, now_ms, order, query, report};
use async_trait::async_trait;
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use qscaler_broker::contract::{Ends, Outcome, UnderTest, keys, run, signer};
use qscaler_broker::signing::Signer;
use qscaler_broker::{BrokerError, ReceiverOptions, Retry, open_control, open_receiver, open_receiver_with, open_stats};
use qscaler_core::framework::{Framework, framework};
use qscaler_core::workload::ControlAddress;
use qscaler_tests::servers::RabbitServer;
use qscaler_tests::wait::wait_for;
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const WRONG: &str = "wr0ng-password";

struct Rabbit {
    server: Mutex<RabbitServer>,
    url: String,
    management: String,
    /// Channels that hold tasks.
    held: Mutex<Vec<(Connection, Channel)>>,
}

fn ends(url: &str, address: &ControlAddress, pod_uid: &str) -> Result<Ends, BrokerError> {
    let options = ReceiverOptions { keys: keys(), ..ReceiverOptions::default() };
    Ok(Ends { stats: open_stats(url)?, control: open_control(url, signer())?, receiver: open_receiver_with(url, address, pod_uid, options)? })
}

impl Rabbit {
    fn start() -> Self {
        let server = RabbitServer::start().unwrap();
        let (url, management) = (server.url(), server.management());
        Self { server: Mutex::new(server), url, management, held: Mutex::new(Vec::new()) }
    }

    fn url_of(&self, user: &str, password: &str) -> String {
        format!("{}?management={}", self.url.replace("guest:guest", &format!("{user}:{password}")), self.management)
    }

    async fn channel(&self) -> Result<(Connection, Channel), lapin::Error> {
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok((connection, channel))
    }

    async fn publish(&self, exchange: &str, key: &str, body: &[u8]) -> Outcome {
        let (_connection, channel) = self.channel().await?;
        channel.basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), body, BasicProperties::default()).await?.await?;
        Ok(())
    }

    /// One call of the management API as the administrator.
    async fn put(&self, path: &str, body: &str) {
        let host = self.management.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(host).await.unwrap();
        // guest:guest
        let request = format!(
            "PUT {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 2"), "{path}: {answer}");
    }

    async fn user(&self, name: &str, tags: &str, configure: &str, write: &str, read: &str) -> String {
        self.put(&format!("/api/users/{name}"), &format!(r#"{{"password":"pass-{name}","tags":"{tags}"}}"#)).await;
        let rights = serde_json::json!({"configure": configure, "write": write, "read": read}).to_string();
        self.put(&format!("/api/permissions/%2F/{name}"), &rights).await;
        self.url_of(name, &format!("pass-{name}"))
    }
}

#[async_trait]
impl UnderTest for Rabbit {
    fn ends(&self, address: &ControlAddress, pod_uid: &str) -> Result<Ends, BrokerError> {
        ends(&self.url_of("guest", "guest"), address, pod_uid)
    }

    fn ends_nowhere(&self, address: &ControlAddress) -> Result<Ends, BrokerError> {
        ends(&format!("amqp://user:{WRONG}@127.0.0.1:1/%2f"), address, "p")
    }

    fn ends_refused(&self, address: &ControlAddress) -> Result<Ends, BrokerError> {
        ends(&self.url_of("guest", WRONG), address, "p")
    }

    fn secrets(&self) -> Vec<String> {
        vec![WRONG.to_owned()]
    }

    fn framework(&self) -> &'static Framework {
        framework("celery").unwrap()
    }

    async fn put_tasks(&self, queue: &str, count: u64) -> Outcome {
        let (_connection, channel) = self.channel().await?;
        channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
        for _ in 0..count {
            channel.basic_publish("".into(), queue.into(), BasicPublishOptions::default(), b"task", BasicProperties::default()).await?.await?;
        }
        Ok(())
    }

    async fn hold_task(&self, queue: &str) -> Outcome {
        let (connection, channel) = self.channel().await?;
        channel.basic_get(queue.into(), BasicGetOptions::default()).await?.ok_or("no task to take")?;
        self.held.lock().unwrap().push((connection, channel));
        Ok(())
    }

    async fn put_control(&self, address: &ControlAddress, body: &[u8]) -> Outcome {
        self.publish("qscaler", &format!("ctl.{}.{}{}", address.workload.namespace, address.workload.name, address.suffix()), body).await
    }

    async fn put_report(&self, address: &ControlAddress, body: &[u8]) -> Outcome {
        self.publish("qscaler", &format!("reports.{}.{}{}", address.workload.namespace, address.workload.name, address.suffix()), body).await
    }

    async fn restart(&self) -> Outcome {
        tokio::task::block_in_place(|| self.server.lock().unwrap().restart())?;
        Ok(())
    }
}

/// What docs/security.md gives this user on RabbitMQ: its tags, and the patterns for configure, write and read.
fn rights_of_the_page(user: &str) -> (String, Vec<String>) {
    let page = include_str!("../../../docs/security.md");
    let after = |start: &str| page.lines().find_map(|line| line.strip_prefix(start)).unwrap_or_else(|| panic!("docs/security.md has no {start}"));
    let patterns = after(&format!("rabbitmqctl set_permissions -p / {user} ")).split(' ').map(|word| word.trim_matches('\'').to_owned()).collect();
    let tags = page.lines().find_map(|line| line.strip_prefix(&format!("rabbitmqctl set_user_tags {user} "))).unwrap_or_default();
    (tags.to_owned(), patterns)
}

/// Users with no more rights than the documentation asks for: those of docs/security.md.
async fn limited_users_can_do_everything_that_is_theirs(broker: &Rabbit) {
    let reader = broker.user("reader", "management", "^$", "^$", "^$").await;
    let (tags, may) = rights_of_the_page("qscaler");
    let controller = broker.user("controller", &tags, &may[0], &may[1], &may[2]).await;
    let (tags, may) = rights_of_the_page("qscaler-sidecar");
    let sidecar = broker.user("sidecar", &tags, &may[0], &may[1], &may[2]).await;

    broker.put_tasks("rights", 2).await.unwrap();
    let stats = open_stats(&reader).unwrap();
    wait_for("the reader sees two tasks", DEADLINE, || async {
        let seen = stats.sample(&[query("celery", "rights")]).await.unwrap().remove(0);
        if (seen.ready, seen.unacked, seen.published_total, stats.gap(&[])) == (Some(2), Some(0), Some(2), None) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await
    .unwrap();

    let rights = address("rights");
    let control = open_control(&controller, Signer::default()).unwrap();
    control.declare(&rights).await.unwrap();
    let mut receiver = open_receiver(&sidecar, &rights, "a").unwrap();
    assert!(receiver.take(true, Duration::from_millis(10)).await.unwrap().is_none());
    for (epoch, target) in [(1, None), (2, Some("a"))] {
        control.publish(&rights, &order(epoch, target)).await.unwrap();
        let delivery = receiver.take(true, DEADLINE).await.unwrap().unwrap();
        assert_eq!(delivery.message.epoch.0, epoch);
        receiver.ack(delivery).await.unwrap();
    }
    receiver.report(&report("rights", 1)).await.unwrap();
    wait_for("the controller gets the report", DEADLINE, || async {
        let got = control.reports(&rights, 10).await.unwrap().reports;
        if got.is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await
    .unwrap();
    control.purge(&rights).await.unwrap();
    control.remove(&rights).await.unwrap();

    // The sidecar's user cannot put a task anywhere: not by the default exchange, which reaches every queue by name.
    let connection = Connection::connect(&sidecar, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let sent =
        async { channel.basic_publish("".into(), "rights".into(), BasicPublishOptions::default(), b"x", BasicProperties::default()).await?.await };
    assert!(sent.await.is_err());
    let error = open_control(&sidecar, Signer::default()).unwrap().declare(&address("theirs")).await.unwrap_err();
    assert_eq!(error.retry, Retry::AfterChange, "{error}");
}

async fn without_the_management_api_what_is_in_work_is_unknown_and_why_is_said(broker: &Rabbit) {
    broker.put_tasks("no-api", 3).await.unwrap();
    for (management, cause) in [("http://127.0.0.1:1".to_owned(), "127.0.0.1:1"), (broker.management.clone(), "management")] {
        // The second time the API is there, and refuses a user without the tag.
        let plain = broker.user("plain", "", "^$", "^$", "^$").await;
        let url = plain.replace(&broker.management, &management);
        let stats = open_stats(&url).unwrap();
        let seen = stats.sample(&[query("celery", "no-api")]).await.unwrap().remove(0);
        assert_eq!((seen.ready, seen.unacked, seen.published_total), (Some(3), None, None), "{management}");
        let gap = stats.gap(&[]).expect("why");
        assert!(gap.contains(cause) && gap.contains("unknown") && !gap.contains("pass-plain"), "{gap}");
    }
}

async fn a_virtual_host_that_does_not_exist_is_an_error_until_changed(broker: &Rabbit) {
    let url = broker.url_of("guest", "guest").replace("%2f", "nowhere");
    let error = open_control(&url, Signer::default()).unwrap().declare(&address("x")).await.unwrap_err();
    assert_eq!(error.retry, Retry::AfterChange, "{error}");
}

async fn a_tls_url_at_a_plain_server_is_an_error_and_no_panic(broker: &Rabbit) {
    let url = broker.url_of("guest", "guest").replace("amqp://", "amqps://").replace("management=http:", "management=https:");
    let error = open_control(&url, Signer::default()).unwrap().declare(&address("tls")).await.unwrap_err();
    assert!(error.retry == Retry::AfterChange && error.to_string().contains("does not speak TLS"), "{error}");
    // AMQP is plain and answers; the API is spoken to by TLS, fails, and leaves its figures unknown.
    broker.put_tasks("tls", 1).await.unwrap();
    let url = broker.url_of("guest", "guest").replace("management=http:", "management=https:");
    let seen = open_stats(&url).unwrap().sample(&[query("celery", "tls")]).await.unwrap().remove(0);
    assert_eq!((seen.ready, seen.unacked), (Some(1), None));
}

/// A property that the publisher sets, of a message that waits: while one is in work it may be that one's.
async fn the_time_that_a_publisher_wrote_is_the_age_of_what_waits_longest(broker: &Rabbit) {
    broker.put_tasks("ages", 0).await.unwrap();
    let (_connection, channel) = broker.channel().await.unwrap();
    for age_s in [100, 10] {
        let properties = BasicProperties::default().with_timestamp(now_ms() / 1000 - age_s);
        channel.basic_publish("".into(), "ages".into(), BasicPublishOptions::default(), b"task", properties).await.unwrap().await.unwrap();
    }
    broker.put_tasks("no-ages", 1).await.unwrap();
    let stats = open_stats(&broker.url_of("guest", "guest")).unwrap();
    let seen = || async { stats.sample(&[query("celery", "ages"), query("celery", "no-ages")]).await.unwrap() };
    wait_for("the age is known", DEADLINE, || async {
        let seen = seen().await;
        let known = seen[0].oldest_s.is_some_and(|age| (99.0..200.0).contains(&age)) && seen[1].ready == Some(1) && seen[1].oldest_s.is_none();
        if known { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await
    .unwrap();
    let held = channel.basic_get("ages".into(), BasicGetOptions::default()).await.unwrap();
    assert!(held.is_some());
    wait_for("it is not known any more", DEADLINE, || async {
        let seen = seen().await.swap_remove(0);
        if (seen.unacked, seen.oldest_s) == (Some(1), None) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_keeps_the_contract() {
    let broker = Rabbit::start();
    limited_users_can_do_everything_that_is_theirs(&broker).await;
    without_the_management_api_what_is_in_work_is_unknown_and_why_is_said(&broker).await;
    a_virtual_host_that_does_not_exist_is_an_error_until_changed(&broker).await;
    a_tls_url_at_a_plain_server_is_an_error_and_no_panic(&broker).await;
    the_time_that_a_publisher_wrote_is_the_age_of_what_waits_longest(&broker).await;
    if let Err(failures) = run(&broker).await {
        panic!("{failures}");
    }
}
