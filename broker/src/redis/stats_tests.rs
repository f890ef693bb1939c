//! In: answers as Redis gives them. Out: the figures made of them. Real servers are in the package of tests.

use super::*;

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

fn map(pairs: &[(&str, Value)]) -> Value {
    Value::Array(pairs.iter().flat_map(|(key, value)| [bulk(key), value.clone()]).collect())
}

#[test]
fn unacked_messages_of_another_queue_do_not_count() {
    let entry = |queue: &str| bulk(&format!(r#"[{{"body":"x","properties":{{}}}}, "", "{queue}"]"#));
    let values = [entry("orders"), entry("mail"), entry("orders"), bulk("not json")];
    assert_eq!(celery_unacked_of("orders", &values, 0), (3, 0));
    assert_eq!(celery_unacked_of("mail", &values, 0), (2, 0));
}

#[test]
fn a_message_that_its_worker_keeps_until_it_is_due_is_told_from_one_that_runs() {
    let entry = |eta: &str| bulk(&format!(r#"[{{"body":"x","headers":{{"eta":{eta}}}}}, "", "q"]"#));
    let values =
        [entry("null"), entry(r#""2026-11-30T13:00:10.123456+00:00""#), entry(r#""2026-11-30T14:00:10+01:00""#), entry(r#""2026-11-30T13:00:10""#)];
    let at = 1_796_043_600_000; // 2026-11-30T13:00:00Z
    assert_eq!(celery_unacked_of("q", &values, at), (4, 3));
    assert_eq!(celery_unacked_of("q", &values, at + 10_200), (4, 0));
}

#[test]
fn a_framework_without_keys_is_unknown_and_not_empty() {
    assert_eq!(total(vec![]), Ok(None));
    assert_eq!(total(vec![Ok(Some(1)), Ok(None)]), Ok(None));
    assert_eq!(total(vec![Ok(Some(1)), Ok(Some(2))]), Ok(Some(3)));
}

#[test]
fn a_lag_that_redis_cannot_tell_is_unknown() {
    let group =
        |lag: Value| Value::Array(vec![map(&[("name", bulk("g")), ("pending", Value::Int(2)), ("entries-read", Value::Int(10)), ("lag", lag)])]);
    let info = map(&[("entries-added", Value::Int(15))]);
    let known = stream("s", &group(Value::Int(5)), &info, &Value::Int(15)).unwrap();
    assert_eq!(known, StreamFigures { waiting: Some(5), pending: Some(2), added: Some(15), done: Some(8) });
    assert_eq!(stream("s", &group(Value::Nil), &info, &Value::Int(15)).unwrap().waiting, None);
}

#[test]
fn a_stream_that_nobody_reads_waits_whole() {
    let figures = stream("s", &Value::Array(vec![]), &map(&[("entries-added", Value::Int(9))]), &Value::Int(4)).unwrap();
    assert_eq!((figures.waiting, figures.pending, figures.added), (Some(4), Some(0), Some(9)));
}

#[test]
fn a_sweep_is_unknown_until_it_is_whole_once() {
    let mut sweep = Sweep::default();
    sweep.scanned(7, ["a".to_owned()].into_iter());
    assert_eq!(sweep.keys(), None);
    sweep.scanned(0, ["b".to_owned()].into_iter());
    assert_eq!(sweep.keys().map(|k| k.len()), Some(2));
    sweep.scanned(3, ["c".to_owned()].into_iter());
    assert_eq!(sweep.keys().map(|k| k.len()), Some(3));
    sweep.scanned(0, ["c".to_owned()].into_iter());
    assert_eq!(sweep.keys().map(|k| k.into_iter().collect::<Vec<_>>()), Some(vec!["c".to_owned()]));
}
