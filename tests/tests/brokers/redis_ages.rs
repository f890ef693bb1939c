//! How long the oldest message has waited, where its framework writes that down. In: a Redis with messages as Sidekiq, RQ, BullMQ and Asynq write them, a stream.
//! Out: the age that the adapter gives, or that it is not known.

use super::redis_keys::{start, write};
use super::{now_ms, query};
use qscaler_broker::{QueueQuery, open_stats};
use qscaler_core::framework::{CUSTOM, Framework, KeyKind, RedisKey};
use qscaler_core::scale::QueueSample;
use qscaler_tests::servers::RedisServer;

async fn sample(server: &RedisServer, query: QueueQuery) -> QueueSample {
    open_stats(&server.url(0)).unwrap().sample(&[query]).await.unwrap().remove(0)
}

fn iso(ms: u64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap();
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    at.format(format).unwrap()
}

/// About so many seconds.
fn is_about(sample: &QueueSample, seconds: f64) -> bool {
    sample.oldest_s.is_some_and(|age| (seconds - 0.5..seconds + 30.0).contains(&age))
}

#[tokio::test]
async fn each_framework_that_writes_down_a_time_is_read() {
    let (server, mut redis) = start().await;
    let now = now_ms();
    let at = |age_s: u64| now - age_s * 1000;
    let job = |at: String| format!(r#"{{"class":"Job","queue":"q","enqueued_at":{at}}}"#);
    // The newest is always put last, as the framework would.
    for (worker, commands) in [
        ("sidekiq", format!("LPUSH queue:q {}\n LPUSH queue:q {}", job(format!("{}.5", at(100) / 1000)), job(format!("{}.25", at(10) / 1000)))),
        (
            "rq",
            format!(
                "RPUSH rq:queue:q a b\n HSET rq:job:a enqueued_at {} created_at {}\n HSET rq:job:b enqueued_at {}",
                iso(at(100)),
                iso(at(900)),
                iso(at(10))
            ),
        ),
        (
            "bullmq",
            format!(
                "LPUSH bull:q:wait 1\n LPUSH bull:q:wait 2\n HSET bull:q:1 timestamp {} opts {{\"attempts\":3}}\n HSET bull:q:2 timestamp {} opts {{\"delay\":0}}",
                at(100),
                at(10)
            ),
        ),
        (
            "asynq",
            format!(
                "LPUSH asynq:{{q}}:pending a\n LPUSH asynq:{{q}}:pending b\n HSET asynq:{{q}}:t:a pending_since {}000000\n HSET asynq:{{q}}:t:b pending_since {}000000",
                at(100),
                at(10)
            ),
        ),
    ] {
        assert_eq!(sample(&server, query(worker, "q")).await.oldest_s, None, "{worker}: an empty queue has no oldest message");
        write(&mut redis, &commands).await;
        let seen = sample(&server, query(worker, "q")).await;
        assert!(is_about(&seen, 100.0) && seen.ready == Some(2), "{worker}: {seen:?}");
    }
    // Sidekiq 8 writes milliseconds.
    write(&mut redis, &format!("RPUSH queue:q {}", job(at(300).to_string()))).await;
    assert!(is_about(&sample(&server, query("sidekiq", "q")).await, 300.0));
}

#[tokio::test]
async fn what_is_due_and_was_not_moved_yet_and_what_has_a_priority_waits_too() {
    let (server, mut redis) = start().await;
    let now = now_ms();
    write(
        &mut redis,
        &format!(
            "RPUSH rq:queue:q a\n HSET rq:job:a enqueued_at {}\n ZADD rq:scheduled:q {} b {} c",
            iso(now - 10_000),
            now / 1000 - 200,
            now / 1000 + 900
        ),
    )
    .await;
    let seen = sample(&server, query("rq", "q")).await;
    assert!(is_about(&seen, 200.0) && seen.ready == Some(2), "{seen:?}");
    // The one of the least priority is the oldest, and the delay that it asked for is no wait.
    write(
        &mut redis,
        &format!(
            "ZADD bull:q:prioritized 1 1 900 2\n HSET bull:q:1 timestamp {} opts {{}}\n HSET bull:q:2 timestamp {} opts {{\"delay\":60000}}",
            now - 20_000,
            now - 160_000
        ),
    )
    .await;
    assert!(is_about(&sample(&server, query("bullmq", "q")).await, 100.0));
}

#[tokio::test]
async fn where_nobody_says_a_time_the_age_is_unknown_and_not_that_of_another_message() {
    let (server, mut redis) = start().await;
    let now = now_ms();
    for (worker, commands, ready) in [
        ("celery", "LPUSH q a".to_owned(), 1),
        // A retried job waits since nobody knows when.
        ("bullmq", format!("LPUSH bull:q:wait 1\n HSET bull:q:1 timestamp {} opts {{}} processedOn {}", now - 100_000, now - 50_000), 1),
        // One of its keys does not say.
        ("rq", format!("RPUSH rq:queue:q a\n HSET rq:job:a enqueued_at {}\n RPUSH rq:queue:q:intermediate gone", iso(now - 10_000)), 2),
        ("sidekiq", "LPUSH queue:q {\"class\":\"Job\"}".to_owned(), 1),
        ("asynq", "LPUSH asynq:{q}:pending a".to_owned(), 1),
    ] {
        write(&mut redis, &commands).await;
        let seen = sample(&server, query(worker, "q")).await;
        assert_eq!((seen.ready, seen.oldest_s), (Some(ready), None), "{worker}");
    }
    // Nor does a user's missing right make one up, or hide the length.
    write(
        &mut redis,
        &format!(
            "RPUSH queue:r {{\"enqueued_at\":{}}}\n ACL SETUSER reader reset on >pass %R~queue:* %R~schedule %R~retry +llen +zcount +zrangebyscore",
            now / 1000
        ),
    )
    .await;
    let stats = open_stats(&server.url(0).replace("redis://", "redis://reader:pass@")).unwrap();
    let seen = stats.sample(&[query("sidekiq", "r")]).await.unwrap().remove(0);
    assert_eq!((seen.ready, seen.oldest_s), (Some(1), None));
}

#[tokio::test]
async fn the_first_entry_of_a_stream_that_some_group_has_not_read_says_its_time_itself() {
    let (server, mut redis) = start().await;
    let framework: &'static Framework =
        Box::leak(Box::new(Framework { waiting: &[RedisKey { kind: KeyKind::Stream, template: "{queue}" }], ..CUSTOM.clone() }));
    let query = || QueueQuery::new("s", framework);
    assert_eq!(sample(&server, query()).await.oldest_s, None);
    let now = now_ms();
    let add = |age_s: u64| format!("XADD s {}-0 f v\n", now - age_s * 1000);
    write(&mut redis, &(add(300) + &add(200) + &add(100))).await;
    // Nobody reads yet.
    assert!(is_about(&sample(&server, query()).await, 300.0));
    write(&mut redis, "XGROUP CREATE s fast 0\n XGROUP CREATE s slow 0\n XREADGROUP GROUP fast me COUNT 2 STREAMS s >\n XREADGROUP GROUP slow me COUNT 1 STREAMS s >").await;
    assert!(is_about(&sample(&server, query()).await, 200.0));
    write(&mut redis, "XREADGROUP GROUP fast me STREAMS s >\n XREADGROUP GROUP slow me STREAMS s >").await;
    let seen = sample(&server, query()).await;
    assert_eq!((seen.ready, seen.oldest_s), (Some(0), None));
}
