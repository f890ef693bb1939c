//! What annotations say of a broker beside its URL, carried in the URL itself: certificates, and where the management API is. In: a URL's text and what
//! belongs to it. Out: one text, of which [`crate::parse`] reads both; equal texts mean the same broker, spoken to in the same way. Left to others: where
//! they come from.

use crate::cut;
use crate::material::TlsMaterial;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// Read with the rest of the URL (`management`).
const MANAGEMENT: &str = "management";

/// The URL with these parameters; those that it has already come second, and so do not count. What is no URL stays none.
#[must_use]
pub fn attach(url: &str, tls: &TlsMaterial, management: Option<&str>) -> String {
    let url = crate::clean(url);
    let parameters: Vec<String> = tls
        .parameters()
        .into_iter()
        .chain([(MANAGEMENT, management)])
        .filter_map(|(name, value)| value.map(|value| format!("{name}={}", utf8_percent_encode(value.trim(), NON_ALPHANUMERIC))))
        .collect();
    let urls = cut::split(url);
    let Some((first, others)) = urls.split_first().filter(|_| !parameters.is_empty()) else { return url.to_owned() };
    // Of a list the first URL's parameters are read.
    let mut list = with_parameters(first, &parameters.join("&"));
    // Behind parameters only what has a scheme begins another URL: without one it would be the end of the last value.
    let scheme = first.split_once("://").map_or("", |(scheme, _)| scheme.trim());
    for other in others {
        list.push(';');
        if !other.contains("://") {
            list.push_str(scheme);
            list.push_str("://");
        }
        list.push_str(other);
    }
    list
}

/// Before its own parameters, or its fragment.
fn with_parameters(url: &str, added: &str) -> String {
    let host = url.split('?').next().unwrap_or_default().rfind('@').unwrap_or_default();
    let at = url.find('?').map(|at| at + 1).or_else(|| url[host..].find('#').map(|at| host + at));
    let (before, after) = url.split_at(at.unwrap_or(url.len()));
    if before.ends_with('?') { format!("{before}{added}&{after}") } else { format!("{before}?{added}{after}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BrokerUrl, Secret, parse};

    #[test]
    fn what_is_attached_is_read_again_and_the_url_stays_what_it_was() {
        let material = TlsMaterial {
            ca: Some("-----BEGIN CERTIFICATE-----\nAb+/=\n-----END CERTIFICATE-----".to_owned()),
            certificate: Some("c;r@t?#".to_owned()),
            key: Some(Secret::from("k&y".to_owned())),
        };
        let management = "https://u:p@api:1/rabbit";
        for text in [
            "rediss://h",
            " rediss://:p@h:1/3\n",
            "rediss://:p@h:1/3?ssl_cert_reqs=none",
            "rediss://:a#b@h:1/3",
            "rediss+sentinel://a,b/main",
            "rediss-sentinel://a,b/1#main",
            "rediss://a/1;rediss://b/1",
            "amqps://u:p@a//;amqps://u:p@b//",
            "amqps://h?management=http://other:1",
            "amqps://h?heartbeat=1",
        ] {
            let with = |text: &str| match parse(text).unwrap() {
                BrokerUrl::Redis(mut url) => {
                    let tls = url.tls.as_mut().unwrap();
                    (std::mem::take(&mut tls.material), None, format!("{url:?}"))
                }
                BrokerUrl::Amqp(mut url) => {
                    let tls = url.tls.as_mut().unwrap();
                    let material = std::mem::take(&mut tls.material);
                    let place = std::mem::replace(&mut url.management, crate::Management::parse("http://x:1").unwrap()).place();
                    (material, Some(place), format!("{url:?}"))
                }
            };
            let (plain, attached) = (with(text), with(&attach(text, &material, Some(management))));
            assert_eq!((&plain.0, &attached.0), (&TlsMaterial::default(), &material), "{text}");
            assert_eq!(plain.2, attached.2, "{text}");
            assert!(attached.1.is_none_or(|place| place == "https://api:1/rabbit"), "{text}");
        }
    }

    #[test]
    fn nothing_attached_changes_nothing_and_certificates_turn_no_tls_on() {
        assert_eq!(attach("redis://h\n", &TlsMaterial::default(), None), "redis://h");
        assert_eq!(attach("", &TlsMaterial { ca: Some("x".into()), ..TlsMaterial::default() }, None), "");
        let text = attach("redis://h", &TlsMaterial { ca: Some("x".into()), ..TlsMaterial::default() }, None);
        assert!(matches!(parse(&text), Ok(BrokerUrl::Redis(url)) if url.tls.is_none()));
    }
}
