//! Users with no more rights than the adapter's documentation asks for: by the very lines of docs/security.md. In: a Redis with ACL rules. Out: every operation works, and others' keys stay closed.

use super::{address, order, query, report};
use qscaler_broker::signing::Signer;
use qscaler_broker::{Retry, open_control, open_receiver, open_stats};
use qscaler_tests::servers::RedisServer;
use redis::cmd;
use std::time::Duration;

/// The lines to copy of docs/security.md, word by word, with a password.
fn lines_of_the_page() -> Vec<Vec<String>> {
    let page = include_str!("../../../docs/security.md");
    let lines = page.lines().filter_map(|line| line.strip_prefix("ACL SETUSER qscaler-"));
    lines.map(|line| line.replace(">PASSWORD", ">pass").split(' ').map(str::to_owned).collect()).collect()
}

async fn start_with_users() -> (RedisServer, redis::aio::MultiplexedConnection) {
    let server = RedisServer::start().unwrap();
    let mut admin = redis::Client::open(server.url(0)).unwrap().get_multiplexed_async_connection().await.unwrap();
    for (user, rules) in [
        ("arq", "%R~arq:queue %R~arq:in-progress:* +zcount +zrangebyscore +exists"),
        ("arq-counts", "%R~arq:queue +zcount"),
        // As the rights were before names had a UID.
        (
            "older",
            "~qscaler:ctl:shop/orders ~qscaler:ctl:shop/orders:* ~qscaler:reports:shop/orders +xadd +xack +xdel +xreadgroup +xpending +xautoclaim +xgroup|create +pexpire",
        ),
    ] {
        let mut command = cmd("ACL");
        command.arg("SETUSER").arg(user).arg("reset").arg("on").arg(">pass");
        for rule in rules.split(' ') {
            command.arg(rule);
        }
        command.exec_async(&mut admin).await.unwrap();
    }
    let lines = lines_of_the_page();
    assert_eq!(lines.iter().map(|words| words[0].as_str()).collect::<Vec<_>>(), ["reader", "controller", "sidecar"], "docs/security.md");
    for words in lines {
        cmd("ACL").arg("SETUSER").arg(&words).exec_async(&mut admin).await.unwrap();
    }
    (server, admin)
}

fn url_of(server: &RedisServer, user: &str) -> String {
    server.url(0).replace("redis://", &format!("redis://{user}:pass@"))
}

#[tokio::test]
async fn users_with_only_the_documented_rights_can_do_everything() {
    let (server, mut admin) = start_with_users().await;
    cmd("LPUSH").arg("q").arg("task").exec_async(&mut admin).await.unwrap();
    let stats = open_stats(&url_of(&server, "reader")).unwrap();
    let samples = stats.sample(&[query("celery", "q"), query("dramatiq", "none")]).await.unwrap();
    assert_eq!((samples[0].ready, samples[0].unacked, samples[1].unacked), (Some(1), Some(0), Some(0)));

    cmd("ZADD").arg("arq:queue").arg(1).arg("waits").arg(2).arg("runs").exec_async(&mut admin).await.unwrap();
    cmd("SET").arg("arq:in-progress:runs").arg(1).exec_async(&mut admin).await.unwrap();
    for (user, wanted) in [("arq", (Some(1), Some(1))), ("arq-counts", (Some(2), None))] {
        let samples = open_stats(&url_of(&server, user)).unwrap().sample(&[query("arq", "arq:queue")]).await.unwrap();
        assert_eq!((samples[0].ready, samples[0].unacked), wanted, "{user}");
    }

    let orders = address("orders");
    let control = open_control(&url_of(&server, "controller"), Signer::default()).unwrap();
    // The sidecar may well be there first.
    let mut receiver = open_receiver(&url_of(&server, "sidecar"), &orders, "a").unwrap();
    assert!(receiver.take(true, Duration::from_millis(10)).await.unwrap().is_none());
    control.declare(&orders).await.unwrap();
    for (epoch, target) in [(1, None), (2, Some("a"))] {
        control.publish(&orders, &order(epoch, target)).await.unwrap();
        let delivery = receiver.take(true, super::DEADLINE).await.unwrap().unwrap();
        assert_eq!(delivery.message.epoch.0, epoch);
        receiver.give_back(delivery).await.unwrap();
        let delivery = receiver.take(true, super::DEADLINE).await.unwrap().unwrap();
        receiver.ack(delivery).await.unwrap();
    }
    receiver.report(&report("orders", 1)).await.unwrap();
    assert_eq!(control.reports(&orders, 10).await.unwrap().reports.len(), 1);
    assert_eq!(control.reports(&orders, 10).await.unwrap().reports.len(), 0);
    control.purge(&orders).await.unwrap();
    control.remove(&orders).await.unwrap();
}

#[tokio::test]
async fn a_sidecar_with_an_older_release_s_rights_is_heard_by_its_workload_s_name_and_says_so() {
    let (server, _admin) = start_with_users().await;
    let orders = address("orders");
    let control = open_control(&url_of(&server, "controller"), Signer::default()).unwrap();
    control.declare(&orders).await.unwrap();
    // The controller looks there now and then.
    assert_eq!(control.reports(&orders.without_uid(), 10).await.unwrap().reports.len(), 0);
    let mut receiver = open_receiver(&url_of(&server, "older"), &orders, "a").unwrap();
    assert!(receiver.take(true, Duration::from_millis(10)).await.unwrap().is_none());
    assert_eq!(receiver.narrowed(), None);
    receiver.report(&report("orders", 1)).await.unwrap();
    receiver.report(&report("orders", 2)).await.unwrap();
    assert!(receiver.narrowed().unwrap().contains("~qscaler:reports:shop/orders:*"), "{:?}", receiver.narrowed());
    assert_eq!(control.reports(&orders, 10).await.unwrap().reports.len(), 0);
    assert_eq!(control.reports(&orders.without_uid(), 10).await.unwrap().reports.len(), 2);
    // Where it is heard it is also told.
    for (epoch, target) in [(1, Some("a")), (2, None)] {
        control.publish(&orders.without_uid(), &order(epoch, target)).await.unwrap();
        let delivery = receiver.take(true, super::DEADLINE).await.unwrap().unwrap();
        assert_eq!(delivery.message.epoch.0, epoch);
        receiver.ack(delivery).await.unwrap();
    }
}

#[tokio::test]
async fn a_tls_url_at_a_plain_server_is_an_error_and_no_panic() {
    let (server, _admin) = start_with_users().await;
    let url = url_of(&server, "reader").replace("redis://", "rediss://");
    let error = open_stats(&url).unwrap().sample(&[query("custom", "q")]).await.unwrap_err();
    assert!(error.retry == Retry::Later && error.to_string().contains("without TLS"), "{error}");
}

#[tokio::test]
async fn a_sidecar_s_user_reaches_no_other_workload_and_no_tasks() {
    let (server, _admin) = start_with_users().await;
    let mut stranger = open_receiver(&url_of(&server, "sidecar"), &address("other"), "a").unwrap();
    for error in [stranger.take(true, Duration::from_millis(10)).await.unwrap_err(), stranger.report(&report("other", 1)).await.unwrap_err()] {
        assert_eq!(error.retry, Retry::AfterChange, "{error}");
    }
    let stats = open_stats(&url_of(&server, "sidecar")).unwrap();
    let error = stats.sample(&[query("custom", "q")]).await.unwrap_err();
    assert!(error.retry == Retry::AfterChange && error.to_string().contains("\"q\""), "{error}");
}
