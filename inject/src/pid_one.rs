//! Containers that mean process 1 of their own namespace. In: a pod. Out: what shows that one of them does, or None. Left to others: what an image's own entry
//! point is, which the pod does not say.
//!
//! In a shared process namespace process 1 is the pod's sandbox: an init system of an image refuses to start as any other, and a probe that asks for
//! process 1 asks the wrong one, for ever.

use crate::pod::{array, array_of, name};
use serde_json::Value;

/// Init systems that must be process 1 (s6-overlay: "s6-overlay-suexec: fatal: can only run as pid 1"; systemd(1); runit-init(8)).
const INITS: &[&str] =
    &["/init", "/sbin/init", "/usr/sbin/init", "/bin/systemd", "/lib/systemd/systemd", "/usr/lib/systemd/systemd", "/sbin/runit-init"];
/// Where images built on s6-overlay say so: its own variables (its README, "Customizing s6-overlay behaviour").
pub(crate) const S6_VARIABLES: &str = "S6_";

/// Why the pod's containers need process 1, in words that end a sentence.
pub(crate) fn reason(pod: &Value) -> Option<String> {
    array(pod, "containers").iter().find_map(|container| {
        let what = of_command(container).or_else(|| of_variables(container)).or_else(|| of_hooks(container))?;
        Some(format!("container {} {what}", name(container)))
    })
}

fn strings<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v str> {
    array_of(value, key).iter().filter_map(Value::as_str)
}

fn of_command(container: &Value) -> Option<String> {
    if let Some(init) = strings(container, "command").next().or_else(|| strings(container, "args").next()).filter(|c| INITS.contains(c)) {
        return Some(format!("starts {init}, which must be process 1"));
    }
    let names_it = strings(container, "command").chain(strings(container, "args")).any(names_process_one);
    names_it.then(|| "has a command that names process 1".to_owned())
}

fn of_variables(container: &Value) -> Option<String> {
    let variable = array_of(container, "env").iter().map(name).find(|variable| variable.starts_with(S6_VARIABLES))?;
    Some(format!("has the variable {variable}: its image's s6-overlay must be process 1"))
}

fn of_hooks(container: &Value) -> Option<String> {
    let probes = ["livenessProbe", "readinessProbe", "startupProbe"].into_iter().filter_map(|probe| Some((probe, container.get(probe)?)));
    let hooks = ["postStart", "preStop"].into_iter().filter_map(|hook| Some((hook, container.get("lifecycle")?.get(hook)?)));
    let (what, _) = probes.chain(hooks).find(|(_, handler)| {
        handler.get("exec").is_some_and(|exec| {
            let words: Vec<&str> = strings(exec, "command").collect();
            names_process_one(&words.join(" "))
        })
    })?;
    Some(format!("has a {what} that names process 1"))
}

/// Whether a shell text means process 1: its folder in `/proc`, or `1` as the operand of `kill`, `-p` or `--pid`.
fn names_process_one(text: &str) -> bool {
    if text.match_indices("/proc/1").any(|(at, found)| !text[at + found.len()..].starts_with(|c: char| c.is_ascii_alphanumeric())) {
        return true;
    }
    let ends = |c: char| c.is_whitespace() || ";&|()<>'\"`".contains(c);
    let words: Vec<&str> = text.split(ends).filter(|word| !word.is_empty()).collect();
    words.iter().enumerate().any(|(at, word)| match *word {
        "-p" | "--pid" => words.get(at + 1) == Some(&"1"),
        "--pid=1" => true,
        program if program == "kill" || program.ends_with("/kill") => {
            let mut rest = words[at + 1..].iter().copied();
            let first = rest.next();
            // `kill 1`, `kill -0 1`, `kill -s TERM 1`.
            first == Some("1")
                || first.is_some_and(|first| first.starts_with('-')) && {
                    let second = rest.next();
                    second == Some("1") || first == Some("-s") && rest.next() == Some("1")
                }
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_text_that_means_process_one_is_told_from_one_that_has_a_one_in_it() {
        for text in [
            "kill -0 1 && grep -q python /proc/1/cmdline",
            "kill 1",
            "/bin/kill -s USR1 1",
            "test -d /proc/1",
            "cat /proc/1/status",
            "ps -p 1 -o comm=",
            "exec cron -f > /proc/1/fd/1 2>&1",
            "(kill -TERM 1)",
            "nsenter --pid=1",
        ] {
            assert!(names_process_one(text), "{text}");
        }
        for text in [
            "kill -0 $(cat /run/pid)",
            "kill -1 12",
            "cat /proc/12/status",
            "sleep 1",
            "celery -c 1",
            "kill -9 10",
            "kill",
            "kill -s",
            "head -1 /proc/self/stat",
        ] {
            assert!(!names_process_one(text), "{text}");
        }
    }

    #[test]
    fn it_is_found_wherever_a_pod_may_say_it() {
        for (container, says) in [
            (json!({"command": ["/init"]}), "starts /init"),
            (json!({"args": ["/sbin/init"]}), "starts /sbin/init"),
            (json!({"command": ["sh", "-c", "exec worker > /proc/1/fd/1"]}), "a command that names process 1"),
            (json!({"env": [{"name": "S6_KEEP_ENV", "value": "1"}]}), "S6_KEEP_ENV"),
            (json!({"livenessProbe": {"exec": {"command": ["kill", "-0", "1"]}}}), "livenessProbe"),
            (json!({"lifecycle": {"postStart": {"exec": {"command": ["sh", "-c", "kill -USR2 1"]}}}}), "postStart"),
        ] {
            let mut container = container;
            container["name"] = json!("w");
            let reason = reason(&json!({"spec": {"containers": [{"name": "a"}, container]}})).unwrap();
            assert!(reason.starts_with("container w ") && reason.contains(says), "{reason}");
        }
        for container in
            [json!({"name": "w"}), json!({"command": ["tini", "--", "/init.sh"]}), json!({"livenessProbe": {"httpGet": {"path": "/proc/1/"}}})]
        {
            assert_eq!(reason(&json!({"spec": {"containers": [container]}})), None);
        }
    }
}
