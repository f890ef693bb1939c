//! That no two types of a crate have one name. In: the tree's files. Out: each name that two modules give to a type of theirs that others may use. It leaves
//! to others types of one module alone, and names in different crates, where the path tells them apart.

use std::collections::BTreeMap;

use super::source::{code, is_test, is_word, line_of, mentions, shipped};

/// What makes a type.
const KINDS: &[&str] = &["struct", "enum", "type", "trait"];
/// Names that two types have still, by crate. This list may only become shorter.
const STILL: &[(&str, &str)] = &[("broker", "Link"), ("core", "Tick"), ("sidecar", "Celery")];
/// Crates that others build on, or that run in a cluster.
const CRATES: &[&str] = &["api", "broker", "broker-url", "certs", "controller", "core", "inject", "runtime", "sidecar", "webhook"];

/// Broken rules.
pub(super) fn broken(files: &BTreeMap<String, String>) -> Vec<String> {
    same(files, STILL)
}

fn same(files: &BTreeMap<String, String>, still: &[(&str, &str)]) -> Vec<String> {
    let mut homes: BTreeMap<(&str, String), Vec<String>> = BTreeMap::new();
    for (file, text) in files.iter().filter(|(file, _)| file.ends_with(".rs") && !is_test(file)) {
        let Some((name, inside)) = file.split_once("/src/") else { continue };
        if !CRATES.contains(&name) || inside == "main.rs" {
            continue;
        }
        let code = shipped(&code(text));
        for (at, found) in public_types(&code) {
            homes.entry((name, found)).or_default().push(format!("{file}:{}", line_of(&code, at)));
        }
    }
    let listed = |name: &str, found: &str| still.iter().any(|(crate_name, type_name)| *crate_name == name && *type_name == found);
    let twice = homes.iter().filter(|(_, places)| places.len() > 1);
    let mut broken: Vec<String> = twice
        .clone()
        .filter(|((name, found), _)| !listed(name, found))
        .map(|((_, found), places)| format!("two types are called {found}: {}", places.join(", ")))
        .collect();
    let gone = still.iter().filter(|(name, found)| !twice.clone().any(|((n, f), _)| n == name && f == found));
    broken
        .extend(gone.map(|(name, found)| format!("{name} has one type called {found} and is listed as having two (STILL): the list may be shorter")));
    broken
}

/// Types that other modules may use, and where they are.
fn public_types(code: &str) -> Vec<(usize, String)> {
    let of = |kind: &'static str| {
        mentions(code, kind).filter_map(move |at| {
            let before = code[..at].trim_end();
            let is_public = before.ends_with("pub") || (before.ends_with(')') && before.rsplit("pub(").next().is_some_and(|scope| scope.len() < 8));
            let name: String = code[at + kind.len()..].trim_start().chars().take_while(|c| is_word(*c)).collect();
            // What a trait requires or gives is reached by the trait alone.
            (is_public && !name.is_empty()).then_some((at, name))
        })
    };
    KINDS.iter().flat_map(|kind| of(kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_types_of_one_name_are_found_in_one_crate_and_the_list_of_those_that_are_left_shrinks() {
        let files: BTreeMap<String, String> = [
            ("core/src/size/pod.rs", "pub struct PodFacts;\nstruct Inner;\npub enum Phase {}"),
            ("core/src/drain/fleet.rs", "\npub(crate) struct PodFacts { a: u8 }\npub struct Inner;\nfn f(x: PodFacts) {}"),
            ("core/src/drain/tests.rs", "pub struct Phase;"),
            ("sidecar/src/hold/mod.rs", "pub struct Phase; impl T for U { type Phase = u8; }"),
        ]
        .map(|(file, text)| (file.to_owned(), text.to_owned()))
        .into();
        let found = same(&files, &[]);
        assert_eq!(found, ["two types are called PodFacts: core/src/drain/fleet.rs:2, core/src/size/pod.rs:1"]);
        assert_eq!(same(&files, &[("core", "PodFacts")]), Vec::<String>::new());
        assert!(same(&files, &[("core", "PodFacts"), ("core", "Phase")])[0].contains("may be shorter"));
    }
}
