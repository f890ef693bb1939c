//! Key layouts as frameworks write them, put by a raw client. In: a Redis with these keys. Out: what the adapter measures.

use super::{now_ms, query};
use qscaler_broker::{QueueQuery, Retry, open_stats};
use qscaler_core::framework::{KeyNames, framework};
use qscaler_tests::servers::RedisServer;
use redis::aio::MultiplexedConnection;

pub(super) async fn start() -> (RedisServer, MultiplexedConnection) {
    let server = RedisServer::start().unwrap();
    let connection = redis::Client::open(server.url(0)).unwrap().get_multiplexed_async_connection().await.unwrap();
    (server, connection)
}

/// Runs commands, one per line, words separated by blanks; `\x06\x16` stands for Celery's separator.
pub(super) async fn write(connection: &mut MultiplexedConnection, commands: &str) {
    for line in commands.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let line = line.replace("SEP", "\u{6}\u{16}");
        let mut words = line.split_whitespace();
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        command.exec_async(connection).await.unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

/// Ready and in work, as the adapter sees this queue.
async fn measured(server: &RedisServer, worker: &str, queue: &str) -> (Option<u64>, Option<u64>) {
    let samples = open_stats(&server.url(0)).unwrap().sample(&[query(worker, queue)]).await.unwrap();
    (samples[0].ready, samples[0].unacked)
}

#[tokio::test]
async fn keys_as_celery_writes_them_count_all_priorities() {
    let (server, mut redis) = start().await;
    write(&mut redis, "LPUSH q a\n LPUSH qSEP3 a b\n LPUSH qSEP6 a\n LPUSH qSEP9 a b c\n LPUSH other a").await;
    write(&mut redis, r#"HSET unacked 1 [{},"","q"] 2 [{},"","other"] 3 [{},"ex","q"]"#).await;
    assert_eq!(measured(&server, "celery", "q").await, (Some(7), Some(2)));
    assert_eq!(measured(&server, "celery", "other").await, (Some(1), Some(1)));
}

#[tokio::test]
async fn a_celery_with_very_many_unacked_messages_counts_them_for_each_queue() {
    let (server, mut redis) = start().await;
    let mut pipeline = redis::pipe();
    for i in 0..600 {
        pipeline.cmd("HSET").arg("unacked").arg(i).arg(r#"[{},"","other"]"#);
    }
    pipeline.exec_async(&mut redis).await.unwrap();
    assert_eq!(measured(&server, "celery", "q").await, (Some(0), Some(600)));
    write(&mut redis, &format!("HDEL unacked {}", (0..200).map(|i| i.to_string()).collect::<Vec<_>>().join(" "))).await;
    assert_eq!(measured(&server, "celery", "q").await, (Some(0), Some(0)));
}

#[tokio::test]
async fn keys_as_each_framework_writes_them_are_found() {
    let (server, mut redis) = start().await;
    let later = now_ms() + 3_600_000;
    for (worker, commands, wanted) in [
        ("rq", "LPUSH rq:queue:q a b\n LPUSH rq:queue:q:intermediate c\n ZADD rq:wip:q 1 d 2 e".to_owned(), (Some(3), Some(2))),
        (
            "dramatiq",
            "LPUSH dramatiq:q a b\n SADD dramatiq:__acks__.w1.q c\n SADD dramatiq:__acks__.w2.q d e\n SADD dramatiq:__acks__.w1.other f\n SADD dramatiq:__acks__.w1.q.DQ g\n HSET dramatiq:q.msgs a 1".to_owned(),
            (Some(2), Some(3)),
        ),
        ("huey", "LPUSH huey.redis.q a".to_owned(), (Some(1), None)),
        ("arq", format!("ZADD arq:queue 1 a 2 b 3 d {later} c\n SET arq:in-progress:b 1\n SET arq:in-progress:elsewhere 1"), (Some(2), Some(1))),
        ("taskiq", "LPUSH taskiq a b c d".to_owned(), (Some(4), None)),
        (
            "taskiq-stream",
            "XGROUP CREATE tasks taskiq $ MKSTREAM\n XADD tasks * data a\n XADD tasks * data b\n XADD tasks * data c\n XREADGROUP GROUP taskiq w1 COUNT 1 STREAMS tasks >"
                .to_owned(),
            (Some(2), Some(1)),
        ),
        ("sidekiq", "SADD queues q\n LPUSH queue:q a b".to_owned(), (Some(2), None)),
        ("resque", "LPUSH resque:queue:q a".to_owned(), (Some(1), None)),
        ("bullmq", "LPUSH bull:q:wait a b\n ZADD bull:q:prioritized 1 c\n LPUSH bull:q:active d".to_owned(), (Some(3), Some(1))),
        ("asynq", "LPUSH asynq:{q}:pending a b\n LPUSH asynq:{q}:active c".to_owned(), (Some(2), Some(1))),
        ("custom", "LPUSH my-own a".to_owned(), (Some(1), None)),
        ("faktory", String::new(), (None, None)),
    ] {
        write(&mut redis, &commands).await;
        let queue = match worker {
            "arq" => "arq:queue",
            "taskiq" => "taskiq",
            "taskiq-stream" => "tasks",
            "custom" => "my-own",
            _ => "q",
        };
        assert_eq!(measured(&server, worker, queue).await, wanted, "{worker}");
    }
}

#[tokio::test]
async fn delayed_and_scheduled_work_waits_from_its_time_on_and_the_next_is_known() {
    let (server, mut redis) = start().await;
    let now = now_ms();
    let (past_s, past, soon_s, soon) = (now / 1000 - 5, now - 5_000, now / 1000 + 100, now + 100_000);
    let bull = |ms: u64| ms * 4096 + 7;
    let job = |queue: &str| format!(r#"{{"class":"Job","queue":"{queue}"}}"#);
    let delayed = |eta: u64| format!(r#"{{"queue_name":"q.DQ","options":{{"eta":{eta}}}}}"#);
    for (worker, commands) in [
        ("rq", format!("ZADD rq:scheduled:q {past_s} a {soon_s} b")),
        (
            "sidekiq",
            format!(
                "ZADD schedule {past_s} {} {past_s} {} {} {} {soon_s} {}\n ZADD retry {past_s} {}",
                job("other"),
                job("q"),
                soon_s - 50,
                job("elsewhere"),
                job("q").replace("Job", "B"),
                job("other")
            ),
        ),
        ("bullmq", format!("ZADD bull:q:delayed {} a {} b", bull(past), bull(soon))),
        ("huey", format!("ZADD huey.schedule.q {past_s} a {soon_s} b")),
        ("asynq", format!("ZADD asynq:{{q}}:scheduled {soon_s} a\n ZADD asynq:{{q}}:retry {past_s} b")),
        ("dramatiq", format!("RPUSH dramatiq:q.DQ a b\n HSET dramatiq:q.DQ.msgs a {} b {}", delayed(past), delayed(soon))),
    ] {
        write(&mut redis, &commands).await;
        let sample = open_stats(&server.url(0)).unwrap().sample(&[query(worker, "q")]).await.unwrap().remove(0);
        assert_eq!(sample.ready, Some(1), "{worker}");
        assert!(sample.next_due_s.is_some_and(|s| (90.0..=101.0).contains(&s)), "{worker}: {sample:?}");
    }
}

#[tokio::test]
async fn a_user_who_may_not_read_the_schedule_still_gets_the_queue_and_the_gap_is_said() {
    let (server, mut redis) = start().await;
    write(&mut redis, "LPUSH queue:q a\n ACL SETUSER reader reset on >pass %R~queue:* +llen").await;
    let stats = open_stats(&server.url(0).replace("redis://", "redis://reader:pass@")).unwrap();
    let queries = [query("sidekiq", "q")];
    assert_eq!(stats.sample(&queries).await.unwrap()[0].ready, Some(1));
    let gap = stats.gap(&queries).expect("a word about it");
    assert!(gap.contains("schedule") && gap.contains("NOPERM"), "{gap}");
    assert_eq!(stats.gap(&[query("sidekiq", "other")]), None);
}

#[tokio::test]
async fn keys_have_the_prefix_and_the_priorities_that_the_user_chose() {
    let (server, mut redis) = start().await;
    write(&mut redis, "LPUSH app_q a\n LPUSH app_q:1 b\n LPUSH app_q:9 c\n LPUSH q d e\n LPUSH prod:q f\n LPUSH ns:queue:q g").await;
    write(&mut redis, r#"HSET app_unacked 1 [{},"","q"]"#).await;
    let prefix = |text: &str| KeyNames { prefix: Some(text.to_owned()), ..KeyNames::default() };
    let celery = KeyNames { priority_steps: Some((0..10).collect()), priority_separator: Some(":".to_owned()), ..prefix("app_") };
    for (worker, names, wanted) in
        [("celery", celery, (Some(3), Some(1))), ("dramatiq", prefix("prod"), (Some(1), Some(0))), ("sidekiq", prefix("ns"), (Some(1), None))]
    {
        let query = QueueQuery { names, ..query(worker, "q") };
        let samples = open_stats(&server.url(0)).unwrap().sample(&[query]).await.unwrap();
        assert_eq!((samples[0].ready, samples[0].unacked), wanted, "{worker}");
    }
}

#[tokio::test]
async fn sets_are_found_among_very_many_other_keys() {
    let (server, mut redis) = start().await;
    let mut pipeline = redis::pipe();
    for i in 0..30_000 {
        pipeline.cmd("SET").arg(format!("noise:{i}")).arg(1);
    }
    pipeline.exec_async(&mut redis).await.unwrap();
    write(&mut redis, "SADD dramatiq:__acks__.w1.q a b").await;
    let stats = open_stats(&server.url(0)).unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&Some(2)) {
        assert!(seen.len() < 100, "{seen:?}");
        seen.push(stats.sample(&[query("dramatiq", "q")]).await.unwrap()[0].unacked);
    }
    // Until the first sweep is through, the figure is unknown, and never a part of it.
    assert!(seen.len() > 1 && seen[..seen.len() - 1].iter().all(Option::is_none), "{seen:?}");
    write(&mut redis, "DEL dramatiq:__acks__.w1.q").await;
    assert_eq!(stats.sample(&[query("dramatiq", "q")]).await.unwrap()[0].unacked, Some(0));
}

#[tokio::test]
async fn a_key_of_another_type_is_named_and_hides_no_other_queue() {
    let (server, mut redis) = start().await;
    write(&mut redis, "SET wrong a\n LPUSH good a b").await;
    let stats = open_stats(&server.url(0)).unwrap();
    let results = stats.sample_each(&[query("custom", "good"), query("custom", "wrong")]).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap().ready, Some(2));
    let error = results[1].as_ref().unwrap_err();
    assert!(error.to_string().contains("\"wrong\"") && error.retry == Retry::AfterChange, "{error}");
    assert!(stats.sample(&[query("custom", "wrong")]).await.is_err());
    assert_eq!(framework("custom").unwrap().working.len(), 0);
}

#[tokio::test]
async fn the_database_of_the_url_is_the_one_that_is_read() {
    let (server, mut redis) = start().await;
    write(&mut redis, "LPUSH q a").await;
    for (database, ready) in [(0, Some(1)), (5, Some(0))] {
        let samples = open_stats(&server.url(database)).unwrap().sample(&[query("custom", "q")]).await.unwrap();
        assert_eq!(samples[0].ready, ready);
    }
}
