//! Names and bounds of QScaler's own keys in Redis. In: an address, a pod. Out: keys, and the commands that make streams and read entries.
//! Left to others: sending the commands.

use qscaler_core::workload::ControlAddress;
use redis::{Cmd, Value, cmd};

/// The sidecars' group on control streams.
pub(crate) const SIDECARS: &str = "sidecars";
/// The controller's group on report streams, and its one consumer there: the next leader goes on where the last one stopped.
pub(crate) const CONTROLLER: &str = "controller";
/// The field that holds the JSON of an entry.
pub(crate) const FIELD: &str = "m";
/// A wave has at most as many messages as there are pods to park, and each is trimmed or taken; this bounds what nobody takes.
pub(crate) const CONTROL_ENTRIES_MAX: usize = 10_000;
/// One report per pod and a few seconds; the oldest go first when no controller reads.
pub(crate) const REPORT_ENTRIES_MAX: usize = 10_000;
/// A stream that no controller has declared for a week belongs to a workload that is gone.
pub(crate) const STREAM_TTL_MS: u64 = 7 * 24 * 3600 * 1000;
/// A pod's own stream outlives a restart of its sidecar, and the pod not by much; the sidecar renews it.
pub(crate) const POD_STREAM_TTL_MS: u64 = 10 * 60 * 1000;

pub(crate) fn control(address: &ControlAddress) -> String {
    format!("qscaler:ctl:{address}")
}

pub(crate) fn pod(address: &ControlAddress, pod_uid: &str) -> String {
    format!("qscaler:ctl:{address}:{pod_uid}")
}

pub(crate) fn reports(address: &ControlAddress) -> String {
    format!("qscaler:reports:{address}")
}

/// Makes stream and group; the error BUSYGROUP (it is there) is success.
pub(crate) fn create_group(key: &str, group: &str) -> Cmd {
    let mut command = cmd("XGROUP");
    command.arg("CREATE").arg(key).arg(group).arg("0").arg("MKSTREAM");
    command
}

/// Whether the answer to [`create_group`] means that the group exists now.
pub(crate) fn group_exists(answer: &Value) -> Result<(), redis::RedisError> {
    match answer {
        Value::ServerError(error) if error.code() == "BUSYGROUP" => Ok(()),
        Value::ServerError(error) => Err(error.clone().into()),
        _ => Ok(()),
    }
}

/// Adds an entry; the stream keeps about `max` of them.
pub(crate) fn add(key: &str, max: usize, json: &[u8]) -> Cmd {
    let mut command = cmd("XADD");
    command.arg(key).arg("MAXLEN").arg("~").arg(max).arg("*").arg(FIELD).arg(json);
    command
}

pub(crate) fn expire(key: &str, ttl_ms: u64) -> Cmd {
    let mut command = cmd("PEXPIRE");
    command.arg(key).arg(ttl_ms);
    command
}

/// One entry of a stream. `json` is None when the entry has been trimmed while it was pending, or has no such field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) id: String,
    pub(crate) json: Option<Vec<u8>>,
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        _ => &[],
    }
}

/// Entries as XAUTOCLAIM and XRANGE list them: `[[id, [field, value, …]], …]`.
pub(crate) fn entries(key: &str, list: &Value) -> Vec<Entry> {
    let entry = |item: &Value| {
        let [id, fields] = items(item) else { return None };
        let json = items(fields).chunks_exact(2).find(|pair| text(&pair[0]).as_deref() == Some(FIELD)).and_then(|pair| match &pair[1] {
            Value::BulkString(bytes) => Some(bytes.clone()),
            _ => None,
        });
        Some(Entry { key: key.to_owned(), id: text(id)?, json })
    };
    items(list).iter().filter_map(entry).collect()
}

/// Identifiers as XPENDING lists them: `[[id, consumer, idle, deliveries], …]`.
pub(crate) fn ids(answer: &Value) -> Vec<String> {
    items(answer).iter().filter_map(|item| text(items(item).first()?)).collect()
}

/// The identifier before this one; None: it is none.
pub(crate) fn before(id: &str) -> Option<String> {
    let (ms, sequence) = id.split_once('-')?;
    let (ms, sequence): (u64, u64) = (ms.parse().ok()?, sequence.parse().ok()?);
    match sequence.checked_sub(1) {
        Some(sequence) => Some(format!("{ms}-{sequence}")),
        None => Some(format!("{}-{}", ms.checked_sub(1)?, u64::MAX)),
    }
}

/// Entries as XREADGROUP gives them: nothing, or `[[key, entries], …]`.
pub(crate) fn read_entries(answer: &Value) -> Vec<Entry> {
    let stream = |item: &Value| match items(item) {
        [key, list] => text(key).map(|key| entries(&key, list)),
        _ => None,
    };
    items(answer).iter().filter_map(stream).flatten().collect()
}

/// Entries as XAUTOCLAIM gives them: `[next id, entries, ids of deleted ones]`.
pub(crate) fn claimed_entries(key: &str, answer: &Value) -> Vec<Entry> {
    items(answer).get(1).map(|list| entries(key, list)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use qscaler_core::workload::WorkloadId;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn the_identifier_before_is_the_next_smaller_one() {
        assert_eq!(before("5-3").as_deref(), Some("5-2"));
        assert_eq!(before("5-0"), Some(format!("4-{}", u64::MAX)));
        assert_eq!((before("0-0"), before("x"), before("1")), (None, None, None));
    }

    #[test]
    fn keys_are_those_of_the_wire_contract() {
        let orders = WorkloadId { namespace: "shop".into(), name: "orders".into() };
        let address = ControlAddress::new(&orders, &"d-9".into());
        assert_eq!(control(&address), "qscaler:ctl:shop/orders:d-9");
        assert_eq!(pod(&address, "u-1"), "qscaler:ctl:shop/orders:d-9:u-1");
        assert_eq!(reports(&address), "qscaler:reports:shop/orders:d-9");
        // Of a sidecar that was not told its workload's UID.
        let address = address.without_uid();
        assert_eq!(control(&address), "qscaler:ctl:shop/orders");
        assert_eq!(pod(&address, "u-1"), "qscaler:ctl:shop/orders:u-1");
        assert_eq!(reports(&address), "qscaler:reports:shop/orders");
    }

    #[test]
    fn entries_without_a_body_are_kept_so_that_they_can_be_acknowledged() {
        let answer = Value::Array(vec![Value::Array(vec![
            bulk("k"),
            Value::Array(vec![
                Value::Array(vec![bulk("1-0"), Value::Array(vec![bulk("x"), bulk("y"), bulk("m"), bulk("{}")])]),
                Value::Array(vec![bulk("2-0"), Value::Nil]),
                Value::Array(vec![bulk("3-0"), Value::Array(vec![bulk("other"), bulk("{}")])]),
            ]),
        ])]);
        let entry = |id: &str, json: Option<&str>| Entry { key: "k".into(), id: id.into(), json: json.map(|j| j.as_bytes().to_vec()) };
        assert_eq!(read_entries(&answer), [entry("1-0", Some("{}")), entry("2-0", None), entry("3-0", None)]);
        assert_eq!(read_entries(&Value::Nil), []);
    }
}
