//! Which broker a URL means, whoever logs in. In: a parsed URL, the namespace in which its host is looked up. Out: a text that is equal where the broker is. Left to
//! others: what is done about queues that are one.

use crate::{AMQP_PORT, AMQPS_PORT, Address, BrokerUrl};

impl BrokerUrl {
    /// Equal for two URLs that lead to the same database or virtual host of the same broker: without user and password, whatever the order of the addresses, with
    /// TLS or without. A Service may be named in each of the ways that lead to it from `namespace`. Two names of one address in DNS are two brokers.
    #[must_use]
    pub fn identity(&self, namespace: &str) -> String {
        let (kind, addresses, within) = match self {
            Self::Redis(url) => ("redis", &url.addresses, format!("{}/{}", url.master.as_deref().unwrap_or_default(), url.database)),
            Self::Amqp(url) => ("amqp", &url.addresses, url.vhost.clone()),
        };
        let mut hosts: Vec<String> = addresses.iter().map(|address| host_and_port(address, namespace)).collect();
        hosts.sort_unstable();
        hosts.dedup();
        format!("{kind} {} {within}", hosts.join(","))
    }
}

/// As `redis`, `redis.shop`, `redis.shop.svc` and `redis.shop.svc.cluster.local` are one Service for whoever is in the namespace `shop`.
fn host_and_port(Address { host, port }: &Address, namespace: &str) -> String {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let short = host.strip_suffix(".svc.cluster.local").or_else(|| host.strip_suffix(".svc")).unwrap_or(&host);
    let is_address = short.parse::<std::net::IpAddr>().is_ok() || short == "localhost";
    let full = if short.contains('.') || is_address { short.to_owned() } else { format!("{short}.{namespace}") };
    // RabbitMQ's two ports are two doors of one house.
    let port = if *port == AMQPS_PORT { AMQP_PORT } else { *port };
    format!("{full}:{port}")
}

#[cfg(test)]
mod tests {
    use crate::parse;

    fn of(url: &str) -> String {
        parse(url).unwrap().identity("shop")
    }

    #[test]
    fn one_broker_has_one_identity_however_it_is_written() {
        for (one, other) in [
            ("redis://r", "redis://user:secret@R.:6379/0"),
            ("redis://r/1", "redis://r.shop.svc.cluster.local:6379?db=1"),
            ("redis://r.shop", "rediss://r.shop.svc"),
            ("amqp://r", "amqps://u:p@r.shop.svc/%2F"),
            ("amqp://a,b/v", "amqp://u:p@b:5672,a:5672/v"),
            ("sentinel://a/main;sentinel://b", "redis+sentinel://b,a/main/0"),
            ("redis://[::1]", "redis://[::1]:6379/0"),
        ] {
            assert_eq!(of(one), of(other), "{one} {other}");
            assert!(!of(other).contains("secret"), "{}", of(other));
        }
    }

    #[test]
    fn what_may_be_another_broker_has_another() {
        for (one, other) in [
            ("redis://r/0", "redis://r/1"),
            ("redis://r:6379", "redis://r:6380"),
            ("amqp://r/a", "amqp://r/b"),
            ("redis://r", "redis://r.other"),
            ("redis://r", "amqp://r:6379"),
            ("sentinel://a/main", "sentinel://a/other"),
        ] {
            assert_ne!(of(one), of(other), "{one} {other}");
        }
        assert_ne!(of("redis://r"), parse("redis://r").unwrap().identity("other"), "each namespace has a Service of this name");
    }
}
