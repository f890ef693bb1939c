//! One look from outside at whether a pod's workers have a task, for pods that have no sidecar. In: the workers' broker, the pod's host name and address.
//! Out: what the framework's books, its remote control or RabbitMQ say. Left to others: what follows (`controller`).
//!
//! Only sources that tell of the whole pod count. Celery's remote control reaches every pool but the solo one, which answers nobody while it works: then no
//! node answers, and nothing is known.

use super::{Bookkeeping, CeleryRemote, Seen, Whose};
use crate::BrokerError;
use qscaler_core::framework::BusySource;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::Duration;

/// How long nodes are waited for that may answer; a node that has nothing to do answers within milliseconds.
const ANSWER: Duration = Duration::from_secs(2);

/// What the broker knows now of the workers with this host name and address. `name` tells this caller from others.
///
/// # Errors
/// When the broker cannot be reached or refuses.
pub async fn look(url: &str, whose: &Whose<'_>, name: &str, host: &str, address: Option<IpAddr>) -> Result<Seen, BrokerError> {
    if whose.framework.busy == BusySource::CeleryEvents {
        let prefix = whose.names.prefix(whose.framework.prefix);
        return celery(&mut CeleryRemote::connect(url, name, &prefix).await?, host).await;
    }
    match Bookkeeping::open(url, whose, host, address)? {
        Some(mut books) => books.sample().await,
        None => Ok(Seen::Unknown),
    }
}

/// Idle: each node on the host runs nothing and holds nothing that it would still run.
async fn celery(remote: &mut CeleryRemote, host: &str) -> Result<Seen, BrokerError> {
    let nodes = remote.nodes_on(host, ANSWER).await?;
    if nodes.is_empty() {
        return Ok(Seen::Unknown);
    }
    let mut idle = true;
    for method in ["reserved", "active"] {
        let replies = remote.call(method, json!({}), &nodes, ANSWER).await?;
        let tasks: usize = replies.values().filter_map(Value::as_array).map(Vec::len).sum();
        if tasks > 0 {
            return Ok(Seen::Busy(u32::try_from(tasks).ok().filter(|_| method == "active")));
        }
        idle &= nodes.iter().all(|node| replies.get(node).is_some_and(Value::is_array));
    }
    Ok(if idle { Seen::Idle } else { Seen::Unknown })
}
