//! JSON Patch operations on a pod that stays raw JSON: no field that we do not know is ever lost. In: the pod, paths, values. Out: operations, with
//! missing parents added first. Left to others: which paths.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation};
use serde_json::{Map, Value};

/// Operations so far. `add` on an existing member replaces it, so nothing else is needed to set one.
pub(crate) struct Ops<'a> {
    pod: &'a Value,
    made: Vec<Vec<String>>,
    ops: Vec<PatchOperation>,
}

impl<'a> Ops<'a> {
    pub(crate) fn new(pod: &'a Value) -> Self {
        Self { pod, made: Vec::new(), ops: Vec::new() }
    }

    /// Sets a member of an object; parents that are missing or null become objects first. Numbers in the path are positions in the pod's
    /// existing arrays.
    pub(crate) fn set(&mut self, path: &[&str], value: Value) {
        let mut here = Some(self.pod);
        for depth in 1..path.len() {
            let parent = here;
            here = here.and_then(|v| step(v, path[depth - 1]));
            let prefix = &path[..depth];
            let fits = match here {
                Some(Value::Object(_)) => true,
                Some(Value::Array(_)) => path[depth].parse::<usize>().is_ok(),
                _ => false,
            };
            if !fits && !self.made.iter().any(|m| m == prefix) {
                self.made.push(prefix.iter().map(|t| (*t).to_owned()).collect());
                // In a list `add` would move what is there.
                match parent.filter(|_| here.is_some()) {
                    Some(Value::Array(_)) => self.replace(prefix, Value::Object(Map::new())),
                    _ => self.push(prefix, Value::Object(Map::new())),
                }
            }
        }
        self.push(path, value);
    }

    /// Inserts into an array, which is made if it is missing.
    pub(crate) fn insert(&mut self, array: &[&str], position: usize, value: Value) {
        if array.iter().try_fold(self.pod, |v, token| step(v, token)).is_some_and(Value::is_array) {
            let position = position.to_string();
            let path: Vec<&str> = array.iter().copied().chain([position.as_str()]).collect();
            self.push(&path, value);
        } else {
            self.set(array, Value::Array(vec![value]));
        }
    }

    /// Puts another value where one is, also in an array.
    pub(crate) fn replace(&mut self, path: &[&str], value: Value) {
        self.ops.push(PatchOperation::Replace(ReplaceOperation { path: PointerBuf::from_tokens(path.iter().copied()), value }));
    }

    /// Removes what is there.
    pub(crate) fn remove(&mut self, path: &[&str]) {
        self.ops.push(PatchOperation::Remove(RemoveOperation { path: PointerBuf::from_tokens(path.iter().copied()) }));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub(crate) fn finish(self) -> Patch {
        Patch(self.ops)
    }

    fn push(&mut self, path: &[&str], value: Value) {
        self.ops.push(PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path.iter().copied()), value }));
    }
}

fn step<'v>(value: &'v Value, token: &str) -> Option<&'v Value> {
    match value {
        Value::Object(map) => map.get(token),
        Value::Array(items) => items.get(token.parse::<usize>().ok()?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn applied(mut pod: Value, with: impl FnOnce(&mut Ops<'_>)) -> Value {
        let before = pod.clone();
        let mut ops = Ops::new(&before);
        with(&mut ops);
        json_patch::patch(&mut pod, &ops.finish()).unwrap();
        pod
    }

    #[test]
    fn missing_and_null_parents_are_made_once() {
        for pod in [json!({}), json!({"metadata": null}), json!({"metadata": {"annotations": null}})] {
            let pod = applied(pod, |ops| {
                ops.set(&["metadata", "annotations", "a"], json!("1"));
                ops.set(&["metadata", "annotations", "b"], json!("2"));
            });
            assert_eq!(pod, json!({"metadata": {"annotations": {"a": "1", "b": "2"}}}));
        }
    }

    #[test]
    fn what_is_no_object_in_a_list_makes_room_for_one_and_moves_nothing() {
        for no_object in [json!(""), json!(null), json!([])] {
            let pod = applied(json!({"a": [no_object, {"keep": "me"}]}), |ops| {
                ops.set(&["a", "0", "x", "y"], json!(1));
                ops.set(&["a", "1", "x"], json!(2));
            });
            assert_eq!(pod, json!({"a": [{"x": {"y": 1}}, {"keep": "me", "x": 2}]}));
        }
    }

    #[test]
    fn slash_and_tilde_in_a_key_are_escaped() {
        let pod = applied(json!({"metadata": {"annotations": {"k~/x": "old", "keep": "me"}}}), |ops| {
            ops.set(&["metadata", "annotations", "k~/x"], json!("new"));
        });
        assert_eq!(pod, json!({"metadata": {"annotations": {"k~/x": "new", "keep": "me"}}}));
    }

    #[test]
    fn an_array_is_made_or_inserted_into() {
        for (pod, expected) in [(json!({}), json!([9])), (json!({"a": null}), json!([9])), (json!({"a": [1, 2]}), json!([1, 9, 2]))] {
            assert_eq!(applied(pod, |ops| ops.insert(&["a"], 1, json!(9)))["a"], expected);
        }
    }
}
