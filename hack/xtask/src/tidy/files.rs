//! Rules about single files. In: a file's path and text. Out: one sentence per broken rule. It leaves to others which files there are, and rules that need
//! more than one of them.

use std::collections::BTreeMap;

use super::source::{code, is_test, line_of, mentions, shipped};

/// No file is longer, tests included: a reader keeps it in his head. Of Rust, Go, Python, Ruby, shell and JavaScript.
const LINES_MAX: usize = 500;
const LANGUAGES: &[&str] = &["rs", "go", "py", "rb", "sh", "js"];

/// Test programs and the tools of the tree: rules about clocks and bounds are for what runs in people's clusters.
const TOOLS: &[&str] = &["tests/", "hack/", "sim/", "model/"];

/// What reads the wall clock.
const WALL_CLOCK: &[&str] = &["SystemTime::now", "Utc::now", "Timestamp::now", "OffsetDateTime::now_utc", "OffsetDateTime::now_local", "Zoned::now"];
/// The one file of each crate that may, and what for. Whatever is measured is measured by a monotonic clock, which nobody can set.
const CLOCKS: &[(&str, &str)] = &[
    ("broker/src/clock.rs", "messages carry the hour at which they die, frameworks' books the hour of a worker's last beat"),
    ("certs/src/run.rs", "a certificate is valid from one hour to another"),
    ("cli/src/clock.rs", "expiry of certificates, renewal of the Lease"),
    ("controller/src/clock.rs", "times of objects, messages and Events"),
    ("sidecar/src/clock.rs", "messages carry the hour at which they die"),
    ("webhook/src/tls.rs", "how long the certificate is valid is a metric"),
];

/// Drivers: what observes and acts, and asks `core` to decide.
const DRIVERS: &[&str] = &["controller/src/", "sidecar/src/"];
/// Where a driver's words for people are made; they repeat what the user asked for.
const WORDS: &str = "controller/src/show/";
/// What the user has asked for. A driver that compares it with something decides, where neither model nor simulation sees it.
const POLICY: &[&str] =
    &["DeadlinePolicy", "OptimizeFor", "Paused", "Promise", "Scaling", "Vertical", ".dry_run", ".paused", ".scaling", ".vertical", ".optimize_for"];
/// Drivers that do so still, and how often. This list may only become shorter.
const POLICY_STILL: &[(&str, usize)] = &[];

/// Broken rules of one file of the tree.
pub(super) fn broken(file: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let extension = file.rsplit('.').next().unwrap_or_default();
    let lines = text.lines().count();
    if LANGUAGES.contains(&extension) && lines > LINES_MAX {
        broken.push(format!("{file} has {lines} lines; at most {LINES_MAX}"));
    }
    if extension != "rs" {
        return broken;
    }
    if !text.trim_start().starts_with("//!") {
        broken.push(format!("{file} does not open by saying what it is for (//!)"));
    }
    if TOOLS.iter().any(|folder| file.starts_with(folder)) || !file.contains("/src/") {
        return broken;
    }
    let code = shipped(&code(text));
    broken.extend(
        clamps(&code).map(|line| format!("{file}:{line} clamps to bounds that are computed, and clamp panics where they cross; use max and min")),
    );
    if !is_test(file) && CLOCKS.iter().all(|(clock, _)| *clock != file) {
        let read = WALL_CLOCK.iter().flat_map(|call| mentions(&code, call).map(move |at| (at, call)));
        broken.extend(read.map(|(at, call)| format!("{file}:{} calls {call}; the wall clock is read in one file of a crate", line_of(&code, at))));
    }
    broken
}

/// Exceptions that are not needed, and policy where none may be, over all files.
pub(super) fn broken_lists(files: &BTreeMap<String, String>) -> Vec<String> {
    let mut broken = Vec::new();
    for (clock, _) in CLOCKS {
        let code = files.get(*clock).map(|text| shipped(&code(text))).unwrap_or_default();
        if !WALL_CLOCK.iter().any(|call| mentions(&code, call).next().is_some()) {
            broken.push(format!("{clock} does not read the wall clock, and is listed as the file that does (CLOCKS)"));
        }
    }
    broken.extend(policy(files, POLICY_STILL));
    broken
}

/// Drivers that compare what the user has asked for, beyond those that are known to.
fn policy(files: &BTreeMap<String, String>, known: &[(&str, usize)]) -> Vec<String> {
    let is_driver = |file: &str| DRIVERS.iter().any(|d| file.starts_with(d)) && !file.starts_with(WORDS) && !is_test(file);
    let mut broken = Vec::new();
    for (file, text) in files.iter().filter(|(file, _)| is_driver(file)) {
        let found = decisions(text);
        let allowed = known.iter().find(|(name, _)| name == file).map_or(0, |(_, n)| *n);
        if found.len() > allowed {
            let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
            broken.push(format!("{file} decides by what the user asked for, in line {}; that is core's", lines.join(", ")));
        }
        if found.len() < allowed {
            broken.push(format!("{file} decides in {} places and {allowed} are listed (POLICY_STILL): the list may be shorter", found.len()));
        }
    }
    broken.extend(
        known.iter().filter(|(file, _)| !files.contains_key(*file)).map(|(file, _)| format!("{file} is listed (POLICY_STILL) and is not there")),
    );
    broken
}

/// Lines that name a value of the user's policy, or compare a field of it.
fn decisions(text: &str) -> Vec<usize> {
    let code = shipped(&code(text));
    let mut lines: Vec<usize> = POLICY
        .iter()
        .flat_map(|word| match word.strip_prefix('.') {
            Some(field) => {
                mentions(&code, field).filter(|at| code[..*at].ends_with('.') && !code[*at + field.len()..].starts_with('(')).collect::<Vec<_>>()
            }
            None => mentions(&code, word)
                .filter(|at| code[*at + word.len()..].starts_with("::") && !code[*at + word.len()..].starts_with("::default()"))
                .filter(|at| !in_use(&code, *at))
                .collect(),
        })
        .map(|at| line_of(&code, at))
        .collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

/// Whether a place is in a `use`.
fn in_use(code: &str, at: usize) -> bool {
    code[..at].rsplit([';', '}']).next().is_some_and(|item| item.trim_start().trim_start_matches("pub ").starts_with("use "))
}

/// Lines, counted from 1, that clamp to bounds other than literals and constants.
fn clamps(code: &str) -> impl Iterator<Item = usize> {
    code.match_indices("clamp(").filter(|(at, _)| code[..*at].ends_with(['.', ':'])).filter_map(|(at, _)| {
        let mut depth = 0_usize;
        let inside = code[at + "clamp(".len()..].split(|c| {
            match c {
                '(' => depth += 1,
                ')' if depth == 0 => return true,
                ')' => depth -= 1,
                _ => {}
            }
            false
        });
        let bounds = inside.into_iter().next().unwrap_or_default();
        bounds.chars().any(|c| c.is_lowercase()).then(|| line_of(code, at))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "//! In, out.\n";

    fn said(file: &str, text: &str) -> String {
        broken(file, &format!("{HEAD}{text}")).join("\n")
    }

    #[test]
    fn a_long_file_is_too_long_with_its_tests_and_in_every_language() {
        assert_eq!(said("a/src/b.rs", &"\n".repeat(499)), "");
        assert!(said("a/src/b.rs", &"\n".repeat(500)).contains("501 lines"));
        assert!(said("hack/x/main.go", &"\n".repeat(500)).contains("501 lines"));
        assert_eq!(said("charts/a.yaml", &"\n".repeat(900)), "");
        assert!(broken("a/src/b.rs", "use c::d;").join("").contains("does not open"));
    }

    #[test]
    fn a_clamp_to_constants_is_none_and_one_to_computed_bounds_is_found_where_it_is() {
        let text = "let a = b.clamp(0.0, MAX_S - 1.0);\nlet a = b.clamp(c, d);\nlet a = f64::clamp(b, c(), d); // .clamp(x, y)\nlet a = b.clamp(low(1), HIGH);";
        assert_eq!(clamps(&code(text)).collect::<Vec<_>>(), [2, 3, 4]);
        assert!(said("core/src/a.rs", text).contains("core/src/a.rs:3 clamps"), "{}", said("core/src/a.rs", text));
        assert_eq!(said("sim/src/a.rs", text), "");
    }

    #[test]
    fn the_wall_clock_is_read_in_one_file() {
        let text = "fn f() { std::time::SystemTime::now(); }\n// SystemTime::now()\n#[cfg(test)]\nmod tests { fn g() { Timestamp::now(); } }";
        assert!(said("controller/src/scale/mod.rs", text).contains("controller/src/scale/mod.rs:2 calls SystemTime::now"));
        assert!(said("webhook/src/a.rs", "fn f() { jiff::Timestamp::now() }").contains("Timestamp::now"));
        for free in ["controller/src/clock.rs", "tests/src/a.rs", "controller/src/lead/run_tests.rs"] {
            assert_eq!(said(free, text), "", "{free}");
        }
        let lists = broken_lists(&BTreeMap::from([("broker/src/clock.rs".to_owned(), text.to_owned())]));
        assert!(!lists.iter().any(|l| l.starts_with("broker/")) && lists.iter().any(|l| l.starts_with("certs/")), "{lists:?}");
    }

    #[test]
    fn a_driver_that_compares_what_the_user_asked_for_is_found_and_the_list_of_those_that_do_shrinks() {
        let text = "use a::Paused::All;\nfn f(c: &C) -> bool {\n    // Paused::All\n    matches!(c.paused, Paused::No) || c.dry_run\n}\nfn g(c: &C) { c.vertical(Paused::default()) }";
        let files = |file: &str| BTreeMap::from([(file.to_owned(), text.to_owned())]);
        let driver = "controller/src/scale/mod.rs";
        assert_eq!(decisions(text), [4]);
        assert!(policy(&files(driver), &[])[0].contains("in line 4"));
        assert_eq!(policy(&files(driver), &[(driver, 1)]), Vec::<String>::new());
        assert!(policy(&files(driver), &[(driver, 2)])[0].contains("may be shorter"));
        assert!(policy(&files(driver), &[(driver, 1), ("sidecar/src/gone.rs", 1)])[0].contains("is not there"));
        for free in ["core/src/scale/mod.rs", "controller/src/show/status.rs", "controller/src/scale/tests.rs"] {
            assert_eq!(policy(&files(free), &[]), Vec::<String>::new(), "{free}");
        }
    }
}
