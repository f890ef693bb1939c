//! That no two types that can meet have one name. In: the tree's files, and which crate depends on which. Out: each name that two modules of a crate give to types of theirs that
//! others may use, or that a crate gives to a type although a crate that it depends on has one of that name for all. It leaves to others types of one module alone.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{code, is_test, is_word, line_of, mentions, shipped};

/// What makes a type.
const KINDS: &[&str] = &["struct", "enum", "type", "trait"];
/// Crates that others build on, or that run in a cluster.
const CRATES: &[&str] = &["api", "broker", "broker-url", "certs", "cli", "controller", "core", "inject", "runtime", "sidecar", "sim", "webhook"];

/// Broken rules. `needs`: crates and what each depends on, by folder.
pub(super) fn broken(files: &BTreeMap<String, String>, needs: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut homes: BTreeMap<(&str, String), Vec<(String, bool)>> = BTreeMap::new();
    for (file, text) in files.iter().filter(|(file, _)| file.ends_with(".rs") && !is_test(file)) {
        let Some((name, inside)) = file.split_once("/src/") else { continue };
        if !CRATES.contains(&name) || inside == "main.rs" {
            continue;
        }
        let code = shipped(&code(text));
        for (at, found, for_all) in public_types(&code) {
            homes.entry((name, found)).or_default().push((format!("{file}:{}", line_of(&code, at)), for_all));
        }
    }
    let mut broken = Vec::new();
    for ((name, found), places) in &homes {
        let below = needs.get(*name).into_iter().flatten().filter_map(|below| homes.get(&(below.as_str(), found.clone()))).flatten();
        let met = below.filter(|(_, for_all)| *for_all);
        let all: BTreeSet<&str> = places.iter().chain(met).map(|(place, _)| place.as_str()).collect();
        if all.len() > 1 {
            broken.push(format!("two types are called {found}: {}", all.into_iter().collect::<Vec<_>>().join(", ")));
        }
    }
    broken
}

/// Types that other modules may use: where they are, and whether other crates may, too.
fn public_types(code: &str) -> Vec<(usize, String, bool)> {
    let of = |kind: &'static str| {
        mentions(code, kind).filter_map(move |at| {
            let before = code[..at].trim_end();
            let is_public = before.ends_with("pub") || (before.ends_with(')') && before.rsplit("pub(").next().is_some_and(|scope| scope.len() < 8));
            let name: String = code[at + kind.len()..].trim_start().chars().take_while(|c| is_word(*c)).collect();
            // What a trait requires or gives is reached by the trait alone.
            (is_public && !name.is_empty()).then_some((at, name, before.ends_with("pub")))
        })
    };
    KINDS.iter().flat_map(|kind| of(kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_types_of_one_name_are_found_in_one_crate_and_where_one_crate_sees_the_other() {
        let files: BTreeMap<String, String> = [
            ("core/src/size/pod.rs", "pub struct PodFacts;\nstruct Inner;\npub enum Phase {}"),
            ("core/src/drain/fleet.rs", "\npub(crate) struct PodFacts { a: u8 }\npub struct Inner;\npub(crate) struct Own;\nfn f(x: PodFacts) {}"),
            ("core/src/drain/tests.rs", "pub struct Phase;"),
            ("sidecar/src/hold/mod.rs", "pub struct Phase; pub struct Own; impl T for U { type Phase = u8; }"),
            ("webhook/src/world.rs", "pub struct Phase;"),
        ]
        .map(|(file, text)| (file.to_owned(), text.to_owned()))
        .into();
        let needs = BTreeMap::from([("sidecar".to_owned(), BTreeSet::from(["core".to_owned()]))]);
        let of_core = "two types are called PodFacts: core/src/drain/fleet.rs:2, core/src/size/pod.rs:1";
        assert_eq!(broken(&files, &BTreeMap::new()), [of_core]);
        assert_eq!(broken(&files, &needs), [of_core, "two types are called Phase: core/src/size/pod.rs:3, sidecar/src/hold/mod.rs:1"]);
    }
}
