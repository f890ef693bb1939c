//! Entries that are longer than a message may be. In: a stream, a group, a consumer under whose name they are pending. Out: they are gone, and the number
//! of them; what is short enough stays pending. Left to others: noticing that there is one (`guard`).
//!
//! The pending list tells identifiers without bodies; each is then read alone, and the one at which the connection fails is it.

use super::{RedisLink, keys};
use crate::BrokerError;
use redis::{Value, cmd, pipe};

/// Pending entries looked at: a pod has one or two, the controller what it has just read.
const PENDING_MAX: usize = 1024;

/// Acknowledges and deletes them.
///
/// # Errors
/// When the broker cannot be reached, or the user lacks the right `xpending`.
pub(crate) async fn remove(link: &RedisLink, key: &str, group: &str, consumer: &str) -> Result<u64, BrokerError> {
    const OPERATION: &str = "removing an entry that is too long";
    let mut list = cmd("XPENDING");
    list.arg(key).arg(group).arg("-").arg("+").arg(PENDING_MAX).arg(consumer);
    let pending = match link.run(OPERATION, pipe().add_command(list)).await?.into_iter().next() {
        Some(Value::ServerError(error)) if error.code() == "NOGROUP" => return Ok(0),
        Some(Value::ServerError(error)) => return Err(link.error(OPERATION, &error.into())),
        answer => answer.map(|answer| keys::ids(&answer)).unwrap_or_default(),
    };
    let mut removed = 0;
    for id in pending {
        let Some(before) = keys::before(&id) else { continue };
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(group).arg(consumer).arg("COUNT").arg(1).arg("STREAMS").arg(key).arg(before);
        let result = link.run(OPERATION, pipe().add_command(read)).await;
        if !link.tripped() {
            result?;
            continue;
        }
        link.run_all(OPERATION, pipe().cmd("XACK").arg(key).arg(group).arg(&id).cmd("XDEL").arg(key).arg(&id)).await?;
        tracing::warn!(key, id, "an entry that is longer than a message may be is dropped, unread");
        removed += 1;
    }
    Ok(removed)
}
