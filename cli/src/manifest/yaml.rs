//! YAML as kubectl reads it. In: the text of a document, or a value. Out: the value, or a text that YAML 1.1 (kubectl's) and 1.2 read alike. Left to others: which
//! documents are read and written (`mod`).

use super::documents::is_plain;
use serde_json::Value;

/// Numbers that people write in octal, which only YAML 1.1 takes for numbers.
const MODES: &[&str] = &["defaultMode", "mode"];
/// Switches of a pod, which YAML 1.1 also takes as `yes` and `off`.
const SWITCHES: &[&str] = &[
    "allowPrivilegeEscalation",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostUsers",
    "optional",
    "paused",
    "privileged",
    "readOnly",
    "readOnlyRootFilesystem",
    "runAsNonRoot",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "stdin",
    "stdinOnce",
    "tty",
];
/// Maps of the user's own keys.
const FREE: &[&str] = &["annotations", "data", "labels", "matchLabels", "nodeSelector", "stringData"];
/// Words that are no strings in one version of YAML or the other.
const WORDS: &[&str] = &["true", "false", "yes", "no", "on", "off", "y", "n", "null"];

/// Reads a document.
///
/// # Errors
/// It is no YAML, or has keys that JSON cannot have; the words name the line.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let mut yaml: serde_yaml::Value = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    yaml.apply_merge().map_err(|error| error.to_string())?;
    let mut value = serde_json::to_value(yaml).map_err(|error| error.to_string())?;
    as_kubectl(&mut value);
    Ok(value)
}

fn as_kubectl(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(as_kubectl),
        Value::Object(map) => {
            for (key, value) in map.iter_mut().filter(|(key, _)| !FREE.contains(&key.as_str())) {
                let text = value.as_str().unwrap_or_default();
                let octal = || u32::from_str_radix(text.strip_prefix('0')?, 8).ok();
                let truth = || match text.to_ascii_lowercase().as_str() {
                    "yes" | "on" | "y" => Some(true),
                    "no" | "off" | "n" => Some(false),
                    _ => None,
                };
                if MODES.contains(&key.as_str())
                    && let Some(mode) = octal()
                {
                    *value = mode.into();
                } else if SWITCHES.contains(&key.as_str())
                    && let Some(truth) = truth()
                {
                    *value = truth.into();
                } else {
                    as_kubectl(value);
                }
            }
        }
        _ => {}
    }
}

/// Writes a document: keys in their order, two columns deeper at each level, as kubectl does.
pub(super) fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut out),
        Value::Array(items) if !items.is_empty() => block(value, 0, &mut out),
        Value::String(text) => out = string(text) + "\n",
        other => out = format!("{other}\n"),
    }
    out
}

fn is_block(value: &Value) -> bool {
    value.as_object().is_some_and(|map| !map.is_empty()) || value.as_array().is_some_and(|items| !items.is_empty())
}

/// A map or a list that has something in it, from a column on; the first line's own indentation is the caller's.
fn block(value: &Value, column: usize, out: &mut String) {
    let indent = " ".repeat(column);
    let mut first = true;
    let mut begin = |out: &mut String| {
        if !std::mem::take(&mut first) {
            *out += &indent;
        }
    };
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                begin(out);
                *out += &string(key);
                *out += ":";
                if is_block(value) {
                    // A list stands where its key does.
                    let deeper = if value.is_array() { column } else { column + 2 };
                    *out += &format!("\n{}", " ".repeat(deeper));
                    block(value, deeper, out);
                } else {
                    *out += &format!(" {}\n", flat(value, column + 2));
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                begin(out);
                *out += "- ";
                if is_block(item) { block(item, column + 2, out) } else { *out += &format!("{}\n", flat(item, column + 2)) }
            }
        }
        _ => {}
    }
}

/// What stands behind a key or a dash, without the last newline; lines that follow begin at the column.
fn flat(value: &Value, column: usize) -> String {
    match value {
        Value::String(text) => literal(text, column).unwrap_or_else(|| string(text)),
        other => other.to_string(),
    }
}

/// Several lines as they are.
fn literal(text: &str, column: usize) -> Option<String> {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let chomp = if body.len() == text.len() { "|-" } else { "|" };
    let clean = |line: &str| line.chars().all(|c| is_plain(c) || c == '\t') && !line.ends_with([' ', '\t']);
    let fits = body.contains('\n') && !body.starts_with([' ', '\n', '\t']) && !body.ends_with('\n') && body.split('\n').all(clean);
    fits.then(|| {
        let lines = body.split('\n').map(|line| if line.is_empty() { "\n".to_owned() } else { format!("\n{}{line}", " ".repeat(column)) });
        format!("{chomp}{}", lines.collect::<String>())
    })
}

/// Plain where no version of YAML can take it for anything but a string; else in double quotes, as JSON has it.
fn string(text: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(word)
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if plain {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            '\n' => out += "\\n",
            '\t' => out += "\\t",
            c if is_plain(c) => out.push(c),
            c => out += &format!("\\U{:08x}", u32::from(c)),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_only_kubectl_takes_for_a_number_or_a_truth_is_one() {
        let text = "a: &a {tty: yes}\nspec:\n  <<: *a\n  stdin: Off\n  volumes: [{secret: {defaultMode: 0400, optional: true}}]\n  labels: {tty: \"yes\"}\n  env: [{name: A, value: \"0400\"}]\n";
        let spec = json!({"stdin": false, "volumes": [{"secret": {"defaultMode": 256, "optional": true}}], "labels": {"tty": "yes"},
            "env": [{"name": "A", "value": "0400"}], "tty": true});
        assert_eq!(read(text).unwrap()["spec"], spec);
        assert!(read("a: 1\nb: [").unwrap_err().contains("line"));
    }

    #[test]
    fn a_manifest_is_written_as_people_write_it() {
        let value = json!({"kind": "List", "empty": {}, "none": [], "items": [{"name": "a", "args": ["-c", "x: y", "set -e\nexec run\n"]}, [1, [true]]],
            "version": "1_000", "on": "off", "mode": 420});
        let text = "kind: List\nempty: {}\nnone: []\nitems:\n- name: a\n  args:\n  - \"-c\"\n  - \"x: y\"\n  - |\n    set -e\n    exec run\n- - 1\n  - - true\n\
                    version: \"1_000\"\n\"on\": \"off\"\nmode: 420\n";
        assert_eq!(write(&value), text);
    }

    fn values() -> impl Strategy<Value = Value> {
        let text = "(a|1|0x|yes|~|null|: |#| |\n|\t|\r|\"|'|\\\\|-|&|\\*|!|%|@|`|\\{|\\[|,|é|\u{85}|\u{2028}|\u{feff}|\u{1}|\u{1f600}|\\.|e|_){0,8}";
        let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Into::into), any::<i64>().prop_map(Into::into), text.prop_map(Into::into)];
        leaf.prop_recursive(4, 40, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map(text, inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(value in values()) {
            let text = write(&value);
            let yaml: serde_yaml::Value = serde_yaml::from_str(&text).map_err(|e| TestCaseError::fail(format!("{e}:\n{text}")))?;
            prop_assert_eq!(serde_json::to_value(yaml).unwrap(), value, "{}", text);
        }
    }
}
