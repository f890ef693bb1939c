//! Tables of environments and the URLs that they give.

use super::*;
use serde_json::{Value, json};

fn sources() -> Sources {
    let map = |pairs: &[(&str, &str)]| Some(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
    Sources {
        secrets: [("mq".to_owned(), map(&[("url", "redis://:pw@r/0"), ("PASS", "pw")])), ("gone".to_owned(), None)].into(),
        config_maps: [("cm".to_owned(), map(&[("url", "amqp://cm"), ("URL", "amqp://from")]))].into(),
    }
}

fn get(env: Value, env_from: Value, reference: &BrokerRef) -> Result<String, String> {
    let env: Vec<EnvVar> = serde_json::from_value(env).unwrap();
    let env_from: Vec<EnvFromSource> = serde_json::from_value(env_from).unwrap();
    let of = Environment { namespace: "shop", container: "worker", env: &env, env_from: &env_from };
    resolve(reference, &of, &sources()).map(|u| u.expose().to_owned()).map_err(|e| e.to_string())
}

fn url() -> BrokerRef {
    BrokerRef::Env("URL".to_owned())
}

#[test]
fn a_url_is_found_wherever_the_container_gets_it_from() {
    for (env, env_from, expected) in [
        (json!([{"name": "URL", "value": "redis://a/0"}]), json!([]), "redis://a/0"),
        (json!([{"name": "URL", "value": "redis://a/0"}, {"name": "URL", "value": "redis://b/0"}]), json!([]), "redis://b/0"),
        (json!([{"name": "URL", "valueFrom": {"secretKeyRef": {"name": "mq", "key": "url"}}}]), json!([]), "redis://:pw@r/0"),
        (json!([{"name": "URL", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "url"}}}]), json!([]), "amqp://cm"),
        (json!([]), json!([{"configMapRef": {"name": "cm"}}]), "amqp://from"),
        (json!([{"name": "URL", "value": "redis://env/0"}]), json!([{"configMapRef": {"name": "cm"}}]), "redis://env/0"),
        (
            json!([{"name": "P", "valueFrom": {"secretKeyRef": {"name": "mq", "key": "PASS"}}}, {"name": "URL", "value": "redis://:$(P)@r/0"}]),
            json!([]),
            "redis://:pw@r/0",
        ),
        (json!([{"name": "URL", "value": "redis://:$(M_PASS)@r/0"}]), json!([{"prefix": "M_", "secretRef": {"name": "mq"}}]), "redis://:pw@r/0"),
        (json!([{"name": "URL", "value": "redis://$$(P)/$(LATER)"}, {"name": "LATER", "value": "x"}]), json!([]), "redis://$(P)/$(LATER)"),
        (json!([{"name": "URL", "value": "redis://a$b$/0"}]), json!([]), "redis://a$b$/0"),
    ] {
        assert_eq!(get(env.clone(), env_from, &url()).as_deref(), Ok(expected), "{env}");
    }
    assert_eq!(get(json!([]), json!([]), &BrokerRef::Secret { name: "mq".into(), key: "url".into() }).as_deref(), Ok("redis://:pw@r/0"));
}

#[test]
fn an_error_names_what_is_missing_and_what_there_is_and_no_value() {
    for (env, env_from, says) in [
        (json!([{"name": "OTHER", "value": "x"}]), json!([]), vec!["worker", "URL", "it has OTHER"]),
        (json!([]), json!([]), vec!["it has none"]),
        (json!([{"name": "URL", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "url"}}}]), json!([]), vec!["Secret gone", "namespace shop"]),
        (json!([{"name": "URL", "valueFrom": {"secretKeyRef": {"name": "mq", "key": "uri"}}}]), json!([]), vec!["no key uri", "PASS, url"]),
        (json!([]), json!([{"secretRef": {"name": "gone"}}]), vec!["Secret gone"]),
        (json!([{"name": "URL", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]), json!([]), vec!["fieldRef", "only the pod itself"]),
        (json!([{"name": "URL", "value": " "}]), json!([]), vec!["URL", "empty", "redis://"]),
        (
            json!([{"name": "URL", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "url", "optional": true}}}]),
            json!([]),
            vec!["no environment variable URL"],
        ),
    ] {
        let error = get(env.clone(), env_from, &url()).unwrap_err();
        assert!(says.iter().all(|s| error.contains(s)) && !error.contains("pw"), "{env}: {error}");
    }
}

#[test]
fn only_the_objects_that_matter_are_read() {
    let env: Vec<EnvVar> = serde_json::from_value(json!([
        {"name": "P", "valueFrom": {"secretKeyRef": {"name": "mq", "key": "PASS"}}},
        {"name": "X", "valueFrom": {"secretKeyRef": {"name": "unrelated", "key": "x"}}},
        {"name": "URL", "value": "redis://:$(P)@r/0"},
    ]))
    .unwrap();
    let env_from: Vec<EnvFromSource> = serde_json::from_value(json!([{"configMapRef": {"name": "cm"}}])).unwrap();
    let of = Environment { namespace: "shop", container: "worker", env: &env, env_from: &env_from };
    let found = needs(&url(), &of);
    assert_eq!((found.secrets.into_iter().collect::<Vec<_>>(), found.config_maps.len()), (vec!["mq".to_owned()], 0));
    let found = needs(&BrokerRef::Env("ELSEWHERE".into()), &of);
    assert!(found.config_maps.contains("cm") && found.secrets.is_empty());
}

#[test]
fn a_url_is_never_shown() {
    assert!(!format!("{:?}", SecretUrl::from("redis://:pw@r".to_owned())).contains("pw"));
}

#[test]
fn references_to_references_do_not_grow_beyond_what_a_process_starts_with() {
    let mut env = vec![json!({"name": "V0", "value": "xxxxxxxxxx"})];
    env.extend((1..8).map(|i| json!({"name": format!("V{i}"), "value": format!("$(V{})", i - 1).repeat(40)})));
    env.push(json!({"name": "URL", "value": "redis://$(V7)"}));
    let error = get(json!(env), json!([]), &url()).unwrap_err();
    assert!(error.contains("no process starts"), "{}", error.len());
}
