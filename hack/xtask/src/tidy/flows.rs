//! That the controller's flows decide nothing: they gather what is known, ask `core`, and turn the answer into actions. In: the tree's files. Out: each place
//! where a flow has a time of its own after which things are otherwise, or comes to a verdict by itself. It leaves to others what compares the user's words
//! (`files`), and the waits and bounds of whoever speaks to a broker or the API server (`observe`, `act`, `lead`).

use std::collections::BTreeMap;

use super::source::{code, is_test, line_of, mentions, shipped};

/// Where the flows are.
const FLOWS: &[&str] =
    &["controller/src/drain/", "controller/src/mark/", "controller/src/scale/", "controller/src/size/", "controller/src/workload.rs"];
/// What `core` comes to. A flow may take it apart (`Cause::Bare =>`), and may not make one.
const VERDICTS: &[&str] = &["Cause", "CutCause", "Net", "Rule", "Stands", "WaitState"];
/// How constants that are times end.
const TIMES: &[&str] = &["_MS", "_S"];

/// Broken rules.
pub(super) fn broken(files: &BTreeMap<String, String>) -> Vec<String> {
    let flows = files.iter().filter(|(file, _)| FLOWS.iter().any(|flow| file.starts_with(flow)) && !is_test(file));
    let mut broken = Vec::new();
    for (file, text) in flows {
        let code = shipped(&code(text));
        let at = |at: usize| format!("{file}:{}", line_of(&code, at));
        broken.extend(times(&code).map(|place| format!("{} has a time after which things are otherwise; that is core's, with a test", at(place))));
        broken.extend(verdicts(&code).map(|place| format!("{} comes to a verdict of core's by itself", at(place))));
    }
    broken
}

/// Constants that are times.
fn times(code: &str) -> impl Iterator<Item = usize> {
    mentions(code, "const").filter(|at| {
        let name = code[at + "const".len()..].split(':').next().unwrap_or_default();
        TIMES.iter().any(|end| name.trim().ends_with(end))
    })
}

/// Places that name a verdict and are no pattern.
fn verdicts(code: &str) -> impl Iterator<Item = usize> {
    VERDICTS.iter().flat_map(move |verdict| mentions(code, verdict)).filter(|at| {
        let rest = code[*at..].trim_start_matches(char::is_alphanumeric);
        let Some(name) = rest.strip_prefix("::") else { return false };
        let length = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
        let is_variant = name.starts_with(char::is_uppercase) && name[..length].contains(char::is_lowercase);
        is_variant && !is_pattern(&name[length..])
    })
}

/// Whether what follows a variant's name makes it a pattern: its fields, and then an arrow or another pattern.
fn is_pattern(rest: &str) -> bool {
    let rest = rest.trim_start();
    let mut depth = 0_i32;
    let end = rest.find(|c| {
        depth += match c {
            '(' | '{' => 1,
            ')' | '}' => -1,
            _ => 0,
        };
        depth <= 0
    });
    let rest = if rest.starts_with(['(', '{']) { end.map_or("", |end| &rest[end + 1..]) } else { rest };
    rest.trim_start().starts_with("=>") || rest.trim_start().starts_with("| ") || rest.trim_start().starts_with("if ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, text: &str) -> Vec<String> {
        broken(&BTreeMap::from([(file.to_owned(), text.to_owned())]))
    }

    #[test]
    fn a_time_in_a_flow_is_found_and_one_where_somebody_waits_for_a_server_is_not() {
        let text = "/// Blind.\nconst BLIND_AFTER_MS: u64 = 5_000;\nconst TAKEN_MAX: usize = 10;\nconst TIMEOUT: Duration = Duration::from_secs(1);\n#[cfg(test)]\nmod tests { const T0_MS: u64 = 1; }";
        let all = found("controller/src/scale/mod.rs", text);
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].starts_with("controller/src/scale/mod.rs:2 has a time"), "{all:?}");
        for free in ["controller/src/act/echo.rs", "controller/src/scale/tests.rs", "core/src/scale/blind.rs"] {
            assert_eq!(found(free, text), Vec::<String>::new(), "{free}");
        }
    }

    #[test]
    fn a_verdict_that_a_flow_makes_is_found_and_one_that_it_takes_apart_is_not() {
        let made = "fn injected_cause(pod: &Pod) -> Option<Cause> {\n    if pod.read_only { return Some(Cause::WrongUser); }\n    (pod.image != new).then_some(Cause::OldSidecar)\n}";
        assert_eq!(found("controller/src/drain/replace.rs", made).len(), 2);
        assert_eq!(found("controller/src/scale/mod.rs", "learned |= decision.rule != Rule::Idle;").len(), 1);
        let taken = "match cause { Cause::Bare | Cause::OldSidecar => 1, Net::None(why) if why.is_empty() => 2, Net::Grace(Some(_)) => 3 }; Cause::of_bare(1, 2); CutCause::ALL.len(); Net::of_held(c, None);";
        assert_eq!(found("controller/src/drain/replace.rs", taken), Vec::<String>::new());
    }
}
