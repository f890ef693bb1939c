//! In: URLs of every form that a client takes, good and bad. Out: what is read of each, as one line, and proof that no message or `Debug` shows a secret.

use super::*;

/// Everything of a URL in one line; the password in the open.
fn shown(text: &str) -> String {
    let login = |login: &Login| format!("{}:{}", login.user.as_deref().unwrap_or("-"), login.password.as_ref().map_or("-", Secret::expose));
    match parse(text) {
        Ok(BrokerUrl::Redis(url)) => {
            let master = if url.sentinel { format!(" master {}", url.master.as_deref().unwrap_or("(only one)")) } else { String::new() };
            let sentinels = if url.sentinel_login == Login::default() { String::new() } else { format!(" sentinels {}", login(&url.sentinel_login)) };
            format!("{} {} db {}{master}{sentinels}{}", url.place(), login(&url.login), url.database, tls(url.tls.as_ref()))
        }
        Ok(BrokerUrl::Amqp(url)) => {
            format!("{} {} vhost {} {}{}", url.place(), login(&url.login), url.vhost, url.management.place(), tls(url.tls.as_ref()))
        }
        Err(error) => format!("error: {error}"),
    }
}

fn tls(tls: Option<&Tls>) -> String {
    tls.map_or(String::new(), |tls| format!(" {:?}{}", tls.verify, if tls.names_file { " file" } else { "" }))
}

const REDIS: &[(&str, &str)] = &[
    ("redis://h", "redis://h:6379 -:- db 0"),
    ("redis://h/", "redis://h:6379 -:- db 0"),
    ("redis://h//", "redis://h:6379 -:- db 0"),
    ("redis://h:7/3", "redis://h:7 -:- db 3"),
    ("redis://h/3/", "redis://h:6379 -:- db 3"),
    ("redis://h?db=4", "redis://h:6379 -:- db 4"),
    ("redis://h/3?db=4", "redis://h:6379 -:- db 4"),
    ("redis://h:/1", "redis://h:6379 -:- db 1"),
    ("REDIS://h", "redis://h:6379 -:- db 0"),
    ("redis://:p@h", "redis://h:6379 -:p db 0"),
    ("redis://u@h", "redis://h:6379 u:- db 0"),
    ("redis://u:@h", "redis://h:6379 u:- db 0"),
    ("redis://u:p@h:6379/0", "redis://h:6379 u:p db 0"),
    ("redis://default:p%40%3A%2F%3F%23%25%2B+@h", "redis://h:6379 default:p@:/?#%++ db 0"),
    ("redis://:p@ss@h", "redis://h:6379 -:p@ss db 0"),
    ("redis://:a/b#c:d@h/2", "redis://h:6379 -:a/b#c:d db 2"),
    ("redis://:100%@h", "redis://h:6379 -:100% db 0"),
    ("redis://:a;b@h", "redis://h:6379 -:a;b db 0"),
    ("redis://:p%C3%A9@h", "redis://h:6379 -:pé db 0"),
    ("redis://[::1]:2/1", "redis://[::1]:2 -:- db 1"),
    ("redis://u:p@[fd00::10]", "redis://[fd00::10]:6379 u:p db 0"),
    ("redis://10.0.0.1", "redis://10.0.0.1:6379 -:- db 0"),
    ("redis://r.shop.svc.cluster.local.:6379", "redis://r.shop.svc.cluster.local.:6379 -:- db 0"),
    ("  redis://h:6379/0\n", "redis://h:6379 -:- db 0"),
    ("redis://:p@h:6379/0\r\n", "redis://h:6379 -:p db 0"),
    ("\u{feff}redis://h", "redis://h:6379 -:- db 0"),
    ("\"redis://:p@h/1\"\n", "redis://h:6379 -:p db 1"),
    ("'redis://h'", "redis://h:6379 -:- db 0"),
    ("redis://h/0#x", "redis://h:6379 -:- db 0"),
    ("redis://h:1/0?socket_timeout=5&health_check_interval=30&protocol=3&family=6", "redis://h:1 -:- db 0"),
    ("redis://a:1;redis://b:2", "redis://a:1,b:2 -:- db 0"),
    ("rediss://h", "rediss://h:6379 -:- db 0 Full"),
    ("rediss://h?ssl_cert_reqs=none", "rediss://h:6379 -:- db 0 Nothing"),
    ("rediss://:p@h:1/3?ssl_cert_reqs=CERT_NONE", "rediss://h:1 -:p db 3 Nothing"),
    ("rediss://h?ssl_cert_reqs=ssl.CERT_NONE", "rediss://h:6379 -:- db 0 Nothing"),
    ("rediss://h?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=/etc/ca.pem", "rediss://h:6379 -:- db 0 Full file"),
    ("rediss://h?ssl_cert_reqs=optional", "rediss://h:6379 -:- db 0 Full"),
    ("rediss://h?ssl_check_hostname=false", "rediss://h:6379 -:- db 0 ChainOnly"),
    ("redis://h?ssl_cert_reqs=required", "rediss://h:6379 -:- db 0 Full"),
    ("redis://h?ssl=true", "rediss://h:6379 -:- db 0 Full"),
    ("valkey://u:p@h/1", "redis://h:6379 u:p db 1"),
    ("valkeys://h", "rediss://h:6379 -:- db 0 Full"),
    ("redis+ssl://h", "rediss://h:6379 -:- db 0 Full"),
    ("redis+sentinel://u:p@a:1,b/main/2?sentinel_password=s3cret", "redis+sentinel://a:1,b:26379 u:p db 2 master main sentinels -:s3cret"),
    ("redis+sentinel://a,b/main", "redis+sentinel://a:26379,b:26379 -:- db 0 master main"),
    ("redis+sentinel://a/2/main", "redis+sentinel://a:26379 -:- db 2 master main"),
    ("redis+sentinel://a,b", "redis+sentinel://a:26379,b:26379 -:- db 0 master (only one)"),
    ("redis-sentinel://:p@a,b/1?sentinelMasterId=main", "redis+sentinel://a:26379,b:26379 -:p db 1 master main"),
    ("redis-sentinel://a,b/1#main", "redis+sentinel://a:26379,b:26379 -:- db 1 master main"),
    ("rediss+sentinel://a/main", "rediss+sentinel://a:26379 -:- db 0 master main Full"),
    ("valkey+sentinel://a/main", "redis+sentinel://a:26379 -:- db 0 master main"),
    ("sentinel://s1:26379;sentinel://s2:26379", "redis+sentinel://s1:26379,s2:26379 -:- db 0 master (only one)"),
    ("sentinel://:p@s1:26379/1;sentinel://:p@s2:26380/1;", "redis+sentinel://s1:26379,s2:26380 -:p db 1 master (only one)"),
    ("sentinel://s1;sentinel://s2/?master_name=main", "redis+sentinel://s1:26379,s2:26379 -:- db 0 master (only one)"),
    ("sentinel://s1,s2/0?master_name=main", "redis+sentinel://s1:26379,s2:26379 -:- db 0 master main"),
    ("sentinel://s1?ssl_cert_reqs=none", "rediss+sentinel://s1:26379 -:- db 0 master (only one) Nothing"),
];

const AMQP: &[(&str, &str)] = &[
    ("amqp://h", "amqp://h:5672 guest:guest vhost / http://h:15672"),
    ("amqp://h/", "amqp://h:5672 guest:guest vhost / http://h:15672"),
    ("amqp://h//", "amqp://h:5672 guest:guest vhost / http://h:15672"),
    ("amqp://h/%2F", "amqp://h:5672 guest:guest vhost / http://h:15672"),
    ("amqp://h/%2fshop", "amqp://h:5672 guest:guest vhost /shop http://h:15672"),
    ("amqp://h//shop", "amqp://h:5672 guest:guest vhost /shop http://h:15672"),
    ("amqp://u:p@h:1/a%20b", "amqp://h:1 u:p vhost a b http://h:15672"),
    ("amqp://u@h", "amqp://h:5672 u:guest vhost / http://h:15672"),
    ("amqp://us%40er:p%3A%2F%23+x%26y@h", "amqp://h:5672 us@er:p:/#+x&y vhost / http://h:15672"),
    ("amqp://u:p@ss:w#rd@h/shop", "amqp://h:5672 u:p@ss:w#rd vhost shop http://h:15672"),
    ("amqp://u:p@[::1]:5673//", "amqp://[::1]:5673 u:p vhost / http://[::1]:15672"),
    ("pyamqp://u:p@h//", "amqp://h:5672 u:p vhost / http://h:15672"),
    ("librabbitmq://h", "amqp://h:5672 guest:guest vhost / http://h:15672"),
    ("amqps://u:p@h:1/%2Fshop", "amqps://h:1 u:p vhost /shop https://h:15671 Full"),
    ("amqps://h?verify=verify_none&cacertfile=/ca.pem", "amqps://h:5671 guest:guest vhost / https://h:15671 Nothing file"),
    ("amqp://h?ssl_cert_reqs=none", "amqps://h:5671 guest:guest vhost / https://h:15671 Nothing"),
    ("amqps://h?ssl_options=%7B%27certfile%27%3A1%7D", "amqps://h:5671 guest:guest vhost / https://h:15671 Full"),
    ("amqps://h?auth_mechanism=external", "amqps://h:5671 -:- vhost / https://h:15671 Full"),
    ("amqp://h?heartbeat=5&connection_timeout=10&channel_max=3&frame_max=131072", "amqp://h:5672 guest:guest vhost / http://h:15672"),
    ("amqp://u:p@h1:5672,h2:5672//", "amqp://h1:5672,h2:5672 u:p vhost / http://h1:15672"),
    ("amqp://u:p@h1:1//;amqp://u:p@h2//", "amqp://h1:1,h2:5672 u:p vhost / http://h1:15672"),
    ("pyamqp://u:p@h1//; pyamqp://u:p@h2// ;", "amqp://h1:5672,h2:5672 u:p vhost / http://h1:15672"),
    ("amqp://h1;h2", "amqp://h1:5672,h2:5672 guest:guest vhost / http://h1:15672"),
    ("amqp://u:p@h/shop?management=http%3A%2F%2Fapi%3A8080", "amqp://h:5672 u:p vhost shop http://api:8080"),
    ("amqp://h?management=https://api:1/rabbit/", "amqp://h:5672 guest:guest vhost / https://api:1/rabbit"),
    ("amqp://h?management=http://u2:p2@api:1", "amqp://h:5672 guest:guest vhost / http://api:1"),
];

const BAD: &[(&str, &str, &str)] = &[
    ("", "text", "empty"),
    (" \n", "text", "empty"),
    ("''", "text", "empty"),
    ("hunter2", "scheme", "begins with its scheme"),
    ("redis:6379", "scheme", "begins with its scheme"),
    ("//:hunter2@h", "scheme", "path"),
    ("/var/run/redis.sock", "scheme", "Unix socket"),
    ("kafka://u:hunter2@h", "scheme", "Kafka is not supported"),
    ("sqs://u:hunter2@", "scheme", "SQS is not supported"),
    ("SQS://", "scheme", "SQS is not supported"),
    ("nats://h", "scheme", "NATS is not supported"),
    ("memory://", "scheme", "inside the worker"),
    ("mongodb://u:hunter2@h", "scheme", "not supported"),
    ("https://u:hunter2@h", "scheme", "qscaler.dev/management"),
    ("unix:///run/redis.sock?db=1", "scheme", "Unix socket"),
    ("redis+socket:///run/redis.sock", "scheme", "Unix socket"),
    ("redis+cluster://u:hunter2@a,b", "scheme", "Cluster is not supported"),
    ("rediss+cluster://a", "scheme", "Cluster is not supported"),
    ("rabbit://h", "scheme", "rabbit:// is not known"),
    ("hunter2:p@ss://h", "scheme", "begins with its scheme"),
    ("amqp://u:hunter2@", "host", "missing"),
    ("amqp://u:hunter2@/shop", "host", "missing"),
    ("amqp://u:hunter2@h:port", "port", "1 to 65535"),
    ("amqp://u:hunter2@h:0", "port", "1 to 65535"),
    ("redis://u:x@y:hunter2@h:70000", "port", "1 to 65535"),
    ("redis://u:hunter2@h 2", "host", "character"),
    ("redis://u:pass hunter2", "port", "1 to 65535"),
    ("redis://[::1:hunter2", "host", "bracket"),
    ("redis://[hunter2]:1", "host", "no IPv6"),
    ("redis://::1:6379", "host", "in brackets"),
    ("redis://u:hunter2?x@h", "password", "%3F"),
    ("redis://:hunter2%FF@h", "password", "UTF-8"),
    ("redis://:hunter2@h/zero", "database", "not a number"),
    ("redis://u:hunter2@h/-1", "database", "not a number"),
    ("redis://u:hunter2@a:1,b:2", "host", "Cluster is not supported"),
    ("redis://:hunter2@a;redis://:hunter3@b", "list", "differ in their user or password"),
    ("amqp://u:hunter2@a;amqps://u:hunter2@b", "list", "different schemes"),
    ("amqp://u:hunter2@a/x;amqp://u:hunter2@b/y", "list", "virtual host"),
    ("rediss://:hunter2@h?ssl_cert_reqs=hunter2", "ssl_cert_reqs", "not known"),
    ("amqp://u:hunter2@h?management=ftp://x", "management", "not http"),
    ("amqp://u:hunter2@h?management=http://hunter2:x:y@:1", "management", "host is missing"),
    ("amqp://u:hunter2@h?management=http://x?y=hunter2", "management", "parameters"),
    ("$(BROKER_URL)", "text", "no variable BROKER_URL"),
    ("redis://:hunter2@$(HOST):6379", "text", "no variable HOST"),
    ("redis://:hunter2@${HOST}:6379/0", "text", "write $(HOST)"),
];

#[test]
fn every_form_that_a_client_takes_is_read() {
    for (text, expected) in REDIS.iter().chain(AMQP) {
        assert_eq!(shown(text), *expected, "{text}");
    }
}

#[test]
fn a_bad_url_names_the_part_and_what_is_valid_and_never_a_secret() {
    for (text, part, words) in BAD {
        let error = parse(text).expect_err(text);
        let shown = format!("{error} {error:?}");
        assert_eq!(error.part, *part, "{text}: {error}");
        assert!(shown.contains(words) && shown.contains("valid are "), "{text}: {error}");
        assert!(!shown.contains("hunter"), "{shown}");
    }
}

#[test]
fn no_debug_of_a_url_shows_a_secret() {
    for text in
        ["amqp://u:hunter2@h?management=http://m:hunter2@h", "redis://u:hunter2@h", "redis+sentinel://u:hunter2@h/m?sentinel_password=hunter2"]
    {
        let material = TlsMaterial { ca: None, certificate: None, key: Some(Secret::from("hunter2".to_owned())) };
        let url = parse(&attach(text, &material, None)).unwrap();
        assert!(!format!("{url:?} {material:?} {}", url.place()).contains("hunter2"), "{url:?}");
    }
}

/// A list keeps all its hosts, in whichever form it is written.
const LISTS: &[(&str, &str)] = &[
    ("amqps://h1;h2;h3", "amqps://h1:5671,h2:5671,h3:5671 guest:guest vhost / https://h1:15671 Full"),
    ("amqps://u:p@h1//;u:p@h2//", "amqps://h1:5671,h2:5671 u:p vhost / https://h1:15671 Full"),
    ("amqps://h1/; h2/?heartbeat=5 ;", "amqps://h1:5671,h2:5671 guest:guest vhost / https://h1:15671 Full"),
    ("amqps://h1,h2;h3", "amqps://h1:5671,h2:5671,h3:5671 guest:guest vhost / https://h1:15671 Full"),
    ("pyamqps://h1;pyamqps://h2;h3", "amqps://h1:5671,h2:5671,h3:5671 guest:guest vhost / https://h1:15671 Full"),
    ("rediss://a;b:7", "rediss://a:6379,b:7 -:- db 0 Full"),
    ("rediss://:x;y@a/1;:x;y@b/1", "rediss://a:6379,b:6379 -:x;y db 1 Full"),
    ("redis://a?ssl=true;redis://b", "rediss://a:6379,b:6379 -:- db 0 Full"),
    ("sentinels://:p@s1:1/2;:p@s2:3/2;", "rediss+sentinel://s1:1,s2:3 -:p db 2 master (only one) Full"),
    ("rediss-sentinel://s1/1#main;s2", "rediss+sentinel://s1:26379,s2:26379 -:- db 1 master main Full"),
    ("sentinels://s1?master_name=main;sentinels://s2", "rediss+sentinel://s1:26379,s2:26379 -:- db 0 master main Full"),
];

#[test]
fn certificates_leave_everything_of_a_url_as_it_was() {
    let material = TlsMaterial { ca: Some("-----BEGIN CERTIFICATE-----\nAb+/=;@?#\n".to_owned()), ..TlsMaterial::default() };
    for (text, expected) in LISTS.iter().chain(REDIS).chain(AMQP) {
        assert_eq!(shown(text), *expected, "{text}");
        let attached = attach(text, &material, None);
        assert_eq!(shown(&attached), *expected, "{text} became {attached}");
        let tls = match parse(&attached) {
            Ok(BrokerUrl::Redis(url)) => url.tls,
            Ok(BrokerUrl::Amqp(url)) => url.tls,
            Err(error) => panic!("{text}: {error}"),
        };
        assert!(tls.is_none_or(|tls| tls.material.ca.as_deref().map(str::trim) == material.ca.as_deref().map(str::trim)), "{text} became {attached}");
    }
}

#[test]
fn a_server_s_message_is_scrubbed_of_the_password() {
    let BrokerUrl::Amqp(url) = parse("amqp://u:hun%2Fter2@h").unwrap() else { panic!("not AMQP") };
    assert_eq!(url.scrub("login hun/ter2 or hun%2Fter2 refused"), "login *** or *** refused");
    let BrokerUrl::Redis(url) = parse("redis+sentinel://:one@h/m?sentinel_password=two").unwrap() else { panic!("not Redis") };
    assert_eq!(url.scrub("one and two"), "*** and ***");
}

#[test]
fn the_address_of_a_management_api_may_have_a_prefix_and_a_login() {
    for (text, place, user) in [
        ("http://h:15672", "http://h:15672", None),
        ("https://mq.example.com/rabbit", "https://mq.example.com:443/rabbit", None),
        ("http://h:15672/api", "http://h:15672", None),
        ("http://h/a/b/api/\n", "http://h:80/a/b", None),
        ("http://h/papi", "http://h:80/papi", None),
        ("http://u:p@h:1", "http://h:1", Some("u")),
    ] {
        let management = Management::parse(text).unwrap();
        assert_eq!((management.place().as_str(), management.login.as_ref().and_then(|l| l.user.as_deref())), (place, user), "{text}");
    }
    for text in ["", "h:15672", "ftp://h", "http://h:x", "http://", "http://h/a b", "http://u:hunter2@h;http://u:hunter2@i"] {
        let error = Management::parse(text).unwrap_err();
        assert!(error.part == "management" && error.to_string().contains("valid are http://") && !error.to_string().contains("hunter2"), "{error}");
    }
}

/// A Secret holds a mebibyte, and whoever may write one in his own namespace has it read by the controller of the whole cluster.
#[test]
fn a_text_of_any_kind_is_read_in_time_that_grows_as_its_length() {
    let hosts: String = (0..100_000).map(|i| format!("h{i},")).collect();
    for text in [
        format!("amqp://{hosts}"),
        format!("amqp://{}", "h;".repeat(500_000)),
        format!("redis://:{}@h", ";".repeat(1 << 20)),
        format!("redis://h?{}", ";".repeat(1 << 20)),
        format!("redis://{}", "$(".repeat(500_000)),
        format!("redis://{}", "${".repeat(500_000)),
    ] {
        let (tell, told) = std::sync::mpsc::channel();
        let begins = text[..20].to_owned();
        std::thread::spawn(move || {
            tell.send(parse(&text).is_err() || attach(&text, &TlsMaterial { ca: Some("x".into()), ..TlsMaterial::default() }, None).len() > 1)
        });
        assert!(told.recv_timeout(std::time::Duration::from_secs(60)).is_ok(), "{begins}… takes too long");
    }
}
