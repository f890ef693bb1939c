//! The wire of kombu, Celery's messaging library, as far as worker events and remote control go. In: commands, and bytes from the broker. Out:
//! bytes, worker events, replies. Left to others: carrying them. Formats: seen on the wire of Celery 5.7 and in kombu's pidbox and redis modules.

use crate::clock::since_epoch;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Exchange of all events.
pub(super) const EVENT_EXCHANGE: &str = "celeryev";
/// Exchange of remote control, read by every worker.
pub(super) const PIDBOX_EXCHANGE: &str = "celery.pidbox";
/// Exchange of the replies.
pub(super) const REPLY_EXCHANGE: &str = "reply.celery.pidbox";

/// What a worker says of itself: at its start, at its end, and every few seconds between.
#[derive(Clone, Debug, PartialEq)]
pub struct CeleryEvent {
    /// The node, `celery@host`.
    pub node: String,
    /// Tasks running now.
    pub active: u32,
    /// Tasks finished since the worker's start.
    pub processed: u64,
    /// How often it says so.
    pub period: Duration,
    /// The worker has said good-bye.
    pub offline: bool,
}

/// One command.
pub(super) struct Call<'a> {
    pub(super) method: &'a str,
    pub(super) arguments: Value,
    pub(super) whom: Whom<'a>,
    pub(super) wait: Duration,
}

/// Who is called.
#[derive(Clone, Copy)]
pub(super) enum Whom<'a> {
    /// These nodes.
    Nodes(&'a [String]),
    /// Every node whose name matches this glob.
    Matching(&'a str),
}

impl Call<'_> {
    /// Whether more replies may come after so many.
    pub(super) fn awaits(&self, replies: usize) -> bool {
        match self.whom {
            Whom::Nodes(nodes) => replies < nodes.len(),
            Whom::Matching(_) => true,
        }
    }
}

/// kombu's default; events of a worker that does not say otherwise.
const PERIOD_DEFAULT_S: f64 = 2.0;
/// A period outside these is a mistake or a joke.
const PERIOD_RANGE_S: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

#[derive(Deserialize)]
struct EventBody {
    #[serde(rename = "type")]
    kind: String,
    hostname: String,
    #[serde(default)]
    active: u32,
    #[serde(default)]
    processed: u64,
    freq: Option<f64>,
}

/// Whether a payload can come from a node on this host; cheap, since every event of the whole fleet passes here.
pub(super) fn mentions(payload: &[u8], host: &str) -> bool {
    let wanted = format!("@{host}\"");
    payload.windows(wanted.len()).any(|window| window == wanted.as_bytes())
}

/// Reads the body of an event. None: another event, another host, or not one at all.
pub(super) fn event(body: &[u8], host: &str) -> Option<CeleryEvent> {
    let event: EventBody = serde_json::from_slice(body).ok()?;
    let offline = match event.kind.as_str() {
        "worker-online" | "worker-heartbeat" => false,
        "worker-offline" => true,
        _ => return None,
    };
    (event.hostname.rsplit_once('@')?.1 == host).then_some(())?;
    let period_s = event.freq.filter(|s| PERIOD_RANGE_S.contains(s)).unwrap_or(PERIOD_DEFAULT_S);
    Some(CeleryEvent { node: event.hostname, active: event.active, processed: event.processed, period: Duration::from_secs_f64(period_s), offline })
}

#[derive(Deserialize)]
struct Envelope {
    body: String,
    #[serde(default)]
    properties: Properties,
}

#[derive(Default, Deserialize)]
struct Properties {
    body_encoding: Option<String>,
}

/// The body inside the JSON that kombu puts around it where the broker (Redis) has no properties of its own.
pub(super) fn unwrap(payload: &[u8]) -> Option<Vec<u8>> {
    let envelope: Envelope = serde_json::from_slice(payload).ok()?;
    match envelope.properties.body_encoding.as_deref() {
        Some("base64") => STANDARD.decode(envelope.body).ok(),
        _ => Some(envelope.body.into_bytes()),
    }
}

/// The body of a command that wants replies at `reply_to`.
pub(super) fn command(call: &Call<'_>, ticket: &str, reply_to: &str) -> Vec<u8> {
    let (nodes, pattern) = match call.whom {
        Whom::Nodes(nodes) => (Some(nodes), None),
        Whom::Matching(pattern) => (None, Some(pattern)),
    };
    let body = json!({
        "method": call.method, "arguments": call.arguments, "destination": nodes, "pattern": pattern, "matcher": pattern.map(|_| "glob"),
        "ticket": ticket, "reply_to": {"exchange": REPLY_EXCHANGE, "routing_key": reply_to},
    });
    body.to_string().into_bytes()
}

/// Seconds since the epoch from which on a command is void.
pub(super) fn expires_s(call: &Call<'_>) -> f64 {
    (since_epoch() + call.wait).as_secs_f64()
}

/// The same, wrapped for Redis.
pub(super) fn wrapped_command(call: &Call<'_>, ticket: &str, reply_to: &str) -> String {
    let envelope = json!({
        "body": STANDARD.encode(command(call, ticket, reply_to)), "content-encoding": "utf-8", "content-type": "application/json",
        "headers": {"clock": 0, "expires": expires_s(call)},
        "properties": {
            "delivery_mode": 2, "delivery_info": {"exchange": PIDBOX_EXCHANGE, "routing_key": ""}, "priority": 0,
            "body_encoding": "base64", "delivery_tag": ticket,
        },
    });
    envelope.to_string()
}

/// The replies in one message: one pair of node and answer.
pub(super) fn replies(body: &[u8]) -> impl Iterator<Item = (String, Value)> {
    let parsed: Option<serde_json::Map<String, Value>> = serde_json::from_slice(body).ok();
    parsed.into_iter().flatten()
}

/// The name of the queue that replies go to.
pub(super) fn reply_queue(name: &str) -> String {
    format!("{name}.{REPLY_EXCHANGE}")
}

/// Whether a wrapped reply belongs to this call, and not to an earlier one that was answered late.
pub(super) fn mentions_ticket(payload: &[u8], ticket: &str) -> bool {
    payload.windows(ticket.len()).any(|window| window == ticket.as_bytes())
}

/// A value that no other call has had.
pub(super) fn ticket() -> String {
    // Every `RandomState` has keys of its own, from the system's random numbers.
    let word = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", word(), word())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Celery 5.7 published it.
    const ONLINE: &str = r#"{"body": "eyJob3N0bmFtZSI6ICJjZWxlcnlAdm0iLCAidXRjb2Zmc2V0IjogMC4wLCAicGlkIjogMjk5MjQsICJjbG9jayI6IDEsICJmcmVxIjogMi4wLCAiYWN0aXZlIjogMCwgInByb2Nlc3NlZCI6IDAsICJsb2FkYXZnIjogWzAuMTgsIDAuMzcsIDAuNzJdLCAic3dfaWRlbnQiOiAicHktY2VsZXJ5IiwgInN3X3ZlciI6ICI1LjcuMCIsICJzd19zeXMiOiAiTGludXgiLCAidGltZXN0YW1wIjogMTc5NTUyMTYwOC43OTE0MzUsICJ0eXBlIjogIndvcmtlci1vbmxpbmUifQ==", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"hostname": "celery@vm"}, "properties": {"delivery_mode": 1, "delivery_info": {"exchange": "celeryev", "routing_key": "worker.online"}, "priority": 0, "body_encoding": "base64", "delivery_tag": "c8dd0acf-c5be-4c58-a250-1c39bb6395d4"}}"#;

    #[test]
    fn an_event_of_this_host_is_read() {
        assert!(mentions(ONLINE.as_bytes(), "vm"));
        let event = event(&unwrap(ONLINE.as_bytes()).unwrap(), "vm").unwrap();
        let expected = CeleryEvent { node: "celery@vm".to_owned(), active: 0, processed: 0, period: Duration::from_secs(2), offline: false };
        assert_eq!(event, expected);
    }

    #[test]
    fn events_of_other_hosts_and_other_kinds_are_passed_over() {
        assert!(!mentions(ONLINE.as_bytes(), "m"));
        assert!(!mentions(ONLINE.as_bytes(), "vm2"));
        let body = unwrap(ONLINE.as_bytes()).unwrap();
        assert_eq!(event(&body, "other"), None);
        assert_eq!(event(br#"{"type": "task-sent", "hostname": "celery@vm"}"#, "vm"), None);
        assert_eq!(event(b"[1]", "vm"), None);
        assert!(event(br#"{"type": "worker-offline", "hostname": "w.1@vm", "freq": -4}"#, "vm").unwrap().offline);
    }

    #[test]
    fn a_command_has_the_shape_that_workers_read() {
        let nodes = ["celery@vm".to_owned()];
        let call = Call { method: "cancel_consumer", arguments: json!({"queue": "q"}), whom: Whom::Nodes(&nodes), wait: Duration::from_secs(1) };
        let envelope: Value = serde_json::from_str(&wrapped_command(&call, "t", "me")).unwrap();
        assert_eq!(envelope["content-type"], "application/json");
        let body: Value = serde_json::from_slice(&unwrap(envelope.to_string().as_bytes()).unwrap()).unwrap();
        assert_eq!(body["method"], "cancel_consumer");
        assert_eq!(body["destination"], json!(["celery@vm"]));
        assert_eq!(body["reply_to"], json!({"exchange": "reply.celery.pidbox", "routing_key": "me"}));
    }

    #[test]
    fn replies_come_by_node() {
        let replies: Vec<_> = replies(br#"{"celery@vm": {"ok": "no longer consuming from q"}}"#).collect();
        assert_eq!(replies, [("celery@vm".to_owned(), json!({"ok": "no longer consuming from q"}))]);
    }
}
