//! The page that shows the fleet, and the JSON that it is made from. In: GET requests of a browser on this machine, the fleet. Out: a page, its style and script, and
//! JSON; nothing can be changed. Left to others: what is shown (`fleet`), connections (`runtime::serve`), who may connect: the listener is on the pod's loopback
//! address, which only `kubectl port-forward` reaches, and that asks the API server for the right `create` on `pods/portforward`.

use crate::clock;
use crate::show::fleet::{self, SharedFleet};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use qscaler_runtime::ready::Readiness;
use qscaler_runtime::serve::{Answer, answer};
use std::net::SocketAddr;
use url::form_urlencoded;

/// Nothing from elsewhere, nothing in the markup that runs, no frame around it.
const POLICY: &str =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// On every answer.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

const PLAIN: &str = "text/plain; charset=utf-8";
const HTML: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// An address that only this pod reaches: the page asks nobody who he is.
///
/// # Errors
/// With one sentence, where others would reach it too.
pub fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|e| format!("{e}; valid: an address and a port, such as 127.0.0.1:8090"))?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err(format!("{} can be reached by others, and the page asks nobody who he is; valid: a loopback address, such as 127.0.0.1:8090", address.ip()))
}

/// What the page is made from.
#[derive(Clone, Debug)]
pub struct Page {
    fleet: SharedFleet,
    readiness: Readiness,
}

impl Page {
    /// Of this fleet.
    #[must_use]
    pub fn new(fleet: SharedFleet, readiness: Readiness) -> Self {
        Self { fleet, readiness }
    }

    /// The answer to one request.
    #[must_use]
    pub fn answer<B>(&self, request: &Request<B>) -> Answer {
        let mut response = self.find(request);
        for (name, value) in HEADERS {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }

    fn find<B>(&self, request: &Request<B>) -> Answer {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut refused = answer(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n");
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        // A page of another site whose name is made to lead to this machine could read all of it otherwise.
        if !request.headers().get(header::HOST).is_some_and(|host| names_this_machine(host.as_bytes())) {
            return answer(StatusCode::MISDIRECTED_REQUEST, PLAIN, "ask for it as localhost\n");
        }
        match request.uri().path() {
            "/" => answer(StatusCode::OK, "text/html; charset=utf-8", HTML),
            "/page.css" => answer(StatusCode::OK, "text/css; charset=utf-8", STYLE),
            "/page.js" => answer(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT),
            "/fleet.json" => {
                let query = request.uri().query().unwrap_or_default().as_bytes();
                let find = form_urlencoded::parse(query).find(|(key, _)| key == "find").map_or_else(String::new, |(_, text)| text.into_owned());
                answer(StatusCode::OK, "application/json", fleet::json(&self.fleet, &find, self.readiness.reason(), clock::now()))
            }
            _ => answer(StatusCode::NOT_FOUND, PLAIN, "not found\n"),
        }
    }
}

/// Whether a Host header names this machine's loopback, at any port.
fn names_this_machine(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(name, _)| name);
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
