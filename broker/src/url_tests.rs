//! In: URLs of every form, good and bad. Out: their parts, and proof that no message or `Debug` shows a password.

use super::*;

fn amqp(text: &str) -> AmqpUrl {
    match BrokerUrl::parse(text).unwrap() {
        BrokerUrl::Amqp(url) => url,
        BrokerUrl::Redis(_) => panic!("{text} is read as Redis"),
    }
}

fn redis(text: &str) -> RedisUrl {
    match BrokerUrl::parse(text).unwrap() {
        BrokerUrl::Redis(url) => url,
        BrokerUrl::Amqp(_) => panic!("{text} is read as AMQP"),
    }
}

#[test]
fn an_amqp_url_has_the_defaults_that_clients_know() {
    let url = amqp("amqp://rabbit");
    assert_eq!((url.place().as_str(), url.vhost.as_str(), url.tls), ("amqp://rabbit:5672", "/", false));
    assert_eq!((url.login.user.as_deref(), url.login.password.as_ref().map(Secret::expose)), (Some("guest"), Some("guest")));
    assert_eq!((url.management.tls, url.management.address.to_string()), (false, "rabbit:15672".to_owned()));
    let tls = amqp("amqps://u:p@rabbit:1/%2Fshop");
    assert_eq!((tls.management.tls, tls.management.address.port, tls.vhost.as_str()), (true, 15671, "/shop"));
}

#[test]
fn every_spelling_of_the_root_vhost_is_the_root_vhost() {
    for text in ["amqp://h", "amqp://h/", "amqp://h//", "amqp://h/%2F", "amqp://h/%2f"] {
        assert_eq!(amqp(text).vhost, "/", "{text}");
    }
}

#[test]
fn the_management_address_can_be_given() {
    let url = amqp("amqp://u:p@rabbit/shop?heartbeat=5&management=http%3A%2F%2Fapi%3A8080");
    assert_eq!((url.management.tls, url.management.address.to_string()), (false, "api:8080".to_owned()));
    assert_eq!(
        amqp("amqp://rabbit?management=https://api:1/").management,
        Management { tls: true, address: Address { host: "api".into(), port: 1 } }
    );
}

#[test]
fn celery_s_own_spellings_are_read() {
    let url = amqp("pyamqp://u:p@one:1//;pyamqp://u:p@two//");
    assert_eq!(url.place(), "amqp://one:1,two:5672");
    assert_eq!(redis("rediss://:p@h:1/3?ssl_cert_reqs=CERT_REQUIRED").place(), "rediss://h:1");
}

#[test]
fn passwords_with_reserved_characters_are_decoded() {
    let url = amqp("amqp://us%40er:p%3A%2F%23+x%26y@h");
    assert_eq!((url.login.user.as_deref(), url.login.password.as_ref().map(Secret::expose)), (Some("us@er"), Some("p:/#+x&y")));
    assert_eq!(redis("redis://:a/b#c@h").login.password.as_ref().map(Secret::expose), Some("a/b#c"));
}

#[test]
fn a_redis_url_names_its_database() {
    assert_eq!(redis("redis://h").database, 0);
    assert_eq!(redis("redis://h/7").database, 7);
    assert_eq!(redis("redis://h:1?db=3").database, 3);
    assert_eq!(redis("redis://[::1]:2/1").place(), "redis://[::1]:2");
    assert_eq!(redis("redis://only-a-user@h").login.user.as_deref(), Some("only-a-user"));
}

#[test]
fn a_sentinel_url_lists_sentinels_master_and_database() {
    let url = redis("redis+sentinel://u:p@a:1,b/main/2?sentinel_password=s3cret");
    assert_eq!((url.place().as_str(), url.master.as_deref(), url.database), ("redis+sentinel://a:1,b:26379", Some("main"), 2));
    assert_eq!(url.sentinel_login.password.as_ref().map(Secret::expose), Some("s3cret"));
}

#[test]
fn a_bad_url_says_what_is_valid_and_never_shows_its_password() {
    for text in [
        "",
        "hunter2",
        "kafka://u:hunter2@h",
        "hunter2://h",
        "amqp://u:hunter2@",
        "amqp://u:hunter2@h:port",
        "amqp://u:hunter2@h:0",
        "amqp://u:hunter2@h?management=ftp://x",
        "amqp://u:hunter2@h?management=http://u:hunter2@x",
        "redis://:hunter2@h/zero",
        "redis://u:hunter2@h/-1",
        "redis://u:x@y:hunter2@h:70000",
        "redis://u:hunter2@h 2",
        "redis+sentinel://u:hunter2@a,b",
        "redis://u:pass hunter2",
        "redis://[::1:hunter2",
    ] {
        let error = BrokerUrl::parse(text).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2") || text == "hunter2://h", "{shown}");
        assert!(shown.contains("valid are amqp://"), "{shown}");
        assert_eq!(error.retry, Retry::AfterChange);
    }
}

#[test]
fn no_debug_of_a_url_shows_its_password() {
    for text in ["amqp://u:hunter2@h", "redis://u:hunter2@h", "redis+sentinel://u:hunter2@h/m?sentinel_password=hunter2"] {
        let shown = format!("{:?}", BrokerUrl::parse(text).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn a_server_s_message_is_scrubbed_of_the_password() {
    let url = amqp("amqp://u:hun%2Fter2@h");
    assert_eq!(url.login.scrub("login hun/ter2 or hun%2Fter2 refused"), "login *** or *** refused");
}
