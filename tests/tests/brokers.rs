//! The adapters of `broker` against real servers. In: Redis and RabbitMQ, started here. Out: the contract suite's verdict on each, and what only
//! one of them has: key layouts as frameworks write them, Sentinel, limited users, a missing management API. Left to others: real workers (`e2e`).

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "brokers/rabbitmq.rs"]
mod rabbitmq;
#[path = "brokers/redis_ages.rs"]
mod redis_ages;
#[path = "brokers/redis_contract.rs"]
mod redis_contract;
#[path = "brokers/redis_keys.rs"]
mod redis_keys;
#[path = "brokers/redis_users.rs"]
mod redis_users;
#[path = "brokers/tls.rs"]
mod tls;

use qscaler_broker::QueueQuery;
use qscaler_core::framework::framework;
use qscaler_core::message::{ControlKind, ControlMessage, Epoch, VERSION};
use qscaler_core::workload::{ControlAddress, WorkloadId};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Ends a condition that never comes true.
const DEADLINE: Duration = Duration::from_secs(60);

fn query(worker: &str, queue: &str) -> QueueQuery {
    QueueQuery::new(queue, framework(worker).unwrap())
}

fn address(name: &str) -> ControlAddress {
    ControlAddress::new(&WorkloadId { namespace: "shop".to_owned(), name: name.to_owned() }, &"d-1".into())
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn order(epoch: u64, target: Option<&str>) -> ControlMessage {
    ControlMessage {
        version: VERSION,
        kind: ControlKind::SigkillQueue,
        workload_uid: "w".into(),
        epoch: Epoch(epoch),
        issued_ms: now_ms(),
        expires_ms: now_ms() + 600_000,
        lease_ms: 60_000,
        target: target.map(str::to_owned),
    }
}

/// A report as a sidecar writes it.
fn report(name: &str, sequence: u64) -> qscaler_core::message::Report {
    qscaler_core::message::Report::decode(
        format!(
            r#"{{"version":1,"workload":{{"namespace":"shop","name":"{name}"}},"podUid":"a","podName":"pod-a","sequence":{sequence},"startedMs":1,
               "atMs":2,"state":"open","busy":"idle","access":"full"}}"#
        )
        .as_bytes(),
    )
    .unwrap()
}
