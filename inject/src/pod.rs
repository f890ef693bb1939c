//! Reading a pod as JSON. In: a pod, a container, or a part of one. Out: its lists and names, empty where they are absent. Left to others: what they mean.

use serde_json::Value;

/// A container's preStop hook.
pub(crate) fn pre_stop(container: &Value) -> Option<&Value> {
    container.get("lifecycle")?.get("preStop").filter(|hook| !hook.is_null())
}

/// A list of the pod's `spec`; empty where there is none.
pub(crate) fn array<'v>(pod: &'v Value, list: &str) -> &'v [Value] {
    pod.get("spec").map_or(&[], |spec| array_of(spec, list))
}

/// A list by its key; empty where there is none.
pub(crate) fn array_of<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// `name`, or nothing.
pub(crate) fn name(value: &Value) -> &str {
    value.get("name").and_then(Value::as_str).unwrap_or_default()
}
