//! Annotations, right and wrong: what is made of them, and what is said.

use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| (if k.contains('/') { (*k).to_owned() } else { format!("{DOMAIN}/{k}") }, (*v).to_owned())).collect()
}

const GOOD: &[(&str, &str)] = &[("queue", "orders"), ("broker", "env:CELERY_BROKER_URL"), ("worker", "celery"), ("max-replicas", "50")];

fn errors(extra: &[(&str, &str)]) -> Vec<String> {
    let mut all = map(GOOD);
    all.extend(map(extra));
    match parse(&all, &BTreeMap::new()) {
        Parsed::Invalid(errors) => errors.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

fn valid(extra: &[(&str, &str)]) -> WorkerConfig {
    let mut all = map(GOOD);
    all.extend(map(extra));
    match parse(&all, &BTreeMap::new()) {
        Parsed::Valid(config) => *config,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_workload_without_our_annotations_is_not_ours() {
    assert_eq!(parse(&map(&[("example.com/queue", "x")]), &map(&[("qscaler.dev/injected", "{}")])), Parsed::NotOurs);
}

#[test]
fn the_four_annotations_of_the_readme_are_enough() {
    let config = valid(&[]);
    assert_eq!(config.queues, ["orders"]);
    assert_eq!((config.min_replicas, config.max_replicas, config.max_wait_ms), (1, 50, 60_000));
    assert_eq!((config.signals.as_slice(), &config.busy), ([Signal::Term].as_slice(), &BusySource::CeleryEvents));
}

#[test]
fn the_template_wins_over_the_workload() {
    let Parsed::Valid(config) = parse(&map(GOOD), &map(&[("max-replicas", "7")])) else { panic!() };
    assert_eq!(config.max_replicas, 7);
}

#[test]
fn every_mistake_is_reported_at_once_with_key_value_and_what_is_valid() {
    let errors = errors(&[("max-replica", "5"), ("max-replicas", "many"), ("worker", "celeri"), ("max-wait", "soon"), ("vertical", "yes")]);
    assert_eq!(errors.len(), 5, "{errors:#?}");
    for (key, value, valid) in [
        ("qscaler.dev/max-replica", "5", "did you mean qscaler.dev/max-replicas"),
        ("qscaler.dev/max-replicas", "many", "whole number from 1"),
        ("qscaler.dev/worker", "celeri", "celery"),
        ("qscaler.dev/max-wait", "soon", "30s"),
        ("qscaler.dev/vertical", "yes", "in-place"),
    ] {
        assert!(errors.iter().any(|e| e.starts_with(&format!("{key}:")) && e.contains(value) && e.contains(valid)), "{key}: {errors:#?}");
    }
}

#[test]
fn one_mistake_each() {
    for (key, value, says) in [
        ("queue", "", "empty queue name"),
        ("queue", "a,b,a", "twice"),
        ("broker", "orders", "env:NAME"),
        ("broker", "secret:x", "secret:NAME/KEY"),
        ("broker", "secret:mq/the url", "letters, digits, -, _ and ."),
        ("broker", "secret:mq/url:1", "small letters"),
        ("broker", "secret:mq/..url", "small letters"),
        ("broker", "secret:My_Secret/url", "small letters"),
        ("control-broker", "secret:-mq/url", "small letters"),
        ("management", "secret:mq/a b", "small letters"),
        ("queue", "orders\npayments", "on one line"),
        ("broker", "env:URL\t2", "on one line"),
        ("broker-tls", "mq-tls", "secret:NAME"),
        ("broker-tls", "secret:MqTls", "secret:NAME"),
        ("broker-tls", "secret:mq-tls/ca.crt", "secret:NAME"),
        ("management", "rabbit:15672", "http://HOST:PORT"),
        ("management", "http://", "http://HOST:PORT"),
        ("management", "secret:mq", "secret:NAME/KEY"),
        ("min-replicas", "51", "above max-replicas (50)"),
        ("min-replicas", "-1", "whole number from 0"),
        ("min-memory", "1Zi", "128Mi"),
        ("max-memory", "512", "is 512 bytes"),
        ("max-memory", "512m", "512Mi"),
        ("min-memory", "7Mi", "8Mi or more"),
        ("min-cpu", "500", "500m is half of one"),
        ("max-cpu", "500", "500 whole CPUs"),
        ("signal", "SIGKILL", "SIGTERM"),
        ("busy", "http:0/x", "http:PORT/PATH"),
        ("busy", "file:relative", "file:/PATH"),
        ("paused", "yes", "scale-down"),
        ("dry-run", "1", "false, true"),
        ("replace-pods", "no", "idle, never"),
        ("optimize-for", "waits", "balanced, latency, cost"),
        ("messages-per-worker", "0", "whole number from 1"),
        ("priority-steps", "9-0", "0,3,6,9"),
        ("priority-steps", "high", "0,3,6,9"),
        ("priority-separator", "", "is empty"),
    ] {
        let errors = errors(&[(key, value)]);
        assert!(errors.len() == 1 && errors[0].contains(says), "{key}={value}: {errors:?}");
    }
    let errors = errors(&[("min-memory", "2Gi"), ("max-memory", "1Gi")]);
    assert!(errors.len() == 1 && errors[0].contains("1024Mi"), "{errors:?}");
}

#[test]
fn a_url_in_the_annotation_is_refused_and_not_repeated() {
    let errors = errors(&[("broker", "redis://:secret@host:6379/0")]);
    assert!(errors[0].contains("does not belong") && !errors[0].contains("secret@"), "{errors:?}");
}

#[test]
fn every_documented_value_parses() {
    let config = valid(&[
        ("queue", "a, b"),
        ("broker", "secret:mq/url"),
        ("signal", "SIGTSTP,SIGTERM"),
        ("busy", "http:8080/idle"),
        ("vertical", "in-place"),
        ("min-memory", "64Mi"),
        ("max-memory", "2Gi"),
        ("scaling", "protect"),
        ("paused", "scale-down"),
        ("dry-run", "true"),
        ("replace-pods", "never"),
        ("optimize-for", "cost"),
        ("drain-deadline-policy", "cut"),
        ("min-replicas", "0"),
    ]);
    assert_eq!(config.optimize_for, OptimizeFor::Cost);
    assert_eq!(config.queues, ["a", "b"]);
    assert_eq!(config.busy, BusySource::Http { port: 8080, path: "/idle".into() });
    assert_eq!(config.signals, [Signal::Tstp, Signal::Term]);
    assert!(valid(&[("signal", "none")]).signals.is_empty());
}

#[test]
fn certificates_and_the_management_api_are_named_and_a_user_in_its_address_is_not_shown() {
    let config = valid(&[("broker-tls", "secret:mq-tls"), ("management", "https://mq.example.com/rabbit")]);
    assert_eq!(config.broker_tls.as_deref(), Some("mq-tls"));
    assert_eq!(config.management, Some(ManagementRef::Url("https://mq.example.com/rabbit".to_owned())));
    let at = |text| valid(&[("management", text)]).management;
    assert_eq!(at("env:MANAGEMENT"), Some(ManagementRef::At(BrokerRef::Env("MANAGEMENT".into()))));
    assert_eq!(at("secret:mq/api"), Some(ManagementRef::At(BrokerRef::Secret { name: "mq".into(), key: "api".into() })));
    let errors = errors(&[("management", "http://u:hunter2@h:15672")]);
    assert!(errors[0].contains("secret:NAME/KEY") && !errors[0].contains("hunter2"), "{errors:?}");
}

#[test]
fn key_names_are_read_where_the_framework_has_them_and_refused_where_not() {
    let names = valid(&[("key-prefix", "app_"), ("priority-steps", "0-3, 9"), ("priority-separator", ":")]).key_names;
    let expected = KeyNames { prefix: Some("app_".into()), priority_steps: Some(vec![0, 1, 2, 3, 9]), priority_separator: Some(":".into()) };
    assert_eq!(names, expected);
    assert_eq!(valid(&[("worker", "bullmq"), ("key-prefix", "{app}")]).key_names.prefix.as_deref(), Some("{app}"));
    let errors = errors(&[("worker", "rq"), ("key-prefix", "x"), ("priority-steps", "0")]);
    assert!(errors.len() == 2 && errors[0].contains("bullmq") && errors[1].contains("worker: celery"), "{errors:?}");
}

#[test]
fn a_worker_that_dies_of_every_signal_is_refused_where_it_cannot_be_frozen() {
    assert!(valid(&[("worker", "redis-loop")]).signals.is_empty());
    assert_eq!(errors(&[("worker", "redis-loop"), ("busy", "unknown")]).len(), 1);
    assert_eq!(errors(&[("worker", "amqp-consumer"), ("share-processes", "false")]).len(), 1);
    // With a handler of its own it is told to leave like any other.
    assert_eq!(valid(&[("worker", "redis-loop"), ("busy", "unknown"), ("signal", "SIGTERM")]).signals, [Signal::Term]);
}

#[test]
fn however_many_annotations_are_wrong_what_is_said_stays_short() {
    // As much as an API server takes: 256 KiB.
    let many: BTreeMap<String, String> = (0..16_000).map(|i| (format!("{DOMAIN}/{i}"), String::new())).collect();
    let Parsed::Invalid(found) = parse(&many, &map(GOOD)) else { panic!() };
    let said: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(said.len() < 20 && said.iter().map(String::len).sum::<usize>() < 16 << 10, "{} sentences", said.len());
    assert!(said.iter().any(|one| one.contains("15991 more like it")), "{said:?}");
    // One that is long is not repeated whole.
    let long = "x".repeat(200_000);
    for key in ["worker", "max-wait", "broker", "management", "busy", "queue", "key-prefix", "container"] {
        let said = errors(&[(key, &long)]).join("");
        assert!(said.len() < 2 << 10, "{key}: {} bytes", said.len());
    }
}

#[test]
fn what_is_copied_along_with_a_value_is_no_part_of_it() {
    let config =
        valid(&[("queue", "\u{feff}orders\u{200b}\n"), ("broker", "\t\u{2060}secret:mq.shop-1/a_B.c-1 \r\n"), ("max-replicas", "\u{a0}7\n")]);
    assert_eq!((config.queues, config.max_replicas), (vec!["orders".to_owned()], 7));
    assert_eq!(config.broker, BrokerRef::Secret { name: "mq.shop-1".into(), key: "a_B.c-1".into() });
}
